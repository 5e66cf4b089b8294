"""A thread that brings files to the disk."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from queue import SimpleQueue

from vlaser_gym.storage import files


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

    def add(self, *paths: Path) -> None:
        """Bring these files to the disk soon, in this order.

        Raises:
            OSError: if an earlier one did not get there.
        """
        self._raise()
        self._files.put(paths)

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
        """Wait as :meth:`wait` does; then the thread ends."""
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
            waiting = [file for entry in entries if isinstance(entry, tuple) for file in entry]
            # What was appended to several times is brought there once, after everything that was written before.
            for file in reversed(dict.fromkeys(reversed(waiting))):
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
            files.bring_to_disk(file)
        except OSError as error:
            self._error = error
