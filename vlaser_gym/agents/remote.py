"""An agent that asks a policy server (protocols: languages.py)."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from threading import TIMEOUT_MAX
from typing import Any

import numpy as np
from numpy.typing import NDArray
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.protocol import State
from websockets.sync.client import ClientConnection, connect

from vlaser_gym.agents.admission import read_token
from vlaser_gym.agents.base import Observations
from vlaser_gym.agents.languages import ServerError, language
from vlaser_gym.agents.server import merged_keys
from vlaser_gym.agents.wire import one_line, printable
from vlaser_gym.conventions import CONVENTIONS, PRESETS, Convention
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.robots import get_setup, is_image
from vlaser_gym.envs.tasks import get_task, task_names
from vlaser_gym.errors import GymError, InvalidConfigError, RemoteError, UnknownNameError

_OBSERVATIONS = ("image", "proprio", "instruction", "state")
#: Bytes of the largest answer that is read.
_MAX_ANSWER = 64_000_000
#: m/s. Neither arm is faster for half of its steps; the fastest percent of Fractal's and Bridge's are slower.
FASTEST = 1.0


class RemoteAgent:
    """Sends the observations of every environment over a connection of its own and executes the chunks that come back.

    Actions come as the server's convention says, or else in this gym's units, ``[H, 7]``: translation (m), axis-angle
    (rad), gripper, with the robot's signs. :func:`~vlaser_gym.agents.make_agent` converts what follows another
    convention; where nobody says anything, answers that cannot be metres are refused. A server of this
    gym is told the address of every new episode, so that its agent acts as it would here; others know of episodes only
    what they see.

    Args:
        url: ``ws://host:port``.
        observes: what to send; by default what the server says, else image, proprioception and instruction.
        keys: names of the entries in messages, in place of what the server says, else openpi's names for LIBERO.
            ``address`` is sent with the first observation of an episode if it has a name.
        action_key: where in an answer the actions are.
        act_steps: actions executed of each chunk; by default all.
        timeout: seconds to wait for a connection, for a message to be taken, or for an answer; nothing else ends a
            connection, for a policy that compiles may answer nothing for minutes.
        token_file: text file with the token that the server wants, if it wants one.
        convention: what the server's states and actions mean: a preset's name (:mod:`vlaser_gym.conventions.presets`)
            or a mapping; by default what the server says in its metadata, else this gym's own.
        protocol: that the server speaks: ``openpi``, or ``vla_eval`` for a model server of vla-eval. It says the kind
            of rotation and gripper, and never what 1 stands for: its translations are taken for metres and doubted.

    Attributes:
        metadata: what the server says of itself.
        convention: as it was given, or as the server says; ``None`` if neither says anything.

    Raises:
        InvalidConfigError: for settings out of range, or a URL that is none.
        RemoteError: if nobody answers there, or not in this protocol.
    """

    def __init__(
        self,
        url: str,
        observes: Sequence[str] | None = None,
        keys: Mapping[str, str] | None = None,
        action_key: str = "actions",
        act_steps: int | None = None,
        timeout: float = 60.0,
        token_file: str | None = None,
        convention: str | Mapping[str, Any] | None = None,
        protocol: str = "openpi",
    ) -> None:
        if not timeout > 0 or (act_steps is not None and act_steps < 1):
            raise InvalidConfigError(
                f"agent.timeout must be above 0 and agent.act_steps at least 1 or null; got {timeout}, {act_steps}."
            )
        self.url, self.action_key, self.act_steps = url, action_key, act_steps
        self.timeout = min(timeout, TIMEOUT_MAX)
        self._language = language(protocol)
        self._headers = {} if token_file is None else {"Authorization": f"Api-Key {read_token(token_file)}"}
        self._open = ExitStack()
        self._spare: list[ClientConnection] = []
        self._connections: dict[int, ClientConnection] = {}
        self._begin: dict[int, Address] = {}
        self._addresses: dict[int, Address] = {}
        connection, self.metadata = self._connect()
        self._spare.append(connection)
        told = self.metadata.get("keys")
        self.convention = self._convention(convention)
        # vla-eval's words for conventions do not say whether translations are metres.
        unsaid = self.convention is None or (convention is None and protocol == "vla_eval")
        self._doubts = unsaid and "vlaser_gym" not in self.metadata
        self.observes = self._observes(observes)
        base = self._language.keys(self.observes)
        self.keys = merged_keys(merged_keys(base, told if isinstance(told, Mapping) else {}), keys or {})

    def reset(self, lanes: NDArray[np.int64], addresses: Sequence[Address]) -> None:
        """Open the environments' connections; their next message begins an episode."""
        for lane, address in zip(lanes, addresses, strict=True):
            self._begin[int(lane)] = self._addresses[int(lane)] = address
            connection = self._connections.get(int(lane))
            # A server hangs up on environments that are silent for long; their next episode has a new connection.
            if connection is None or connection.state is not State.OPEN:
                self._connections[int(lane)] = self._spare.pop() if self._spare else self._connect()[0]

    def act(self, observations: Observations, lanes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Chunks ``[N, H, 7]`` of the server; all environments ask before the first is answered."""
        for row, lane in enumerate(lanes):
            self._send(int(lane), {name: observations[name][row] for name in self.observes})
        chunks = [self._receive(int(lane)) for lane in lanes]
        lengths = sorted({len(chunk) for chunk in chunks})
        if len(lengths) > 1:
            raise RemoteError(
                f"The server {self.url} must answer all environments with equally many actions; got {lengths}."
            )
        if self._doubts:
            for lane, chunk in zip(lanes, chunks, strict=True):
                self._doubt(chunk, self._addresses[int(lane)])
        return np.stack(chunks)

    def _doubt(self, chunk: NDArray[np.float64], address: Address) -> None:
        """Raise :class:`RemoteError` for answers that no arm here could follow, before they are executed."""
        robot = get_setup(get_task(address.task).robot_setup).robot.name if address.task in task_names() else None
        if robot not in CONVENTIONS:
            return
        median = float(np.median(np.linalg.norm(chunk[:, :3], axis=-1)))
        most = FASTEST / CONVENTIONS[robot].control_hz
        if median > most:
            raise RemoteError(
                f"The server {self.url} should answer in metres per control step, which {robot} can follow up to "
                f"{most:.2g} m; the steps of its answer have a median of {median:.2g} m, as if they were normalised: "
                f"say what they mean by agent.convention= ({', '.join(PRESETS)}, or a mapping), or unnormalise them "
                "at the server."
            )

    def describe(self) -> dict[str, Any]:
        """The description of the remote agent, if a server of this gym sends one."""
        settings = self.metadata.get("agent_settings")
        served = {"served": self.metadata["agent"]} if "agent" in self.metadata else {}
        told: dict[str, Any] = _printable({**served, **settings}) if isinstance(settings, dict) else {}
        return told

    def close(self) -> None:
        """Close the connection to the server."""
        self._open.close()
        self._spare, self._connections = [], {}

    def _convention(self, given: str | Mapping[str, Any] | None) -> Convention | None:
        if given is not None:
            return Convention.parse(given)
        try:
            told = self._language.convention(self.metadata)
            return None if told is None else Convention.parse(told)
        except GymError as error:
            raise RemoteError(
                f"The server {self.url} names a convention that cannot be read ({one_line(error)}); say it by "
                "agent.convention=."
            ) from error

    def _observes(self, given: Sequence[str] | None) -> tuple[str, ...]:
        told = self.metadata.get("observes") if given is None else given
        names = ("image", "proprio", "instruction") if told is None else told
        if not isinstance(names, list | tuple):
            raise RemoteError(f"observes must be a list of names; the server {self.url} has {names!r:.99}.")
        for name in names:
            if not isinstance(name, str) or not (name in _OBSERVATIONS or is_image(name)):
                raise UnknownNameError("observation in agent.observes", name, _OBSERVATIONS)
        return tuple(names)

    def _connect(self) -> tuple[ClientConnection, dict[str, Any]]:
        """A new connection and what the server says first."""
        try:
            # A proxy is for the web; a policy server is a machine that one names oneself.
            connection = self._open.enter_context(
                connect(
                    self.url,
                    additional_headers=self._headers,
                    compression=None,
                    max_size=_MAX_ANSWER,
                    open_timeout=self.timeout,
                    # A server that computes in its event loop answers no pings meanwhile, and lives.
                    ping_interval=None,
                    proxy=None,
                )
            )
        except InvalidStatus as error:
            said = error.response.body.decode("utf-8", "replace") if error.response.body else str(error)
            raise RemoteError(f"The server {self.url} refuses the connection: {one_line(said)}") from error
        except InvalidURI as error:
            raise InvalidConfigError(f"agent.url must read ws://HOST:PORT; got {self.url!r}.") from error
        except (OSError, InvalidHandshake) as error:
            raise RemoteError(
                f"No policy server answers at {self.url} ({one_line(error) or type(error).__name__}): start one there "
                "(python -m vlaser_gym.serve) or change agent.url."
            ) from error
        if sys.platform != "win32":  # whose sockets know no limit for a message that a server does not take
            limit = struct.pack("ll", int(min(self.timeout, 1e9)), int(self.timeout % 1 * 1e6))
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        if self._language.greeting is not None:
            connection.send(self._language.greeting)
        return connection, self._language.metadata(self._message(connection))

    def _send(self, lane: int, seen: dict[str, Any]) -> None:
        try:
            for message in self._language.questions(seen, self.keys, self._begin.pop(lane, None)):
                self._connections[lane].send(message)
        except ConnectionClosed:
            return  # what the server said before it hung up is still to be read, and tells more

    def _receive(self, lane: int) -> NDArray[np.float64]:
        """An environment's chunk ``[H, 7]``."""
        answer = self._message(self._connections[lane])
        if self.action_key not in answer:
            raise RemoteError(
                f"The server {self.url} must answer with {self.action_key!r}; got "
                f"{', '.join(map(repr, answer))[:200] or 'nothing'}; agent.action_key= says where the actions are."
            )
        return self._actions(answer[self.action_key])

    def _actions(self, value: Any) -> NDArray[np.float64]:
        try:
            actions = np.asarray(value, np.float64)
        except (TypeError, ValueError):
            actions = np.empty(0)
        size, meaning = 7, "in m, rad and gripper"
        if self.convention is not None:
            size, meaning = self.convention.size, f"as {printable(self.convention.name)} has them"
        if actions.ndim != 2 or len(actions) < 1 or actions.shape[1] != size:
            got = actions.shape if actions.size else type(value).__name__
            raise RemoteError(
                f"The server {self.url} must answer with actions of shape (H, {size}), {meaning}; got {got}: "
                "convert them at the server, or say what they mean by agent.convention=."
            )
        return actions[: self.act_steps]

    def _message(self, connection: ClientConnection) -> dict[str, Any]:
        """The next message of a server; text is its way of saying what went wrong."""
        try:
            data = connection.recv(timeout=self.timeout)
        except TimeoutError:
            raise RemoteError(
                f"The server {self.url} did not answer within {self.timeout:g} s: look at it, or raise agent.timeout."
            ) from None
        except ConnectionClosed as error:
            raise RemoteError(f"The server {self.url} hung up ({one_line(error)}).") from error
        if isinstance(data, str):
            raise RemoteError(f"The server {self.url} reports an error: {one_line(data)}")
        try:
            return self._language.read(data)
        except ServerError as error:
            raise RemoteError(f"The server {self.url} reports an error: {error}") from error
        except RemoteError as error:
            raise RemoteError(
                f"The server {self.url} does not speak {self._language.title} protocol: {error}"
            ) from error


def _printable(value: Any) -> Any:
    """Text of unknown origin without control characters for a terminal."""
    if isinstance(value, dict):
        return {_printable(name): _printable(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_printable(entry) for entry in value]
    return printable(value) if isinstance(value, str) else value
