from __future__ import annotations

import json
import sys
from types import ModuleType

import pytest
from stand_in_trackers import install

from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.tracker import TRACKER_FILE, Tracker, check_tracker
from vlaser_gym.settings.training import TRACKERS

ROWS = [{"step": 0, "loss": 2.5}, {"step": 5, "loss": 1.25}, {"step": 5, "success/mean": 0.5}]


@pytest.mark.parametrize("name", TRACKERS)
def test_rows_arrive_once_and_a_continued_run_is_the_same(tmp_path, monkeypatch, name):
    package = install(name, monkeypatch)
    first = Tracker(name, "mine", tmp_path, {"seed": 3})
    first.send([])
    first.send(ROWS[:1])
    first.send(ROWS[:1])
    first.close()
    assert package.rows == ROWS[:1]
    second = Tracker(name, "mine", tmp_path, {"seed": 3})
    second.send(ROWS)
    second.close(failed=True)
    assert package.rows == ROWS
    assert [begun["config"] for begun in package.begun] == [{"seed": 3}] * 2
    kept = json.loads((tmp_path / TRACKER_FILE).read_text())
    assert kept == {f"{name}/mine": {"id": kept[f"{name}/mine"]["id"], "rows": 3}}
    if name == "wandb":
        assert package.ends == [0, 1], "a run that failed is not a finished one"
        assert package.axes[:2] == [("step", None), ("*", "step")]
        assert package.begun[0]["dir"] == str(tmp_path)
    assert package.begun[0]["name"].startswith(tmp_path.name)


def test_nothing_is_begun_where_nothing_is_new(tmp_path, monkeypatch):
    package = install("wandb", monkeypatch)
    for _ in range(2):
        tracker = Tracker("wandb", "mine", tmp_path, {})
        tracker.send(ROWS)
        tracker.close()
    assert len(package.begun) == 1
    Tracker("wandb", "another", tmp_path, {}).send(ROWS)
    assert len(package.runs) == 2
    assert all(rows == ROWS for rows in package.runs.values())


def test_rows_that_were_taken_back_begin_another_run(tmp_path, monkeypatch):
    """An older trainer state was put back by hand; no tracker forgets what came after it."""
    package = install("wandb", monkeypatch)
    Tracker("wandb", "mine", tmp_path, {}).send(ROWS)
    other = [ROWS[0], {"step": 5, "loss": 7.0}]
    Tracker("wandb", "mine", tmp_path, {}).send(other)
    assert list(package.runs.values()) == [ROWS, other]


@pytest.mark.parametrize("name", TRACKERS)
@pytest.mark.parametrize("call", ["init", "log", "finish"])
def test_a_failure_is_one_sentence_and_what_is_missing_comes_later(tmp_path, monkeypatch, name, call):
    package = install(name, monkeypatch)
    package.broken = {call}
    said: list[str] = []
    tracker = Tracker(name, "mine", tmp_path, {}, said.append)
    for count in range(len(ROWS) + 1):
        tracker.send(ROWS[:count])
    tracker.close()
    assert said == [
        f"Warning: tracker={name} failed (no network for {call}); the run goes on without it and keeps its numbers, "
        f"and the same command with run={tmp_path} sends what is missing."
    ]
    package.broken = set()
    tracker = Tracker(name, "mine", tmp_path, {}, said.append)
    tracker.send(ROWS)
    tracker.close()
    assert package.rows == ROWS
    assert len(said) == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"wandb/mine": 3}'])
def test_neither_a_damaged_file_nor_a_full_disk_raises(tmp_path, monkeypatch, text):
    install("wandb", monkeypatch)
    (tmp_path / TRACKER_FILE).write_text(text)
    Tracker("wandb", "mine", tmp_path, {}).send(ROWS)
    (tmp_path / TRACKER_FILE).unlink(missing_ok=True)
    (tmp_path / TRACKER_FILE).mkdir()  # no file can take its place
    said: list[str] = []
    Tracker("wandb", "mine", tmp_path, {}, said.append).send(ROWS)
    assert len(said) == 1


@pytest.mark.parametrize("name", TRACKERS)
def test_an_absent_package_is_one_sentence(monkeypatch, name):
    match = rf"^tracker={name} needs the package {name}: pip install {name}, or leave tracker= out\.$"
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InvalidConfigError, match=match):
        check_tracker(name)
    monkeypatch.setitem(sys.modules, name, ModuleType(name))  # a folder of that name
    with pytest.raises(InvalidConfigError, match=match):
        check_tracker(name)
    install(name, monkeypatch)
    check_tracker(name)
    check_tracker(None)
