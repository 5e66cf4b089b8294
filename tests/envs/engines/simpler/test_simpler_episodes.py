"""What the original is asked for, against the tables of its published scripts, written out here a second time."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

from vlaser_gym.envs.engines.simpler.episodes import Episode, episode_of, nearest_episode
from vlaser_gym.envs.tasks import GOOGLE_TASKS, get_task, widowx
from vlaser_gym.envs.tasks.protocols import get_protocol
from vlaser_gym.errors import InvalidConfigError

TASKS = {task.name: task for task in (*GOOGLE_TASKS, *widowx.TASKS)}
CONTROL = "arm_pd_ee_delta_pose_align_interpolate_by_planner_gripper_pd_joint_target_delta_pos_interpolate_by_planner"
URDFS = (
    None,
    "recolor_tabletop_visual_matching_1",
    "recolor_tabletop_visual_matching_2",
    "recolor_cabinet_visual_matching_1",
)
CAN = {"lr_switch": True}, {"upright": True}, {"laid_vertically": True}
TABLE = "google_pick_coke_can_1_v4"
PHOTOGRAPHS = {
    "a0": (0.644, -0.179, -0.03), "a1": (0.765, -0.182, -0.02), "a2": (0.889, -0.203, -0.06),
    "b0": (0.652, 0.009, 0.0), "b1": (0.752, 0.009, 0.0), "b2": (0.851, 0.035, 0.0),
    "c0": (0.665, 0.224, 0.0), "c1": (0.765, 0.222, -0.025), "c2": (0.865, 0.222, -0.025),
}  # fmt: skip
DRAWERS = [
    f"{verb}{drawer}DrawerCustomInScene-v0" for verb in ("Open", "Close") for drawer in ("Top", "Middle", "Bottom")
]
Call = tuple[str, dict[str, Any], dict[str, Any]]


def call(
    env_id: str, scene: str, steps: int, robot: tuple[float, float, float], body: dict[str, Any], **more: Any
) -> Call:
    """A call of the original's evaluation: environment, keyword arguments, reset options."""
    photograph = more.pop("photograph", None)
    kwargs: dict[str, Any] = {
        "obs_mode": "rgbd", "robot": "google_robot_static", "sim_freq": 513, "control_mode": CONTROL,
        "control_freq": 3, "max_episode_steps": steps, "scene_name": scene, "camera_cfgs": {"add_segmentation": True},
        "rgb_overlay_path": photograph, **more,
    }  # fmt: skip
    if photograph is not None:
        kwargs["rgb_overlay_cameras"] = ["overhead_camera"]
    x, y, yaw = robot
    # Euler (0, 0, yaw) as a quaternion wxyz, times (0, 0, 0, 1).
    turn = [-np.sin(yaw / 2), 0.0, 0.0, np.cos(yaw / 2)]
    return env_id, kwargs, {"robot_init_options": {"init_xy": [x, y], "init_rot_quat": turn}, "obj_init_options": body}


def grid(x: tuple[float, float, int], y: tuple[float, float, int]) -> Iterator[dict[str, Any]]:
    return ({"init_xy": [a, b]} for a, b in product(np.linspace(*x), np.linspace(*y)))


def cans(env_id: str, scene: str, **more: Any) -> Iterator[Call]:
    for can, body in product(CAN, grid((-0.35, -0.12, 5), (-0.02, 0.42, 5))):
        yield call(env_id, scene, 80, (0.35, 0.20, 0.0), body, **can, **more)


def nears(env_id: str, scene: str, **more: Any) -> Iterator[Call]:
    return (call(env_id, scene, 80, (0.35, 0.21, -0.09), {"episode_id": e}, **more) for e in range(60))


def drawers(scene: str, **more: Any) -> Iterator[Call]:
    places = product(np.linspace(0.65, 0.85, 3), np.linspace(-0.2, 0.2, 3))
    for env_id, (x, y) in product(DRAWERS, places):
        yield call(env_id, scene, 113, (x, y, 0.0), {"init_xy": [0.0, 0.0]}, shader_dir="rt", **more)


APPLE = "PlaceIntoClosedTopDrawerCustomInScene-v0"


def apples(scene: str, **more: Any) -> Iterator[Call]:
    for y, body in product(np.linspace(-0.2, 0.2, 3), grid((-0.08, -0.02, 3), (-0.02, 0.08, 3))):
        yield call(APPLE, scene, 200, (0.65, y, 0.0), body, shader_dir="rt", model_ids="apple", **more)


