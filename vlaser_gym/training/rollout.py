"""Rollouts: the loop between a policy and its environments, and the decisions that it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlaser_gym.agents.acting import DRAWN, split_draws
from vlaser_gym.agents.inference import InferenceEngine, NamedRows
from vlaser_gym.agents.trainable import Draws, Sample, TrainableAgent
from vlaser_gym.training.data.prefix_cache import PrefixCache
from vlaser_gym.training.environments import LearningEnv

#: Name of what a critic reads of the simulator, among the rows of a batch.
PRIVILEGED = "privileged"
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
        action_log_prob: of each action to be executed, ``[B, E]``, float64; zeros of a policy that tells none.
        executed: which of these an environment ran, ``[B, E]``.
        advantages, returns, values: ``[B]``, fp32.
        weight: 1, or 0 for copies that only fill the batch, ``[B]``, fp32.
        privileged: what a critic read of the simulator, ``[B, P]``, if it did.
    """

    encoding: Any
    inputs: dict[str, Tensor]
    latent: dict[str, Tensor]
    log_prob: Tensor
    action_log_prob: Tensor
    executed: Tensor
    advantages: Tensor
    returns: Tensor
    values: Tensor
    weight: Tensor
    privileged: Tensor | None = None


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
        executed: which of the actions to be executed were run, ``[T, N, E]``.
        privileged: what the critic read of the simulator, ``[T, N, P]``; ``None`` where it reads the policy's features.
        action_log_probs: of these actions, ``[T, N, E]``, set before an update; zeros where the policy tells none.
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
    executed: Bools
    privileged: NDArray[np.float32] | None = None
    action_log_probs: Floats = field(init=False)
    advantages: Floats = field(init=False)
    returns: Floats = field(init=False)
    rows: Ints = field(init=False)

    def __post_init__(self) -> None:
        self.advantages, self.returns = np.zeros(self.dones.shape), np.zeros(self.dones.shape)
        self.action_log_probs = np.zeros(self.executed.shape)
        self.rows = np.arange(self.dones.size)

    def batches(self, rows: Ints, size: int, agent: TrainableAgent, at_least: int = 0) -> Iterator[tuple[Ints, Batch]]:
        """Decisions by number, in ascending order, in batches of one size; what was not kept is encoded anew.

        There are ``at_least`` so many batches, the last ones perhaps of copies alone. The last batch is filled up with
        copies of weight 0: a matrix product's last bits depend on its shape, and a likelihood divides them by a small
        standard deviation.
        """
        rows, count, device = np.sort(rows), self.dones.shape[1], agent.device
        slots = np.cumsum(self.active.ravel()) - 1
        learned: dict[str, NDArray[Any]] = {
            **{"log_prob": self.log_probs, "action_log_prob": self.action_log_probs, "executed": self.executed},
            **{"advantages": self.advantages, "returns": self.returns, "values": self.values},
            **({} if self.privileged is None else {"privileged": self.privileged}),
        }
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
                    action_log_prob=found["action_log_prob"],
                    executed=found["executed"],
                    advantages=found["advantages"].float(),
                    returns=found["returns"].float(),
                    values=found["values"],
                    privileged=found.get("privileged"),
                    weight=torch.from_numpy(np.arange(size) < len(mine)).to(device, torch.float32),
                ),
            )


@dataclass(frozen=True)
class Decided:
    """Decisions of a batch: encodings, what was drawn, and the critic's values, ``[B]``."""

    encoding: Any
    sample: Sample
    values: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> Decided:
        """Apply a function to each tensor."""
        return Decided(self.encoding.map(function), self.sample.map(function), function(self.values))

    @classmethod
    def cat(cls, parts: Sequence[Decided]) -> Decided:
        """Join batches."""
        encoding = type(parts[0].encoding).cat([part.encoding for part in parts])
        sample = Sample.cat([part.sample for part in parts])
        return cls(encoding, sample, torch.cat([part.values for part in parts]))


