from __future__ import annotations

import pytest

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.tasks import GOOGLE_TASKS, get_task
from vlaser_gym.envs.tasks.protocols import get_protocol
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.evaluation.plan import double_counts, plan_episodes

CARROT, CUBE = get_task("widowx_carrot_on_plate"), get_task("widowx_stack_cube")


def test_the_benchmark_is_every_grid_layout_once_task_after_task() -> None:
    plan = plan_episodes([CARROT, CUBE])
    assert [str(a) for a in plan] == [f"{t.name}/default/grid:{k}/0" for t in (CARROT, CUBE) for k in range(24)]


def test_beyond_the_grid_layouts_come_again_as_further_trials() -> None:
    plan = plan_episodes([CUBE], episodes=50, trials=2)
    assert len(set(plan)) == 100
    counted = {layout: sorted(a.trial for a in plan if a.layout == layout) for layout in ("grid:0", "grid:1", "grid:2")}
    assert counted == {"grid:0": [0, 1, 2, 3, 4, 5], "grid:1": [0, 1, 2, 3, 4, 5], "grid:2": [0, 1, 2, 3]}


def test_fewer_episodes_are_the_first_layouts() -> None:
    assert [a.layout for a in plan_episodes([CUBE], episodes=3)] == ["grid:0", "grid:1", "grid:2"]


def test_region_layouts_do_not_repeat() -> None:
    plan = plan_episodes([CUBE], layouts="region", episodes=96, trials=2)
    assert {a.layout for a in plan} == {f"region:{k}" for k in range(96)}
    assert {a.trial for a in plan} == {0, 1}
    assert len(set(plan)) == 192


def test_region_layouts_follow_the_grid() -> None:
    plan = plan_episodes([CUBE], layouts="grid_and_region", episodes=27, trials=2)
    once = [*(f"grid:{i}" for i in range(24)), "region:0", "region:1", "region:2"]
    assert [(a.layout, a.trial) for a in plan] == [(layout, trial) for trial in (0, 1) for layout in once]


@pytest.mark.parametrize(("key", "value"), [("episodes", 0), ("trials", -1)])
def test_numbers_below_one_are_refused(key: str, value: int) -> None:
    with pytest.raises(InvalidConfigError, match=f"{key} must be at least 1; got {value}"):
        plan_episodes([CUBE], **{key: value})


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="grid"):
        plan_episodes([CUBE], layouts="grids")
    with pytest.raises(UnknownNameError, match="default"):
        plan_episodes([CUBE], variant="defualt")


OPEN, TOP = "google_robot_open_drawer", "google_robot_open_top_drawer"


def test_tasks_that_share_initial_states_are_named() -> None:
    """The first 9 of 27 layouts of one are the 9 of the other; 12 of the latter are 9 and 3 again."""
    plan = plan_episodes([get_task(OPEN), get_task(TOP), CUBE], episodes=12)
    said = double_counts(plan)
    assert said is not None
    assert f"two tasks share: {OPEN} and {TOP} (9); name each once." in said
    assert double_counts(a for a in plan if a.task != TOP) is None
    assert double_counts(plan_episodes([get_task(OPEN), get_task(TOP)], layouts="region")) is None
    assert double_counts([Address("somebody's own"), Address("another")]) is None


def test_a_variant_can_make_one_of_two_tasks() -> None:
    near = [get_task(f"google_robot_move_near_{version}") for version in ("v0", "v1")]
    assert double_counts(plan_episodes(near)) is None
    assert "(24)" in str(double_counts(plan_episodes(near, variant="aggregation")))


def test_no_published_evaluation_counts_an_initial_state_twice() -> None:
    assert double_counts(get_protocol("visual_matching").episodes) is None


def test_what_the_preset_once_held_is_named() -> None:
    everything = plan_episodes([task for task in GOOGLE_TASKS if task.num_layouts < 1000], episodes=3)
    assert " more pairs of tasks; name each once." in str(double_counts(everything))
