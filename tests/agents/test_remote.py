"""The remote agent: as good as the agent behind it, and patient with nobody's mistakes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from served import served
from websockets.sync.server import ServerConnection, serve

from vlaser_gym import cli
from vlaser_gym.agents import make_agent
from vlaser_gym.agents.random import RandomAgent
from vlaser_gym.agents.remote import RemoteAgent
from vlaser_gym.agents.scripted import ScriptedExpert
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import GymError, InvalidConfigError, RemoteError, UnknownNameError
from vlaser_gym.evaluation.evaluator import EvalSettings, evaluate

LANES, PLACES = np.array([0, 1]), [Address("widowx_stack_cube"), Address("widowx_stack_cube", trial=1)]
SEEN = {
    "image": np.zeros((2, 4, 4, 3), np.uint8),
    "proprio": np.array([[1.0, 2.0], [3.0, 4.0]], np.float32),
    "instruction": ("stack", "put"),
}


def array(values: Any) -> dict[bytes, Any]:
    values = np.asarray(values)
    return {b"__ndarray__": True, b"data": values.tobytes(), b"dtype": values.dtype.str, b"shape": list(values.shape)}


@contextmanager
def stranger(answer: Callable[[dict], Any], metadata: Any = None) -> Iterator[str]:
    """Another project's server, written here by hand; ``answer`` gives bytes, text, a message, or never returns."""

    def handle(connection: ServerConnection) -> None:
        connection.send(msgpack.packb(metadata or {}) if not isinstance(metadata, str) else metadata)
        for data in connection:
            said = answer(msgpack.unpackb(data))
            connection.send(said if isinstance(said, bytes | str) else msgpack.packb(said))

    with serve(handle, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"


def score(run: Path, *overrides: str) -> dict[str, bytes]:
    base = ["task=widowx_stack_cube", "episodes=3", "trials=2", "num_envs=3", f"run={run}"]
    evaluate(EvalSettings.from_config(cli.load("eval", [*base, *overrides])))
    names = ["episodes.jsonl", "summary.json", *sorted(str(p.relative_to(run)) for p in run.glob("states/*"))]
    return {name: (run / name).read_bytes() for name in names}


@pytest.mark.parametrize(("name", "agent"), [("random", RandomAgent()), ("expert", ScriptedExpert())])
def test_served_and_asked_from_afar_an_agent_leaves_the_same_records(tmp_path: Path, name: str, agent: Any) -> None:
    here = score(tmp_path / "here", f"agent={name}")
    with served(agent, name) as url:
        there = score(tmp_path / "there", "agent=remote", f"agent.name={name}", f"agent.url={url}")
    assert len(here) == 2 + 6
    assert there == here


def test_another_projects_server_is_asked_in_openpis_words() -> None:
    heard: list[dict] = []

    def answer(message: dict) -> Any:
        heard.append(message)
        return {
            "actions": array(np.full((5, 7), len(message["prompt"]) / 100, np.float32)),
            "policy_timing": {"infer_ms": 1},
        }

    with stranger(answer, {"robot": "somebody's"}) as url:
        agent = RemoteAgent(url, act_steps=2)
        assert agent.observes == ("image", "proprio", "instruction")
        agent.reset(LANES, PLACES)
        chunk = agent.act(SEEN, LANES)
        assert chunk.shape == (2, 2, 7)
        np.testing.assert_array_equal(chunk[:, 0, 0], np.float32([0.05, 0.03]))
        agent.close()
    assert [set(message) for message in heard] == [{"observation/image", "observation/state", "prompt"}] * 2
    states = {tuple(np.frombuffer(m["observation/state"][b"data"], np.float32)) for m in heard}
    assert states == {(1.0, 2.0), (3.0, 4.0)}


def test_a_wrist_camera_s_pictures_travel_under_openpi_s_name() -> None:
    """Both ways: another project's server is sent ``observation/wrist_image``, an agent served here gets it back."""
    asked: list[dict] = []

    def answer(message: dict) -> dict:
        asked.append(message)
        return {"actions": array(np.zeros((1, 7)))}

    seen = {**SEEN, "wrist_image": np.full((2, 3, 5, 3), 9, np.uint8)}
    with stranger(answer) as url:
        agent = RemoteAgent(url, observes=["wrist_image", "instruction"])
        agent.reset(LANES, PLACES)
        agent.act(seen, LANES)
        agent.close()
    assert asked[0].keys() == {"observation/wrist_image", "prompt"}
    assert asked[0]["observation/wrist_image"] == array(seen["wrist_image"][0])

    class Wrist(RandomAgent):
        observes = ("wrist_image",)

        def act(self, observations: Any, lanes: Any) -> Any:
            return np.full((len(lanes), 1, 7), observations["wrist_image"].mean())

    with served(Wrist()) as url:
        agent = RemoteAgent(url)
        assert agent.observes == ("wrist_image",)
        agent.reset(LANES, PLACES)
        assert (agent.act(seen, LANES) == 9.0).all()
        agent.reset(LANES, PLACES)
        with pytest.raises(RemoteError, match=r"wrist_image.*must be uint8 of shape"):
            agent.act({**seen, "wrist_image": np.zeros((2, 3))}, LANES)
        agent.close()


def test_names_are_the_users_before_the_servers_before_openpis() -> None:
    heard: list[dict] = []

    def answer(message: dict) -> Any:
        heard.append(message)
        return {"plan": array(np.zeros((1, 7)))}

    told = {"keys": {"image": "cam", "proprio": "arm"}, "observes": ["image", "proprio", "instruction"]}
    with stranger(answer, told) as url:
        agent = RemoteAgent(url, keys={"proprio": "joints", "address": "where"}, action_key="plan")
        agent.reset(LANES[:1], PLACES[:1])
        agent.act(SEEN, LANES[:1])
        agent.act(SEEN, LANES[:1])
    assert [set(m) for m in heard] == [{"cam", "joints", "prompt", "where"}, {"cam", "joints", "prompt"}]
    assert heard[0]["where"] == "widowx_stack_cube/default/grid:0/0"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({}, "must answer with 'actions'; got nothing"),
        ({"action": 1}, "must answer with 'actions'; got 'action'"),
        ({"actions": array(np.zeros((2, 6)))}, r"shape \(H, 7\), in m, rad and gripper; got \(2, 6\)"),
        ({"actions": array(np.zeros(7))}, r"got \(7,\)"),
        ({"actions": "left"}, "got str"),
        ({"actions": None}, r"shape \(H, 7\)"),
        (b"\xc1", "does not speak openpi's protocol"),
        ("Traceback\n ...\nValueError: no GPU\n", "reports an error: ValueError: no GPU"),
    ],
)
def test_what_a_server_does_wrong_is_one_sentence(answer: Any, said: str) -> None:
    with stranger(lambda message: answer) as url:
        agent = RemoteAgent(url)
        agent.reset(LANES, PLACES)
        with pytest.raises(RemoteError, match=said) as caught:
            agent.act(SEEN, LANES)
        assert "\n" not in str(caught.value)
        assert url in str(caught.value)


