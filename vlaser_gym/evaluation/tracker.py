"""Trackers of other makers: Weights & Biases and trackio, through their own packages, imported when one is asked for.

A tracker gets the rows of a run's own numbers, in their order, each once, and only those that nothing can take back: a
run that is killed goes back to its last checkpoint, and most trackers cannot forget. Which rows it has is kept in the
run directory, so that a continued run goes on in the same place there, and rows that could not be sent come later.
"""

from __future__ import annotations

import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.storage.files import write_whole
from vlaser_gym.storage.lines import parse_object

TRACKER_FILE = "tracker.json"
Row = Mapping[str, Any]


class TrackedRun(ABC):
    """A run in a tracker, begun or continued.

    Args:
        package: of the tracker.
        project: in which the run is.
        name: of the run directory.
        run_id: that no other run has.
        known: whether it was begun before.
        path: run directory.
        config: the run's settings.
    """

    @abstractmethod
    def __init__(
        self, package: Any, project: str, name: str, run_id: str, known: bool, path: Path, config: dict[str, Any]
    ) -> None: ...

    @abstractmethod
    def log(self, row: Row) -> None:
        """Hand over the numbers of one step."""

    @abstractmethod
    def finish(self, failed: bool) -> None:
        """Hand over what is still waiting."""


class WandbRun(TrackedRun):
    """A run in Weights & Biases; its files lie in the run directory."""

    def __init__(
        self, package: Any, project: str, name: str, run_id: str, known: bool, path: Path, config: dict[str, Any]
    ) -> None:
        self.run = package.init(
            project=project,
            id=run_id,
            name=name,
            dir=str(path),
            config=config,
            allow_val_change=True,
            resume="allow" if known else None,
            reinit="create_new",  # the caller may have a run of their own
        )
        # Its own count of steps refuses a second row of a step, such as an evaluation's: ours is a number like others.
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def log(self, row: Row) -> None:
        """See :class:`TrackedRun`."""
        self.run.log(dict(row))

    def finish(self, failed: bool) -> None:
        """See :class:`TrackedRun`."""
        self.run.finish(exit_code=int(failed))


class TrackioRun(TrackedRun):
    """A run in trackio, where a run's name is what tells it from others."""

    def __init__(
        self, package: Any, project: str, name: str, run_id: str, known: bool, path: Path, config: dict[str, Any]
    ) -> None:
        self.package, resume = package, "allow" if known else "never"
        self.run = package.init(project=project, name=f"{name}-{run_id}", config=config, resume=resume, embed=False)

    def log(self, row: Row) -> None:
        """See :class:`TrackedRun`."""
        self.run.log({name: value for name, value in row.items() if name != "step"}, step=row["step"])

    def finish(self, failed: bool) -> None:
        """See :class:`TrackedRun`."""
        self.package.finish()


RUNS: dict[str, type[TrackedRun]] = {"wandb": WandbRun, "trackio": TrackioRun}


class Tracker:
    """Tells a tracker the numbers of a run. Its failures are said once, and stop nothing.

    Args:
        name: ``"wandb"`` or ``"trackio"``.
        project: in which the run is to be.
        path: run directory, which keeps the run's name there and how many rows it has.
        config: the run's settings.
        say: told the failure.
    """

    def __init__(
        self,
        name: str,
        project: str,
        path: Path,
        config: Mapping[str, Any],
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.name, self.project, self.path, self.config, self.say = name, project, path, dict(config), say
        self.key = f"{name}/{project}"
        self.run: TrackedRun | None = None
        self.failed = False

    def send(self, rows: Sequence[Row]) -> None:
        """Send the rows that it does not have yet.

        Args:
            rows: all of the run, each with ``step``; none of them is taken back later.
        """
        if not self.failed:
            with self._failures_said():
                self._send(rows)

    def close(self, failed: bool = False) -> None:
        """Send what waits; ``failed`` if the run ended with an error."""
        run, self.run = self.run, None
        if run is not None:
            with self._failures_said():
                run.finish(failed)

    @contextmanager
    def _failures_said(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever another package, the network or the disk comes up with
            if not self.failed:
                said = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
                self.say(
                    f"Warning: tracker={self.name} failed ({said}); the run goes on without it and keeps its numbers, "
                    f"and the same command with run={self.path} sends what is missing."
                )
            self.failed = True

    def _send(self, rows: Sequence[Row]) -> None:
        kept = self._entries().get(self.key)
        # Fewer rows than it has: an older state was put back. What it has stays there, so that this is another run.
        known = kept if kept is not None and kept["rows"] <= len(rows) else None
        if known is not None and known["rows"] == len(rows):
            return
        entry = known or {"id": uuid.uuid4().hex[:8], "rows": 0}
        self.run = self.run or self._begin(entry["id"], known is not None)
        for row in rows[entry["rows"] :]:
            self.run.log(row)
        self._keep({**entry, "rows": len(rows)})

    def _begin(self, run_id: str, known: bool) -> TrackedRun:
        package = import_module(self.name)
        return RUNS[self.name](package, self.project, self.path.name, run_id, known, self.path, self.config)

    def _entries(self) -> dict[str, Any]:
        file = self.path / TRACKER_FILE
        return (parse_object(file.read_bytes()) or {}) if file.is_file() else {}

    def _keep(self, entry: dict[str, Any]) -> None:
        text = json.dumps({**self._entries(), self.key: entry}, indent=2) + "\n"
        write_whole(self.path / TRACKER_FILE, text.encode(), sync=False)


def check_tracker(name: str | None) -> None:
    """Import the tracker's package, before any work is done.

    Raises:
        InvalidConfigError: if it is not there.
    """
    if name is None:
        return
    try:
        # A folder of that name, such as the one that W&B leaves behind, can be imported too.
        found = hasattr(import_module(name), "init")
    except ImportError:
        found = False
    if not found:
        raise InvalidConfigError(f"tracker={name} needs the package {name}: pip install {name}, or leave tracker= out.")
