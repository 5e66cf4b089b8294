"""What all commands share: composing the Hydra config, help, and one-sentence errors.

A command is a YAML file in :mod:`vlaser_gym.configs` and a function that takes the composed config. Hydra's compose
interface is used alone: the working directory, the logging set-up and ``sys.argv`` stay as they are.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TextIO, TypeVar, cast, get_args, get_origin, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from vlaser_gym.errors import AgentError, GymError, GymWarning, InvalidConfigError, UnknownNameError
from vlaser_gym.registry import ENGINES

CONFIG_DIR = Path(__file__).parent / "configs"
T = TypeVar("T")
#: Groups whose entries are handed to somebody else's constructor: any further key may be set below them.
OPEN_GROUPS = ("agent", "engine", "settings")


def run(config_name: str, main: Callable[[DictConfig], None], argv: Sequence[str] | None = None) -> None:
    """Compose the config of a command from the command line and call ``main`` with it.

    A :class:`~vlaser_gym.errors.GymError` ends the process with its sentence on stderr and status 2, Ctrl-C with
    status 130. What an agent's own code raised stands above the sentence with its traceback: somebody has to debug it.
    Any other exception is a defect and keeps its traceback. A :class:`~vlaser_gym.errors.GymWarning` is one sentence
    on stderr.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if {"-h", "--help"} & set(arguments):
            print(help_text(config_name))
            return
        with _warnings_as_sentences():
            main(load(config_name, arguments))
    except GymError as error:
        trace = error.trace if isinstance(error, AgentError) else ""
        print(f"{trace}Error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        print(f"\n{str(interrupt) or 'Interrupted.'}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader (head, less) has left. Closing stderr too keeps the interpreter from complaining on its way out.
        sys.stderr.close()
        sys.exit(141)


@contextmanager
def _warnings_as_sentences() -> Iterator[None]:
    """Show warnings of this package without the line of code that they come from, every time."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, GymWarning):
                print(f"Warning: {message}", file=sys.stderr)
            else:
                shown(message, category, filename, lineno, file, line)

        warnings.simplefilter("always", GymWarning)
        warnings.showwarning = show
        yield


def load(config_name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The config of a command with ``key=value`` overrides.

    Below ``agent`` and ``engine`` any key may be given. ``agent._target_=pkg.Class`` without ``agent=`` starts from
    an empty agent config, not from the default agent's. ``key=a,b`` means the list ``key=[a,b]``.

    Raises:
        UnknownNameError: for a key or a group's option that does not exist.
        InvalidConfigError: for text that is not ``key=value``.
    """
    parsed = [part for text in overrides for part in _extended(_parse(text))]
    keys = [override.key_or_group for override in parsed]
    if "agent._target_" in keys and "agent" not in keys:
        parsed.insert(0, _parse("agent=custom"))
    defaults = _default_options(config_name)
    options = {o.key_or_group: _option(o) for o in parsed if o.key_or_group in defaults}
    valid = _valid_keys(config_name, {**defaults, **options})
    values = [_assignment(o, valid) for o in parsed if o.key_or_group not in defaults]
    return _complete(_compose(config_name, [f"{group}={option}" for group, option in options.items()] + values))


def typed(cls: type[T], config: DictConfig) -> T:
    """A config as an instance of a dataclass, every value of the type that the field has.

    Raises:
        InvalidConfigError: with the key and what was expected.
    """
    _check_lists(cls, config)
    try:
        return cast(T, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), config)))
    except OmegaConfBaseException as error:
        raise InvalidConfigError(f"{error.full_key} has a wrong value: {str(error.msg).splitlines()[0]}.") from error


def _check_lists(cls: type, config: DictConfig) -> None:
    """Refuse what is no list of plain values where a field wants one: OmegaConf's own words name its classes."""
    hints = get_type_hints(cls)
    for key, value in config.items():
        hint = hints.get(str(key))
        options = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        if not any(get_origin(option) is list for option in options) or (value is None and NoneType in options):
            continue
        if not isinstance(value, ListConfig) or any(isinstance(item, ListConfig | DictConfig) for item in value):
            raise InvalidConfigError(f"{key} must be a list such as {key}=[A,B]; got {value}.")


