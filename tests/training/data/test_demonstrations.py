from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import replace

import cv2
import imageio.v2 as imageio
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from demonstrations import CAMERA, SIZE, TINY, fake_episode, tiny_config, write_old_set, write_set
from scipy.spatial.transform import Rotation

from vlaser_gym.agents.vlaser.agent import nano_processor
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import ResizeImage
from vlaser_gym.agents.vlaser.trainable import TrainableVlaser
from vlaser_gym.cli import load
from vlaser_gym.commands.train import main as train
from vlaser_gym.errors import GymError, InvalidConfigError, StorageError
from vlaser_gym.evaluation.lerobot import LeRobotReader, LeRobotWriter
from vlaser_gym.training.data.demonstrations import Batches, Demonstrations
from vlaser_gym.training.data.gripper_column import GripperColumn
from vlaser_gym.training.data.pictures import cached_pixels
from vlaser_gym.training.data.rows import chunked


def agent_of(data, statistics=None) -> TrainableVlaser:
    config = tiny_config()
    return TrainableVlaser(VlaserPolicy.initialise(config), nano_processor(config, statistics or data.statistics()))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    paths = [write_set(folder / "a", 3, rows=9, every=2), write_set(folder / "b", 4, rows=9, every=2)]
    return Demonstrations([LeRobotReader(path) for path in paths], "widowx", 4, ResizeImage(SIZE, "area"))


def test_chunks_repeat_the_last_action_behind_the_end():
    labels = np.arange(3 * 2 * 7, dtype=float).reshape(3, 2, 7)
    got = chunked(labels, np.array([2, 2, 1]), 4)
    ran = [labels[0, 0], labels[0, 1], labels[1, 0], labels[1, 1], labels[2, 0]]
    expected = [[0, 1, 2, 3], [2, 3, 4, 4], [4, 4, 4, 4]]
    np.testing.assert_array_equal(got, [[ran[i] for i in row] for row in expected])


def samples_by_hand(episodes, every, horizon):
    """Of each decision: image, proprioception, actions from there on (the last one repeated), instruction, state."""
    found = []
    for episode in episodes:
        for row in range(0, len(episode), every):
            rows = [min(row + h, len(episode) - 1) for h in range(horizon)]
            columns = episode.columns
            told = episode.instructions[row]
            found.append(
                (episode.frames[row], columns["proprio"][row], columns["label"][rows], told, columns["state"][row])
            )
    return [list(part) for part in zip(*found, strict=True)]


def check_samples(data, episodes, every, horizon=4):
    frames, proprio, actions, told, state = samples_by_hand(episodes, every, horizon)
    assert len(data) == len(frames)
    np.testing.assert_array_equal(data.pixels(np.arange(len(data))), frames)
    np.testing.assert_array_equal(data.actions[..., :3], np.stack(actions)[..., :3])
    np.testing.assert_array_equal(data.actions[..., 6], np.stack(actions)[..., 6] > 0)
    expected = Rotation.from_rotvec(np.stack(actions)[..., 3:6].reshape(-1, 3)).as_euler("xyz")
    np.testing.assert_allclose(data.actions[..., 3:6].reshape(-1, 3), expected, atol=1e-9)
    np.testing.assert_array_equal(data.proprio[:, :3], np.stack(proprio)[:, :3])
    np.testing.assert_array_equal(data.state, state)
    assert [data.instructions[i] for i in data.instruction] == told


def test_samples_are_what_was_recorded_at_the_decisions(data):
    """The second set begins again with the same first episodes."""
    episodes = [fake_episode(n, 9 + n % 2, 2) for n in (0, 1, 2, 0, 1, 2, 3)]
    check_samples(data, episodes, every=2)
    shuffled = np.random.default_rng(0).permutation(len(data))
    frames = np.stack(samples_by_hand(episodes, 2, 4)[0])
    np.testing.assert_array_equal(data.pixels(shuffled), frames[shuffled])


@pytest.mark.parametrize("every", [1, 4])
def test_data_sets_of_the_layout_of_before_give_the_same_samples(tmp_path, every):
    """So that nano's recipe trains on exactly what it was trained on, down to the statistics."""
    episodes = [fake_episode(n, 9 + n, every, stages=1 + n % 2) for n in range(4)]
    write_old_set(tmp_path / "old", episodes, every)
    with LeRobotWriter(tmp_path / "new", fps=5, robot="widowx", group=3) as writer:
        for episode in episodes:
            writer.add(episode)
    old, new = (
        Demonstrations([LeRobotReader(tmp_path / name)], "widowx", 4, ResizeImage(SIZE)) for name in ("old", "new")
    )
    for data in (old, new):
        check_samples(data, episodes, every)
    assert old.statistics() == new.statistics()
    np.testing.assert_array_equal(old.steps, new.steps)
    np.testing.assert_array_equal(old.proprio, new.proprio)
    batches = [Batches(data, agent_of(data), seed=3) for data in (old, new)]
    rows = batches[0].rows(2, 4)
    np.testing.assert_array_equal(rows, batches[1].rows(2, 4))
    for name in ("pixels", "input_ids", "proprio", "actions", "places"):
        assert torch.equal(*(batch.batch(rows)[name] for batch in batches)), name


