"""Scenes of the Google Robot: mass, shapes against recorded poses, speed targets, every variant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest

from vlaser_gym.envs.engines import Placement
from vlaser_gym.envs.engines.mujoco.engine import MujocoEngine
from vlaser_gym.envs.engines.mujoco.rendering import SceneRenderer
from vlaser_gym.envs.engines.mujoco.scene import Scene, build_scene, write_qpos
from vlaser_gym.envs.robots import DriveTargets, get_setup
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.envs.tasks.base import Layout
from vlaser_gym.envs.vector import SceneVectorEnv

PICK, NEAR = "google_robot_pick_coke_can", "google_robot_move_near"


def at_start(scene: Scene, task_name: str, layout: Layout) -> mujoco.MjData:
    data = mujoco.MjData(scene.model)
    start = layout.qpos or get_setup(get_task(task_name).robot_setup).qpos
    write_qpos(scene, data.qpos, np.array(start), layout.object_pose, layout.joints)
    mujoco.mj_forward(scene.model, data)
    return data


@pytest.mark.parametrize("task", [PICK, "google_robot_pick_object", NEAR])
def test_bodies_weigh_what_the_original_weighs(task: str) -> None:
    scene = build_scene(get_task(task))
    robot = get_setup(get_task(task).robot_setup).robot
    for link in robot.links:
        assert scene.model.body(f"link:{link.name}").mass[0] == pytest.approx(link.mass)
    for obj in get_task(task).objects_of(get_task(task).layout("grid:0").cast):
        assert scene.model.body(f"object:{obj.name}").mass[0] == pytest.approx(obj.mass)


@pytest.mark.parametrize(("task", "layouts"), [(PICK, (0, 40, 60)), (NEAR, (0, 13, 26, 39, 54))])
def test_settled_things_just_touch_the_table_and_stay(task: str, layouts: tuple[int, ...]) -> None:
    """Poses were recorded in the original; here they rest within a millimetre, and nothing else touches."""
    for index in layouts:
        layout = get_task(task).layout(f"grid:{index}")
        scene = build_scene(get_task(task), cast=layout.cast)
        data = at_start(scene, task, layout)
        for contact in data.contact:
            names = {scene.model.geom(contact.geom1).name, scene.model.geom(contact.geom2).name}
            assert "scene/table" in names
            assert abs(contact.dist) < 1e-3
        for _ in range(171):
            mujoco.mj_step(scene.model, data)
        for start, pose in zip(scene.object_qpos, layout.object_pose, strict=True):
            assert np.linalg.norm(data.qpos[start : start + 3] - pose[:3]) < 3e-3


def test_a_speed_target_is_followed() -> None:
    """A drive that is told position and speed of a ramp follows it; told the position only, it lags by kd / kp."""
    task = get_task(PICK)
    layout, start = task.layout("grid:0"), np.array(get_setup(task.robot_setup).qpos)
    away = layout.object_pose + np.array([3.0, 0, 0, 0, 0, 0, 0])
    times = np.arange(1, 172) / 513
    position = np.tile(start, (2, 171, 1))
    position[:, :, 7:9] += times[None, :, None]
    speed = np.zeros_like(position)
    speed[0, :, 7:9] = 1.0
    engine = MujocoEngine(2, threads=1)
    engine.place([0, 1], [Placement(task, "default", replace(layout, object_pose=away), start)] * 2)
    engine.step(np.arange(2), DriveTargets(position, speed))
    led, lagging = engine.read(np.arange(2))
    np.testing.assert_allclose(led.qpos[7:9], times[-1], atol=0.012)
    np.testing.assert_allclose(led.qpos[7:9] - lagging.qpos[7:9], 8 / 200, atol=0.005)


@pytest.mark.parametrize("task", [PICK, NEAR])
def test_every_variant_builds(task: str) -> None:
    for variant in get_task(task).variants:
        scene = build_scene(get_task(task), variant)
        assert scene.substeps * scene.model.opt.timestep == pytest.approx(1 / 3)
        assert len(scene.object_qpos) == len(get_task(task).layout("grid:0", variant).object_pose)


def test_lanes_of_different_casts_and_variants_run_side_by_side() -> None:
    env = SceneVectorEnv([NEAR, PICK], 4, observe=("state", "instruction"), engine_options={"threads": 1})
    options = {"layout": [0, 3, 13, 7], "variant": ["default", "default", "default", "distractors"]}
    observation, _ = env.reset(options=options)
    for lane, row in zip(env.lanes, observation["state"], strict=True):
        base = lane.base_pose
        # The base stands turned by half a circle, up to a few degrees: its x is world -x.
        expected = np.linalg.norm(lane.source_pose[:3] - base[:3])
        assert np.linalg.norm(row[8:11]) == pytest.approx(expected, abs=1e-5)
    assert observation["instruction"][1] == "pick coke can"
    *_, info = env.step(np.zeros((4, 7)))
    assert info["steps"].tolist() == [1] * 4
    env.close()


def test_recorded_states_of_any_cast_are_rendered_again() -> None:
    env = SceneVectorEnv(NEAR, 1, record_states=True, engine_options={"render_processes": 1})
    renderer = SceneRenderer(processes=1)
    for index in (0, 17):
        observation, info = env.reset(options={"layout": index})
        picture = renderer.frame(NEAR, "default", info["initial_states"][0])
        np.testing.assert_array_equal(picture, observation["image"][0])
    env.close()
    renderer.close()


@pytest.mark.golden
def test_the_camera_sees_what_the_original_sees(golden: Path) -> None:
    """The red pixels of a can lie around the recorded projection of its centre."""
    recording = np.load(golden / "reset" / "google_robot_pick_coke_can.horizontal" / "112.npz")
    env = SceneVectorEnv(PICK, 1, observe=("image",), engine_options={"render_processes": 1})
    picture = env.reset(options={"layout": 12})[0]["image"][0].astype(int)
    env.close()
    assert picture.shape == (512, 640, 3)
    local = recording["cam_extrinsic_cv"] @ np.append(recording["obj_pose"].reshape(-1)[:3], 1.0)
    u, v, w = recording["cam_intrinsic"] @ local[:3]
    red = np.argwhere((picture[..., 0] > 120) & (picture[..., 1] < 60) & (picture[..., 2] < 70))
    assert len(red) > 1000
    np.testing.assert_allclose(red.mean(0)[::-1], [u / w, v / w], atol=12)
