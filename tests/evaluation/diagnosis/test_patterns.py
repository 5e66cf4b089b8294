"""Patterns by other means: Fisher's test of scipy, enumeration, and outcomes that are arranged."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import fisher_exact

from vlaser_gym.envs.address import Address
from vlaser_gym.evaluation.diagnosis import Diagnosis
from vlaser_gym.evaluation.diagnosis.changes import class_changes, layout_changes
from vlaser_gym.evaluation.diagnosis.events import closings
from vlaser_gym.evaluation.diagnosis.patterns import _Layout, _p_of, _Stratum, find_patterns, strongest

CUBE = "widowx_stack_cube"


def stratum(wins, above) -> _Stratum:
    nothing = np.zeros((0, 2))
    layouts = [_Layout(np.zeros(2), np.zeros(2), 0.0, float(won), 1, nothing) for won in wins]
    return _Stratum(layouts, np.array(above, bool))


def test_one_task_is_fishers_exact_test() -> None:
    one = stratum([0] * 12 + [1] * 6 + [0] * 6, [1] * 12 + [0] * 12)
    assert _p_of([one]) == pytest.approx(fisher_exact([[0, 12], [6, 6]]).pvalue)
    assert _p_of([one]) == pytest.approx(0.0137, abs=1e-4)


def test_several_tasks_against_enumeration() -> None:
    """Every way in which each task's successes can fall on its layouts is as likely as the others."""
    strata = [stratum([1, 1, 0, 0, 0], [1, 1, 1, 0, 0]), stratum([1, 0, 0, 0], [1, 1, 0, 0])]
    counts = [
        sum(place < 3 for place in first) + (second[0] < 2)
        for first in combinations(range(5), 2)
        for second in combinations(range(4), 1)
    ]
    likely = np.bincount(counts) / len(counts)
    assert _p_of(strata) == pytest.approx(likely[likely <= likely[3] + 1e-12].sum())


def episodes(trials: int = 1):
    """The outer cubes (12 to 23) all fail, missing towards the middle of (0.25, 0); of the inner ones half succeed."""
    for k in range(24):
        angle = 2 * np.pi * (k % 12) / 12
        radius = 0.12 if k >= 12 else 0.06
        place = (0.25 + radius * np.cos(angle), radius * np.sin(angle), 0.0)
        won = k < 12 and k % 2 == 0
        miss = None if won else tuple(-0.03 * np.array([np.cos(angle), np.sin(angle), 0.0]))
        for trial in range(trials):
            record = {"task": CUBE, "variant": "default", "layout": f"grid:{k}", "trial": trial, "success": won}
            yield record, Diagnosis("" if won else "closed_on_nothing", "", miss=miss, place=place, goal=place)


def test_arranged_patterns_are_found_with_their_figures() -> None:
    patterns, candidates = find_patterns(list(episodes()))
    told = {pattern.sentence: pattern for pattern in patterns}
    outer = told["stack cube: outer layouts 0 of 12, inner 6 of 12"]
    assert outer.p == pytest.approx(0.0137, abs=1e-4)
    towards = told["18 of 18 failures closed on nothing, 18 of 18 of these towards the middle of the work area"]
    assert towards.p == pytest.approx(2 * 0.5**18)
    assert patterns[0] is towards
    assert towards.corrected == pytest.approx(candidates * towards.p)
    first, second = strongest(list(episodes()), 2)
    assert first.startswith("18 of 18")
    assert "outer layouts" in second
    assert f"corrected for the {candidates} patterns looked at" in second


def test_trials_of_a_layout_are_no_further_layouts() -> None:
    """Ten times the same outcomes tell no more than once."""
    once, _ = find_patterns(list(episodes()))
    often, _ = find_patterns(list(episodes(10)))
    for few, many in zip(sorted(p.p for p in once), sorted(p.p for p in often), strict=True):
        assert many == pytest.approx(few)


def test_runs_without_failures_have_no_patterns() -> None:
    won = [({**record, "success": True}, Diagnosis("", "", place=d.place, goal=d.goal)) for record, d in episodes()]
    assert find_patterns(won) == ((), 0)
    assert find_patterns([]) == ((), 0)


def test_closings_are_falls_without_rest() -> None:
    """From row 1 the opening falls by 0.95 and is below 0.24, four fifths of the way, in row 3; 0.15 is no closing."""
    opening = np.array([1, 1, 0.6, 0.2, 0.05, 0.04, 0.04, 0.5, 1, 1, 0.9, 0.85, 0.85])
    assert closings(opening) == [(1, 3)]


def test_changes_between_two_runs() -> None:
    def run(*failures: str) -> dict[Address, Diagnosis]:
        return {Address(CUBE, "default", f"grid:{k}", 0): Diagnosis(f, "") for k, f in enumerate(failures)}

    a, b = run("dropped", "dropped", "", "dropped", ""), run("", "pushed_away", "dropped", "dropped", "")
    dropped, pushed = class_changes(a, b)
    assert (dropped.failure, dropped.a, dropped.b, dropped.mended, dropped.broken) == ("dropped", 3, 2, 1, 1)
    assert dict(dropped.became) == {"pushed_away": 1}
    assert (pushed.failure, pushed.a, pushed.b, pushed.mended, pushed.broken) == ("pushed_away", 0, 1, 0, 0)
    assert layout_changes(a, b) == {CUBE: {"mended": ["grid:0"], "broken": ["grid:2"], "changed": ["grid:1"]}}


@pytest.mark.parametrize("task", ["google_robot_open_top_drawer", "google_robot_close_bottom_drawer"])
def test_drawers_have_no_object_that_could_be_turned(task: str) -> None:
    """Their scenes hold no object: the drawer lies as the robot stands."""
    diagnosed = []
    for k in range(8):
        record = {"task": task, "variant": "default", "layout": f"region2:{k}", "trial": 0, "success": k < 4}
        place = (0.6 + 0.01 * k, 0.0, 0.5)
        diagnosed.append((record, Diagnosis("" if k < 4 else "wrong_drawer", "", place=place, goal=place)))
    assert isinstance(strongest(diagnosed), list)
