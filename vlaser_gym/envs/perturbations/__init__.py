"""Perturbations of episodes, by name: what ``perturb=`` of an evaluation means.

One of your own is a subclass of :class:`Perturbation`, as ``perturb=module:Class`` or ``perturb=module:Class:LEVEL``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlaser_gym.envs.perturbations import motion, pictures, scenes, things, words
from vlaser_gym.envs.perturbations.base import DEFAULT_LEVEL, FAMILIES, LEVELS, Moment, Perturbation, Shift
from vlaser_gym.envs.tasks.base import Task
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.registry import import_string

__all__ = [
    "DEFAULT_LEVEL",
    "FAMILIES",
    "LEVELS",
    "PERTURBATIONS",
    "SUITE",
    "Moment",
    "Perturbation",
    "Shift",
    "check_perturbation",
    "find_perturbations",
    "get_perturbation",
]

#: All of them, family after family.
PERTURBATIONS: dict[str, type[Perturbation]] = {
    kind.name: kind
    for kind in (
        pictures.ImageNoise,
        pictures.Blur,
        pictures.Jpeg,
        pictures.Exposure,
        scenes.LightDirection,
        scenes.LightColour,
        scenes.CameraPose,
        scenes.FocalLength,
        scenes.TableTexture,
        scenes.Background,
        things.Distractors,
        words.Paraphrase,
        words.LongInstruction,
        words.Typos,
        things.ObjectColour,
        things.UnseenObject,
        things.AnotherTarget,
        motion.ActionNoise,
        motion.Delay,
        motion.ProprioNoise,
        scenes.StartPose,
        scenes.Friction,
        scenes.Mass,
        things.ObjectSize,
        scenes.ObjectMoved,
        pictures.BlankImage,
        words.NoInstruction,
        words.WrongInstruction,
    )
}
#: What names all of them.
SUITE = "suite"


def get_perturbation(text: str) -> Perturbation:
    """The perturbation that ``NAME``, ``NAME:LEVEL``, ``module:Class`` or ``module:Class:LEVEL`` means.

    Raises:
        UnknownNameError: for a name or a level that does not exist.
        InvalidConfigError: for an import string of nothing, or of something that is no perturbation.

    Example:
        >>> get_perturbation("blur:hard").meaning
        'Gaussian blur with a standard deviation of 6 pixels'
    """
    name, level = _split(text)
    if name in PERTURBATIONS:
        return PERTURBATIONS[name](level)
    if ":" not in name:
        raise UnknownNameError("perturb", name, (SUITE, *FAMILIES, *PERTURBATIONS))
    kind = import_string(name, "perturb")
    if not (isinstance(kind, type) and issubclass(kind, Perturbation)):
        raise InvalidConfigError(
            f"perturb={name} must be a subclass of vlaser_gym.envs.perturbations.Perturbation; got {kind!r}."
        )
    found = kind(level)
    found.label = f"{name}:{found.level}" if found.level else name
    return found


def find_perturbations(texts: Sequence[str]) -> list[Perturbation]:
    """The perturbations that names, families (``vision``, ``vision:hard``) and ``suite`` mean, each once.

    Raises:
        UnknownNameError, InvalidConfigError: as :func:`get_perturbation`.
    """
    found: dict[str, Perturbation] = {}
    for text in texts:
        name, level = _split(text)
        group = [kind for kind in PERTURBATIONS.values() if name in (SUITE, kind.family)]
        for one in [kind(level) for kind in group] or [get_perturbation(text)]:
            found[one.label] = one
    return list(found.values())


def check_perturbation(perturbation: Perturbation, engine: Mapping[str, Any], look: str, tasks: Sequence[Task]) -> None:
    """Complain about a perturbation that an engine cannot do, a look would hide, or a task has nothing for.

    Raises:
        InvalidConfigError: if so.
    """
    name = engine["name"]
    if perturbation.engines and name not in perturbation.engines:
        raise InvalidConfigError(
            f"perturb={perturbation.name} needs engine={' or '.join(perturbation.engines)}; got engine={name}."
        )
    if perturbation.looks and look not in perturbation.looks:
        raise InvalidConfigError(
            f"perturb={perturbation.name} would be hidden by the photograph of look={look}: choose "
            f"look={' or '.join(perturbation.looks)}, for the unperturbed arm too."
        )
    if engine.get("image_size") is not None and perturbation.counts_pixels:
        raise InvalidConfigError(
            f"perturb={perturbation.name} is measured in the pixels of the camera's own images: leave "
            f"engine.image_size={engine['image_size']} out, for the unperturbed arm too."
        )
    for task in tasks:
        if not perturbation.applies(task):
            raise InvalidConfigError(f"perturb={perturbation.name} has nothing to change in {task.name}: leave it out.")


def _split(text: str) -> tuple[str, str]:
    """Name and level of what ``perturb=`` names; of an import string only one of :data:`LEVELS` is a level."""
    name, colon, level = text.rpartition(":")
    if colon and (level in LEVELS or name in (SUITE, *FAMILIES, *PERTURBATIONS)):
        return name, level
    return text, DEFAULT_LEVEL
