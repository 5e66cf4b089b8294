"""Check of a data set before training: ``python -m vlaser_gym.data check PATH``; ``--help`` lists the keys."""

from __future__ import annotations

import sys
from pathlib import Path

from omegaconf import DictConfig

from vlaser_gym.cli import named, run, typed
from vlaser_gym.errors import StorageError
from vlaser_gym.settings.commands import DataSettings
from vlaser_gym.training.data.checking import drawn, problems, save
from vlaser_gym.training.data.sources import Source, sources


def main(config: DictConfig) -> None:
    """Say every problem, draw an episode; status 1 if there is a problem."""
    settings = typed(DataSettings, config)
    wrong = 0
    for source in sources(settings):
        found = list(problems(source, settings.robot))
        wrong += len(found)
        print(f"{source.path}: {_size(source)}")
        print("\n".join(f"  {problem}" for problem in found) or "  nothing is wrong")
        if settings.output is not None and not found:
            _draw(source, settings)
    sys.exit(1 if wrong else 0)


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
