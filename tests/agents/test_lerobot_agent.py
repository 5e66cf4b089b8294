"""LeRobot's policies as agents, with a stand-in for LeRobot 0.6.1's surface; the real one has not run here."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any

import lerobot_stand_in
import numpy as np
import pytest

from vlaser_gym import cli
from vlaser_gym.agents import make_agent
from vlaser_gym.agents.lerobot import LeRobotAgent
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.evaluator import EvalSettings, evaluate

LANES = np.array([0, 1])
PLACES = [Address("widowx_stack_cube"), Address("widowx_stack_cube", trial=1)]


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    lerobot_stand_in.install(monkeypatch)


def seen(*first: float) -> dict[str, Any]:
    """Images of 12 x 16 pixels, brightness 51 in the first environment and 102 in the second."""
    images = np.stack([np.full((12, 16, 3), 51 * (row + 1), np.uint8) for row in range(len(first))])
    proprio = np.zeros((len(first), 8), np.float32)
    proprio[:, 0] = first
    return {"image": images, "proprio": proprio, "instruction": ("stack", "put spoon")[: len(first)]}


def test_a_chunk_goes_through_both_processors_and_is_cut_to_what_is_executed(tmp_path: Path) -> None:
    agent = LeRobotAgent(str(lerobot_stand_in.save(tmp_path / "act")))
    agent.reset(LANES, PLACES)
    chunk = agent.act(seen(1.0, 2.0), LANES)
    assert agent.observes == ("image", "proprio", "instruction")
    assert chunk.shape == (2, 2, 7)
    # The state is doubled before; then h is added; all is divided by ten. 51 of 255 are 0.2; 6 x 8 pixels.
    np.testing.assert_allclose(chunk[0, :, :5], [[0.2, 0.02, 0.6, 0.8, 0.5], [0.3, 0.02, 0.6, 0.8, 0.5]], atol=1e-6)
    np.testing.assert_allclose(chunk[1, :, :5], [[0.4, 0.04, 0.6, 0.8, 0.9], [0.5, 0.04, 0.6, 0.8, 0.9]], atol=1e-6)
    assert agent.describe() == {"checkpoint": str(tmp_path / "act"), "policy": "act", "act_steps": 2}


def test_noise_follows_from_the_episode_alone(tmp_path: Path) -> None:
    agent = LeRobotAgent(str(lerobot_stand_in.save(tmp_path / "act")), act_steps=1)
    agent.reset(LANES, PLACES)
    together = [agent.act(seen(1.0, 1.0), LANES)[:, 0, 5] for _ in range(2)]
    agent.reset(LANES[:1], PLACES[1:])
    alone = [agent.act(seen(1.0), LANES[:1])[0, 0, 5] for _ in range(2)]
    assert alone == [noise[1] for noise in together]
    assert len({*together[0], *together[1]}) == 4


def test_a_policy_that_remembers_is_asked_at_every_step_and_lanes_do_not_mix(tmp_path: Path) -> None:
    agent = LeRobotAgent(str(lerobot_stand_in.save(tmp_path / "diffusion", "diffusion")))
    agent.reset(LANES, PLACES)
    got = [agent.act(seen(1.0, 5.0), LANES)]
    agent.reset(LANES[1:], PLACES[1:])
    got += [agent.act(seen(2.0, 6.0), LANES), agent.act(seen(3.0, 7.0), LANES)]
    assert [chunk.shape for chunk in got] == [(2, 1, 7)] * 3
    # Environment 0 sees 2 (twice), then goes on with its second action, then decides from 4 and 6. Environment 1 began
    # anew.
    np.testing.assert_allclose([chunk[0, 0, :2] for chunk in got], [[0.4, 0.2], [0.5, 0.3], [1.0, 0.4]], atol=1e-6)
    np.testing.assert_allclose([chunk[1, 0, :2] for chunk in got], [[2.0, 1.0], [2.4, 1.2], [2.5, 1.3]], atol=1e-6)


def test_a_policy_that_plans_on_from_its_last_plan_is_asked_at_every_step_too(tmp_path: Path) -> None:
    """It reads one observation; its plans add up, environment by environment."""
    agent = LeRobotAgent(str(lerobot_stand_in.save(tmp_path / "tdmpc", "tdmpc")))
    agent.reset(LANES, PLACES)
    got = [agent.act(seen(1.0, 5.0), LANES), agent.act(seen(2.0, 6.0), LANES)]
    assert [chunk.shape for chunk in got] == [(2, 1, 7)] * 2
    np.testing.assert_allclose([chunk[:, 0, 0] for chunk in got], [[0.2, 1.0], [0.6, 2.2]], atol=1e-6)


def test_a_convention_says_what_its_numbers_are(tmp_path: Path) -> None:
    """Bridge's state has eight numbers too, of another meaning; the agent then reads those."""
    folder = lerobot_stand_in.save(tmp_path / "act")
    agent = make_agent(
        {"_target_": "vlaser_gym.agents.lerobot.LeRobotAgent", "checkpoint": str(folder), "convention": "bridge"}
    )
    agent.reset(LANES[:1], PLACES[:1])
    proprio = np.array([[0.25, 0.1, 0.2, 1, 0, 0, 0, 1]], np.float32)
    chunk = agent.act({**seen(0.0), "proprio": proprio}, LANES[:1])
    assert chunk[0, 0, 0] == pytest.approx((0.25 * 2) / 10, abs=1e-6)
    # The gripper's 0 is closed there, and -1 here.
    assert chunk[0, 0, 6] == -1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"state": 14}, "reads a state of (14,) numbers; it would be shown 8"),
        ({"kind": "act2"}, "Policy type 'act2' is not available"),
        ({"kind": "groot"}, "it cannot be loaded (ImportError: 'dm-tree' is required but not installed.)"),
        ({"use_peft": True}, "has adapters without their model"),
        (
            {"input_features": {f"observation.images.{n}": {"type": "VISUAL", "shape": [3, 4, 4]} for n in "ab"}},
            "say what it calls image, wrist_image and proprio by agent.keys",
        ),
        ({"input_features": {"observation.environment_state": {"type": "ENV", "shape": [4]}}}, "would not be given"),
    ],
)
def test_what_does_not_fit_is_said_before_the_first_episode(tmp_path: Path, changes: dict, said: str) -> None:
    folder = lerobot_stand_in.save(tmp_path / "policy", **changes)
    with pytest.raises(InvalidConfigError) as caught:
        LeRobotAgent(str(folder))
    assert said in str(caught.value)


