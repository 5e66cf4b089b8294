"""Decoded images of data sets, kept outside them: data may be read-only, and several runs may share it.

A file of the cache is named after what its images were made from: the content of the data set's files, the chosen
rows, the size and the filter. It appears when it is whole; of two runs that need it one decodes and the other waits.
Before a data set is decoded, those that were not used for longest go until the rest takes at most :data:`KEPT` bytes.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.agents.trainable import ImageResize
from vlaser_gym.storage import places
from vlaser_gym.storage.checksums import digest_of_files
from vlaser_gym.storage.files import appearing, remove_leftovers, storage_errors
from vlaser_gym.storage.locks import claim

#: Bytes of decoded images that stay: 460,000 of 120 x 120 pixels.
KEPT = 20 * 10**9
#: Seconds for which none is removed after its use: another run may be about to open it.
_IN_USE = 3600


class PictureReader(Protocol):
    """Gives images in their order; a data set's reader is one.

    Attributes:
        path: folder that they are in.
    """

    path: Path

    @property
    def total_frames(self) -> int:
        """The number of images."""

    def picture_files(self) -> list[Path]:
        """The files that images come from."""

    def frames(self, chosen: NDArray[np.bool_] | None = None) -> Iterator[NDArray[np.uint8]]:
        """Images ``[n, H, W, 3]``, some at a time."""


def cached_pixels(
    reader: PictureReader,
    resize: ImageResize,
    chosen: NDArray[np.bool_] | None = None,
    cache: str | Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> NDArray[np.uint8]:
    """Images ``[N, S, S, 3]`` of a data set's chosen rows, memory-mapped; decoded when first asked for.

    Args:
        reader: the data set.
        resize: brings its images to S x S.
        chosen: which rows; ``None``: all.
        cache: folder of the decoded images; ``None``: in the user's cache.
        say: told if another process is decoding and this one waits.

    Raises:
        StorageError: if the cache cannot be written, or an image cannot be decoded.
    """
    chosen = np.ones(reader.total_frames, bool) if chosen is None else chosen
    # A folder of its own for each data set, size and filter: what it holds of former content can go.
    place = hashlib.sha256(str(reader.path.resolve()).encode()).hexdigest()[:16]
    folder = Path(cache or places.user_cache() / "pictures") / f"{place}-{resize.size}-{resize.filter}"
    # The file's name tells the rows and the content of the files that their images come from.
    sources = digest_of_files({str(file.relative_to(reader.path)): file for file in reader.picture_files()})
    told = np.packbits(chosen).tobytes() + str(len(chosen)).encode() + sources.encode()
    name = f"{hashlib.sha256(told).hexdigest()[:32]}.npy"
    with storage_errors(
        f"Cannot keep decoded images in {folder}", "choose a writable folder with enough space by cache=DIR"
    ):
        folder.mkdir(parents=True, exist_ok=True)
        with claim(folder, "another cache=", wait=say):
            file = folder / name
            if not file.is_file():
                remove_leftovers(folder)
                _forget(folder.glob("*.npy"))
                _forget(_long_unused(folder.parent))
                _decode(reader, resize, chosen, file)
            os.utime(file)
            return np.asarray(np.load(file, mmap_mode="r"))


def _decode(reader: PictureReader, resize: ImageResize, chosen: NDArray[np.bool_], file: Path) -> None:
    shape = (int(chosen.sum()), resize.size, resize.size, 3)
    with appearing(file) as partial:
        pixels: Any = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
        start = 0
        for frames in reader.frames(chosen):
            pixels[start : start + len(frames)] = _resized(frames, resize)
            start += len(frames)
        pixels.flush()


def _long_unused(cache: Path) -> Iterator[Path]:
    """Files beyond :data:`KEPT` bytes, the longest unused first."""
    used = {file: file.stat() for file in cache.glob("*/*.npy")}
    total = sum(state.st_size for state in used.values())
    for file, state in sorted(used.items(), key=lambda item: item[1].st_mtime):
        if total <= KEPT or time.time() - state.st_mtime < _IN_USE:
            return
        total -= state.st_size
        yield file


def _forget(decoded: Iterable[Path]) -> None:
    """Remove decoded images; whoever has them open keeps them."""
    with suppress(FileNotFoundError):  # another run removes them too
        for file in decoded:
            with suppress(PermissionError):  # Windows removes no file that is open
                file.unlink(missing_ok=True)


def _resized(frames: NDArray[np.uint8], resize: ImageResize) -> NDArray[np.uint8]:
    if frames.shape[1:3] == (resize.size, resize.size):
        return frames
    return np.asarray(resize({"image": frames})["pixels"], np.uint8)
