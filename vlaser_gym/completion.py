"""Shell completion of ``vlaser-gym``: commands, their keys, and the values of a key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from vlaser_gym.settings.commands import COMMAND_SETTINGS
from vlaser_gym.settings.fields import Option, defaults_of, groups_of, options_of
from vlaser_gym.settings.groups import group_defaults, groups

#: Signs of Hydra before a key.
_SIGNS = ("++", "+", "~")
#: A shell's words are cut at ``=``: what it is given back is what follows the last.
_BASH = """_vlaser_gym() {
  local line=${COMP_LINE:0:COMP_POINT} word
  word=${line##* }
  mapfile -t COMPREPLY < <(vlaser-gym --complete "$line" 2> /dev/null)
  [[ $word == *=* ]] && COMPREPLY=("${COMPREPLY[@]#"${word%=*}="}")
  [[ ${COMPREPLY[0]} == *= || ${COMPREPLY[0]} == *. ]] && compopt -o nospace 2> /dev/null
  return 0
}
complete -o default -F _vlaser_gym vlaser-gym
"""
SCRIPTS: Mapping[str, str] = {
    "bash": _BASH,
    "zsh": f"autoload -U +X bashcompinit && bashcompinit\n{_BASH}",
    "fish": "complete -c vlaser-gym -a '(vlaser-gym --complete (commandline -cp))'\n",
}


def candidates(line: str) -> list[str]:
    """The completions of a command line's last word; the line begins with the program's name.

    >>> candidates("vlaser-gym ev")
    ['eval']
    >>> candidates("vlaser-gym eval agent=rem")
    ['agent=remote']
    """
    words = line.split()[1:] + ([""] if line.endswith(" ") else [])
    if len(words) < 2:
        return _beginning(words[0] if words else "", sorted(COMMAND_SETTINGS))
    command, last = words[0], words[-1]
    if command not in COMMAND_SETTINGS:
        return []
    sign = next((sign for sign in _SIGNS if last.startswith(sign)), "")
    return [f"{sign}{word}" for word in _of_command(COMMAND_SETTINGS[command], words[1:-1], last.removeprefix(sign))]


def _of_command(cls: type, before: Sequence[str], word: str) -> list[str]:
    chosen = {**groups_of(cls), **dict(entry.split("=", 1) for entry in before if "=" in entry)}
    key, equals, _ = word.partition("=")
    if equals:
        return _beginning(word, [f"{key}={value}" for value in _values(cls, key)])
    group, dot, _ = word.partition(".")
    if dot and group in groups_of(cls) and chosen[group] in groups()[group]:
        return _beginning(word, [f"{group}.{name}=" for name in group_defaults(group, chosen[group])])
    names = [*options_of(cls), *groups_of(cls), *(f"{name}." for name in groups_of(cls))]
    return _beginning(word, [name if name.endswith(".") else f"{name}=" for name in names])


def _values(cls: type, key: str) -> Iterable[str]:
    """The words that a key may be, where they are few."""
    if key in groups_of(cls):
        return groups()[key]
    option = options_of(cls).get(key, Option())
    if option.choices:
        return option.choices
    return ("true", "false") if isinstance(defaults_of(cls).get(key), bool) else ()


def _beginning(word: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(word)]
