from __future__ import annotations

import random
import time
import tracemalloc
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


def test_a_scalar_that_asks_for_gigabytes_costs_nothing() -> None:
    """numpy makes a text of n zeros from the number n: 60 bytes of message, 14 GB of memory."""
    for data in (10**10, True, 1.5, None, []):
        message = {"x": {b"__npgeneric__": True, b"dtype": "S1", b"data": data}}
        with pytest.raises(RemoteError, match=r"is no scalar of \|S1"):
            unpack(msgpack.packb(message))


def bombs() -> dict[str, bytes]:
    """Messages that are small or cheap to send, and cost a naive reader minutes or gigabytes."""
    array_of = {b"__ndarray__": True, b"data": b"", b"shape": [0]}
    return {
        "long dtype": msgpack.packb({"x": {**array_of, b"dtype": "f4," * 4_000_000}}),
        "long number in a dtype": msgpack.packb({"x": {**array_of, b"dtype": "S" + "9" * 4_000_000}}),
        "structured dtype": msgpack.packb({"x": {**array_of, b"dtype": ",".join(["f4"] * 10_000)}}),
        "empty maps": b"\x81\xa1x" + b"\xdc\x03\xe8" * 2 + b"\x80" * 15_000_000,
        "maps within lists": b"\x81\xa1x\xdd\x00\x80\x00\x00" + b"\x80" * 0x800000,
        "short texts": b"\x81\xa1x" + (b"\xdc\x03\xff" + b"\xa2ab" * 1022) * 1000,
        "a list that claims four billion": b"\x81\xa1x\xdd\xff\xff\xff\xff",
        "a map that claims four billion": b"\xdf\xff\xff\xff\xff",
        "claims within claims": b"\x81\xa1x" + b"\xdc\x04\x00" * 5000,
        "nesting": b"\x81\xa1x" + b"\x91" * 900 + b"\xc0",
        "maps in maps": b"\x81\xa1x" * 500 + b"\xc0",
        "text without end": msgpack.packb({"prompt": "\U0001f980" + "a" * 15_000_000}),
        "extension": msgpack.packb({"x": msgpack.ExtType(5, b"\0" * 1_000_000)}),
        "shape beyond memory": msgpack.packb({"x": {**array_of, b"dtype": "<f8", b"shape": [2**62, 2**62]}}),
        "shape of many sizes": msgpack.packb({"x": {**array_of, b"dtype": "<f8", b"shape": [1] * 1000}}),
        "text array of nothing": msgpack.packb({"x": {**array_of, b"dtype": "S0", b"shape": [10**12]}}),
    }


@pytest.mark.parametrize("name", bombs())
def test_bombs_are_refused_before_they_cost_anything(name: str) -> None:
    data = bombs()[name]
    tracemalloc.start()
    began = time.perf_counter()
    try:
        with pytest.raises(RemoteError) as caught:
            unpack(data)
        seconds, (_, peak) = time.perf_counter() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    # Tracing makes it several times slower than it is.
    assert seconds < 2
    assert peak < len(data) + 100e6


@pytest.mark.parametrize("rows", [50, 500])
def test_actions_written_as_lists_still_come_through(rows: int) -> None:
    values = np.random.default_rng(0).normal(size=(rows, 7))
    assert unpack(msgpack.packb({"actions": values.tolist()}))["actions"] == values.tolist()


@pytest.mark.parametrize("dtype", [">f4", "uint8", "f4", "|S3", "<U2", "|b1"])
def test_known_types_under_their_names(dtype: str) -> None:
    values = np.zeros(2, dtype)
    entries = {b"__ndarray__": True, b"data": values.tobytes(), b"dtype": dtype, b"shape": [2]}
    np.testing.assert_array_equal(unpack(msgpack.packb({"x": entries}))["x"], values)


def test_text_of_a_stranger_cannot_steer_a_terminal() -> None:
    """Escape sequences, carriage returns within a line, and marks that turn the direction of writing."""
    said = one_line("first\nno GPU \x1b[2J\x1b]0;title\x07 \x9b31m \u202egpj.exe \u200b\U000e0041")
    assert said.startswith("no GPU \\x1b[2J")
    assert all(c.isprintable() for c in said)
    assert one_line("déjà vu 模型 🦀") == "déjà vu 模型 🦀"
    assert len(one_line("\x1b" * 1000)) <= 300


def tree(rng: random.Random, depth: int = 0) -> Any:
    """Anything that msgpack writes, of all its widths."""
    kind = rng.randrange(9)
    if depth > 4 or kind < 6:
        number = rng.choice([rng.randrange(-200, 300), rng.randrange(-(2**63), 2**64), rng.random()])
        return rng.choice([None, True, number, "x" * rng.randrange(300), b"y" * rng.choice([9, 300, 70_000])])
    entries = [tree(rng, depth + 1) for _ in range(rng.randrange(20))]
    return entries if kind == 6 else {str(i): entry for i, entry in enumerate(entries)}


def test_every_message_of_msgpack_is_walked_to_its_end_and_no_part_of_one_is() -> None:
    rng = random.Random(0)
    for _ in range(60):
        whole = msgpack.packb({"x": tree(rng)}, use_single_float=rng.random() < 0.5)
        unpack(whole)
        with pytest.raises(RemoteError):
            unpack(whole[: rng.randrange(len(whole))])
        with pytest.raises(RemoteError):
            unpack(whole + b"\xc0")
