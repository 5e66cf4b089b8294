from __future__ import annotations

import numpy as np
import pytest
from demonstrations import SIZE, fake_episode, tiny_config, write_set
from scipy.spatial.transform import Rotation

from vlaser_gym.agents.vlaser.agent import nano_processor
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import ResizeImage, robot_proprio
from vlaser_gym.agents.vlaser.trainable import TrainableVlaser
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.lerobot import LeRobotReader, LeRobotWriter
from vlaser_gym.training.data.demonstrations import Batches, Demonstrations, chunked


def agent_of(data, statistics=None) -> TrainableVlaser:
    config = tiny_config()
    return TrainableVlaser(VlaserPolicy.initialise(config), nano_processor(config, statistics or data.statistics()))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    paths = [write_set(folder / "a", 3, every=2), write_set(folder / "b", 4, every=2)]
    return Demonstrations([LeRobotReader(path) for path in paths], "widowx", 4, ResizeImage(SIZE, "area"))


def test_chunks_repeat_the_last_action_behind_the_end():
    labels = np.arange(3 * 2 * 7, dtype=float).reshape(3, 2, 7)
    got = chunked(labels, np.array([2, 2, 1]), 4)
    ran = [labels[0, 0], labels[0, 1], labels[1, 0], labels[1, 1], labels[2, 0]]
    expected = [[0, 1, 2, 3], [2, 3, 4, 4], [4, 4, 4, 4]]
    np.testing.assert_array_equal(got, [[ran[i] for i in row] for row in expected])


def test_rows_come_back_as_they_were_recorded(data):
    """Rows 0 to 14 are the first set's, then the second set begins again with the same first episode."""
    episodes = [fake_episode(n, 5 + n % 2, 2) for n in (0, 1, 2, 0, 1, 2, 3)]
    frames = np.concatenate([episode.frames for episode in episodes])
    np.testing.assert_array_equal(data.pixels(np.arange(len(data))), frames)
    shuffled = np.random.default_rng(0).permutation(len(data))
    np.testing.assert_array_equal(data.pixels(shuffled), frames[shuffled])
    assert [data.instructions[i] for i in data.instruction] == [text for e in episodes for text in e.instructions]
    labels = np.concatenate([e.columns["label"] for e in episodes])
    np.testing.assert_allclose(data.actions[:, 0, :3], labels[:, 0, :3], atol=1e-12)
    np.testing.assert_array_equal(data.actions[:, 0], labels[:, 0])


def test_every_row_has_the_instruction_of_its_stage(tmp_path):
    """Also in a set that was continued, and beside another one."""
    episodes = [fake_episode(1, 6), *(fake_episode(number, 6, stages=2) for number in (0, 1))]
    for episode in episodes[:2]:
        with LeRobotWriter(tmp_path / "set", fps=5, robot="widowx") as writer:
            writer.add(episode)
    with LeRobotWriter(tmp_path / "other", fps=5, robot="widowx") as writer:
        writer.add(episodes[2])
    readers = [LeRobotReader(tmp_path / name) for name in ("set", "other")]
    assert [episode["tasks"] for episode in readers[0].episodes] == [
        ["put it there"],
        ["stack the cubes", "put it there"],
    ]
    data = Demonstrations(readers, "widowx", 4, ResizeImage(SIZE, "area"))
    assert [data.instructions[i] for i in data.instruction] == [text for e in episodes for text in e.instructions]
    ids = Batches(data, agent_of(data), 0).batch(np.arange(6, 12))["input_ids"]
    assert (ids[0] != ids[5]).any()


def test_rotations_are_roll_pitch_yaw(data):
    label = fake_episode(0, 5, 2).columns["label"][0, 0]
    expected = Rotation.from_rotvec(label[3:6]).as_euler("xyz")
    agent = agent_of(data)
    normalised = agent.normalize_actions(data.actions[:1, 0])
    denormalised = agent.processor.statistics.denormalize_action(normalised)
    clipped = np.clip(expected, *(np.array(getattr(data.statistics().action, name))[3:6] for name in ("p01", "p99")))
    np.testing.assert_allclose(denormalised[0, 3:6], clipped, atol=1e-6)


