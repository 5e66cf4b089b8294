"""All commands behind one word: ``vlaser-gym eval task=widowx`` is ``python -m vlaser_gym.eval task=widowx``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vlaser_gym import __version__, cli
from vlaser_gym.completion import SCRIPTS, candidates
from vlaser_gym.errors import UnknownNameError
from vlaser_gym.settings.commands import COMMAND_SETTINGS
from vlaser_gym.settings.fields import first_paragraph

_COMPLETION = 'eval "$(vlaser-gym completion bash)" completes commands, keys and values (zsh, fish too).'


def main(argv: Sequence[str] | None = None) -> None:
    """Start a command, or say which there are."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in cli.HELP:
        print(overview())
        return
    if words[0] in ("-V", "--version"):
        print(f"vlaser-gym {__version__}")
        return
    if words[0] == "--complete":
        print("\n".join(candidates(" ".join(words[1:]))))
        return
    if words[0] == "completion":
        print(_script(words[1:]), end="")
        return
    command = words[0]
    if command not in COMMAND_SETTINGS:
        print(f"Error: {UnknownNameError('command', command, COMMAND_SETTINGS)}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"vlaser-gym {command}", *words[1:]]
    cli.start(command)


def _script(shells: Sequence[str]) -> str:
    """The completion script of a shell, as for ``eval "$(vlaser-gym completion bash)"``."""
    shell = shells[0] if shells else "bash"
    if shell not in SCRIPTS:
        print(f"Error: {UnknownNameError('shell', shell, SCRIPTS)}", file=sys.stderr)
        sys.exit(2)
    return SCRIPTS[shell]


def overview() -> str:
    """The commands, each with what it is for."""
    width = max(map(len, COMMAND_SETTINGS))
    lines = [
        f"  {name:{width}}  {first_paragraph(cls).split('. ')[0]}" for name, cls in sorted(COMMAND_SETTINGS.items())
    ]
    return "\n".join(["vlaser-gym COMMAND [key=value ...] [--help] [--cfg job] [-m]", "", *lines, "", _COMPLETION])


if __name__ == "__main__":
    main()
