"""Images and physics of perturbed episodes, against optics, mechanics and scenes that were built so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vlaser_gym.envs.engines import Placement
from vlaser_gym.envs.engines.base import NOMINAL_PHYSICS, NOMINAL_SIGHT, Physics, Sight
from vlaser_gym.envs.engines.mujoco.engine import MujocoEngine
from vlaser_gym.envs.engines.mujoco.rendering import Job, RenderPool, SceneKey
from vlaser_gym.envs.engines.mujoco.scene import build_scene
from vlaser_gym.envs.engines.mujoco.seen import SeenModel
from vlaser_gym.envs.robots import DriveTargets, get_setup
from vlaser_gym.envs.tasks import get_task

CUBE, CAN, DRAWER = "widowx_stack_cube", "google_robot_pick_coke_can", "google_robot_open_drawer"
KEY = SceneKey(CUBE, "default", "builtin")


@pytest.fixture(scope="module")
def pool() -> Iterator[RenderPool]:
    pool = RenderPool(4, 1)
    yield pool
    pool.close()


def picture(pool: RenderPool, sight: Sight = NOMINAL_SIGHT) -> np.ndarray:
    scene = build_scene(get_task(CUBE))
    return pool.render([Job(KEY, scene.model.qpos0, sight=sight)])[0].astype(float)


def intrinsics() -> np.ndarray:
    camera = get_setup("widowx").camera
    return np.array([[camera.focal, 0, camera.cx], [0, camera.focal, camera.cy], [0, 0, 1]])


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over the middle of two images, which both show it."""
    inside = (slice(80, -80), slice(100, -100))
    return float(np.abs(a[inside] - b[inside]).mean())


def test_a_turned_camera_sees_what_projective_geometry_says(pool: RenderPool) -> None:
    """A pure rotation moves pixels by the homography K R^-1 K^-1, whatever the scene's depth."""
    turn = np.array([0.03, -0.04, 0.05])
    # MuJoCo's axes: x right, y up, z backward; those of an image: x right, y down, z forward.
    flip = np.diag([1.0, -1.0, -1.0])
    rotation = flip @ Rotation.from_rotvec(turn).as_matrix() @ flip
    homography = intrinsics() @ rotation.T @ np.linalg.inv(intrinsics())
    plain = picture(pool)
    expected = cv2.warpPerspective(plain, homography, (640, 480))
    seen = picture(pool, NOMINAL_SIGHT._replace(turn=tuple(turn)))
    assert difference(seen, expected) < 0.15 * difference(seen, plain)


def test_another_lens_magnifies_about_the_principal_point(pool: RenderPool) -> None:
    camera = get_setup("widowx").camera
    zoom = np.array([[1.25, 0, -0.25 * camera.cx], [0, 1.25, -0.25 * camera.cy]])
    plain = picture(pool)
    seen = picture(pool, NOMINAL_SIGHT._replace(zoom=1.25))
    assert difference(seen, cv2.warpAffine(plain, zoom, (640, 480))) < 0.2 * difference(seen, plain)


def test_the_plain_picture_comes_back_byte_for_byte(pool: RenderPool) -> None:
    plain = picture(pool)
    changed = [
        NOMINAL_SIGHT._replace(shift=(0.05, 0, 0)),
        NOMINAL_SIGHT._replace(light_turn=(0.7, 0, 0)),
        NOMINAL_SIGHT._replace(light_colour=(1.5, 1.0, 0.7)),
        NOMINAL_SIGHT._replace(repaint=("table", 3, 0.9)),
        NOMINAL_SIGHT._replace(repaint=("background", 3, 0.9)),
    ]
    for sight in changed:
        assert np.abs(picture(pool, sight) - plain).mean() > 1
        assert (picture(pool) == plain).all()


def test_a_displaced_camera_stands_where_its_own_axes_say() -> None:
    model = build_scene(get_task(CUBE)).model
    data, camera = mujoco.MjData(model), model.camera(get_setup("widowx").camera.name).id
    mujoco.mj_forward(model, data)
    before, axes = data.cam_xpos[camera].copy(), data.cam_xmat[camera].reshape(3, 3).copy()
    SeenModel(model).show(NOMINAL_SIGHT._replace(shift=(0.01, 0.02, 0.03)))
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.cam_xpos[camera] - before, axes @ [0.01, 0.02, 0.03], atol=1e-12)


def test_lights_turn_and_take_colour() -> None:
    model = build_scene(get_task(CUBE)).model
    before = {name: np.array(getattr(model, name)) for name in ("light_dir", "light_diffuse")}
    ambient = np.array(model.vis.headlight.ambient)
    SeenModel(model).show(NOMINAL_SIGHT._replace(light_turn=(0.3, 0.4, 0.0), light_colour=(2.0, 1.0, 0.5)))
    turned = Rotation.from_rotvec([0.3, 0.4, 0.0]).apply(before["light_dir"])
    np.testing.assert_allclose(model.light_dir, turned, atol=1e-12)
    np.testing.assert_allclose(model.light_diffuse, before["light_diffuse"] * [2, 1, 0.5], rtol=1e-6)
    np.testing.assert_allclose(model.vis.headlight.ambient, ambient * [2, 1, 0.5], rtol=1e-6)


