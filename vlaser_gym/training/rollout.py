"""Rollouts: the loop between a policy and its environments, and the decisions that it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlaser_gym.agents.trainable import Draws, TrainableAgent
from vlaser_gym.training.data.prefix_cache import PrefixCache
from vlaser_gym.training.environments import LearningEnv

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Batch:
    """Stored decisions as tensors.

    Attributes:
        encoding: without gradients if it was kept.
        inputs, latent: what the policy read, and what it drew; ``[B, ...]`` each.
        log_prob: when they were drawn, ``[B]``, float64.
        advantages, returns: ``[B]``, fp32.
        weight: 1, or 0 for copies that only fill the batch, ``[B]``, fp32.
    """

    encoding: Any
    inputs: dict[str, Tensor]
    latent: dict[str, Tensor]
    log_prob: Tensor
    advantages: Tensor
    returns: Tensor
    weight: Tensor


@dataclass
class Rollout:
    """T decisions in each of N environments; decision ``r`` is number ``r // N`` in environment ``r % N``.

    Log-probabilities are float64: in fp32 a sum of a hundred terms is rounded by more than the ratio may be.

    Attributes:
        inputs, latent: what the policy read and drew, ``[T, N, ...]`` each.
        active: where a decision was taken; environments that are through stand still, ``[T, N]``.
        log_probs: ``[T, N]``.
        values: of the observations, fp32 ``[T, N]``; ``last_values [N]`` of those after the last decision.
        rewards: discounted within a decision, fp32 ``[T, N]``.
        discounts: ``gamma ** m`` for the m control steps that a decision ran, ``[T, N]``.
        dones: whether the episode ended with the decision, ``[T, N]``.
        final_values: value of the observation that a truncated episode ended with, else 0, ``[T, N]``.
        successes: whether the episodes that ended succeeded, in their order.
        cache: encodings of the first active decisions.
        advantages, returns: ``[T, N]``, set by the algorithm.
    """

    inputs: dict[str, NDArray[Any]]
    latent: dict[str, NDArray[Any]]
    active: Bools
    log_probs: Floats
    values: NDArray[np.float32]
    rewards: NDArray[np.float32]
    discounts: Floats
    dones: Bools
    final_values: Floats
    last_values: NDArray[np.float32]
    successes: list[bool]
    cache: PrefixCache
    advantages: Floats = field(init=False)
    returns: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.advantages, self.returns = np.zeros(self.dones.shape), np.zeros(self.dones.shape)
        self._slots = np.cumsum(self.active.ravel()) - 1

    @property
    def num_envs(self) -> int:
        """Environments N."""
        return int(self.dones.shape[1])

    def batch(self, rows: Ints, size: int, agent: TrainableAgent) -> Batch:
        """Decisions by number, in ascending order; what was not kept is encoded anew.

        The batch is filled up to ``size`` with copies of weight 0: a matrix product's last bits depend on its shape,
        and a likelihood divides them by a small standard deviation.
        """
        count, rows = len(rows), np.sort(rows)
        rows = np.concatenate([rows, np.repeat(rows[-1:], size - count)])
        at = np.divmod(rows, self.num_envs)

        def tensor(values: NDArray[Any], dtype: torch.dtype | None = None) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values[at])).to(agent.device, dtype)

        inputs = {name: tensor(values) for name, values in self.inputs.items()}
        slots = self._slots[rows]
        kept = int((slots < self.cache.capacity).sum())
        parts = [self.cache.rows(slots[:kept], agent.device)] if kept else []
        if kept < size:
            parts.append(agent.encode(inputs).map(lambda rows: rows[kept:]))
        return Batch(
            encoding=type(parts[0]).cat(parts),
            inputs=inputs,
            latent={name: tensor(values) for name, values in self.latent.items()},
            log_prob=tensor(self.log_probs),
            advantages=tensor(self.advantages, torch.float32),
            returns=tensor(self.returns, torch.float32),
            weight=torch.from_numpy(np.arange(size) < count).to(agent.device, torch.float32),
        )


@torch.no_grad()
def collect(
    env: LearningEnv,
    agent: TrainableAgent,
    critic: Callable[[Tensor], Tensor] | None,
    steps: int,
    draw: Callable[[int], Draws],
    cache: PrefixCache,
) -> Rollout:
    """Let a policy act, from where its environments stand.

    Args:
        env: N environments; those that are not active are left alone.
        agent: decides.
        critic: from the agent's value features ``[B, F]`` to values ``[B]``; ``None``: all values are 0.
        steps: decisions per environment; fewer if no environment is active any more.
        draw: the random numbers of a decision, N rows.
        cache: gets the encodings.
    """

    def value(inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        if critic is None:
            return np.zeros(env.num_envs, np.float32)
        tensors = {name: torch.from_numpy(rows) for name, rows in inputs.items()}
        return critic(agent.value_features(agent.encode(tensors), tensors)).float().cpu().numpy()

    turns: list[dict[str, Any]] = []
    successes: list[bool] = []
    cache.reset()
    for step in range(steps):
        active = env.active.copy()
        if not active.any():
            break
        seen, rows = env.inputs, np.flatnonzero(active)
        inputs = {name: torch.from_numpy(values[rows]) for name, values in seen.items()}
        encoding = agent.encode(inputs)
        cache.add(encoding, steps * env.num_envs)
        drawn = {name: values[rows] for name, values in draw(step).items()}
        sample = agent.sample(encoding, inputs, drawn, with_value=critic is not None)
        values = torch.zeros(len(rows)) if sample.value_features is None else critic(sample.value_features)  # type: ignore[misc]
        decided = {**sample.latent, "chunk": sample.chunk, "log_probs": sample.log_prob, "values": values}
        everyone = {name: _spread(part, rows, env.num_envs) for name, part in decided.items()}
        outcome = env.step(everyone.pop("chunk"))
        final_values = np.zeros(env.num_envs)
        if critic is not None and len(outcome.truncated):
            final_values[outcome.truncated] = value(outcome.final_inputs)
        told = {name: getattr(outcome, name) for name in ("rewards", "discounts", "dones")}
        turns.append({**seen, **everyone, **told, "final_values": final_values, "active": active})
        successes += outcome.successes
    stacked = {name: np.stack([turn[name] for turn in turns]) for name in turns[0]}
    inputs_of, latent_of = ({n: stacked.pop(n) for n in names} for names in (tuple(seen), tuple(sample.latent)))
    return Rollout(inputs_of, latent_of, last_values=value(env.inputs), successes=successes, cache=cache, **stacked)


def _spread(rows_of: Tensor, rows: Ints, count: int) -> NDArray[Any]:
    """Rows of some environments among zeros for the others."""
    found = rows_of.cpu().numpy()
    everyone = np.zeros((count, *found.shape[1:]), found.dtype)
    everyone[rows] = found
    return everyone
