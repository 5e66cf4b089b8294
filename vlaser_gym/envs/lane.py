"""One lane of a vector environment: the episode it runs and what is known of it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.engines.base import Placement, Reading
from vlaser_gym.envs.tasks.base import Memory, Task

_SAVED = (
    "started",
    "address",
    "elapsed",
    "flags",
    "success_any",
    "terminated",
    "truncated",
    "stage",
    "memory",
    "reading",
    "rng",
)


class Lane:
    """Bookkeeping of one episode after another; no simulation happens here."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.address = Address(task.name)
        self.rng: np.random.Generator | None = None
        self.elapsed, self.stage = 0, 0
        self.flags: dict[str, bool] = {}
        self.memory: Memory = {}
        self.reading: Reading
        self.success_any = self.terminated = False
        # A lane that was never reset has no episode to step.
        self.started, self.truncated = False, True

    @property
    def ended(self) -> bool:
        """The episode is over."""
        return self.terminated or self.truncated

    @property
    def instruction(self) -> str:
        """What the robot is told now."""
        return self.task.instruction(self.address.layout, self.address.variant, self.stage)

    def begin(self, address: Address, placement: Placement, reading: Reading) -> None:
        """A new episode starts at its initial state."""
        self.task, self.address, self.reading = placement.task, address, reading
        self.memory = self.task.begin([placement.layout])
        self.flags = dict.fromkeys(self.task.flags, False)
        self.elapsed, self.stage = 0, 0
        self.success_any = self.terminated = self.truncated = False
        self.started = True

    def advance(self, reading: Reading) -> None:
        """A control step has run."""
        self.reading = reading
        self.elapsed += 1

    def judge(self, flags: dict[str, bool], memory: Memory, stage: int, terminate_on_success: bool) -> None:
        """Take in the task's verdict on the last control step."""
        self.flags, self.memory, self.stage = flags, memory, stage
        self.success_any |= flags["success"]
        self.terminated = terminate_on_success and flags["success"]
        self.truncated = self.elapsed >= self.task.max_steps

    def state(self) -> dict[str, NDArray[np.float64]]:
        """The simulated state by name: ``qpos``, ``object/<name>``, ``joint/<name>``."""
        named = {"qpos": self.reading.qpos.copy()}
        for obj, pose in zip(self.task.objects, self.reading.object_pose, strict=True):
            named[f"object/{obj.name}"] = pose.copy()
        for joint, value in self.reading.joints.items():
            named[f"joint/{joint}"] = np.array(value)
        return named

    def get_state(self) -> dict[str, Any]:
        """A deep copy of the lane's fields."""
        return {name: copy.deepcopy(getattr(self, name, None)) for name in _SAVED}

    def set_state(self, state: dict[str, Any], task: Task) -> None:
        """Put :meth:`get_state`'s answer back."""
        self.task = task
        for name in _SAVED:
            setattr(self, name, copy.deepcopy(state[name]))
