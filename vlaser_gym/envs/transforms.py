"""Batched rigid transforms in numpy, float64.

Rotations are matrices ``[..., 3, 3]`` or quaternions ``[..., 4]`` in w, x, y, z order; a pose is ``[..., 7]``:
position (m), quaternion. Every function works row by row: a row's result does not depend on the rest of the batch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def cross_matrix(v: Floats) -> Floats:
    """``[..., 3]`` -> ``[..., 3, 3]`` with ``cross_matrix(v) @ u == cross(v, u)``."""
    out = np.zeros((*v.shape[:-1], 3, 3))
    out[..., 0, 1], out[..., 0, 2] = -v[..., 2], v[..., 1]
    out[..., 1, 0], out[..., 1, 2] = v[..., 2], -v[..., 0]
    out[..., 2, 0], out[..., 2, 1] = -v[..., 1], v[..., 0]
    return out


_NEXT, _AFTER = np.array([1, 2, 0]), np.array([2, 0, 1])


def cross(a: Floats, b: Floats) -> Floats:
    """Cross product of ``[..., 3]``: ``np.cross`` without its handling of other shapes, at a third of the cost."""
    left, right = a.take(_NEXT, -1) * b.take(_AFTER, -1), a.take(_AFTER, -1) * b.take(_NEXT, -1)
    return np.asarray(left - right)


def rotvec_to_matrix(rotvec: ArrayLike) -> Floats:
    """Axis-angle vectors ``[..., 3]`` (rad) to matrices, by Rodrigues' formula.

    Example:
        >>> rotvec_to_matrix([0, 0, np.pi / 2]).round(6) @ [1, 0, 0]
        array([0., 1., 0.])
    """
    v = np.asarray(rotvec, np.float64)
    angle2 = (v * v).sum(-1)[..., None, None]
    angle = np.sqrt(angle2)
    small = angle2 < 1e-12
    safe = np.where(small, 1.0, angle)
    a = np.where(small, 1 - angle2 / 6, np.sin(safe) / safe)
    b = np.where(small, 0.5 - angle2 / 24, (1 - np.cos(safe)) / (safe * safe))
    k = cross_matrix(v)
    return np.asarray(np.eye(3) + a * k + b * (k @ k))


def matrix_to_rotvec(matrix: Floats) -> Floats:
    """Matrices ``[..., 3, 3]`` to axis-angle vectors with angle in [0, pi]."""
    quat = matrix_to_quat(matrix)
    norm = np.sqrt((quat[..., 1:] ** 2).sum(-1, keepdims=True))
    angle = 2 * np.arctan2(norm, quat[..., :1])
    scale = np.where(norm < 1e-9, 2.0, angle / np.where(norm < 1e-9, 1.0, norm))
    return np.asarray(quat[..., 1:] * scale)


def quat_to_matrix(quat: ArrayLike) -> Floats:
    """Quaternions wxyz ``[..., 4]`` (normalised here) to matrices."""
    q = np.asarray(quat, np.float64)
    q = q / np.sqrt((q * q).sum(-1, keepdims=True))
    w, x, y, z = (q[..., i] for i in range(4))
    out = np.empty((*q.shape[:-1], 3, 3))
    out[..., 0, 0], out[..., 0, 1], out[..., 0, 2] = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
    out[..., 1, 0], out[..., 1, 1], out[..., 1, 2] = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
    out[..., 2, 0], out[..., 2, 1], out[..., 2, 2] = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)
    return out


_TURN_PLUS, _TURN_MINUS, _DIAGONAL = np.array([7, 2, 3]), np.array([5, 6, 1]), np.array([0, 4, 8])
#: Row i: where 4 q_i times w, x, y, z stands in the row of ten products that :func:`matrix_to_quat` makes.
_PRODUCTS = np.array([[0, 4, 5, 6], [4, 1, 9, 8], [5, 9, 2, 7], [6, 8, 7, 3]])


def matrix_to_quat(matrix: Floats) -> Floats:
    """Matrices ``[..., 3, 3]`` to unit quaternions wxyz with w >= 0.

    Of the four ways to read a quaternion off a matrix, each row takes the one with the largest pivot.
    """
    flat = np.asarray(matrix, np.float64).reshape(-1, 9)
    lower, upper, diagonal = flat.take(_TURN_PLUS, -1), flat.take(_TURN_MINUS, -1), flat.take(_DIAGONAL, -1)
    trace = diagonal.sum(-1, keepdims=True)
    # 4 times ww, xx, yy, zz, wx, wy, wz, yz, xz, xy
    products = np.concatenate([1 + trace, 1 - trace + 2 * diagonal, lower - upper, lower + upper], -1)
    pivot = products[:, :4].argmax(-1)
    q = products[np.arange(len(flat))[:, None], _PRODUCTS[pivot]]
    q /= np.sqrt((q * q).sum(-1, keepdims=True))
    q *= np.where(q[:, :1] < 0, -1.0, 1.0)
    return np.asarray(q.reshape(*matrix.shape[:-2], 4))


def rpy_to_matrix(roll: float, pitch: float, yaw: float) -> Floats:
    """URDF's roll, pitch, yaw (turns about the fixed x, then y, then z axis; rad) to a matrix."""
    x, y, z = (rotvec_to_matrix(np.eye(3)[i] * a) for i, a in enumerate((roll, pitch, yaw)))
    return np.asarray(z @ y @ x)


