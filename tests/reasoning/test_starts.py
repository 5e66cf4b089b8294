"""Starts side by side, recomputed by hand on fabricated records."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fabricate_run import TASKS, fabricate_run

from vlaser_gym.cli import load
from vlaser_gym.commands.compare import main
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError, StorageError
from vlaser_gym.reasoning.starts import LAYOUTS, correlation, draw_starts, read_starts

CHANCES = {"none": 0.3, "a": 0.5, "b": 0.8}
#: By seed and start: two trials of 6 layouts of one task and of 12 of the other.
OUTCOMES = {
    (seed, name): {
        Address(task, layout=f"grid:{layout}", trial=trial): bool(rng.random() < chance)
        for task, count in zip(TASKS, (6, 12), strict=True)
        for layout in range(count)
        for trial in range(2)
    }
    for seed in range(2)
    for name, chance in CHANCES.items()
    for rng in [np.random.default_rng([seed, ord(name[0])])]
}


@pytest.fixture
def folders(tmp_path) -> list[Path]:
    """Two seeds, starts none, a and b; successes are a function of the folder's name, the seed and the episode."""
    made = [tmp_path / "s0", tmp_path / "s1"]
    for seed, folder in enumerate(made):
        for number, name in enumerate(("none", "a", "b")):
            if name != "none":
                answers = folder / "starts" / name / "answers"
                answers.mkdir(parents=True)
                kinds = {"x": {"mean": 0.2 * number + 0.1 * seed}, "y": {"mean": 0.4}}
                (answers / "summary.json").write_text(json.dumps({"kind": kinds}))

    for (seed, name), found in OUTCOMES.items():
        for kind in LAYOUTS:
            fabricate_run(made[seed] / "starts" / name / kind, found)
    return made


def test_means_are_over_tasks_and_differences_by_episode(folders):
    found = read_starts(folders)
    assert [one.name for one in found] == ["none", "a", "b"]
    base, best = found[0].rates["grid"], found[2].rates["grid"]

    def mean(name: str, seeds) -> float:
        found = [item for seed in seeds for item in OUTCOMES[seed, name].items()]
        return float(np.mean([np.mean([value for address, value in found if address.task == t]) for t in TASKS]))

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


def test_what_cannot_be_compared_is_a_sentence(folders, tmp_path):
    with pytest.raises(StorageError, match="should be a folder of the recipe reasoning"):
        read_starts([tmp_path])
    for seed, folder in enumerate(folders):
        shutil.rmtree(folder / "starts" / "a" / "grid")
        fabricate_run(folder / "starts" / "a" / "grid", dict(list(OUTCOMES[seed, "a"].items())[:-1]))
    with pytest.raises(InvalidConfigError, match="2 are of one only"):
        read_starts(folders)