def test_videos_of_the_layout_of_before_are_read(tmp_path):
    episodes = [fake_episode(n, 9, 4) for n in range(2)]
    smooth = [replace(e, frames=np.full_like(e.frames, 40 * n + 20)) for n, e in enumerate(episodes)]
    path = write_old_set(tmp_path / "old", smooth, 4, images="mp4")
    data = Demonstrations([LeRobotReader(path)], "widowx", 4, ResizeImage(SIZE))
    shown = data.pixels(np.arange(6)).astype(int)
    assert np.abs(shown - np.repeat([20, 60], 3)[:, None, None, None]).max() < 5


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
    label = fake_episode(0, 9, 2).columns["label"][0]
    expected = Rotation.from_rotvec(label[3:6]).as_euler("xyz")
    np.testing.assert_allclose(data.actions[0, 0, 3:6], expected, atol=1e-9)


def test_statistics_count_every_control_step_once(data):
    """Also those between two decisions; proprioception counts where the policy reads it."""
    statistics = data.statistics()
    episodes = [fake_episode(n, 9 + n % 2, 2).columns["label"] for n in (0, 1, 2, 0, 1, 2, 3)]
    ran = np.concatenate(episodes)
    np.testing.assert_allclose(statistics.action.p01[:3], np.quantile(ran[:, :3], 0.01, axis=0))
    np.testing.assert_allclose(statistics.action.mean[:3], ran[:, :3].sum(0) / len(ran))
    assert statistics.action.mean[6] == pytest.approx((ran[:, 6] > 0).mean())
    np.testing.assert_allclose(statistics.proprio.max, data.proprio.max(0))
    assert (statistics.num_transitions, statistics.num_trajectories) == (len(ran), 7)


def test_places_are_positions_and_a_heading_modulo_quarter_turns(data):
    state = fake_episode(0, 9, 2).columns["state"][::2].astype(float)
    found = data.places()[: len(state)]
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
    expected = np.clip(2 * (data.actions[..., :6] - low) / (high - low) - 1, -1, 1)
    np.testing.assert_allclose(batch["actions"][..., :6], expected, atol=1e-5)
    assert set(batch["actions"][..., 6].unique().tolist()) == {0.0, 1.0}
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


def change(path, name, row, value, column=0):
    """Overwrite one number of a data set."""
    file = path / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    values = np.stack(table[name].to_pylist())
    values[row, column] = value
    kind = table.schema.field(name).type
    changed = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), kind.value_type), values.shape[1])
    pq.write_table(table.set_column(table.column_names.index(name), name, changed), file)


@pytest.mark.parametrize(
    ("name", "column", "held"),
    [
        ("action", 0, r"action should hold 7 finite numbers: translation \(m\), axis-angle rotation"),
        ("observation.state", 7, "observation.state should hold 8 finite numbers: pose of the TCP"),
        ("privileged.state", 20, "privileged.state should hold 26 finite numbers: the simulator's state"),
    ],
)
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_no_number_is_named_with_its_row_before_any_picture_is_decoded(tmp_path, name, column, held, number):
    path = write_set(tmp_path / "set", 2)
    change(path, name, 7, number, column)
    with pytest.raises(InvalidConfigError, match=held) as caught:
        Demonstrations([LeRobotReader(path)], "widowx", 4, ResizeImage(SIZE))
    assert str(caught.value).startswith(f"{path}/data/chunk-000/file-000.parquet, row 7 (episode 1, frame 2): {name} ")
    assert f"{number:.4g}" in str(caught.value)
    assert not list(path.glob(".*"))


def test_a_state_of_another_size_is_named(tmp_path):
    path = write_old_set(tmp_path / "set", [fake_episode(0)], 1)
    file = path / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    shorter = pa.array([row[:7] for row in table["observation.state"].to_pylist()])
    pq.write_table(table.set_column(0, "observation.state", shorter), file)
    info = (path / "meta/info.json").read_text()
    (path / "meta/info.json").write_text(info.replace('"shape": [8]', '"shape": [7]'))
    with pytest.raises(InvalidConfigError, match=r"each row of observation.state should hold 8 .*; it holds 7"):
        Demonstrations([LeRobotReader(path)], "widowx", 4, ResizeImage(SIZE))


