"""Who may connect to a policy server, and how much one client may have of it."""

from __future__ import annotations

import asyncio
import http.client
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from served import served
from websockets.sync.client import connect

from vlaser_gym.agents import admission
from vlaser_gym.agents.admission import is_loopback, new_token, read_token
from vlaser_gym.agents.random import RandomAgent
from vlaser_gym.agents.remote import RemoteAgent
from vlaser_gym.agents.server import PolicyServer
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError, RemoteError

TOKEN = "correct-horse-battery"


class Still(RandomAgent):
    """Reads the state alone, so that messages are short."""

    observes = ("state",)

    def act(self, observations: Any, lanes: np.ndarray) -> np.ndarray:
        return np.zeros((len(lanes), 1, 7))


ASK = msgpack.packb({"state": [0.0] * 4})


def status(url: str, headers: dict[str, str], path: str = "/") -> int:
    """What a handshake, or a plain request for a path, is answered with."""
    host, port = url.removeprefix("ws://").split(":")
    plain = http.client.HTTPConnection(host, int(port), timeout=10)
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    plain.putrequest("GET", path, skip_host=True)
    for name, value in {**({} if path == "/healthz" else upgrade), "Host": f"{host}:{port}", **headers}.items():
        plain.putheader(name, value)
    plain.endheaders()
    answered = plain.getresponse().status
    plain.close()
    return answered


@pytest.fixture(scope="module")
def open_url() -> Iterator[str]:
    with served(Still()) as url:
        yield url


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 101),
        ({"Host": "localhost:8000"}, 101),
        ({"Host": "[::1]:8000"}, 101),
        ({"Host": "10.0.0.7"}, 101),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:8000"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example:80"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "localhost@evil.example"}, 403),
    ],
)
def test_web_pages_are_refused_and_clients_are_not(open_url: str, headers: dict[str, str], expected: int) -> None:
    assert status(open_url, headers) == expected
    assert status(open_url, headers, "/healthz") == (200 if expected == 101 else 403)


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        (f"Api-Key {TOKEN}", 101),
        (f"Bearer {TOKEN}", 101),
        (f"bearer {TOKEN}", 101),
        (None, 401),
        ("", 401),
        (TOKEN, 401),
        (f"Basic {TOKEN}", 401),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        ("Bearer é", 401),
    ],
)
def test_a_token_is_asked_for(authorization: str | None, expected: int) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    with served(Still(), token=TOKEN) as url:
        assert status(url, headers) == expected
        assert status(url, {}, "/healthz") == 200
        # A page cannot know the token, so that its holder may come under any name.
        assert status(url, {**headers, "Host": "policies.example"}) == (101 if expected == 101 else 403)


def test_a_remote_agent_presents_the_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    with served(Still(), token=TOKEN) as url:
        agent = RemoteAgent(url, token_file=str(file))
        agent.reset(np.array([0]), [Address("widowx_stack_cube")])
        assert agent.act({"state": np.zeros((1, 4), np.float32)}, np.array([0])).shape == (1, 1, 7)
        agent.close()
        with pytest.raises(
            RemoteError, match=r"refuses the connection: This server wants its token: agent\.token_file"
        ):
            RemoteAgent(url)


