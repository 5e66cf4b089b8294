"""Other projects' data sets: their names, versions, conventions, rates and weights."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import foreign
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from demonstrations import SIZE, tiny_config, write_set
from scipy.spatial.transform import Rotation

from vlaser_gym.agents.vlaser.agent import nano_processor
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import ResizeImage
from vlaser_gym.agents.vlaser.trainable import TrainableVlaser
from vlaser_gym.cli import load, typed
from vlaser_gym.commands.train import main
from vlaser_gym.conventions import Convention, get_preset
from vlaser_gym.errors import GymError, InvalidConfigError, StorageError
from vlaser_gym.evaluation.lerobot import LeRobotReader
from vlaser_gym.settings.training import TrainSettings
from vlaser_gym.training.data.demonstrations import Batches, Demonstrations, Mixture
from vlaser_gym.training.data.sources import Source, sources

#: Numbers of the samples of two sets.
PARTS = [np.arange(3), np.arange(3, 53)]
DOWN = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])


def demonstrations(*given: Source, robot: str = "widowx", horizon: int = 2) -> Demonstrations:
    readers = [source.reader() for source in given]
    return Demonstrations(readers, robot, horizon, ResizeImage(SIZE, "area"), sources=list(given))


def source(path: Path, **known: Any) -> Source:
    defaults = {"data": str(path), "columns": {}, "convention": None, "gripper": None, "fps": None}
    return sources(SimpleNamespace(**{**defaults, **known}))[0]


# ---------------------------------------------------------------------- versions


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("video", [False, True])
def test_both_versions_give_the_same(tmp_path: Path, version: int, video: bool) -> None:
    path = foreign.bridge(tmp_path / "set", version=version, video=video, episodes=3)
    reader = LeRobotReader(path)
    assert reader.camera == "observation.images.image_0"
    assert [row["length"] for row in reader.episodes] == [6, 7, 8]
    assert reader.instructions() == [foreign.TEXTS[0]] * 6 + [foreign.TEXTS[1]] * 7 + [foreign.TEXTS[0]] * 8
    wanted = np.concatenate([foreign.numbers(6 + n, foreign.BRIDGE_STATE, n)["action"] for n in range(3)])
    np.testing.assert_array_equal(reader.columns(["action"])["action"], wanted)
    bright = [[frame.mean() for frame in frames] for frames in reader.frames()]
    for number, seen in enumerate(bright):
        np.testing.assert_allclose(seen, [(10 * i + number) % 250 for i in range(6 + number)], atol=4 * video)


def test_the_layout_is_told_by_its_files_and_not_by_the_version_s_name(tmp_path: Path) -> None:
    path = foreign.bridge(tmp_path / "set", version=3)
    info = json.loads((path / "meta/info.json").read_text())
    (path / "meta/info.json").write_text(json.dumps({**info, "codebase_version": "v2.1"}))
    assert len(LeRobotReader(path).columns(["action"])["action"]) == 13
    (path / "meta/info.json").write_text(json.dumps({**info, "codebase_version": "v1.6"}))
    with pytest.raises(StorageError, match=r"version 'v1\.6'; v2\.0, v2\.1, v3\.0 are read: convert it"):
        LeRobotReader(path)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("meta/episodes.jsonl", '{"episode_index": 0}\n', "lacks length of episode 0"),
        ("meta/episodes.jsonl", "[1]\n", "JSON object in every line"),
        ("meta/episodes.jsonl", '{"episode_index": 1, "length": 6}\n', "should list episode 0"),
        ("meta/episodes.jsonl", '{"episode_index": 0, "length": 5, "tasks": []}\n', "counts 5|counts 2 episodes"),
        ("meta/tasks.jsonl", '{"task_index": 0}\n', "task_index and a task"),
        ("meta/tasks.jsonl", '{"task_index": 7, "task": "a"}\n', r"task_index 0, which is none of the 1"),
        ("meta/tasks.jsonl", '{"task_index": 0, "task": "a"}\n{"task_index": 0, "task": "b"}\n', "several instruct"),
    ],
)
def test_damage_of_version_2_is_a_sentence(tmp_path: Path, file: str, text: str, said: str) -> None:
    path = foreign.bridge(tmp_path / "set", version=2)
    (path / file).write_text(text)
    with pytest.raises(GymError, match=said) as caught:
        demonstrations(source(path, convention="bridge"))
    assert "\n" not in str(caught.value)


def test_a_video_of_version_2_with_fewer_pictures_than_rows_is_named(tmp_path: Path) -> None:
    path = foreign.bridge(tmp_path / "set", version=2, video=True)
    videos = path / "videos/chunk-000/observation.images.image_0"
    (videos / "episode_000001.mp4").write_bytes((videos / "episode_000000.mp4").read_bytes())
    with pytest.raises(StorageError, match=r"episode_000001\.mp4 holds 6 images; .* ends there with image 7"):
        list(LeRobotReader(path).frames())


# ---------------------------------------------------------------------- conventions


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("pad", [False, True])
def test_bridge_is_what_the_policy_reads(tmp_path: Path, version: int, pad: bool) -> None:
    """Its roll, pitch, yaw and openness are what Vlaser reads and answers: they come through unchanged."""
    path = foreign.bridge(tmp_path / "set", version=version, pad=pad)
    data = demonstrations(source(path, convention="bridge"))
    rows = [foreign.numbers(6 + n, foreign.BRIDGE_STATE if pad else foreign.ACTION, n) for n in range(2)]
    states = np.concatenate([row["observation.state"] for row in rows]).astype(float)
    np.testing.assert_allclose(data.proprio, states[:, [0, 1, 2, 3, 4, 5, -1]], atol=1e-6)
    actions = np.concatenate([row["action"] for row in rows])
    np.testing.assert_allclose(data.actions[:, 0], actions, atol=1e-6)
    np.testing.assert_allclose(data.steps, actions, atol=1e-6)
    turn = Rotation.from_euler("xyz", states[0, 3:6]).as_matrix() @ DOWN
    found = Rotation.from_quat(np.roll(data.poses[0, 3:7], -1)).as_matrix()
    np.testing.assert_allclose(found, turn, atol=1e-6)
    assert data.state is None
    assert data.instructions == list(foreign.TEXTS)


def test_fractal_is_what_the_policy_reads(tmp_path: Path) -> None:
    data = demonstrations(source(foreign.fractal(tmp_path / "set"), convention="fractal"), robot="google_robot")
    states = np.concatenate([foreign.numbers(6 + n, foreign.FRACTAL_STATE, n)["observation.state"] for n in range(2)])
    np.testing.assert_allclose(data.proprio[:, [0, 1, 2, 7]], states[:, [0, 1, 2, 7]], atol=1e-6)
    same = (data.proprio[:, 3:7] * states[:, 3:7]).sum(1)  # a quaternion and its opposite are one attitude
    np.testing.assert_allclose(np.abs(same), 1, atol=1e-6)
    actions = np.concatenate([foreign.numbers(6 + n, foreign.FRACTAL_STATE, n)["action"] for n in range(2)])
    np.testing.assert_allclose(data.actions[:, 0], actions, atol=1e-6)


def test_absolute_poses_are_differences_within_an_episode(tmp_path: Path) -> None:
    convention = Convention.parse({"preset": "bridge", "motion": "absolute", "tool": [1, 0, 0, 0], "name": "mine"})
    columns = foreign.numbers(4, foreign.BRIDGE_STATE)
    columns["observation.state"][:, :6] = columns["action"][:, :6] = 0
    columns["observation.state"][:, 0] = [0.1, 0.2, 0.3, 0.4]
    columns["action"][:, 0] = [0.11, 0.13, 0.13, 0.2]
    data = demonstrations(source(foreign.write(tmp_path / "set", [columns, columns]), convention=convention))
    np.testing.assert_allclose(data.actions[:, 0, 0], [0.01, 0.02, 0, 0.07] * 2, atol=1e-6)


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({}, r"observation\.state should hold 8 .*it holds 7 \(x y z roll pitch yaw gripper\): say .*convention="),
        (
            {"convention": "fractal"},
            r"state should hold 8 finite numbers as the convention fractal has them; it holds 7",
        ),
        ({"convention": "xvla"}, r"should hold 20 finite numbers as the convention xvla"),
        (
            {"columns": {"state": "observation.states"}},
            r"lacks the columns observation\.states; it has .*columns\.state=",
        ),
        ({"columns": {"camera": "image"}}, r"lacks the columns image; it has"),
    ],
)
def test_what_a_set_does_not_have_is_named(tmp_path: Path, known: dict[str, Any], said: str) -> None:
    with pytest.raises(GymError, match=said) as caught:
        demonstrations(source(foreign.bridge(tmp_path / "set", pad=False), **known))
    assert "\n" not in str(caught.value)


def test_the_set_s_own_names_point_to_their_convention(tmp_path: Path) -> None:
    names = {"observation.state": list(get_preset("openpi_libero").state.names), "action": foreign.ACTION}
    columns = foreign.numbers(4, foreign.BRIDGE_STATE)
    columns["observation.state"] = columns["observation.state"][:, :7]
    path = foreign.write(tmp_path / "set", [columns], names={**names, "observation.state": foreign.BRIDGE_STATE})
    with pytest.raises(InvalidConfigError, match=r"\(x y z roll pitch yaw pad gripper, as bridge and gr00t\)"):
        demonstrations(source(path))


def test_a_number_that_is_none_is_named_with_its_row(tmp_path: Path) -> None:
    episodes = [foreign.numbers(6, foreign.BRIDGE_STATE, n) for n in range(2)]
    episodes[1]["action"][3, 2] = np.nan
    path = foreign.write(tmp_path / "set", episodes, version=2)
    with pytest.raises(
        InvalidConfigError, match=r"episode_000001\.parquet, row 9 \(episode 1, frame 3\): action should"
    ):
        demonstrations(source(path, convention="bridge"))


def test_several_cameras_are_not_guessed(tmp_path: Path) -> None:
    path = foreign.bridge(tmp_path / "set")
    file = path / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    pq.write_table(table.append_column("observation.images.image_1", table["observation.images.image_0"]), file)
    info = json.loads((path / "meta/info.json").read_text())
    info["features"]["observation.images.image_1"] = info["features"]["observation.images.image_0"]
    (path / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(StorageError, match=r"image_0, observation\.images\.image_1, .*: say which by columns\.camera="):
        demonstrations(source(path, convention="bridge"))
    chosen = source(path, convention="bridge", columns={"camera": "observation.images.image_1"})
    assert len(demonstrations(chosen)) == 13


def test_instructions_may_be_a_column_of_texts_or_of_their_numbers(tmp_path: Path) -> None:
    path = foreign.bridge(tmp_path / "set", episodes=1)
    file = path / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    for name, values in (("told", ["go"] * 6), ("number", [1] * 6)):
        table = table.append_column(name, pa.array(values))
    pq.write_table(table, file)
    info = json.loads((path / "meta/info.json").read_text())
    info["features"] |= {name: {"dtype": "x", "shape": [1], "names": None} for name in ("told", "number")}
    (path / "meta/info.json").write_text(json.dumps(info))
    for name, said in (("told", "go"), ("number", foreign.TEXTS[1])):
        assert demonstrations(source(path, convention="bridge", columns={"instruction": name})).instructions == [said]


# ---------------------------------------------------------------------- rates


def test_another_rate_is_refused_or_resampled(tmp_path: Path) -> None:
    """Four rows become one: their translations add up, their turns follow one another, the last gripper counts."""
    path = foreign.bridge(tmp_path / "set", episodes=2, length=9, fps=20)
    with pytest.raises(
        InvalidConfigError, match=r"has 20 rows per second, and widowx takes 5 actions: resample it by fps=5"
    ):
        demonstrations(source(path, convention="bridge"))
    data = demonstrations(source(path, convention="bridge", fps=5), horizon=1)
    rows = [foreign.numbers(9 + n, foreign.BRIDGE_STATE, n) for n in range(2)]
    parts = [(row, range(0, len(row["action"]), 4)) for row in rows]
    assert len(data) == sum(len(starts) for _, starts in parts) == 6
    wanted = []
    for row, starts in parts:
        for start in starts:
            block = row["action"][start : start + 4].astype(float)
            turn = Rotation.identity()
            for angles in block[:, 3:6]:
                turn = Rotation.from_euler("xyz", angles) * turn
            wanted.append([*block[:, :3].sum(0), *turn.as_euler("xyz"), block[-1, 6]])
    np.testing.assert_allclose(data.actions[:, 0], wanted, atol=1e-6)
    states = np.concatenate([row["observation.state"][::4] for row in rows])
    np.testing.assert_allclose(data.proprio[:, :3], states[:, :3], atol=1e-6)
    bright = data.pixels(np.arange(6)).mean((1, 2, 3))
    assert bright.tolist() == [0, 40, 80, 1, 41, 81]
    taken = demonstrations(source(path, convention="bridge", fps=20))
    assert len(taken) == 19


def test_a_rate_that_is_no_divisor_takes_the_nearest_rows(tmp_path: Path) -> None:
    path = foreign.bridge(tmp_path / "set", episodes=1, length=10, fps=7.5)
    data = demonstrations(source(path, convention="bridge", fps=5), horizon=1)
    rows = [round(k * 1.5) for k in range(7) if round(k * 1.5) < 10]
    states = foreign.numbers(10, foreign.BRIDGE_STATE)["observation.state"][rows]
    np.testing.assert_allclose(data.proprio[:, :3], states[:, :3], atol=1e-6)
    every = foreign.numbers(10, foreign.BRIDGE_STATE)["action"][:, :3].sum(0)
    np.testing.assert_allclose(data.actions[:, 0, :3].sum(0), every, atol=1e-6)
    with pytest.raises(InvalidConfigError, match=r"can be resampled to fewer; got fps=10"):
        demonstrations(source(path, convention="bridge", fps=10))


# ---------------------------------------------------------------------- several sets


def test_weights_are_shares_of_the_samples() -> None:
    mixture = Mixture(PARTS, [1.0, 4.0], seed=0)
    drawn = mixture.rows(np.arange(5000))
    counts = Counter(int(row >= 3) for row in drawn)
    assert counts == {0: 1000, 1: 4000}
    small = [row for row in drawn.tolist() if row < 3]
    for start in range(0, 999, 3):
        assert sorted(small[start : start + 3]) == [0, 1, 2], "each sample once before any comes twice"
    windows = [Counter((drawn[i : i + 10] >= 3).tolist())[False] for i in range(0, 5000, 10)]
    assert set(windows) <= {1, 2, 3}
    np.testing.assert_array_equal(Mixture(PARTS, [1.0, 4.0], seed=0).rows(np.arange(4321, 4329)), drawn[4321:4329])
    assert not np.array_equal(Mixture(PARTS, [1.0, 4.0], seed=1).rows(np.arange(50)), drawn[:50])


def test_ours_and_theirs_in_one_run(tmp_path: Path) -> None:
    """Each with its own meaning; where one has no simulator's state, nobody learns where things are."""
    ours, theirs = write_set(tmp_path / "ours", 2), foreign.bridge(tmp_path / "theirs", version=2)
    both = demonstrations(source(ours), source(theirs, convention="bridge"))
    assert [part.tolist() for part in both.parts] == [list(range(11)), list(range(11, 24))]
    assert both.state is None
    np.testing.assert_array_equal(both.actions[:11], demonstrations(source(ours)).actions)
    np.testing.assert_array_equal(both.actions[11:], demonstrations(source(theirs, convention="bridge")).actions)