def check_unread(config_name: str, settings: object, keys: Iterable[str], reason: str) -> None:
    """Look whether keys that nothing reads were left alone.

    Args:
        config_name: of the command, whose file has their defaults.
        settings: with the keys as attributes.
        keys: that are not read.
        reason: why, for the error; a key that is read in their place may follow.

    Raises:
        InvalidConfigError: with the first that was set to something else.
    """
    for key in keys:
        value, default = getattr(settings, key), _file(CONFIG_DIR / f"{config_name}.yaml")[key]
        if value != default:
            raise InvalidConfigError(f"{key}={value} is not read with {reason}; leave it out.")


def words(value: Any) -> list[str]:
    """The names in a value that may be one, several with commas between them, or a list; ``[""]`` if there is none."""
    values = list(value) if isinstance(value, list | tuple) else str("" if value is None else value).split(",")
    return [str(name).strip() for name in values] or [""]


def groups() -> dict[str, list[str]]:
    """Config groups and their options, by the files that exist."""
    folders = sorted(path for path in CONFIG_DIR.iterdir() if path.is_dir())
    return {folder.name: sorted(path.stem for path in folder.glob("*.yaml")) for folder in folders}


def group_config(group: str, option: str) -> DictConfig:
    """The config of one option of a group.

    Raises:
        UnknownNameError: if there is no such option; it lists the nearest.
    """
    if option not in groups()[group]:
        raise UnknownNameError(group, option, groups()[group])
    return _file(CONFIG_DIR / group / f"{option}.yaml").copy()


def help_text(config_name: str) -> str:
    """Keys of a command, their defaults and the comments above them in its YAML file."""
    intro, entries = _commented_keys(CONFIG_DIR / f"{config_name}.yaml")
    lines = [f"python -m vlaser_gym.{config_name} [key=value ...]", "", *intro, ""]
    for key, value, comments in entries:
        lines += [f"  {key}={value}", *(f"      {comment}" for comment in comments)]
    for group, chosen in _default_options(config_name).items():
        lines += ["", f"  {group}={chosen}   one of: {', '.join(groups()[group])}"]
        for option in groups()[group]:
            comments, _ = _commented_keys(CONFIG_DIR / group / f"{option}.yaml")
            lines += [f"      {option}: {' '.join(comments)}"]
        lines += [f"      {group}.KEY=VALUE sets one of its own keys."]
    return "\n".join(lines)


def _default_options(config_name: str) -> dict[str, str]:
    """The groups that a command uses and the option that each begins with, from its list of defaults."""
    defaults = _file(CONFIG_DIR / f"{config_name}.yaml").get("defaults") or []
    return {str(k): str(v) for entry in defaults if isinstance(entry, DictConfig) for k, v in entry.items()}


def _valid_keys(config_name: str, options: Mapping[str, str]) -> dict[str, Any]:
    """Dotted names of a command's keys with their defaults, given the options of its groups."""
    keys = {key: value for key, value in _flat(_file(CONFIG_DIR / f"{config_name}.yaml")).items() if key != "defaults"}
    for group, option in options.items():
        own = _flat(_file(CONFIG_DIR / group / f"{option}.yaml"))
        keys |= {group: None} | {f"{group}.{key}": value for key, value in own.items()}
    return keys


@cache
def _file(path: Path) -> DictConfig:
    """A file of the package; not to be changed."""
    return cast(DictConfig, OmegaConf.load(path))


def _compose(config_name: str, overrides: list[str]) -> DictConfig:
    try:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3", job_name=config_name):
            return compose(config_name, overrides)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise InvalidConfigError(f"The settings do not fit together: {str(error).splitlines()[0]}") from error


