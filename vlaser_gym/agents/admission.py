"""Admission of clients to a policy server, and the memory and time that one client may use.

Everything here is decided before a message is decoded, most of it before its last byte has come.
"""

from __future__ import annotations

import asyncio
import hmac
import http
import secrets
import time
from collections import deque
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response

from vlaser_gym.errors import InvalidConfigError

#: Bytes that are parsed between two looks at the limits: at first, and within a long frame. A read of asyncio brings up
#: to 256 kB, which can be 40,000 empty frames and half a second of parsing.
_PIECE, _LONG_PIECE = 4096, 65_536
#: Frames of one message, pings within it included; messages that wait for the answer to an earlier one.
MOST_FRAMES, MOST_UNANSWERED = 1024, 64
#: Seconds in which a message must have come whole, and after which a client that has asked nothing yet gives way to
#: another when all places are taken.
SLOWEST_MESSAGE, LONGEST_SILENCE = 60.0, 10.0
_DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)
_LEAST_TOKEN = 16


def is_loopback(host: str) -> bool:
    """True if a server that listens there can be reached from its own machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def new_token() -> str:
    """A token that nobody guesses: 256 random bits."""
    return secrets.token_urlsafe(32)


def read_token(file: str | Path) -> str:
    """The token in a text file.

    Raises:
        InvalidConfigError: if the file cannot be read, or holds anything but one word of 16 characters or more.
    """
    try:
        token = Path(file).read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise InvalidConfigError(
            f"token_file should be a text file with a token; cannot read {file}: {error}."
        ) from error
    if len(token) < _LEAST_TOKEN or not token.isprintable() or " " in token:
        raise InvalidConfigError(
            f"{file} should hold one token of {_LEAST_TOKEN} or more letters and digits; write one with "
            "python -c 'import secrets; print(secrets.token_urlsafe(32))'."
        )
    return token


@dataclass(frozen=True)
class Admission:
    """Looks at a client's first request.

    A web page can open connections to every machine that its reader's browser reaches, this one included; the browser
    then names the page in ``Origin``, which no other client sends. A page whose own name leads here (DNS rebinding) is
    recognised by ``Host``.

    Attributes:
        host: what the server listens at.
        token: that a client must present, as ``Authorization: Api-Key TOKEN`` (openpi's clients) or ``Bearer TOKEN``.
            None: nothing is asked for.
    """

    host: str = "127.0.0.1"
    token: str | None = None

    def __call__(self, connection: ServerConnection, request: Request) -> Response | None:
        """Refuse the request, answer it if it is ``GET /healthz``, or leave it to the WebSocket."""
        if request.headers.get_all("Origin"):
            return _response(http.HTTPStatus.FORBIDDEN, "Web pages may not connect: the request has an Origin.")
        if not self._is_known(request.headers):
            return _response(
                http.HTTPStatus.FORBIDDEN,
                f"Connect by IP address, localhost or {self.host}: Host is a name that this server does not know.",
            )
        if request.path == "/healthz":
            return _response(http.HTTPStatus.OK, "OK")
        if self.token is not None and not self._presents_token(request.headers):
            return _response(
                http.HTTPStatus.UNAUTHORIZED,
                "This server wants its token: agent.token_file=FILE of agent=remote, api_key of openpi's clients.",
                {"WWW-Authenticate": "Bearer"},
            )
        return None

    def _is_known(self, headers: Headers) -> bool:
        """True if a request carries this server's token, which no web page can know."""
        if self.token is not None and self._presents_token(headers):
            return True
        try:
            (given,) = headers.get_all("Host")
            name = urlsplit(f"//{given}").hostname or ""
            return name in ("localhost", self.host.lower()) or bool(ip_address(name))
        except ValueError:
            return False

    def _presents_token(self, headers: Headers) -> bool:
        assert self.token is not None
        given = headers.get_all("Authorization")
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        return scheme.lower() in ("api-key", "bearer") and hmac.compare_digest(token.encode(), self.token.encode())


def _response(status: http.HTTPStatus, sentence: str, headers: dict[str, str] | None = None) -> Response:
    body = f"{sentence}\n".encode()
    named = {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body)), **(headers or {})}
    return Response(status.value, status.phrase, Headers(named), body)


