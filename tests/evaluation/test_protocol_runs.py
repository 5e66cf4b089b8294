"""Protocols through eval: exactly the published episodes, and averages worked out by hand."""

from __future__ import annotations

from io import StringIO
from itertools import pairwise
from pathlib import Path

import pytest
from fake_env import make_fake_env
from rich.console import Console

from vlaser_gym import cli
from vlaser_gym.commands.eval import print_table, task_list
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.tasks import task_names
from vlaser_gym.envs.tasks.protocols import Protocol, Score, draw_evenly
from vlaser_gym.errors import InvalidConfigError, StorageError, UnknownNameError
from vlaser_gym.evaluation.comparison import compare_runs, load_runs
from vlaser_gym.evaluation.evaluator import EvalSettings, evaluate
from vlaser_gym.evaluation.report import write_report
from vlaser_gym.evaluation.statistics import mean_of_rates
from vlaser_gym.evaluation.store import read_config, read_records
from vlaser_gym.evaluation.summary import protocol_scores

WIDOWX = ("widowx_spoon_on_towel", "widowx_carrot_on_plate", "widowx_stack_cube", "widowx_put_eggplant_in_basket")


def settings(*overrides: str) -> EvalSettings:
    return EvalSettings.from_config(cli.load("eval", ["agent._target_=fake_env.Reacher", *overrides]))


@pytest.mark.parametrize(
    ("name", "episodes", "tasks"),
    [
        ("visual_matching", 4 * 24 + 300 + 240 + 3 * 108, 4 + 3 + 1 + 3 + 3 + 1),
        ("variant_aggregation", 675 + 480 + 3 * 189 + 150 + 120, 3 + 1 + 3 + 3 + 1),
        ("vlaser_paper", 4 * 240 + 300 + 240 + 216 + 825 + 600 + 378, 4 + 3 + 1 + 3 + 3),
    ],
)
def test_plans_are_the_published_lists(name: str, episodes: int, tasks: int) -> None:
    plan = settings(f"protocol={name}").plan
    assert (len(plan), len(set(plan)), len({address.task for address in plan})) == (episodes, episodes, tasks)
    assert [task.name for task in settings(f"protocol={name}").tasks] == list(dict.fromkeys(a.task for a in plan))


def test_a_part_of_a_protocol() -> None:
    plan = settings("protocol=visual_matching", "task=google_robot_open_top_drawer").plan
    assert len(plan) == 4 * 9
    assert len({address.variant for address in plan}) == 4
    with pytest.raises(InvalidConfigError, match="has none of the tasks"):
        _ = settings("protocol=variant_aggregation", "task=widowx_stack_cube").plan


def test_a_robot_is_a_part_of_a_protocol() -> None:
    """The preset's columns pick coke can, open and close are three tasks each in the protocol."""
    plan = settings("protocol=visual_matching", "task=google_robot").plan
    assert plan == [address for address in settings("protocol=visual_matching").plan if "google" in address.task]
    assert len(plan) == 300 + 240 + 3 * 108


def test_a_protocol_leaves_no_choice() -> None:
    with pytest.raises(InvalidConfigError, match=r"fixes .*got trials=2"):
        settings("protocol=vlaser_paper", "trials=2")
    with pytest.raises(UnknownNameError, match="vlaser_paper"):
        settings("protocol=vlaser")


def test_scores_are_stored_with_the_run(tmp_path: Path) -> None:
    run = settings("protocol=visual_matching", f"task={','.join(WIDOWX)}", f"run={tmp_path / 'run'}")
    evaluation = evaluate(run, make_env=make_fake_env)
    records, scores = read_records(tmp_path / "run"), evaluation.summary()["protocol"]
    assert [score["name"] for score in scores] == list(WIDOWX)
    for score in scores:
        mine = [record["success"] for record in records if record["task"] == score["name"]]
        assert (score["n"], score["value"]) == (24, pytest.approx(sum(mine) / 24))


def test_a_score_is_the_mean_over_its_groups() -> None:
    """Groups of unequal size: (1/1 + 1/2) / 2, not 2/3."""
    a, b, c = (Address("widowx_stack_cube", layout=f"grid:{k}") for k in range(3))
    protocol = Protocol(
        "mine", (Score("both", ((a,), (b, c))), Score("later", ((Address("widowx_stack_cube", trial=9),),)))
    )
    records = [{**_record(a), "success": True}, {**_record(b), "success": True}, {**_record(c), "success": False}]
    (score,) = protocol_scores(protocol, records)
    low, high = mean_of_rates([(1, 1), (1, 2)])[1]
    assert score == {"name": "both", "value": 0.75, "low": low, "high": high, "n": 3, "groups": 2}


def test_an_agent_of_one_robot_is_told_before_the_first_episode(tmp_path: Path) -> None:
    names = "widowx_stack_cube,google_robot_close_top_drawer"
    run = settings(
        "protocol=visual_matching", f"task={names}", f"run={tmp_path / 'run'}", "agent._target_=fake_env.Bound"
    )
    with pytest.raises(InvalidConfigError, match=r"is for widowx; the tasks are of widowx and google_robot: choose"):
        evaluate(run, make_env=make_fake_env)
    assert not list(tmp_path.glob("run/*"))


def test_widowx_is_a_part_of_a_protocol() -> None:
    assert {address.task for address in settings("protocol=vlaser_paper", "task=widowx").plan} == set(WIDOWX)
    assert set(settings().plan) == set(settings("task=widowx").plan)


