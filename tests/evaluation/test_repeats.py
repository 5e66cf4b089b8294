"""Runs of several seeds as one, recomputed by hand on fabricated runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from fabricate_run import TASKS, fabricate_run

from vlaser_gym.cli import load
from vlaser_gym.commands.compare import main, overrides
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError, StorageError
from vlaser_gym.evaluation.comparison import tango
from vlaser_gym.evaluation.repeats import read_repeats
from vlaser_gym.evaluation.statistics import wilson

COUNTS = dict(zip(TASKS, (5, 8), strict=True))
VARIANTS = ("default", "dark")


def outcomes(chance: float, seed: int) -> dict[Address, bool]:
    """Every task in two variants, with as many layouts as it has."""
    rng = np.random.default_rng(seed)
    everything = [
        Address(task, variant, f"grid:{k}") for task, n in COUNTS.items() for variant in VARIANTS for k in range(n)
    ]
    return {address: bool(rng.random() < chance) for address in everything}


@pytest.fixture
def stored(tmp_path: Path) -> dict[tuple[int, str], Mapping[Address, bool]]:
    """Three seeds with the runs before, ppo/after and sft/after below ``tmp_path``, and an empty folder."""
    runs = {
        (seed, name): outcomes(0.3 if name == "before" else 0.7, 10 * seed + number)
        for seed in range(3)
        for number, name in enumerate(("before", "ppo/after", "sft/after"))
    }
    for (seed, name), found in runs.items():
        fabricate_run(tmp_path / f"s{seed}" / name, found)
        (tmp_path / f"s{seed}" / "ppo" / "train").mkdir(parents=True, exist_ok=True)
    return runs


def folders(path: Path) -> list[Path]:
    return [path / f"s{seed}" for seed in range(3)]


def rates_by_hand(stored: Mapping[tuple[int, str], Mapping[Address, bool]], name: str) -> np.ndarray:
    """Rate of each seed and task."""
    return np.array(
        [[np.mean([v for a, v in stored[seed, name].items() if a.task == t]) for t in TASKS] for seed in range(3)]
    )


def test_seeds_are_counted_together_and_paired_with_the_baseline(stored, tmp_path):
    found = read_repeats(folders(tmp_path), ["before", "*/after"])
    assert list(found) == ["before", "ppo/after", "sft/after"]
    assert found["before"].difference is None
    for name, of in found.items():
        by_hand = rates_by_hand(stored, name)
        assert of.mean == pytest.approx(by_hand.mean())
        assert of.seeds == pytest.approx(by_hand.mean(1))
        assert of.episodes == 3 * len(VARIANTS) * sum(COUNTS.values())
        assert of.warnings == ()
        if name != "before":
            assert of.difference == pytest.approx((by_hand - rates_by_hand(stored, "before")).mean())
            assert of.difference_interval[0] < of.difference < of.difference_interval[1]


def test_pairs_with_an_error_are_left_out_of_the_difference_and_said(stored, tmp_path):
    broken = [address for address in stored[1, "ppo/after"] if address.variant == "dark"][:4]
    for seed in range(3):
        crashed = dict(stored[seed, "ppo/after"]) | ({} if seed != 1 else dict.fromkeys(broken, False))
        fabricate_run(tmp_path / f"s{seed}" / "new", crashed, errors=broken if seed == 1 else (), look="original")
    of = read_repeats(folders(tmp_path), ["before", "new"])["new"]
    changes: dict[str, list[int]] = {task: [] for task in TASKS}
    for seed in range(3):
        for address, value in stored[seed, "ppo/after"].items():
            if seed != 1 or address not in broken:
                changes[address.task].append(value - stored[seed, "before"][address])
    assert of.difference == pytest.approx(np.mean([np.mean(values) for values in changes.values()]))
    assert of.mean < read_repeats(folders(tmp_path), ["before", "ppo/after"])["ppo/after"].mean
    assert of.warnings[0] == "look differs: builtin in the baseline, original in new."
    assert of.warnings[1].startswith("4 of 78 pairs of new hold an error")


def test_where_all_agree_layouts_alone_limit_the_rate(tmp_path):
    for seed in range(3):
        for name, value in (("before", False), ("after", True)):
            fabricate_run(tmp_path / f"s{seed}" / name, dict.fromkeys(outcomes(1.0, 0), value))
    found = read_repeats(folders(tmp_path), ["before", "after"])
    layouts = len(VARIANTS) * sum(COUNTS.values())
    assert found["before"].interval == pytest.approx(wilson(0, layouts))
    assert found["after"].interval == pytest.approx(wilson(layouts, layouts))
    assert found["after"].difference == 1
    assert found["after"].difference_interval == pytest.approx(tango(0, layouts, layouts)), "whatever the seeds"


def test_one_baseline_may_serve_all_seeds(stored, tmp_path):
    for seed in range(3):
        (tmp_path / f"s{seed}" / "shared").symlink_to(tmp_path / "s0" / "before")
    assert len(set(read_repeats(folders(tmp_path), ["shared", "ppo/after"])["shared"].seeds)) == 1


def test_the_command_prints_a_row_for_each_run(stored, tmp_path, capsys):
    file = tmp_path / "table.json"
    words = ["before", "*/after", f"repeats=[{','.join(map(str, folders(tmp_path)))}]", f"json={file}"]
    main(load("compare", overrides(words)))
    rows = [line for line in capsys.readouterr().out.splitlines() if "after" in line]
    assert len(rows) == 2
    assert set(json.loads(file.read_text())) == {"before", "ppo/after", "sft/after"}


def test_what_is_missing_is_a_sentence(stored, tmp_path):
    made = folders(tmp_path)
    with pytest.raises(StorageError, match="No run grpo/after is in"):
        read_repeats(made, ["before", "grpo/after"])
    with pytest.raises(InvalidConfigError, match="two or more runs"):
        read_repeats(made, ["before"])
    with pytest.raises(StorageError, match="nothing"):
        read_repeats([*made, tmp_path / "nothing"], ["before", "*/after"])
    with pytest.raises(InvalidConfigError, match=r"a folder for each seed; one of .* stands twice"):
        read_repeats([made[0], made[0]], ["before", "*/after"])


@pytest.mark.parametrize("name", ["/tmp/after", "", "."])
def test_a_name_that_is_none_is_a_sentence(stored, tmp_path, name):
    with pytest.raises(InvalidConfigError, match="runs are named from its folders on"):
        read_repeats(folders(tmp_path), ["before", name])