def make_pose(position: Floats, matrix: Floats) -> Floats:
    """Positions ``[..., 3]`` and matrices ``[..., 3, 3]`` to poses ``[..., 7]``."""
    return np.concatenate([position, matrix_to_quat(matrix)], -1)


def apply(matrix: Floats, vector: Floats) -> Floats:
    """``matrix [..., 3, 3] @ vector [..., 3]`` row by row."""
    return np.asarray((matrix @ vector[..., None])[..., 0])


def compose(a: ArrayLike, b: ArrayLike) -> Floats:
    """Pose of c in the world, given ``a`` = b in the world and ``b`` = c in b. ``[..., 7]``."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    rotation = quat_to_matrix(a[..., 3:])
    return make_pose(a[..., :3] + apply(rotation, b[..., :3]), rotation @ quat_to_matrix(b[..., 3:]))


def invert(pose: ArrayLike) -> Floats:
    """The inverse transform, ``[..., 7]``."""
    pose = np.asarray(pose, np.float64)
    back = np.swapaxes(quat_to_matrix(pose[..., 3:]), -1, -2)
    return make_pose(-apply(back, pose[..., :3]), back)


def se3_log(matrix: Floats, position: Floats) -> Floats:
    """Logarithm of rigid transforms: ``[..., 6]``, linear part then angular part (rad).

    The linear part is the position multiplied by the inverse of the left Jacobian of the rotation.
    """
    w = _small_rotvec(matrix)
    angle2 = (w * w).sum(-1, keepdims=True)
    # At angle 0 the coefficient comes out as 0 instead of 1/12, but what it is multiplied with vanishes there.
    safe = np.sqrt(np.maximum(angle2, _TINY))
    coefficient = (1 - 0.5 * safe / np.tan(0.5 * safe)) / (safe * safe)
    # w x (w x p) = w (w . p) - p |w|^2
    bent = w * (w * position).sum(-1, keepdims=True) - angle2 * position
    return np.concatenate([position - 0.5 * cross(w, position) + coefficient * bent, w], -1)


_TINY = 1e-30


def _small_rotvec(matrix: Floats) -> Floats:
    """:func:`matrix_to_rotvec`, cheaper where the angle is below 90 degrees."""
    flat = matrix.reshape(*matrix.shape[:-2], 9)
    sine_axis = 0.5 * (flat.take(_TURN_PLUS, -1) - flat.take(_TURN_MINUS, -1))
    cosine = 0.5 * (flat.take(_DIAGONAL, -1).sum(-1, keepdims=True) - 1)
    sine = np.sqrt((sine_axis * sine_axis).sum(-1, keepdims=True))
    rotvec = sine_axis * (np.arctan2(sine, cosine) / np.maximum(sine, _TINY))
    large = cosine < 0
    return np.where(large, matrix_to_rotvec(matrix), rotvec) if large.any() else np.asarray(rotvec)
