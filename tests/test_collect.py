"""Recorded episodes against the environment itself, read back with nothing but pyarrow and a video decoder."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time

import imageio.v2 as imageio
import numpy as np
import pyarrow.parquet as pq
import pytest
from gymnasium.vector import AutoresetMode
from PIL import Image

from vlaser_gym.agents.random import RandomAgent
from vlaser_gym.agents.scripted import ScriptedExpert
from vlaser_gym.agents.vlaser.processor import ResizeImage
from vlaser_gym.cli import load
from vlaser_gym.commands.collect import CollectSettings, main
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import GymError, StorageError
from vlaser_gym.evaluation.lerobot import LeRobotReader
from vlaser_gym.training.data.rows import checked_rows
from vlaser_gym.training.data.sources import Source

TASKS = ("widowx_stack_cube", "widowx_carrot_on_plate")
PUSH = "agent.disturbance={position: 0.01, yaw: 0.1, probability: 1.0}"
SMALL = (f"task={TASKS[0]},{TASKS[1]}", "num_envs=2", "image_size=32", "group=1", "tail=2", "engine.render_processes=1")


def collect(path, *more: str) -> None:
    main(load("collect", [*SMALL, f"output={path}", *more]))


def read(path) -> tuple[dict, list[dict], dict[str, np.ndarray]]:
    """A data set by its published layout: ``(info, episodes, columns)``."""
    info = json.loads((path / "meta/info.json").read_text())
    episodes = [
        row for file in sorted(path.glob("meta/episodes/*/*.parquet")) for row in pq.read_table(file).to_pylist()
    ]
    columns: dict[str, list] = {}
    for place in dict.fromkeys((e["data/chunk_index"], e["data/file_index"]) for e in episodes):
        table = pq.read_table(path / info["data_path"].format(chunk_index=place[0], file_index=place[1]))
        for name in table.column_names:
            columns.setdefault(name, []).extend(table[name].to_pylist())
    return info, episodes, {name: np.array(values) for name, values in columns.items()}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("collect") / "set"
    collect(path, "episodes=1")
    return path


def test_other_cameras_have_columns_of_their_own(tmp_path) -> None:
    """Pixel by pixel what the environment shows from there before the first step; LeRobot's layout for both."""
    collect(tmp_path / "set", "episodes=1", "task=widowx_stack_cube", "cameras=policy,wrist", "max_episode_steps=2",
            "only_successful=false", "tail=null", "num_envs=1")  # fmt: skip
    info, (episode,), columns = read(tmp_path / "set")
    names = ("observation.images.main", "observation.images.wrist")
    assert [info["features"][name]["shape"] for name in names] == [[32, 32, 3]] * 2
    assert episode["length"] == 2
    env = SceneVectorEnv(TASKS[0], 1, observe=("image", "wrist_image"), engine_options={"render_processes": 1})
    seen, _ = env.reset(options={"layout": episode["address/layout"]})
    env.close()
    for name, key in zip(names, ("image", "wrist_image"), strict=True):
        stored = np.array(Image.open(io.BytesIO(columns[name][0]["bytes"])))
        assert np.array_equal(stored, ResizeImage(32, "area")({"image": seen[key]})["pixels"][0])
        assert np.mean(episode[f"stats/{name}/mean"]) == pytest.approx(stored.mean() / 255, abs=0.02)
    assert "observation.images.wrist" in (tmp_path / "set/README.md").read_text()
    with pytest.raises(GymError, match=r"Unknown camera of widowx_stack_cube 'wirst'.*nearest: wrist"):
        collect(tmp_path / "other", "cameras=policy,wirst")
    with pytest.raises(GymError, match="has the policy's camera in it too: cameras=policy,wrist"):
        collect(tmp_path / "other", "cameras=wrist")


