"""Signals between two writes, never inside one: what is under way is finished, and the same command goes on."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

#: Ctrl-C, and what schedulers send before they kill.
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopNow(KeyboardInterrupt):
    """Raised where nothing but time is lost by stopping at once."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, for code that ends by Ctrl-C in the same way."""


def exit_status(interrupt: KeyboardInterrupt) -> int:
    """The exit status of a process that a signal ended: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + (signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT)


def leave_until_begun() -> None:
    """Let Ctrl-C end a command of ours at once, with its exit status, until :func:`begin`.

    Nothing is under way while modules are imported, and a KeyboardInterrupt inside a compiled one would become an
    ImportError.
    """
    if _starts_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def begin() -> None:
    """Make Ctrl-C a KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"\nInterrupted.\n")
    os._exit(128 + number)


def _starts_command() -> bool:
    """The interpreter runs ``-m vlaser_gym.COMMAND`` or ``vlaser-gym``, and has come no farther than our package."""
    if sys.argv[:1] == ["-m"]:  # what Python puts there until the module is found
        return sys.orig_argv[-len(sys.argv)].count(".") <= 1  # the word before the arguments, also of -mMODULE
    return os.path.basename(sys.argv[0]) == "vlaser-gym" if sys.argv else False


@contextmanager
def terminable() -> Iterator[None]:
    """Inside, SIGTERM raises :class:`Terminated`, so that files are closed and children are told."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated

    if not _is_main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Inside, signals wait: for writes that take moments and belong together. Afterwards they do what they do."""
    if not _is_main_thread():  # where they never arrive
        yield
        return
    received: list[int] = []
    former = {number: signal.signal(number, lambda number, frame: received.append(number)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])


def _is_main_thread() -> bool:
    """Only the main thread may set handlers, and only it is interrupted."""
    return threading.current_thread() is threading.main_thread()


class Interrupts:
    """While it is entered, a first signal is a request and a second one ends the process.

    Args:
        say: told what the first signal does.

    Attributes:
        received: the signal that came, if one did.
    """

    def __init__(self, say: Callable[[str], None] = lambda text: None) -> None:
        self.say = say
        self.received: int | None = None
        self._at_once = False
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if _is_main_thread():
            self._former = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number
        if self._at_once:
            raise StopNow
        self.say("Stopping after this step; once more to leave at once, back to the last checkpoint.")

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, a signal raises :class:`StopNow`: for long work that can simply be done again."""
        if self.received is not None:
            raise StopNow
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False
