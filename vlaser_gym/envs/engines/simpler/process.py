"""Our end of a worker process: starting it, talking to it, noticing that it is gone."""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.errors import GymError, InvalidConfigError, SimulationError

_WORKER = Path(__file__).with_name("worker.py")
#: Bytes of shared memory: an image of the larger camera.
_MEMORY = 640 * 512 * 3
#: What a line of a log says that speaks of trouble.
_TROUBLE = re.compile(r"\b(error|critical|fail|cannot|could not|missing|not found|no such)", re.IGNORECASE)
_NEEDED = "the interpreter in which SimplerEnv is installed (docs/simpler.md)"


def find_interpreter(python: str | None) -> str:
    """The path of an interpreter named by path or by a command.

    Raises:
        InvalidConfigError: if there is none.
    """
    if not python:
        raise InvalidConfigError(f"engine=simpler needs {_NEEDED}; got none: give engine.python=PATH.")
    found = shutil.which(os.path.expanduser(python))
    if found is None:
        raise InvalidConfigError(f"engine.python must be {_NEEDED}; got {python!r}, which cannot be run.")
    return found


class Worker:
    """A process that runs ``worker.py`` in another interpreter. It starts at once; :meth:`greet` waits until it has.

    Args:
        python: the interpreter.
        timeout: seconds that an answer may take.

    Attributes:
        versions: of the original, once it has greeted.
    """

    def __init__(self, python: str, timeout: float) -> None:
        self.python, self.timeout = python, timeout
        self.versions: dict[str, str] = {}
        self._buffer = b""
        self._asked, self._deadline = "its start", time.monotonic() + timeout
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed by close)
        self._logged = 0
        self._socket, theirs = socket.socketpair()
        # Memory without a name: whatever happens to the processes, nothing stays behind.
        descriptor = os.memfd_create("vlaser_gym")
        os.ftruncate(descriptor, _MEMORY)
        self._memory = mmap.mmap(descriptor, _MEMORY)
        try:
            self.process = self._start(theirs.fileno(), descriptor)
        finally:
            theirs.close()
            os.close(descriptor)

    def _start(self, channel: int, memory: int) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                [self.python, str(_WORKER), str(channel), str(memory), str(_MEMORY)],
                pass_fds=(channel, memory),
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us to handle
            )
        except OSError as error:
            self._free()
            raise InvalidConfigError(
                f"engine.python must be {_NEEDED}; got {self.python!r}, which cannot be run ({error.strerror})."
            ) from error

    def greet(self) -> None:
        """Wait until it has imported the original, unless it has.

        Raises:
            InvalidConfigError: if it cannot.
            SimulationError: if it dies or takes too long.
        """
        if self.versions:
            return
        message = self._receive()
        if "error" in message:
            raise InvalidConfigError(
                f"engine.python must be {_NEEDED}; {self.python} cannot import simpler_env ({message['error']})."
            )
        self.versions = dict(message["ok"])

    def ask(self, command: Mapping[str, Any], about: str) -> None:
        """Send a command; ``about`` names it in errors. Its :meth:`answer` must be read before the next is sent."""
        self._asked, self._deadline = about, time.monotonic() + self.timeout
        self._logged = self._log_size()
        # A worker that has died is noticed when its answer is read.
        with contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(command).encode() + b"\n")

    def answer(self) -> dict[str, Any]:
        """The answer to the last command.

        Raises:
            GymError: if the environment cannot be built.
            SimulationError: if the episode fails, the worker dies, or it takes too long.
        """
        message = self._receive()
        if "error" not in message:
            return dict(message["ok"])
        if message["during"] == "build":
            raise GymError(f"The original cannot build {self._asked}: {message['error']} (see docs/simpler.md).")
        raise SimulationError(f"The original failed at {self._asked}: {message['error']}.")

    def image(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """A copy of the shared memory as an image of ``shape``."""
        return np.frombuffer(self._memory, np.uint8, math.prod(shape)).reshape(shape).copy()

    def complaints(self, most: int = 3) -> list[str]:
        """Different lines of its output that speak of trouble: the last since the last command, or else of all."""
        for begin in (self._logged, 0):
            if found := dict.fromkeys(line for line in self._output(begin) if _TROUBLE.search(line)):
                return list(found)[-most:]
        return []

    def _output(self, begin: int = 0) -> list[str]:
        """Lines that it and its simulator have written from a byte on; the place where they write on stays."""
        text = os.pread(self._log.fileno(), self._log_size() - begin, begin).decode(errors="replace")
        return [line.strip() for line in text.splitlines() if line.strip()]

    def _log_size(self) -> int:
        return os.fstat(self._log.fileno()).st_size

    def close(self) -> None:
        """End the process, whatever it does."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._free()

    def _free(self) -> None:
        self._socket.close()
        self._log.close()
        self._memory.close()

    def _receive(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            self._socket.settimeout(max(self._deadline - time.monotonic(), 1e-3))
            try:
                part = self._socket.recv(1 << 16)
            except TimeoutError:
                self.close()
                raise SimulationError(
                    f"The original's worker took more than {self.timeout:g} s at {self._asked} and was ended; "
                    "engine.timeout= waits longer."
                ) from None
            except OSError:
                part = b""
            if not part:
                raise SimulationError(self._obituary())
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        return dict(json.loads(line))

    def _obituary(self) -> str:
        """The exit status of the process and the end of its output, as a sentence."""
        code = self.process.wait()
        lines = self._output()
        self._free()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
        words = f"; its last words: {lines[-1]}" if lines else ""
        return f"The original's worker died at {self._asked} ({how}{words})."
