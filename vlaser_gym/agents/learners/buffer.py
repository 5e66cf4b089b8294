"""The rollout: chains instead of actions, ragged discounts, keys and values of image and text kept for the update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.buffers import DictRolloutBuffer
from torch import Tensor

from vlaser_gym.agents.learners.actor_critic import Decision
from vlaser_gym.agents.learners.advantages import generalized_advantages
from vlaser_gym.agents.vlaser.policy import VisionLanguage

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Outcome:
    """What N lanes' decisions led to.

    Attributes:
        discounts: ``gamma ** m`` for m control steps that ran, ``[N]``.
        dones: whether the episode ended, ``[N]``.
        final_values: value of the observation that a truncated episode ended with, else 0, ``[N]``.
    """

    discounts: NDArray[np.float64]
    dones: NDArray[np.bool_]
    final_values: NDArray[np.float64]


@dataclass(frozen=True)
class Batch:
    """Stored decisions, on the policy's device.

    Attributes:
        vision_language: without gradients if it was kept.
        proprio: ``[B, P]``.
        chain: ``[B, K + 1, H, A]``, not clamped.
        stochastic: ``[B, S]``.
        log_prob: when they were drawn, ``[B]``, float64.
        advantages, returns: ``[B]``, fp32.
        weight: 1, or 0 for copies that only fill the batch, ``[B]``, fp32.
    """

    vision_language: VisionLanguage
    proprio: Tensor
    chain: Tensor
    stochastic: Tensor
    log_prob: Tensor
    advantages: Tensor
    returns: Tensor
    weight: Tensor


class PrefixCache:
    """Keys and values of as many decisions as a memory budget takes; the first ones are kept.

    Args:
        budget: bytes.
        device: where to keep them.
    """

    def __init__(self, budget: int, device: torch.device | str) -> None:
        self.budget, self.device = budget, torch.device(device)
        #: Decisions that are kept; known after the first.
        self.capacity = 0
        #: Bytes of one decision.
        self.bytes_per_decision = 0
        self._store: VisionLanguage | None = None
        self._filled = 0

    @property
    def is_full(self) -> bool:
        """Whether nothing more fits."""
        return self._store is not None and self._filled >= self.capacity

    def reset(self) -> None:
        """Forget the decisions, keep the memory."""
        self._filled = 0

    def add(self, encoded: VisionLanguage, total: int) -> None:
        """Keep what fits of a batch; ``total`` decisions will come in all."""
        if self._store is None:
            self.bytes_per_decision = encoded.nbytes // len(encoded.lengths)
            self.capacity = min(total, self.budget // self.bytes_per_decision)
            self._store = encoded.map(lambda t: torch.empty(self.capacity, *t.shape[1:], dtype=t.dtype).to(self.device))
        count = min(len(encoded.lengths), self.capacity - self._filled)
        target = slice(self._filled, self._filled + count)
        for (k, v), (new_k, new_v) in zip(self._store.cache, encoded.cache, strict=True):
            k[target], v[target] = new_k[:count].to(self.device), new_v[:count].to(self.device)
        self._store.lengths[target] = encoded.lengths[:count].to(self.device)
        self._filled += count

    def rows(self, index: Ints, device: torch.device) -> VisionLanguage:
        """Kept decisions by number."""
        assert self._store is not None
        return self._store.rows(torch.from_numpy(index).to(self.device)).to(device)


class ChainBuffer(DictRolloutBuffer):  # type: ignore[misc]  # Stable-Baselines3 is not followed by the type checker
    """One rollout of ``buffer_size`` decisions on each of ``n_envs`` lanes.

    Decision ``r`` is number ``r // n_envs`` on lane ``r % n_envs``. Log-probabilities are float64: in fp32 a sum of a
    hundred terms is rounded by more than the ratio may be.

    Args:
        args, kwargs: of Stable-Baselines3's buffer.
        cache_bytes: memory for keys and values; 0 keeps none.
        cache_device: where; by default the buffer's device.
    """

    def __init__(self, *args: Any, cache_bytes: int = 0, cache_device: str | None = None, **kwargs: Any) -> None:
        self._cache_settings = (cache_bytes, cache_device)
        self.cache: PrefixCache | None = None
        super().__init__(*args, **kwargs)

    def reset(self) -> None:
        """Empty, of the right types."""
        super().reset()
        shape = (self.buffer_size, self.n_envs)
        self.log_probs = np.zeros(shape, np.float64)
        self.discounts, self.final_values = np.zeros(shape), np.zeros(shape)
        self.dones = np.zeros(shape, bool)
        self.stochastic: list[NDArray[np.int64]] = []
        #: Of every decision, its number in the cache; ascending.
        self.slots: Ints = np.arange(self.buffer_size * self.n_envs)
        if self.cache is None:
            budget, device = self._cache_settings
            self.cache = PrefixCache(budget, device or self.device)
        self.cache.reset()

    @property
    def learnt_from(self) -> Ints:
        """Numbers of the decisions that an update uses."""
        return np.arange(self.buffer_size * self.n_envs)

    def note(self, decision: Decision, outcome: Outcome) -> None:
        """What :meth:`add` is not told; comes before it."""
        assert self.cache is not None
        self.discounts[self.pos], self.dones[self.pos] = outcome.discounts, outcome.dones
        self.final_values[self.pos] = outcome.final_values
        self.stochastic.append(decision.stochastic.cpu().numpy())
        if self.cache.budget and len(decision.vision_language.lengths):
            self.cache.add(decision.vision_language.detach(), self.buffer_size * self.n_envs)

    def compute_returns_and_advantage(self, last_values: Tensor, dones: NDArray[Any]) -> None:
        """Advantages of ragged chunks; see :func:`generalized_advantages`."""
        self.advantages = generalized_advantages(
            self.rewards,
            self.values,
            last_values.detach().float().cpu().numpy().flatten(),
            discounts=self.discounts,
            dones=self.dones,
            final_values=self.final_values,
            gae_lambda=self.gae_lambda,
        )
        self.returns = self.advantages + self.values

    def batch(
        self, rows: Ints, size: int, encode: Callable[[Mapping[str, Tensor]], VisionLanguage], device: torch.device
    ) -> Batch:
        """Decisions by number, in ascending order; image and text are encoded anew where they were not kept.

        The batch is filled up to ``size`` with copies of weight 0: a matrix product's last bits depend on its shape,
        and a likelihood divides them by a small standard deviation.
        """
        assert self.cache is not None
        count = len(rows)
        rows = np.sort(rows)
        rows = np.concatenate([rows, np.repeat(rows[-1:], size - count)])
        at = np.divmod(rows, self.n_envs)
        chain = self.actions[at].reshape(size, *self.action_space.shape)
        slots = self.slots[rows]
        kept = int((slots < self.cache.capacity).sum())
        parts = [self.cache.rows(slots[:kept], device)] if kept else []
        if kept < size:
            encoded = encode({k: torch.from_numpy(v[at]) for k, v in self.observations.items()})
            parts.append(encoded.rows(slice(kept, size)))

        def tensor(values: NDArray[Any], dtype: torch.dtype) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values[at])).to(device, dtype)

        return Batch(
            vision_language=VisionLanguage.cat(parts),
            proprio=tensor(self.observations["proprio"], torch.float32),
            chain=torch.from_numpy(chain).to(device),
            stochastic=tensor(np.stack(self.stochastic), torch.int64),
            log_prob=tensor(self.log_probs, torch.float64),
            advantages=tensor(self.advantages, torch.float32),
            returns=tensor(self.returns, torch.float32),
            weight=torch.from_numpy(np.arange(size) < count).to(device, torch.float32),
        )
