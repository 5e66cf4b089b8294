"""Data sets as LeRobot packs and edits them: read by the format's index, or refused with file and episode."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlaser_gym.errors import StorageError
from vlaser_gym.evaluation.lerobot import LeRobotReader

sys.path.insert(0, str(Path(__file__).parents[1] / "agents" / "learners"))
from demonstrations import CAMERA, SIZE, fake_episode, write_old_set, write_set, write_tasks

DATA, EPISODES = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"
VIDEO = f"videos/{CAMERA}/chunk-000/file-000.mp4"
LENGTH, COUNT = 6, 4


def grey(number: int, row: int) -> int:
    """The shade of an image, by which a row knows its own."""
    return 10 + 40 * number + 6 * row


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Four episodes of six rows in one file, the first three in one video, all told apart by their shade."""
    return packed(tmp_path / "set", "png")


def packed(path: Path, images: str) -> Path:
    episodes = [fake_episode(number, LENGTH, stages=2) for number in range(COUNT)]
    for number, episode in enumerate(episodes):
        episode.frames[:] = np.array([grey(number, row) for row in range(LENGTH)])[:, None, None, None]
    write_old_set(path, episodes, 1, images)
    edit_info(path, lambda info: info.pop("vlaser_gym"))
    return path


def edit_info(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    info = json.loads((path / "meta/info.json").read_text())
    change(info)
    (path / "meta/info.json").write_text(json.dumps(info))


def edit_episodes(path: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    rows = pq.read_table(path / EPISODES).to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows), path / EPISODES)


def edit_rows(path: Path, name: str, change: Callable[[list[Any]], list[Any]]) -> None:
    table = pq.read_table(path / DATA)
    column = pa.array(change(table[name].to_pylist()), table.schema.field(name).type)
    pq.write_table(table.set_column(table.column_names.index(name), name, column), path / DATA)


def shades(path: Path) -> list[list[int]]:
    return [[round(float(picture.mean())) for picture in frames] for frames in LeRobotReader(path).frames()]


EXPECTED = [[grey(number, row) for row in range(LENGTH)] for number in range(COUNT)]
TOLD = [text for number in range(COUNT) for text in fake_episode(number, LENGTH, stages=2).instructions]


def test_instructions_are_looked_up_by_their_number(path: Path) -> None:
    """The table lists them in another order than the episodes come, and is not sorted by number either."""
    assert LeRobotReader(path).instructions() == TOLD
    first, second = dict.fromkeys(TOLD)
    write_tasks(path, [second, "never told", first], [3, 8, 1])
    edit_rows(path, "task_index", lambda numbers: [{0: 1, 1: 3}[number] for number in numbers])
    assert LeRobotReader(path).instructions() == TOLD