class Guard:
    """Shares a server's memory and places among its clients.

    Args:
        total_bytes: bytes of messages that all clients together may have sent without being answered. Beyond, the
            client with the longest unfinished message is hung up on.
        places: clients at the same time; a few more may be connecting.
        idle_timeout: seconds without a message after which a client is hung up on.
    """

    def __init__(self, total_bytes: int, places: int, idle_timeout: float) -> None:
        self.total_bytes, self.places, self.idle_timeout = total_bytes, places, idle_timeout
        self.connections: set[GuardedConnection] = set()
        self._seated: set[GuardedConnection] = set()
        self._held = 0

    def connection(self, *args: Any, **options: Any) -> GuardedConnection:
        """Connection class for ``create_connection=`` of :func:`websockets.asyncio.server.serve`."""
        return GuardedConnection(self, *args, **options)

    def seat(self, connection: GuardedConnection) -> bool:
        """Give a client a place, if need be that of one that has asked nothing; returns whether there was one."""
        if len(self._seated) >= self.places:
            now = time.monotonic()
            silent = [other for other in self._seated if not other.has_asked and now - other.since > LONGEST_SILENCE]
            if not silent:
                return False
            longest = min(silent, key=lambda other: other.since)
            longest.hang_up(CloseCode.TRY_AGAIN_LATER, "another client needs the place; you had asked nothing")
            self._seated.discard(longest)
        self._seated.add(connection)
        return True

    def leave(self, connection: GuardedConnection) -> None:
        """Free what a client had."""
        self._seated.discard(connection)
        self.connections.discard(connection)

    def hold(self, count: int) -> None:
        """Count bytes that came, or, below 0, that were answered."""
        self._held += count
        if self._held <= self.total_bytes:
            return
        greatest = max(self.connections, key=lambda connection: connection.unfinished, default=None)
        if greatest is not None and greatest.unfinished:
            greatest.hang_up(CloseCode.TRY_AGAIN_LATER, f"the server holds {self.total_bytes / 1e6:g} MB of messages")

    def close(self) -> None:
        """Hang up on everybody, without waiting for those who do not hang up in turn."""
        for connection in list(self.connections):
            connection.hang_up(CloseCode.GOING_AWAY, "the server ends")

    async def watch(self) -> None:
        """Hang up, once a second, on those who are too slow or silent; until cancelled."""
        while True:
            await asyncio.sleep(min(1.0, self.idle_timeout / 4))
            now = time.monotonic()
            for connection in list(self.connections):
                if connection.unfinished and now - connection.begun > SLOWEST_MESSAGE:
                    connection.hang_up(CloseCode.POLICY_VIOLATION, f"a message took more than {SLOWEST_MESSAGE:g} s")
                elif not connection.unanswered and now - connection.since > self.idle_timeout:
                    connection.hang_up(CloseCode.GOING_AWAY, f"no message for {self.idle_timeout:g} s")


class GuardedConnection(ServerConnection):
    """A connection whose bytes are counted.

    Attributes:
        unfinished: bytes of a message whose end has not come.
        begun: when the first of them came.
        unanswered: lengths of the messages that came whole and are not answered.
        since: when the client connected or was last answered.
        has_asked: it has sent a message.
    """

    def __init__(self, guard: Guard, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._guard = guard
        self.unfinished, self._frames, self._within = 0, 0, False
        self.unanswered: deque[int] = deque()
        self.begun = self.since = time.monotonic()
        self.has_asked = False
        self._left = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See :class:`asyncio.Protocol`; one connection too many is gone before it says anything."""
        super().connection_made(transport)
        self._guard.connections.add(self)
        if len(self._guard.connections) > 2 * self._guard.places + 16:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """See :class:`asyncio.Protocol`."""
        self._forget()
        self._guard.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came in pieces, so that limits end a flood in its first one."""
        place, piece = 0, _PIECE
        while place < len(data) and not self._left:
            part, before = data[place : place + piece] if place or len(data) > piece else data, self._frames
            place += piece
            if not self.unfinished:
                self._begin()
            self.unfinished += len(part)
            self._guard.hold(len(part))
            if not self._left:
                super().data_received(part)
            piece = _LONG_PIECE if self._frames == before else _PIECE

    def process_event(self, event: Any) -> None:
        """Count messages as their last frames come; what is no frame is the request that opens the connection."""
        if self._left:
            return
        super().process_event(event)
        self._frames += 1
        if isinstance(event, Frame) and event.opcode in _DATA:
            self._within = not event.fin
            if event.fin:
                self.has_asked = True
                self.unanswered.append(self.unfinished)
                self.unfinished = self._frames = 0
        elif not self._within:
            self._guard.hold(-self.unfinished)
            self.unfinished = 0
        if self._frames > MOST_FRAMES or len(self.unanswered) > MOST_UNANSWERED:
            self.hang_up(CloseCode.POLICY_VIOLATION, "too many frames, or messages before the answer to the first")

    def _begin(self) -> None:
        now = time.monotonic()
        if now - self.begun > 1.0:  # no flood: pings of a client that waits are far apart
            self._frames = 0
        self.begun = now

    def answered(self) -> None:
        """Called when the oldest message has been answered."""
        self.since = time.monotonic()
        if self.unanswered:
            self._guard.hold(-self.unanswered.popleft())

    def hang_up(self, code: CloseCode, reason: str) -> None:
        """Say why, read no more, and free what the client has sent; from within the event loop."""
        if self._left:
            return
        self._forget()
        self.protocol.fail(code, reason)
        self.recv_messages.close()
        self.send_data()
        # Enough for the reason to arrive; a client that does not hang up in turn is not waited for.
        self.loop.call_later(2.0, self.transport.abort)

    def _forget(self) -> None:
        held = self.unfinished + sum(self.unanswered)
        self._left, self.unfinished = True, 0
        self.unanswered.clear()
        self._guard.hold(-held)
