"""Decoded images: the cache does not grow without end, and takes nothing from runs that are on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vlaser_gym.agents.vlaser.processor import ResizeImage
from vlaser_gym.training.data import pictures
from vlaser_gym.training.data.pictures import cached_pixels


class Reader:
    """Ten images of one colour."""

    total_frames = 10

    def __init__(self, path: Path, colour: int) -> None:
        path.mkdir()
        self.path, self.colour = path, colour
        (path / "file").write_bytes(bytes([colour]))

    def picture_files(self) -> list[Path]:
        return [self.path / "file"]

    def frames(self, chosen: NDArray[np.bool_] | None = None) -> Iterator[NDArray[np.uint8]]:
        assert chosen is not None
        yield np.full((int(chosen.sum()), 8, 8, 3), self.colour, np.uint8)


def _age(file: Path, hours: float) -> None:
    then = time.time() - 3600 * hours
    os.utime(file, (then, then))


def test_the_longest_unused_go_when_there_is_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, resize = tmp_path / "cache", ResizeImage(8)
    readers = [Reader(tmp_path / str(colour), colour) for colour in range(5)]

    def read(reader: Reader) -> Path:
        before = set(cache.glob("*/*.npy"))
        assert (cached_pixels(reader, resize, cache=cache) == reader.colour).all()
        return next(iter(set(cache.glob("*/*.npy")) - before), tmp_path)

    files = [read(reader) for reader in readers[:3]]
    size = files[0].stat().st_size
    for file, hours in zip(files, (4, 3, 2), strict=True):
        _age(file, hours)
    monkeypatch.setattr(pictures, "KEPT", 2 * size)

    assert read(readers[0]) == tmp_path  # a use: not decoded again, and the latest from now on
    files.append(read(readers[3]))
    assert [file.exists() for file in files] == [True, False, True, True]

    _age(files[3], 0.5)  # more than fits is there, but all were used within the hour
    _age(files[2], 0.7)
    files.append(read(readers[4]))
    assert [file.exists() for file in files] == [True, False, True, True, True]
    assert (cached_pixels(readers[1], resize, cache=cache) == 1).all()
