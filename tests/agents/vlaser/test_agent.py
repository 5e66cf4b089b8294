"""The whole path from observations to commands, with the small model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from fabricate_vlm import SPECIAL_IDS, VOCAB_SIZE, write_tokenizer, write_vlm
from scipy.spatial.transform import Rotation

from vlaser_gym.agents import Agent, make_agent
from vlaser_gym.agents.vlaser.agent import VlaserAgent, load_agent, nano_agent, nano_processor
from vlaser_gym.agents.vlaser.checkpoint import CheckpointError, released_state, save_pretrained
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.exploration import load_exploring_agent
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import SHORT_TEMPLATE, Processor
from vlaser_gym.agents.vlaser.statistics import BRIDGE, FRACTAL
from vlaser_gym.agents.vlaser.tokenizer import ByteTokenizer, QwenTokenizer
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError, MissingAssetError

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
    """Actions ``[episodes, steps, H, 7]`` of episodes that run together on some environments."""
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
        agent.decide = lambda *_, clamp: torch.from_numpy(normalised)
        agent.reset(np.array([0]), [address(0, robot)])
        return agent.act(batch([observation(0, 0)]), np.array([0]))[0]

    def test_widowx(self, make) -> None:
        normalised = np.linspace(-1, 1, 28, dtype=np.float32).reshape(1, 4, 7)
        chunk = self.chunk(make, normalised, "widowx")
        low, high = np.array(BRIDGE.action.p01)[:6], np.array(BRIDGE.action.p99)[:6]
        arm = (normalised[0, :, :6].astype(float) + 1) / 2 * (high - low) + low
        np.testing.assert_allclose(chunk[:, :3], arm[:, :3], atol=1e-12)
        np.testing.assert_allclose(chunk[:, 3:6], Rotation.from_euler("xyz", arm[:, 3:]).as_rotvec(), atol=1e-12)
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
    assert {"robot": "widowx", "act_steps": 4, "time_max_period": 100.0}.items() <= described.items()
    assert described["checkpoint"] is not None, "the weights in the package"


def test_nano_weights_follow_the_seed() -> None:
    config = {"_target_": "vlaser_gym.agents.vlaser.agent.nano_agent", "robot": "google_robot"}
    chunks = [roll_out(make_agent({**config, "seed": seed}), [0], [0], "google_robot", steps=1) for seed in (0, 1)]
    assert chunks[0].shape == (1, 1, 2, 7)
    assert (chunks[0] != chunks[1]).any()


#: What the file cannot hold: the small tokenizer's ids, and the head count that the toy's width does not tell.
SETTINGS = {
    "vision_heads": 2,
    "image_token_id": SPECIAL_IDS["<IMG_CONTEXT>"],
    "pad_id": SPECIAL_IDS["<|endoftext|>"],
}


class TestCheckpoints:
    """``load_agent`` with the released layout at toy size, a small tokenizer of the real one's kind, and our folder."""

    @pytest.fixture
    def released(self, tmp_path: Path) -> tuple[Path, VlaserPolicy]:
        """A file for Google Robot as the original's trainer writes it, its tokenizer beside it."""
        config = VlaserConfig.preset("toy", "google_robot", vocab_size=VOCAB_SIZE, **SETTINGS)
        policy = VlaserPolicy.initialise(config, seed=3)
        torch.save({"model": released_state(policy)[0]}, tmp_path / "step100.pt")
        write_tokenizer(tmp_path)
        return tmp_path / "step100.pt", policy

    def test_released_file_drives_the_agent(self, released: tuple[Path, VlaserPolicy]) -> None:
        file, policy = released
        config = {"_target_": "vlaser_gym.agents.vlaser.agent.load_agent", "checkpoint": str(file)}
        config |= {"settings": SETTINGS, "device": "cpu", "micro_batch": 2}
        with pytest.warns(
            UserWarning, match=r"says nothing of its statistics and gets those of fractal, .*=fractal says"
        ):
            assert make_agent(config).processor.statistics == FRACTAL  # type: ignore[attr-defined]
        agent = make_agent({**config, "statistics": "fractal"})
        processor = Processor.build(policy.config, QwenTokenizer(file.parent))
        expected = roll_out(VlaserAgent(policy, processor, micro_batch=2), [0, 1], [0, 1], "google_robot")
        assert expected.shape == (2, 3, 2, 7)
        np.testing.assert_array_equal(roll_out(agent, [0, 1], [0, 1], "google_robot"), expected)
        described = agent.describe()
        assert described["checkpoint"] == str(file)
        assert described["robot"] == "google_robot"
        assert (described["time_max_period"], described["act_steps"], described["num_flow_steps"]) == (100.0, 2, 10)

    def test_settings_that_the_file_cannot_hold(self, released: tuple[Path, VlaserPolicy]) -> None:
        def agent(**options: object) -> VlaserAgent:
            known = {"device": "cpu", "micro_batch": 1, "statistics": "fractal"}
            return load_agent(str(released[0]), **{**known, **options})  # type: ignore[arg-type]

        usual = roll_out(agent(settings=SETTINGS), [0], [0], "google_robot", steps=1)
        other = agent(settings={**SETTINGS, "time_max_period": 10_000.0})
        assert other.describe()["time_max_period"] == 10_000.0
        assert (roll_out(other, [0], [0], "google_robot", steps=1) != usual).any()
        wrapped = agent(settings=SETTINGS, prompt_wrap="The task is to {instruction}, now.")
        assert (roll_out(wrapped, [0], [0], "google_robot", steps=1) != usual).any()
        few = agent(settings=SETTINGS, num_flow_steps=2, act_steps=4)
        assert roll_out(few, [0], [0], "google_robot", steps=1).shape == (1, 1, 4, 7)

    def test_folder_round_trip(self, tmp_path: Path) -> None:
        config = VlaserConfig.preset("nano", "google_robot", max_length=96)
        policy = VlaserPolicy.initialise(config, seed=5)
        processor = Processor.build(
            config, ByteTokenizer(), template=SHORT_TEMPLATE, wrap="please {instruction}", resize="area"
        )
        save_pretrained(policy, tmp_path)
        processor.save(tmp_path)
        agent = make_agent({"_target_": "vlaser_gym.agents.vlaser.agent.nano_agent", "checkpoint": str(tmp_path)})
        loaded = agent.processor
        assert (loaded.robot, loaded.statistics, loaded.resize) == ("google_robot", FRACTAL, processor.resize)
        assert isinstance(loaded.prompt.tokenizer, ByteTokenizer)
        assert (loaded.prompt.template, loaded.prompt.wrap) == (SHORT_TEMPLATE, "please {instruction}")
        expected = roll_out(VlaserAgent(policy, processor), [0, 1], [0, 1], "google_robot")
        np.testing.assert_array_equal(roll_out(agent, [0, 1], [0, 1], "google_robot"), expected)

    def test_folder_with_its_own_statistics_and_tokenizer(self, tmp_path: Path) -> None:
        config = VlaserConfig.preset("nano", vocab_size=VOCAB_SIZE, max_length=96, **SETTINGS)
        write_tokenizer(tmp_path)
        mine = dataclasses.replace(BRIDGE, num_trajectories=7)
        processor = Processor.build(config, QwenTokenizer(tmp_path), statistics=mine)
        folder = tmp_path / "checkpoint"
        save_pretrained(VlaserPolicy.initialise(config), folder)
        processor.save(folder)
        agent = load_agent(str(folder), device="cpu")
        assert agent.processor.statistics == mine
        prompt = agent.processor.prompt
        np.testing.assert_array_equal(prompt.ids("pick a can"), processor.prompt.ids("pick a can"))

    @pytest.mark.golden
    def test_released_file_with_the_real_tokenizer(self, shared: Path, tmp_path: Path) -> None:
        policy = VlaserPolicy.initialise(VlaserConfig.preset("toy"), seed=1)
        torch.save({"model": released_state(policy)[0]}, tmp_path / "step1.pt")
        agent = load_agent(
            str(tmp_path / "step1.pt"),
            statistics="bridge",
            tokenizer=str(shared / "assets" / "internvl3_tokenizer"),
            device="cpu",
            micro_batch=2,
        )
        assert agent.robot == "widowx"
        assert agent.describe()["time_max_period"] == 10_000.0
        chunks = roll_out(agent, [0, 1], [0, 1], "widowx", steps=2)
        assert chunks.shape == (2, 2, 4, 7)
        assert np.isfinite(chunks).all()
        alone = roll_out(agent, [1], [5], "widowx", steps=2)
        np.testing.assert_array_equal(alone[0], chunks[1])

    def test_refusals(self, released: tuple[Path, VlaserPolicy], tmp_path: Path) -> None:
        file = str(released[0])
        with pytest.raises(InvalidConfigError, match=r"has none for aloha .*give checkpoint=FOLDER"):
            load_agent(robot="aloha")
        with pytest.raises(CheckpointError, match="for widowx"):
            load_agent(file, robot="widowx", device="cpu")
        with pytest.raises(InvalidConfigError, match="padding and image tokens"):
            load_agent(file, tokenizer="bytes", statistics="fractal", settings=SETTINGS, device="cpu")
        with pytest.raises(InvalidConfigError, match="device is one of"):
            load_agent(file, device="gpu0")
        (tmp_path / "vocab.json").unlink()
        with pytest.raises(MissingAssetError, match=r"agent\.tokenizer=FOLDER"):
            load_agent(file, statistics="fractal", settings=SETTINGS, device="cpu")

    def test_a_policy_without_its_statistics_is_refused(self, tmp_path: Path) -> None:
        """Bridge's were taken without a word: every action had another size."""
        config = VlaserConfig.preset("nano")
        folder = tmp_path / "policy"
        save_pretrained(VlaserPolicy.initialise(config), folder)
        nano_processor(config, dataclasses.replace(BRIDGE, num_trajectories=7)).save(folder)
        (folder / "statistics.json").rename(tmp_path / "mine.json")
        for make in (load_agent, nano_agent, load_exploring_agent):
            with pytest.raises(MissingAssetError, match=r"without statistics\.json.*agent\.statistics=FILE") as caught:
                make(str(folder))
            assert "\n" not in str(caught.value)
        assert load_agent(str(folder), statistics="bridge", device="cpu").processor.statistics == BRIDGE
        mine = load_agent(str(folder), statistics=str(tmp_path / "mine.json"), device="cpu")
        assert mine.processor.statistics.num_trajectories == 7

    def test_a_talking_model_cannot_act(self, tmp_path: Path) -> None:
        write_vlm(tmp_path)
        with pytest.raises(InvalidConfigError, match="without an action expert"):
            load_agent(str(tmp_path), settings={**SETTINGS, "patch_size": 14, "image_size": 56}, device="cpu")
