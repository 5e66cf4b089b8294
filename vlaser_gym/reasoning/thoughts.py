"""Comparison of a policy's words (``agent.think=N``) with the simulator's truth, and with the outcomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlaser_gym.errors import StorageError
from vlaser_gym.evaluation.statistics import Interval, wilson
from vlaser_gym.evaluation.store import read_config, read_records, read_states
from vlaser_gym.reasoning.answers import read_choice
from vlaser_gym.reasoning.episodes import Episode, Robots
from vlaser_gym.reasoning.subtasks import next_subtask, subtasks


@dataclass(frozen=True)
class Spoken:
    """The words of a policy in one episode.

    Attributes:
        task: of the episode.
        success: at its last step.
        right, wrong: answers that named the next sub-task, and those that did not.
        unknown: answers in states of which nobody can say what comes next.
    """

    task: str
    success: bool
    right: int
    wrong: int
    unknown: int


@dataclass(frozen=True)
class Conditioned:
    """Success of the episodes that something holds for: their number, rate and 95 % interval (Wilson's)."""

    episodes: int
    successes: int

    @property
    def rate(self) -> float | None:
        """Successes per episode; ``None`` without episodes."""
        return self.successes / self.episodes if self.episodes else None

    @property
    def interval(self) -> Interval | None:
        """See the class."""
        return wilson(self.successes, self.episodes) if self.episodes else None


def read_spoken(run: str | Path) -> list[Spoken]:
    """Every episode of a run with what was said in it.

    Raises:
        StorageError: if there is no run, or its agent said nothing.
    """
    every = (read_config(run).get("agent") or {}).get("think")
    if not every:
        raise StorageError(
            f"{run} should be a run whose policy was asked on the way (eval agent.think=4); it was not asked."
        )
    robots, found = Robots(), []
    for record in read_records(run):
        states = read_states(run, record)
        episode = Episode(record, states, robots)
        asked = list(zip(states["decision"].tolist(), states["thought"].tolist(), strict=True))[:: int(every)]
        judged: list[bool | None] = []
        for step, said in asked:
            expected, options = next_subtask(episode, int(step)), subtasks(episode, int(step))
            if expected is None:
                judged.append(None)
            else:
                judged.append(read_choice(str(said), options, lettered=False) == options[expected])
        counts = [judged.count(verdict) for verdict in (True, False, None)]
        found.append(Spoken(str(record["task"]), bool(record["success"]), *counts))
    return found


def conditioned(spoken: Sequence[Spoken]) -> dict[str, Conditioned]:
    """Success where most answers of an episode were right, and where they were not."""
    judged = [one for one in spoken if one.right + one.wrong]

    def of(holds: Callable[[Spoken], bool]) -> Conditioned:
        """Success of the episodes for which it ``holds``."""
        chosen = [one for one in judged if holds(one)]
        return Conditioned(len(chosen), sum(one.success for one in chosen))

    return {
        "mostly right": of(lambda one: one.right > one.wrong),
        "mostly wrong": of(lambda one: one.right <= one.wrong),
    }
