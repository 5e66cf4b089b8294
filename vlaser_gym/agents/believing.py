"""The scripted expert with a wrong belief of where things are: policies of graded quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlaser_gym.agents.base import Observations
from vlaser_gym.agents.scripted import ScriptedExpert
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.vector import STATE_FIELDS
from vlaser_gym.errors import InvalidConfigError

Floats = NDArray[np.float64]


class BelievingExpert(ScriptedExpert):
    """Believes source and target elsewhere than they are, in each episode by one error each.

    Args:
        belief: standard deviation of the errors along x and y (m); the height's is a third of it. The draws depend on
            the episode's address, and grow with ``belief`` in proportion: a better expert errs in the same direction.
        errors: errors ``[2, 3]`` (m; of the source, of the target) of some episodes, in place of drawn ones.

    Raises:
        InvalidConfigError: if ``belief`` is below 0.
    """

    def __init__(self, belief: float = 0.0, errors: Mapping[Address, ArrayLike] | None = None) -> None:
        super().__init__()
        if not belief >= 0:
            raise InvalidConfigError(f"agent.belief must be a length of 0 m or more; got {belief!r}.")
        self._belief = float(belief)
        self._given = {address: np.asarray(error, np.float64) for address, error in (errors or {}).items()}
        self._errors: dict[int, Floats] = {}

    def reset(self, lanes: NDArray[np.int64], addresses: Sequence[Address]) -> None:
        """Plan anew on these environments, with new errors."""
        super().reset(lanes, addresses)
        for lane, address in zip(lanes, addresses, strict=True):
            found = self._given.get(address)
            self._errors[int(lane)] = self.errors_of(address) if found is None else found

    def errors_of(self, address: Address) -> Floats:
        """Errors of the believed positions of source and target, ``[2, 3]``, m."""
        return address.rng("belief").normal(size=(2, 3)) * self._belief * [1, 1, 1 / 3]

    def act(self, observations: Observations, lanes: NDArray[np.int64]) -> Floats:
        """``[N, 1, 7]`` actions."""
        states = np.array(observations["state"], np.float64)
        for row, lane in enumerate(lanes):
            for name, error in zip(("source", "target"), self._errors[int(lane)], strict=True):
                states[row, STATE_FIELDS[name]][:3] += error
        return super().act({**observations, "state": states}, lanes)

    def describe(self) -> dict[str, float]:
        """The settings that decide how it acts."""
        return {"belief": self._belief}
