"""Failures of real episodes in the places where people read of them: the report, and the commands' output."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from fabricate_run import CONFIG
from fault_runs import CUBE, planned, run_faults
from rich.console import Console

from vlaser_gym.commands.compare import print_changes
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.evaluation.comparison import load_runs
from vlaser_gym.evaluation.report import write_report
from vlaser_gym.evaluation.store import RunStore

FAULTS = {"closed_on_nothing": {CUBE: 2}, "wrong_object": {CUBE: 1}}


def store(path: Path, results, *, mended: bool = False) -> Path:
    """A run of these episodes. ``mended``: the records say that all succeeded."""
    with RunStore(path, CONFIG) as run:
        for result in results:
            address = result.address
            flags = {**result.flags, "success": mended}
            run.add(
                {
                    "task": address.task, "variant": address.variant, "layout": address.layout,
                    "trial": address.trial, "instruction": get_task(CUBE).instruction("grid:0"), "agent": "expert",
                    "engine": "mujoco", "engine_version": "1", "look": "builtin", "success": mended,
                    "success_any": mended, "first_success_step": result.steps if mended else None,
                    "steps": result.steps, "reward": 0.0, "ending": "truncated", "flags": flags,
                    "flags_any": {**result.flags_any, "success": mended}, "error": None,
                },
                result.trajectory,
            )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("failures")
    results = list(run_faults(planned(FAULTS)))
    return store(folder / "a", results), store(folder / "b", results, mended=True)


def test_every_failed_tile_has_a_class_and_a_sentence(runs: tuple[Path, Path]) -> None:
    page = write_report(runs[0]).read_text()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    sides = [episode["sides"][0] for episode in json.loads(found[1])["episodes"]]
    assert sorted(side["failure"] for side in sides) == ["closed_on_nothing", "closed_on_nothing", "wrong_object"]
    for side in sides:
        expected = (
            r"closed \d+ mm .* the green cube" if side["failure"] == "closed_on_nothing" else "grasped the yellow"
        )
        assert re.match(expected, side["why"])
        assert side["events"]


def test_the_map_shows_every_episode_and_every_miss(runs: tuple[Path, Path]) -> None:
    page = write_report(runs[0]).read_text()
    drawn = re.search(r'<svg class="map".*?</svg>', page, re.DOTALL)[0]
    assert drawn.count('class="spot failure"') == 3
    assert drawn.count('class="miss"') == 2
    assert "closed on nothing" in page


def test_compare_tells_what_was_mended(runs: tuple[Path, Path]) -> None:
    console = Console(file=io.StringIO(), width=80)
    print_changes(load_runs(runs), console)
    lines = console.file.getvalue().splitlines()
    row = next(line for line in lines if "closed on nothing" in line)
    assert re.findall(r"\d+", row) == ["2", "0", "2", "0"]
    assert any("mended grid:" in line for line in lines)
    assert max(map(len, lines)) <= 80
