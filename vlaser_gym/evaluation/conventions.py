"""The three success conventions of the field, all from one run, and the sub-goals that failures reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlaser_gym.evaluation.statistics import Interval, wilson

#: Keys of a record that hold an outcome, by the name used in commands.
OUTCOMES = {"last": "success", "any": "success_any"}
#: What an episode reached that passed no sub-goal.
NOTHING = "nothing"


@dataclass(frozen=True)
class Convention:
    """Successes and trials by one way of counting.

    Attributes:
        name: ``"last"``, ``"any"`` or ``"first"``.
        meaning: in words.
        count: successes out of ``n`` episodes; ``None`` where this run cannot tell.
        mean_steps: control steps per episode under this convention, failures and all, but for those that the simulator
            did not finish; ``None`` where this run cannot tell.
    """

    name: str
    meaning: str
    n: int
    count: int | None
    mean_steps: float | None

    @property
    def rate(self) -> float | None:
        """Share of successes."""
        return None if self.count is None or not self.n else self.count / self.n

    @property
    def interval(self) -> Interval | None:
        """Wilson's interval at 95 %."""
        return None if self.count is None else wilson(self.count, self.n)


def success_conventions(records: Sequence[Mapping[str, Any]]) -> tuple[Convention, Convention, Convention]:
    """Success at the last step, at any step, and with episodes stopped at their first success.

    The first is SimplerEnv's rule, which ignores success before the step limit (spec: SimplerEnv 4ab7178,
    ``maniskill2_evaluator.py``). The other two agree on the rate and differ in how long episodes last. A run that
    stopped at first success (``terminate_on_success=true``) cannot tell what the last step would have shown.

    Args:
        records: of one run, of one or several tasks.
    """
    n = len(records)
    stopped = any(record["ending"] == "terminated" for record in records)
    anywhere = sum(bool(record["success_any"]) for record in records)
    ran = [record for record in records if record.get("error") is None]
    firsts = [r["first_success_step"] if r["first_success_step"] is not None else r["steps"] for r in ran]
    full = None if stopped or not ran else sum(r["steps"] for r in ran) / len(ran)
    last = None if stopped else sum(bool(record["success"]) for record in records)
    return (
        Convention("last", "success at the last step", n, last, full),
        Convention("any", "success at any step", n, anywhere, full),
        Convention("first", "stopped at the first success", n, anywhere, sum(firsts) / len(ran) if ran else None),
    )


def furthest_subgoal(record: Mapping[str, Any], subgoals: Sequence[str]) -> str:
    """The last of the task's sub-goals that the episode reached at any step; ``"nothing"`` without one."""
    reached = [name for name in subgoals if record["flags_any"].get(name, False)]
    return reached[-1] if reached else NOTHING


@dataclass(frozen=True)
class FunnelStage:
    """One sub-goal of a task.

    Attributes:
        name: the sub-goal.
        reached: episodes that reached it at any step.
        furthest: episodes that reached it and none after it.
    """

    name: str
    reached: int
    furthest: int


def subgoal_funnel(records: Sequence[Mapping[str, Any]], subgoals: Sequence[str]) -> tuple[FunnelStage, ...]:
    """The number of episodes of a task that reached each sub-goal.

    Args:
        records: of one task.
        subgoals: in the order in which an episode passes them; the last is success.

    Returns:
        A stage for "nothing", which every episode reaches, then one per sub-goal. The numbers of ``furthest`` add up
        to the number of episodes. ``reached`` need not fall from stage to stage: an object can be moved ungrasped.
    """
    ends = [furthest_subgoal(record, subgoals) for record in records]
    start = FunnelStage(NOTHING, len(records), ends.count(NOTHING))
    stages = [
        FunnelStage(name, sum(bool(r["flags_any"].get(name, False)) for r in records), ends.count(name))
        for name in subgoals
    ]
    return (start, *stages)
