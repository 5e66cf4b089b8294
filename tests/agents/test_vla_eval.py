"""vla-eval, both ways: its messages by hand, and (``long``) the real harness and a real model server of its own."""

from __future__ import annotations

import io
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from PIL import Image
from served import served
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve

from vlaser_gym import cli
from vlaser_gym.agents.random import RandomAgent
from vlaser_gym.agents.remote import RemoteAgent
from vlaser_gym.agents.scripted import ScriptedExpert
from vlaser_gym.conventions import get_preset, of_robot
from vlaser_gym.conventions.vla_eval import action_spec, convention_of
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError, RemoteError
from vlaser_gym.evaluation.evaluator import EvalSettings, evaluate

NEIGHBOURS = Path(__file__).parents[1] / "neighbours"
CUBE, LANE = Address("widowx_stack_cube", layout="grid:3", trial=1), np.array([0])


def message(kind: str, payload: Any, number: int = 1) -> bytes:
    """As ``vla_eval.protocol.messages.pack_message`` writes it."""
    return msgpack.packb({"type": kind, "payload": payload, "seq": number, "timestamp": 0.0})


def array(values: Any) -> dict[str, Any]:
    values = np.asarray(values)
    return {"__ndarray__": True, "data": values.tobytes(), "dtype": values.dtype.str, "shape": list(values.shape)}


