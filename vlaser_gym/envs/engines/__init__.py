"""Engines: who simulates a scene. Each is imported only when it is asked for."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, cast

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.engines.base import (
    ActingEngine,
    DrivenEngine,
    Engine,
    Placement,
    Reading,
    Verdict,
    read_image_size,
    refuse_other_cameras,
)
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import Task, get_task
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.registry import ENGINES
from vlaser_gym.storage.interrupts import uninterrupted

#: The package's own: name -> (class, looks); the first look is the one that is meant where none is named.
_ENGINES: dict[str, tuple[str, tuple[str, ...]]] = {
    "mujoco": ("vlaser_gym.envs.engines.mujoco.engine:MujocoEngine", ("builtin", "original")),
    "maniskill": ("vlaser_gym.envs.engines.maniskill.engine:ManiskillEngine", ("original",)),
    "simpler": ("vlaser_gym.envs.engines.simpler.engine:SimplerEngine", ("original",)),
}

#: Engines that lack some of our episodes: what raises for (task, variant, layout) of those.
_EPISODES = {"simpler": "vlaser_gym.envs.engines.simpler.episodes:episode_of"}

#: Engines whose environments are processes of so much memory that it limits how many fit: what says how many (engine's
#: settings, images wanted) leave room here.
_MEMORY = {"simpler": "vlaser_gym.envs.engines.simpler.memory:lanes_that_fit"}

#: Engines with settings of their own: what looks at (task, engine's settings), and what says their values.
_SETTINGS = {
    "simpler": (
        "vlaser_gym.envs.engines.simpler.settings:check_given",
        "vlaser_gym.envs.engines.simpler.settings:settings_of",
    )
}

__all__ = [
    "ActingEngine",
    "DrivenEngine",
    "Engine",
    "Placement",
    "Reading",
    "Verdict",
    "check_counts",
    "check_engine",
    "check_episodes",
    "check_limit",
    "effective_settings",
    "engine_names",
    "lanes_that_fit",
    "make_engine",
    "published_settings",
]


def engine_names() -> tuple[str, ...]:
    """Names that :func:`make_engine` takes; it also takes import strings."""
    return tuple(ENGINES)


def check_engine(name: str, look: str | None = None) -> str:
    """Complain about an unknown engine or look before anything is built.

    Returns:
        The look; the engine's first where none is named.

    Raises:
        UnknownNameError: if the engine, or the look for that engine, does not exist.
        InvalidConfigError: for an import string that does not import.
    """
    looks: tuple[str, ...] = (
        _ENGINES[name][1] if name in _ENGINES else getattr(ENGINES.find(name), "looks", ("builtin",))
    )
    if look is not None and look not in looks:
        raise UnknownNameError(f"look of engine {name!r}", look, looks)
    return looks[0] if look is None else look


def check_counts(engine: Mapping[str, Any]) -> None:
    """Check that an engine's settings name possible numbers of threads, processes and pixels.

    Engines look at them only when they build what they count, and then not kindly.

    Raises:
        InvalidConfigError: with the first that is not.
    """
    for key, least in (("threads", 0), ("render_processes", 1), ("processes", 1)):
        value = engine.get(key, least)
        unset = value is None and key != "threads"
        if not unset and (type(value) is not int or value < least):
            raise InvalidConfigError(f"engine.{key} must be a whole number from {least} on; got {value!r}.")
    read_image_size(engine.get("image_size"))


def check_episodes(engine: Mapping[str, Any], addresses: Iterable[Address]) -> None:
    """Complain about episodes that an engine does not have, and settings that it would ignore, before it is built.

    Raises:
        InvalidConfigError: for the first of them.
    """
    name, addresses = engine["name"], list(addresses)
    if name in _SETTINGS:
        check = _find(_SETTINGS[name][0])
        for task in dict.fromkeys(address.task for address in addresses):
            check(get_task(task), engine)
    if name in _EPISODES:
        find = _find(_EPISODES[name])
        for task, variant, layout in dict.fromkeys((a.task, a.variant, a.layout) for a in addresses):
            find(get_task(task), variant, layout)


def check_limit(engine: Mapping[str, Any], tasks: Iterable[Task], limit: int | None) -> None:
    """Complain about episodes longer than a simulator runs that ends them itself.

    Raises:
        InvalidConfigError: for a limit above that of one of the tasks.
    """
    shortest = min((task.max_steps for task in tasks), default=0)
    if limit is not None and engine["name"] == "simpler" and limit > shortest:
        raise InvalidConfigError(
            f"engine=simpler ends episodes by itself after {shortest} control steps; got max_episode_steps={limit}: "
            "choose fewer, or engine=mujoco."
        )


def lanes_that_fit(engine: str, wanted: int, pictures: bool) -> int:
    """The number of environments, at most ``wanted`` and at least one, that fit into this machine's free memory.

    Args:
        engine: its name.
        wanted: environments that are asked for.
        pictures: images will be asked for.
    """
    return min(wanted, _find(_MEMORY[engine])(pictures)) if engine in _MEMORY else wanted


def effective_settings(engine: Mapping[str, Any], task: Task, limit: int | None = None) -> dict[str, Any]:
    """Values by which an engine runs a task, as far as an episode's address does not decide them.

    Args:
        engine: its name and its options.
        task: what is run.
        limit: of control steps, in place of the task's own.

    Returns:
        ``control_freq`` (Hz), ``max_steps``, ``camera``, and what the engine says of itself.
    """
    setup = get_setup(task.robot_setup)
    size = engine.get("image_size") or f"{setup.camera.width}x{setup.camera.height}"
    camera = f"{setup.camera.name} {size}"
    own = {name: engine[name] for name in ("sim_backend",) if name in engine}
    if engine["name"] in _SETTINGS:
        own = _find(_SETTINGS[engine["name"]][1])(task, engine)
    return {"control_freq": setup.control_hz, "max_steps": limit or task.max_steps, "camera": camera, **own}


def published_settings(task: Task) -> dict[str, Any]:
    """The :func:`effective_settings` of the published evaluations: those of the original without changes."""
    return {**effective_settings({"name": "simpler"}, task), "sim_backend": "cpu"}


def _find(place: str) -> Any:
    module, attribute = place.split(":")
    with uninterrupted():  # inside a compiled module's import an interrupt would become an ImportError
        return getattr(import_module(module), attribute)


def make_engine(
    name: str,
    num_lanes: int,
    look: str | None = None,
    options: Mapping[str, Any] | None = None,
    cameras: Iterable[str] = (),
) -> Engine:
    """An engine with ``num_lanes`` environments.

    Args:
        name: which.
        num_lanes: number of simulations.
        look: what images look like; None for the engine's first look.
        options: its constructor's keyword arguments.
        cameras: those that it will be asked for images of; see :class:`Engine` for how an engine is told that there
            are none.

    Raises:
        UnknownNameError: if the engine, the look or an option does not exist.
        InvalidConfigError: if it cannot show one of the cameras.
    """
    look = check_engine(name, look)
    constructor = _find(_ENGINES[name][0]) if name in _ENGINES else ENGINES.find(name)
    parameters = inspect.signature(constructor).parameters
    valid = [key for key in list(parameters)[1:] if key not in ("look", "pictures")]
    cameras = tuple(cameras)
    wanted = {"pictures": bool(cameras)} if "pictures" in parameters else {}
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for key in options or {}:
        if key not in valid and not takes_all:
            raise UnknownNameError(f"option of engine {name!r}", key, valid)
    if getattr(constructor, "policy_camera_only", False):
        refuse_other_cameras(name, cameras)
    return cast(Engine, constructor(num_lanes, look=look, **wanted, **(options or {})))
