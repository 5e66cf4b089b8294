"""The policy server, asked by a client that is written here from openpi's description alone."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import served
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from vlaser_gym import cli
from vlaser_gym.agents.random import RandomAgent
from vlaser_gym.agents.scripted import ScriptedExpert
from vlaser_gym.agents.server import PolicyServer, _entry, parse_address
from vlaser_gym.commands import serve
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError, RemoteError


class Echo:
    """Acts out what it was shown: brightness of the image, first number of the proprioception, length of the text."""

    observes = ("image", "proprio", "instruction")

    def __init__(self) -> None:
        self.begun: list[tuple[int, str]] = []
        self.batches: list[int] = []
        self.delay = 0.0

    def reset(self, lanes: np.ndarray, addresses: list[Address]) -> None:
        self.begun += [(int(lane), str(a)) for lane, a in zip(lanes, addresses, strict=True)]

    def act(self, observations: dict[str, Any], lanes: np.ndarray) -> np.ndarray:
        time.sleep(self.delay)
        if any(text == "fail" for text in observations["instruction"]):
            raise KeyError("no such\nthing")
        self.batches.append(len(lanes))
        actions = np.zeros((len(lanes), 2, 7), np.float32)
        actions[:, 1, 0] = observations["image"].mean((1, 2, 3))
        actions[:, 1, 1] = observations["proprio"][:, 0]
        actions[:, 1, 2] = [len(text) for text in observations["instruction"]]
        actions[:, 1, 3] = lanes
        return actions


def array(values: np.ndarray) -> dict[bytes, Any]:
    """An array as openpi's clients write it."""
    return {
        b"__ndarray__": True,
        b"data": values.tobytes(),
        b"dtype": values.dtype.str,
        b"shape": list(values.shape),
    }


def observation(**changes: Any) -> dict[str, Any]:
    entries = {
        "observation/image": array(np.full((4, 6, 3), 9, np.uint8)),
        "observation/state": array(np.array([0.5, 1.0])),
        "prompt": "stack",
        **{name.replace("__", "/"): value for name, value in changes.items()},
    }
    return {name: value for name, value in entries.items() if value is not None}


class Client:
    """Speaks openpi's protocol by hand."""

    def __init__(self, url: str) -> None:
        self.connection: ClientConnection = connect(url, compression=None, max_size=None, proxy=None).__enter__()
        self.metadata = msgpack.unpackb(self.connection.recv(timeout=10))

    def ask(self, message: Any) -> Any:
        """A mapping, or the text of an error."""
        self.connection.send(message if isinstance(message, bytes | str) else msgpack.packb(message))
        answer = self.connection.recv(timeout=10)
        return answer if isinstance(answer, str) else msgpack.unpackb(answer)

    def actions(self, message: Any) -> np.ndarray:
        raw = self.ask(message)["actions"]
        return np.frombuffer(raw[b"data"], raw[b"dtype"]).reshape(raw[b"shape"])


@pytest.fixture(scope="module")
def echo() -> Iterator[tuple[Echo, str]]:
    agent = Echo()
    with served(agent) as url:
        yield agent, url


def test_a_client_is_told_what_the_actions_mean(echo: tuple[Echo, str]) -> None:
    """Of every robot, or of the one that the agent is for. +1 opens one robot's fingers and closes the other's."""
    client = Client(echo[1])
    told = client.metadata["conventions"]
    client.connection.close()
    assert {entry["robot"]: entry["control_hz"] for entry in told} == {"widowx": 5.0, "google_robot": 3.0}
    gripper = {entry["robot"]: (entry["action"][2]["positive"], entry["action"][2]["mode"]) for entry in told}
    assert gripper == {"widowx": ("opens", "absolute"), "google_robot": ("closes", "relative")}
    assert [part["unit"] for part in told[0]["action"]] == ["m", "rad", "1"]
    bound = Echo()
    bound.robot = "google_robot"  # type: ignore[attr-defined]
    with served(bound) as url:
        client = Client(url)
        assert [entry["robot"] for entry in client.metadata["conventions"]] == ["google_robot"]
        client.connection.close()


def test_an_openpi_client_is_answered(echo: tuple[Echo, str]) -> None:
    client = Client(echo[1])
    assert client.metadata["observes"] == ["image", "proprio", "instruction"]
    first = client.ask(observation())
    assert set(first) == {"actions", "server_timing"}
    assert first["actions"][b"dtype"] == "<f4"
    assert set(first["server_timing"]) == {"infer_ms"}
    assert set(client.ask(observation())["server_timing"]) == {"infer_ms", "prev_total_ms"}
    np.testing.assert_allclose(client.actions(observation())[:, :3], [[0, 0, 0], [9, 0.5, 5]])
    client.connection.close()


def test_every_connection_is_a_lane_and_lanes_are_used_again(echo: tuple[Echo, str]) -> None:
    clients = [Client(echo[1]) for _ in range(3)]
    assert [client.actions(observation())[1, 3] for client in clients] == [0, 1, 2]
    clients[1].connection.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        new = Client(echo[1])
        lane = new.actions(observation())[1, 3]
        new.connection.close()
        if lane == 1:
            break
    assert lane == 1
    for client in clients:
        client.connection.close()


