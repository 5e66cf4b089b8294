"""Dark spots under objects and gripper, in place of shadow maps, which software OpenGL draws slowly.

A spot lies on the highest level shape of the scenery below a body, is as large as the body seen from above, and fades
with the body's height: it tells where an object touches, and how far the gripper is from what is below it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import mujoco
import numpy as np
from numpy.typing import NDArray

from vlaser_gym.conventions import rotations
from vlaser_gym.envs.engines.mujoco.objects import COLLISION_GROUP

Floats = NDArray[np.float64]

#: Sizes of the layers of a spot relative to the body's outline, and the opacity of each.
_LAYERS, _OPACITY = (0.85, 1.2), 0.2
#: Corners around a spot, and rings of corners: it is flat.
_SLICES, _STACKS = 16, 2
#: Heights (m) at which the spots of an object and of the gripper have vanished.
_OBJECT_FADE, _GRIPPER_FADE = 0.12, 0.25
#: Gap between the layers, and between the lowest one and what it lies on, m.
_GAP = 4e-4
_GRIPPER = ("link:link_gripper", "link:link_finger")


@dataclass(frozen=True)
class _Caster:
    """Thrower of a spot: bodies, the corners of their shapes in their frames (m), and where the spot vanishes (m)."""

    corners: tuple[tuple[int, Floats], ...]
    fade: float


class ContactShadows:
    """The spots of one compiled scene.

    Args:
        model: of the scene; its bodies ``object:*`` and the Google Robot's gripper throw them.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        # Nothing else in these scenes is round by MuJoCo's own shapes.
        model.vis.quality.numslices, model.vis.quality.numstacks = _SLICES, _STACKS
        names = [model.body(index).name for index in range(model.nbody)]
        objects = [(index,) for index, name in enumerate(names) if name.startswith("object:")]
        gripper = tuple(index for index, name in enumerate(names) if name.startswith(_GRIPPER))
        self._casters = [_Caster(_corners(model, bodies), _OBJECT_FADE) for bodies in objects]
        self._casters.append(_Caster(_corners(model, gripper), _GRIPPER_FADE))
        self._boxes = np.array([index for index in range(model.ngeom) if _is_support(model, index)], np.int64)
        self._half = model.geom_size[self._boxes]

    def add_to(self, scene: mujoco.MjvScene, data: mujoco.MjData) -> None:
        """Add the spots of a state whose kinematics are known to what is drawn."""
        for caster in self._casters:
            placed = [data.xpos[body] + x @ data.xmat[body].reshape(3, 3).T for body, x in caster.corners]
            points = np.concatenate(placed)
            centre, axes, half = _outline(points[:, :2])
            height, room = self._support(data, centre, float(points[:, 2].min()))
            # Towards an edge, over which it would stick out, a spot gets smaller and fainter.
            opacity = _OPACITY * (1 - (points[:, 2].min() - height) / caster.fade) * min(1.0, room / half.max())
            if opacity <= 0:
                continue
            frame, colour = np.eye(3), np.array([0, 0, 0, opacity], np.float32)
            frame[:2, :2] = axes
            for layer, size in enumerate(_LAYERS):
                radii = np.array([*np.minimum(size * half, room), _GAP / 4])
                place = np.array([*centre, height + (layer + 1) * _GAP])
                spot, shape = scene.geoms[scene.ngeom], mujoco.mjtGeom.mjGEOM_ELLIPSOID
                mujoco.mjv_initGeom(spot, shape, radii, place, frame.ravel(), colour)
                scene.ngeom += 1

    def _support(self, data: mujoco.MjData, centre: Floats, lowest: float) -> tuple[float, float]:
        """Height of the highest shape below a point, and how far it reaches around it (m); 0 and 0 without one."""
        place, half = data.geom_xpos[self._boxes], self._half
        room = (half[:, :2] - np.abs(place[:, :2] - centre)).min(1)
        top = place[:, 2] + half[:, 2]
        below = (room > 0) & (top < lowest + 0.01)
        if not below.any():
            return 0.0, 0.0
        best = int(np.argmax(np.where(below, top, -np.inf)))
        return float(top[best]), float(room[best])


def _is_support(model: mujoco.MjModel, index: int) -> bool:
    """True for a level shape of the scenery that carries things."""
    geom = model.geom(index)
    scenery = model.body(int(geom.bodyid[0])).name.startswith(("world", "cabinet:"))
    is_box = bool(model.geom_type[index] == mujoco.mjtGeom.mjGEOM_BOX)
    return scenery and is_box and bool(model.geom_contype[index] != 0)


def _corners(model: mujoco.MjModel, bodies: tuple[int, ...]) -> tuple[tuple[int, Floats], ...]:
    """Each body with the corners of its contact shapes in its frame, ``[N, 3]`` m."""
    found = []
    for index in range(model.ngeom):
        body = int(model.geom_bodyid[index])
        if body in bodies and model.geom_group[index] == COLLISION_GROUP:
            turn = rotations.matrix_from_quaternion(model.geom_quat[index])
            found.append((body, model.geom_pos[index] + _shape(model, index) @ turn.T))
    return tuple(found)


def _shape(model: mujoco.MjModel, index: int) -> Floats:
    """Corners of a mesh or a box in its own frame, ``[N, 3]`` m."""
    mesh = int(model.geom_dataid[index])
    if mesh < 0:
        signs = np.array(list(product((-1.0, 1.0), repeat=3)))
        return np.asarray(signs * model.geom_size[index], np.float64)
    first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    return np.asarray(model.mesh_vert[first : first + count], np.float64)


def _outline(points: Floats) -> tuple[Floats, Floats, Floats]:
    """Middle ``[2]``, axes ``[2, 2]`` (columns) and half sizes ``[2]`` of points in the plane ``[N, 2]``."""
    _, axes = np.linalg.eigh(np.cov(points.T))
    axes[:, 0] *= np.sign(np.linalg.det(axes))
    along = points @ axes
    low, high = along.min(0), along.max(0)
    return np.asarray(axes @ (low + high) / 2), np.asarray(axes), np.asarray((high - low) / 2)
