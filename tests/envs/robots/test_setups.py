"""Robots as engines find them: by name, with all that engines must know of them."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest

import vlaser_gym
from vlaser_gym.envs import robots
from vlaser_gym.envs.engines.mujoco.scene import build_scene
from vlaser_gym.envs.engines.simpler.episodes import numbers_of
from vlaser_gym.envs.robots import Camera, MujocoNumbers, RobotSetup, get_setup, is_image, register_setup
from vlaser_gym.envs.robots.widowx import TABLE_SETUP
from vlaser_gym.envs.tasks import get_task, objects, widowx
from vlaser_gym.envs.tasks.put_on import PutOnTask
from vlaser_gym.errors import GymError

#: A robot of one's own: the WidowX on softer contacts, slower substeps, with its own look and a camera at its side.
SIDE = Camera(
    "side_camera", "base_link", 96, 64, 50.0, 48.0, 32.0, 0.01, 10.0, (0, -0.4, 0.3, 0.7071068, 0, 0, 0.7071068)
)
MINE = replace(
    TABLE_SETUP,
    name="my_robot_on_a_table",
    robot=replace(
        TABLE_SETUP.robot,
        name="my_robot",
        mujoco=MujocoNumbers(f"{__name__}:add_shapes", 20, (0.8, 0.9), friction_weight=3.0, rolling_friction=0.002),
        maniskill=None,
        simpler=None,
    ),
    cameras={**TABLE_SETUP.cameras, "side": SIDE},
    original_name="",
)


def add_shapes(spec: object, body: object, link: str, colour: str) -> None:
    """A bead of 1 cm per link."""
    body.add_geom(name=f"bead:{link}", size=(0.01, 0, 0), contype=1, conaffinity=1)  # type: ignore[attr-defined]


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> RobotSetup:
    monkeypatch.setattr(robots, "_ADDED", {})
    register_setup(MINE)
    return MINE


def task_for(setup: RobotSetup) -> PutOnTask:
    region = widowx.TASKS[2].region()
    return PutOnTask(f"stack_{setup.name}", "stack", (objects.GREEN_CUBE, objects.YELLOW_CUBE), region,
                     robot_setup=setup.name)  # fmt: skip


def test_a_third_robot_is_built_by_its_own_numbers(mine: RobotSetup) -> None:
    model = build_scene(task_for(mine)).model
    assert model.opt.timestep == pytest.approx(1 / (5 * 20))
    assert model.opt.impratio == 3.0
    beads = [i for i in range(model.ngeom) if model.geom(i).name.startswith("bead:")]
    assert len(beads) == len(mine.robot.links)
    assert np.allclose(model.geom_solimp[beads, :2], (0.8, 0.9))
    cube = next(i for i in range(model.ngeom) if model.body(model.geom_bodyid[i]).name == "object:baked_green_cube_3cm"
                and model.geom_contype[i])  # fmt: skip
    assert model.geom_friction[cube, 2] == 0.002
    cameras = {model.camera(i).name: tuple(model.cam_resolution[i]) for i in range(model.ncam)}
    assert cameras == {"3rd_view_camera": (640, 480), "wrist_camera": (640, 480), "side_camera": (96, 64)}


def test_no_engine_has_a_table_of_robots() -> None:
    """No engine's code names a robot's links, joints or the robot itself as a key."""
    folder = Path(vlaser_gym.__file__).parent / "envs/engines"
    known = {get_setup(name).robot.name for name in ("widowx", "google_robot_pick")} | {"widowx_sink"}
    for file in sorted(folder.rglob("*.py")):
        keys = [
            key.value
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Dict)
            for key in node.keys
            if isinstance(key, ast.Constant)
        ]
        assert not known & set(map(str, keys)), file


def test_names_are_ones_own(mine: RobotSetup) -> None:
    assert get_setup(mine.name) is MINE
    again = replace(MINE, control_hz=10.0)
    register_setup(again)
    assert get_setup(mine.name) is again
    with pytest.raises(GymError, match=r"'widowx' is the gym's own: give yours another name"):
        register_setup(replace(MINE, name="widowx"))
    with pytest.raises(GymError, match="Expected a RobotSetup to register; got Robot"):
        register_setup(MINE.robot)  # type: ignore[arg-type]


def test_an_engine_without_the_robot_says_so(mine: RobotSetup) -> None:
    with pytest.raises(GymError, match="engine=simpler has no robot my_robot: choose another engine"):
        numbers_of(mine.robot)


def test_pictures_are_named_after_cameras(mine: RobotSetup) -> None:
    assert mine.image_cameras == {"image": "policy", "wrist_image": "wrist", "side_image": "side"}
    assert [is_image(name) for name in ("image", "wrist_image", "proprio", "images", "image_wrist")] == [True, True] + [
        False
    ] * 3


@pytest.mark.parametrize("task", ["widowx_stack_cube", "widowx_put_eggplant_in_basket", "google_robot_pick_coke_can"])
def test_wrist_cameras_look_along_the_fingers(task: str) -> None:
    """Mounted on the gripper; the TCP, between the finger tips, is in the lower half of the image, left and right."""
    setup = get_setup(get_task(task).robot_setup)
    camera, model = setup.cameras["wrist"], build_scene(get_task(task)).model
    data = mujoco.MjData(model)
    for joint, value in zip(setup.robot.moving_joints, setup.qpos, strict=True):
        data.joint(joint.name).qpos = value
    mujoco.mj_forward(model, data)
    seen = data.camera("wrist_camera")
    tcp = data.body(f"link:{setup.robot.tcp_link}").xpos - seen.xpos
    right, up, backward = seen.xmat.reshape(3, 3).T @ tcp
    column, row = camera.cx + camera.focal * right / -backward, camera.cy - camera.focal * up / -backward
    assert abs(column - camera.width / 2) < 0.05 * camera.width
    assert 0.5 * camera.height < row < camera.height
    assert 0.05 < -backward < 0.25
    assert np.linalg.norm(camera.pose[3:]) == pytest.approx(1.0, abs=1e-6)
    # Upright: what lies further away from the robot on the table is higher up in the image.
    base = np.array(setup.base_pose[:3]) - seen.xpos
    assert seen.xmat.reshape(3, 3)[:2, 1] @ base[:2] < 0
