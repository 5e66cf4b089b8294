"""Settings whose default, sentence and range stand beside the field, once.

A dataclass made of :func:`option` fields is all that a command or an algorithm says of its keys: the config that the
command line changes, ``--help`` and the errors come from it.

Example:
    >>> @dataclass
    ... class Walk(Settings):
    ...     '''Walk some steps.'''
    ...
    ...     steps: int = option(3, "Steps to walk.", least=1)
    >>> Walk().steps
    3
    >>> Walk(steps=0)
    Traceback (most recent call last):
    ...
    vlaser_gym.errors.InvalidConfigError: steps must be at least 1; got 0.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import MISSING, dataclass, field, fields
from types import NoneType
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from vlaser_gym.errors import InvalidConfigError, UnknownNameError

#: In place of a default: the key must be given.
REQUIRED: Any = object()
_OPTION, _GROUP = "option", "group"


@dataclass(frozen=True, kw_only=True)
class Option:
    """The metadata of a field besides its name, type and default.

    Attributes:
        sentence: what it means, complete in itself.
        least, above, most, below: its range.
        choices: the texts that it may be; of a list, each of its items. Those of a ``Literal`` need not be repeated.
    """

    sentence: str = ""
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    choices: Collection[str] = ()

    @property
    def range(self) -> str:
        """Range of the setting in words, such as ``at least 1``; empty where it has none."""
        if self.least is not None and (self.most, self.below) != (None, None):
            end = f"{self.below:g})" if self.most is None else f"{self.most:g}]"
            return f"in [{self.least:g}, {end}"
        limits = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        return " and ".join(f"{word} {limit:g}" for word, limit in limits.items() if limit is not None)

    def holds(self, value: Any) -> bool:
        """True if a value is a number within the range."""
        try:
            return (
                (self.least is None or value >= self.least)
                and (self.above is None or value > self.above)
                and (self.most is None or value <= self.most)
                and (self.below is None or value < self.below)
            )
        except TypeError:
            return False


def option(
    default: Any,
    sentence: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    choices: Collection[str] = (),
) -> Any:
    """A field of a settings dataclass that is a key of the command line.

    Args:
        default: its value where nothing is given; :data:`REQUIRED` if something must be.
        sentence: what it means: a full noun phrase or sentence, shown by ``--help``.
        least, above, most, below: its range. ``None`` is right too where the field's type says so.
        choices: the texts that it may be; of a list, each of its items.
    """
    limits = {"least": least, "above": above, "most": most, "below": below}
    known = Option(sentence=sentence, choices=choices, **limits)
    return _field(default, {_OPTION: known})


def fixed(value: Any) -> Any:
    """A field that is no key: what a base class leaves open and this class has settled."""
    return _field(value, {_OPTION: None})


def group_field(group: str, option: str, make: Callable[[], dict[str, Any]]) -> Any:
    """A field named like a config group, which holds the option that was chosen of it.

    Args:
        group: the field's name.
        option: that is chosen where nothing is said.
        make: what that option holds.
    """
    return field(default_factory=make, metadata={_GROUP: (group, option)})


def _field(default: Any, metadata: dict[str, Any]) -> Any:
    if default is REQUIRED:
        return field(metadata=metadata)
    if isinstance(default, list | dict | set):
        return field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class Settings:
    """Base of settings: values out of their ranges are refused when they are made.

    Attributes:
        prefix: what stands before a key's name on the command line, such as ``algo.``.
    """

    prefix: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check(self, self.prefix)


def options_of(cls: type) -> dict[str, Option]:
    """The keys of a dataclass and what they say of themselves; fields made without :func:`option` say nothing."""
    kept = (entry for entry in fields(cls) if entry.metadata.get(_OPTION, ...) is not None)
    return {entry.name: entry.metadata.get(_OPTION, Option()) for entry in kept if _GROUP not in entry.metadata}


def groups_of(cls: type) -> dict[str, str]:
    """The config groups of a command's settings, and the option that each begins with."""
    return dict(entry.metadata[_GROUP] for entry in fields(cls) if _GROUP in entry.metadata)


def defaults_of(cls: type) -> dict[str, Any]:
    """The default of every key of a dataclass, :data:`REQUIRED` where it has none."""
    return {entry.name: _default(entry) for entry in fields(cls) if entry.name in options_of(cls)}


def _default(entry: Any) -> Any:
    if entry.default_factory is not MISSING:
        return entry.default_factory()
    return REQUIRED if entry.default is MISSING else entry.default


def check(settings: Any, prefix: str = "") -> None:
    """Look whether the values of a dataclass are within the ranges that its fields name.

    Args:
        settings: with the fields as attributes.
        prefix: what to put before their names, such as ``algo.``.

    Raises:
        InvalidConfigError: with the first that is not.
        UnknownNameError: for a text that is none of the choices.
    """
    hints = get_type_hints(type(settings))
    for key, known in options_of(type(settings)).items():
        value, parts = getattr(settings, key), (hints[key], *get_args(hints[key]))
        or_null = NoneType in parts
        if value is None and or_null:
            continue
        if known.range and not known.holds(value):
            raise InvalidConfigError(f"{prefix}{key} must be {known.range}{' or null' * or_null}; got {value}.")
        literals = tuple(text for part in parts if get_origin(part) is Literal for text in get_args(part))
        _check_choices(f"{prefix}{key}", value, known.choices or literals, or_null=or_null)


def _check_choices(key: str, value: Any, choices: Collection[str], *, or_null: bool) -> None:
    for item in value if isinstance(value, list | tuple) else [value]:
        if choices and item not in choices:
            if or_null:
                raise InvalidConfigError(f"{key} must be {', '.join(map(str, choices))} or null; got {item!r}.")
            raise UnknownNameError(key, item, map(str, choices))


def check_rising(key: str, values: Sequence[float]) -> None:
    """Raise :class:`InvalidConfigError` unless these are two rising numbers above 0."""
    if len(values) != 2 or not 0 < values[0] < values[1]:
        raise InvalidConfigError(f"{key} must be two rising numbers above 0; got {list(values)}.")


def check_above(key: str, values: Sequence[float]) -> None:
    """Raise :class:`InvalidConfigError` unless these are two numbers above 0."""
    if len(values) != 2 or not min(values) > 0:
        raise InvalidConfigError(f"{key} must be two numbers above 0; got {list(values)}.")


def check_unread(settings: Any, keys: Iterable[str], reason: str) -> None:
    """Look whether keys that nothing reads were left alone.

    Args:
        settings: with the keys as attributes.
        keys: that are not read.
        reason: why, for the error; a key that is read in their place may follow.

    Raises:
        InvalidConfigError: with the first that was set to something else.
    """
    defaults = defaults_of(type(settings))
    for key in keys:
        if (value := getattr(settings, key)) != defaults[key]:
            raise InvalidConfigError(f"{key}={value} is not read with {reason}; leave it out.")


def first_paragraph(cls: type) -> str:
    """The first paragraph of a class's docstring as one plain line; nothing where it has none of its own."""
    text = cls.__doc__ or ""
    if text.startswith(f"{cls.__name__}("):  # written by the dataclass decorator
        return ""
    return " ".join(text.split("\n\n")[0].replace("``", "").split())
