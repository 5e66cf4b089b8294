from __future__ import annotations

import io
from collections import deque
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import StorageError
from vlaser_gym.training.snapshots import pack, unpack


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
    record = {"__kind__": "record", "type": "vlaser_gym.training.snapshots:pack", "fields": {}}
    with pytest.raises(StorageError, match="records of this gym"):
        unpack(record)
    with pytest.raises(TypeError, match="object"):
        pack(object())
