"""The episode plan of an evaluation."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np

from vlaser_gym.envs.address import LAYOUT_KINDS, Address
from vlaser_gym.envs.tasks import get_task, task_names
from vlaser_gym.envs.tasks.base import Task
from vlaser_gym.errors import InvalidConfigError, UnknownNameError

LAYOUTS = (*LAYOUT_KINDS, "grid_and_region", "grid_and_region2")
#: Addresses of an evaluation are listed in memory; a slip of the keyboard shall not fill it.
MOST_EPISODES = 1_000_000


@dataclass(frozen=True)
class Reduction:
    """A part of a protocol, which is no published evaluation.

    Attributes:
        episodes: of each task and variant, evenly drawn.
        planned: how many these are together.
        whole: how many the protocol has of the same tasks.
    """

    episodes: int
    planned: int
    whole: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Reduction | None:
        """The reduction that the stored settings or the summary of a run tell of; ``None`` for a whole one."""
        told = config.get("reduced")
        return None if told is None else cls(**told)

    def __str__(self) -> str:
        each = f"{self.episodes} episode{'s' * (self.episodes > 1)} of each task and variant"
        return f"reduced to {each}: {self.planned} of the {self.whole} of the protocol"


def plan_episodes(
    tasks: Sequence[Task], variant: str = "default", layouts: str = "grid", episodes: int = 24, trials: int = 1
) -> list[Address]:
    """Addresses of an evaluation, task after task, layouts in order.

    Args:
        tasks: what to run.
        variant: named variant; every task must have it.
        layouts: ``"grid"``, ``"region"``, ``"region2"``, or the grid and then one of them: ``"grid_and_region"``,
            ``"grid_and_region2"``.
        episodes: how many layouts of each task, from 0 on. Beyond the last grid layout they start again as further
            trials, so no address occurs twice; a region never ends; with both, it follows the grid.
        trials: how often each of these episodes is repeated.

    Example:
        With ``num_layouts=24``, ``episodes=26, trials=1`` gives ``grid:0 .. grid:23`` of trial 0 and ``grid:0, grid:1``
        of trial 1.

    Raises:
        InvalidConfigError: if a number is below 1, or there are too many episodes.
        UnknownNameError: for a variant or kind of layout that does not exist.
    """
    for name, value in (("episodes", episodes), ("trials", trials)):
        if value < 1:
            raise InvalidConfigError(f"{name} must be at least 1; got {value}.")
    if (total := len(tasks) * episodes * trials) > MOST_EPISODES:
        raise InvalidConfigError(f"An evaluation has at most {MOST_EPISODES} episodes; got {total}: lower episodes=.")
    if layouts not in LAYOUTS:
        raise UnknownNameError("kind of layouts", layouts, LAYOUTS)
    for task in tasks:
        for kind in layouts.split("_and_"):
            task.check_layout_kind(kind)
        if variant not in task.variants:
            raise UnknownNameError(f"variant of {task.name}", variant, task.variants)
    return [
        Address(task.name, variant, layout, trial + turn * trials)
        for task in tasks
        for trial in range(trials)
        for layout, turn in (_layout(layouts, k, task.num_layouts) for k in range(episodes))
    ]


def _layout(kind: str, k: int, size: int) -> tuple[str, int]:
    """The ``k``-th layout on a grid of ``size``, and how often it came before."""
    if kind == "grid":
        return f"grid:{k % size}", k // size
    if kind.startswith("grid_and_"):
        return (f"grid:{k}" if k < size else f"{kind.removeprefix('grid_and_')}:{k - size}"), 0
    return f"{kind}:{k}", 0


def double_counts(addresses: Iterable[Address]) -> str | None:
    """The warning for an evaluation whose tasks share initial states; ``None`` if they do not.

    The benchmark has several names for one thing: ``google_robot_open_top_drawer`` is a third of
    ``google_robot_open_drawer``. A mean over both counts these episodes twice.
    """
    starts: dict[str, set[Hashable]] = {}
    for address in addresses:
        if _is_known(address):
            starts.setdefault(address.task, set()).add(_start(address.task, address.variant, address.layout))
    shared = [(a, b, len(starts[a] & starts[b])) for a, b in combinations(starts, 2) if starts[a] & starts[b]]
    if not shared:
        return None
    some = ", ".join(f"{a} and {b} ({count})" for a, b, count in shared[:3])
    more = f" and {len(shared) - 3} more pairs of tasks" if len(shared) > 3 else ""
    return f"The mean over tasks counts initial states twice that two tasks share: {some}{more}; name each once."


def _is_known(address: Address) -> bool:
    """True if this version has the grid layout: stored runs may hold others. Region layouts are each task's own."""
    if address.layout_kind != "grid" or address.task not in task_names():
        return False
    task = get_task(address.task)
    return address.variant in task.variants and address.layout_index < task.num_layouts


@cache
def _start(task: str, variant: str, layout: str) -> Hashable:
    """All that tells an initial state and its instruction from another one's."""
    state = astuple(get_task(task).layout(layout, variant))
    exact = tuple(np.round(part, 9).tobytes() if isinstance(part, np.ndarray) else repr(part) for part in state)
    return (variant, get_task(task).instruction(layout, variant), *exact)