def test_chunks_of_different_lengths() -> None:
    with stranger(lambda message: {"actions": array(np.zeros((len(message["prompt"]), 7)))}) as url:
        agent = RemoteAgent(url)
        agent.reset(LANES, PLACES)
        with pytest.raises(RemoteError, match=r"equally many actions; got \[3, 5\]"):
            agent.act(SEEN, LANES)


def test_nobody_there_no_protocol_no_answer() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(RemoteError, match="No policy server answers at ws://127"):
            RemoteAgent(f"ws://127.0.0.1:{free.getsockname()[1]}")
        free.listen()
        with pytest.raises(RemoteError, match="No policy server answers"):  # accepts, and says nothing
            RemoteAgent(f"ws://127.0.0.1:{free.getsockname()[1]}", timeout=0.2)
    with pytest.raises(InvalidConfigError, match="must read ws://HOST:PORT; got 'http"):
        RemoteAgent("http://127.0.0.1:1")
    with stranger(lambda message: {}, "go away") as url, pytest.raises(RemoteError, match="reports an error: go away"):
        RemoteAgent(url)
    with stranger(lambda message: time.sleep(0.6) or {}) as url:
        agent = RemoteAgent(url, timeout=0.2)
        agent.reset(LANES, PLACES)
        with pytest.raises(RemoteError, match=r"did not answer within 0\.2 s"):
            agent.act(SEEN, LANES)


