"""Batched rigid transforms in numpy, float64.

A pose is ``[..., 7]``: position (m), quaternion w, x, y, z. Rotations are those of
:mod:`vlaser_gym.conventions.rotations`. Every function works row by row: a row's result does not depend on the rest of
the batch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlaser_gym.conventions.rotations import (
    matrix_from_quaternion,
    quaternion_from_matrix,
    rotate,
    small_axis_angle_from_matrix,
)

Floats = NDArray[np.float64]

#: Keeps a quotient of two numbers that vanish together finite.
_TINY = 1e-30
_NEXT, _AFTER = np.array([1, 2, 0]), np.array([2, 0, 1])


def cross(a: Floats, b: Floats) -> Floats:
    """Cross product of ``[..., 3]``: ``np.cross`` without its handling of other shapes, at a third of the cost."""
    left, right = a.take(_NEXT, -1) * b.take(_AFTER, -1), a.take(_AFTER, -1) * b.take(_NEXT, -1)
    return np.asarray(left - right)


def make_pose(position: Floats, matrix: Floats) -> Floats:
    """Positions ``[..., 3]`` and matrices ``[..., 3, 3]`` to poses ``[..., 7]``."""
    return np.concatenate([position, quaternion_from_matrix(matrix)], -1)


def compose(a: ArrayLike, b: ArrayLike) -> Floats:
    """Pose of c in the world, given ``a`` = b in the world and ``b`` = c in b. ``[..., 7]``."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    rotation = matrix_from_quaternion(a[..., 3:])
    return make_pose(a[..., :3] + rotate(rotation, b[..., :3]), rotation @ matrix_from_quaternion(b[..., 3:]))


def invert(pose: ArrayLike) -> Floats:
    """The inverse transform, ``[..., 7]``."""
    pose = np.asarray(pose, np.float64)
    back = np.swapaxes(matrix_from_quaternion(pose[..., 3:]), -1, -2)
    return make_pose(-rotate(back, pose[..., :3]), back)


def se3_log(matrix: Floats, position: Floats) -> Floats:
    """Logarithm of rigid transforms: ``[..., 6]``, linear part then angular part (rad).

    The linear part is the position multiplied by the inverse of the left Jacobian of the rotation.
    """
    w = small_axis_angle_from_matrix(matrix)
    angle2 = (w * w).sum(-1, keepdims=True)
    # At angle 0 the coefficient comes out as 0 instead of 1/12, but what it is multiplied with vanishes there.
    safe = np.sqrt(np.maximum(angle2, _TINY))
    coefficient = (1 - 0.5 * safe / np.tan(0.5 * safe)) / (safe * safe)
    # w x (w x p) = w (w . p) - p |w|^2
    bent = w * (w * position).sum(-1, keepdims=True) - angle2 * position
    return np.concatenate([position - 0.5 * cross(w, position) + coefficient * bent, w], -1)
