"""Conversion of the policy's gripper number into each robot's command, with its memory per environment.

The policy predicts an absolute gripper state: 1 open, 0 closed. WidowX's simulator wants +1 open, -1 closed. Google
Robot's wants the opposite sign as a *relative* command, which is held for 15 predicted actions (the adapters of
OpenGVLab/Vlaser and allenzren/open-pi-zero).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.errors import UnknownNameError

Array = NDArray[np.float64]
Lanes = NDArray[np.int64]

#: Predicted actions for which Google Robot's gripper command is held: 7.5 control steps where 2 of 4 are executed.
HOLD_STEPS = 15


class Gripper(ABC):
    """Turns predicted openness into commands for many environments."""

    def reset(self, lanes: Lanes) -> None:  # noqa: B027  (a gripper without memory has nothing to forget)
        """Episodes begin on these environments."""

    @abstractmethod
    def commands(self, openness: Array, lanes: Lanes) -> Array:
        """``[N, H]`` openness of all H actions that a decision predicts, executed or not -> ``[N, H]`` commands."""

    @abstractmethod
    def openness(self, commands: Array) -> Array:
        """Training labels: commands of any shape -> openness 0..1, such that the policy would have meant them."""

    def get_state(self) -> dict[str, Any]:
        """The environments' memory."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Put back what :meth:`get_state` gave."""


class WidowXGripper(Gripper):
    """+1 (open) above one half, -1 (close) otherwise."""

    def commands(self, openness: Array, lanes: Lanes) -> Array:
        """See :meth:`Gripper.commands`."""
        return np.where(openness > 0.5, 1.0, -1.0)

    def openness(self, commands: Array) -> Array:
        """See :meth:`Gripper.openness`."""
        return np.where(commands > 0, 1.0, 0.0)


class GoogleRobotGripper(Gripper):
    """+1 closes and -1 opens, and a clear command is held for 15 predicted actions.

    The command ``1 - 2 * openness`` of an action whose size exceeds one half starts a hold: it is repeated until 15
    actions, this one included, have got it. Outside a hold, smaller commands pass as they are. The hold runs on from
    chunk to chunk and counts every predicted action, also those behind the executed ones: so does the original, which
    steps it before it cuts the chunk. An episode that ends inside a chunk needs no correction, because its environment
    is reset before the next decision.
    """

    def __init__(self) -> None:
        self._held = np.zeros(0)
        self._steps = np.zeros(0, np.int64)
        self._holding = np.zeros(0, bool)

    def reset(self, lanes: Lanes) -> None:
        """See :meth:`Gripper.reset`; environments seen for the first time get memory."""
        missing = int(np.max(lanes, initial=-1)) + 1 - len(self._held)
        if missing > 0:
            self._held = np.pad(self._held, (0, missing))
            self._steps = np.pad(self._steps, (0, missing))
            self._holding = np.pad(self._holding, (0, missing))
        self._held[lanes], self._steps[lanes], self._holding[lanes] = 0.0, 0, False

    def commands(self, openness: Array, lanes: Lanes) -> Array:
        """See :meth:`Gripper.commands`."""
        relative = 1 - 2 * np.asarray(openness, np.float64)
        return np.stack([self._step(column, lanes) for column in relative.T], axis=1)

    def _step(self, relative: Array, lanes: Lanes) -> Array:
        holding = self._holding[lanes] | (np.abs(relative) > 0.5)
        held = np.where(self._holding[lanes], self._held[lanes], relative)
        steps = np.where(holding, self._steps[lanes] + 1, 0)
        done = steps == HOLD_STEPS
        self._holding[lanes] = holding & ~done
        self._held[lanes] = np.where(holding & ~done, held, 0.0)
        self._steps[lanes] = np.where(done, 0, steps)
        return held

    def openness(self, commands: Array) -> Array:
        """See :meth:`Gripper.openness`."""
        return np.clip((1 - np.asarray(commands, np.float64)) / 2, 0.0, 1.0)

    def get_state(self) -> dict[str, Any]:
        """See :meth:`Gripper.get_state`."""
        return {"held": self._held.copy(), "steps": self._steps.copy(), "holding": self._holding.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """See :meth:`Gripper.set_state`."""
        self._held, self._steps = state["held"].copy(), state["steps"].copy()
        self._holding = state["holding"].copy()


def make_gripper(robot: str) -> Gripper:
    """The gripper logic of ``"widowx"`` or ``"google_robot"``.

    Raises:
        UnknownNameError: for another robot.
    """
    grippers: dict[str, type[Gripper]] = {"widowx": WidowXGripper, "google_robot": GoogleRobotGripper}
    if robot not in grippers:
        raise UnknownNameError("robot", robot, grippers)
    return grippers[robot]()