@pytest.fixture(scope="module")
def oracle():
    """The same two episodes run by hand: observations before and actions at each control step."""
    env = SceneVectorEnv(
        TASKS, 2, observe=("image", "proprio", "state"), autoreset_mode=AutoresetMode.DISABLED,
        engine_options={"render_processes": 1},
    )  # fmt: skip
    observation, _ = env.reset(options={"layout": "region:1000000"})
    expert, lanes = ScriptedExpert(), np.arange(2)
    expert.reset(lanes, env.addresses)
    rows = []
    for _ in range(45):
        actions = expert.act(observation, lanes)
        images = ResizeImage(32, "area")({"image": observation["image"]})["pixels"]
        rows.append((images, observation["proprio"], observation["state"], actions[:, 0]))
        observation, *_, info = env.step_chunk(actions)
        rows[-1] += (info["success"],)
    env.close()
    return [[np.stack([row[i][lane] for row in rows]) for i in range(5)] for lane in lanes]


def test_every_row_is_what_the_environment_showed_and_did(recorded, oracle):
    info, episodes, columns = read(recorded)
    assert info["total_frames"] == len(columns["index"]) == sum(e["length"] for e in episodes)
    assert {e["address/task"] for e in episodes} == set(TASKS)
    for episode in episodes:
        rows = slice(episode["dataset_from_index"], episode["dataset_to_index"])
        images, proprio, state, actions, success = oracle[TASKS.index(episode["address/task"])]
        count = episode["length"]
        np.testing.assert_array_equal(columns["action"][rows], actions[:count])
        np.testing.assert_array_equal(columns["privileged.executed"][rows], actions[:count])
        np.testing.assert_allclose(columns["observation.state"][rows], proprio[:count], atol=1e-6)
        np.testing.assert_allclose(columns["privileged.state"][rows], state[:count], atol=1e-6)
        np.testing.assert_array_equal(columns["next.success"][rows], success[:count])
        stored = [Image.open(io.BytesIO(row["bytes"])) for row in columns["observation.images.main"][rows]]
        np.testing.assert_array_equal(np.stack([np.asarray(image) for image in stored]), images[:count])
        # The episode ends with the second success in a row, and not before.
        assert success[count - 2 : count].all()
        assert not (success[: count - 2] & success[1 : count - 1]).any()


def test_the_bookkeeping_is_that_of_the_format(recorded):
    info, episodes, columns = read(recorded)
    assert (info["codebase_version"], info["fps"], info["robot_type"]) == ("v3.0", 5, "widowx")
    assert info["splits"] == {"train": "0:2"}
    np.testing.assert_array_equal(columns["index"], np.arange(info["total_frames"]))
    for episode in episodes:
        rows = slice(episode["dataset_from_index"], episode["dataset_to_index"])
        np.testing.assert_array_equal(columns["frame_index"][rows], np.arange(episode["length"]))
        np.testing.assert_allclose(columns["timestamp"][rows], np.arange(episode["length"]) / 5, rtol=1e-6)
        assert set(columns["episode_index"][rows]) == {episode["episode_index"]}
    assert set(info["features"]) == set(columns)
    for name, feature in info["features"].items():
        if feature["dtype"] != "image":
            assert list(columns[name].shape[1:]) == ([] if feature["shape"] == [1] else feature["shape"]), name
    tasks = pq.read_table(recorded / "meta/tasks.parquet").to_pylist()
    texts = {row["task_index"]: row["__index_level_0__"] for row in tasks}
    for episode in episodes:
        assert texts[columns["task_index"][episode["dataset_from_index"]]] == episode["tasks"][0]


def test_instructions_are_the_index_of_the_task_table(recorded):
    """As LeRobot reads it, through pandas."""
    pandas = pytest.importorskip("pandas")
    table = pandas.read_parquet(recorded / "meta/tasks.parquet")
    assert table.loc["put carrot on plate"].task_index in (0, 1)


def test_rows_of_a_task_with_two_stages_have_the_instruction_of_their_stage(tmp_path):
    """Here the second begins at the latest when the time of the first is over."""
    path, task = tmp_path / "set", "google_robot_place_apple_in_closed_top_drawer"
    more = ("agent=random", "only_successful=false", "every=10", "episodes=1", "num_envs=1", "group=1")
    fast = ("image_size=32", "engine.render_processes=1")
    main(load("collect", [f"task={task}", f"output={path}", *more, *fast]))
    _, (episode,), columns = read(path)
    table = pq.read_table(path / "meta/tasks.parquet").to_pylist()
    texts = {row["task_index"]: row["__index_level_0__"] for row in table}
    told = [texts[index] for index in columns["task_index"]]
    assert episode["tasks"] == ["open top drawer", "place apple into top drawer"] == list(dict.fromkeys(told))
    assert [told.count(text) for text in episode["tasks"]] == [101, 99]


