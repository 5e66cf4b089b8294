"""Shapes of the robot: the gripper's measures, and the silhouette that the original's camera saw."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest
from PIL import Image

from vlaser_gym.envs.engines.mujoco.scene import Scene, build_scene, write_qpos
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import get_task

#: Extents of the links' collision hulls in the link frame (mm), read from the original's physics: low and high corner.
EXTENTS = {
    "gripper_link": ((0, -20, -20), (43, 20, 35.25)),
    "gripper_bar_link": ((-0.55, -52.3, -14.5), (28.6, 52.3, 35.8)),
    "gripper_prop_link": ((-2.5, -10.25, -18.25), (2.5, 10.25, 18.25)),
    "left_finger_link": ((-12.15, -11, -14.5), (43.15, 5.05, 14.5)),
    "right_finger_link": ((-12.15, -5.05, -14.5), (43.15, 11, 14.5)),
    "wrist_link": ((-3.4, -22, -20), (65, 22, 35.3)),
}


@pytest.fixture(scope="module")
def scene() -> Scene:
    return build_scene(get_task("widowx_stack_cube"))


def state(scene: Scene, task_name: str, qpos: np.ndarray, poses: np.ndarray) -> mujoco.MjData:
    data = mujoco.MjData(scene.model)
    write_qpos(scene, data.qpos, qpos, poses, {})
    mujoco.mj_forward(scene.model, data)
    return data


def at_start(scene: Scene, finger: float = 0.037) -> mujoco.MjData:
    task = get_task("widowx_stack_cube")
    qpos = np.array(get_setup(task.robot_setup).qpos)
    qpos[6:] = finger
    return state(scene, task.name, qpos, task.layout("grid:0").object_pose)


def link_corners(scene: Scene, link: str) -> np.ndarray:
    """Corners of a link's collision hulls in the link frame (m)."""
    model = scene.model
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    body = model.body(f"link:{link}").id
    points = []
    for g in np.flatnonzero((model.geom_bodyid == body) & (model.geom_group == 3)):
        if model.geom_type[g] == mujoco.mjtGeom.mjGEOM_MESH:
            mesh = model.mesh(model.geom_dataid[g])
            local = model.mesh_vert[mesh.vertadr[0] : mesh.vertadr[0] + mesh.vertnum[0]]
        else:
            local = model.geom_size[g] * np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
        world = local @ data.geom_xmat[g].reshape(3, 3).T + data.geom_xpos[g]
        points.append((world - data.xpos[body]) @ data.xmat[body].reshape(3, 3))
    return np.concatenate(points)


@pytest.mark.parametrize("link", list(EXTENTS))
def test_collision_shapes_have_the_originals_extents(scene: Scene, link: str) -> None:
    corners = link_corners(scene, link) * 1000
    tolerance = 0.6 if "finger" in link or "gripper" in link else 3.0
    np.testing.assert_allclose(corners.min(0), EXTENTS[link][0], atol=tolerance)
    np.testing.assert_allclose(corners.max(0), EXTENTS[link][1], atol=tolerance)


@pytest.mark.parametrize("finger", [0.015, 0.026, 0.037])
def test_gap_between_the_pads(scene: Scene, finger: float) -> None:
    """Twice the joint position less 11 mm at the fingers' root; 8.95 mm at their tips."""
    model, data = scene.model, at_start(scene, finger)
    left = next(g for g in range(model.ngeom) if model.geom(g).name == "left_finger_link/collision0")
    right = next(g for g in range(model.ngeom) if model.geom(g).name == "right_finger_link/collision0")
    gap = mujoco.mj_geomDistance(model, data, left, right, 1.0, None)
    assert gap == pytest.approx(2 * (finger - 0.011), abs=1e-5)


def test_pads_are_flat_and_face_each_other(scene: Scene) -> None:
    """Corners of the left pad lie in a plane whose normal is the closing axis, up to the original's 2.8 degrees."""
    corners = link_corners(scene, "left_finger_link")
    pad = corners[corners[:, 1] < -0.0089]
    pad = pad[pad[:, 0] > -0.001]
    inner = pad[(pad[:, 1] <= -0.011 + 2e-5) | (pad[:, 0] > 0.042)]
    centred = inner - inner.mean(0)
    normal = np.linalg.svd(centred)[2][2]
    assert np.abs(centred @ normal).max() < 1e-4
    assert np.degrees(np.arccos(abs(normal[1]))) < 3.0
    np.testing.assert_allclose(np.ptp(inner[:, 2]), 0.0256, atol=0.002)
    mirrored = link_corners(scene, "right_finger_link") * [1, -1, 1]
    np.testing.assert_allclose(sorted(map(tuple, mirrored.round(6))), sorted(map(tuple, corners.round(6))), atol=2e-6)


def test_the_start_pose_touches_nothing(scene: Scene) -> None:
    data = at_start(scene)
    robot = {g for g in range(scene.model.ngeom) if "_link/" in scene.model.geom(g).name}
    assert not [c for c in data.contact if robot & set(c.geom.tolist())]


def seen(scene: Scene, data: mujoco.MjData, stride: int) -> np.ndarray:
    """Whether each ``stride``-th pixel shows a link or a movable object: rays through the pixels, no OpenGL."""
    model = scene.model
    camera = model.camera(scene.camera).id
    width, height = model.cam_resolution[camera]
    fx, fy = model.cam_intrinsic[camera, :2] / model.cam_sensorsize[camera] * (width, height)
    cx, cy = 319.501, 239.545
    u, v = np.meshgrid(np.arange(0, width, stride) + 0.5, np.arange(0, height, stride) + 0.5)
    rays = np.stack([(u - cx) / fx, -(v - cy) / fy, -np.ones(u.shape)], -1).reshape(-1, 3)
    rays = rays @ data.cam_xmat[camera].reshape(3, 3).T
    count = len(rays)
    geom, distance = np.zeros(count, np.int32), np.zeros(count)
    groups = np.array([0, 0, 1, 0, 0, 0], np.uint8)
    mujoco.mj_multiRay(
        model, data, data.cam_xpos[camera], rays.ravel(), groups, True, -1, geom, distance, None, count, mujoco.mjMAXVAL
    )
    names = [model.body(b).name for b in model.geom_bodyid]
    movable = np.array([name not in ("world", "object:sink") for name in names])
    return ((geom >= 0) & movable[np.maximum(geom, 0)]).reshape(u.shape)


@pytest.mark.golden
@pytest.mark.parametrize("episode", ["000", "008"])
@pytest.mark.parametrize(
    "task", ["widowx_carrot_on_plate", "widowx_spoon_on_towel", "widowx_stack_cube", "widowx_put_eggplant_in_basket"]
)
def test_silhouette_of_robot_and_objects_is_the_originals(golden: Path, task: str, episode: str) -> None:
    """Intersection over union with the recorded foreground mask; 0.94 to 0.96 when written."""
    scene = build_scene(get_task(task))
    recorded = np.load(golden / "reset" / task / f"{episode}.npz")
    data = state(scene, task, recorded["qpos"], recorded["obj_pose"])
    stride = 4
    mask = np.array(Image.open(golden / "reset" / task / f"{episode}_mask.png").convert("L")) > 127
    mask, ours = mask[::stride, ::stride], seen(scene, data, stride)
    assert (mask & ours).sum() / (mask | ours).sum() > 0.9