def test_first_samples_of_each_episode(tmp_path: Path) -> None:
    """Of episodes of 6, 7 and 8 rows the first two each; all rows stay readable, and other sets keep their shares."""
    whole, some = foreign.bridge(tmp_path / "a", episodes=3), foreign.bridge(tmp_path / "b", episodes=3)
    agent = TrainableVlaser(VlaserPolicy.initialise(tiny_config(), 0), nano_processor(tiny_config()))
    readers = [replace(source(path, convention="bridge"), first=first) for path, first in ((whole, None), (some, 2))]
    data = demonstrations(*readers, horizon=4)
    begin = 21 + np.array([0, 1, 6, 7, 13, 14])
    assert len(data) == 42
    np.testing.assert_array_equal(data.parts[1], begin)
    drawn = Batches(data, agent, 0).rows(0, 27 * 40)
    assert set(drawn.tolist()) == {*range(21), *begin.tolist()}
    assert Counter((drawn >= 21).tolist())[True] / len(drawn) == pytest.approx(6 / 27, abs=0.01)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("[{path: a, wieght: 2}]", "Unknown key of a data set 'wieght'.*weight"),
        ("[{path: a, weight: -1}]", "weight of the data set a must be a number above 0; got -1"),
        ("[{weight: 1}]", "data is a folder, or a list"),
        ("[{path: a, convention: brigde}]", "Unknown convention 'brigde'.*bridge"),
        ("[{path: a, columns: {kamera: x}}]", "Unknown column 'kamera'.*camera"),
        ("[{path: a, gripper: sideways}]", "Unknown gripper"),
        ("[{path: a, first: 0}]", "first of the data set a must be a number of samples.*got 0"),
    ],
)
def test_what_is_no_data_set_is_one_sentence(data: str, said: str) -> None:
    settings = typed(TrainSettings, load("train", [f"data={data}"]))
    with pytest.raises(GymError, match=said):
        sources(settings)


