from __future__ import annotations

from typing import Any

import pytest

from vlaser_gym.envs.tasks import get_task
from vlaser_gym.evaluation.statistics import wilson
from vlaser_gym.evaluation.summary import episodes_per_minute, summarise, summarise_run

CARROT, CUBE = get_task("widowx_carrot_on_plate"), get_task("widowx_stack_cube")


def record(task: str, success: bool, first: int | None, error: str | None = None, **flags: bool) -> dict[str, Any]:
    return {
        "task": task,
        "success": success,
        "success_any": first is not None,
        "first_success_step": first,
        "steps": 0 if error else 60,
        "ending": "error" if error else "truncated",
        "flags_any": flags,
        "error": error,
    }


RECORDS = [
    record(CARROT.name, True, 20, moved_correct_obj=True, ever_grasped=True),
    record(CARROT.name, False, 30, moved_correct_obj=True, ever_grasped=True),
    record(CARROT.name, False, None, moved_correct_obj=True),
    record(CARROT.name, False, None, error="diverged"),
    record(CUBE.name, True, 50, ever_grasped=True),
]


def test_counts_by_hand() -> None:
    summary = summarise(RECORDS, [CUBE, CARROT])
    cube, carrot = summary["tasks"]
    assert (cube["task"], carrot["task"]) == (CUBE.name, CARROT.name), "in the order asked for"
    assert (carrot["n"], carrot["errors"]) == (4, 1)
    low, high = wilson(1, 4)
    assert carrot["success"] == {"count": 1, "rate": 0.25, "low": low, "high": high}
    assert carrot["success_any"]["rate"] == 0.5
    assert {name: carrot["subgoals"][name]["count"] for name in ("moved_correct_obj", "ever_grasped")} == {
        "moved_correct_obj": 3,
        "ever_grasped": 2,
    }
    assert carrot["mean_first_success_step"] == 25
    assert not carrot["stopped"]
    assert carrot["mean_steps"] == 60, "the crashed episode has no number of steps"
    assert summary["mean"]["success"]["rate"] == pytest.approx((0.25 + 1) / 2)
    assert summary["mean"]["success_any"]["rate"] == pytest.approx((0.5 + 1) / 2)


def test_success_itself_is_no_subgoal_and_tasks_without_episodes_are_left_out() -> None:
    summary = summarise(RECORDS, [CARROT, get_task("widowx_spoon_on_towel")])
    assert [row["task"] for row in summary["tasks"]] == [CARROT.name]
    assert set(summary["tasks"][0]["subgoals"]) == set(CARROT.subgoals) - {"success"}


def test_no_success_no_first_success() -> None:
    assert summarise([RECORDS[2]], [CARROT])["tasks"][0]["mean_first_success_step"] is None


def test_no_mean_of_steps_where_the_simulator_finished_nothing() -> None:
    assert summarise([RECORDS[3]], [CARROT])["tasks"][0]["mean_steps"] is None


def test_pace_shares_the_time_among_the_lanes() -> None:
    """Eight environments, 12 s per episode: 40 a minute. Start-up and other events do not count."""
    entries = [{"event": "start"}, *[{"event": "episode", "task": "a", "seconds": 12.0, "lanes": 8}] * 3]
    assert episodes_per_minute([*entries, {"event": "end", "seconds": 99}]) == {"a": pytest.approx(40.0)}
    assert episodes_per_minute([]) == {}


def test_trials_of_a_policy_that_draws_nothing_count_once() -> None:
    solved, missed = record(CARROT.name, True, 20), record(CARROT.name, False, None)
    trials = [
        {**episode, "variant": "default", "layout": layout}
        for episode, layout in ((solved, "grid:0"), (missed, "grid:1"))
        for _ in range(3)
    ]
    drawn = summarise_run(trials, [CARROT], {"agent_settings": {"initial_noise": 1.0}})
    assert drawn == summarise(trials, [CARROT])
    settings = {"agent_settings": {"initial_noise": 0.0}}
    certain = summarise_run(trials, [CARROT], settings)
    low, high = wilson(1, 2)
    assert certain["tasks"][0]["success"] == {"count": 1, "rate": 0.5, "low": low, "high": high}
    assert certain["repeats"] == 4
    for varied in ({"perturb": "lights:medium"}, {"instruction": "words.txt"}):
        assert summarise_run(trials, [CARROT], {**settings, **varied}) == drawn, "such trials differ"
    exploring = {"agent_settings": {"initial_noise": 0.0, "density": "chunk_gaussian"}}
    assert summarise_run(trials, [CARROT], exploring) == drawn
    assert summarise_run(trials, [CARROT], {}) == drawn
