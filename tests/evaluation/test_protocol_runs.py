"""Protocols through eval: exactly the published episodes, and averages worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_env import make_fake_env

from vlaser_gym import cli
from vlaser_gym.commands.eval import task_list
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.tasks import task_names
from vlaser_gym.envs.tasks.protocols import Protocol, Score
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.evaluation.evaluator import EvalSettings, evaluate
from vlaser_gym.evaluation.statistics import mean_of_rates
from vlaser_gym.evaluation.store import read_records
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