def test_marks_that_cannot_be_are_refused(tmp_path):
    path = write_set(tmp_path / "set", 1)
    edit_column(path, "privileged.decision", lambda marks: [False] * len(marks))
    with pytest.raises(InvalidConfigError, match=r"privileged\.decision marks no row"):
        Demonstrations([LeRobotReader(path)], "widowx", 4, ResizeImage(SIZE))
    path = write_old_set(tmp_path / "old", [fake_episode(0, 8, 4)], 4)
    edit_column(path, "steps", lambda steps: [steps[0], 5])
    with pytest.raises(InvalidConfigError, match=r"row 1 \(episode 0, frame 1\): steps should be 1 to 4, .* it is 5"):
        Demonstrations([LeRobotReader(path)], "widowx", 4, ResizeImage(SIZE))


def edit_column(path, name, edit):
    file = path / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    column = pa.array(edit(table[name].to_pylist()), table.schema.field(name).type)
    pq.write_table(table.set_column(table.column_names.index(name), name, column), file)


def test_without_marks_every_row_is_a_sample(tmp_path):
    """A data set of somebody else, beside an empty one."""
    episode = fake_episode(0, 6)
    path = write_old_set(tmp_path / "set", [episode], 1)
    info = json.loads((path / "meta/info.json").read_text())
    del info["features"]["steps"], info["vlaser_gym"]
    (path / "meta/info.json").write_text(json.dumps(info))
    empty = LeRobotReader(write_set(tmp_path / "empty", 1), groups=0)
    check_samples(Demonstrations([empty, LeRobotReader(path)], "widowx", 4, ResizeImage(SIZE)), [episode], 1)


def foreign_set(path, gripper, robot="widowx"):
    """A data set of somebody else whose gripper column holds these numbers, one a row."""
    episode = fake_episode(0, rows=len(gripper))
    episode.columns["label"][:, 6] = gripper
    write_old_set(path, [episode], 1)
    info = (path / "meta/info.json").read_text().replace('"vlaser_gym"', '"elsewhere"').replace("widowx", robot)
    if robot == "google_robot":
        info = info.replace('"fps": 5.0', '"fps": 3.0')
    (path / "meta/info.json").write_text(info)
    return LeRobotReader(path)


def test_a_gripper_column_in_metres_is_refused_until_its_meaning_is_said(tmp_path):
    reader = foreign_set(tmp_path / "set", [0.08, 0.004, 0.04, 0.082])
    with pytest.raises(InvalidConfigError, match="gripper= with one of command, open, closed, width:METRES") as caught:
        Demonstrations([reader], "widowx", 4, ResizeImage(SIZE))
    assert "row 0 (episode 0, frame 0): the gripper, the last number of action.intended, is 0.08" in str(caught.value)
    assert "(0.004 to 0.082 in the whole data set)" in str(caught.value)
    said = Demonstrations([reader], "widowx", 1, ResizeImage(SIZE), GripperColumn.parse("width:0.08"))
    np.testing.assert_allclose(said.actions[:, 0, 6], [1, 0.05, 0.5, 1])


def test_commands_between_are_right_in_data_sets_of_this_gym_alone(tmp_path):
    """A policy's commands to the Google Robot are any number from -1 to 1."""
    gripper = [0.25, -1.0, 0.0]
    episode = fake_episode(0, rows=3)
    episode.columns["label"][:, 6] = gripper
    with LeRobotWriter(tmp_path / "own", fps=3, robot="google_robot") as writer:
        writer.add(episode)
    data = Demonstrations([LeRobotReader(tmp_path / "own")], "google_robot", 1, ResizeImage(SIZE))
    np.testing.assert_allclose(data.actions[:, 0, 6], [0.375, 1, 0.5])
    with pytest.raises(InvalidConfigError, match=r"is 0.25 .*where it should be -1, 0 or 1"):
        Demonstrations([foreign_set(tmp_path / "set", gripper, "google_robot")], "google_robot", 1, ResizeImage(SIZE))


def cut_video(path, pictures=10):
    """Take the last image away, or add more."""
    file = path / "videos/observation.images.main/chunk-000/file-000.mp4"
    stored = list(imageio.get_reader(file).iter_data())
    imageio.mimwrite(file, [*stored, *stored][:pictures], fps=5, macro_block_size=2)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: change(path, "action", 3, np.nan), r"row 3 \(episode 0, frame 3\): action should hold 7 finite"),
        (lambda path: change(path, "action", 3, 1.5, 6), r"the last number of action, is 1.5 "),
        (cut_video, r"file-000.mp4 holds 10 images; by .* episode 1 ends there with image 11\. Restore"),
        (lambda path: cut_video(path, 12), r"holds 12 images; by .* episode 1 ends there with image 11, the last"),
    ],
)
def test_the_command_refuses_such_data_before_it_makes_a_run(tmp_path, damage, said):
    path = write_set(tmp_path / "set", 2, images="mp4")
    damage(path)
    settings = [f"settings.{name}={value}" for name, value in TINY.items()]
    arguments = [f"data={path}", f"run={tmp_path / 'run'}", "evaluate_episodes=0", "device=cpu", *settings]
    with pytest.raises(GymError, match=said) as caught:
        train(load("train", arguments))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
    assert not list(path.glob(".*"))


