"""Signals during training: the step under way is finished, everything is kept, and the same command goes on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

#: Ctrl-C, and what schedulers send before they kill.
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopNow(KeyboardInterrupt):
    """Raised where nothing but time is lost by stopping at once."""


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
        # Only the main thread may set handlers; elsewhere signals do what they always do.
        if threading.current_thread() is threading.main_thread():
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
