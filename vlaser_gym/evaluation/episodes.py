"""Stored episodes of one or several runs, as learners compare them: who began alike, and who came how far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from vlaser_gym.agents.vlaser.versions import why_outdated
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.errors import StorageError
from vlaser_gym.evaluation.store import Record, read_config, read_records, read_training

#: Task, variant and layout fix an initial state; engine, its version and look tell whose it is.
Start = tuple[str, ...]
_START = ("task", "variant", "layout", "engine", "engine_version", "look")


@dataclass(frozen=True)
class StoredEpisode:
    """A finished episode of a run directory.

    Attributes:
        run: the run directory.
        record: its record.
        progress: sub-goals of the task up to the furthest that was reached at any step; 0 for none.
    """

    run: Path
    record: Record
    progress: int

    @property
    def task(self) -> str:
        """Name of the task."""
        return str(self.record["task"])

    @property
    def start(self) -> Start:
        """The initial state: episodes with the same one began alike."""
        return tuple(str(self.record[name]) for name in _START)

    @property
    def success(self) -> bool:
        """Success at the last step."""
        return bool(self.record["success"])

    @property
    def has_training(self) -> bool:
        """True if the episode holds the decisions that learners need."""
        return self.record.get("training") is not None

    def training(self) -> dict[str, NDArray[Any]]:
        """The decisions that learners need; see :func:`~vlaser_gym.evaluation.store.read_training`."""
        return read_training(self.run, self.record)


def read_episodes(runs: Sequence[str | Path]) -> list[StoredEpisode]:
    """Episodes of several runs, run after run, by address; those that the simulator could not finish are left out.

    Raises:
        StorageError: for a folder that is no run directory, or whose outcomes a policy would not have today.
    """
    for run in runs:
        outdated = why_outdated(read_config(run).get("agent_settings"))
        if outdated is not None:
            raise StorageError(f"{run} was {outdated}. Run it again to learn from it.")
    return [
        StoredEpisode(Path(run), record, _progress(record))
        for run in runs
        for record in read_records(run)
        if record["error"] is None
    ]


def _progress(record: Record) -> int:
    reached = [record["flags_any"].get(name, False) for name in get_task(record["task"]).subgoals]
    return max((number for number, flag in enumerate(reached, 1) if flag), default=0)
