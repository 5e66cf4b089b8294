"""Waiting for somebody else's code, but not for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from vlaser_gym.errors import AgentTimeoutError

T = TypeVar("T")
_Call = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]


class Patience:
    """Calls functions in one thread of its own and waits for each no longer than a limit.

    Python cannot stop code that hangs; it is left behind in a thread that does not keep the process alive.

    Args:
        seconds: the limit.
        name: of whom one waits for, for errors.

    Example:
        >>> Patience(60.0, "agent")(sum, [1, 2])
        3
    """

    def __init__(self, seconds: float, name: str) -> None:
        self.seconds, self.name = seconds, name
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def __call__(self, function: Callable[..., T], *arguments: Any) -> T:
        """The function's result, or its error.

        Raises:
            AgentTimeoutError: if it takes too long.
        """
        future: Future[T] = Future()
        self._calls.put((future, function, arguments))
        try:
            return future.result(min(self.seconds, threading.TIMEOUT_MAX))
        except TimeoutError:
            if future.done():  # the function's own
                raise
            raise AgentTimeoutError(
                f"{self.name}.{getattr(function, '__name__', 'act')} took more than {self.seconds:g} s: look at it, or "
                "raise agent_timeout=. Finished episodes are stored; the same command goes on after them."
            ) from None

    def close(self) -> None:
        """Let the thread end once it is idle."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function, arguments = call
            try:
                future.set_result(function(*arguments))
            except BaseException as error:
                future.set_exception(error)
            del future, function, arguments, call  # hold nothing while idle
