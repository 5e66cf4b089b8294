"""The registry of tasks."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from vlaser_gym.envs.tasks import PRESETS, by_robot, get_task, resolve, task_names
from vlaser_gym.envs.tasks.cabinet import DRAWERS
from vlaser_gym.envs.tasks.google_pick import ORIENTATIONS
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.evaluation.published import published_table

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


@pytest.mark.parametrize("name", task_names())
@pytest.mark.parametrize("method", ["layout", "instruction"])
def test_a_layout_beyond_the_grid_is_one_sentence(name, method):
    task = get_task(name)
    ask = getattr(task, method)
    ask(f"grid:{task.num_layouts - 1}")
    for beyond in (task.num_layouts, task.num_layouts + 10_000):
        sentence = f"{name} has grid layouts 0 to {task.num_layouts - 1}; got 'grid:{beyond}': choose one of them"
        with pytest.raises(InvalidConfigError, match=sentence):
            ask(f"grid:{beyond}")


def test_every_preset_names_tasks():
    assert PRESETS["widowx"] == WIDOWX
    assert all(set(names) <= set(task_names()) for names in PRESETS.values())


def initial_states(name: str, variant: str) -> set[bytes]:
    """Everything that is placed at the start of a task's grid layouts, and what the robot is told, as text."""
    task, found = get_task(name), set()
    for k in range(task.num_layouts):
        state = asdict(task.layout(f"grid:{k}", variant)) | {"told": task.instruction(f"grid:{k}", variant)}
        found.add(json.dumps(state, default=lambda poses: np.round(poses, 9).tolist(), sort_keys=True))
    return found


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_holds_each_episode_once_in_every_variant(preset):
    variants = {variant for name in PRESETS[preset] for variant in get_task(name).variants}
    assert len(variants) >= (1 if preset == "widowx" else 22)
    for variant in variants:
        states = [initial_states(name, variant) for name in PRESETS[preset] if variant in get_task(name).variants]
        assert sum(map(len, states)) == len(set().union(*states)), variant


def test_other_names_of_the_same_episodes_are_tasks_still():
    """A published column is its parts; the plain move near is version 1, which no published table uses."""
    pick, near, *drawers, apple = PRESETS["google_robot"]
    orientations = [initial_states(f"google_robot_pick_{name}_coke_can", "default") for name in ORIENTATIONS]
    assert initial_states(pick, "default") == set().union(*orientations)
    for task in drawers:
        places = [initial_states(task.replace("_drawer", f"_{name}_drawer"), "default") for name in DRAWERS]
        assert initial_states(task, "default") == set().union(*places)
    plain, one = (initial_states(f"google_robot_move_near{version}", "default") for version in ("", "_v1"))
    assert plain == one
    assert not plain & initial_states(near, "default")
    assert initial_states(near, "aggregation") == initial_states("google_robot_move_near", "aggregation")
    assert initial_states(apple, "default") < initial_states("google_robot_place_in_closed_top_drawer", "default")
    assert initial_states(pick, "default") < initial_states("google_robot_pick_object", "default")


def test_the_preset_is_what_the_published_tables_pool():
    columns = published_table("open-pi-zero-google").columns
    assert sorted(PRESETS["google_robot"]) == sorted(task for tasks in columns.values() for task in tasks)


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
