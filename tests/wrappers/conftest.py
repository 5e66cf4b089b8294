"""Environments whose flags follow a script, so that successes come without a good policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from vlaser_gym.envs.tasks.put_on import PutOnTask

Timeline = Mapping[str, tuple[int, ...]]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[Timeline], None]:
    """``script({"success": (5, 6)})``: success after the 5th and 6th control step of every episode, nothing else."""

    def install(timeline: Timeline) -> None:
        def evaluate(self: PutOnTask, scene: Any, memory: Any) -> tuple[Any, Any]:
            return {name: np.isin(scene.elapsed, timeline.get(name, ())) for name in self.flags}, memory

        monkeypatch.setattr(PutOnTask, "evaluate", evaluate)

    return install