class Actor:
    """The actor of a rollout: a policy and its critic, through the inference engine in batches of one size.

    Args:
        agent: decides.
        critic: from the agent's value features ``[B, F]``, or from what the environments show of the simulator
            ``[B, P]``, to values ``[B]``; ``None``: all values are 0.
        size: rows of every batch.
        record: on a GPU, record decisions as CUDA graphs, if the agent can be; these hold the weights' places.
    """

    def __init__(
        self, agent: TrainableAgent, critic: Callable[[Tensor], Tensor] | None, size: int, *, record: bool = True
    ) -> None:
        self.agent, self.critic = agent, critic
        record = agent.recordable and record
        self.decide = InferenceEngine(self._decide, agent.device, (size,), record=record)
        self._valuing = InferenceEngine(self._values, agent.device, (size,), record=record)

    def value(
        self, inputs: Mapping[str, NDArray[Any]], privileged: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Values of observations, ``[N]``: of what the policy reads, or of what a critic reads of the simulator."""
        read = inputs if privileged is None else {PRIVILEGED: privileged}
        rows = {name: torch.from_numpy(values) for name, values in read.items()}
        count = len(next(iter(rows.values())))
        if self.critic is None or not count:
            return np.zeros(count, np.float32)
        return self._valuing(rows)["values"].cpu().numpy()

    def _decide(self, rows: NamedRows) -> Decided:
        inputs, draws = split_draws(rows)
        privileged = inputs.pop(PRIVILEGED, None)
        encoding = self.agent.encode(inputs)
        with_value = self.critic is not None and privileged is None
        sample = self.agent.sample(encoding, inputs, draws, with_value=with_value)
        features = sample.value_features if privileged is None else privileged
        values = torch.zeros(len(sample.log_prob), device=sample.log_prob.device)
        if self.critic is not None and features is not None:
            values = self.critic(features)
        return Decided(encoding, sample, values)

    def _values(self, rows: NamedRows) -> NamedRows:
        assert self.critic is not None
        features = rows.get(PRIVILEGED)
        if features is None:
            features = self.agent.value_features(self.agent.encode(rows), rows)
        return NamedRows(values=self.critic(features).float())


@torch.no_grad()
def collect(env: LearningEnv, actor: Actor, draws: Iterable[Draws], cache: PrefixCache) -> Rollout:
    """Let a policy act, from where its environments stand, as often as there are draws.

    Args:
        env: N environments; those that are not active are left alone, and when none is active it is over.
        actor: decides.
        draws: the random numbers of each decision, N rows.
        cache: gets the encodings.
    """
    read: list[dict[str, Any]] = []
    latent: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    successes: list[bool] = []
    cache.reset()
    for drawn in draws:
        active = env.active.copy()
        if not active.any():
            break
        seen, privileged, rows = env.inputs, env.privileged, np.flatnonzero(active)
        inputs = {name: torch.from_numpy(values[rows]) for name, values in seen.items()}
        decided = actor.decide(
            {
                **inputs,
                **({} if privileged is None else {PRIVILEGED: torch.from_numpy(privileged[rows])}),
                **{f"{DRAWN}{name}": values[rows] for name, values in drawn.items()},
            }
        )
        cache.add(decided.encoding)
        sample = decided.sample
        outcome = env.step(_spread(sample.chunk, rows, env.num_envs))
        final_values = np.zeros(env.num_envs)
        if actor.critic is not None and len(outcome.truncated):
            final_values[outcome.truncated] = actor.value(outcome.final_inputs, outcome.final_privileged)
        told = {name: getattr(outcome, name) for name in ("rewards", "discounts", "dones", "executed")}
        if privileged is not None:
            told["privileged"] = privileged
        read.append(seen)
        latent.append({name: _spread(part, rows, env.num_envs) for name, part in sample.latent.items()})
        judged = {"log_probs": sample.log_prob, "values": decided.values}
        everyone = {name: _spread(part, rows, env.num_envs) for name, part in judged.items()}
        turns.append({**everyone, **told, "final_values": final_values, "active": active})
        successes += outcome.successes
    inputs_of, latent_of, others = (  # of T turns [N, ...]: [T, N, ...]
        {name: np.stack([one[name] for one in of]) for name in of[0]} for of in (read, latent, turns)
    )
    last_values = actor.value(env.inputs, env.privileged)
    return Rollout(inputs_of, latent_of, last_values=last_values, successes=successes, cache=cache, **others)


def _spread(rows_of: Tensor, rows: Ints, count: int) -> NDArray[Any]:
    """Rows of some environments among zeros for the others."""
    found = rows_of.cpu().numpy()
    everyone = np.zeros((count, *found.shape[1:]), found.dtype)
    everyone[rows] = found
    return everyone