def test_what_a_server_of_ours_dislikes_arrives_as_its_sentence() -> None:
    with served(ScriptedExpert(), "expert") as url:
        agent = RemoteAgent(url)
        assert agent.observes == ("state",)
        agent.reset(np.array([0]), [Address("no_such_task")])
        with pytest.raises(RemoteError, match="reports an error: Unknown task 'no_such_task'"):
            agent.act({"state": np.zeros((1, 26), np.float32)}, np.array([0]))


def test_bad_settings() -> None:
    with pytest.raises(InvalidConfigError, match=r"agent\.url has no default"):
        cli.load("eval", ["agent=remote"])
    with pytest.raises(InvalidConfigError, match="timeout must be above 0"):
        make_agent({"_target_": "vlaser_gym.agents.remote.RemoteAgent", "url": "ws://127.0.0.1:1", "timeout": 0})
    with stranger(lambda message: {}) as url, pytest.raises(UnknownNameError, match="pictures"):
        RemoteAgent(url, observes=["pictures"])
    with stranger(lambda message: {}, {"observes": 7}) as url, pytest.raises(GymError):
        RemoteAgent(url)


def test_the_agent_behind_it_is_described() -> None:
    with served(RandomAgent(), "random") as url:
        assert RemoteAgent(url).describe() == {"served": "random"}
    with stranger(lambda message: {}, {"uptime": 12}) as url:
        assert RemoteAgent(url).describe() == {}


leaves = st.none() | st.integers(-9, 9) | st.floats() | st.text(max_size=5) | st.binary(max_size=5)
trees = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))


def sentence(act: Callable[[], np.ndarray]) -> str | None:
    try:
        shape = act().shape
    except RemoteError as error:
        return str(error)
    return None if shape[2] == 7 else f"shape\n{shape}"


def test_random_answers_are_one_sentence() -> None:
    said: list[Any] = []
    with stranger(lambda message: said[-1]) as url:
        agent = RemoteAgent(url)
        agent.reset(LANES[:1], PLACES[:1])

        @given(
            answer=st.binary(max_size=30)
            | st.text(max_size=30)
            | st.builds(lambda t: msgpack.packb({"actions": t}), trees)
        )
        @settings(max_examples=150, deadline=None)
        def check(answer: Any) -> None:
            said.append(answer)
            problem = sentence(lambda: agent.act(SEEN, LANES[:1]))
            assert problem is None or "\n" not in problem

        check()


def test_a_server_that_answers_no_pings_is_waited_for() -> None:
    """openpi's servers compile within their event loop, for minutes: ``agent.timeout`` is the only limit."""
    with stranger(lambda message: {}) as url:
        agent = RemoteAgent(url, timeout=200)
        assert [connection.ping_interval for connection in agent._spare] == [None]
        agent.close()


def test_a_message_that_nobody_takes_is_given_up() -> None:
    """A server that stops reading fills the sockets' buffers; pings, which told that before, are not sent."""
    asleep = threading.Event()

    def handle(connection: ServerConnection) -> None:
        connection.send(msgpack.packb({"observes": ["image"]}))
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.recv_events_thread = None
        asleep.wait(20)

    with serve(handle, "127.0.0.1", 0, max_queue=1) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        agent = RemoteAgent(f"ws://127.0.0.1:{server.socket.getsockname()[1]}", timeout=0.5)
        lanes = np.arange(1)
        agent.reset(lanes, PLACES[:1])
        began = time.monotonic()
        for _ in range(40):  # the server answers none of them
            agent._send(0, {"image": np.zeros(4_000_000, np.uint8)})
        with pytest.raises(RemoteError):
            agent._receive(0)
        assert time.monotonic() - began < 10
        asleep.set()


def test_what_a_server_says_cannot_steer_the_terminal() -> None:
    with stranger(lambda message: "no GPU\x1b[2J\x1b]0;owned\x07") as url:
        agent = RemoteAgent(url)
        agent.reset(LANES, PLACES)
        with pytest.raises(RemoteError) as caught:
            agent.act(SEEN, LANES)
    assert str(caught.value).isprintable()
    told = {"agent": "nano\x1b[31m", "agent_settings": {"a\x07": ["\x1b[2J", 3]}}
    with stranger(lambda message: {}, told) as url:
        described = RemoteAgent(url).describe()
    assert described == {"served": "nano\\x1b[31m", "a\\x07": ["\\x1b[2J", 3]}
