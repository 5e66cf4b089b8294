"""The whole path from observations to commands, with the small model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vlaser_gym.agents import Agent, make_agent
from vlaser_gym.agents.vlaser.agent import VlaserAgent
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import SHORT_TEMPLATE, Processor
from vlaser_gym.agents.vlaser.rotation import axis_angle_from_euler
from vlaser_gym.agents.vlaser.statistics import BRIDGE, FRACTAL
from vlaser_gym.agents.vlaser.tokenizer import ByteTokenizer
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError

INSTRUCTIONS = ("put carrot on plate", "stack the green block on the yellow block", "put the spoon on the towel")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def policies() -> dict[str, VlaserPolicy]:
    return {robot: VlaserPolicy.initialise(VlaserConfig.preset("nano", robot)) for robot in ("widowx", "google_robot")}


@pytest.fixture(scope="module")
def make(policies: dict[str, VlaserPolicy]):
    def build(robot: str = "widowx", **options: object) -> VlaserAgent:
        policy = policies[robot]
        processor = Processor.build(policy.config, ByteTokenizer(), template=SHORT_TEMPLATE)
        return VlaserAgent(policy, processor, **options)  # type: ignore[arg-type]

    return build


def address(episode: int, robot: str = "widowx") -> Address:
    return Address("widowx_stack_cube" if robot == "widowx" else "google_robot_pick_coke_can", layout=f"grid:{episode}")


def observation(episode: int, step: int) -> dict[str, object]:
    """What an episode shows at a step: depends on these two alone."""
    rng = np.random.default_rng([episode, step])
    return {
        "image": rng.integers(0, 256, (48, 64, 3), np.uint8),
        "proprio": rng.uniform(0.1, 0.5, 8).astype(np.float32),
        "instruction": INSTRUCTIONS[(episode + step) % 3],
    }


def batch(rows: list[dict[str, object]]) -> dict[str, object]:
    return {
        "image": np.stack([row["image"] for row in rows]),
        "proprio": np.stack([row["proprio"] for row in rows]),
        "instruction": tuple(row["instruction"] for row in rows),
    }


def roll_out(agent: VlaserAgent, episodes: list[int], lanes: list[int], robot: str, steps: int = 3) -> np.ndarray:
    """Actions ``[episodes, steps, H, 7]`` of episodes that run together on some lanes."""
    agent.reset(np.array(lanes), [address(episode, robot) for episode in episodes])
    chunks = [
        agent.act(batch([observation(episode, step) for episode in episodes]), np.array(lanes)) for step in range(steps)
    ]
    return np.stack(chunks, axis=1)


class TestLanes:
    @pytest.mark.parametrize("robot", ["widowx", "google_robot"])
    def test_actions_are_bit_equal_for_1_3_and_8_lanes_in_any_order(self, make, robot: str) -> None:
        expected = roll_out(make(robot), list(range(8)), list(range(8)), robot)
        assert len(np.unique(expected.reshape(8, -1), axis=0)) == 8
        order = [5, 2, 7, 0, 1, 6, 4, 3]
        np.testing.assert_array_equal(roll_out(make(robot), order, list(range(8)), robot), expected[order])
        np.testing.assert_array_equal(roll_out(make(robot), list(range(8)), order, robot), expected)
        np.testing.assert_array_equal(roll_out(make(robot), [6, 1, 3], [9, 0, 4], robot), expected[[6, 1, 3]])
        for episode in (0, 5):
            np.testing.assert_array_equal(roll_out(make(robot), [episode], [2], robot), expected[[episode]])

    def test_nine_lanes_need_two_batches_and_agree(self, make) -> None:
        nine = roll_out(make(), list(range(9)), list(range(9)), "widowx")
        np.testing.assert_array_equal(nine[:8], roll_out(make(), list(range(8)), list(range(8)), "widowx"))
        np.testing.assert_array_equal(nine[8:], roll_out(make(), [8], [0], "widowx"))

    def test_lanes_that_join_later_agree(self, make) -> None:
        agent = make()
        expected = roll_out(make(), [0, 1], [0, 1], "widowx")
        agent.reset(np.array([0]), [address(0)])
        first = agent.act(batch([observation(0, 0)]), np.array([0]))
        agent.reset(np.array([1]), [address(1)])
        both = agent.act(batch([observation(1, 0), observation(0, 1)]), np.array([1, 0]))
        np.testing.assert_array_equal(first[0], expected[0, 0])
        np.testing.assert_array_equal(both[0], expected[1, 0])
        np.testing.assert_array_equal(both[1], expected[0, 1])

    def test_a_reset_lane_repeats_its_episode(self, make) -> None:
        agent = make("google_robot")
        first = roll_out(agent, [3], [0], "google_robot")
        np.testing.assert_array_equal(roll_out(agent, [3], [0], "google_robot"), first)

    def test_trials_differ_by_their_noise(self, make) -> None:
        agent = make()
        chunks = []
        for trial in range(2):
            agent.reset(np.array([0]), [Address("widowx_stack_cube", trial=trial)])
            chunks.append(agent.act(batch([observation(0, 0)]), np.array([0])))
        assert (chunks[0] != chunks[1]).any()

    def test_decisions_of_the_same_observation_differ_by_their_noise(self, make) -> None:
        agent = make()
        agent.reset(np.array([0]), [address(0)])
        a, b = (agent.act(batch([observation(0, 0)]), np.array([0])) for _ in range(2))
        assert (a[..., :6] != b[..., :6]).any()

    def test_instruction_is_read_at_every_decision(self, make) -> None:
        chunks = []
        for instruction in INSTRUCTIONS[:2]:
            agent = make()
            agent.reset(np.array([0]), [address(0)])
            agent.act(batch([observation(0, 0)]), np.array([0]))
            chunks.append(agent.act(batch([observation(0, 1) | {"instruction": instruction}]), np.array([0])))
        assert (chunks[0] != chunks[1]).any()

    def test_snapshot_continues_bit_equal(self, make) -> None:
        agent, lanes = make("google_robot"), np.arange(3)
        roll_out(agent, [0, 1, 2], [0, 1, 2], "google_robot")
        state = agent.get_state()
        rows = batch([observation(episode, 3) for episode in range(3)])
        expected = [agent.act(rows, lanes) for _ in range(8)]
        other = make("google_robot")
        for restored in (other, agent):
            restored.set_state(state)
            for chunk in expected:
                np.testing.assert_array_equal(restored.act(rows, lanes), chunk)


class TestActions:
    def chunk(self, make, normalised: np.ndarray, robot: str, **options: object) -> np.ndarray:
        """The commands when the policy answers ``normalised``."""
        agent = make(robot, **options)
        agent.decide = lambda *_: torch.from_numpy(normalised)
        agent.reset(np.array([0]), [address(0, robot)])
        return agent.act(batch([observation(0, 0)]), np.array([0]))[0]

    def test_widowx(self, make) -> None:
        normalised = np.linspace(-1, 1, 28, dtype=np.float32).reshape(1, 4, 7)
        chunk = self.chunk(make, normalised, "widowx")
        low, high = np.array(BRIDGE.action.p01)[:6], np.array(BRIDGE.action.p99)[:6]
        arm = (normalised[0, :, :6].astype(float) + 1) / 2 * (high - low) + low
        np.testing.assert_allclose(chunk[:, :3], arm[:, :3], atol=1e-12)
        np.testing.assert_allclose(chunk[:, 3:6], axis_angle_from_euler(arm[:, 3:]), atol=1e-12)
        np.testing.assert_array_equal(chunk[:, 6], [-1, -1, -1, 1])
        assert chunk.shape == (4, 7)
        assert chunk.dtype == np.float64

    def test_google_robot(self, make) -> None:
        normalised = np.zeros((1, 4, 7), np.float32)
        normalised[0, :, 6] = [0.1, 1.0, 1.0, 1.0]
        chunk = self.chunk(make, normalised, "google_robot")
        assert chunk.shape == (2, 7)
        np.testing.assert_allclose(chunk[:, :3], [FRACTAL.denormalize_action(np.zeros(7))[:3]] * 2, atol=1e-12)
        np.testing.assert_allclose(chunk[:, 6], [0.8, 0.8], atol=1e-6)

    def test_hold_counts_executed_steps_only(self, make) -> None:
        """15 control steps are 7.5 chunks of 2, although each chunk predicts 4."""
        agent = make("google_robot")
        agent.reset(np.array([0]), [address(0, "google_robot")])
        commands = []
        for decision in range(9):
            normalised = torch.zeros(1, 4, 7)
            normalised[..., 6] = 1.0 if decision == 0 else 0.0
            agent.decide = lambda *_, answer=normalised: answer
            commands += agent.act(batch([observation(0, 0)]), np.array([0]))[0, :, 6].tolist()
        assert commands == [-1.0] * 15 + [1.0] * 3

    def test_act_steps(self, make) -> None:
        normalised = np.zeros((1, 4, 7), np.float32)
        assert self.chunk(make, normalised, "widowx", act_steps=1).shape == (1, 7)
        for wrong in (0, 5):
            with pytest.raises(InvalidConfigError, match="act_steps is 1 to 4"):
                make(act_steps=wrong)

    def test_actions_stay_within_the_data_bounds(self, make) -> None:
        chunks = roll_out(make(), list(range(8)), list(range(8)), "widowx")
        low, high = np.array(BRIDGE.action.p01)[:3], np.array(BRIDGE.action.p99)[:3]
        assert (chunks[..., :3] >= low - 1e-9).all()
        assert (chunks[..., :3] <= high + 1e-9).all()


def test_the_other_robots_task_is_refused(make) -> None:
    with pytest.raises(InvalidConfigError, match=r"for google_robot \(8 .*; widowx_stack_cube is a task of widowx"):
        make("google_robot").reset(np.array([0]), [address(0, "widowx")])
    make("google_robot").reset(np.array([0]), [Address("my_own_task")])


def test_nano_from_its_config() -> None:
    agent = make_agent("vlaser_nano")
    assert isinstance(agent, Agent)
    assert agent.observes == ("image", "proprio", "instruction")
    chunk = roll_out(agent, [0, 1], [0, 1], "widowx", steps=1)
    assert chunk.shape == (2, 1, 4, 7)
    again = roll_out(make_agent("vlaser_nano"), [0, 1], [0, 1], "widowx", steps=1)
    np.testing.assert_array_equal(chunk, again)
    described = agent.describe()
    assert {
        "robot": "widowx",
        "act_steps": 4,
        "time_max_period": 100.0,
        "checkpoint": None,
    }.items() <= described.items()


def test_nano_weights_follow_the_seed() -> None:
    config = {"_target_": "vlaser_gym.agents.vlaser.agent.nano_agent", "robot": "google_robot"}
    chunks = [roll_out(make_agent({**config, "seed": seed}), [0], [0], "google_robot", steps=1) for seed in (0, 1)]
    assert chunks[0].shape == (1, 1, 2, 7)
    assert (chunks[0] != chunks[1]).any()
