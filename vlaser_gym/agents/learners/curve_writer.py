"""Stable-Baselines3's numbers among those of a run; apart from the curves, because it takes seconds to import."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from stable_baselines3.common.logger import KVWriter

from vlaser_gym.agents.learners.curves import Curves


class CurveWriter(KVWriter):  # type: ignore[misc]  # Stable-Baselines3 is not followed by the type checker
    """Stable-Baselines3's logger into the curves of a run.

    Args:
        curves: of the run.
        report: told each line of numbers.
        processes: that take as many steps each; the logger counts this one's.
    """

    def __init__(self, curves: Curves, report: Callable[[dict[str, float]], None], processes: int = 1) -> None:
        self.curves, self.report, self.processes = curves, report, processes

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        """One line of numbers."""
        row = {name: float(value) for name, value in key_values.items() if name != "time/total_timesteps"}
        # Not every number exists in every iteration; JSON has no word for those.
        row = {name: value for name, value in row.items() if math.isfinite(value)}
        if "time/fps" in row:
            row["time/fps"] *= self.processes
        self.curves.add(step * self.processes, **row)
        self.report({"step": float(step * self.processes), **row})

    def close(self) -> None:
        """The curves are closed by the run."""
