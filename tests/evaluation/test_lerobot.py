"""What the writer of data sets touches, refuses and leaves behind. Rows are tested in tests/test_collect.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from vlaser_gym.envs.address import Address
from vlaser_gym.errors import StorageError
from vlaser_gym.evaluation.lerobot import LeRobotReader, LeRobotWriter

sys.path.insert(0, str(Path(__file__).parents[1] / "agents" / "learners"))
from demonstrations import CAMERA, fake_episode, write_old_set, write_set

INDICES = ("timestamp", "frame_index", "episode_index", "index", "task_index")

#: Stores a drop and dies at once.
KILLED = """
import os, signal, sys
from vlaser_gym.envs.address import Address
from vlaser_gym.evaluation.lerobot import LeRobotWriter
writer = LeRobotWriter(sys.argv[1], fps=5, robot="widowx", settings={"tail": 8})
writer.__enter__()
writer.drop(Address("widowx_stack_cube", layout="region:3"))
os.kill(os.getpid(), signal.SIGKILL)
"""


def writer(path: Path, **settings: Any) -> LeRobotWriter:
    return LeRobotWriter(path, fps=5, robot="widowx", group=1, settings=settings)


def files(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    "theirs",
    [
        {"data/chunk-000/file-000.parquet": b"mine"},
        {"videos/holiday/beach.mp4": b"sun"},
        {"meta/notes.txt": b"dear"},
        {"letter.txt": b"dear"},
        {"meta/info.json": b'{"codebase_version": "v3.0", "fps": 5}', "data/chunk-000/file-001.parquet": b"mine"},
    ],
)
def test_what_it_has_not_made_is_refused_and_left_alone(theirs: dict[str, bytes], tmp_path: Path) -> None:
    for name, data in theirs.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    for _ in range(2):
        with pytest.raises(StorageError, match="choose another output="), writer(tmp_path):
            pass
    assert files(tmp_path) == theirs


def test_of_its_own_folder_only_its_own_leftovers_go(tmp_path: Path) -> None:
    with writer(tmp_path) as mine:
        mine.add(fake_episode(0))
    before = files(tmp_path)
    kept = {"data/chunk-000/notes.txt": b"dear", "data/backup/file-009.parquet": b"dear"}
    leftover = {"data/chunk-000/file-001.parquet": b"", "data/chunk-000/file-002.parquet.tmp": b""}
    for name, data in {**kept, **leftover}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    with writer(tmp_path):
        pass
    assert files(tmp_path) == {**before, **kept}


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_without_an_episode_there_is_no_trace(error: type[BaseException] | None, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for path in (tmp_path / "new" / "nested", tmp_path / "there"):
        try:
            with writer(path):
                assert path.is_dir()
                if error is not None:
                    raise error
        except KeyboardInterrupt:
            pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["there"]
    assert not list((tmp_path / "there").iterdir())


def test_a_start_that_was_cut_can_be_repeated(tmp_path: Path) -> None:
    """Killed while the first group was being written, then stopped before the first episode."""
    with writer(tmp_path):
        for name in ("data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet.tmp"):
            (tmp_path / name).parent.mkdir(parents=True)
            (tmp_path / name).write_bytes(b"cut")
        (tmp_path / "meta/dropped.jsonl").write_bytes(b'{"task": "wid')
    with writer(tmp_path, every=2):
        pass
    with writer(tmp_path, every=4) as mine:
        mine.add(fake_episode(0))
    assert len(LeRobotReader(tmp_path).episodes) == 1


def test_other_settings_are_named_and_the_folder_is_let_go(tmp_path: Path) -> None:
    with writer(tmp_path, every=4, agent={"name": "expert", "noise": 0.1}) as mine:
        mine.add(fake_episode(0))
    with (
        pytest.raises(StorageError, match="other settings") as caught,
        writer(tmp_path, every=2, agent={"name": "expert", "noise": 0.2}, tail=8),
    ):
        pass
    assert "(agent.noise was 0.1, now 0.2; every was 4, now 2; tail was not set, now 8)" in str(caught.value)
    with writer(tmp_path, every=4, agent={"name": "expert", "noise": 0.1}) as mine:
        assert mine.total_episodes == 1
    assert json.loads((tmp_path / "meta/collection.json").read_text())["every"] == 4


@pytest.mark.parametrize("named", ["info.json", "collection.json"])
def test_data_sets_of_the_layout_of_before_are_not_continued(named: str, tmp_path: Path) -> None:
    """Their settings are in info.json alone, or also in collection.json; their rows have blocks of actions."""
    write_old_set(tmp_path, [fake_episode(0, 8, 4)], 4)
    if named == "collection.json":
        (tmp_path / "meta/collection.json").write_text('{"fps": 1.25, "robot_type": "widowx", "every": 4}')
    before = files(tmp_path)
    with pytest.raises(StorageError, match=r"earlier version.*not continued; choose another output="), writer(tmp_path):
        pass
    assert files(tmp_path) == before


#: What LeRobot 0.6 knows in info.json (the fields of its DatasetInfo); it warns of others.
FIELDS = {
    *("codebase_version", "fps", "features", "total_episodes", "total_frames", "total_tasks", "chunks_size"),
    *("data_files_size_in_mb", "video_files_size_in_mb", "data_path", "video_path", "robot_type", "splits", "tools"),
}


def kinds(features: dict[str, Any]) -> dict[str, str]:
    """What LeRobot 0.6 makes of each column for its stock policies (its dataset_to_policy_features)."""
    found = {}
    for name, feature in features.items():
        if feature["dtype"] in ("image", "video"):
            found[name] = "picture"
        elif name == "observation.environment_state":
            found[name] = "simulator"
        elif name.startswith("observation"):
            found[name] = "state"
        elif name.startswith("action"):
            found[name] = "action"
    return found


@pytest.mark.parametrize("images", ["png", "mp4"])
def test_stock_policies_see_picture_and_state_and_predict_the_action_alone(images: str, tmp_path: Path) -> None:
    write_set(tmp_path, 3, every=4, images=images)
    info = json.loads((tmp_path / "meta/info.json").read_text())
    expected = {CAMERA: "picture", "observation.state": "state", "action": "action"}
    assert kinds(info["features"]) == expected
    assert info["features"]["action"]["shape"] == [7]
    assert info["features"]["observation.state"]["shape"] == [8]
    assert set(info) <= FIELDS
    assert isinstance(info["fps"], int)


def test_every_row_has_what_was_meant_and_what_was_executed(tmp_path: Path) -> None:
    write_set(tmp_path, 2, rows=6, every=4)
    columns = pq.read_table(tmp_path / "data/chunk-000/file-000.parquet").to_pydict()
    episodes = [fake_episode(number, 6 + number, 4) for number in range(2)]
    for name, key in (("action", "label"), ("privileged.executed", "action"), ("privileged.state", "state")):
        np.testing.assert_array_equal(columns[name], np.concatenate([e.columns[key] for e in episodes]))
    assert columns["privileged.decision"] == [t % 4 == 0 for length in (6, 7) for t in range(length)]
    np.testing.assert_allclose(columns["timestamp"], [t / 5 for length in (6, 7) for t in range(length)], rtol=1e-6)
    pictures = [cv2.imdecode(np.frombuffer(p["bytes"], np.uint8), cv2.IMREAD_COLOR) for p in columns[CAMERA]]
    np.testing.assert_array_equal(np.stack(pictures)[..., ::-1], np.concatenate([e.frames for e in episodes]))


def test_statistics_are_those_of_all_rows_also_in_a_set_that_was_continued(tmp_path: Path) -> None:
    """By numpy from the columns; the images' quantiles are means over the episodes, as in LeRobot."""
    for begin in (0, 2):
        with writer(tmp_path) as mine:
            for number in range(begin, begin + 2):
                mine.add(fake_episode(number, 5 + number))
    stored = json.loads((tmp_path / "meta/stats.json").read_text())
    episodes = [fake_episode(number, 5 + number) for number in range(4)]
    for name, key in (("action", "label"), ("observation.state", "proprio"), ("privileged.state", "state")):
        check_statistics(stored[name], np.concatenate([e.columns[key] for e in episodes]).astype(float), (0,))
    done = np.concatenate([e.columns["done"] for e in episodes])[:, None].astype(float)
    check_statistics(stored["next.done"], done, (0,))
    pictures = np.concatenate([e.frames for e in episodes]) / 255
    check_statistics(stored[CAMERA], pictures, (0, 1, 2), quantiles=False)
    of_each = [np.quantile(e.frames / 255, 0.9, axis=(0, 1, 2)) for e in episodes]
    np.testing.assert_allclose(np.ravel(stored[CAMERA]["q90"]), np.average(of_each, 0, [5, 6, 7, 8]), atol=1e-12)
    assert np.shape(stored[CAMERA]["q90"]) == np.shape(stored[CAMERA]["mean"]) == (3, 1, 1)
    listed = pq.read_table(tmp_path / "meta/episodes/chunk-000/file-002.parquet").to_pylist()[0]
    check_statistics(
        {k: listed[f"stats/action/{k}"] for k in stored["action"]}, episodes[2].columns["label"].astype(float), (0,)
    )


