"""Projection of world points into a robot's image by kinematics and a pinhole camera, without an engine."""

from __future__ import annotations

import numpy as np

from vlaser_gym.conventions import rotations
from vlaser_gym.envs import transforms
from vlaser_gym.envs.robots.base import POLICY_CAMERA, Floats, RobotSetup
from vlaser_gym.envs.robots.kinematics import KinematicTree


class Projector:
    """Projects points into the images of one of a robot's cameras.

    Args:
        setup: the robot.
        camera: its name among ``RobotSetup.cameras``.

    Example:
        >>> from vlaser_gym.envs.robots import get_setup
        >>> setup = get_setup("widowx")
        >>> qpos, base = np.array([setup.qpos]), np.array([setup.base_pose])
        >>> Projector(setup).seen(qpos, base, np.array([[-0.15, 0, 0.9]])).shape
        (1, 3)
    """

    def __init__(self, setup: RobotSetup, camera: str = POLICY_CAMERA) -> None:
        self.camera = setup.cameras[camera]
        self._tree = KinematicTree(setup.robot)

    def poses(self, qpos: Floats, base_pose: Floats) -> Floats:
        """World poses ``[B, 7]`` of the camera (x forward, y left, z up) for ``qpos [B, J]``, ``base_pose [B, 7]``."""
        link = self.camera.link
        rotation, position = self._tree.link_poses(qpos, [link])[link]
        carried = transforms.compose(base_pose, transforms.make_pose(position, rotation))
        return transforms.compose(carried, np.array(self.camera.pose))

    def seen(self, qpos: Floats, base_pose: Floats, points: Floats) -> Floats:
        """World points ``[B, 3]`` as the camera has them: metres to the right, down, and forward, ``[B, 3]``."""
        pose = self.poses(qpos, base_pose)
        back = np.swapaxes(rotations.matrix_from_quaternion(pose[..., 3:]), -1, -2)
        forward, left, up = np.moveaxis(rotations.rotate(back, points - pose[..., :3]), -1, 0)
        return np.stack([-left, -up, forward], -1)

    def pixels(self, seen: Floats) -> Floats:
        """Column and row ``[..., 2]`` of points that the camera has in front of it ``[..., 3]``; see :meth:`seen`.

        A whole number is the edge between two pixels: pixel ``k`` covers ``[k, k + 1)``.
        """
        centre = np.array([self.camera.cx, self.camera.cy])
        return np.asarray(centre + self.camera.focal * seen[..., :2] / seen[..., 2:])
