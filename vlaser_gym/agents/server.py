"""A WebSocket server that lets other projects' environments ask an agent of this gym (protocols: languages.py)."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from vlaser_gym import __version__
from vlaser_gym.agents.admission import Admission, Guard, GuardedConnection, is_loopback
from vlaser_gym.agents.base import Agent
from vlaser_gym.agents.batch_sizes import SERVING_SIZES
from vlaser_gym.agents.converted import ConvertedClient, declared, is_of_this_gym, looks_like_ours
from vlaser_gym.agents.languages import flat, hello, language, read, vla_eval_keys, write
from vlaser_gym.agents.wire import KEYS, keys_of, one_line, pack, unpack
from vlaser_gym.conventions import CONVENTIONS, Convention, of_robot
from vlaser_gym.conventions.vla_eval import action_spec, observation_spec
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.robots import is_image
from vlaser_gym.envs.tasks import get_task, task_names
from vlaser_gym.errors import GymError, InvalidConfigError, RemoteError

Row = dict[str, Any]
#: Task in the address of an episode whose client gave none; it seeds the agent's noise, no more.
NO_TASK = "remote"
#: Numbers of this gym's state.
STATE_SIZE = 8
#: How long requests wait for company: a share of the last decision's time, and seconds at most.
_WAIT, _LONGEST_WAIT = 0.1, 0.02
_CLOSE_ERROR, _CLOSE_FULL = 1011, 1013
_ENDED = "The server ends, and decides no more."


@dataclass(frozen=True)
class _Request:
    """A decision that a connection waits for."""

    lane: int
    row: Row
    address: Address | None
    answer: asyncio.Future[NDArray[Any]]

    @property
    def signature(self) -> tuple[Any, ...]:
        """Rows can share a batch if these are equal."""
        return tuple([(k, v.shape, v.dtype) for k, v in self.row.items() if isinstance(v, np.ndarray)])


class PolicyServer:
    """Answers observations with chunks of actions; every connection is an environment of the agent.

    Decisions that wait while the agent is busy are taken together, in one batch, and the agent's forward passes adapt
    to how many these are, unless it was given a number. An agent decides in one thread, always the same. What a client
    sends wrong costs its own connection: it is told one sentence and then hung up on.

    Args:
        agent: who acts.
        name: of the agent, for clients.
        keys: what entries of observations are called in messages; others keep the names of
            :data:`~vlaser_gym.agents.wire.KEYS`.
        timeout: seconds that a decision may take.
        max_bytes: size of the largest message.
        max_connections: clients at the same time.
        total_bytes: size of all messages that are not answered; see :class:`~vlaser_gym.agents.admission.Guard`.
        idle_timeout: seconds without a message after which a client is hung up on.
        token: that clients must present; needed to listen at more than loopback.
        convention: what the clients' states and actions mean, if not what this gym's do.
        robot: whose numbers the agent's are, where a convention is given and the agent does not say.
        protocol: that the clients speak: ``openpi`` or ``vla_eval``.

    Raises:
        InvalidConfigError: for numbers out of range and keys that no observation has.
    """

    def __init__(
        self,
        agent: Agent,
        name: str = "agent",
        keys: Mapping[str, str] | None = None,
        timeout: float = 60.0,
        max_bytes: int = 16_000_000,
        max_connections: int = 64,
        total_bytes: int = 128_000_000,
        idle_timeout: float = 600.0,
        token: str | None = None,
        convention: Convention | None = None,
        robot: str | None = None,
        protocol: str = "openpi",
    ) -> None:
        if not (timeout > 0 and idle_timeout > 0 and total_bytes >= max_bytes > 0 and max_connections > 0):
            raise InvalidConfigError(
                "time-outs, message size and number of connections must be above 0, and all messages together at least "
                f"as large as one; got {timeout}, {idle_timeout}, {max_bytes}, {max_connections}, {total_bytes}."
            )
        self.agent, self.name, self.convention = agent, name, convention or declared(agent)
        if convention is not None and not is_of_this_gym(convention):
            self.agent = ConvertedClient(agent, convention, robot)
        #: States are looked at where they should be this gym's own.
        self._checks_states = self.convention is None or is_of_this_gym(self.convention)
        self.protocol, self._robot = language(protocol).name, robot or getattr(agent, "robot", None)
        self._speaks_openpi = self.protocol == "openpi"
        self.keys = self._named(keys or {})
        self.timeout, self.max_bytes, self.max_connections = timeout, max_bytes, max_connections
        self.token, self._guard = token, Guard(total_bytes, max_connections, idle_timeout)
        self._lanes: set[int] = set()
        self._episodes = 0
        self._waiting: asyncio.Queue[_Request] = asyncio.Queue()
        #: What connections wait for, and whether nobody decides any more.
        self._answers: set[asyncio.Future[NDArray[Any]]] = set()
        self._has_ended = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="agent")
        #: Seconds to wait for more clients' requests.
        self._patience = 0.0
        getattr(agent, "set_batch_sizes", lambda sizes: None)(SERVING_SIZES)

    def _named(self, given: Mapping[str, str]) -> dict[str, str]:
        """The names of entries in messages; openpi's names, the command's defaults, stand for vla-eval's."""
        if self._speaks_openpi:
            return merged_keys(keys_of(self.agent.observes), given)
        changed = {name: key for name, key in given.items() if key != KEYS.get(name)}
        return merged_keys(vla_eval_keys(self.agent.observes), changed)

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata that clients receive when they connect."""
        describe = getattr(self.agent, "describe", dict)
        return {
            "vlaser_gym": __version__,
            "agent": self.name,
            "agent_settings": dict(describe()),
            "batches": self._batches(),
            "observes": list(self.agent.observes),
            "keys": self.keys,
            "conventions": [CONVENTIONS[robot].described() for robot in self._robots()],
            "convention": None if self.convention is None else self.convention.described(),
        }

    def _batches(self) -> dict[str, Any] | None:
        """The batch sizes of the agent's forward passes; ``None`` if it reports none.

        Where they adapt, the last digits of actions depend on how many clients asked at the same time.
        """
        sizes = getattr(self.agent, "batch_sizes", None)
        return None if sizes is None else {"sizes": list(sizes), "adaptive": len(sizes) > 1}

    def _robots(self) -> list[str]:
        """The robot that the agent is for, or all: what its numbers mean depends on whom it is asked for."""
        robot = getattr(self.agent, "robot", None)
        return [robot] if robot in CONVENTIONS else list(CONVENTIONS)

    async def run(self, host: str, port: int, started: Callable[[int], None] = lambda port: None) -> None:
        """Serve until cancelled.

        Args:
            host: address to listen at.
            port: 0 for a free one.
            started: told the port once clients can connect.

        Raises:
            InvalidConfigError: if host and port cannot be listened at, or others could connect without a token.
        """
        if self.token is None and not is_loopback(host):
            raise InvalidConfigError(f"Others can reach {host}: give the server a token, or listen at 127.0.0.1.")
        try:
            listening: Server = await serve(
                self._connection,
                host,
                port,
                process_request=Admission(host, self.token),
                create_connection=cast(Any, self._guard.connection),
                max_size=self.max_bytes,
                compression=None,
                # Deciding may keep a client's interpreter busy, and it must not be taken for dead meanwhile.
                ping_timeout=max(20.0, self.timeout),
            )
        except OSError as error:
            raise InvalidConfigError(
                f"Cannot listen at {host}:{port}: {error.strerror or error}; choose another port= or host=."
            ) from error
        async with listening:
            self._has_ended = False
            watching = asyncio.create_task(self._guard.watch())
            started(listening.sockets[0].getsockname()[1])
            try:
                await self._decide_forever()
            finally:
                watching.cancel()
                self._guard.close()
                self._has_ended = True
                for answer in self._answers:
                    _give(answer, RemoteError(_ENDED))

    async def _connection(self, connection: ServerConnection) -> None:
        """Serve one client, from its first to its last message."""
        assert isinstance(connection, GuardedConnection)
        if not self._guard.seat(connection):
            await self._refuse(
                connection, f"All {self.max_connections} connections are taken; come back later.", full=True
            )
            return
        lane = min(set(range(len(self._lanes) + 1)) - self._lanes)
        self._lanes.add(lane)
        try:
            if self._speaks_openpi:
                await connection.send(pack(self.metadata))
                await self._episodes_of(connection, lane)
            else:
                await self._episodes_of_vla_eval(connection, lane)
        except GymError as error:
            await self._refuse(connection, str(error))
        except ConnectionClosed:
            return
        finally:
            self._lanes.discard(lane)

    async def _episodes_of(self, connection: GuardedConnection, lane: int) -> None:
        """Answer a client's observations until it leaves."""
        began, previous = False, None
        async for data in connection:
            arrived = time.monotonic()
            message = unpack(data)
            address = self._address(message, first=not began)
            began = True
            row = self._row(message)
            del data, message  # as large as the row, and it may wait long
            asked = time.monotonic()
            actions = await self._decision(lane, row, address)
            timing = {"infer_ms": 1000 * (time.monotonic() - asked)}
            await connection.send(
                pack({"actions": actions, "server_timing": timing if previous is None else {**timing, **previous}})
            )
            previous = {"prev_total_ms": 1000 * (time.monotonic() - arrived)}
            connection.answered()

    async def _episodes_of_vla_eval(self, connection: GuardedConnection, lane: int) -> None:
        """The same for vla-eval's harness, which wants one action per observation."""
        begins: Address | None = self._next_address()
        left: deque[NDArray[Any]] = deque()
        async for data in connection:
            kind, payload, number = read(data)
            if kind == "hello":
                await connection.send(write("hello", self._hello(), number))
            elif kind == "episode_start":
                begins = self._address_of(payload.get("task")) or self._next_address()
                left.clear()
            elif kind == "observation":
                if not left:
                    row = self._row(flat(payload, self.keys.get("image", "")))
                    left.extend(await self._decision(lane, row, begins))
                    begins = None
                await connection.send(write("action", {"actions": left.popleft()}, number))
            connection.answered()

    def _hello(self) -> dict[str, Any]:
        """The greeting for vla-eval's harness: conventions in its words, observations to send, our convention."""
        metadata, reads = self.metadata, self.agent.observes
        known = self.convention or (of_robot(self._robot) if self._robot in CONVENTIONS else None)
        params = {
            "send_state": "proprio" in reads,
            "send_wrist_image": "wrist_image" in reads,
            "send_privileged": "state" in reads,
        }
        return hello(
            model_server=self.name,
            capabilities={},
            action_spec={} if known is None else action_spec(known),
            observation_spec=observation_spec(reads, self.convention),
            observation_params={
                **{name: True for name, is_wanted in params.items() if is_wanted},
                **({} if any(map(is_image, reads)) else {"send_image": False}),
            },
            **{key: metadata[key] for key in ("vlaser_gym", "agent_settings", "convention", "observes", "batches")},
        )

    def _address_of(self, task: Any) -> Address | None:
        """The episode that vla-eval's harness begins: its address, or SimplerEnv's number of a layout."""
        if not isinstance(task, dict):
            return None
        if "address" in task:
            return parse_address(task["address"])
        name, number = task.get("task_name", task.get("name")), task.get("episode_idx")
        if name not in task_names() or not isinstance(number, int) or number < 0:
            return None
        trial, layout = divmod(number, get_task(name).num_layouts)
        return Address(name, layout=f"grid:{layout}", trial=trial)

    def _row(self, message: Mapping[str, Any]) -> Row:
        """The agent's observation from a message, checked."""
        row = {name: _entry(name, self.keys[name], message) for name in self.agent.observes}
        if self._checks_states and "proprio" in row:
            state = row["proprio"]
            if len(state) == STATE_SIZE and not looks_like_ours(state):
                raise RemoteError(
                    f"{self.keys['proprio']} (proprio) should hold x y z (m), a unit quaternion w x y z and the "
                    f"gripper's openness from 0 to 1; numbers 3 to 6 have the length {np.linalg.norm(state[3:7]):.3g} "
                    f"and the last is {state[7]:.3g}, as in LIBERO's states: convert them at the client, or serve with "
                    "convention=openpi_libero."
                )
        return row

    def _next_address(self) -> Address:
        """An address of no task for an episode of which nothing is known."""
        self._episodes += 1
        return Address(NO_TASK, layout=f"region:{self._episodes - 1}")

    def _address(self, message: Mapping[str, Any], first: bool) -> Address | None:
        """The address of the episode that begins with this message; ``None`` if none does."""
        given = message.get(self.keys["address"])
        if given is not None:
            return parse_address(given)
        if not first and not message.get(self.keys["reset"]):
            return None
        return self._next_address()

    async def _refuse(self, connection: ServerConnection, sentence: str, full: bool = False) -> None:
        """Say what is wrong and hang up."""
        said = one_line(sentence, 1000)
        try:
            await connection.send(said if self._speaks_openpi else write("error", {"error": said}, 0))
            await connection.close(_CLOSE_FULL if full else _CLOSE_ERROR, "see the message before")
        except ConnectionClosed:
            return

    async def _decision(self, lane: int, row: Row, address: Address | None) -> NDArray[Any]:
        if self._has_ended:  # a message that had come before its client was hung up on
            raise RemoteError(_ENDED)
        loop = asyncio.get_running_loop()
        request = _Request(lane, row, address, loop.create_future())
        self._answers.add(request.answer)
        self._waiting.put_nowait(request)
        # Less work for each request than asyncio.wait_for, which makes a second future.
        too_late = loop.call_later(self.timeout, self._give_up, request)
        try:
            return await request.answer
        finally:
            too_late.cancel()
            self._answers.discard(request.answer)

    def _give_up(self, request: _Request) -> None:
        _give(request.answer, RemoteError(f"The agent {self.name} took more than {self.timeout:g} s to decide."))

    async def _decide_forever(self) -> None:
        """Take all requests that wait, decide for those that fit together, answer; again and again."""
        loop = asyncio.get_running_loop()
        while True:
            requests = await self._together()
            batches: dict[Any, list[_Request]] = {}
            for request in requests:
                if not request.answer.done() and await self._begin(request):  # somebody still waits for it
                    batches.setdefault(request.signature, []).append(request)
            begun = loop.time()
            for batch in batches.values():
                try:
                    answers: Any = await loop.run_in_executor(self._thread, self._act, batch)
                except Exception as error:
                    answers = [_sentence(f"{self.name}.act", error)] * len(batch)
                for request, answer in zip(batch, answers, strict=True):
                    _give(request.answer, answer)
            self._patience = min(_WAIT * (loop.time() - begun), _LONGEST_WAIT)

    async def _together(self) -> list[_Request]:
        """The waiting requests, including those that clients of the previous batch send within a moment."""
        requests = [await self._waiting.get()]
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                while len(requests) < len(self._lanes):
                    requests.append(await self._waiting.get())
        while not self._waiting.empty():
            requests.append(self._waiting.get_nowait())
        return requests

    async def _begin(self, request: _Request) -> bool:
        """Reset the agent's environment where an episode begins; a refused address is an error of its client alone."""
        if request.address is None:
            return True
        loop, lane = asyncio.get_running_loop(), np.array([request.lane])
        try:
            await loop.run_in_executor(self._thread, self.agent.reset, lane, [request.address])
        except Exception as error:
            _give(request.answer, _sentence(f"{self.name}.reset", error))
            return False
        return True

    def _act(self, batch: list[_Request]) -> list[NDArray[Any]]:
        """Chunks ``[H, 7]`` of a batch, as the agent gives them."""
        lanes = np.array([request.lane for request in batch])
        observations: dict[str, Any] = {}
        for name in self.agent.observes:
            values = [request.row[name] for request in batch]
            observations[name] = tuple(values) if isinstance(values[0], str) else np.stack(values)
        chunk = np.asarray(self.agent.act(observations, lanes))
        if chunk.ndim != 3 or len(chunk) != len(batch):
            raise RemoteError(
                f"{self.name}.act must return one chunk per environment, shape ({len(batch)}, H, 7); got {chunk.shape}."
            )
        return list(chunk)