def check_statistics(stored: dict[str, Any], values: Any, axes: tuple[int, ...], quantiles: bool = True) -> None:
    assert stored["count"] == [len(values)]
    for name in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(np.ravel(stored[name]), getattr(values, name)(axes), atol=1e-12, err_msg=name)
    for name in ("q01", "q10", "q50", "q90", "q99") if quantiles else ():
        np.testing.assert_allclose(stored[name], np.quantile(values, int(name[1:]) / 100, axis=0), atol=1e-12)


def test_the_data_card_says_what_the_columns_are_and_is_its_owners_afterwards(tmp_path: Path) -> None:
    with writer(tmp_path, every=4, agent={"name": "expert"}, engine="mujoco", only_successful=True) as mine:
        mine.add(fake_episode(0, every=4))
    card = (tmp_path / "README.md").read_text()
    info = json.loads((tmp_path / "meta/info.json").read_text())
    for name in info["features"]:
        if not name.startswith("next.") and name not in INDICES:
            assert f"| `{name}` |" in card
    assert "then the gripper's goal: -1 closed to 1 open" in card
    assert "every 4 steps" in card
    (tmp_path / "README.md").write_text("mine")
    with writer(tmp_path, every=4, agent={"name": "expert"}, engine="mujoco", only_successful=True) as mine:
        mine.add(fake_episode(1, every=4))
    assert (tmp_path / "README.md").read_text() == "mine"


