"""Files that grow by lines, folders that one process writes, and what is on the disk when."""

from __future__ import annotations

import fcntl
import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from vlaser_gym import atomic
from vlaser_gym.errors import StorageError

#: What helps against a line that is not as it was written.
_REMEDY = "restore the line, or take it out and let the command that wrote it repeat what is missing"


def probe(folder: Path) -> None:
    """Find out whether a folder can be made or written, and leave no trace.

    Raises:
        OSError: if not.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial = folder / f"probe-{os.getpid()}.tmp"
        trial.write_bytes(b"")
        trial.unlink()
    finally:
        for path in new:
            if path.is_dir():
                path.rmdir()


def check_output(key: str, path: str | None, folder: bool = False) -> None:
    """Find out whether a command's output can be written, before the work that it is about; leave no trace.

    Args:
        key: the command's key for it.
        path: of the file; ``None`` if there is to be none.
        folder: it is to be a folder.

    Raises:
        StorageError: if it cannot.
    """
    if path is None:
        return
    place = Path(path)
    with _refusing(key, path):
        if not folder and place.exists() and not place.is_file():
            raise StorageError(f"Cannot write {key}={path}: expected a file, found a folder or device; choose another.")
        probe(place if folder else place.parent)


def write_output(key: str, path: str, data: bytes) -> None:
    """Write a command's output as a whole, in a new folder if need be.

    Raises:
        StorageError: if it cannot be written.
    """
    with _refusing(key, path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        atomic.write_whole(Path(path), data)


def _refusing(key: str, path: str) -> AbstractContextManager[None]:
    return storage_errors(f"Cannot write {key}={path}", "choose another")


def claim(folder: Path, remedy: str) -> int:
    """Claim a folder for this process: a descriptor to close. The system closes it when the process dies.

    Raises:
        StorageError: if another process has claimed it; ``remedy`` says what else to choose.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise StorageError(f"Another process is writing to {folder}: wait for it or choose {remedy}.") from error
    return descriptor


@contextmanager
def held(folder: Path, remedy: str) -> Iterator[None]:
    """Claim a folder, made if need be, while inside; one that was made and is still empty afterwards does not stay.

    Raises:
        StorageError: if another process has claimed it, or it cannot be made.
    """
    with storage_errors(f"Cannot write to {folder}", f"choose {remedy}"):
        new = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = claim(folder, remedy)
    try:
        yield
    finally:
        os.close(descriptor)
        with suppress(OSError):
            for path in new:
                path.rmdir()


@contextmanager
def storage_errors(what: str, remedy: str) -> Iterator[None]:
    """Turn what the file system dislikes into one sentence.

    Raises:
        StorageError: in place of an :class:`OSError`.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(f"{what}: {error.strerror or error}; {remedy}.") from error


def line_of(entry: Mapping[str, Any]) -> bytes:
    """An entry as a line of JSON."""
    return (json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n").encode()


def append_line(file: io.FileIO, entry: Mapping[str, Any]) -> None:
    """One line, in as few writes as the system allows."""
    data = line_of(entry)
    while data:
        data = data[file.write(data) or 0 :]


def drop_cut_line(file: Path) -> None:
    """Forget a last line that was not written to its end."""
    if not file.exists():
        return
    data = file.read_bytes()
    end = data.rfind(b"\n") + 1
    if end and parse_object(data[data.rfind(b"\n", 0, end - 1) + 1 : end]) is None:
        end = data.rfind(b"\n", 0, end - 1) + 1
    if end < len(data):
        os.truncate(file, end)


def parse_object(data: bytes) -> dict[str, Any] | None:
    """A JSON object; ``None`` for anything else, and for one in which a name stands twice."""
    try:
        entry = json.loads(data.decode(), object_pairs_hook=_once)
    except (ValueError, RecursionError):  # nested so deeply that nobody has written it
        return None
    return entry if isinstance(entry, dict) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, whose names must differ: of two equal ones the second would silently win."""
    entry = dict(pairs)
    if len(entry) < len(pairs):
        raise ValueError("a name stands twice")
    return entry


def read_lines(file: Path, check: Callable[[dict[str, Any]], None]) -> list[dict[str, Any]]:
    """Entries of a file of JSON lines; a last line that was not written to its end is left out.

    Args:
        file: an absent one holds nothing.
        check: raises a :class:`ValueError` with a phrase for an entry that is not what it should be.

    Raises:
        StorageError: for any other line that is damaged, with its number.
    """
    if not file.exists():
        return []
    complete = file.read_bytes().split(b"\n")[:-1]
    entries = [parse_object(line) for line in complete]
    if entries and entries[-1] is None:
        entries.pop()
    found = []
    for number, entry in enumerate(entries, 1):
        try:
            if entry is None:
                raise ValueError("expected a JSON object whose names differ")
            check(entry)
        except ValueError as error:
            raise StorageError(f"Line {number} of {file} is damaged: {error}; {_REMEDY}.") from error
        found.append(entry)
    return found


class Syncer:
    """Brings files to the disk in a thread of its own: the disk takes milliseconds, in which others can compute.

    Attributes:
        cpu_seconds: processor time that it has taken.
    """

    def __init__(self) -> None:
        self.cpu_seconds = 0.0
        self._files: SimpleQueue[tuple[Path, ...] | threading.Event] = SimpleQueue()
        self._error: OSError | None = None
        threading.Thread(target=self._work, name="syncer", daemon=True).start()

    def add(self, *files: Path) -> None:
        """Bring these files to the disk soon, in this order.

        Raises:
            OSError: if an earlier one did not get there.
        """
        self._raise()
        self._files.put(files)

    def wait(self) -> None:
        """Wait until all files are on the disk.

        Raises:
            OSError: if one did not get there.
        """
        done = threading.Event()
        self._files.put(done)
        done.wait()
        self._raise()

    def close(self) -> None:
        """As :meth:`wait`; then the thread ends."""
        try:
            self.wait()
        finally:
            self._files.put(())

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _work(self) -> None:
        while entries := self._waiting():
            files = [file for entry in entries if isinstance(entry, tuple) for file in entry]
            # What was appended to several times is brought there once, after everything that was written before.
            for file in reversed(dict.fromkeys(reversed(files))):
                self._bring(file)
            self.cpu_seconds = time.thread_time()
            for entry in entries:
                if isinstance(entry, threading.Event):
                    entry.set()

    def _waiting(self) -> list[tuple[Path, ...] | threading.Event]:
        """Everything that waits, at least one entry; nothing once the thread is to end."""
        entries = [self._files.get()]
        while not self._files.empty():
            entries.append(self._files.get())
        return [] if entries[-1] == () else entries

    def _bring(self, file: Path) -> None:
        try:
            atomic.bring_to_disk(file)
        except OSError as error:
            self._error = error
