"""Disturbances that push the arm off the expert's path, so that demonstrations show how to return to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Miss:
    """A grasp that is aimed beside the object.

    Attributes:
        error: of the aim (m); zero for a good one.
        noticed: the fingers do not close.
    """

    error: tuple[float, float, float] = (0.0, 0.0, 0.0)
    noticed: bool = False

    def __bool__(self) -> bool:
        return any(self.error)


@dataclass(frozen=True)
class Disturbance:
    """Displacements that an expert's actions get.

    Every ``every`` actions the expert draws, with probability ``probability``, a displacement of the controller's
    target and spreads it evenly over these actions; it learns of it only afterwards, and corrects it then. This is how
    a policy that executes chunks of ``every`` actions errs.

    Attributes:
        position: standard deviation of the displacement along each axis (m).
        yaw: standard deviation of the turn about the vertical (rad).
        probability: of a disturbance in a chunk.
        every: actions of a chunk.
        misses: probability that the first grasp of an episode is aimed beside the object. What is done until it has
            failed teaches nothing; the second attempt shows how to go on. The Google Robot's expert never closes its
            fingers there: a command to its gripper holds for many steps.
        noticed: share of the misses that are noticed before the fingers close: the second attempt begins beside the
            object, with open fingers. On the Google Robot: before the gripper has come down.
        miss_distance: greatest horizontal error of such an aim (m); the least is two fifths of it.
    """

    position: float = 0.008
    yaw: float = 0.08
    probability: float = 0.6
    every: int = 4
    misses: float = 0.0
    noticed: float = 0.0
    miss_distance: float = 0.05

    def draw_miss(self, rng: np.random.Generator) -> Miss:
        """Draw what is wrong with the first grasp of an episode."""
        if rng.random() >= self.misses:
            return Miss()
        direction, distance = rng.uniform(0, 2 * np.pi), self.miss_distance * rng.uniform(0.4, 1.0)
        error = (distance * np.cos(direction), distance * np.sin(direction), 0.0)
        return Miss(error, noticed=rng.random() < self.noticed)

    def draw(self, rng: np.random.Generator) -> Floats:
        """Draw the offset ``[7]`` of every action in a chunk."""
        push = np.zeros(7)
        push[:3] = rng.normal(0, self.position, 3)
        push[5] = rng.normal(0, self.yaw)
        return push / self.every * (rng.random() < self.probability)


class Pushes:
    """The displacements of one episode, action after action; all zero without a disturbance."""

    def __init__(self, disturbance: Disturbance | None = None, rng: np.random.Generator | None = None) -> None:
        self._disturbance, self._rng = disturbance, rng
        self._count, self._push = 0, np.zeros(7)

    @property
    def fresh(self) -> bool:
        """The next action begins a chunk: now the expert learns where the last one really led."""
        return self._disturbance is not None and self._count % self._disturbance.every == 0

    def next(self) -> Floats:
        """The offset ``[7]`` of the next action."""
        if self._disturbance is not None and self._rng is not None:
            if self.fresh:
                self._push = self._disturbance.draw(self._rng)
            self._count += 1
        return self._push
