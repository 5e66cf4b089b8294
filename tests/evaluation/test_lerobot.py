"""What the writer of data sets touches, refuses and leaves behind. Rows are tested in tests/test_collect.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vlaser_gym.envs.address import Address
from vlaser_gym.errors import StorageError
from vlaser_gym.evaluation.lerobot import LeRobotReader, LeRobotWriter

sys.path.insert(0, str(Path(__file__).parents[1] / "agents" / "learners"))
from demonstrations import fake_episode

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
    assert json.loads((tmp_path / "meta/info.json").read_text())["vlaser_gym"]["every"] == 4


def test_older_data_sets_go_on(tmp_path: Path) -> None:
    """They hold their settings in info.json alone."""
    with writer(tmp_path, every=4) as mine:
        mine.add(fake_episode(0))
    (tmp_path / "meta/collection.json").unlink()
    with pytest.raises(StorageError, match="every was 4, now 2"), writer(tmp_path, every=2):
        pass
    with writer(tmp_path, every=4) as mine:
        mine.add(fake_episode(1))
    assert len(LeRobotReader(tmp_path).episodes) == 2


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
