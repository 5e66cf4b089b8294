"""The cabinet on the built-in engine: places, contacts, drawers that stay, the robot's base per layout."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest

from vlaser_gym.agents.scripted import ScriptedExpert
from vlaser_gym.envs.engines import Placement
from vlaser_gym.envs.engines.mujoco.engine import MujocoEngine
from vlaser_gym.envs.engines.mujoco.rendering import SceneRenderer
from vlaser_gym.envs.engines.mujoco.scene import build_scene
from vlaser_gym.envs.robots import DriveTargets, get_setup
from vlaser_gym.envs.tasks import get_task, task_names
from vlaser_gym.envs.tasks.base import Layout
from vlaser_gym.envs.vector import SceneVectorEnv

OPEN, CLOSE = "google_robot_open_top_drawer", "google_robot_close_middle_drawer"
APPLE = "google_robot_place_apple_in_closed_top_drawer"


def engine_at(task_name: str, layout: Layout) -> MujocoEngine:
    task = get_task(task_name)
    engine = MujocoEngine(1, threads=1)
    start = np.array(get_setup(task.robot_setup).qpos)
    engine.place([0], [Placement(task, "default", layout, start)])
    return engine


def hold(engine: MujocoEngine, steps: int = 1) -> None:
    """Control steps in which the robot stays where it is."""
    start = engine.read(np.array([0]))[0].qpos
    for _ in range(steps):
        engine.step(np.array([0]), DriveTargets(start[None, None], None))


def test_boxes_stand_where_the_description_says() -> None:
    """World places of some sides, worked out by hand: cabinet at (-0.295, 0, 0.017)."""
    model = build_scene(get_task(OPEN)).model
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)

    def extent(name: str) -> tuple[np.ndarray, np.ndarray]:
        centre, half = data.geom(name).xpos, model.geom(name).size
        return centre - half, centre + half

    np.testing.assert_allclose(extent("scene/cabinet_tabletop"), [(-0.61, -0.3075, 0.862), (0.02, 0.3075, 0.882)])
    np.testing.assert_allclose(extent("part:top_drawer_front"), [(0.0025, -0.3075, 0.615), (0.0175, 0.3075, 0.755)])
    np.testing.assert_allclose(extent("part:bottom_drawer_floor"), [(-0.57, -0.2575, 0.125), (-0.02, 0.2575, 0.145)])
    assert model.body("cabinet:middle").mass[0] == pytest.approx(11.38)


def test_handles_are_only_seen_unless_the_variant_says_so() -> None:
    plain, solid = (build_scene(get_task(OPEN), variant).model for variant in ("default", "solid_handles"))

    def felt(model: mujoco.MjModel) -> set[str]:
        return {model.geom(i).name for i in range(model.ngeom) if model.geom_contype[i]}

    assert felt(solid) - felt(plain) == {
        f"part:{drawer}_drawer_handle_{part}"
        for drawer in ("top", "middle", "bottom")
        for part in ("bar", "left", "right")
    }


def test_a_drawer_that_nothing_pushes_stays() -> None:
    engine = engine_at(CLOSE, get_task(CLOSE).layout("grid:4"))
    hold(engine, 2)
    joints = engine.read(np.array([0]))[0].joints
    assert joints == pytest.approx(
        {"top_drawer_joint": 0, "middle_drawer_joint": 0.2, "bottom_drawer_joint": 0}, abs=1e-5
    )


@pytest.mark.parametrize(
    ("place", "felt"), [((0.10, 0.05, 0.68), 0), ((0.10, 0.05, 0.432), 1), ((-0.05, 0.05, 0.918), -1)]
)
def test_only_the_floor_under_the_object_is_felt(place: tuple[float, ...], felt: int) -> None:
    """Queries name one box each: an apple in the top drawer, in the middle one, on the cabinet."""
    layout = get_task(APPLE).layout("grid:0")
    pose = np.array([[*place, *layout.object_pose[0, 3:]]])
    joints = {"top_drawer_joint": 0.25, "middle_drawer_joint": 0.25 if felt == 1 else 0.0, "bottom_drawer_joint": 0.0}
    if felt == 1:
        joints["top_drawer_joint"] = 0.0
    engine = engine_at(APPLE, replace(layout, object_pose=pose, joints=joints))
    hold(engine, 2)
    touching = np.linalg.norm(engine.read(np.array([0]))[0].impulse, axis=-1) > 1e-6
    assert touching.tolist() == [drawer == felt for drawer in range(3)]


@pytest.mark.golden
def test_links_stand_where_they_were_recorded(golden: Path) -> None:
    """The base pose of each layout reaches the compiled scene."""
    folder, compared = golden / "reset" / "google_robot_open_drawer.top", set()
    scene, task = build_scene(get_task(OPEN)), get_task(OPEN)
    for key, meta in json.loads((folder / "index.json").read_text()).items():
        recording = np.load(folder / f"{key}.npz")
        (layout,) = (
            layout for layout in (task.layout(f"grid:{k}") for k in range(9)) if layout.overlay == meta["overlay"]
        )
        engine = engine_at(OPEN, layout)
        pool = next(iter(engine._pools.values()))
        data = pool.batch.get_data(0)
        mujoco.mj_forward(scene.model, data)
        for name, pose in zip(meta.get("link_names", ()), recording["link_pose_world"], strict=False):
            if name in ("link_base", "link_gripper", "link_camera", "link_finger_tip_left"):
                np.testing.assert_allclose(data.body(f"link:{name}").xpos, pose[:3], atol=1e-4)
                compared.add((meta["overlay"], name))
    assert len(compared) >= 8


def test_pictures_show_the_layouts_base_and_can_be_made_again() -> None:
    env = SceneVectorEnv([OPEN, CLOSE], 2, record_states=True, engine_options={"render_processes": 1, "threads": 1})
    renderer = SceneRenderer(processes=1)
    pictures = []
    for index in (0, 8):
        observation, info = env.reset(options={"layout": index})
        for task, state, picture in zip((OPEN, CLOSE), info["initial_states"], observation["image"], strict=True):
            np.testing.assert_array_equal(renderer.frame(task, "default", state), picture)
        pictures.append(observation["image"][0].astype(int))
    assert np.abs(pictures[0] - pictures[1]).mean() > 5
    env.close()
    renderer.close()


def test_snapshots_hold_drawers_and_base() -> None:
    env = SceneVectorEnv(CLOSE, 1, observe=("state", "image"), engine_options={"render_processes": 1, "threads": 1})
    env.reset(options={"layout": 8})
    saved, push = env.get_state(), np.array([[0.1, 0, -0.1, 0, 0, 0, 1.0]])
    first, *_ = env.step(push)
    env.reset(options={"layout": 0})
    env.set_state(saved)
    second, *_ = env.step(push)
    for name in ("state", "image"):
        np.testing.assert_array_equal(first[name], second[name])
    env.close()


def test_the_agent_may_end_the_first_sub_task() -> None:
    env = SceneVectorEnv(APPLE, 2, observe=("instruction", "state"), engine_options={"threads": 1})
    observation, _ = env.reset(options={"layout": 0})
    assert observation["instruction"] == ("open top drawer",) * 2
    env.advance_to_next_subtask(np.array([1]))
    observation, *_ = env.step(np.zeros((2, 7)))
    assert observation["instruction"] == ("open top drawer", "place apple into top drawer")
    assert observation["state"][:, 25].tolist() == [0, 1]
    env.close()


@pytest.mark.slow
@pytest.mark.parametrize("task", task_names())
def test_every_task_resets_steps_and_renders(task: str) -> None:
    env = SceneVectorEnv(task, 1, engine_options={"render_processes": 1, "threads": 1})
    env.reset(options={"layout": get_task(task).num_layouts - 1})
    observation, *_ = env.step(np.zeros((1, 7)))
    assert len(np.unique(observation["image"][0, ::4, ::4].reshape(-1, 3), axis=0)) > 20
    env.close()


def expert_successes(task: str, layouts: list[int]) -> int:
    env = SceneVectorEnv(task, len(layouts), observe=("state",), terminate_on_success=False)
    observation, _ = env.reset(options={"layout": layouts})
    expert, lanes = ScriptedExpert(), np.arange(len(layouts))
    expert.reset(lanes, env.addresses)
    for _ in range(get_task(task).max_steps - 1):
        actions = expert.act(observation, lanes)
        env.advance_to_next_subtask(np.flatnonzero(expert.subtask_done(lanes)))
        observation, *_, info = env.step_chunk(actions)
    env.close()
    return int(info["success"].sum())


@pytest.mark.slow
@pytest.mark.parametrize("task", ["google_robot_open_drawer", "google_robot_close_drawer"])
def test_drawers_are_opened_and_closed(task: str) -> None:
    assert expert_successes(task, list(range(0, 27, 3))) >= 8


@pytest.mark.slow
def test_apples_are_put_into_the_drawer() -> None:
    assert expert_successes(APPLE, list(range(1, 27, 5))) >= 5
