from __future__ import annotations

import io
from collections import deque
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from gymnasium import spaces

from vlaser_gym.agents.learners.actor_critic import Decision
from vlaser_gym.agents.learners.buffer import ChainBuffer, Outcome, PrefixCache
from vlaser_gym.agents.learners.snapshots import pack, unpack
from vlaser_gym.agents.vlaser.policy import VisionLanguage
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import StorageError

T, N = 3, 2
SPACE = spaces.Dict(
    pixels=spaces.Box(0, 255, (3, 4, 4), np.uint8),
    input_ids=spaces.Box(0, 500, (5,), np.int64),
    proprio=spaces.Box(-np.inf, np.inf, (7,), np.float32),
)
CHAIN = spaces.Box(-1e6, 1e6, (4, 2, 7), np.float32)


def observation(number: float, count: int = N) -> dict[str, np.ndarray]:
    rows = number + np.arange(count)
    return {
        "pixels": np.broadcast_to(rows[:, None, None, None], (count, 3, 4, 4)).astype(np.uint8),
        "input_ids": np.broadcast_to(rows[:, None], (count, 5)).astype(np.int64),
        "proprio": np.broadcast_to(rows[:, None], (count, 7)).astype(np.float32),
    }


def encode(obs) -> VisionLanguage:
    """Keys and values that tell which observation they are of."""
    row = obs["pixels"][:, 0, 0, 0].float()
    key = row[:, None, None, None].expand(-1, 1, 5, 2)
    return VisionLanguage(((key, -key), (key + 0.5, -key)), obs["input_ids"][:, 0].long())


PER_DECISION = 4 * 5 * 2 * 4  # four tensors of 5 tokens, 2 numbers, fp32


def filled(budget: int) -> ChainBuffer:
    buffer = ChainBuffer(T, SPACE, CHAIN, "cpu", gae_lambda=0.9, gamma=0.9, n_envs=N, cache_bytes=budget)
    for t in range(T):
        obs = observation(10 * t)
        chain = np.full((N, *CHAIN.shape), 10.0 * t, np.float32) + np.arange(N)[:, None, None, None]
        steps = torch.full((N, 1), t % 3)
        kept = encode({k: torch.from_numpy(v) for k, v in obs.items()})
        done = np.array([t == 1, False])
        buffer.note(Decision(kept, steps), Outcome(np.full(N, 0.9**4), done, np.array([2.0 * (t == 1), 0])))
        log_prob = torch.tensor([1e3 + 1e-9 * t, 0.0], dtype=torch.float64)
        buffer.add(obs, chain, np.ones(N, np.float32), np.zeros(N), torch.tensor([0.5, 0.25]), log_prob)
    buffer.compute_returns_and_advantage(torch.zeros(N), np.zeros(N))
    return buffer


@pytest.mark.parametrize("kept", [0, 1, 3, 6, 100])
def test_prefixes_are_kept_within_the_budget(kept):
    """Kept or encoded again: every decision gets its own keys and values."""
    buffer = filled(kept * PER_DECISION + PER_DECISION // 2 if kept else 0)
    assert buffer.cache.capacity == min(kept, T * N)
    encoded = []

    def again(obs):
        encoded.append(len(obs["proprio"]))
        return encode(obs)

    batch = buffer.batch(np.array([5, 0, 3]), 4, again, torch.device("cpu"))
    expected = torch.tensor([0.0, 11.0, 21.0, 21.0])  # ascending, the last one a copy
    assert torch.equal(batch.vision_language.cache[0][0][:, 0, 0, 0], expected)
    assert torch.equal(batch.vision_language.cache[1][0][:, 0, 4, 1], expected + 0.5)
    assert torch.equal(batch.proprio[:, 0], expected)
    assert torch.equal(batch.chain[:, 3, 1, 6], expected)
    assert batch.stochastic[:, 0].tolist() == [0, 1, 2, 2]
    assert batch.weight.tolist() == [1, 1, 1, 0]
    assert encoded == ([] if kept >= 6 else [4])
    stored = sum(tensor.nbytes for pair in buffer.cache._store.cache for tensor in pair) if kept else 0
    assert stored == min(kept, 6) * PER_DECISION <= buffer.cache.budget


def test_log_probabilities_keep_their_last_digits():
    batch = filled(0).batch(np.array([0, 2, 4]), 3, encode, torch.device("cpu"))
    assert batch.log_prob.dtype == torch.float64
    assert (batch.log_prob - 1e3).tolist() == pytest.approx([0, 1e-9, 2e-9], abs=1e-12)


def test_a_rollout_forgets_the_last_one():
    buffer = filled(10**6)
    buffer.reset()
    assert buffer.pos == 0
    assert not buffer.dones.any()
    assert buffer.stochastic == []
    buffer.cache.add(encode({k: torch.from_numpy(v) for k, v in observation(7).items()}), 6)
    assert buffer.cache.rows(np.array([1]), torch.device("cpu")).cache[0][0].flatten()[0] == 8


def test_memory_per_decision_is_known():
    cache = PrefixCache(10**6, "cpu")
    cache.add(encode({k: torch.from_numpy(v) for k, v in observation(0).items()}), 100)
    assert cache.bytes_per_decision == PER_DECISION
    assert cache.capacity == 100


# ---------------------------------------------------------------------- snapshots


def test_environment_snapshots_survive_a_weights_only_file():
    env = SceneVectorEnv(["widowx_stack_cube", "widowx_carrot_on_plate"], 2, observe=("state",), layouts="region")
    try:
        env.reset(seed=4)
        rng = np.random.default_rng(0)
        env.step_chunk(rng.uniform(-0.02, 0.02, (2, 4, 7)))
        file = io.BytesIO()
        torch.save(pack(env.get_state()), file)
        file.seek(0)
        restored = unpack(torch.load(file, weights_only=True))
        actions = rng.uniform(-0.02, 0.02, (2, 70, 7))  # over the episodes' end: the next layouts come from the stream
        first = env.step_chunk(actions[:, :60])[0]["state"], env.step_chunk(actions[:, 60:])[0]["state"]
        env.set_state(restored)
        second = env.step_chunk(actions[:, :60])[0]["state"], env.step_chunk(actions[:, 60:])[0]["state"]
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)
    finally:
        env.close()


def test_plain_values_survive():
    value = {
        "a": np.arange(6, dtype=np.uint64).reshape(2, 3),
        3: (1, None, 2.5, "x"),
        "empty": np.zeros((0, 4), np.float32),
        "text": np.array(["ab", "c"]),
        "scalar": np.float64(0.1),
        "zero_d": np.array(7),
    }
    got = unpack(pack(value))
    assert got.keys() == value.keys()
    assert got[3] == value[3]
    assert got["scalar"] == 0.1
    for name in ("a", "empty", "text", "zero_d"):
        np.testing.assert_array_equal(got[name], value[name])
        assert got[name].dtype == value[name].dtype
    assert unpack(pack(deque([True, False], maxlen=5))) == [True, False]
    generator = np.random.default_rng(3)
    generator.random(5)
    assert unpack(pack(generator)).random() == generator.random()


def test_a_file_cannot_name_classes_of_others():
    @dataclass
    class Stranger:
        x: int

    with pytest.raises(StorageError, match="records of this gym"):
        unpack(pack(Stranger(1)))
    record = {"__kind__": "record", "type": "vlaser_gym.agents.learners.snapshots:pack", "fields": {}}
    with pytest.raises(StorageError, match="records of this gym"):
        unpack(record)
    with pytest.raises(TypeError, match="object"):
        pack(object())
