"""Files that are whole or not there: every room writes its files through here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4


@contextmanager
def appearing(file: Path, sync: bool = True, shared: bool = False) -> Iterator[Path]:
    """A path to write to; what was written takes the place of ``file`` at the end, and nothing does after an error.

    Args:
        file: whose folder exists.
        sync: wait until the content is on the disk, so that even a power failure leaves the old file or the new one.
        shared: others may write the same file at the same time; the last to finish wins. Otherwise the path is
            ``NAME.tmp``, so that what a killed process has left is found and written over.
    """
    partial = file.with_name(f"{file.name}.{uuid4().hex}.tmp" if shared else f"{file.name}.tmp")
    try:
        yield partial
        if sync:
            bring_to_disk(partial)
        partial.replace(file)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def write_whole(file: Path, data: bytes, sync: bool = True, shared: bool = False) -> None:
    """Write a file of this content; see :func:`appearing`."""
    with appearing(file, sync, shared) as partial:
        partial.write_bytes(data)


def bring_to_disk(file: Path) -> None:
    """Wait until a file's content is on the disk."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