def test_stored_statistics_are_those_of_the_columns(recorded):
    _, _, columns = read(recorded)
    stored = json.loads((recorded / "meta/stats.json").read_text())
    for name in ("action", "observation.state", "next.reward"):
        values = columns[name].reshape(len(columns[name]), -1).astype(float)
        for key in ("min", "max", "mean", "std"):
            np.testing.assert_allclose(stored[name][key], getattr(values, key)(0), atol=1e-6, err_msg=f"{name} {key}")
        assert stored[name]["count"] == [len(values)]


def test_a_policy_that_decides_every_fourth_step_changes_no_row_but_marks_its_own(recorded, tmp_path):
    collect(tmp_path / "sparse", "episodes=1", "every=4", f"task={TASKS[1]}", "num_envs=1", "tail=null", "images=mp4")
    info, (episode,), columns = read(tmp_path / "sparse")
    assert (info["fps"], episode["length"]) == (5, 60)
    np.testing.assert_array_equal(columns["privileged.decision"], np.arange(60) % 4 == 0)
    _, episodes, every_step = read(recorded)
    whole = next(e for e in episodes if e["address/task"] == TASKS[1])
    rows = slice(whole["dataset_from_index"], whole["dataset_to_index"])
    assert every_step["privileged.decision"].all()
    for name in ("action", "observation.state", "privileged.state"):
        np.testing.assert_array_equal(columns[name][: whole["length"]], every_step[name][rows])
    place = {key: episode[f"videos/observation.images.main/{key}"] for key in ("chunk_index", "file_index")}
    video = info["video_path"].format(video_key="observation.images.main", **place)
    frames = np.stack([np.asarray(f) for f in imageio.get_reader(tmp_path / "sparse" / video).iter_data()])
    assert len(frames) == 60
    assert episode["videos/observation.images.main/to_timestamp"] == pytest.approx(60 / 5)
    exact = [row["bytes"] for row in every_step["observation.images.main"][rows]]
    exact = np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in exact]).astype(int)
    assert np.abs(frames[: len(exact)] - exact).mean() < 6
    np.testing.assert_array_equal(np.concatenate(list(LeRobotReader(tmp_path / "sparse").frames())), frames)


