from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest

from vlaser_gym.agents.wire import one_line, pack, unpack
from vlaser_gym.errors import RemoteError


def test_the_bytes_are_openpis() -> None:
    """The message {"actions": array of two int16} as msgpack's specification writes it, byte by byte."""
    expected = bytes([0x81, 0xA7]) + b"actions" + bytes([0x84])  # a map of one entry, and in it a map of four
    expected += bytes([0xC4, 11]) + b"__ndarray__" + bytes([0xC3])  # key of type bin, value true
    expected += bytes([0xC4, 4]) + b"data" + bytes([0xC4, 4, 1, 0, 2, 0])
    expected += bytes([0xC4, 5]) + b"dtype" + bytes([0xA3]) + b"<i2"
    expected += bytes([0xC4, 5]) + b"shape" + bytes([0x91, 2])
    assert pack({"actions": np.array([1, 2], "<i2")}) == expected
    np.testing.assert_array_equal(unpack(expected)["actions"], [1, 2])


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((2, 3, 4), np.float32),
        np.array(1.5),
        np.array([True, False]),
        np.array(["pick", "up"]),
        np.arange(256, dtype=np.uint8).reshape(16, 16)[::2, ::3],
        np.empty((0, 7)),
        np.float32(0.1),
        np.array([np.nan, np.inf, -0.0]),
    ],
)
def test_arrays_come_back(value: Any) -> None:
    got = unpack(pack({"x": value}))["x"]
    assert (got.dtype, got.shape, got.tobytes()) == (value.dtype, value.shape, value.tobytes())


@pytest.mark.parametrize("value", [np.array([object()]), np.array([1j]), object(), 2**70])
def test_what_cannot_travel_is_one_sentence(value: Any) -> None:
    with pytest.raises(RemoteError, match="cannot be sent"):
        pack({"x": value})


def array(**changes: Any) -> dict[Any, Any]:
    entries = {"__ndarray__": True, "data": b"\0" * 8, "dtype": "<f4", "shape": [2], **changes}
    return {"x": {name.encode(): value for name, value in entries.items()}}


@pytest.mark.parametrize(
    "message",
    [
        array(shape=[3]),
        array(shape=[-1]),
        array(shape=[2.0]),
        array(shape=[10**9, 10**9]),
        array(shape="2"),
        array(dtype="|O"),
        array(dtype="no type"),
        array(dtype="<f4,<f4"),
        array(dtype=7),
        array(data="text"),
        [1, 2],
        None,
        3.5,
    ],
)
def test_malformed_messages_are_one_sentence(message: Any) -> None:
    with pytest.raises(RemoteError) as caught:
        unpack(msgpack.packb(message))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x81", b"hello", "hello", b"\xdd\xff\xff\xff\xff", b"\x91" * 5000])
def test_other_bytes_are_one_sentence(data: bytes | str) -> None:
    with pytest.raises(RemoteError) as caught:
        unpack(data)
    assert "\n" not in str(caught.value)


def test_of_a_traceback_the_last_line_says_it() -> None:
    assert one_line("Traceback:\n  File x\nValueError: no\n\n") == "ValueError: no"
    assert one_line("") == ""
