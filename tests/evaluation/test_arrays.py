from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vlaser_gym.evaluation.arrays import pack_arrays, read_arrays

RNG = np.random.default_rng(0)
ARRAYS = {
    "qpos": RNG.normal(size=(61, 8)),
    "object/carrot": RNG.normal(size=(5, 7)).astype(np.float32)[::2],
    "flag/success": RNG.random(60) < 0.5,
    "columns": np.asfortranarray(RNG.normal(size=(3, 4))),
    "decision": np.arange(0, 60, 4),
    "nothing": np.zeros((0, 7)),
    "number": np.array(3.0),
}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype
        found[name][...] = 0  # it is the caller's


def test_numpy_reads_what_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(pack_arrays(ARRAYS))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
        assert_same(dict(stored), ARRAYS)
    assert_same(read_arrays(tmp_path / "a.npz"), ARRAYS)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_read(tmp_path: Path, save) -> None:
    save(tmp_path / "a.npz", **ARRAYS)
    assert_same(read_arrays(tmp_path / "a.npz"), ARRAYS)
    assert_same(
        read_arrays(tmp_path / "a.npz", {"qpos", "no such"}),
        {"qpos": ARRAYS["qpos"]},
    )


def test_headers_of_later_versions_are_read(tmp_path: Path) -> None:
    structured = np.ones(2, [("高", "f8")])
    with pytest.warns(UserWarning, match=r"format 3\.0"):
        np.savez(tmp_path / "a.npz", named=structured)
    np.testing.assert_array_equal(read_arrays(tmp_path / "a.npz")["named"], structured)


def test_the_same_arrays_give_the_same_bytes() -> None:
    assert pack_arrays(ARRAYS) == pack_arrays({name: values.copy() for name, values in ARRAYS.items()})


def test_python_objects_are_refused_both_ways(tmp_path: Path) -> None:
    objects = np.array([{}, None])
    with pytest.raises(ValueError, match="holds Python objects"):
        pack_arrays({"odd": objects})
    np.savez(tmp_path / "a.npz", odd=objects)
    with pytest.raises(ValueError, match="OBJECT"):
        read_arrays(tmp_path / "a.npz")
