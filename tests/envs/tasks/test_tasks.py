"""The registry of tasks."""

import pytest

from vlaser_gym.envs.tasks import PRESETS, by_robot, get_task, resolve, task_names
from vlaser_gym.errors import UnknownNameError

WIDOWX = (
    "widowx_carrot_on_plate",
    "widowx_spoon_on_towel",
    "widowx_stack_cube",
    "widowx_put_eggplant_in_basket",
)


def test_names_lead_to_tasks_of_that_name():
    assert set(WIDOWX) <= set(task_names())
    for name in task_names():
        assert get_task(name).name == name
        assert get_task(name) is get_task(name)


def test_every_preset_names_tasks():
    assert PRESETS["widowx"] == WIDOWX
    assert all(set(names) <= set(task_names()) for names in PRESETS.values())


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("widowx", WIDOWX),
        ("widowx_stack_cube", WIDOWX[2:3]),
        ("widowx_stack_cube,widowx_carrot_on_plate", (WIDOWX[2], WIDOWX[0])),
        (" widowx_stack_cube , widowx_carrot_on_plate ", (WIDOWX[2], WIDOWX[0])),
        (["widowx_stack_cube", "widowx_carrot_on_plate"], (WIDOWX[2], WIDOWX[0])),
        (["widowx_stack_cube", "widowx"], (WIDOWX[2], WIDOWX[0], WIDOWX[1], WIDOWX[3])),
    ],
)
def test_resolve(spec, expected):
    assert resolve(spec) == expected


@pytest.mark.parametrize("spec", ["", [], "widowx,", "widowx_carrot", ["widowx_stack_cube", "nonsense"]])
def test_unknown_names_are_refused(spec):
    with pytest.raises(UnknownNameError):
        resolve(spec)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="widowx_carrot_on_plate"):
        get_task("widowx_carot_on_plate")
    with pytest.raises(UnknownNameError, match="widowx_put_eggplant_in_basket"):
        resolve("put_eggplant_in_basket")


def test_tasks_are_grouped_by_their_robot_in_order():
    given = ["google_robot_open_drawer", "widowx_stack_cube", "google_robot_pick_coke_can", "widowx_carrot_on_plate"]
    groups = by_robot(get_task(name) for name in given)
    assert {robot: [task.name for task in tasks] for robot, tasks in groups.items()} == {
        "google_robot": [given[0], given[2]],
        "widowx": [given[1], given[3]],
    }
    assert list(groups) == ["google_robot", "widowx"]
    assert by_robot([]) == {}