def test_the_commands_that_read_no_data_set_take_no_meaning_of_its_gripper(tmp_path):
    with pytest.raises(GymError, match=r"^gripper=open is not read with algo=ppo, which reads no data set; leave it"):
        train(load("train", [f"run={tmp_path / 'run'}", "algo=ppo", f"init={tmp_path}", "gripper=open"]))
    with pytest.raises(GymError, match="Unknown gripper 'wide'"):
        train(load("train", [f"run={tmp_path / 'run'}", "gripper=wide"]))


def test_pictures_are_decoded_again_when_their_file_has_changed(tmp_path):
    path = write_set(tmp_path / "set", 1)
    resize = ResizeImage(SIZE)
    cache = tmp_path / "cache"
    before = cached_pixels(LeRobotReader(path), resize, cache=cache)
    episode = fake_episode(7)
    with LeRobotWriter(tmp_path / "third", fps=5, robot="widowx") as writer:
        writer.add(episode)
    file = "data/chunk-000/file-000.parquet"
    (path / file).write_bytes((tmp_path / "third" / file).read_bytes())
    np.testing.assert_array_equal(before, fake_episode(0).frames)
    np.testing.assert_array_equal(cached_pixels(LeRobotReader(path), resize, cache=cache), episode.frames)
    assert len(list(cache.rglob("*.npy"))) == 1, "what was decoded of the former content is gone"
    assert not list(path.glob(".*")), "nothing is written beside the data"


def test_pictures_are_kept_by_content_not_by_time(tmp_path):
    """Neither a later time of change decodes again, nor does an equal size and time hide another image."""
    path, resize, cache = write_set(tmp_path / "set", 1), ResizeImage(SIZE), tmp_path / "cache"
    file = path / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    pq.write_table(table, file)
    cached_pixels(LeRobotReader(path), resize, cache=cache)
    (kept,) = cache.rglob("*.npy")
    size = file.stat().st_size
    os.utime(file, ns=(0, 0))
    cached_pixels(LeRobotReader(path), resize, cache=cache)
    assert list(cache.rglob("*.npy")) == [kept]
    other = fake_episode(0).frames[::-1]
    pictures = pa.array([{"bytes": _png_of(frame), "path": None} for frame in other], table[CAMERA].type)
    pq.write_table(table.set_column(table.column_names.index(CAMERA), CAMERA, pictures), file)
    assert abs(file.stat().st_size - size) < 100
    os.utime(file, ns=(0, 0))
    np.testing.assert_array_equal(cached_pixels(LeRobotReader(path), resize, cache=cache), other)


def _png_of(frame):
    return bytes(cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])[1])


def test_a_second_run_waits_for_the_pictures_and_sees_none_that_is_black(tmp_path, monkeypatch):
    """The first is stopped in the middle of decoding; the second finds its claim, waits, and decodes nothing."""
    path, cache = write_set(tmp_path / "set", 4), tmp_path / "cache"
    reading, go_on, frames = threading.Event(), threading.Event(), LeRobotReader.frames

    def slowly(self, chosen=None):
        for number, found in enumerate(frames(self, chosen)):
            if number == 2:
                reading.set()
                assert go_on.wait(20)
            yield found

    monkeypatch.setattr(LeRobotReader, "frames", slowly)
    results, said = {}, []

    def load(name):
        results[name] = cached_pixels(LeRobotReader(path), ResizeImage(SIZE), cache=cache, say=said.append)

    first, second = (threading.Thread(target=load, args=[name]) for name in ("first", "second"))
    first.start()
    assert reading.wait(20)
    monkeypatch.setattr(LeRobotReader, "frames", lambda *_: pytest.fail("the images are there already"))
    second.start()
    while not said:
        assert second.is_alive()
        time.sleep(0.01)
    go_on.set()
    first.join(20)
    second.join(20)
    assert "Waiting for another process" in said[0]
    wanted = np.concatenate([fake_episode(n, 5 + n % 2).frames for n in range(4)])
    np.testing.assert_array_equal(results["first"], wanted)
    np.testing.assert_array_equal(results["second"], wanted)


def test_a_cache_that_cannot_be_written_is_one_sentence_with_its_key(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"Cannot keep decoded images in .*; choose a writable folder .* cache=DIR"):
        cached_pixels(LeRobotReader(write_set(tmp_path / "set", 1)), ResizeImage(SIZE), cache=tmp_path / "file")