def numbers(entry: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(entry["data"], entry["dtype"]).reshape(entry["shape"])


def png(pixels: np.ndarray) -> dict[str, Any]:
    """An image as the harness sends it by default."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return {"__image__": True, "format": "png", "data": file.getvalue(), "shape": list(pixels.shape)}


def ask(connection: ClientConnection, kind: str, payload: Any, number: int = 1) -> dict[str, Any]:
    connection.send(message(kind, payload, number))
    return msgpack.unpackb(connection.recv(timeout=10))


class Brightness:
    """Two actions: the image's brightness and the text's length, then where the hand is."""

    observes, robot = ("image", "proprio", "instruction"), "widowx"

    def __init__(self) -> None:
        self.begun: list[str] = []

    def reset(self, lanes: np.ndarray, addresses: Sequence[Address]) -> None:
        self.begun += map(str, addresses)

    def act(self, observations: dict[str, Any], lanes: np.ndarray) -> np.ndarray:
        actions = np.zeros((len(lanes), 2, 7))
        actions[:, 0, 0] = observations["image"].mean((1, 2, 3))
        actions[:, 0, 1] = [len(text) for text in observations["instruction"]]
        actions[:, 1, :3] = observations["proprio"][:, :3]
        return actions


STATE = np.array([0.25, 0.5, 0.125, 1, 0, 0, 0, 1], np.float32)


def observation(brightness: int, **others: Any) -> dict[str, Any]:
    pixels = np.full((4, 6, 3), brightness, np.uint8)
    return {"images": {"primary": png(pixels)}, "states": array(STATE), "task_description": "stack", **others}


# ---------------------------------------------------------------------- we serve, their harness asks


def test_a_harness_is_told_what_is_given_and_read() -> None:
    with served(Brightness(), protocol="vla_eval") as url, connect(url) as connection:
        answer = ask(connection, "hello", {"harness_version": "0.8.0", "protocol_version": 1}, 7)
    told = answer["payload"]
    assert (answer["type"], answer["seq"], told["protocol_version"], told["model_server"]) == ("hello", 7, 1, "mine")
    assert {part: (spec["dims"], spec["format"]) for part, spec in told["action_spec"].items()} == {
        "position": (3, "delta_xyz"),
        "rotation": (3, "axis_angle"),
        "gripper": (1, "binary_close_negative"),
    }
    assert {part: spec["format"] for part, spec in told["observation_spec"].items()} == {
        "image": "rgb_hwc_uint8",
        "language": "language",
        "state": "eef_pos3_quat4_gripper1",
    }
    assert told["observation_params"] == {"send_state": True}


def test_each_observation_is_answered_by_one_action_of_the_chunk() -> None:
    agent = Brightness()
    with served(agent, protocol="vla_eval") as url, connect(url) as connection:
        connection.send(message("episode_start", {"task": {"name": "anything", "address": str(CUBE)}}))
        first = ask(connection, "observation", observation(8), 2)
        second = ask(connection, "observation", observation(200), 3)
        third = ask(connection, "observation", observation(16), 4)
        connection.send(message("episode_end", {"metrics": {}}))
        connection.send(message("episode_start", {"task": {"task_name": "widowx_stack_cube", "episode_idx": 25}}))
        fourth = ask(connection, "observation", observation(32), 5)
    assert [answer["seq"] for answer in (first, second, third, fourth)] == [2, 3, 4, 5]
    got = [numbers(answer["payload"]["actions"])[:3].tolist() for answer in (first, second, third, fourth)]
    assert got == [[8, 5, 0], [0.25, 0.5, 0.125], [16, 5, 0], [32, 5, 0]]
    # 24 layouts: number 25 is the second trial of the second.
    assert agent.begun == [str(CUBE), "widowx_stack_cube/default/grid:1/1"]


def test_the_only_picture_counts_whatever_it_is_called_and_raw_pictures_do() -> None:
    raw = {"__image__": True, "format": "raw", **array(np.full((2, 2, 3), 9, np.uint8))}
    del raw["__ndarray__"]
    with served(Brightness(), protocol="vla_eval") as url, connect(url) as connection:
        answer = ask(connection, "observation", {**observation(1), "images": {"agentview": raw}})
    assert numbers(answer["payload"]["actions"])[0] == 9


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (message("observation", {"task_description": "x"}), "no 'images/primary'"),
        (message("episode_start", {"task": {"address": "nowhere"}}), "An address reads task/variant/layout/trial"),
        (msgpack.packb({"actions": 1}), "Expected a message of vla-eval"),
        (b"\xc1", "Expected vla-eval's messages"),
        (
            message("observation", {"images": {"primary": {"__image__": True, "format": "png", "data": b"no"}}}),
            "cannot",
        ),
        (message("observation", {"states": array(np.array(["a"], object))}), "cannot"),
        (message("observation", observation(1, states=array(np.zeros(8, np.float32)))), "should hold x y z"),
    ],
)
def test_what_is_wrong_is_said_as_an_error_and_ends_that_connection_alone(sent: bytes, said: str) -> None:
    with served(Brightness(), protocol="vla_eval") as url, connect(url) as bad, connect(url) as good:
        bad.send(sent)
        answer = msgpack.unpackb(bad.recv(timeout=10))
        assert (answer["type"], said in answer["payload"]["error"]) == ("error", True), answer
        assert ask(good, "observation", observation(4))["type"] == "action"


def test_small_files_of_large_pictures_are_refused_before_they_are_decoded() -> None:
    """One of 36 million pixels in about 100 kB; and two that fit one by one and not together."""
    large, half = png(np.zeros((6000, 6000, 3), np.uint8)), png(np.zeros((3000, 3000, 3), np.uint8))
    for images in ({"primary": large}, {"primary": half, "wrist": half}):
        with served(Brightness(), protocol="vla_eval") as url, connect(url) as connection:
            answer = ask(connection, "observation", {**observation(1), "images": images})
        assert answer["type"] == "error"
        assert "images of more than 16777216 pixels" in answer["payload"]["error"]


def test_an_agent_that_looks_at_nothing_saves_the_harness_its_pictures() -> None:
    with served(RandomAgent(), protocol="vla_eval") as url, connect(url) as connection:
        told = ask(connection, "hello", {})["payload"]
        connection.send(message("episode_start", {"task": {"address": str(CUBE)}}))
        got = [numbers(ask(connection, "observation", {}, n)["payload"]["actions"]) for n in range(8)]
    assert told["observation_params"] == {"send_image": False}
    assert told["action_spec"] == {}
    agent = RandomAgent()
    agent.reset(LANE, [CUBE])
    np.testing.assert_array_equal(got, np.concatenate([agent.act({}, LANE)[0] for _ in range(2)]))


# ---------------------------------------------------------------------- their model server, we ask


@contextmanager
def model_server(hello: dict[str, Any], answer: Callable[[dict], Any], heard: list[Any]) -> Iterator[str]:
    """A model server of vla-eval, written here by hand from its description."""

    def handle(connection: ServerConnection) -> None:
        for data in connection:
            said = msgpack.unpackb(data)
            heard.append((said["type"], said["payload"]))
            if said["type"] == "hello":
                connection.send(message("hello", hello, said["seq"]))
            elif said["type"] == "observation":
                connection.send(message(*answer(said["payload"]), said["seq"]))

    with serve(handle, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"


def spec(position: str = "delta_xyz", rotation: str = "euler_xyz", gripper: str = "binary_close_positive") -> Any:
    kinds = {"position": (3, position), "rotation": (3, rotation), "gripper": (1, gripper)}
    return {name: {"name": name, "dims": dims, "format": kind} for name, (dims, kind) in kinds.items()}


READS = {"image": {"format": "rgb_hwc_uint8"}, "language": {"format": "language"}, "state": {"format": "raw"}}
SEEN = {"image": np.full((1, 2, 2, 3), 3, np.uint8), "proprio": STATE[None], "instruction": ("stack",)}


def test_a_model_server_is_asked_in_its_own_words_and_its_kind_of_rotation_and_gripper_are_read() -> None:
    heard: list[Any] = []
    hello = {"model_server": "OpenVLA", "action_spec": spec(), "observation_spec": READS, "protocol_version": 1}
    action = np.array([0.01, 0, 0, 0, 0, 0.5, -1], np.float32)
    with model_server(hello, lambda seen: ("action", {"actions": array(action)}), heard) as url:
        agent = RemoteAgent(url, protocol="vla_eval")
        agent.reset(LANE, [CUBE])
        chunk = agent.act(SEEN, LANE)
        agent.act(SEEN, LANE)
        agent.close()
    assert agent.observes == ("image", "proprio", "instruction")
    assert agent.convention is not None
    assert (agent.convention.rotation, agent.convention.gripper.open) == ("euler:xyz", -1.0)
    assert chunk.shape == (1, 1, 7)
    np.testing.assert_array_equal(chunk[0, 0], action)
    assert [kind for kind, _ in heard] == ["hello", "episode_start", "observation", "observation"]
    assert heard[1][1]["task"] == {"name": "widowx_stack_cube", "episode_idx": 3, "address": str(CUBE)}
    asked = heard[2][1]
    assert asked["task_description"] == "stack"
    np.testing.assert_array_equal(numbers(asked["states"]), STATE)
    np.testing.assert_array_equal(numbers(asked["images"]["primary"]), SEEN["image"][0])
    assert agent.describe() == {"served": "OpenVLA"}


def test_a_model_server_that_does_not_say_which_end_of_the_gripper_is_open_is_refused_unless_one_says_it() -> None:
    hello = {"model_server": "GR00T", "action_spec": spec(gripper="continuous_01"), "observation_spec": READS}
    with model_server(hello, lambda seen: ("action", {}), []) as url:
        with pytest.raises(
            RemoteError, match="it says position: delta_xyz, rotation: euler_xyz, gripper: continuous_01"
        ):
            RemoteAgent(url, protocol="vla_eval")
        assert RemoteAgent(url, protocol="vla_eval", convention="bridge").convention == get_preset("bridge")


def test_normalised_answers_are_refused_though_the_server_says_what_kind_they_are() -> None:
    hello = {"model_server": "Pi0", "action_spec": spec(), "observation_spec": READS}
    with model_server(hello, lambda seen: ("action", {"actions": array(np.full(7, 0.9))}), []) as url:
        agent = RemoteAgent(url, protocol="vla_eval")
        agent.reset(LANE, [CUBE])
        with pytest.raises(RemoteError, match="as if they were normalised"):
            agent.act(SEEN, LANE)


def test_an_error_of_a_model_server_is_its_sentence() -> None:
    hello = {"model_server": "Mine", "action_spec": spec(), "observation_spec": READS}
    with model_server(hello, lambda seen: ("error", {"error": "observation_failed: out of memory"}), []) as url:
        agent = RemoteAgent(url, protocol="vla_eval")
        agent.reset(LANE, [CUBE])
        with pytest.raises(RemoteError, match="reports an error: observation_failed: out of memory"):
            agent.act(SEEN, LANE)


def test_a_server_of_ours_is_asked_in_vla_eval_s_words_as_in_openpi_s() -> None:
    chunks = []
    for protocol in ("openpi", "vla_eval"):
        with served(RandomAgent(horizon=1), protocol=protocol) as url:
            agent = RemoteAgent(url, protocol=protocol, keys={"address": "address"})
            agent.reset(LANE, [CUBE])
            chunks.append(np.concatenate([agent.act({}, LANE) for _ in range(3)]))
            agent.close()
    np.testing.assert_array_equal(chunks[0], chunks[1])


def test_specs_and_conventions_say_the_same() -> None:
    """There and back for what both can say."""
    for preset in ("simpler_widowx", "openpi_libero", "xvla"):
        ours = get_preset(preset)
        there = convention_of(action_spec(ours), preset)
        assert there is not None
        motion = "absolute" if ours.motion == "absolute" else "delta"
        assert (there.motion, there.rotation, there.gripper) == (motion, ours.rotation, ours.gripper), preset
    with pytest.raises(InvalidConfigError, match="gripper: vlaser_gym_relative"):
        convention_of(action_spec(of_robot("google_robot")), "g")


# ---------------------------------------------------------------------- the real one


class Rounded:
    """The scripted expert with actions in single precision, as vla-eval's servers give them."""

    observes, robot = ("state",), "widowx"

    def __init__(self) -> None:
        self.expert = ScriptedExpert()

    def reset(self, lanes: np.ndarray, addresses: Sequence[Address]) -> None:
        self.expert.reset(lanes, addresses)

    def act(self, observations: dict[str, Any], lanes: np.ndarray) -> np.ndarray:
        return self.expert.act(observations, lanes).astype(np.float32)


TASKS = ("widowx_stack_cube", "widowx_carrot_on_plate")


def records(run: Path, *overrides: str) -> list[dict[str, Any]]:
    base = [f"task=[{','.join(TASKS)}]", "episodes=3", "num_envs=2", f"run={run}"]
    evaluate(EvalSettings.from_config(cli.load("eval", [*base, *overrides])))
    return [json.loads(line) for line in (run / "episodes.jsonl").read_text().splitlines()]


@pytest.mark.long
@pytest.mark.parametrize("name", ["random", "expert"])
def test_vla_eval_run_counts_what_eval_counts(tmp_path: Path, neighbour: Callable[..., Path], name: str) -> None:
    """Its own command, its own environment; our tasks as its benchmark and our server as its model."""
    here = records(tmp_path / "here", f"agent={name}")
    agent = RandomAgent() if name == "random" else ScriptedExpert()
    with served(agent, name, protocol="vla_eval", robot="widowx") as url:
        config = {
            "server": {"url": url},
            "output_dir": str(tmp_path / "there"),
            "benchmarks": [
                {
                    "benchmark": "vlaser_gym.evaluation.vla_eval:Scenes",
                    "episodes_per_task": 3,
                    "params": {"task": list(TASKS)},
                }
            ],
        }
        (tmp_path / "config.yaml").write_text(json.dumps(config))
        command = [neighbour("vla_eval", beside=True), "-m", "vla_eval.cli.main"]
        done = subprocess.run(
            [*command, "run", "-c", tmp_path / "config.yaml"], check=True, capture_output=True, text=True
        )
    assert "Spec validation passed" in done.stderr, done.stderr
    (file,) = (tmp_path / "there").glob("*_aggregate.json")
    there = {task["task"]: task for task in json.loads(file.read_text())["tasks"]}
    for task in TASKS:
        ours = [record for record in here if record["task"] == task]
        theirs = sorted(there[task]["episodes"], key=lambda episode: episode["episode_id"])
        assert [episode["metrics"]["success"] for episode in theirs] == [record["success"] for record in ours]
        assert [episode["metrics"]["success_any"] for episode in theirs] == [r["success_any"] for r in ours]
        assert [episode["steps"] for episode in theirs] == [record["steps"] for record in ours]
    assert name == "random" or all(record["success"] for record in here)


@pytest.mark.long
def test_a_real_model_server_acts_as_its_agent_does_in_process(tmp_path: Path, neighbour: Callable[..., Path]) -> None:
    here = records(tmp_path / "here", "agent._target_=test_vla_eval.Rounded", "agent.name=expert")
    port = tmp_path / "port"
    server = subprocess.Popen([neighbour("vla_eval", beside=True), NEIGHBOURS / "expert_server.py", port])
    try:
        while not port.exists() or not port.read_text():
            assert server.poll() is None
            time.sleep(0.2)
        url = f"agent.url=ws://127.0.0.1:{port.read_text()}"
        there = records(
            tmp_path / "there", "agent=remote", "agent.protocol=vla_eval", "agent.name=expert", url, "agent.timeout=600"
        )
    finally:
        server.terminate()
        server.wait()
    assert there == here
    assert all(record["success"] for record in here)