def merged_keys(base: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, str]:
    """Names of messages' entries, some replaced.

    Raises:
        InvalidConfigError: for an entry that no observation has, or a name that is no text.
    """
    for name, key in given.items():
        if not (name in KEYS or is_image(name)) or not isinstance(key, str) or not key:
            raise InvalidConfigError(f"keys gives names to {', '.join(KEYS)}, <camera>_image; got {name}={key!r}.")
    return {**base, **given}


def parse_address(text: Any) -> Address:
    """``"task/variant/layout/trial"`` as an address.

    Raises:
        RemoteError: for anything else.
    """
    parts = text.split("/") if isinstance(text, str) else []
    try:
        task, variant, layout, trial = parts
        if not task or not variant:
            raise ValueError
        return Address(task, variant, layout, int(trial))
    except (ValueError, GymError):
        raise RemoteError(
            f"An address reads task/variant/layout/trial, such as widowx_stack_cube/default/grid:3/0; got {text!r:.99}."
        ) from None


def _entry(name: str, key: str, message: Mapping[str, Any]) -> Any:
    """One observation out of a message, checked; of the kind that agents are given in this gym."""
    if key not in message:
        raise RemoteError(
            f"The observation has no {key!r} ({name}); got {', '.join(sorted(map(str, message)))[:200] or 'nothing'}."
        )
    value = message[key]
    if name == "instruction":
        if not isinstance(value, str):
            raise RemoteError(f"{key} ({name}) must be text; got {type(value).__name__}.")
        return str(value)
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError):
        array = np.empty(0, object)
    if is_image(name):
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
            raise RemoteError(f"{key} ({name}) must be uint8 of shape (H, W, 3); got {array.dtype} {array.shape}.")
        return array
    numbers = np.empty(0, np.float32)
    if array.dtype.kind in "iuf":
        # Numbers that float32 cannot hold would reach agents as infinite; numpy need not warn of what is refused below.
        with np.errstate(over="ignore", invalid="ignore"):
            numbers = array.astype(np.float32)
    if numbers.ndim != 1 or not numbers.size or not np.isfinite(numbers).all():
        raise RemoteError(f"{key} ({name}) must be a row of finite numbers (float32); got {array.dtype} {array.shape}.")
    return numbers


def _sentence(name: str, error: Exception) -> RemoteError:
    """The sentence that a client receives about an agent's failure."""
    said = one_line(error) or "no message"
    return RemoteError(said if isinstance(error, GymError) else f"{name} failed: {type(error).__name__}: {said}")


def _give(future: asyncio.Future[Any], answer: Any) -> None:
    if future.done():  # the client has left, or its time was up
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