def _complete(config: DictConfig) -> DictConfig:
    """The config without references, checked for keys that have no value yet."""
    try:
        OmegaConf.resolve(config)
        missing = sorted(OmegaConf.missing_keys(config))
    except InterpolationToMissingValueError as error:
        missing = [str(error).splitlines()[0].split()[-1]]
    except OmegaConfBaseException as error:
        raise InvalidConfigError(f"The settings do not fit together: {str(error).splitlines()[0]}") from error
    if missing:
        raise InvalidConfigError(f"{missing[0]} has no default: give {missing[0]}=VALUE; --help says what it is.")
    return config


def _parse(text: str) -> Override:
    parser = OverridesParser.create()
    key, equals, value = text.partition("=")
    try:
        return cast(Override, parser.parse_override(text))
    except HydraException:
        if equals and key and value[:1] not in "[{'\"":  # a path with a blank or an equals sign in it
            value = value.replace("\\", "\\\\").replace("'", "\\'")
            try:
                return cast(Override, parser.parse_override(f"{key}='{value}'"))
            except HydraException:
                pass
    raise _unreadable(text)


def _extended(override: Override) -> list[Override]:
    """An engine from outside is the option ``custom`` with its name."""
    if override.key_or_group != "engine" or not ENGINES.is_added(name := override.get_value_string().strip("'")):
        return [override]
    return [_parse("engine=custom"), _parse(f"engine.name='{name}'")]


def _unreadable(text: str) -> InvalidConfigError:
    return InvalidConfigError(f"Cannot read {text!r}: expected key=value; --help lists the keys.")


def _option(override: Override) -> str:
    """The option of a group override, checked."""
    if override.package is not None or override.type is not OverrideType.CHANGE:
        raise _unreadable(str(override.input_line))
    group, option = override.key_or_group, override.get_value_string()
    if option not in groups()[group]:
        raise UnknownNameError(group, option, groups()[group])
    return str(option)


def _assignment(override: Override, valid: Mapping[str, Any]) -> str:
    """An override of a key in the form that Hydra takes, checked against the keys that exist.

    Where the default is a text, ``true`` is the word.
    """
    key = override.key_or_group
    if override.is_delete() or override.package is not None:
        raise _unreadable(str(override.input_line))
    is_open = key.split(".")[0] in OPEN_GROUPS and "." in key
    if not is_open:
        _check_key(key, override.value(), valid)
    value = override.get_value_string()
    if isinstance(valid.get(key), str) and isinstance(override.value(), bool):
        value = f"'{value}'"
    return f"{'++' if is_open else ''}{key}={f'[{value}]' if override.is_sweep_override() else value}"


def _check_key(key: str, value: Any, valid: Mapping[str, Any]) -> None:
    """Raise :class:`UnknownNameError` for a key that does not exist, or for such an entry of a mapping."""
    if key in valid:
        return
    if not isinstance(value, dict) or not any(name.startswith(f"{key}.") for name in valid):
        raise UnknownNameError("key", key, valid)
    for name, inner in value.items():
        _check_key(f"{key}.{name}", inner, valid)


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """All leaves as they are written, by their dotted names."""
    leaves: dict[str, Any] = {}
    for key in config:
        node = config._get_node(key)
        leaves |= _flat(node, f"{prefix}{key}.") if isinstance(node, DictConfig) else {f"{prefix}{key}": node._value()}
    return leaves


def _commented_keys(path: Path) -> tuple[list[str], list[tuple[str, str, list[str]]]]:
    """Opening comment of a YAML file, and its top-level keys as ``(key, default, comments above it)``."""
    intro: list[str] | None = None
    entries: list[tuple[str, str, list[str]]] = []
    comments: list[str] = []
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            comments.append(line.removeprefix("#").strip())
            continue
        if intro is None:
            intro, comments = comments, []
        key, colon, value = line.partition(":")
        if colon and key.isidentifier() and key != "defaults":
            entries.append((key, value.strip(), comments))
        if line.strip():
            comments = []
    return intro or comments, entries
