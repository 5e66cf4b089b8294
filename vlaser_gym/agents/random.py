"""A random agent: the floor of every benchmark, and a check that the machinery runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.agents.base import Observations
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError


class RandomAgent:
    """Small random motions. An episode's actions follow from its address alone, whatever runs beside it.

    Args:
        translation: bound of each component of the translation, m per control step.
        rotation: bound of each component of the axis-angle rotation, rad per control step.
        horizon: actions per decision; the gripper keeps its command over them.

    Example:
        >>> agent = RandomAgent(horizon=2)
        >>> agent.reset(np.array([0]), [Address("widowx_stack_cube")])
        >>> agent.act({}, np.array([0])).shape
        (1, 2, 7)
    """

    observes: tuple[str, ...] = ()

    def __init__(self, translation: float = 0.02, rotation: float = 0.05, horizon: int = 4) -> None:
        if horizon < 1 or translation < 0 or rotation < 0:
            raise InvalidConfigError(
                f"RandomAgent needs horizon >= 1 and bounds >= 0; got horizon={horizon}, "
                f"translation={translation}, rotation={rotation}."
            )
        self.bounds = np.repeat([translation, rotation], 3)
        self.horizon = horizon
        self._generators: dict[int, np.random.Generator] = {}

    def reset(self, lanes: NDArray[np.int64], addresses: Sequence[Address]) -> None:
        """Seed the environments by the addresses of their new episodes."""
        for lane, address in zip(lanes, addresses, strict=True):
            self._generators[int(lane)] = address.rng()

    def act(self, observations: Observations, lanes: NDArray[np.int64]) -> NDArray[np.float64]:
        """``[N, horizon, 7]``: uniform motions within the bounds, the gripper at +1 or -1: open or closed.

        Which of them is open is the robot's convention.
        """
        return np.stack([self._chunk(self._generators[int(lane)]) for lane in lanes])

    def _chunk(self, generator: np.random.Generator) -> NDArray[np.float64]:
        motion = generator.uniform(-self.bounds, self.bounds, (self.horizon, 6))
        gripper = np.full((self.horizon, 1), generator.choice([-1.0, 1.0]))
        return np.concatenate([motion, gripper], axis=1)
