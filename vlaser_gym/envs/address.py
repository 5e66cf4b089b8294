"""The address of an episode: what fixes its initial state and its agent's noise."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import numpy as np

from vlaser_gym.errors import InvalidConfigError

#: ``grid``: the benchmark's own layouts; ``region`` and ``region2``: endless streams of continuous layouts around them.
LAYOUT_KINDS = ("grid", "region", "region2")
_LAYOUT = re.compile(rf"({'|'.join(LAYOUT_KINDS)}):(\d+)")


@dataclass(frozen=True)
class Address:
    """The coordinates of an episode in the benchmark.

    Attributes:
        task: SimplerEnv's task name, e.g. ``"widowx_carrot_on_plate"``.
        variant: named variant of the task's scene; ``"default"`` is the benchmark's own.
        layout: ``"grid:K"`` (the benchmark's K-th initial state), or ``"region:K"`` or ``"region2:K"`` (the K-th of an
            endless stream of continuous layouts, none of them near a grid layout; ``region`` ends at the grid's outer
            points, ``region2`` contains the grid with a margin).
        trial: repetition. The first three fields fix the initial state; all four seed the agent's noise.

    Example:
        >>> Address("widowx_stack_cube", layout="grid:3").layout_index
        3
    """

    task: str
    variant: str = "default"
    layout: str = "grid:0"
    trial: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "layout", canonical_layout(self.layout))

    @property
    def layout_kind(self) -> str:
        """Kind of the layout, one of :data:`LAYOUT_KINDS`."""
        return self.layout.split(":")[0]

    @property
    def layout_index(self) -> int:
        """The number behind the colon."""
        return int(self.layout.split(":")[1])

    @property
    def sort_key(self) -> tuple[str, str, str, int, int]:
        """Order of records: task, variant, kind of layout, layout number, trial."""
        return (self.task, self.variant, self.layout_kind, self.layout_index, self.trial)

    def rng(self, purpose: str = "agent") -> np.random.Generator:
        """A generator that depends on this whole address and on what it is for, and on nothing else."""
        text = f"{purpose}/{self.task}/{self.variant}/{self.layout}/{self.trial}"
        return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little"))

    def __str__(self) -> str:
        return f"{self.task}/{self.variant}/{self.layout}/{self.trial}"


def canonical_layout(layout: int | str) -> str:
    """``5 -> "grid:5"``; strings ``"grid:K"``, ``"region:K"`` and ``"region2:K"`` pass.

    Raises:
        InvalidConfigError: for anything else.
    """
    if isinstance(layout, int | np.integer) and not isinstance(layout, bool) and layout >= 0:
        return f"grid:{layout}"
    match = _LAYOUT.fullmatch(str(layout))
    if match is None:
        raise InvalidConfigError(f"A layout is a number or 'grid:K', 'region:K' or 'region2:K'; got {layout!r}.")
    return f"{match[1]}:{int(match[2])}"