def test_instructions_are_on_disk_before_the_rows_that_name_them(tmp_path: Path, monkeypatch: Any) -> None:
    """A writer that dies after a group leaves a set that can be read and continued."""
    with writer(tmp_path) as mine:
        mine.add(fake_episode(0))
    monkeypatch.setattr(LeRobotWriter, "_write_meta", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), writer(tmp_path) as mine:
        mine.add(fake_episode(1))
    monkeypatch.undo()
    assert LeRobotReader(tmp_path).instructions() == ["stack the cubes"] * 5 + ["put it there"] * 5
    with writer(tmp_path) as mine:
        mine.add(fake_episode(2))
    assert LeRobotReader(tmp_path).instructions()[10:] == ["stack the cubes"] * 5


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("dear")
    for path in (tmp_path / "file", tmp_path / "file" / "set", Path("/proc/x"), tmp_path / "new" / ("x" * 300)):
        with pytest.raises(StorageError, match=r"Cannot write the data set .*output=DIR") as caught, writer(path):
            pass
        assert "\n" not in str(caught.value)
    assert files(tmp_path) == {"file": b"dear"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_dropped_episodes_survive_a_killed_process_and_a_cut_line(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "set")], check=False)
    with (tmp_path / "set/meta/dropped.jsonl").open("ab") as file:
        file.write(b'{"task": "widowx_sta')
    address = Address("widowx_stack_cube", layout="region:3")
    with writer(tmp_path / "set", tail=8) as mine:
        assert mine.dropped == mine.addresses == {address}
        mine.drop(Address("widowx_stack_cube", layout="region:4"))
    with pytest.raises(StorageError, match="tail was 8, now 9"), writer(tmp_path / "set", tail=9):
        pass
    with writer(tmp_path / "set", tail=8) as mine:
        assert len(mine.dropped) == 2


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    with writer(tmp_path), pytest.raises(StorageError, match="wait for it or choose another output="):
        writer(tmp_path).__enter__()


@pytest.mark.parametrize("images", ["png", "mp4"])
@pytest.mark.parametrize("missing", ["meta/info.json", "meta/stats.json", "README.md"])
def test_a_writer_that_died_before_it_counted_is_made_up_for(images: str, missing: str, tmp_path: Path) -> None:
    """The rows of the second group are stored; what follows from them is of the first group, or not there."""
    whole, path = tmp_path / "whole", tmp_path / "set"
    write_set(whole, 4, group=2, images=images)
    write_set(path, 4, group=2, images=images)
    write_set(tmp_path / "first", 2, group=2, images=images)
    for name in ("meta/info.json", "meta/stats.json"):
        (path / name).write_bytes((tmp_path / "first" / name).read_bytes())
    (path / missing).unlink()
    with LeRobotWriter(path, fps=5, robot="widowx", images=images, group=2) as mine:
        assert mine.total_episodes == 4
    for name in ("meta/info.json", "meta/stats.json", "README.md"):
        assert (path / name).read_bytes() == (whole / name).read_bytes(), name


def test_tasks_of_different_flags_share_a_data_set(tmp_path: Path) -> None:
    own = [name[5:] for name in fake_episode(0).columns if name.startswith("flag/")]
    with LeRobotWriter(tmp_path, fps=5, robot="widowx", group=2, flags=["of_another", *own]) as mine:
        mine.add(fake_episode(0))
        mine.add(fake_episode(1))
    table = pq.read_table(tmp_path / "data/chunk-000/file-000.parquet")
    assert not any(table["next.of_another"].to_pylist())
    assert {f"next.{name}" for name in own} <= set(table.column_names)