def test_statistics_count_every_control_step_once(data):
    """Of each episode's last row only one of the two actions ran."""
    statistics = data.statistics()
    episodes = [fake_episode(n, 5 + n % 2, 2).columns["label"].reshape(-1, 7)[:-1] for n in (0, 1, 2, 0, 1, 2, 3)]
    ran = np.concatenate(episodes)
    np.testing.assert_allclose(statistics.action.p01[:3], np.quantile(ran[:, :3], 0.01, axis=0))
    np.testing.assert_allclose(statistics.action.mean[:3], ran[:, :3].sum(0) / len(ran))
    assert statistics.action.mean[6] == pytest.approx((ran[:, 6] > 0).mean())
    np.testing.assert_allclose(statistics.proprio.max, robot_proprio(data.proprio, "widowx").max(0))
    assert (statistics.num_transitions, statistics.num_trajectories) == (len(ran), 7)


def test_places_are_positions_and_a_heading_modulo_quarter_turns(data):
    episode = fake_episode(0, 5, 2)
    found = data.places()[: len(episode)]
    state = episode.columns["state"].astype(float)
    np.testing.assert_allclose(found[:, :3], state[:, 8:11])
    np.testing.assert_allclose(found[:, 3:6], state[:, 15:18])
    axis = Rotation.from_quat(state[:, [12, 13, 14, 11]]).apply([1, 0, 0])
    heading = np.arctan2(axis[:, 1], axis[:, 0])
    np.testing.assert_allclose(found[:, 8:10], np.stack([np.cos(4 * heading), np.sin(4 * heading)], 1), atol=1e-5)


def test_every_epoch_takes_every_row_once_and_in_its_own_order(data):
    batches = Batches(data, agent_of(data), seed=3)
    size, total = 4, len(data)
    drawn = np.concatenate([batches.rows(step, size) for step in range(total * 2 // size)])
    first, second = drawn[:total], drawn[total : 2 * total]
    assert sorted(first) == list(range(total))
    assert list(first) != list(second[: len(first)])
    again = Batches(data, agent_of(data), seed=3)
    np.testing.assert_array_equal(again.rows(5, size), batches.rows(5, size))


def test_batches_are_normalised_to_the_bounds(data):
    statistics = data.statistics()
    batches = Batches(data, agent_of(data, statistics), seed=0)
    batch = batches.batch(np.arange(len(data)))
    low, high = np.array(statistics.action.p01)[:6], np.array(statistics.action.p99)[:6]
    turns = Rotation.from_rotvec(data.actions[..., 3:6].reshape(-1, 3)).as_euler("xyz").reshape(len(data), -1, 3)
    arm = np.concatenate([data.actions[..., :3], turns], -1)
    expected = np.clip(2 * (arm - low) / (high - low) - 1, -1, 1)
    np.testing.assert_allclose(batch["actions"][..., :6], expected, atol=1e-5)
    np.testing.assert_array_equal(batch["actions"][..., 6], data.actions[..., 6] > 0)
    np.testing.assert_allclose(batch["places"].mean(0), 0, atol=1e-5)


def test_pictures_of_another_size_are_resized_as_the_policy_does(tmp_path):
    path = write_set(tmp_path / "set", 1)
    resize = ResizeImage(12, "area")
    data = Demonstrations([LeRobotReader(path)], "widowx", 4, resize)
    np.testing.assert_array_equal(data.pixels(np.arange(5)), resize({"image": fake_episode(0).frames})["pixels"])


def test_a_set_that_has_grown_is_decoded_again(tmp_path):
    path = write_set(tmp_path / "set", 2)
    resize = ResizeImage(SIZE, "area")
    assert len(Demonstrations([LeRobotReader(path)], "widowx", 4, resize)) == 11
    write_more(path)
    data = Demonstrations([LeRobotReader(path)], "widowx", 4, resize)
    np.testing.assert_array_equal(data.pixels(np.array([11])), fake_episode(7).frames[:1])


def write_more(path):
    with LeRobotWriter(path, fps=5, robot="widowx") as writer:
        writer.add(fake_episode(7))


def test_sets_of_the_other_robot_and_empty_sets_are_refused(tmp_path):
    path = write_set(tmp_path / "set", 1)
    with pytest.raises(InvalidConfigError, match="google_robot"):
        Demonstrations([LeRobotReader(path)], "google_robot", 4, ResizeImage(SIZE))
    with pytest.raises(InvalidConfigError, match="no episode"):
        Demonstrations([LeRobotReader(path, groups=0)], "widowx", 4, ResizeImage(SIZE))
