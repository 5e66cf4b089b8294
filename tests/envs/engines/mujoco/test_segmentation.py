"""Segmentations against the colours of the same images, and projections against both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vlaser_gym.envs.rendering import SceneRenderer
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.robots.projection import Projector
from vlaser_gym.envs.tasks import get_task


def start(name: str, layout: str = "grid:0") -> dict[str, NDArray[Any]]:
    """The initial state of a layout, by name."""
    task = get_task(name)
    begin, setup = task.layout(layout), get_setup(task.robot_setup)
    state = {"qpos": np.array(begin.qpos or setup.qpos)}
    if begin.base_pose is not None:
        state["base_pose"] = np.array(begin.base_pose)
    state |= {f"object/{b.name}": p for b, p in zip(task.objects_of(begin.cast), begin.object_pose, strict=True)}
    return state | {f"joint/{joint}": np.array(value) for joint, value in begin.joints.items()}


@pytest.fixture(scope="module")
def renderer() -> Any:
    renderer = SceneRenderer(batch=2, processes=1)
    yield renderer
    renderer.close()


def seen(renderer: SceneRenderer, name: str, state: dict[str, Any]) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    shown = [(name, "default", state)]
    labels = renderer.labels(*shown[0])
    segmentation = renderer.scenes(shown, segmentation=True)[0]
    return renderer.scenes(shown)[0], {label: segmentation == i for i, label in enumerate(labels, 1)}


def test_a_green_cube_is_labelled_where_the_picture_is_green(renderer: SceneRenderer) -> None:
    picture, masks = seen(renderer, "widowx_stack_cube", start("widowx_stack_cube", "grid:5"))
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    is_green = (green > 60) & (red < 0.7 * green) & (blue < 0.8 * green)
    cube = masks["object:baked_green_cube_3cm"]
    assert cube.sum() > 300
    assert (cube & is_green).sum() / (cube | is_green).sum() > 0.97


def test_a_segmentation_leaves_the_next_picture_as_it_was(renderer: SceneRenderer) -> None:
    shown = [("widowx_stack_cube", "default", start("widowx_stack_cube"))]
    before = renderer.scenes(shown)
    renderer.scenes(shown, segmentation=True)
    np.testing.assert_array_equal(renderer.scenes(shown), before)


@pytest.mark.parametrize(
    ("name", "layout", "label"),
    [
        ("widowx_stack_cube", "grid:3", "object:baked_yellow_cube_3cm"),
        ("widowx_carrot_on_plate", "grid:9", "object:bridge_plate_objaverse_larger"),
        ("widowx_put_eggplant_in_basket", "grid:1", "object:eggplant"),
        ("google_robot_pick_coke_can", "grid:60", "object:opened_coke_can"),
        ("google_robot_move_near_v0", "grid:1", "object:orange"),
    ],
)
def test_centres_project_into_the_middle_of_their_masks(
    renderer: SceneRenderer, name: str, layout: str, label: str
) -> None:
    state = start(name, layout)
    _, masks = seen(renderer, name, state)
    setup = get_setup(get_task(name).robot_setup)
    projector = Projector(setup)
    base = np.asarray(state.get("base_pose", setup.base_pose))
    point = state[label.replace("object:", "object/")][:3]
    column, row = projector.pixels(projector.seen(state["qpos"][None], base[None], point[None]))[0]
    rows, columns = np.nonzero(masks[label])
    middle = np.array([columns.min() + columns.max() + 1, rows.min() + rows.max() + 1]) / 2
    assert np.abs(middle - (column, row)).max() < 12


def test_drawers_have_handles_and_the_basket_is_apart_from_the_sink(renderer: SceneRenderer) -> None:
    _, masks = seen(renderer, "google_robot_close_drawer", start("google_robot_close_drawer"))
    assert masks["part:top_drawer_handle_bar"].sum() > 100
    assert masks["part:cabinet_top"].sum() > 10_000
    picture, masks = seen(renderer, "widowx_put_eggplant_in_basket", start("widowx_put_eggplant_in_basket"))
    red, _, blue = np.moveaxis(picture[masks["part:basket"]].astype(int), -1, 0)
    assert np.mean(red > 1.3 * blue) > 0.95, "the basket is yellow"
