"""Settings as the command line's words, the way back from :func:`vlaser_gym.cli.load`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.override_parser.types import Quote, QuotedString

from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.settings.groups import groups

#: Texts that need no quotes in Hydra's grammar, sizes of images among them, but for the words of it that look like one.
_PLAIN = re.compile(r"[A-Za-z_/][\w./:-]*\w|\d+x\d+")
_NOT_TEXT = ("true", "false", "null", "nan", "inf")


def overrides(config_name: str, **keys: Any) -> list[str]:
    """Keyword arguments as the command line's words; those that are ``None`` at the top are left at their default.

    Raises:
        InvalidConfigError: for a value that no command line could hold.

    Example:
        >>> overrides("train", algo={"name": "ppo", "iterations": 2}, data=["a b"], seed=None)
        ['algo=ppo', 'algo.iterations=2', "data=['a b']"]
    """
    chosen = groups()
    words: list[str] = []
    for key, value in keys.items():
        if value is None:
            continue
        if key in chosen and isinstance(value, str):
            words.append(f"{key}={value}")
        elif key in chosen and isinstance(value, Mapping):
            words += _group(key, value, chosen[key])
        elif isinstance(value, Mapping):
            words += _entries(key, value)
        else:
            words.append(f"{key}={_word(key, value)}")
    return words


def _group(group: str, settings: Mapping[str, Any], options: list[str]) -> list[str]:
    """A group's option and its keys. A name that is no option is an agent's label, or an engine from outside."""
    name = settings.get("name")
    begin = [f"{group}={name}"] if name is not None and (name in options or "_target_" not in settings) else []
    return begin + _entries(group, {key: value for key, value in settings.items() if key != "name" or not begin})


def _entries(key: str, values: Mapping[str, Any]) -> list[str]:
    return [f"{key}.{name}={_word(f'{key}.{name}', value)}" for name, value in values.items()]


def _word(key: str, value: Any) -> str:
    """A value as Hydra's grammar writes it."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        if _PLAIN.fullmatch(str(value)) and str(value).lower() not in _NOT_TEXT:
            return str(value)
        return str(QuotedString(str(value), Quote.single).with_quotes())
    if isinstance(value, list | tuple):
        return f"[{','.join(_word(key, item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{name}:{_word(key, item)}' for name, item in value.items())}}}"
    raise InvalidConfigError(
        f"{key} should be a text, a path, a number, true or false, None, or a list or mapping of such; got a "
        f"{type(value).__name__}."
    )
