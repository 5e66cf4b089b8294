"""The servers in examples/: LeRobot's kinds against a stand-in (the real one has not run here), OpenVLA's by hand."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import lerobot_stand_in
import numpy as np
import pytest
from served import served

from examples.lerobot_server import SMALL, make_random
from examples.openvla_server import ActionDecoder, OpenVla, OpenVlaServer, prompt_of
from vlaser_gym.agents import make_agent, understood
from vlaser_gym.agents.lerobot import LeRobotAgent
from vlaser_gym.agents.remote import RemoteAgent
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError, RemoteError

LANE, PLACE = np.array([0]), [Address("widowx_stack_cube", layout="grid:3")]
SEEN = {
    "image": np.full((1, 480, 640, 3), 51, np.uint8),
    "proprio": np.array([[0.25, 0.1, 0.2, 1, 0, 0, 0, 1]], np.float32),
    "instruction": ("Stack the Cube",),
}
STATISTICS = {"action": {"q01": [-0.02] * 6 + [0.0], "q99": [0.04] * 6 + [1.0], "mask": [True] * 6 + [False]}}


@pytest.mark.parametrize("kind", SMALL)
def test_a_policy_of_lerobot_with_random_weights_is_made_and_served(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lerobot_stand_in.install(monkeypatch)
    folder = make_random(kind, tmp_path / kind)
    stored = json.loads((folder / "config.json").read_text())
    assert stored["type"] == kind
    assert SMALL[kind].keys() < stored.keys()
    scales = json.loads((folder / "policy_postprocessor.json").read_text())
    assert scales["action"] == {"mean": [7], "std": [7]}
    here = LeRobotAgent(str(folder))
    here.reset(LANE, PLACE)
    expected = here.act(SEEN, LANE)
    assert expected.shape == (1, 4, 7)
    with served(LeRobotAgent(str(folder)), kind) as url:
        there = RemoteAgent(url)
        there.reset(LANE, PLACE)
        np.testing.assert_array_equal(there.act(SEEN, LANE), expected)
        there.close()


def statistics(tmp_path: Path) -> str:
    file = tmp_path / "dataset_statistics.json"
    file.write_text(json.dumps({"bridge_orig": STATISTICS}))
    return str(file)


def test_tokens_are_the_middles_of_bins_by_hand(tmp_path: Path) -> None:
    """The last token is the lowest bin; between 256 edges there are 255 middles, 2 / 255 apart."""
    decode = ActionDecoder.load(statistics(tmp_path))
    tokens = [31_999, 31_998, 31_745, 31_744, 31_872, 5, 31_745]
    normal = np.array([-1 + 1 / 255, -1 + 3 / 255, 1 - 1 / 255, 1 - 1 / 255, 0.0, 1 - 1 / 255])
    np.testing.assert_allclose(decode(tokens)[:6], -0.02 + (normal + 1) / 2 * 0.06, atol=1e-12)
    assert decode(tokens)[6] == pytest.approx(1 - 1 / 255), "the gripper is not normalised"
    with pytest.raises(InvalidConfigError, match="should hold statistics of 'fractal'; it has bridge_orig"):
        ActionDecoder.load(statistics(tmp_path), "fractal")


def test_openvla_acts_in_the_gym_s_numbers_and_sees_its_own_size(tmp_path: Path) -> None:
    asked = []

    def tokens(picture: np.ndarray, prompt: str) -> list[int]:
        asked.append((picture.shape, prompt))
        return [31_872] * 6 + [31_999]

    agent = understood(OpenVla(tokens, statistics(tmp_path)))
    agent.reset(LANE, PLACE)
    action = agent.act(SEEN, LANE)
    assert asked == [((224, 224, 3), "In: What action should the robot take to stack the cube?\nOut:")]
    np.testing.assert_allclose(action[0, 0, :3], 0.01)
    assert action[0, 0, 6] == -1, "the lowest token closes, which is -1 here"
    assert prompt_of("Put Spoon") == "In: What action should the robot take to put spoon?\nOut:"


class Deployed(BaseHTTPRequestHandler):
    """Answers as ``vla-scripts/deploy.py`` does: an action in json_numpy's words, or what ``replies`` holds first."""

    asked: ClassVar[list[dict[str, Any]]] = []
    replies: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        self.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        values = np.array([0.01, 0, 0, 0, 0, 0, 1.0])
        packed = {"__numpy__": base64.b64encode(values.tobytes()).decode(), "dtype": "<f8", "shape": [7]}
        body = self.replies.pop() if self.replies else json.dumps(packed).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""


@pytest.fixture(name="url")
def _url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Deployed)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_openvla_s_own_server_is_asked_in_its_words(url: str) -> None:
    agent = make_agent({"_target_": "examples.openvla_server.OpenVlaServer", "url": url})
    agent.reset(LANE, PLACE)
    action = agent.act(SEEN, LANE)
    np.testing.assert_allclose(action[0, 0], [0.01, 0, 0, 0, 0, 0, 1.0], atol=1e-12)
    (question,) = Deployed.asked
    assert (question["instruction"], question["unnorm_key"]) == ("Stack the Cube", "bridge_orig")
    picture = question["image"]
    assert (picture["dtype"], picture["shape"]) == ("|u1", [224, 224, 3])
    assert set(base64.b64decode(picture["__numpy__"])) == {51}


def test_answers_that_are_no_action_are_one_sentence(url: str) -> None:
    agent = OpenVlaServer(url)
    for reply, said in ((b'"error"', "asking gave"), (b"[1, 2]", r"Expected 7 numbers .* got shape \(2,\)")):
        Deployed.replies.append(reply)
        with pytest.raises(RemoteError, match=said):
            agent.act(SEEN, LANE)
    with pytest.raises(RemoteError, match=r"Expected an action from http://127\.0\.0\.1:9/act; asking gave URLError"):
        OpenVlaServer("http://127.0.0.1:9").act(SEEN, LANE)
