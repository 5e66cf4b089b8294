"""Configuration groups: agents, engines and launchers by files in ``configs/``, algorithms by classes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from vlaser_gym.errors import UnknownNameError
from vlaser_gym.settings.algorithms import ALGORITHM_SETTINGS
from vlaser_gym.settings.fields import REQUIRED, Option, defaults_of, first_paragraph, group_field, options_of

CONFIG_DIR = Path(__file__).resolve().parent.parent / "configs"
ALGORITHMS = "algo"
#: How the text of a config says that a value must be given.
MISSING = "???"


def groups() -> dict[str, list[str]]:
    """Config groups and their options: the files that exist, and the algorithms that are known."""
    folders = sorted(path for path in CONFIG_DIR.iterdir() if path.is_dir())
    files = {folder.name: sorted(path.stem for path in folder.glob("*.yaml")) for folder in folders}
    return {ALGORITHMS: sorted(ALGORITHM_SETTINGS), **files}


def check_option(group: str, option: str) -> None:
    """Raise :class:`UnknownNameError` for an option that a group does not have; it lists the nearest."""
    if option not in groups()[group]:
        raise UnknownNameError(group, option, groups()[group])


def group_defaults(group: str, option: str) -> dict[str, Any]:
    """The keys of one option of a group with their defaults, references in them as they are written.

    Raises:
        UnknownNameError: if there is no such option; it lists the nearest.
    """
    check_option(group, option)
    if group == ALGORITHMS:
        return {"name": option, **config_defaults(ALGORITHM_SETTINGS[option])}
    return cast(dict[str, Any], OmegaConf.to_container(_file(group, option)))


def config_defaults(cls: type) -> dict[str, Any]:
    """The keys of a dataclass with their defaults, as a config has them."""
    return {key: _written(value) for key, value in defaults_of(cls).items() if key != "name"}


def _written(value: Any) -> Any:
    return MISSING if value is REQUIRED else list(value) if isinstance(value, tuple) else value


def described(group: str, option: str) -> tuple[str, dict[str, Option]]:
    """The description of one option of a group and of its keys."""
    if group == ALGORITHMS:
        cls = ALGORITHM_SETTINGS[option]
        return first_paragraph(cls), {key: known for key, known in options_of(cls).items() if key != "name"}
    intro, comments = _comments(CONFIG_DIR / group / f"{option}.yaml")
    return intro, {key: Option(sentence=sentence) for key, sentence in comments.items()}


def chosen(group: str, option: str) -> Any:
    """A field of a command's settings: the option chosen of a group, which begins with this one."""
    return group_field(group, option, lambda: group_defaults(group, option))


@cache
def _file(group: str, option: str) -> Any:
    """A file of the package; not to be changed."""
    return OmegaConf.load(CONFIG_DIR / group / f"{option}.yaml")


def _comments(path: Path) -> tuple[str, dict[str, str]]:
    """Opening comment of a YAML file, and the comment above each of its top-level keys that has one."""
    intro, sentences, comments = "", {}, list[str]()
    for line in path.read_text(encoding="utf-8").splitlines():
        key, colon, _ = line.partition(":")
        if line.startswith("#"):
            comments.append(line.removeprefix("#").strip())
            continue
        if not intro:
            intro, comments = " ".join(comments), []
        if colon and key.isidentifier() and comments:
            sentences[key] = " ".join(comments)
        comments = []
    return intro, sentences
