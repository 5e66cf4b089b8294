"""Reading of a config, whose values are what somebody wrote, into a dataclass, whose values are of their types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, make_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.settings.fields import check

T = TypeVar("T")
_LONGEST_YAML, _DEEPEST_YAML = 4_000_000, 32


def typed(cls: type[T], config: Mapping[str, Any], prefix: str = "") -> T:
    """A config as an instance of a dataclass, every value of the type that the field has and within its range.

    Args:
        cls: the dataclass.
        config: values of its keys; ``name``, by which an option was chosen, is left out where it has no such field.
        prefix: what to put before the keys in errors.

    Raises:
        InvalidConfigError: with the key and what was expected.
        UnknownNameError: for a key that the dataclass does not have.
    """
    hints = get_type_hints(cls)
    own = {entry.name for entry in fields(cast(Any, cls)) if entry.init}
    given = {str(key): value for key, value in config.items() if key in own or key != "name"}
    for key in given.keys() - own:
        raise UnknownNameError("key", f"{prefix}{key}", (f"{prefix}{name}" for name in own))
    _check_sizes(given, prefix)
    _check_lists({key: hints[key] for key in given}, given, prefix)
    schema = make_dataclass(cls.__name__, [(key, _plain(hints[key])) for key in given])
    try:
        values = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), given))
        settings = cls(**{key: _of_type(hints[key], getattr(values, key)) for key in given})
    except OmegaConfBaseException as error:
        wrong = str(error.msg).splitlines()[0]
        raise InvalidConfigError(f"{prefix}{error.full_key} has a wrong value: {wrong}.") from error
    check(settings, prefix)
    return settings


def read_yaml(text: str) -> Any:
    """Read YAML of unknown origin as plain values; interpolations stay text.

    Raises:
        ValueError: for aliases, a few lines of which unfold into gigabytes, and for texts too long or nested too deep.
        YAMLError, OmegaConfBaseException: for what is no YAML, or no config.
    """
    if len(text) > _LONGEST_YAML:
        raise ValueError(f"longer than {_LONGEST_YAML} characters")
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > _DEEPEST_YAML:
            raise ValueError(f"aliases, or more than {_DEEPEST_YAML} levels")
    return OmegaConf.to_container(OmegaConf.create(text))


def _plain(hint: Any) -> Any:
    """A type for OmegaConf that holds all that ``hint`` does: it knows no literals, mappings, sequences and unions."""
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, UnionType):
        others = [_plain(option) for option in arguments if option is not NoneType]
        return Any if len(others) > 1 else others[0] | None if NoneType in arguments else others[0]
    if origin is Literal:
        kinds = {type(value) for value in arguments}
        return kinds.pop() if len(kinds) == 1 else Any
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return dict[str, Any] if not arguments else dict[arguments[0], _plain(arguments[1])]  # type: ignore[misc,valid-type]
    if origin is Sequence:
        return list[_plain(arguments[0])] if arguments else list[Any]  # type: ignore[misc]
    return hint


def _of_type(hint: Any, value: Any) -> Any:
    return tuple(value) if get_origin(hint) is tuple and isinstance(value, list) else value


def _check_sizes(values: Mapping[str, Any], prefix: str) -> None:
    """Refuse whole numbers that no float holds, wherever one is wanted."""
    for key, value in values.items():
        if isinstance(value, int) and value.bit_length() > 1023:
            raise InvalidConfigError(f"{prefix}{key} must be below 1e308; got a number of {value.bit_length()} bits.")


def _check_lists(hints: Mapping[str, Any], values: Mapping[str, Any], prefix: str) -> None:
    """Refuse what is no list of plain values where a field wants one: OmegaConf's own words name its classes."""
    for key, hint in hints.items():
        value = values[key]
        options = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        if not any(get_origin(option) is list for option in options) or (value is None and NoneType in options):
            continue
        items = value if isinstance(value, list | ListConfig) else [[]]
        if any(isinstance(item, list | dict | ListConfig | DictConfig) for item in items):
            raise InvalidConfigError(f"{prefix}{key} must be a list such as {prefix}{key}=[A,B]; got {value}.")