def visual_matching() -> Iterator[Call]:
    can_photo, near_photo = "google_coke_can_real_eval_1.png", "google_move_near_real_eval_1.png"
    cabinet = {
        "shader_dir": "rt", "station_name": "mk_station_recolor", "light_mode": "simple", "disable_bad_material": True,
    }  # fmt: skip
    for urdf in URDFS:
        yield from cans("GraspSingleOpenedCokeCanInScene-v0", TABLE, photograph=can_photo, urdf_version=urdf)
        yield from nears("MoveNearGoogleBakedTexInScene-v0", TABLE, photograph=near_photo, urdf_version=urdf)
        for name, robot in PHOTOGRAPHS.items():
            more = {**cabinet, "photograph": f"open_drawer_{name}.png", "urdf_version": urdf}
            for env_id in DRAWERS:
                yield call(env_id, "dummy_drawer", 113, robot, {"init_xy": [0.0, 0.0]}, **more)
            if name.endswith("0"):
                for body in grid((-0.08, -0.02, 3), (-0.02, 0.08, 3)):
                    yield call(APPLE, "dummy_drawer", 200, robot, body, model_ids="baked_apple_v2", **more)


def variant_aggregation() -> Iterator[Call]:
    tables = ("Baked_sc1_staging_objaverse_cabinet1_h870", "Baked_sc1_staging_objaverse_cabinet2_h870")
    scenes = (TABLE, f"{TABLE}_alt_background", f"{TABLE}_alt_background_2", *tables)
    lights = ({"slightly_darker_lighting": True}, {"slightly_brighter_lighting": True})
    grasp, near = "GraspSingleOpenedCokeCan{}InScene-v0", "MoveNear{}InScene-v0"
    for scene in scenes:
        yield from cans(grasp.format(""), scene)
        yield from nears(near.format("Google"), scene)
    for light in lights:
        yield from cans(grasp.format(""), TABLE, **light)
        yield from nears(near.format("Google"), TABLE, **light)
    yield from cans(grasp.format("Distractor"), TABLE)
    yield from cans(grasp.format("Distractor"), TABLE, distractor_config="more")
    yield from nears(near.format("Google"), TABLE, no_distractor=True)
    for camera in ("AltGoogleCamera", "AltGoogleCamera2"):
        yield from cans(grasp.format(camera), TABLE)
        yield from nears(near.format(camera), TABLE)
    room = "frl_apartment_stage_simple"
    for episodes in (drawers, apples):
        for scene in (room, "modern_bedroom_no_roof", "modern_office_no_roof"):
            yield from episodes(scene)
        for more in ("brighter", "darker"):
            yield from episodes(room, light_mode=more)
        for more in ("mk_station2", "mk_station3"):
            yield from episodes(room, station_name=more)


def asked(protocol: str, robot: str) -> Iterator[Episode]:
    for address in get_protocol(protocol).episodes:
        if address.task.startswith(robot):
            yield episode_of(TASKS[address.task], address.variant, address.layout)


def key(env_id: str, kwargs: Any, options: Any) -> str:
    """Equal for equal calls to the last bit; -0 is 0."""
    return json.dumps([env_id, kwargs, options], sort_keys=True, default=float).replace("-0.0,", "0.0,")


def check(protocol: str, calls: Iterable[Call], number: int) -> None:
    episodes = list(asked(protocol, "google_robot"))
    assert not any(episode.prepackaged for episode in episodes)
    ours = Counter(key(episode.make, episode.kwargs, episode.options) for episode in episodes)
    assert ours == Counter(key(*one) for one in calls)
    assert len(ours) == len(episodes) == number


def test_every_episode_of_visual_matching() -> None:
    check("visual_matching", visual_matching(), 300 + 240 + 108 + 108 + 108)


@pytest.mark.slow
def test_every_episode_of_variant_aggregation() -> None:
    check("variant_aggregation", variant_aggregation(), 675 + 150 + 480 + 120 + 189 + 189 + 189)


