"""Spots under objects and gripper."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from vlaser_gym.envs.engines.mujoco.scene import Scene, build_scene, write_qpos
from vlaser_gym.envs.engines.mujoco.shadows import ContactShadows
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import get_task

TASK = get_task("google_robot_pick_standing_coke_can")


@pytest.fixture(scope="module")
def scene() -> Scene:
    return build_scene(TASK)


def spots(scene: Scene, lift: float = 0.0, shift: tuple[float, float] = (0.0, 0.0)) -> list[mujoco.MjvGeom]:
    """The spots of the standing can, raised and moved (m); the gripper is too high at the start to have one."""
    data = mujoco.MjData(scene.model)
    pose = np.array(TASK.layout("grid:12").object_pose)
    pose[0, :3] += (*shift, lift)
    write_qpos(scene, data.qpos, np.array(get_setup(TASK.robot_setup).qpos), pose, {})
    mujoco.mj_kinematics(scene.model, data)
    drawn = mujoco.MjvScene(scene.model, maxgeom=50)
    ContactShadows(scene.model).add_to(drawn, data)
    place = pose[0, :2]
    return [geom for geom in drawn.geoms[: drawn.ngeom] if np.linalg.norm(geom.pos[:2] - place) < 0.02]


def test_a_spot_lies_on_the_table_under_the_can_and_is_as_wide(scene: Scene) -> None:
    for geom in spots(scene):
        assert 0.87 < geom.pos[2] < 0.872
        # The can's radius is 33 mm.
        assert 0.02 < geom.size[0] < 0.05
        assert geom.size[2] < 1e-3
        assert tuple(geom.rgba[:3]) == (0, 0, 0)
        assert np.linalg.det(geom.mat.reshape(3, 3)) == pytest.approx(1)
    assert len(spots(scene)) == 2


def test_a_spot_fades_with_height_and_vanishes(scene: Scene) -> None:
    low, high = spots(scene)[0].rgba[3], spots(scene, lift=0.06)[0].rgba[3]
    assert high == pytest.approx(low / 2, rel=0.05)
    assert not spots(scene, lift=0.13)


def test_no_spot_hangs_over_the_edge(scene: Scene) -> None:
    # The table ends at x = 0.02 m; the middle of this can is 1 cm away from there.
    x = float(TASK.layout("grid:12").object_pose[0, 0])
    for geom in spots(scene, shift=(0.01 - x, 0.0)):
        assert geom.pos[0] + geom.size[:2].max() <= 0.02 + 1e-6
    assert not spots(scene, shift=(0.06 - x, 0.0))