@pytest.mark.parametrize(
    ("task", "table", "background"),
    [
        (CUBE, {"scene/visual_desk", "scene/visual_desk_planks2"}, {"scene/visual_room", "scene/visual_drawers"}),
        (CAN, {"scene/visual_top", "scene/visual_fronts"}, {"scene/visual_wall", "scene/visual_floor"}),
        (DRAWER, {"cabinet/body", "cabinet/handle"}, {"scene/visual_desk", "scene/visual_wall_back"}),
    ],
)
def test_robots_and_objects_keep_their_colours(task: str, table: set[str], background: set[str]) -> None:
    model = build_scene(get_task(task)).model
    colours = np.array(model.mat_rgba)
    seen, changed = SeenModel(model), {}
    for surfaces in ("table", "background"):
        seen.show(NOMINAL_SIGHT._replace(repaint=(surfaces, 1, 0.5)))
        rows = (model.mat_rgba != colours).any(1)
        changed[surfaces] = {model.mat(i).name for i in np.flatnonzero(rows)}
        assert (model.mat_rgba[:, 3] == colours[:, 3]).all()
        assert (model.mat_rgba[:, :3] >= 0).all()
    assert table <= changed["table"]
    assert background <= changed["background"]
    assert not changed["table"] & changed["background"]
    assert all(name.startswith(("scene/", "cabinet/")) for names in changed.values() for name in names)


def test_half_of_a_colour_is_halfway_to_the_drawn_one() -> None:
    mixed = {}
    for share in (0.0, 0.5, 1.0):
        model = build_scene(get_task(CUBE)).model
        SeenModel(model).show(NOMINAL_SIGHT._replace(repaint=("table", 7, share)))
        mixed[share] = np.array(model.mat_rgba, float)
    np.testing.assert_allclose(mixed[0.5], (mixed[0.0] + mixed[1.0]) / 2, atol=1e-6)


# ---------------------------------------------------------------------- physics


def test_heavier_objects_are_those_of_a_scene_with_heavier_objects() -> None:
    task = get_task(CUBE)
    heavy = type(task).__new__(type(task))
    heavy.__dict__ = dict(task.__dict__)
    heavy.objects = tuple(
        replace(body, mass=4 * body.mass, inertia=tuple(4 * value for value in body.inertia)) for body in task.objects
    )
    built, changed = build_scene(heavy).model, build_scene(task, physics=Physics(mass=4.0)).model
    for name in ("body_mass", "body_inertia", "dof_damping", "body_invweight0", "dof_invweight0", "body_subtreemass"):
        np.testing.assert_allclose(getattr(changed, name), getattr(built, name), rtol=1e-9, err_msg=name)


def slide(physics: Physics) -> float:
    """How far a cube slides that begins with 0.5 m/s (m)."""
    engine = MujocoEngine(1)
    task = get_task(CUBE)
    layout = task.layout("grid:0")
    engine.place([0], [Placement(task, "default", layout, np.array(get_setup("widowx").qpos), "", physics=physics)])
    target = DriveTargets(np.array(get_setup("widowx").qpos)[None, None])
    engine.step(np.array([0]), target)  # it comes to rest on its contacts
    (pool,) = engine._pools.values()
    start = pool.scene.object_qvel[0]
    pool.batch.qvel[0, start + 1] = -0.5
    before = engine.read(np.array([0]))[0].object_pose[0, 1]
    for _ in range(10):
        engine.step(np.array([0]), target)
    after = engine.read(np.array([0]))[0].object_pose[0, 1]
    engine.close()
    return float(before - after)


def test_a_cube_slides_as_far_as_its_friction_lets_it() -> None:
    """Coulomb: v^2 / (2 mu g), with mu 0.75 on the table."""
    for factor in (1.0, 0.45):
        expected = 0.25 / (2 * 0.75 * factor * 9.81)
        assert slide(Physics(friction=factor)) == pytest.approx(expected, rel=0.12)


def test_a_snapshot_holds_light_and_physics() -> None:
    task = get_task(CUBE)
    qpos = np.array(get_setup("widowx").qpos)
    placement = Placement(task, "default", task.layout("grid:0"), qpos)
    sight = NOMINAL_SIGHT._replace(zoom=1.1)
    one, other = MujocoEngine(2), MujocoEngine(2)
    one.place([0, 1], [replace(placement, sight=sight, physics=Physics(0.5, 2.0)), placement])
    other.set_state(one.get_state())
    assert other._sights == [sight, NOMINAL_SIGHT]
    masses = [other._pools[key].scene.model.body("object:baked_green_cube_3cm").mass[0] for key in other._keys]
    assert masses[0] == pytest.approx(2 * masses[1])
    one.close()
    other.close()


def test_episodes_without_a_perturbation_share_the_nominal_scene() -> None:
    task = get_task(CUBE)
    engine = MujocoEngine(1)
    engine.place([0], [Placement(task, "default", task.layout("grid:0"), np.array(get_setup("widowx").qpos))])
    assert [key.physics for key in engine._pools] == [NOMINAL_PHYSICS]
    engine.close()
