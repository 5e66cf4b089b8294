"""Checks of a data set before training, ``python -m vlaser_gym.data check PATH``, and of a policy on a data set,
``data open_loop PATH checkpoint=DIR``; ``--help`` lists the keys.
"""

from __future__ import annotations

import sys
from pathlib import Path

from omegaconf import DictConfig

from vlaser_gym.agents import make_agent
from vlaser_gym.agents.vlaser.shipped import with_checkpoint
from vlaser_gym.cli import named, run, typed
from vlaser_gym.errors import StorageError
from vlaser_gym.evaluation.table import make_console, make_table
from vlaser_gym.settings.commands import DataSettings
from vlaser_gym.training.data.checking import drawn, problems, save
from vlaser_gym.training.data.open_loop import open_loop
from vlaser_gym.training.data.sources import Source, sources

#: Columns of the agreement: shares of the recorded variance in %, the error in mm per control step.
_COLUMNS = ("shown", "number", "translation %", "rotation %", "error mm")


def main(config: DictConfig) -> None:
    """Check data sets, or compare a policy's actions with theirs."""
    settings = typed(DataSettings, config)
    if settings.action == "open_loop":
        _compare(settings)
    else:
        _check(settings)


def _check(settings: DataSettings) -> None:
    """Say every problem, draw an episode; status 1 if there is a problem."""
    wrong = 0
    for source in sources(settings):
        found = list(problems(source, settings.robot))
        wrong += len(found)
        print(f"{source.path}: {_size(source)}")
        print("\n".join(f"  {problem}" for problem in found) or "  nothing is wrong")
        if settings.output is not None and not found:
            _draw(source, settings)
    sys.exit(1 if wrong else 0)


def _compare(settings: DataSettings) -> None:
    """Print how much of the recorded actions the policy predicts, by decision and by what it is shown."""
    agent = make_agent(with_checkpoint(settings.agent, settings.checkpoint, settings.robot))
    console = make_console()
    for source in sources(settings):
        table = make_table("decisions", _COLUMNS, plain=not console.is_terminal)
        for row in open_loop(source, settings.robot, agent, settings.episodes):
            shares = (f"{100 * share:.1f}" for share in (row.translation, row.rotation))
            table.add_row(row.decisions, row.shown, str(row.count), *shares, f"{1000 * row.error:.1f}")
        console.print(f"{source.path}: {_size(source)}")
        console.print(table)


def _size(source: Source) -> str:
    try:
        reader = source.reader()
        return (
            f"{reader.info['codebase_version']}, {len(reader.episodes)} episodes, {reader.total_frames} rows, "
            f"{reader.info['fps']:g} per second, {reader.camera}"
        )
    except Exception:  # what is wrong with it is told as a problem
        return "cannot be opened"


def _draw(source: Source, settings: DataSettings) -> None:
    file = Path(str(settings.output))
    try:
        save(drawn(source, settings.robot, settings.episode), file)
    except (OSError, ValueError) as error:
        raise StorageError(f"Cannot write the image to output={file} ({error}); choose another PNG file.") from error
    except IndexError as error:
        raise StorageError(f"{source.path} has no episode {settings.episode}; choose another episode=.") from error
    print(f"  episode {settings.episode}: {file}")


def command() -> None:
    """``python -m vlaser_gym.data``."""
    run("data", main, named(sys.argv[1:], "action", "data"))
