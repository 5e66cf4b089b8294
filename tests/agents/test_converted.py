"""Agents of other conventions act as agents of this gym do; clients of other conventions are served."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served import served

from vlaser_gym import cli
from vlaser_gym.agents import make_agent
from vlaser_gym.agents.converted import ConvertedAgent, ConvertedClient, is_of_this_gym, looks_like_ours
from vlaser_gym.agents.languages import language
from vlaser_gym.agents.remote import RemoteAgent
from vlaser_gym.conventions import Convention, Conversion, Gripper, Start, get_preset, of_robot
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import GymError, InvalidConfigError, RemoteError
from vlaser_gym.evaluation.evaluator import EvalSettings, evaluate

LANES = np.array([0, 1])
PLACES = [Address("widowx_stack_cube"), Address("widowx_stack_cube", trial=1)]
POSE = np.array([[0.2, 0.0, 0.1, 1, 0, 0, 0, 1.0], [0.3, 0.1, 0.2, 0, 1, 0, 0, 0.2]], np.float32)


class Speaks:
    """Answers what it is told to; remembers what it was shown."""

    observes = ("image", "proprio", "instruction")

    def __init__(self, convention: Any = None, actions: Any = None) -> None:
        self.convention, self.actions = convention, actions
        self.seen: list[Mapping[str, Any]] = []

    def reset(self, lanes: np.ndarray, addresses: Sequence[Address]) -> None:
        pass

    def act(self, observations: Mapping[str, Any], lanes: np.ndarray) -> np.ndarray:
        self.seen.append(observations)
        return np.tile(np.asarray(self.actions, float), (len(lanes), 1, 1))


def shown(**more: Any) -> dict[str, Any]:
    return {"image": np.zeros((2, 480, 640, 3), np.uint8), "proprio": POSE, "instruction": ("a", "b"), **more}


def test_an_agent_reads_its_own_state_and_pictures_and_is_understood() -> None:
    mine = Speaks("gr00t", [[0.01, 0, 0, 0, 0, 0.2, 0.0]])
    agent = ConvertedAgent(mine, get_preset("gr00t"))
    agent.reset(LANES, PLACES)
    found = agent.act(shown(), LANES)
    np.testing.assert_allclose(found, np.tile([0.01, 0, 0, 0, 0, 0.2, -1], (2, 1, 1)), atol=1e-12)
    assert mine.seen[0]["image"].shape == (2, 256, 256, 3)
    assert mine.seen[0]["proprio"].shape == (2, 8)
    np.testing.assert_allclose(
        mine.seen[0]["proprio"][:, [0, 1, 2, 6, 7]], [[0.2, 0, 0.1, 0, 1], [0.3, 0.1, 0.2, 0, 0.2]]
    )
    assert agent.describe()["convention"]["name"] == "gr00t"


def test_absolute_poses_build_on_what_the_controller_was_told_last() -> None:
    """The second chunk begins where the first one aimed, not where the arm got to; a new episode forgets it."""
    absolute = replace(of_robot("widowx"), name="mine", motion="absolute")
    mine = Speaks(absolute, [[0.25, 0, 0.1, 0, 0, 0, 1]])
    agent = ConvertedAgent(mine, absolute)
    agent.reset(LANES[:1], PLACES[:1])
    seen = {name: value[:1] for name, value in shown().items()}
    np.testing.assert_allclose(agent.act(seen, LANES[:1])[0, 0, :3], [0.05, 0, 0], atol=1e-7)
    np.testing.assert_allclose(agent.act(seen, LANES[:1])[0, 0, :3], [0, 0, 0], atol=1e-7)
    agent.reset(LANES[:1], PLACES[:1])
    np.testing.assert_allclose(agent.act(seen, LANES[:1])[0, 0, :3], [0.05, 0, 0], atol=1e-7)


def test_a_relative_gripper_is_told_changes_from_its_last_command() -> None:
    mine = Speaks("fractal", [[0, 0, 0, 0, 0, 0, 0.0], [0, 0, 0, 0, 0, 0, 0.0]])
    agent = ConvertedAgent(mine, get_preset("fractal"))
    agent.reset(LANES[:1], [Address("google_robot_pick_coke_can")])
    seen = {name: value[:1] for name, value in shown().items()}
    np.testing.assert_allclose(agent.act(seen, LANES[:1])[0, :, 6], [1, 0])
    np.testing.assert_allclose(agent.act(seen, LANES[:1])[0, :, 6], [0, 0], atol=1e-12)


def test_what_does_not_fit_is_told_before_the_first_step() -> None:
    agent = make_agent({"_target_": f"{__name__}.Speaks", "convention": "openpi_libero"})
    assert isinstance(agent, ConvertedAgent)
    with pytest.raises(InvalidConfigError, match=r"takes 5 actions per second; openpi_libero gives 20"):
        agent.reset(LANES, PLACES)
    with pytest.raises(GymError, match="Unknown convention 'openpi_libro'"):
        make_agent({"_target_": f"{__name__}.Speaks", "convention": "openpi_libro"})
    with pytest.raises(InvalidConfigError, match="must know its robot"):
        ConvertedAgent(Speaks(), get_preset("openvla")).reset(LANES[:1], [Address("remote")])


def test_agents_of_this_gym_are_left_alone() -> None:
    assert type(make_agent({"_target_": f"{__name__}.Speaks"})) is Speaks
    assert type(make_agent({"_target_": f"{__name__}.Speaks", "convention": "simpler_widowx"})) is Speaks
    assert is_of_this_gym(replace(of_robot("widowx"), name="mine", chunk=4))
    assert not is_of_this_gym(replace(of_robot("widowx"), gripper=Gripper(-1, 1)))
    assert not is_of_this_gym(replace(of_robot("widowx"), motion="absolute"))
    nano = make_agent("vlaser_nano")
    assert nano.convention.name == "simpler_widowx"  # type: ignore[attr-defined]
    assert type(nano).__name__ == "VlaserAgent"
    ablated = make_agent({"_target_": "vlaser_gym.agents.ablated.AblatedAgent", "image": "blank"})
    assert type(ablated).__name__ == "AblatedAgent"


def test_an_agent_that_is_handed_over_as_an_object_is_understood_too(tmp_path: Path) -> None:
    import vlaser_gym

    scored = vlaser_gym.evaluate(
        Foreign(), task="widowx_stack_cube", episodes=1, num_envs=1, video=0, report=False, run=str(tmp_path / "run")
    )
    assert scored.rates["widowx_stack_cube"].rate == 1.0


def test_environments_say_what_they_speak() -> None:
    env = SceneVectorEnv("widowx_stack_cube", observe=("proprio",))
    assert env.convention == of_robot("widowx")
    env.close()


class Foreign:
    """An expert that answers in another convention, computed here from the answers of the gym's own."""

    def __init__(self, convention: str = "openpi_libero") -> None:
        self.expert = make_agent("expert")
        self.convention = Convention.parse({"preset": convention, "control_hz": 5})
        self.observes = ("state", "proprio")

    def reset(self, lanes: np.ndarray, addresses: Sequence[Address]) -> None:
        self.expert.reset(lanes, addresses)
        self.base = np.array(get_setup(get_task(addresses[0].task).robot_setup).base_pose)

    def act(self, observations: Mapping[str, Any], lanes: np.ndarray) -> np.ndarray:
        ours = self.expert.act({"state": observations["state"]}, lanes)
        pose = observations["state"][:, :8]
        return Conversion(of_robot("widowx"), self.convention).actions(ours, Start.of(pose, self.base))


