"""Any :class:`~vlaser_gym.agents.trainable.TrainableAgent` as an agent for the runner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlaser_gym.agents.base import Observations
from vlaser_gym.agents.trainable import TrainableAgent
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError

Indices = NDArray[np.int64]
#: Rows of every forward pass. With one shape for all, actions do not depend on how many other environments there are.
BATCH = 8


class PolicyAgent:
    """Acts with a policy's weights; everything random follows from the episode's address.

    Args:
        policy: its weights may change in place between calls.
        explore: draw from the distribution that is trained; otherwise decide by :meth:`TrainableAgent.decide`.
        source: where the weights are from, for :meth:`describe`.
    """

    def __init__(self, policy: TrainableAgent, *, explore: bool = False, source: str = "") -> None:
        self.policy, self.explore, self.source = policy, explore, source
        self.observes, self.robot = policy.observes, policy.robot
        self.decoder = policy.make_decoder()
        self._streams: dict[int, np.random.Generator] = {}
        self._decided: dict[int, dict[str, NDArray[Any]]] = {}

    def reset(self, lanes: Indices, addresses: Sequence[Address]) -> None:
        """Episodes begin: seed what is random, forget what was held."""
        self.decoder.reset(np.asarray(lanes, np.int64))
        for lane, address in zip(lanes, addresses, strict=True):
            self._streams[int(lane)] = address.rng()

    @torch.no_grad()
    def act(self, observations: Observations, lanes: Indices) -> NDArray[np.float64]:
        """Chunks ``[N, act_steps, 7]`` in environment units."""
        lanes = np.asarray(lanes, np.int64)
        inputs = self.policy.transform(observations)
        shapes = {name: values.shape[1:] for name, values in inputs.items()}
        if shapes != dict(self.policy.input_shapes):
            raise InvalidConfigError(f"The policy reads {dict(self.policy.input_shapes)} per decision; got {shapes}.")
        chosen = [
            self._decide(inputs, lanes, rows) for rows in np.array_split(np.arange(len(lanes)), -(-len(lanes) // BATCH))
        ]
        columns = {name: np.concatenate([part[name] for part in chosen]) for name in chosen[0]}
        for row, lane in enumerate(lanes):
            self._decided[int(lane)] = {name: values[row] for name, values in {**inputs, **columns}.items()}
        return self.decoder(columns["chunk"], lanes)

    def _decide(self, inputs: dict[str, NDArray[Any]], lanes: Indices, rows: Indices) -> dict[str, NDArray[Any]]:
        """Some rows, in a batch that is filled up with copies of the first."""
        full = np.concatenate([rows, np.repeat(rows[:1], BATCH - len(rows))])
        seen = {name: torch.from_numpy(values[full]) for name, values in inputs.items()}
        encoding = self.policy.encode(seen)
        if not self.explore:
            return {"chunk": self.policy.decide(encoding, seen).cpu().numpy()[: len(rows)]}
        seeds = [int(self._streams[int(lane)].integers(2**63)) for lane in lanes[rows]]
        each = [self.policy.draw(1, torch.Generator().manual_seed(seed)) for seed in seeds]
        each += each[:1] * (BATCH - len(rows))
        draws = {name: torch.cat([drawn[name] for drawn in each]) for name in each[0]}
        sample = self.policy.sample(encoding, seen, draws)
        return {
            name: values.cpu().numpy()[: len(rows)] for name, values in {**sample.latent, "chunk": sample.chunk}.items()
        }

    def decided(self, lanes: Indices) -> list[dict[str, NDArray[Any]]]:
        """What the last decision of each lane was made from, for learners: inputs, chunk, and what was drawn."""
        return [self._decided[int(lane)] for lane in lanes]

    def describe(self) -> dict[str, Any]:
        """What decides how this agent acts."""
        drawn = self.policy.describe_distribution() if self.explore else {}
        count = sum(parameter.numel() for parameter in self.policy.parameters())
        kind = type(self.policy)
        named = {"checkpoint": self.source or None, "policy": f"{kind.__module__}.{kind.__qualname__}"}
        return {**named, "robot": self.robot, "parameters": count, "explore": self.explore, **drawn}
