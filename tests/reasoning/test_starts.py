"""Starts side by side, recomputed by hand on fabricated records."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vlaser_gym.cli import load
from vlaser_gym.commands.compare import main
from vlaser_gym.errors import InvalidConfigError, StorageError
from vlaser_gym.evaluation import repeats
from vlaser_gym.reasoning.starts import correlation, draw_starts, read_starts

TASKS = ("one", "two")


@pytest.fixture
def folders(tmp_path, monkeypatch) -> list[Path]:
    """Two seeds, starts none, a and b; successes are a function of the folder's name, the seed and the episode."""
    made = [tmp_path / "s0", tmp_path / "s1"]
    for seed, folder in enumerate(made):
        for number, name in enumerate(("none", "a", "b")):
            if name != "none":
                answers = folder / "starts" / name / "answers"
                answers.mkdir(parents=True)
                kinds = {"x": {"mean": 0.2 * number + 0.1 * seed}, "y": {"mean": 0.4}}
                (answers / "summary.json").write_text(json.dumps({"kind": kinds}))
            (folder / "starts" / name / "grid").mkdir(parents=True)

    def records(path: Path) -> list[dict]:
        name, seed = path.parent.name, int(path.parents[2].name[1])
        chance = {"none": 0.3, "a": 0.5, "b": 0.8}[name]
        rng = np.random.default_rng([seed, len(name), ord(name[0])])
        return [
            {"task": task, "layout": layout, "trial": trial, "success": bool(rng.random() < chance)}
            for task in TASKS
            for layout in range(6 if task == "one" else 12)
            for trial in range(2)
        ]

    monkeypatch.setattr(repeats, "read_records", records)
    return made


def test_means_are_over_tasks_and_differences_by_episode(folders):
    found = read_starts(folders)
    assert [one.name for one in found] == ["none", "a", "b"]
    base, best = found[0].rates["grid"], found[2].rates["grid"]

    def mean(name: str, seeds) -> float:
        rates = []
        for task in TASKS:
            rows = [
                row
                for seed in seeds
                for row in repeats.read_records(folders[seed] / "starts" / name / "grid")
                if row["task"] == task
            ]
            rates.append(np.mean([row["success"] for row in rows]))
        return float(np.mean(rates))

    assert best.mean == pytest.approx(mean("b", (0, 1)))
    assert best.seeds == pytest.approx([mean("b", (0,)), mean("b", (1,))])
    assert best.episodes == 72
    assert best.difference == pytest.approx(mean("b", (0, 1)) - mean("none", (0, 1)))
    low, high = best.difference_interval
    assert low < best.difference < high
    assert base.difference is None
    assert found[2].answers == pytest.approx([0.4, 0.45])
    assert found[0].answers == ()


def test_the_correlation_is_pearsons_over_starts_and_seeds(folders, tmp_path):
    found = read_starts(folders)
    x = [*found[1].answers, *found[2].answers]
    y = [*found[1].rates["region"].seeds, *found[2].rates["region"].seeds]
    x, y = np.array(x) - np.mean(x), np.array(y) - np.mean(y)
    assert correlation(found, "region") == pytest.approx(float(x @ y / np.sqrt((x @ x) * (y @ y))))
    assert correlation(found[:2], "region") is None
    draw_starts(found, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_the_command_prints_a_row_for_each_kind_of_layouts(folders, capsys):
    main(load("compare", [f"starts=[{','.join(map(str, folders))}]"]))
    assert sum("grid" in line and "|" in line for line in capsys.readouterr().out.splitlines()) == 3


def test_what_cannot_be_compared_is_a_sentence(folders, tmp_path, monkeypatch):
    with pytest.raises(StorageError, match="should be a folder of the recipe reasoning"):
        read_starts([tmp_path])
    whole = repeats.read_records

    def fewer(path: Path) -> list[dict]:
        return whole(path)[: -1 if path.parent.name == "a" else None]

    monkeypatch.setattr(repeats, "read_records", fewer)
    with pytest.raises(InvalidConfigError, match="2 are of one only"):
        read_starts(folders)