def _record(address: Address) -> dict[str, object]:
    return {"task": address.task, "variant": address.variant, "layout": address.layout, "trial": address.trial}


def test_every_task_is_listed() -> None:
    said = task_list()
    assert len(task_names()) == 25
    assert all(f"{name}: " in said for name in task_names())


def _kinds(plan: list[Address]) -> dict[tuple[str, str], list[int]]:
    """Layouts of each task and variant."""
    found: dict[tuple[str, str], list[int]] = {}
    for address in plan:
        found.setdefault((address.task, address.variant), []).append(address.layout_index)
    return found


@pytest.mark.parametrize("name", ["visual_matching", "variant_aggregation"])
def test_a_reduced_protocol_takes_as_many_of_each_task_and_variant(name: str) -> None:
    whole, reduced = settings(f"protocol={name}"), settings(f"protocol={name}", "episodes=4")
    assert set(reduced.plan) < set(whole.plan)
    kinds, all_kinds = _kinds(reduced.plan), _kinds(whole.plan)
    assert list(kinds) == list(all_kinds)
    for kind, layouts in kinds.items():
        size = len(all_kinds[kind])
        assert all(k * size // 4 <= layout < (k + 1) * size // 4 for k, layout in enumerate(layouts)), "of each quarter"
        assert len(layouts) == 4
    by_task: dict[str, set[tuple[int, ...]]] = {}
    for (task, _), layouts in kinds.items():
        by_task.setdefault(task, set()).add(tuple(layouts))
    assert all(len(drawn) == 1 for drawn in by_task.values()), "variants are paired: they share their layouts"
    assert whole.reduction is None
    assert str(reduced.reduction) == (
        f"reduced to 4 episodes of each task and variant: {4 * len(kinds)} of the {len(whole.plan)} of the protocol"
    )


def test_drawn_layouts_share_no_row_and_no_column_of_a_grid() -> None:
    """The can's 5 x 5 and the drawers' 3 x 3 places; a constant stride would stay in one column."""
    for side in (3, 5):
        drawn = draw_evenly(side, side * side)
        assert sorted(k // side for k in drawn) == sorted(k % side for k in drawn) == list(range(side))


@pytest.mark.parametrize("of", [1, 9, 24, 25, 27, 60])
def test_drawing_is_even_and_without_repetition(of: int) -> None:
    for count in range(1, of + 3):
        drawn = draw_evenly(count, of)
        assert len(drawn) == len(set(drawn)) == min(count, of)
        gaps = [b - a for a, b in pairwise([-1, *drawn, of])]
        assert max(gaps) <= 2 * -(-of // count), "no stretch is left out"


def test_more_than_the_layouts_are_further_trials() -> None:
    """Vlaser's ten trials of 24 layouts: 30 of them are the first trial and 6 layouts of the second."""
    plan = settings("protocol=vlaser_paper", "task=widowx_stack_cube", "episodes=30").plan
    trials = [[a.layout_index for a in plan if a.trial == trial] for trial in range(10)]
    assert trials[0] == list(range(24))
    assert [len(of) for of in trials[1:]] == [6, 0, 0, 0, 0, 0, 0, 0, 0]
    assert [layout // 4 for layout in trials[1]] == list(range(6))


def test_as_many_as_there_are_is_the_whole_protocol() -> None:
    named = f"task={','.join(WIDOWX)}"
    for episodes in (24, 60):
        run = settings("protocol=visual_matching", named, f"episodes={episodes}")
        assert run.plan == settings("protocol=visual_matching", named).plan
        assert (run.reduction, run.stored()["reduced"]) == (None, None)


def test_a_reduced_run_says_so_wherever_it_is_told_of(tmp_path: Path) -> None:
    named = "task=widowx_stack_cube"
    small = evaluate(
        settings("protocol=visual_matching", named, "episodes=5", f"run={tmp_path / 'small'}"), make_env=make_fake_env
    )
    whole = evaluate(settings("protocol=visual_matching", named, f"run={tmp_path / 'whole'}"), make_env=make_fake_env)
    summary, said = small.summary(), "reduced to 5 episodes of each task and variant: 5 of the 24 of the protocol"
    assert summary["reduced"] == {"episodes": 5, "planned": 5, "whole": 24}
    assert [(score["name"], score["n"]) for score in summary["protocol"]] == [("widowx_stack_cube", 5)]
    assert read_config(small.path)["reduced"] == summary["reduced"]
    assert "reduced" not in whole.summary()
    printed = StringIO()
    print_table(small, Console(file=printed, width=160))
    text = printed.getvalue()
    for line in ("task (reduced)", f"The protocol is {said}.", "visual_matching (reduced) widowx_stack_cube: "):
        assert line in text
    yours = [line for line in text.splitlines() if ": yours " in line]
    assert len(yours) == 1
    assert all(" (reduced): yours " in line for line in yours)
    assert "episodes of each task and variant 5 here, all there" in text
    assert said in write_report(small.path).read_text()
    (two,) = compare_runs(load_runs([whole.path, small.path])).against
    assert f"small is {said}." in two.warnings
    assert two.overall.n == 5
    with pytest.raises(StorageError, match=r"episodes was 5, now 24"):
        evaluate(settings("protocol=visual_matching", named, f"run={small.path}"), make_env=make_fake_env)
