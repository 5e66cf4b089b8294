"""What is executed of a policy's chunks: by hand, and against what the original adapters and their loop sent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from vlaser_gym.agents.vlaser.agent import VlaserAgent
from vlaser_gym.agents.vlaser.commands import executed_actions
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.gripper import make_gripper
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import SHORT_TEMPLATE, Processor
from vlaser_gym.agents.vlaser.tokenizer import ByteTokenizer
from vlaser_gym.agents.vlaser.trainable import TrainableVlaser
from vlaser_gym.envs.address import Address
from vlaser_gym.training.environments import LearningEnv

EXECUTED = {"widowx": 4, "google_robot": 2}
TASKS = {"widowx": "widowx_stack_cube", "google_robot": "google_robot_pick_coke_can"}


def parts(robot: str) -> tuple[VlaserConfig, Processor]:
    """A small policy's, with the statistics of the robot's data set."""
    config = VlaserConfig.preset("nano", robot)
    return config, Processor.build(config, ByteTokenizer(), template=SHORT_TEMPLATE)


def observations(lanes: int) -> dict[str, object]:
    return {
        "image": np.zeros((lanes, 48, 64, 3), np.uint8),
        "proprio": np.tile([0.3, 0, 0.1, 1, 0, 0, 0, 0.5], (lanes, 1)).astype(np.float32),
        "instruction": ("pick a can",) * lanes,
    }


def by_the_agent(robot: str, chunks: np.ndarray) -> np.ndarray:
    """Commands ``[E, D, act_steps, 7]`` of an agent whose policy answers ``chunks [E, D, H, 7]``."""
    config, processor = parts(robot)
    agent = VlaserAgent(VlaserPolicy.initialise(config), processor)
    lanes = np.arange(len(chunks))
    agent.reset(lanes, [Address(TASKS[robot], layout=int(lane)) for lane in lanes])
    executed = []
    for decision in range(chunks.shape[1]):
        agent.decide = lambda *_, answer=chunks[:, decision], clamp: torch.from_numpy(answer)
        executed.append(agent.act(observations(len(lanes)), lanes))
    return np.stack(executed, axis=1)


class EndlessLanes(VectorEnv):
    """Environments that keep what they are sent, and whose episodes never end."""

    def __init__(self, num_envs: int) -> None:
        self.num_envs, self.sent = num_envs, []
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_action_space = spaces.Box(-1, 1, (7,), np.float32)
        self.single_observation_space = spaces.Dict()

    def reset(self, **_):
        return observations(self.num_envs), {}

    def step_chunk(self, actions: np.ndarray):
        self.sent.append(actions.copy())
        no = np.zeros(self.num_envs, bool)
        ran = np.ones(actions.shape[:2], bool)
        info = {"success": no, "chunk": {"ran": ran, "reward": ran * 0.0}}
        return observations(self.num_envs), ran.sum(1) * 0.0, no, no, info


def by_the_learners_environments(robot: str, chunks: np.ndarray) -> np.ndarray:
    """The same of the environments that PPO and GRPO learn in."""
    config, processor = parts(robot)
    lanes = EndlessLanes(len(chunks))
    env = LearningEnv(lanes, TrainableVlaser(VlaserPolicy.initialise(config), processor), gamma=1.0)
    env.reset(0)
    for decision in range(chunks.shape[1]):
        env.step(chunks[:, decision])
    return np.stack(lanes.sent, axis=1)


def predicted(openness: np.ndarray) -> np.ndarray:
    """Chunks ``[1, D, 4, 7]`` that differ in the gripper only."""
    chunks = np.zeros((1, *openness.shape, 7), np.float32)
    chunks[0, ..., 6] = openness
    return chunks


PATHS = pytest.mark.parametrize("execute", [by_the_agent, by_the_learners_environments])


@PATHS
def test_the_hold_counts_actions_that_are_predicted_and_never_sent(execute) -> None:
    """Only the fourth action of the fourth decision says close: the sixteenth, where the first hold has just ended.

    It is never sent itself, but it begins a hold of fifteen: actions 16 to 30, of which decisions 4 to 7 send the first
    two each. Then the policy's "open" comes through again.
    """
    openness = np.ones((10, 4))
    openness[3, 3] = 0.0
    executed = execute("google_robot", predicted(openness))
    assert executed.shape == (1, 10, 2, 7)
    assert executed[0, :, :, 6].ravel().tolist() == [-1.0] * 8 + [1.0] * 8 + [-1.0] * 4


@PATHS
def test_weak_commands_pass_where_no_hold_runs(execute) -> None:
    executed = execute("google_robot", predicted(np.array([[0.4, 0.6, 0.5, 0.9], [0.4, 0.4, 0.4, 0.4]])))
    np.testing.assert_allclose(executed[0, :, :, 6], [[0.2, -0.2], [-0.8, -0.8]], atol=1e-6)


@PATHS
def test_widowx_sends_all_four_and_has_no_memory(execute) -> None:
    openness = np.array([[1.0, 0.0, 0.51, 0.5], [0.0, 1.0, -1.0, 0.9]])
    executed = execute("widowx", predicted(openness))
    assert executed[0, :, :, 6].tolist() == [[1, -1, 1, -1], [-1, 1, -1, 1]]


@pytest.mark.golden
@PATHS
@pytest.mark.parametrize("robot", ["widowx", "google_robot"])
def test_what_the_original_adapters_and_loop_sent(shared: Path, robot: str, execute) -> None:
    """4 episodes of 60 random decisions of each robot, with the published statistics."""
    recorded = np.load(shared / "golden" / "vlaser_adapter" / "postprocess.npz")
    executed, expected = execute(robot, recorded[f"{robot}_chunks"]), recorded[f"{robot}_executed"]
    assert executed.shape == expected.shape == (4, 60, EXECUTED[robot], 7)
    np.testing.assert_allclose(executed[..., :6], expected[..., :6], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(executed[..., 6], expected[..., 6])


def test_all_predicted_actions_come_out_where_all_are_executed() -> None:
    """Executing more changes no command that was executed before."""
    rng = np.random.default_rng(0)
    _, processor = parts("google_robot")
    chunks, lanes = rng.uniform(-1.2, 1.2, (30, 2, 4, 7)), np.arange(2)
    out = {}
    for act_steps in (1, 2, 4):
        gripper = make_gripper("google_robot")
        gripper.reset(lanes)
        out[act_steps] = np.stack([executed_actions(chunk, processor, gripper, lanes, act_steps) for chunk in chunks])
    np.testing.assert_array_equal(out[1], out[4][:, :, :1])
    np.testing.assert_array_equal(out[2], out[4][:, :, :2])