def test_pictures_of_decisions_alone_are_those_of_every_step_at_their_rows(recorded, tmp_path):
    collect(tmp_path / "sparse", "episodes=1", "every=4", "render=decisions")
    _, episodes, columns = read(tmp_path / "sparse")
    _, _, every_step = read(recorded)
    assert len(episodes) == 2
    whole, kept = ([row["bytes"] for row in c["observation.images.main"]] for c in (every_step, columns))
    for episode in episodes:
        begin, end = episode["dataset_from_index"], episode["dataset_to_index"]
        assert kept[begin:end] == [whole[begin + row // 4 * 4] for row in range(end - begin)]
        assert kept[begin:end] != whole[begin:end]
    for name in ("action", "observation.state", "privileged.state"):
        np.testing.assert_array_equal(columns[name], every_step[name])
    with pytest.raises(StorageError, match=r"render was 'decisions', now 'every_step'"):
        collect(tmp_path / "sparse", "episodes=2", "every=4")


def test_a_beginning_that_is_skipped_is_the_only_difference(recorded, tmp_path):
    collect(tmp_path / "late", "episodes=1", "every=4", "render=decisions", "skip=8")
    _, episodes, columns = read(tmp_path / "late")
    _, whole_episodes, every_step = read(recorded)
    assert len(episodes) == 2
    whole, kept = ([row["bytes"] for row in c["observation.images.main"]] for c in (every_step, columns))
    for episode in episodes:
        other = next(e for e in whole_episodes if e["address/task"] == episode["address/task"])
        late, rows = (slice(e["dataset_from_index"] + s, e["dataset_to_index"]) for e, s in ((episode, 0), (other, 8)))
        assert episode["length"] == other["length"] - 8
        for name in ("action", "observation.state", "privileged.state"):
            np.testing.assert_array_equal(columns[name][late], every_step[name][rows], err_msg=name)
        steps = np.arange(episode["length"])
        np.testing.assert_array_equal(columns["privileged.decision"][late], steps % 4 == 0)
        assert kept[late] == [whole[rows][step // 4 * 4] for step in steps]


def test_an_episode_that_ends_before_is_not_kept(tmp_path):
    collect(
        tmp_path / "set", "episodes=1", "skip=5", "max_episode_steps=5", "only_successful=false", f"task={TASKS[0]}"
    )
    assert not list((tmp_path / "set").glob("data/*/*"))


def test_more_episodes_are_appended(recorded, tmp_path, monkeypatch):
    path = tmp_path / "set"
    collect(path, "episodes=1", "every=4")
    before = {file: file.read_bytes() for file in path.glob("data/*/*")}
    collect(path, "episodes=2", "every=4")
    assert all(file.read_bytes() == data for file, data in before.items())
    info, episodes, columns = read(path)
    assert info["total_episodes"] == len(episodes) == 4
    np.testing.assert_array_equal(columns["index"], np.arange(info["total_frames"]))
    _, first, _ = read(recorded)
    assert [e["address/layout"] for e in episodes[:2]] == [e["address/layout"] for e in first]
    with pytest.raises(StorageError, match=r"\(every was 4, now 2\)"):
        collect(path, "episodes=3", "every=2")


def test_disturbed_actions_come_with_what_was_meant(tmp_path):
    """The agent is pushed for four steps at a time; what it meant is what is to be learnt."""
    collect(tmp_path / "set", "episodes=1", "tail=8", "every=4", PUSH)
    _, episodes, columns = read(tmp_path / "set")
    for episode in episodes:
        rows = slice(episode["dataset_from_index"], episode["dataset_to_index"])
        push = columns["privileged.executed"][rows] - columns["action"][rows]
        first = np.arange(len(push)) // 4 * 4
        np.testing.assert_allclose(push, push[first], atol=1e-12)
        assert (np.abs(push[:, [0, 1, 2, 5]]) > 0).all()
        np.testing.assert_array_equal(push[:, [3, 4, 6]], 0)


def test_an_agent_that_decides_several_steps_at_once_has_a_row_and_a_picture_for_each(tmp_path):
    """Its episode ends with the chunk in which its time is over, and with it its rows."""
    collect(tmp_path / "set", "episodes=1", "agent=random", "agent.horizon=7", "only_successful=false", "every=7")
    _, episodes, columns = read(tmp_path / "set")
    assert [e["length"] for e in episodes] == [60, 60]
    pictures = [row["bytes"] for row in columns["observation.images.main"]]
    assert len(set(pictures)) > 100
    np.testing.assert_array_equal(columns["action"], columns["privileged.executed"])


def test_a_gripper_beyond_its_range_is_recorded_as_it_was_taken(tmp_path, monkeypatch):
    """Policies answer 1.01 now and then, and a training refuses commands beyond 1."""
    acts = RandomAgent.act
    monkeypatch.setattr(RandomAgent, "act", lambda *given: acts(*given) * [1, 1, 1, 1, 1, 1, 1.2])
    collect(tmp_path / "set", "episodes=1", "agent=random", "only_successful=false", "max_episode_steps=3")
    _, _, columns = read(tmp_path / "set")
    assert (np.abs(columns["privileged.executed"][:, 6]) > 1.1).all()
    np.testing.assert_array_equal(np.abs(columns["action"][:, 6]), 1)
    checked_rows(LeRobotReader(tmp_path / "set"), Source(str(tmp_path / "set")), "widowx")


@pytest.mark.slow
def test_a_killed_command_leaves_a_readable_set_and_goes_on(tmp_path):
    def arguments(name: str) -> list[str]:
        settings = [*SMALL, f"output={tmp_path / name}", "episodes=4", "every=4"]
        return [sys.executable, "-m", "vlaser_gym.collect", *settings]

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(arguments("killed"))
    deadline = time.monotonic() + 120
    while not list(killed.glob("meta/episodes/*/*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    reader = LeRobotReader(killed) if (killed / "meta/info.json").is_file() else None
    if reader is not None:
        frames = np.concatenate(list(reader.frames()))
        assert len(frames) == reader.total_frames == len(reader.columns(["index"])["index"])
        assert 0 < len(reader.episodes) < 8
    subprocess.run(arguments("killed"), check=True, timeout=200)
    subprocess.run(arguments("whole"), check=True, timeout=200)
    actions = [
        {
            (e["address/task"], e["address/layout"]): c["action"][
                e["dataset_from_index"] : e["dataset_to_index"]
            ].tolist()
            for e in episodes
        }
        for _, episodes, c in map(read, (killed, whole))
    ]
    assert len(actions[0]) == 8
    assert actions[0] == actions[1]


WRONG = (
    ("every=0", "every"),
    ("images=gif", "png"),
    ("task=widowx_fly", "widowx"),
    ("resize=x", "Unknown resize 'x'.*area"),
    ("image_size=null resize=x", "Unknown resize 'x'.*area"),
    ("engine.threads=-1", "engine.threads must be a whole number"),
    ("max_minutes=-1", "max_minutes must be above 0 or null; got -1"),
    ("max_minutes=nan", "max_minutes must be above 0 or null; got nan"),
    ("max_minutes=0", "max_minutes must be above 0 or null; got 0"),
    ("layouts=foo", "Unknown kind of layouts 'foo'"),
    ("engine.foo=1", "Unknown option of engine 'mujoco' 'foo'"),
    ("look=original engine.assets=nowhere", "nowhere"),
    ("agent=vlaser_nano agent.checkpoint=nano task=google_robot_pick_coke_can", "robot"),
)


@pytest.mark.parametrize(("wrong", "word"), WRONG)
def test_wrong_settings_end_with_a_sentence_and_leave_nothing(wrong, word, tmp_path):
    with pytest.raises(GymError, match=word) as caught:
        collect(tmp_path / "new" / "set", "episodes=1", *wrong.split())
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_episodes_that_failed_are_not_run_again(tmp_path, capsys, monkeypatch):
    settings = ("episodes=1", "agent=random", "every=60", "tail=null")
    collect(tmp_path / "set", *settings)
    assert "0 episodes and 2 failed ones that are not kept" in capsys.readouterr().out
    monkeypatch.setattr("vlaser_gym.commands.collect._record", lambda *_: pytest.fail("nothing is missing"))
    collect(tmp_path / "set", *settings)
    with pytest.raises(StorageError, match=r"\(only_successful was True, now False\)"):
        collect(tmp_path / "set", *settings, "only_successful=false")


def test_when_the_time_is_up_the_command_says_that_it_goes_on(tmp_path, capsys):
    collect(tmp_path / "set", "episodes=1", "max_minutes=1e-9")
    assert "the time is up, the same command goes on" in capsys.readouterr().out


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/letter.txt").write_text("dear")
    with pytest.raises(StorageError, match="no data set"):
        collect(tmp_path / "other", "episodes=1")


@pytest.mark.parametrize(
    "given", ["every=4", "render=decisions", "tail=null", "only_successful=false", "image_size=120", "images=mp4"]
)
def test_what_a_training_store_does_not_read_is_refused(tmp_path, given):
    with pytest.raises(GymError, match=r"^\w+=\w+ is not read with store=training; leave it out\.$"):
        main(load("collect", [f"output={tmp_path}/run", "store=training", given]))
    assert not (tmp_path / "run").exists()


def test_repeats_of_a_layout_and_what_learners_need(tmp_path):
    settings = CollectSettings.from_config(load("collect", [*SMALL, "episodes=2", "trials=3"]))
    plan = settings.addresses()
    assert len(plan) == len({*plan}) == 12
    assert {a.trial for a in plan} == {0, 1, 2}
    assert {a.layout for a in plan} == {"region:1000000", "region:1000001"}
    with pytest.raises(GymError, match="needs an agent that learns"):
        main(load("collect", [f"task={TASKS[0]}", f"output={tmp_path}/run", "store=training", "agent=random"]))
    with pytest.raises(GymError, match="store"):
        collect(tmp_path / "run", "store=pairs")
    assert not (tmp_path / "run").exists()