@pytest.mark.parametrize("text", ["", "short", "two words of a sentence", "line one is long\nline two is long"])
def test_a_token_file_holds_one_token(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    with pytest.raises(InvalidConfigError, match="should hold one token of 16 or more"):
        read_token(file)
    file.write_text(new_token())
    assert len(read_token(file)) > 40
    with pytest.raises(InvalidConfigError, match="cannot read"):
        read_token(tmp_path)


@pytest.mark.parametrize(("host", "expected"), [("127.0.0.1", True), ("127.8.9.1", True), ("::1", True)])
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
    assert is_loopback("localhost")
    for other in ("0.0.0.0", "::", "192.168.0.1", "", "example.org", "localhost.example.org"):
        assert not is_loopback(other)


def test_nothing_listens_beyond_this_machine_without_a_token() -> None:
    with pytest.raises(InvalidConfigError, match="give the server a token"):
        asyncio.run(PolicyServer(Still()).run("0.0.0.0", 0))


class Raw:
    """A client that sends whatever bytes it likes once its WebSocket is open."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("ws://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.socket.sendall(
            f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        self.received = b""
        while b"\r\n\r\n" not in self.received:
            self.received += self.socket.recv(4096)

    def frame(self, opcode: int, data: bytes = b"", fin: bool = True, claim: int | None = None) -> bytes:
        """A frame with a mask of zeros; it may claim to be longer than it is."""
        length = len(data) if claim is None else claim
        header = bytes([opcode | (0x80 if fin else 0)])
        if length < 126:
            header += bytes([0x80 | length])
        elif length < 2**16:
            header += bytes([0x80 | 126]) + struct.pack(">H", length)
        else:
            header += bytes([0x80 | 127]) + struct.pack(">Q", length)
        return header + b"\0\0\0\0" + data

    def send(self, data: bytes) -> bool:
        """Whether the server takes it all."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def farewell(self, seconds: float = 10) -> bytes:
        """Everything up to the end of the connection."""
        self.socket.settimeout(seconds)
        try:
            while data := self.socket.recv(65_536):
                self.received += data
        except ConnectionError:
            pass
        return self.received


def asks(url: str) -> None:
    """Another client is served."""
    with connect(url, compression=None, proxy=None) as client:
        client.recv(timeout=5)
        client.send(ASK)
        assert isinstance(client.recv(timeout=5), bytes)


@pytest.mark.parametrize(
    "flood",
    [
        lambda raw: raw.frame(9) * 300_000,  # pings
        lambda raw: raw.frame(2, fin=False) + raw.frame(0, fin=False) * 300_000,  # a message of empty parts
        lambda raw: raw.frame(2, ASK) * 30_000,  # questions before the answer to the first
    ],
)
def test_floods_of_small_frames_end_early(flood: Any) -> None:
    with served(Still()) as url:
        raw = Raw(url)
        began = time.monotonic()
        raw.send(flood(raw))
        assert b"too many frames, or messages before the answer" in raw.farewell()
        assert time.monotonic() - began < 3
        asks(url)


@pytest.mark.slow
def test_pings_of_a_client_that_waits_are_no_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MOST_FRAMES", 3)
    with served(Still()) as url:
        raw = Raw(url)
        for _ in range(4):
            time.sleep(1.05)
            assert raw.send(raw.frame(9))
        assert raw.send(raw.frame(2, ASK))
        deadline = time.monotonic() + 5
        while b"server_timing" not in raw.received and time.monotonic() < deadline:
            raw.received += raw.socket.recv(4096)
        assert b"server_timing" in raw.received


def test_all_messages_together_are_bounded_and_the_longest_unfinished_one_goes() -> None:
    with served(Still(), max_bytes=4_000_000, total_bytes=6_000_000) as url:
        small, large = Raw(url), Raw(url)
        assert small.send(small.frame(2, b"\0" * 1_000_000, claim=3_900_000))
        assert large.send(large.frame(2, b"\0" * 3_800_000, claim=3_900_000))
        asks(url)
        late = Raw(url)
        late.send(late.frame(2, b"\0" * 2_000_000, claim=3_900_000))
        assert b"the server holds 6 MB of messages" in large.farewell()
        # What is gone is free again: the one that had sent less still has its place.
        asks(url)
        assert small.send(b"\0" * 100)
        with pytest.raises(TimeoutError):
            small.farewell(0.3)


def test_who_is_slow_or_silent_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "SLOWEST_MESSAGE", 0.3)
    with served(Still(), idle_timeout=2.0) as url:
        slow, silent = Raw(url), Raw(url)
        slow.send(slow.frame(2, b"\0" * 10, claim=1000))
        assert b"a message took more than 0.3 s" in slow.farewell()
        assert b"no message for 2 s" in silent.farewell()
        asks(url)


def test_clients_that_ask_nothing_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """All places are taken by connections without a question: at first a newcomer waits, then it is served."""
    monkeypatch.setattr(admission, "LONGEST_SILENCE", 0.5)
    with served(Still(), max_connections=3) as url, connect(url, compression=None, proxy=None) as busy:
        busy.recv(timeout=5)
        busy.send(ASK)
        busy.recv(timeout=5)
        idle = [Raw(url) for _ in range(2)]
        with connect(url, proxy=None) as refused:
            assert "All 3 connections are taken" in str(refused.recv(timeout=5))
        time.sleep(0.6)
        asks(url)
        assert b"another client needs the place" in idle[0].farewell()
        busy.send(ASK)
        assert isinstance(busy.recv(timeout=5), bytes), "who has asked keeps its place"


def test_a_thousand_connections_that_say_nothing_cost_no_place() -> None:
    with served(Still(), max_connections=2) as url:
        host, port = url.removeprefix("ws://").split(":")
        sockets = [socket.create_connection((host, int(port)), timeout=10) for _ in range(60)]
        time.sleep(0.3)
        gone = 0
        for opened in sockets:
            opened.settimeout(0.01)
            try:
                gone += opened.recv(1) == b""
            except TimeoutError:
                pass
            except ConnectionError:
                gone += 1
        assert gone >= 60 - (2 * 2 + 16)
        for opened in sockets:
            opened.close()
        time.sleep(0.2)
        asks(url)


def test_a_lane_that_was_hung_up_on_is_connected_again_at_its_next_episode() -> None:
    with served(Still(), idle_timeout=0.4) as url:
        agent = RemoteAgent(url)
        lanes, seen = np.array([0]), {"state": np.zeros((1, 4), np.float32)}
        agent.reset(lanes, [Address("widowx_stack_cube")])
        agent.act(seen, lanes)
        time.sleep(1.2)
        with pytest.raises(RemoteError, match="hung up"):
            agent.act(seen, lanes)
        agent.reset(lanes, [Address("widowx_stack_cube")])
        assert agent.act(seen, lanes).shape == (1, 1, 7)
        agent.close()
