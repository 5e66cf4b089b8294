"""Files damaged at random, as disks, copies and people do it."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

JUNK: list[Any] = [None, True, -1, 0, 2**70, 1e308, "", "x", "../..", [], [1, "a"], {}, {"a": {"b": 1}}, "NaN", -0.5]


def cut(data: bytes, luck: random.Random) -> bytes:
    return data[: luck.randrange(len(data) + 1)]


def flip(data: bytes, luck: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(luck.choice((1, 1, 3))):
        if found:
            found[luck.randrange(len(found))] ^= 1 << luck.randrange(8)
    return bytes(found)


def hole(data: bytes, luck: random.Random) -> bytes:
    start = luck.randrange(len(data) + 1)
    length = luck.randrange(1, 200)
    return data[:start] + bytes(len(data[start : start + length])) + data[start + length :]


def noise(data: bytes, luck: random.Random) -> bytes:
    return luck.randbytes(luck.randrange(300))


def doubled(data: bytes, luck: random.Random) -> bytes:
    start = luck.randrange(len(data) + 1)
    return data[:start] + data[start // 2 :]


def swapped_leaf(data: bytes, luck: random.Random) -> bytes:
    """Of JSON, or of one line of it: another value, or a key less."""
    lines = data.split(b"\n") if data.count(b"\n{") else [data]
    number = luck.randrange(len(lines))
    try:
        value = json.loads(lines[number])
    except ValueError:
        return flip(data, luck)
    spoil(value, luck)
    lines[number] = json.dumps(value).encode()
    return b"\n".join(lines)


def spoil(value: Any, luck: random.Random) -> None:
    """Somewhere in nested containers: another value, or an entry less."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not keys:
        return
    key = luck.choice(keys)
    if isinstance(value[key], dict | list) and value[key] and luck.random() < 0.8:
        spoil(value[key], luck)
    elif luck.random() < 0.3:
        del value[key]
    else:
        value[key] = luck.choice(JUNK)


WAYS: list[Callable[[bytes, random.Random], bytes]] = [
    cut,
    flip,
    flip,
    hole,
    noise,
    doubled,
    swapped_leaf,
    swapped_leaf,
]


def damage(folder: Path, seed: int) -> str:
    """Damage one file below a folder, or remove it; returns what was done."""
    luck = random.Random(seed)
    file = luck.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    if luck.random() < 0.08:
        file.unlink()
        return f"{seed}: removed {file.name}"
    if luck.random() < 0.04:
        file.unlink()
        file.mkdir()
        return f"{seed}: a folder in place of {file.name}"
    way = luck.choice(WAYS)
    file.write_bytes(way(file.read_bytes(), luck))
    return f"{seed}: {way.__name__} of {file.name}"


def survivors(whole: Path, folder: Path, read: Callable[[Path], Any], seeds: range, error: type[Exception]) -> int:
    """Damage a copy again and again and read it; how often reading noticed.

    Raises:
        AssertionError: for an error that is no sentence.
    """
    noticed = 0
    for seed in seeds:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        done = damage(folder, seed)
        try:
            read(folder)
        except error as sentence:
            noticed += "\n" not in str(sentence).strip() or pytest.fail(f"{done}: {sentence}")
        except Exception as other:
            raise AssertionError(f"{done}: {type(other).__name__}: {other}") from other
    return noticed
