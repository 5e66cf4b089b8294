"""Shapes of the WidowX 250 S: what touches and what is seen, per link and in its frame.

The fingers, the bar on which they slide and the motor housing collide as convex hulls measured from the original's
(SimplerEnv, ManiSkill2_real2sim ef7a4d4: one hull per link); the arm, which hardly ever touches anything, as boxes.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import ArrayLike

from vlaser_gym.envs.engines.mujoco import measured, meshes
from vlaser_gym.envs.engines.mujoco.objects import add_collision, add_visual

_FINGER = meshes.mirrored(measured.FINGER_HALF, axis=2)
_HULLS: dict[str, ArrayLike] = {
    "gripper_link": meshes.mirrored(measured.GRIPPER_HALF, axis=1),
    "gripper_prop_link": meshes.mirrored(measured.PROP_HALF, axis=1),
    "gripper_bar_link": meshes.mirrored(measured.BAR_HALF, axis=1),
    "left_finger_link": _FINGER,
    "right_finger_link": _FINGER * np.array([1.0, -1.0, 1.0]),
}
_BLACK = (0.12, 0.12, 0.12, 1.0)


def add_link_geoms(spec: mujoco.MjSpec, body: mujoco.MjsBody, link: str, look: str = "builtin") -> None:
    """Add the collision and visual geoms of a link to its body; links without a shape get none."""
    if link in _HULLS:
        mesh = meshes.add_hull(spec, f"{link}/collision0", _HULLS[link])
        add_collision(body, mesh, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=mesh)
        add_visual(body, f"{link}/visual0", type=mujoco.mjtGeom.mjGEOM_MESH, meshname=mesh, rgba=_BLACK)
    for i, box in enumerate(measured.ARM_BOXES.get(link, ())):
        bounds = np.array(box).T * meshes.MILLIMETRE
        shape = {"type": mujoco.mjtGeom.mjGEOM_BOX, "pos": bounds.mean(0), "size": (bounds[1] - bounds[0]) / 2}
        add_collision(body, f"{link}/collision{i}", **shape)
        add_visual(body, f"{link}/visual{i}", **shape, rgba=_BLACK)
