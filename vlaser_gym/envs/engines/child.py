"""Child processes that engines hand work to: a module run by the same interpreter, spoken to over its pipes."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from vlaser_gym.envs.extensions import Extensions, unpack
from vlaser_gym.errors import GymError, SimulationError


class Child:
    """The parent's end.

    Args:
        module: run with ``python -m``; it calls :func:`serve`.
        environment: of the process; None for this one's.
        descriptors: files that the process inherits, under the same numbers.
    """

    def __init__(
        self, module: str, environment: Mapping[str, str] | None = None, descriptors: Sequence[int] = ()
    ) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (a pipe that nobody reads could fill up)
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment,
            pass_fds=descriptors,
        )
        self._known = Extensions()

    def send(self, message: tuple[Any, ...]) -> None:
        """Ask for something; tasks and robots that were added here since the last time become known there before.

        Raises:
            GymError: see :meth:`gone`.
            InvalidConfigError: for an addition that cannot be sent.
        """
        extensions = Extensions.here()
        news = None if extensions.are(self._known) else extensions.packed()
        self._known = extensions
        try:
            write_message(self._pipe(self._process.stdin), (news, message))
        except BrokenPipeError:
            raise self.gone(self.last_words()) from None

    def receive(self) -> Any:
        """The answer to the oldest question; an error there is raised here.

        Raises:
            GymError: see :meth:`gone`.
        """
        try:
            ok, answer = read_message(self._pipe(self._process.stdout))
        except EOFError:
            raise self.gone(self.last_words()) from None
        if not ok:
            raise answer
        return answer

    def ask(self, *message: Any) -> Any:
        """Send, and wait for the answer.

        Raises:
            GymError: see :meth:`gone`.
        """
        self.send(message)
        return self.receive()

    def gone(self, last_words: str) -> GymError:
        """The exception for a process that has ended."""
        return SimulationError(f"A worker process ended unexpectedly. Its last words: {last_words}")

    def last_words(self) -> str:
        """The last line that the process wrote to its standard error."""
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace").strip().splitlines()
        return said[-1] if said else "none"

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe is not None
        return pipe

    def close(self) -> None:
        """Terminate the process."""
        self._pipe(self._process.stdin).close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._pipe(self._process.stdout).close()
        self._stderr.close()


def serve(answer: Callable[..., Any]) -> None:
    """The child's end: ``answer(*message)`` for every message until the parent closes the pipe."""
    # Anything that a driver prints must not reach the pipe of answers.
    outbox = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            news, message = read_message(sys.stdin.buffer)
        except EOFError:
            return
        try:
            if news is not None:
                unpack(news)
            reply = (True, answer(*message))
        except Exception as error:  # the parent raises it again
            reply = (False, error if isinstance(error, GymError) else RuntimeError(traceback.format_exc()))
        write_message(outbox, reply)


def write_message(pipe: IO[bytes], message: Any) -> None:
    """Length-prefixed pickle, between a parent and its own child only."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    pipe.write(struct.pack("<Q", len(data)) + data)
    pipe.flush()


def read_message(pipe: IO[bytes]) -> Any:
    """The other end of :func:`write_message`.

    Raises:
        EOFError: if the pipe is closed.
    """
    header = pipe.read(8)
    if len(header) < 8:
        raise EOFError
    return pickle.loads(pipe.read(struct.unpack("<Q", header)[0]))
