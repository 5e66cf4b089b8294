"""An expert that errs, so that there are failures to ask about."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.agents.base import Observations
from vlaser_gym.agents.scripted import ScriptedExpert
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import get_task

Floats = NDArray[np.float64]
#: What goes wrong: the gripper never closes, it opens on the way, or the arm stops.
FAULTS = ("open", "drop", "stop")


class FaultyExpert:
    """The scripted expert with one fault per episode, drawn by the episode's address."""

    observes = ScriptedExpert.observes

    def __init__(self) -> None:
        self._expert = ScriptedExpert()
        self._episodes: dict[int, _Fault] = {}

    def reset(self, lanes: NDArray[np.int64], addresses: Sequence[Address]) -> None:
        """Draw the faults of these environments."""
        self._expert.reset(lanes, addresses)
        for lane, address in zip(lanes, addresses, strict=True):
            self._episodes[int(lane)] = _Fault(address)

    def act(self, observations: Observations, lanes: NDArray[np.int64]) -> Floats:
        """``[N, 1, 7]`` actions."""
        actions = self._expert.act(observations, lanes)
        for row, lane in enumerate(lanes):
            self._episodes[int(lane)].spoil(actions[row, 0])
        return actions

    def subtask_done(self, lanes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Completed sub-task by the judgement of the expert that does not err."""
        return self._expert.subtask_done(lanes)


class _Fault:
    """The fault that spoils the actions of one episode."""

    def __init__(self, address: Address) -> None:
        task, rng = get_task(address.task), address.rng("fault")
        self._is_google = get_setup(task.robot_setup).robot.name == "google_robot"
        has_objects = bool(task.objects_of(task.layout(address.layout, address.variant).cast))
        self.kind = str(rng.choice(FAULTS)) if has_objects else "stop"
        self._begin = int(rng.integers(6, 34 if self.kind == "drop" else 26))
        self._steps = 0

    def spoil(self, action: Floats) -> None:
        """Change an action ``[7]`` in place."""
        self._steps += 1
        begun = self._steps > self._begin
        if self.kind == "stop" and begun:
            action[:6] = 0.0
            action[6] = 0.0 if self._is_google else action[6]
        elif self.kind == "open" or (self.kind == "drop" and begun):
            # The WidowX's command is absolute, the Google Robot's relative: there 0 keeps what is open.
            fresh = self.kind == "drop" and self._steps <= self._begin + 4
            action[6] = 1.0 if not self._is_google else -1.0 if fresh else min(action[6], 0.0)