def test_cameras_are_found_by_their_names_and_named_by_hand(tmp_path: Path) -> None:
    both = {f"observation.images.{name}": {"type": "VISUAL", "shape": [3, 4, 4]} for name in ("image", "wrist_image")}
    folder = lerobot_stand_in.save(
        tmp_path / "policy",
        input_features={**both, "observation.images.empty_camera_0": {"type": "VISUAL", "shape": [3, 4, 4]}},
    )
    agent = LeRobotAgent(str(folder))
    assert agent.keys == {"image": "observation.images.image", "wrist_image": "observation.images.wrist_image"}
    other = LeRobotAgent(
        str(folder), keys={"image": "observation.images.wrist_image", "wrist_image": "observation.images.image"}
    )
    assert other.keys["image"] == "observation.images.wrist_image"


def test_without_lerobot_one_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = lerobot_stand_in.save(tmp_path / "act")
    for name in [name for name in sys.modules if name.split(".")[0] == "lerobot"]:
        monkeypatch.delitem(sys.modules, name)
    imports = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == "lerobot":
            raise ImportError("No module named 'lerobot'")
        return imports(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        InvalidConfigError, match=r"needs LeRobot, which cannot be imported here .* constraints-lerobot"
    ):
        LeRobotAgent(str(folder))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::vlaser_gym.errors.GymWarning")  # the formula's actions are no metres
def test_eval_scores_it(tmp_path: Path) -> None:
    folder = lerobot_stand_in.save(tmp_path / "act")
    keys = ["agent=lerobot", f"agent.checkpoint={folder}", "task=widowx_stack_cube", "episodes=1", "num_envs=1"]
    evaluation = evaluate(EvalSettings.from_config(cli.load("eval", [*keys, f"run={tmp_path / 'run'}"])))
    (record,) = evaluation.store.sorted_records()
    assert (record["agent"], record["steps"], record["success"], record["error"]) == ("lerobot", 60, False, None)


def test_without_a_checkpoint_it_asks_for_one() -> None:
    """``checkpoint=`` of the command arrives after the agent's own keys are read, so that they need none."""
    assert cli.load("eval", ["agent=lerobot", "checkpoint=FOLDER"]).checkpoint == "FOLDER"
    with pytest.raises(InvalidConfigError, match="give checkpoint=FOLDER, or ORG/NAME"):
        make_agent("lerobot")