def test_settings_name_sets_with_what_is_their_own() -> None:
    line = "data=[{path: a, weight: 3, convention: bridge, columns: {camera: c}}, b]"
    settings = typed(TrainSettings, load("train", [line, "columns.state=s", "fps=5"]))
    first, second = sources(settings)
    assert (first.path, first.weight, first.columns.camera, first.columns.state) == ("a", 3, "c", "s")
    assert first.convention == get_preset("bridge")
    assert (second.path, second.weight, second.columns.camera, second.convention) == ("b", 1, None, None)
    assert second.fps == 5
    assert settings.data_sets == ["a", "b"]
    assert "convention" not in typed(TrainSettings, load("train", [])).stored("nano")


@pytest.mark.slow
@pytest.mark.parametrize("version", [2, 3])
def test_a_policy_trains_on_a_foreign_set(tmp_path: Path, version: int, capsys: Any) -> None:
    path = foreign.bridge(tmp_path / "set", version=version, pad=False)
    main(
        load(
            "train",
            [
                *("algo=sft", "init=nano", "threads=1", "evaluate_episodes=0", "algo.steps=2", "algo.batch_size=4"),
                *(f"data={path}", "convention=bridge", f"run={tmp_path / 'run'}", f"cache={tmp_path / 'cache'}"),
            ],
        )
    )
    assert (tmp_path / "run/checkpoint/model.safetensors").is_file()