@pytest.mark.parametrize("convention", ["openpi_libero", "openvla", "openvla_oft"])
def test_an_expert_in_another_language_scores_the_same(tmp_path: Path, convention: str) -> None:
    rates = []
    for run, agent in (("own", ["agent=expert"]), ("foreign", [f"agent._target_={__name__}.Foreign"])):
        more = [] if run == "own" else [f"agent.convention={convention}"]
        base = ["task=widowx_stack_cube", "episodes=2", "num_envs=2", "video=0", "report=false"]
        settings = EvalSettings.from_config(cli.load("eval", [*base, *agent, *more, f"run={tmp_path / run}"]))
        evaluate(settings)
        lines = (tmp_path / run / "episodes.jsonl").read_text().splitlines()
        rates.append(sum(json.loads(line)["success"] for line in lines))
    assert rates[0] == rates[1] == 2


# ---------------------------------------------------------------------- over the wire


def test_a_server_that_answers_in_plus_minus_one_is_refused_or_unnormalised() -> None:
    normalised = Speaks(None, np.full((4, 7), 0.9))
    with served(normalised) as url:
        server_says_nothing = RemoteAgent(url)
        server_says_nothing._doubts = True  # as of another project's
        server_says_nothing.reset(LANES, PLACES)
        with pytest.raises(
            RemoteError, match=r"median of 1\.6 m, as if they were normalised: say .*agent\.convention="
        ):
            server_says_nothing.act(shown(), LANES)
        remote = {"_target_": "vlaser_gym.agents.remote.RemoteAgent", "url": url}
        agent = make_agent({**remote, "convention": {"preset": "openpi_libero", "control_hz": 5, "state": {}}})
        agent.reset(LANES, PLACES)
        moved = agent.act(shown(), LANES)
        # 0.9 of 0.05 m, the base frame turned by half a turn; 0.9 of closing.
        np.testing.assert_allclose(moved[0, 0, :3], [-0.045, -0.045, 0.045], atol=1e-12)
        np.testing.assert_allclose(moved[0, 0, 6], -0.9, atol=1e-12)


