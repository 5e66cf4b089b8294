"""Camera views besides the robot's own: in front of the robot, above it, or free.

These images are for people. Walls would stand in their way and are left out.
"""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

import mujoco
import numpy as np

from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks.base import Task
from vlaser_gym.envs.tasks.cabinet import handle_pose, joint_name
from vlaser_gym.errors import InvalidConfigError, UnknownNameError

_FREE = "free"
#: Parts of sceneries that hide what stands before them.
_HIDING = ("scene/visual_partition", "scene/visual_wall", "scene/visual_cupboard", "scene/visual_room")


#: Degrees from the direction to the robot, for what the robot itself would hide.
_PAST_THE_ROBOT = 140.0


class View(NamedTuple):
    """A direction to look in, and from how far.

    Attributes:
        azimuth: degrees about the vertical; at 0 one looks at the robot's face, or at a cabinet's front past the robot;
            at 90 from the robot's left side.
        elevation: degrees; at 90 one looks straight down.
        distance: from the middle of the workspace, m.
    """

    azimuth: float
    elevation: float
    distance: float


VIEWS = {"front": View(0.0, 30.0, 0.8), "side": View(90.0, 20.0, 0.8), "top": View(0.0, 89.9, 0.8)}


def view_names(cameras: Container[str] = ()) -> tuple[str, ...]:
    """The views that a robot with these cameras has besides them."""
    return tuple(name for name in (*VIEWS, _FREE) if name not in cameras)


def free_view(azimuth: float, elevation: float, distance: float) -> str:
    """The camera's name that stands for a view of one's own; see :class:`View`.

    Example:
        >>> free_view(45, 30, 1.5)
        'free:45:30:1.5'
    """
    return f"{_FREE}:{azimuth:g}:{elevation:g}:{distance:g}"


def find_view(camera: str) -> View:
    """The view that a camera's name means.

    Raises:
        UnknownNameError: if it is none.
        InvalidConfigError: for a free one without three numbers.
    """
    if camera in VIEWS:
        return VIEWS[camera]
    name, *numbers = camera.split(":")
    if name != _FREE:
        raise UnknownNameError("camera", camera, view_names())
    try:
        return View(*map(float, numbers))
    except (TypeError, ValueError):
        raise InvalidConfigError(f"A free camera is free:AZIMUTH:ELEVATION:DISTANCE; got {camera!r}.") from None


def viewpoint(task: Task, variant: str, view: View) -> mujoco.MjvCamera:
    """MuJoCo's camera of a view of a task: it stands still whatever moves."""
    layout = task.layout("grid:0", variant)
    poses = np.asarray(layout.object_pose, np.float64).reshape(-1, 7)
    if layout.goal_joint and not len(poses):  # the task is about a drawer's handle alone
        drawer = layout.goal_joint.removesuffix(joint_name(""))
        poses = np.asarray(handle_pose(drawer, layout.joints[layout.goal_joint]))[None]
    middle = poses[:, :3].mean(0) + [0, 0, 0.05]
    towards = np.array(layout.base_pose or get_setup(task.robot_setup).base_pose)[:2] - middle[:2]
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.lookat[:] = middle
    camera.azimuth = np.rad2deg(np.arctan2(towards[1], towards[0])) + view.azimuth
    if layout.goal_joint:  # the robot's face is behind the cabinet
        camera.azimuth += _PAST_THE_ROBOT
    # Robots of other reach are looked at from farther away.
    scale = 1.0 if "widowx" in task.robot_setup else 1.6
    camera.elevation, camera.distance = -view.elevation, view.distance * scale
    return camera


def hide_walls(model: mujoco.MjModel) -> None:
    """Leave out what would stand between these cameras and the scene."""
    for index in range(model.nmat):
        if model.mat(index).name.startswith(_HIDING):
            model.mat_rgba[index, 3] = 0.0