def test_an_address_or_a_reset_begins_an_episode(echo: tuple[Echo, str]) -> None:
    agent, url = echo
    agent.begun.clear()
    client = Client(url)
    address = "widowx_stack_cube/default/grid:3/1"
    for extra in ({}, {}, {"address": address}, {}, {"reset": True}, {"reset": False}):
        client.ask(observation(**extra))
    client.connection.close()
    names = [name for _, name in agent.begun]
    assert len(names) == 3
    assert names[1] == address
    assert names[0].startswith("remote/default/region:")
    assert names[0] != names[2]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b"\xc1", "Expected msgpack"),
        ("hello", "Expected a binary message"),
        ([1, 2], "Expected a mapping"),
        (observation(prompt=None), "no 'prompt' \\(instruction\\)"),
        (observation(prompt=3), "prompt .* must be text"),
        (
            observation(observation__image=array(np.zeros((4, 6, 3)))),
            "must be uint8 of shape \\(H, W, 3\\); got float64",
        ),
        (observation(observation__image="picture"), "must be uint8"),
        (observation(observation__state=array(np.zeros((2, 2)))), "must be a row of finite numbers"),
        (observation(observation__state=[1.0, float("nan")]), "must be a row of finite numbers"),
        (observation(observation__state=[[1.0], [1.0, 2.0]]), "must be a row of finite numbers"),
        (observation(observation__state=[1.0, -1e39]), r"must be a row of finite numbers \(float32\); got float64"),
        (observation(address="somewhere"), "task/variant/layout/trial"),
        (observation(address=7), "task/variant/layout/trial"),
        (observation(prompt="fail"), "mine.act failed: KeyError"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence_and_others_go_on(echo: tuple[Echo, str], message: Any, said: str) -> None:
    other, client = Client(echo[1]), Client(echo[1])
    other.ask(observation())
    answer = client.ask(message)
    assert isinstance(answer, str)
    assert "\n" not in answer
    with pytest.raises(RemoteError, match=said):
        raise RemoteError(answer)
    with pytest.raises(ConnectionClosed):
        client.connection.recv(timeout=10)
    assert other.actions(observation())[1, 0] == 9
    other.connection.close()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("largest", [1e39, -1e300, float("inf"), np.longdouble("1e4000")])
def test_numbers_beyond_float32_are_refused_without_a_warning(largest: Any) -> None:
    with pytest.raises(RemoteError, match=r"^p \(proprio\) must be a row of finite numbers \(float32\)"):
        _entry("proprio", "p", {"p": [0.5, largest]})
    np.testing.assert_array_equal(_entry("proprio", "p", {"p": [-3.4e38, 7]}), np.float32([-3.4e38, 7]))


def test_an_address_that_the_agent_dislikes_costs_its_client_only() -> None:
    with served(ScriptedExpert()) as url:
        good, bad = Client(url), Client(url)
        state = {"state": array(np.zeros(26, np.float32))}
        answer = bad.ask({**state, "address": "no_such_task/default/grid:0/0"})
        assert "Unknown task 'no_such_task'" in answer
        assert good.actions({**state, "address": "widowx_stack_cube/default/grid:0/0"}).shape == (1, 7)


def test_waiting_decisions_share_a_batch() -> None:
    agent = Echo()
    agent.delay = 0.2
    with served(agent) as url:
        clients = [Client(url) for _ in range(5)]
        threads = [threading.Thread(target=client.ask, args=(observation(),)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(agent.batches) == 5
        assert len(agent.batches) < 5
        # Images of another size have a batch of their own and need not fit.
        big = observation(observation__image=array(np.full((8, 8, 3), 7, np.uint8)))
        np.testing.assert_allclose(clients[0].actions(big)[1, 0], 7)


def test_other_names_of_entries() -> None:
    with served(Echo(), keys={"image": "cam", "instruction": "task"}) as url:
        client = Client(url)
        assert client.metadata["keys"]["image"] == "cam"
        message = observation()
        message["cam"], message["task"] = message.pop("observation/image"), message.pop("prompt")
        assert client.actions(message)[1, 2] == 5
    with pytest.raises(InvalidConfigError, match=r"keys gives names to image.*got picture='cam'"):
        PolicyServer(Echo(), keys={"picture": "cam"})


def test_a_slow_agent_is_told_and_the_next_client_is_served() -> None:
    agent = Echo()
    agent.delay = 0.4
    with served(agent, timeout=0.1) as url:
        assert "took more than 0.1 s" in Client(url).ask(observation())
        agent.delay = 0.0
        time.sleep(0.5)
        assert Client(url).actions(observation())[1, 0] == 9


def test_the_end_of_a_server_does_not_wait_for_what_nobody_decides_any_more() -> None:
    agent = Echo()
    agent.delay = 0.5
    with served(agent) as url:
        clients = [Client(url) for _ in range(3)]
        for client in clients:
            client.connection.send(msgpack.packb(observation()))
        deadline = time.monotonic() + 5
        while not agent.begun and time.monotonic() < deadline:
            time.sleep(0.01)
        left = time.monotonic()
    assert time.monotonic() - left < 10  # where a decision may take 60 s


def test_too_large_too_many_and_health() -> None:
    with served(Echo(), max_bytes=2000, max_connections=1) as url:
        assert urllib.request.urlopen(url.replace("ws:", "http:") + "/healthz", timeout=10).read() == b"OK\n"
        client = Client(url)
        with connect(url, proxy=None) as refused:
            assert refused.recv(timeout=10) == "All 1 connections are taken; come back later."
        with pytest.raises(ConnectionClosed, match="1009"):
            client.ask(observation(observation__image=array(np.zeros((40, 40, 3), np.uint8))))


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Any] = []

    async def run(self: PolicyServer, host: str, port: int, started: Any) -> None:
        seen.append((self.token, self.agent, self.name, host, port, self.timeout, self.max_bytes))
        started(1234)

    monkeypatch.setattr(PolicyServer, "run", run)
    cli.run("serve", serve.main, ["agent=random", "agent.horizon=3", "port=0", "timeout=5", "max_mb=1"])
    ((token, agent, *rest),) = seen
    assert token is None, "on this machine alone none is asked for"
    assert isinstance(agent, RandomAgent)
    assert rest == ["random", "127.0.0.1", 0, 5.0, 1_000_000]
    assert "ws://127.0.0.1:1234" in capsys.readouterr().out
    cli.run("serve", serve.main, ["agent=random", "host=0.0.0.0"])
    printed = capsys.readouterr().out
    made = seen[-1][0]
    assert made is not None, "beyond this machine a server has a token"
    assert made in printed
    file = tmp_path / "token"
    file.write_text("a-token-of-my-own\n")
    cli.run("serve", serve.main, ["agent=random", "host=0.0.0.0", f"token_file={file}"])
    assert seen[-1][0] == "a-token-of-my-own"
    assert "a-token-of-my-own" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("port=70000", "port must be in [0, 65535]; got 70000."),
        ("timeout=0", "must be above 0"),
        ("total_mb=1", "at least as large as one"),
        ("token_file=nowhere", "token_file should be a text file with a token"),
        ("keys.image=", "keys gives names"),
        ("agent=exprt", "Unknown agent"),
        ("host=203.0.113.1", "Cannot listen at 203.0.113.1"),
    ],
)
def test_bad_settings_are_one_sentence(argument: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.run("serve", serve.main, ["agent=random", argument])
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1


def test_addresses_read_as_they_are_written() -> None:
    address = Address("widowx_stack_cube", "default", "region:12", 3)
    assert parse_address(str(address)) == address


leaves = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats() | st.text(max_size=9) | st.binary()
markers = st.sampled_from([b"__ndarray__", b"__npgeneric__", b"data", b"dtype", b"shape"])
names = st.sampled_from([*observation(), "address", "reset", "state"]) | st.text(max_size=5) | markers
dtypes = st.sampled_from(["<f4", "|u1", "|O", "<U3", "<M8[s]", "V8", "f4,f4", "", "?"])
arrays = st.fixed_dictionaries(
    {b"__ndarray__": st.booleans(), b"dtype": dtypes | leaves, b"shape": st.lists(st.integers(-2, 2**33)) | leaves},
    optional={b"data": st.binary(max_size=40) | leaves},
)
trees = st.recursive(
    leaves | arrays, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4)
)


