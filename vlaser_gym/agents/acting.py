"""Any :class:`~vlaser_gym.agents.trainable.TrainableAgent` as an agent for the runner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlaser_gym.agents.base import Observations
from vlaser_gym.agents.batch_sizes import checked_sizes
from vlaser_gym.agents.inference import InferenceEngine, NamedRows
from vlaser_gym.agents.trainable import TrainableAgent
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError

Indices = NDArray[np.int64]
#: What precedes the names of random numbers among the rows of a batch.
DRAWN = "drawn/"


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
        self._engine = InferenceEngine(self._decide, policy.device, record=None if policy.recordable else False)
        self._streams: dict[int, np.random.Generator] = {}
        self._decided: dict[int, dict[str, NDArray[Any]]] = {}

    def reset(self, lanes: Indices, addresses: Sequence[Address]) -> None:
        """Episodes begin: seed what is random, forget what was held."""
        self.decoder.reset(np.asarray(lanes, np.int64))
        for lane, address in zip(lanes, addresses, strict=True):
            self._streams[int(lane)] = address.rng()

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Rows of a forward pass; several where they adapt to how many environments decide."""
        return self._engine.sizes

    def set_batch_sizes(self, sizes: Sequence[int]) -> None:
        """Adapt the rows of a forward pass."""
        self._engine.sizes = checked_sizes(sizes)

    @torch.no_grad()
    def act(self, observations: Observations, lanes: Indices) -> NDArray[np.float64]:
        """Chunks ``[N, act_steps, 7]`` in environment units."""
        lanes = np.asarray(lanes, np.int64)
        inputs = self.policy.transform(observations)
        shapes = {name: values.shape[1:] for name, values in inputs.items()}
        if shapes != dict(self.policy.input_shapes):
            raise InvalidConfigError(f"The policy reads {dict(self.policy.input_shapes)} per decision; got {shapes}.")
        rows = {name: torch.from_numpy(values) for name, values in inputs.items()}
        chosen = self._engine({**rows, **self._draw(lanes)}).map(Tensor.cpu)
        columns = {name: values.numpy() for name, values in chosen.items()}
        for row, lane in enumerate(lanes):
            self._decided[int(lane)] = {name: values[row] for name, values in {**inputs, **columns}.items()}
        return self.decoder(columns["chunk"], lanes)

    def _draw(self, lanes: Indices) -> dict[str, Tensor]:
        """Random numbers of the environments' next decision."""
        if not self.explore:
            return {}
        seeds = [int(self._streams[int(lane)].integers(2**63)) for lane in lanes]
        each = [self.policy.draw(1, torch.Generator().manual_seed(seed)) for seed in seeds]
        return {f"{DRAWN}{name}": torch.cat([drawn[name] for drawn in each]) for name in each[0]}

    def _decide(self, rows: NamedRows) -> NamedRows:
        """Decisions of one batch."""
        seen, draws = split_draws(rows)
        encoding = self.policy.encode(seen)
        if not self.explore:
            return NamedRows(chunk=self.policy.decide(encoding, seen))
        sample = self.policy.sample(encoding, seen, draws)
        return NamedRows({**sample.latent, "chunk": sample.chunk})

    def decided(self, lanes: Indices) -> list[dict[str, NDArray[Any]]]:
        """The last decision of each environment for learners: its inputs, chunk and random draws."""
        return [self._decided[int(lane)] for lane in lanes]

    def describe(self) -> dict[str, Any]:
        """The settings that decide how this agent acts."""
        drawn = self.policy.describe_distribution() if self.explore else {}
        count = sum(parameter.numel() for parameter in self.policy.parameters())
        kind = type(self.policy)
        named = {"checkpoint": self.source or None, "policy": f"{kind.__module__}.{kind.__qualname__}"}
        return {**named, "robot": self.robot, "parameters": count, "explore": self.explore, **drawn}


def split_draws(rows: NamedRows) -> tuple[NamedRows, NamedRows]:
    """A policy's inputs, and what was drawn for it."""
    inputs = {name: values for name, values in rows.items() if not name.startswith(DRAWN)}
    draws = {name.removeprefix(DRAWN): values for name, values in rows.items() if name.startswith(DRAWN)}
    return NamedRows(inputs), NamedRows(draws)
