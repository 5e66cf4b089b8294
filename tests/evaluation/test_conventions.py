from __future__ import annotations

from typing import Any

import pytest

from vlaser_gym.evaluation.conventions import furthest_subgoal, subgoal_funnel, success_conventions
from vlaser_gym.evaluation.statistics import wilson

SUBGOALS = ("grasped", "moved", "success")


def record(
    reached: str = "", first: int | None = None, last: bool = False, ending: str = "truncated"
) -> dict[str, Any]:
    flags = {name: letter in reached for letter, name in zip("gms", SUBGOALS, strict=True)}
    return {
        "success": last,
        "success_any": first is not None,
        "first_success_step": first,
        "steps": first if ending == "terminated" else 60,
        "ending": ending,
        "flags_any": flags,
    }


def test_one_run_gives_three_numbers() -> None:
    records = [record("gms", 20, True), record("gms", 30, False), record("g"), record()]
    last, anywhere, first = success_conventions(records)
    assert (last.count, anywhere.count, first.count) == (1, 2, 2)
    assert (last.rate, anywhere.rate) == (0.25, 0.5)
    assert last.interval == wilson(1, 4)
    assert (last.mean_steps, anywhere.mean_steps) == (60, 60)
    assert first.mean_steps == (20 + 30 + 60 + 60) / 4


def test_episodes_that_the_simulator_did_not_finish_are_failures_without_a_number_of_steps() -> None:
    crashed = {**record(), "steps": 0, "ending": "error", "error": "diverged"}
    last, anywhere, first = success_conventions([record("gms", 20, True), record(), crashed])
    assert last.rate == anywhere.rate == first.rate == 1 / 3
    assert (last.mean_steps, first.mean_steps) == (60, (20 + 60) / 2)
    assert [convention.mean_steps for convention in success_conventions([crashed])] == [None] * 3


def test_a_run_that_stopped_cannot_tell_the_last_step() -> None:
    last, anywhere, first = success_conventions([record("gms", 20, True, "terminated"), record()])
    assert last.count is last.rate is last.interval is last.mean_steps is None
    assert anywhere.count == first.count == 1
    assert first.mean_steps == 40


def test_no_episodes_no_rate() -> None:
    for convention in success_conventions([]):
        assert convention.rate is None


@pytest.mark.parametrize(("reached", "end"), [("", "nothing"), ("g", "grasped"), ("m", "moved"), ("gms", "success")])
def test_furthest_subgoal(reached: str, end: str) -> None:
    assert furthest_subgoal(record(reached), SUBGOALS) == end


def test_funnel_counts_every_episode_once() -> None:
    records = [record("gms", 3), record("gm"), record("m"), record("g"), record(), record()]
    funnel = subgoal_funnel(records, SUBGOALS)
    assert [(s.name, s.reached, s.furthest) for s in funnel] == [
        ("nothing", 6, 2),
        ("grasped", 3, 1),
        ("moved", 3, 2),
        ("success", 1, 1),
    ]
    assert sum(stage.furthest for stage in funnel) == len(records)
