from __future__ import annotations

import numpy as np
import pytest
import torch

from vlaser_gym.agents.vlaser.policy import VisionLanguage
from vlaser_gym.training.data.prefix_cache import PrefixCache
from vlaser_gym.training.rollout import Rollout

T, N = 3, 2


def observation(number: float, count: int = N) -> dict[str, np.ndarray]:
    rows = number + np.arange(count)
    return {
        "pixels": np.broadcast_to(rows[:, None, None, None], (count, 4, 4, 3)).astype(np.uint8),
        "input_ids": np.broadcast_to(rows[:, None], (count, 5)).astype(np.int64),
        "proprio": np.broadcast_to(rows[:, None], (count, 7)).astype(np.float32),
    }


class Encoder:
    """Keys and values that tell which observation they are of."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.encoded: list[int] = []

    def encode(self, inputs) -> VisionLanguage:
        row = torch.as_tensor(inputs["pixels"])[:, 0, 0, 0].float()
        self.encoded.append(len(row))
        key = row[:, None, None, None].expand(-1, 1, 5, 2)
        return VisionLanguage(((key, -key), (key + 0.5, -key)), torch.as_tensor(inputs["input_ids"])[:, 0].long())


PER_DECISION = 4 * 5 * 2 * 4 + 8  # four tensors of 5 tokens, 2 numbers, fp32; and a length


def filled(budget: int, active: np.ndarray | None = None) -> Rollout:
    cache = PrefixCache(budget, "cpu", T * N)
    active = np.ones((T, N), bool) if active is None else active
    observations = [observation(10 * t) for t in range(T)]
    for t in range(T):
        rows = np.flatnonzero(active[t])
        if len(rows):
            cache.add(Encoder().encode({name: values[rows] for name, values in observations[t].items()}))
    chain = np.zeros((T, N, 4, 2, 7), np.float32)
    chain += (10.0 * np.arange(T)[:, None] + np.arange(N))[..., None, None, None]
    steps = np.broadcast_to(np.arange(T)[:, None, None] % 3, (T, N, 1)).astype(np.int64)
    return Rollout(
        inputs={name: np.stack([seen[name] for seen in observations]) for name in observations[0]},
        latent={"chain": chain, "stochastic": steps},
        active=active,
        log_probs=np.array([[1e3 + 1e-9 * t, 0.0] for t in range(T)]),
        values=np.zeros((T, N), np.float32),
        rewards=np.ones((T, N), np.float32),
        discounts=np.full((T, N), 0.9**4),
        dones=np.zeros((T, N), bool),
        final_values=np.zeros((T, N)),
        last_values=np.zeros(N, np.float32),
        successes=[],
        cache=cache,
        executed=np.ones((T, N, 4), bool),
    )


@pytest.mark.parametrize("kept", [0, 1, 3, 6, 100])
def test_encodings_are_kept_within_the_budget(kept):
    """Kept or encoded again: every decision gets its own keys and values."""
    rollout = filled(kept * PER_DECISION + PER_DECISION // 2 if kept else 0)
    assert rollout.cache.capacity == min(kept, T * N)
    agent = Encoder()
    batch = next(rollout.batches(np.array([5, 0, 3]), 4, agent))[1]
    expected = torch.tensor([0.0, 11.0, 21.0, 21.0])  # ascending, the last one a copy
    assert torch.equal(batch.encoding.cache[0][0][:, 0, 0, 0], expected)
    assert torch.equal(batch.encoding.cache[1][0][:, 0, 4, 1], expected + 0.5)
    assert torch.equal(batch.inputs["proprio"][:, 0], expected)
    assert torch.equal(batch.latent["chain"][:, 3, 1, 6], expected)
    assert batch.latent["stochastic"][:, 0].tolist() == [0, 1, 2, 2]
    assert batch.weight.tolist() == [1, 1, 1, 0]
    assert agent.encoded == ([] if kept >= 6 else [4])
    stored = sum(tensor.nbytes for tensor in rollout.cache._store.tensors()) if kept else 0
    assert stored == min(kept, 6) * PER_DECISION <= rollout.cache.budget


def test_environments_that_stand_still_take_no_place_in_the_cache():
    rollout = filled(10**6, np.array([[True, True], [False, True], [False, True]]))
    batch = next(rollout.batches(np.array([0, 3, 5]), 3, Encoder()))[1]
    assert torch.equal(batch.encoding.cache[0][0][:, 0, 0, 0], torch.tensor([0.0, 11.0, 21.0]))


def test_log_probabilities_keep_their_last_digits():
    batch = next(filled(0).batches(np.array([0, 2, 4]), 3, Encoder()))[1]
    assert batch.log_prob.dtype == torch.float64
    assert (batch.log_prob - 1e3).tolist() == pytest.approx([0, 1e-9, 2e-9], abs=1e-12)


def test_a_cache_forgets_the_last_rollout():
    cache = filled(10**6).cache
    cache.reset()
    cache.add(Encoder().encode(observation(7)))
    assert cache.rows(np.array([1]), torch.device("cpu")).cache[0][0].flatten()[0] == 8


def test_memory_per_decision_is_known():
    cache = PrefixCache(10**6, "cpu", 100)
    cache.add(Encoder().encode(observation(0)))
    assert cache.bytes_per_decision == PER_DECISION
    assert cache.capacity == 100
