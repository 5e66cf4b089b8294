"""The common part of all commands: settings from the command line, help, and one-sentence errors.

A command is a dataclass of :mod:`vlaser_gym.settings.commands`, which holds defaults, sentences and ranges, and a
function that takes the config. The grammar of ``key=value`` is Hydra's. Its config store is not used: it is one for the
whole process, where our ``algo/ppo`` would take the place of the user's, and knows neither ranges nor sentences.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from importlib import import_module
from itertools import product
from typing import Any, TextIO, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from vlaser_gym.errors import AgentError, GymError, GymWarning, InvalidConfigError, UnknownNameError
from vlaser_gym.registry import ENGINES, import_string
from vlaser_gym.settings.algorithms import ALGORITHM_SETTINGS
from vlaser_gym.settings.commands import COMMAND_SETTINGS
from vlaser_gym.settings.fields import Option, first_paragraph, groups_of, options_of
from vlaser_gym.settings.groups import ALGORITHMS, check_option, config_defaults, described, group_defaults, groups
from vlaser_gym.settings.reading import typed
from vlaser_gym.settings.synonyms import likely_keys
from vlaser_gym.storage.interrupts import begin, exit_status, terminable
from vlaser_gym.sweeps import launch, split_launcher

__all__ = ["group_config", "groups", "help_text", "load", "named", "run", "start", "typed", "words"]

HELP = {"-h", "--help"}
#: Hydra's words for showing the config that a command line makes, and for running it for several values of its keys.
SHOW, MULTIRUN = {"-c", "--cfg"}, {"-m", "--multirun"}
#: Groups whose entries are handed to somebody else's constructor or command: any further key may be set below them.
OPEN_GROUPS = ("agent", "engine", "settings", "stages", "top")

_NOTHING = object()


def start(command: str) -> None:
    """Run ``python -m vlaser_gym.COMMAND``; ``--help`` answers without importing the command itself."""
    words = set(sys.argv[1:])
    if (HELP | SHOW) & words or any(word.startswith("--cfg=") for word in words):
        run(command, lambda config: None)
        return
    if MULTIRUN & words:
        begin()
        sys.exit(multirun(command, [word for word in sys.argv[1:] if word not in MULTIRUN]))
    module = import_module(f"vlaser_gym.commands.{command}")
    begin()
    module.command()


def run(command: str, main: Callable[[DictConfig], None], argv: Sequence[str] | None = None) -> None:
    """Compose the config of a command from the command line and call ``main`` with it.

    A :class:`~vlaser_gym.errors.GymError` ends the process with its sentence on stderr and status 2, Ctrl-C with
    status 130, SIGTERM with 143. What an agent's own code raised stands above the sentence with its traceback:
    somebody has to debug it. Any other exception is a defect and keeps its traceback. A
    :class:`~vlaser_gym.errors.GymWarning` is one sentence on stderr.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if HELP & set(arguments):
            print(help_text(command, [text for text in arguments if text not in HELP]))
            return
        if (overrides := without_show(arguments)) is not None:
            print(OmegaConf.to_yaml(load(command, overrides)), end="")
            return
        with _warnings_as_sentences(), terminable():
            main(load(command, arguments))
    except GymError as error:
        trace = error.trace if isinstance(error, AgentError) else ""
        print(f"{trace}Error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        print(f"\n{str(interrupt) or 'Interrupted.'}", file=sys.stderr)
        sys.exit(exit_status(interrupt))
    except BrokenPipeError:
        # The reader (head, less) has left. Closing stderr too keeps the interpreter from complaining on its way out.
        sys.stderr.close()
        sys.exit(141)


def without_show(arguments: Sequence[str]) -> list[str] | None:
    """The overrides beside Hydra's ``--cfg job``; ``None`` if the config is not asked for.

    Raises:
        InvalidConfigError: for another kind of config than the job's.
    """
    rest: list[str] = []
    kinds: list[str] = []
    words = iter(arguments)
    for word in words:
        if word in SHOW:
            kinds.append(next(words, ""))
        elif word.startswith("--cfg="):
            kinds.append(word.removeprefix("--cfg="))
        else:
            rest.append(word)
    if not kinds:
        return None
    if kinds != ["job"]:
        raise InvalidConfigError(f"--cfg job shows the config of a command; got --cfg {' '.join(kinds)}.")
    return rest


def multirun(command: str, arguments: Sequence[str]) -> int:
    """Run a command for every combination of values, each in a process of its own.

    ``key=a,b`` is two runs here, and ``key=[a,b]`` a list. ``hydra/launcher=joblib hydra.launcher.n_jobs=4`` runs four
    at a time; by default they run one after another. Returns the first status that is not 0, after all have run.
    """
    try:
        overrides, launcher, options = split_launcher(arguments)
        statuses = launch(command, combinations([_parse(text) for text in overrides]), launcher, options)
    except GymError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return next((status for status in statuses if status), 0)


def combinations(overrides: Sequence[Override]) -> list[list[str]]:
    """The command lines of a multirun, in the order in which Hydra's basic sweeper has them.

    Example:
        >>> combinations([_parse("agent=expert,random"), _parse("task=widowx_stack_cube")])
        [['agent=expert', 'task=widowx_stack_cube'], ['agent=random', 'task=widowx_stack_cube']]
    """
    choices = []
    for override in overrides:
        if override.is_delete():
            choices.append([str(override.input_line)])
            continue
        key = override.get_key_element()
        values = override.sweep_string_iterator() if override.is_sweep_override() else [override.get_value_string()]
        choices.append([f"{key}={value}" for value in values])
    return [list(line) for line in product(*choices)]


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


def load(command: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The config of a command with ``key=value`` overrides.

    Below ``agent`` and ``engine`` any key may be given. ``+key=value`` adds a key that is not there, ``++key=value``
    sets it either way, ``~key`` takes it away: below these groups it is then not handed on, of a command's own keys it
    has its default. ``agent._target_=pkg.Class`` without ``agent=`` starts from an empty agent config, not from the
    default agent's. ``key=a,b`` means the list ``key=[a,b]``.

    Raises:
        UnknownNameError: for a key or a group's option that does not exist.
        InvalidConfigError: for text that is not ``key=value``.
    """
    setup_globals()  # Hydra's own references, such as ${now:%Y-%m-%d}
    parsed = [part for text in overrides for part in _extended(_parse(text))]
    keys = [override.key_or_group for override in parsed]
    if "agent._target_" in keys and "agent" not in keys:
        parsed.insert(0, _parse("agent=custom"))
    defaults = groups_of(COMMAND_SETTINGS[command])
    options = {**defaults, **_options(parsed, defaults)}
    own = {group: group_defaults(group, option) for group, option in options.items()}
    config = OmegaConf.create({**config_defaults(COMMAND_SETTINGS[command]), **own})
    valid = {**dict.fromkeys(options), **_flat(config)}
    for override in parsed:
        if override.key_or_group not in defaults:
            _assign(config, override, valid)
    return _complete(config)


def words(value: Any) -> list[str]:
    """The names in a value that may be one, several with commas between them, or a list; ``[""]`` if there is none."""
    values = list(value) if isinstance(value, list | tuple) else str("" if value is None else value).split(",")
    return [str(name).strip() for name in values] or [""]


def named(argv: Sequence[str], *keys: str) -> list[str]:
    """A command line whose first words may be given without their keys.

    >>> named(["runs/a", "rebuild=true"], "path")
    ['path=runs/a', 'rebuild=true']
    """
    words = list(argv)
    for place, key in enumerate(keys[: len(words)]):
        if "=" not in words[place] and not words[place].startswith("-"):
            words[place] = f"{key}={words[place]}"
    return words


def group_config(group: str, option: str) -> DictConfig:
    """The config of one option of a group.

    Raises:
        UnknownNameError: if there is no such option; it lists the nearest.
    """
    return OmegaConf.create(group_defaults(group, option))


def help_text(command: str, overrides: Sequence[str] = ()) -> str:
    """Keys of a command with their defaults, sentences and ranges; and those of the options that are named.

    Args:
        command: whose keys.
        overrides: ``group=option`` shows what may be set below that group; others are left alone.
    """
    cls = COMMAND_SETTINGS[command]
    lines = [f"python -m vlaser_gym.{command} [key=value ...]", "", *_wrapped(first_paragraph(cls), 0), ""]
    lines += _told("", options_of(cls), config_defaults(cls))
    defaults = groups_of(cls)
    named = _options([_parse(text) for text in overrides if text.partition("=")[0] in defaults], defaults)
    for group, option in {**defaults, **named}.items():
        lines += ["", f"  {group}={option}   one of: {', '.join(groups()[group])}"]
        shown = [option] if group in named else groups()[group]
        for name in shown:
            lines += _wrapped(f"{name}: {described(group, name)[0]}", 6)
        if group in named:
            lines += ["", *_told(f"{group}.", described(group, option)[1], group_defaults(group, option))]
        else:
            lines += [f"      {group}.KEY=VALUE sets one of its own keys; --help {group}=NAME lists them."]
    return "\n".join(lines)


def _told(prefix: str, options: Mapping[str, Option], defaults: Mapping[str, Any]) -> list[str]:
    """Lines about keys: name and default, and below it what it means."""
    lines = []
    for key, known in options.items():
        limit = f"   ({known.range})" if known.range else ""
        lines += [f"  {prefix}{key}={shown(defaults[key])}{limit}", *_wrapped(known.sentence, 6)]
    return lines


def shown(value: Any) -> str:
    """A default as it is written on the command line."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {shown(part)}" for key, part in value.items()) + "}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _wrapped(text: str, indent: int) -> list[str]:
    width = max(60, min(110, shutil.get_terminal_size().columns))
    return textwrap.wrap(text, width, initial_indent=" " * indent, subsequent_indent=" " * indent)


def _options(parsed: Sequence[Override], known: Iterable[str]) -> dict[str, str]:
    """The options that were named of the groups that are known."""
    return {o.key_or_group: _option(o) for o in parsed if o.key_or_group in known}


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
    """The option of a group override, checked; an algorithm may be an import string, and is known from then on."""
    if override.package is not None or override.type is not OverrideType.CHANGE:
        raise _unreadable(str(override.input_line))
    group, option = override.key_or_group, str(override.get_value_string())
    if group == ALGORITHMS and ":" in option:
        settings = getattr(import_string(option, ALGORITHMS), "settings", None)
        if not isinstance(settings, type) or not is_dataclass(settings):
            raise InvalidConfigError(
                f"algo={option} should name a vlaser_gym.training.algorithms.Algorithm, whose settings are a dataclass."
            )
        ALGORITHM_SETTINGS[option] = settings
    check_option(group, option)
    return option


def _assign(config: DictConfig, override: Override, valid: Mapping[str, Any]) -> None:
    """Set a key, checked against the keys that exist. Where the default is a text, ``true`` is the word.

    Raises:
        UnknownNameError: for a key that does not exist; it names those that are likely meant.
        InvalidConfigError: for what cannot be set.
    """
    key = override.key_or_group
    if override.package is not None:
        raise _unreadable(str(override.input_line))
    is_open = key.split(".")[0] in OPEN_GROUPS and "." in key
    if override.is_delete():
        _delete(config, override, valid, is_open=is_open)
        return
    if override.type is OverrideType.ADD and OmegaConf.select(config, key, default=_NOTHING) is not _NOTHING:
        raise InvalidConfigError(f"{override.input_line} adds a key that is there: leave out its +, or write ++.")
    value = override.value()
    if not is_open:
        _check_key(key, value, valid)
    if override.is_sweep_override():
        value = _parse(f"{key}=[{override.get_value_string()}]").value()
    elif isinstance(valid.get(key), str) and isinstance(value, bool):
        value = override.get_value_string()
    try:
        OmegaConf.update(config, key, value, merge=True, force_add=True)
    except (OmegaConfBaseException, ValueError) as error:
        wrong = str(error).splitlines()[0]
        raise InvalidConfigError(f"Cannot set {override.input_line}: {wrong}.") from error


def _delete(config: DictConfig, override: Override, valid: Mapping[str, Any], *, is_open: bool) -> None:
    """Take a key away: what is not handed on has its constructor's default, a command's own key its default.

    Raises:
        UnknownNameError: for a key that does not exist.
        InvalidConfigError: for ``~key=value`` where the key has another value.
    """
    key, there = override.key_or_group, OmegaConf.select(config, override.key_or_group, default=_NOTHING)
    if there is _NOTHING:
        raise UnknownNameError("key", key, valid, likely_keys(key, valid))
    if override.value() is not None and override.value() != there:
        raise InvalidConfigError(f"{override.input_line} takes a key away that has another value: {shown(there)}.")
    if not is_open:
        OmegaConf.update(config, key, valid[key], merge=False)
        return
    above, _, name = key.rpartition(".")
    del OmegaConf.select(config, above)[name]


def _check_key(key: str, value: Any, valid: Mapping[str, Any]) -> None:
    """Raise :class:`UnknownNameError` for a key that does not exist, or for such an entry of a mapping."""
    if key in valid:
        return
    if not isinstance(value, dict) or not any(name.startswith(f"{key}.") for name in valid):
        raise UnknownNameError("key", key, valid, likely_keys(key, valid))
    for name, inner in value.items():
        _check_key(f"{key}.{name}", inner, valid)


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """All leaves of a config as they are written, by their dotted names."""
    leaves: dict[str, Any] = {}
    for key in config:
        node = config._get_node(key)
        leaves |= _flat(node, f"{prefix}{key}.") if isinstance(node, DictConfig) else {f"{prefix}{key}": node._value()}
    return leaves