def test_rows_are_found_by_the_files_that_their_episode_names(path: Path) -> None:
    """Four episodes in one file of meta/episodes, their rows in two data files, neither called as it."""
    before = LeRobotReader(path).columns(["action", "index"])
    table = pq.read_table(path / DATA)
    (path / DATA).unlink()
    (path / "data/chunk-004").mkdir()
    for file, rows in (("chunk-000/file-007", slice(0, 12)), ("chunk-004/file-001", slice(12, 24))):
        pq.write_table(table.slice(rows.start, 12), path / f"data/{file}.parquet")

    def move(rows: list[dict[str, Any]]) -> None:
        for number, row in enumerate(rows):
            row["data/chunk_index"], row["data/file_index"] = ((0, 7), (4, 1))[number // 2]

    edit_episodes(path, move)
    reader = LeRobotReader(path)
    for name, values in reader.columns(["action", "index"]).items():
        np.testing.assert_array_equal(values, before[name])
    assert shades(path) == EXPECTED
    assert reader.instructions() == TOLD
    assert reader.place(13) == f"{path}/data/chunk-004/file-001.parquet, row 13 (episode 2, frame 1)"


def test_pictures_are_found_by_their_time_in_their_video(tmp_path: Path) -> None:
    """Two videos; the first one begins with images that belong to no episode."""
    path = packed(tmp_path / "set", "mp4")
    (path / VIDEO).unlink()
    first = [250, 250, *EXPECTED[0], *EXPECTED[1]]
    for name, values in (("file-003", first), ("file-005", EXPECTED[2] + EXPECTED[3])):
        write_video(path / VIDEO.replace("file-000", name), values)

    def move(rows: list[dict[str, Any]]) -> None:
        for number, row in enumerate(rows):
            start = LENGTH * (number % 2) + (2 if number < 2 else 0)
            row[f"videos/{CAMERA}/file_index"] = 3 if number < 2 else 5
            row[f"videos/{CAMERA}/from_timestamp"] = start / 5
            row[f"videos/{CAMERA}/to_timestamp"] = (start + LENGTH) / 5

    edit_episodes(path, move)
    found = [value for values in shades(path) for value in values]
    np.testing.assert_allclose(found, np.ravel(EXPECTED), atol=2)
    chosen = np.arange(24) % 5 == 0
    some = [round(float(picture.mean())) for frames in LeRobotReader(path).frames(chosen) for picture in frames]
    np.testing.assert_allclose(some, np.ravel(EXPECTED)[::5], atol=2)


def write_video(file: Path, values: list[int], fps: float = 5) -> None:
    pictures = [np.full((SIZE, SIZE, 3), value, np.uint8) for value in values]
    imageio.mimwrite(file, pictures, fps=fps, quality=8, macro_block_size=2)


@pytest.mark.parametrize(("missing", "episode", "behind"), [(2, 3, 24), (13, 1, 12), (-3, 3, 24)])
def test_a_video_of_another_length_is_refused_with_both_numbers(
    tmp_path: Path, missing: int, episode: int, behind: int
) -> None:
    path = packed(tmp_path / "set", "mp4")
    values = [*np.ravel(EXPECTED), 0, 0, 0][: 24 - missing]
    write_video(path / VIDEO, [int(value) for value in values])
    with pytest.raises(StorageError) as caught:
        list(LeRobotReader(path).frames())
    said = f"{path / VIDEO} holds {24 - missing} images; by {path / EPISODES} episode {episode} ends there"
    assert str(caught.value).startswith(said)
    assert f"with image {behind}" in str(caught.value)


def test_a_video_of_another_pace_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "set", "mp4")
    write_video(path / VIDEO, [int(value) for value in np.ravel(EXPECTED)], fps=30)
    with pytest.raises(StorageError, match=r"file-000.mp4 has 30 images per second; .*info.json says 5"):
        list(LeRobotReader(path).frames())


def test_a_damaged_video_and_a_missing_one_are_named(tmp_path: Path) -> None:
    path = packed(tmp_path / "set", "mp4")
    (path / VIDEO).write_bytes(b"junk")
    with pytest.raises(StorageError, match=r"Cannot decode the video .*file-000.mp4") as caught:
        list(LeRobotReader(path).frames())
    assert "\n" not in str(caught.value)
    (path / VIDEO).unlink()
    with pytest.raises(StorageError, match=r"The video .*file-000.mp4, which meta/episodes names, is not there"):
        list(LeRobotReader(path).frames())


def read_all(path: Path) -> None:
    reader = LeRobotReader(path)
    reader.columns(["action"])
    reader.instructions()
    list(reader.frames())


def set_of(row: int, **values: Any) -> Callable[[Path], None]:
    return lambda path: edit_episodes(path, lambda rows: rows[row].update(values))


def in_rows(name: str, change: Callable[[list[Any]], list[Any]]) -> Callable[[Path], None]:
    return lambda path: edit_rows(path, name, change)


def drop_row(path: Path) -> None:
    table = pq.read_table(path / DATA)
    pq.write_table(pa.concat_tables([table.slice(0, 8), table.slice(9)]), path / DATA)


def drop_last_episode(path: Path) -> None:
    edit_episodes(path, lambda rows: rows.pop())
    edit_info(path, lambda info: info.update(total_episodes=3))


WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "rows": (drop_row, r"data/chunk-000/file-000.parquet holds 5 rows of episode 1; .*meta/episodes.* counts 6"),
    "numbers": (in_rows("index", lambda n: [*n[:6], *(i + 1 for i in n[6:])]), r"episode 1 7 to 12 .* says 6 to 11"),
    "order": (in_rows("index", lambda n: [1, 0, *n[2:]]), r"numbers the rows of episode 0 0 to 5 .*another order"),
    "length": (set_of(2, length=7), r"list episode 2 with the rows 12 to 19 here, as its length is 7; .* 12 to 18"),
    "place": (set_of(1, **{"data/file_index": 3}), r"file-000.parquet holds 6 rows of episode 1, which meta/episodes"),
    "no file": (
        lambda path: (path / DATA).unlink(),
        r"rows of episode 0 are in .*file-000.parquet, which is not there",
    ),
    "unlisted": (drop_last_episode, r"file-000.parquet holds 6 rows of episode 3, which meta/episodes does not place"),
    "missing": (lambda path: edit_episodes(path, lambda rows: rows.pop()), r"info.json counts 4 episodes; .* lists 3"),
    "unknown task": (in_rows("task_index", lambda n: [*n[:9], 7, *n[10:]]), r"rows of episode 1 have the task_index 7"),
    "other task": (
        in_rows("task_index", lambda n: [0] * 6 + n[6:]),
        r"rows of episode 0 are told 'stack the cubes' by",
    ),
    "task number": (lambda path: write_tasks(path, ["a", "b"], [1, 1]), r"tasks.parquet gives the task_index 1 to sev"),
    "no tasks": (lambda path: (path / "meta/tasks.parquet").unlink(), r"Cannot read .*meta/tasks.parquet"),
    "gap": (in_rows("task_index", lambda n: [None, *n[1:]]), r"each row of the column task_index should hold"),
    "shape": (lambda path: edit_info(path, lambda i: i["features"]["action"].update(shape=[6])), r"of shape \[6\]"),
    "picture": (
        in_rows(CAMERA, lambda rows: [*rows[:8], {"bytes": b"junk", "path": None}, *rows[9:]]),
        r"file-000.parquet, row 8 \(episode 1, frame 2\): observation.images.main holds no image",
    ),
    "camera": (
        lambda path: edit_info(path, lambda i: i["features"].pop(CAMERA)),
        f"lacks the columns {CAMERA}; it has",
    ),
    "column": (
        lambda path: edit_info(path, lambda i: i["features"].pop("action")),
        r"lacks the columns action; it has",
    ),
    "damaged": (lambda path: (path / DATA).write_bytes(b"junk"), r"Cannot read .*data/chunk-000/file-000.parquet"),
    "info": (lambda path: (path / "meta/info.json").write_bytes(b"junk"), r"info.json is damaged"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_does_not_add_up_is_refused_with_file_and_episode(path: Path, wrong: str) -> None:
    read_all(path)
    damage, said = WRONG[wrong]
    damage(path)
    with pytest.raises(StorageError, match=said) as caught:
        read_all(path)
    assert "\n" not in str(caught.value)


def test_a_table_of_instructions_that_is_behind_does_not_stop_an_older_data_set(tmp_path: Path) -> None:
    """This gym used to write the table last, and a killed command left it behind the rows."""
    path = write_old_set(tmp_path / "set", [fake_episode(number, LENGTH) for number in range(2)], 2)
    told = LeRobotReader(path).instructions()
    write_tasks(path, told[:1])
    assert LeRobotReader(path).instructions() == told
    assert len(set(told)) == 2


def test_a_set_that_grows_is_read_up_to_the_groups_that_were_there(tmp_path: Path) -> None:
    path = write_set(tmp_path / "set", 6, group=2)
    reader = LeRobotReader(path, groups=2)
    assert (len(reader.episodes), reader.total_frames) == (4, 22)
    assert sum(len(frames) for frames in reader.frames()) == 22 == len(reader.instructions())