def test_every_widowx_episode_is_prepackaged() -> None:
    ours = list(asked("visual_matching", "widowx"))
    assert len(ours) == 4 * 24
    for episode in ours:
        assert episode.prepackaged
        assert not episode.kwargs
    assert Counter(key(e.make, {}, e.options) for e in ours) == Counter(
        key(name, {}, {"obj_init_options": {"episode_id": k}})
        for name, k in product(
            ("widowx_spoon_on_towel", "widowx_carrot_on_plate", "widowx_stack_cube", "widowx_put_eggplant_in_basket"),
            range(24),
        )
    )


def test_layouts_are_asked_for_where_they_are() -> None:
    """An independent way from an address to a place: our own layouts' settled poses."""
    for name in ("google_robot_pick_coke_can", "google_robot_pick_object"):
        for index in range(0, TASKS[name].num_layouts, 13):
            episode = episode_of(TASKS[name], "default", f"grid:{index}")
            layout = TASKS[name].layout(f"grid:{index}")
            offset = layout.object_pose[0, :2] - episode.options["obj_init_options"]["init_xy"]
            assert np.hypot(*offset) < (0.06 if layout.cast in ("apple", "orange") else 0.02)  # those roll
    for task in GOOGLE_TASKS:
        for variant in ("default", "aggregation"):
            for index in range(0, task.num_layouts, 29):
                episode = episode_of(task, variant, f"grid:{index}")
                base = task.layout(f"grid:{index}", variant).base_pose
                if base is not None:
                    robot = episode.options["robot_init_options"]
                    assert robot["init_xy"] == pytest.approx(base[:2], abs=1e-12)
                    assert robot["init_rot_quat"] == pytest.approx(base[3:], abs=1e-12)


@pytest.mark.parametrize("index", [0, 24, 25, 49, 50, 74])
def test_the_can_of_any_orientation(index: int) -> None:
    turned = ({"lr_switch": True}, {"laid_vertically": True}, {"upright": True})[index // 25]
    kwargs = episode_of(TASKS["google_robot_pick_coke_can"], "default", f"grid:{index}").kwargs
    assert {k: v for k, v in kwargs.items() if k in ("lr_switch", "upright", "laid_vertically")} == turned


def test_tasks_outside_the_published_tables() -> None:
    versions = {"google_robot_move_near": "v1", "google_robot_move_near_v1": "v1", "google_robot_move_near_v0": "v0"}
    for name, version in versions.items():
        assert episode_of(TASKS[name], "default", "grid:0").make == f"MoveNearGoogleBakedTexInScene-{version}"
    anything = TASKS["google_robot_pick_object"]
    episode = episode_of(anything, "camera_1", "grid:80")
    assert episode.make == "GraspSingleRandomObjectInScene-v0"
    assert episode.options["model_id"] == "opened_coke_can"
    assert episode.options["robot_init_options"]["qpos"][-1] == 0.9351361
    assert episode_of(TASKS["google_robot_open_drawer"], "default", "grid:20").make == DRAWERS[2]
    bottle = TASKS["google_robot_place_in_closed_middle_drawer"]
    numbers = [k for k in range(bottle.num_layouts) if bottle.layout(f"grid:{k}").cast == "blue_plastic_bottle"]
    episode = episode_of(bottle, "default", f"grid:{numbers[0]}")
    assert (episode.make, episode.kwargs["model_ids"]) == (
        "PlaceIntoClosedMiddleDrawerCustomInScene-v0", "blue_plastic_bottle",
    )  # fmt: skip


def test_what_the_original_does_not_have() -> None:
    with pytest.raises(InvalidConfigError, match="own layouts only; got 'region:3'"):
        episode_of(get_task("widowx_stack_cube"), "default", "region:3")
    mine = copy.copy(get_task("widowx_stack_cube"))
    mine.name = "widowx_stack_my_cube"
    with pytest.raises(
        InvalidConfigError, match="the benchmark's own tasks only; got widowx_stack_my_cube: choose ano"
    ):
        episode_of(mine, "default", "grid:0")
    with pytest.raises(InvalidConfigError, match="handles are never solid"):
        episode_of(TASKS["google_robot_open_drawer"], "solid_handles", "grid:0")
    with pytest.raises(InvalidConfigError, match="layouts 0 to 23"):
        episode_of(get_task("widowx_stack_cube"), "default", "grid:24")


def test_a_state_of_its_own_starts_from_the_nearest_episode() -> None:
    task = TASKS["google_robot_move_near"]
    for name in ("grid:0", "grid:17", "grid:59"):
        assert nearest_episode(task, "default", task.layout(name)) == episode_of(task, "default", name)