@st.composite
def messages(draw: Any) -> bytes:
    """Random bytes, random trees, and good observations with something spoiled."""
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return draw(st.binary(max_size=60))
    if kind == 1:
        return msgpack.packb(draw(trees))
    good = observation()
    good[draw(st.sampled_from(list(good)))] = draw(trees)
    if kind == 2:
        return msgpack.packb(good)
    data = bytearray(msgpack.packb(observation()))
    data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(1, len(data)))])


def ask_fuzz(url: str, data: bytes) -> None:
    """Any message is answered by actions or by one sentence."""
    client = Client(url)
    answer = client.ask(data)
    client.connection.close()
    if isinstance(answer, str):
        assert answer
        assert "\n" not in answer
        assert not answer.startswith("mine.act failed"), "what is malformed should not reach the agent"
    else:
        assert "actions" in answer


@pytest.mark.slow
@given(data=messages())
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_messages_are_answered(echo: tuple[Echo, str], data: bytes) -> None:
    ask_fuzz(echo[1], data)


def test_after_all_that_the_server_serves(echo: tuple[Echo, str]) -> None:
    client = Client(echo[1])
    assert client.actions(observation())[1, 0] == 9
    assert client.actions(observation())[1, 3] == 0, "all environments of those who left are free"


@pytest.mark.long
@given(data=messages())
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
def test_ten_thousand_random_messages_are_answered(echo: tuple[Echo, str], data: bytes) -> None:
    ask_fuzz(echo[1], data)
