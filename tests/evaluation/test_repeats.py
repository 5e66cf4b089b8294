"""Runs of several seeds as one, recomputed by hand on fabricated records."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vlaser_gym.cli import load
from vlaser_gym.commands.compare import main, overrides
from vlaser_gym.errors import InvalidConfigError, StorageError
from vlaser_gym.evaluation import repeats
from vlaser_gym.evaluation.repeats import read_repeats

TASKS = {"one": 5, "two": 8}


@pytest.fixture
def folders(tmp_path, monkeypatch) -> list[Path]:
    """Three seeds with the runs before, ppo/after and sft/after; successes are a function of name, seed and episode."""
    made = [tmp_path / f"s{seed}" for seed in range(3)]
    for folder in made:
        for name in ("before", "ppo/after", "sft/after", "ppo/train"):
            (folder / name).mkdir(parents=True)

    def records(path: Path) -> list[dict]:
        seed = next(number for number, folder in enumerate(made) if folder in path.parents)
        rng = np.random.default_rng([seed, *str(path.relative_to(made[seed])).encode()])
        chance = 0.3 if path.name == "before" else 0.7
        return [
            {"task": task, "layout": f"grid:{k}", "trial": 0, "success": bool(rng.random() < chance)}
            for task, count in TASKS.items()
            for k in range(count)
        ]

    monkeypatch.setattr(repeats, "read_records", records)
    return made


def rates_by_hand(folders: list[Path], name: str) -> np.ndarray:
    """Rate of each seed and task."""
    runs = [repeats.read_records(folder / name) for folder in folders]
    return np.array([[np.mean([r["success"] for r in run if r["task"] == task]) for task in TASKS] for run in runs])


def test_seeds_are_counted_together_and_paired_with_the_baseline(folders):
    found = read_repeats(folders, ["before", "*/after"])
    assert list(found) == ["before", "ppo/after", "sft/after"]
    assert found["before"].difference is None
    for name, of in found.items():
        by_hand = rates_by_hand(folders, name)
        assert of.mean == pytest.approx(by_hand.mean())
        assert of.seeds == pytest.approx(by_hand.mean(1))
        assert of.episodes == 39
        if name != "before":
            assert of.difference == pytest.approx((by_hand - rates_by_hand(folders, "before")).mean())
            assert of.difference_interval[0] < of.difference < of.difference_interval[1]


def test_the_command_prints_a_row_for_each_run(folders, tmp_path, capsys):
    file = tmp_path / "table.json"
    words = ["before", "*/after", f"repeats=[{','.join(map(str, folders))}]", f"json={file}"]
    main(load("compare", overrides(words)))
    rows = [line for line in capsys.readouterr().out.splitlines() if "after" in line]
    assert len(rows) == 2
    assert set(json.loads(file.read_text())) == {"before", "ppo/after", "sft/after"}


def test_what_is_missing_is_a_sentence(folders, tmp_path):
    with pytest.raises(StorageError, match="No run grpo/after is in"):
        read_repeats(folders, ["before", "grpo/after"])
    with pytest.raises(InvalidConfigError, match="two or more runs"):
        read_repeats(folders, ["before"])
    with pytest.raises(StorageError, match="nothing"):
        read_repeats([*folders, tmp_path / "nothing"], ["before", "*/after"])
