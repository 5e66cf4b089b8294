from __future__ import annotations

import json

import numpy as np
import pytest
from pyarrow import parquet

from vlaser_gym.agents import make_agent, roll_in
from vlaser_gym.agents.roll_in import RollInAgent
from vlaser_gym.agents.scripted import ScriptedExpert
from vlaser_gym.cli import load
from vlaser_gym.commands.collect import main
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import InvalidConfigError

PICK, APPLE = "google_robot_pick_horizontal_coke_can", "google_robot_place_apple_in_closed_top_drawer"


class Waiting:
    """Decides three steps at a time, to stay; notes which environments it decided for."""

    observes = ("proprio",)

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def reset(self, lanes, addresses) -> None:
        pass

    def act(self, observations, lanes):
        assert len(observations["proprio"]) == len(observations["instruction"]) == len(lanes)
        self.asked.append(lanes.tolist())
        return np.zeros((len(lanes), 3, 7))


def play(agent, task, layouts, steps):
    """Actions ``[T, N, 7]``, what was taught ``[T, N]``, and success at the last step ``[N]``."""
    env = SceneVectorEnv(task, len(layouts), observe=(*agent.observes, "instruction"), engine_options={"threads": 1})
    observation, _ = env.reset(options={"layout": layouts})
    lanes, acted, taught = np.arange(len(layouts)), [], []
    agent.reset(lanes, env.addresses)
    for _ in range(steps):
        actions = agent.act(observation, lanes)
        acted.append(actions[:, 0])
        taught.append(agent.teaches(lanes))
        env.advance_to_next_subtask(np.flatnonzero(agent.subtask_done(lanes)))
        observation, *_, info = env.step_chunk(actions)
    env.close()
    return np.array(acted), np.array(taught), np.asarray(info["success"], bool)


def test_each_episode_is_the_policys_for_as_many_steps_as_were_drawn_and_then_the_experts(monkeypatch) -> None:
    """Twenty episodes draw different numbers between the bounds, the same again for the same addresses."""
    policy = Waiting()
    monkeypatch.setattr(roll_in, "make_agent", lambda config: policy)
    addresses = [Address(PICK, layout=f"region2:{k}") for k in range(20)]
    lanes = np.arange(20)
    drawn = []
    for _ in range(2):
        policy.asked.clear()
        agent = RollInAgent("random", steps=[2, 9])
        agent.reset(lanes, addresses)
        seen = {"proprio": np.zeros((20, 8)), "state": np.tile(STATE, (20, 1)), "instruction": ("pick",) * 20}
        taught = []
        for _ in range(12):
            moved = np.abs(agent.act(seen, lanes)[:, 0, :3]).sum(-1) > 0
            taught.append(agent.teaches(lanes))
            np.testing.assert_array_equal(moved, taught[-1])
            np.testing.assert_array_equal(agent.intended(lanes)[~taught[-1]], 0)
        drawn.append((~np.array(taught)).sum(0))
    np.testing.assert_array_equal(*drawn)
    assert set(drawn[0]) <= set(range(2, 10))
    assert len(set(drawn[0])) > 4
    assert not (np.diff(np.array(taught).astype(int), axis=0) < 0).any(), "the policy never comes back"
    asked = np.bincount(np.concatenate(policy.asked), minlength=20)
    np.testing.assert_array_equal(asked, -(-drawn[0] // 3))


#: A gripper 30 cm over the can, seen from the robot's base; the fields of :data:`vlaser_gym.envs.vector.STATE_FIELDS`.
STATE = np.array([0.5, 0, 1.1, 0, 1, 0, 0, 1, 0.6, 0, 0.8, 1, 0, 0, 0, 0.6, 0, 0.8, 1, 0, 0, 0, 0, 0, 0, 0.0])


@pytest.mark.parametrize("steps", [8, 14, 17, 20, 23, 30])
def test_the_expert_goes_on_from_any_part_of_the_way(steps: int) -> None:
    """Over the can, coming down, closing, closed, lifting or done: what another expert began comes to its end."""
    agent = RollInAgent("expert", steps=[steps, steps])
    acted, taught, success = play(agent, PICK, [f"region2:{7_000_000 + k}" for k in range(4)], 60)
    assert (taught.sum(0) == 60 - steps).all()
    assert success.all()
    assert (acted[-1, :, 6] > 0).all()


def test_fingers_that_hold_the_can_are_not_opened_again() -> None:
    layouts = [f"region2:{7_000_000 + k}" for k in range(4)]
    alone, _, _ = play(ScriptedExpert(), PICK, layouts, 60)
    closing = int((alone[..., 6] > 0).any(-1).argmax()) + 3
    acted, _, _ = play(RollInAgent("expert", steps=[closing + 3] * 2), PICK, layouts, 60)
    assert (acted[closing + 3 :, :, 6] >= 0).all()


def test_a_drawer_that_is_open_already_is_not_opened_again() -> None:
    """From the hundredth step on it fetches the apple at once, from behind the front or from above it."""
    layouts = [f"region2:{7_000_000 + k}" for k in range(2)]
    acted, _, success = play(RollInAgent("expert", steps=[70, 70]), APPLE, layouts, 190)
    assert success.all()
    ordinary, _, _ = play(ScriptedExpert(), APPLE, layouts, 70)
    pulled = (ordinary[..., 6] > 0).all(-1)
    assert pulled.sum() > 10, "closed fingers are told to close all the while that they pull"
    assert (acted[70:, :, 6] > 0).sum(0).max() <= 12, "the fingers close around the apple only"


@pytest.mark.parametrize("steps", [[5, 2], [-1, 3], [4], 4])
def test_bounds_that_are_none_are_refused(steps: list[int] | int) -> None:
    with pytest.raises(InvalidConfigError, match=r"as in \[2,40\]; got"):
        RollInAgent("expert", steps=steps)


def test_the_widowx_is_refused() -> None:
    agent = make_agent({"_target_": "vlaser_gym.agents.roll_in.RollInAgent", "agent": "expert"})
    with pytest.raises(InvalidConfigError, match="record widowx_stack_cube with agent=expert"):
        agent.reset(np.arange(1), [Address("widowx_stack_cube", layout=0)])


def test_only_what_the_expert_did_is_marked(tmp_path) -> None:
    """Collected by the command with the package's policy: every second row from the hand-over on, none before."""
    keys = [f"task={PICK}", "agent=roll_in", "agent.steps=[5,5]", "max_episode_steps=16", "episodes=2", "every=2"]
    rest = ["only_successful=false", "render=decisions", "image_size=120", "layouts=region2", f"output={tmp_path}"]
    main(load("collect", [*keys, *rest]))
    assert json.loads((tmp_path / "meta/collection.json").read_text())["agent"]["checkpoint"] == "nano-google"
    tables = [parquet.read_table(path) for path in sorted(tmp_path.glob("data/*/*.parquet"))]
    marked = np.concatenate([table["privileged.decision"].to_numpy() for table in tables])
    assert np.flatnonzero(marked.reshape(2, 16)[0]).tolist() == [6, 8, 10, 12, 14]
    assert (marked.reshape(2, 16)[0] == marked.reshape(2, 16)[1]).all()
