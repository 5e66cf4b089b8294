"""Rollouts: the loop between a policy and its environments, and the decisions that it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
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
        rows: numbers of the decisions that an update uses; all of them, unless the algorithm says otherwise.
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
    rows: Ints = field(init=False)

    def __post_init__(self) -> None:
        self.advantages, self.returns = np.zeros(self.dones.shape), np.zeros(self.dones.shape)
        self.rows = np.arange(self.dones.size)

    def batches(self, rows: Ints, size: int, agent: TrainableAgent, at_least: int = 0) -> Iterator[tuple[Ints, Batch]]:
        """Decisions by number, in ascending order, in batches of one size; what was not kept is encoded anew.

        There are ``at_least`` so many batches, the last ones perhaps of copies alone. The last batch is filled up with
        copies of weight 0: a matrix product's last bits depend on its shape, and a likelihood divides them by a small
        standard deviation.
        """
        rows, count, device = np.sort(rows), self.dones.shape[1], agent.device
        slots = np.cumsum(self.active.ravel()) - 1
        learned = {"log_prob": self.log_probs, "advantages": self.advantages, "returns": self.returns}
        columns = {**self.inputs, **self.latent, **learned}
        for start in range(0, max(len(rows), at_least * size), size):
            mine = rows[start : start + size]
            filler = mine[-1:] if len(mine) else np.flatnonzero(self.active.ravel())[:1]
            full = np.concatenate([mine, np.repeat(filler, size - len(mine))])
            at = np.divmod(full, count)
            found = {name: torch.from_numpy(values[at]).to(device) for name, values in columns.items()}
            inputs = {name: found[name] for name in self.inputs}
            kept = int((slots[full] < self.cache.capacity).sum())
            parts = [self.cache.rows(slots[full][:kept], device)] if kept else []
            if kept < size:
                parts.append(agent.encode(inputs).map(itemgetter(slice(kept, None))))
            yield (
                mine,
                Batch(
                    encoding=type(parts[0]).cat(parts),
                    inputs=inputs,
                    latent={name: found[name] for name in self.latent},
                    log_prob=found["log_prob"],
                    advantages=found["advantages"].float(),
                    returns=found["returns"].float(),
                    weight=torch.from_numpy(np.arange(size) < len(mine)).to(device, torch.float32),
                ),
            )


@torch.no_grad()
def collect(
    env: LearningEnv,
    agent: TrainableAgent,
    critic: Callable[[Tensor], Tensor] | None,
    draws: Iterable[Draws],
    cache: PrefixCache,
) -> Rollout:
    """Let a policy act, from where its environments stand, as often as there are draws.

    Args:
        env: N environments; those that are not active are left alone, and when none is active it is over.
        agent: decides.
        critic: from the agent's value features ``[B, F]`` to values ``[B]``; ``None``: all values are 0.
        draws: the random numbers of each decision, N rows.
        cache: gets the encodings.
    """

    def value(inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        if critic is None:
            return np.zeros(env.num_envs, np.float32)
        tensors = {name: torch.from_numpy(rows) for name, rows in inputs.items()}
        return critic(agent.value_features(agent.encode(tensors), tensors)).float().cpu().numpy()

    read: list[dict[str, Any]] = []
    latent: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    successes: list[bool] = []
    cache.reset()
    for drawn in draws:
        active = env.active.copy()
        if not active.any():
            break
        seen, rows = env.inputs, np.flatnonzero(active)
        inputs = {name: torch.from_numpy(values[rows]) for name, values in seen.items()}
        encoding = agent.encode(inputs)
        cache.add(encoding)
        own_draws = {name: values[rows] for name, values in drawn.items()}
        sample = agent.sample(encoding, inputs, own_draws, with_value=critic is not None)
        values = torch.zeros(len(rows))
        if critic is not None and sample.value_features is not None:
            values = critic(sample.value_features)
        decided = {"log_probs": sample.log_prob, "values": values}
        outcome = env.step(_spread(sample.chunk, rows, env.num_envs))
        final_values = np.zeros(env.num_envs)
        if critic is not None and len(outcome.truncated):
            final_values[outcome.truncated] = value(outcome.final_inputs)
        told = {name: getattr(outcome, name) for name in ("rewards", "discounts", "dones")}
        read.append(seen)
        latent.append({name: _spread(part, rows, env.num_envs) for name, part in sample.latent.items()})
        everyone = {name: _spread(part, rows, env.num_envs) for name, part in decided.items()}
        turns.append({**everyone, **told, "final_values": final_values, "active": active})
        successes += outcome.successes
    inputs_of, latent_of, others = (_stack(rows_of) for rows_of in (read, latent, turns))
    return Rollout(inputs_of, latent_of, last_values=value(env.inputs), successes=successes, cache=cache, **others)


def _stack(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Of T turns ``[N, ...]``: ``[T, N, ...]``."""
    return {name: np.stack([turn[name] for turn in turns]) for name in turns[0]}


def _spread(rows_of: Tensor, rows: Ints, count: int) -> NDArray[Any]:
    """Rows of some environments among zeros for the others."""
    found = rows_of.cpu().numpy()
    everyone = np.zeros((count, *found.shape[1:]), found.dtype)
    everyone[rows] = found
    return everyone
