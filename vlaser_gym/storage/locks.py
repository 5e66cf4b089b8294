"""Locks for one writer at a time: a folder, or a single file, that a process has claimed.

A claim is a lock of the operating system's on a small file, ``.lock`` in a folder and ``.NAME.lock`` beside a file: it
ends with its process, however that dies. The file says who holds it, and goes when the claim is released.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from vlaser_gym.errors import StorageError

fcntl: Any
try:
    fcntl = import_module("fcntl")
except ImportError:  # Windows
    fcntl = None

LOCK_NAME = ".lock"
#: Seconds between two looks at whether somebody has finished.
_PAUSE = 0.2
#: On Windows a byte is locked; far behind the text, which others are to read.
_LOCKED_BYTE = 1 << 30


class Claim:
    """A lock that a process holds. Use as a context manager, or release it.

    Args:
        path: of the lock's file.
        descriptor: of the same, which holds the lock.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self._descriptor = path, descriptor

    def release(self) -> None:
        """Let go; more than once is as good as once."""
        if self._descriptor < 0:
            return
        with suppress(OSError):  # the folder is gone, or cannot be written any more
            if fcntl is None:  # Windows removes no file that is open
                os.close(self._descriptor)
                self._descriptor = -1
            self.path.unlink()
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def lock_file(path: Path) -> Path:
    """The path of the lock file of a folder or a file."""
    return path / LOCK_NAME if path.is_dir() else path.with_name(f".{path.name}{LOCK_NAME}")


def claim(path: Path, remedy: str, wait: Callable[[str], None] | None = None) -> Claim:
    """Claim an existing folder, or a file that exists or is to exist, for this process.

    Args:
        path: of it.
        remedy: what else to choose, for the sentence that refuses.
        wait: wait until whoever holds it lets go, and first tell who that is; by default a second writer is refused.

    Raises:
        StorageError: if another process has claimed it.
        OSError: if nothing can be written there.
    """
    place = lock_file(path)
    told = False
    while True:
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
        if _locked(descriptor):
            if _is_at(place, descriptor):
                _sign(descriptor)
                return Claim(place, descriptor)
            os.close(descriptor)  # its holder has removed it meanwhile
            continue
        os.close(descriptor)
        if wait is None:
            holder = _holder(place)
            raise StorageError(f"Another process is writing to {path}: wait for it or choose {remedy}.{holder}")
        if not told:
            wait(f"Waiting for another process, which is writing to {path}.{_holder(place)}")
            told = True
        time.sleep(_PAUSE)


@contextmanager
def held(folder: Path, remedy: str) -> Iterator[None]:
    """Claim a folder, made if need be, while inside; one that was made and is still empty afterwards does not stay.

    Raises:
        StorageError: if another process has claimed it, or it cannot be made.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        claimed = claim(folder, remedy)
    except OSError as error:
        raise StorageError(f"Cannot write to {folder}: {error.strerror or error}; choose {remedy}.") from error
    try:
        yield
    finally:
        claimed.release()
        with suppress(OSError):
            for path in new:
                path.rmdir()


def _locked(descriptor: int) -> bool:
    """Try to take the lock; True on success."""
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            windows: Any = import_module("msvcrt")
            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            windows.locking(descriptor, windows.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _is_at(place: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(place.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    """Say who has the lock; on a full disk nobody is told, and that is all."""
    who = {
        "pid": os.getpid(),
        "host": platform.node(),
        "command": " ".join(sys.orig_argv)[:200],
        "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
    }
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, json.dumps(who).encode())


def _holder(place: Path) -> str:
    """The holder of the lock, as a sentence to append; empty if the file does not say."""
    try:
        who = json.loads(place.read_bytes())
        named = f" It is process {int(who['pid'])} on {who['host']}, begun {who['since']}: {who['command']}."
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return "".join(c if c.isprintable() else "?" for c in named)