def test_a_server_s_own_word_is_taken() -> None:
    """What a server of this gym declares of a foreign agent reaches the client, which converts it."""
    with served(Speaks("openvla", [[0.01, 0, 0, 0, 0, 0, 0.0]])) as url:
        agent = make_agent({"_target_": "vlaser_gym.agents.remote.RemoteAgent", "url": url})
        assert isinstance(agent, ConvertedAgent)
        assert agent.spoken.name == "openvla"
        agent.reset(LANES, PLACES)
        assert agent.act(shown(), LANES)[0, 0].tolist() == [0.01, 0, 0, 0, 0, 0, -1]
    with served(Speaks()) as url:
        assert RemoteAgent(url).metadata["convention"] is None


def test_a_libero_client_is_told_so_or_served() -> None:
    libero = np.array([0.1, 0.2, 1.0, 3.1, 0.0, 0.1, 0.03, -0.03], np.float32)
    assert not looks_like_ours(libero)
    assert looks_like_ours(POSE[0])
    mine = Speaks(None, [[0.01, 0, 0.02, 0, 0, 0.1, 1.0]])
    seen = {"image": np.zeros((1, 4, 4, 3), np.uint8), "proprio": libero[None], "instruction": ("a",)}
    with served(mine) as url:
        client = RemoteAgent(url)
        client.reset(LANES[:1], PLACES[:1])
        with pytest.raises(RemoteError, match=r"unit quaternion.*length 3\.1.*serve with convention=openpi_libero"):
            client.act(seen, LANES[:1])
    options = {"convention": get_preset("openpi_libero"), "robot": "widowx"}
    with served(mine, **options) as url:
        client = RemoteAgent(url)
        assert client.metadata["convention"]["name"] == "openpi_libero"
        client.reset(LANES[:1], PLACES[:1])
        chunk = client.act(seen, LANES[:1])
        # 0.01 m are a fifth of 0.05 m, 0.1 rad a fifth of 0.5 rad; the gripper opens at -1.
        np.testing.assert_allclose(chunk[0, 0], [0.2, 0, 0.4, 0, 0, 0.2, -1], atol=1e-6)
    read = mine.seen[-1]["proprio"][0]
    np.testing.assert_allclose(read[[0, 1, 2, 7]], [0.1, 0.2, 1.0, 0.75], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(read[3:7]), 1, atol=1e-6)


def test_a_client_of_another_convention_needs_a_robot() -> None:
    with pytest.raises(InvalidConfigError, match="need to know whose numbers"):
        ConvertedClient(Speaks(), get_preset("openpi_libero"))
    with pytest.raises(InvalidConfigError, match="kinematics"):
        ConvertedClient(Speaks(), get_preset("so100"), "widowx")


@pytest.mark.parametrize("told", [7, {"rotation": "sideways"}, {"gripper": 3}, ["openvla"], {"name": ["x"]}])
def test_what_a_stranger_calls_a_convention_is_one_sentence(told: Any) -> None:
    agent = object.__new__(RemoteAgent)
    agent.url, agent.metadata, agent._language = "ws://x", {"convention": told}, language("openpi")
    with pytest.raises(RemoteError, match=r"names a convention that cannot be read.*agent\.convention=") as caught:
        agent._convention(None)
    assert "\n" not in str(caught.value)
