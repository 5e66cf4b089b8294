"""Rotations, batched: quaternions, matrices, Euler angles, axis-angle vectors, and the angles between them.

Every function takes arrays with any leading axes, computes in float64, and works row by row: a row's result does not
depend on the rest of the batch. What the last axes hold:

- quaternion ``[..., 4]``: w, x, y, z (scalar first). Results have unit length.
- matrix ``[..., 3, 3]``: its columns are the turned axes; it multiplies vectors from the left.
- Euler angles ``[..., 3]``, rad: roll, pitch, yaw about the fixed axes x, y, z in this order, so that
  ``R = Rz(yaw) @ Ry(pitch) @ Rx(roll)``. These are ``"sxyz"`` of transforms3d, which SimplerEnv and the Bridge data set
  use, and ``rpy`` of URDF.
- axis-angle vector ``[..., 3]``, rad: the axis times the angle.

Example:
    >>> quaternion = quaternion_from_euler([0.0, 0.0, np.pi / 2])
    >>> rotate(matrix_from_quaternion(quaternion), [1.0, 0.0, 0.0]).round(6) + 0.0
    array([0., 1., 0.])
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

#: Cosine of the pitch at and below which roll and yaw are about one axis, as in transforms3d.
_GIMBAL = 4 * np.finfo(np.float64).eps
#: Keeps a quotient of two numbers that vanish together finite.
_TINY = 1e-30
#: Where a matrix, as a row of nine numbers, holds what the axis is made of, and its diagonal.
_TURN_PLUS, _TURN_MINUS, _DIAGONAL = np.array([7, 2, 3]), np.array([5, 6, 1]), np.array([0, 4, 8])
#: Row i: where 4 q_i times w, x, y, z stands in the row of ten products that :func:`quaternion_from_matrix` makes.
_PRODUCTS = np.array([[0, 4, 5, 6], [4, 1, 9, 8], [5, 9, 2, 7], [6, 8, 7, 3]])


def matrix_from_quaternion(quaternion: ArrayLike) -> Floats:
    """Quaternions ``[..., 4]`` of any length but 0 to matrices ``[..., 3, 3]``."""
    q = np.asarray(quaternion, np.float64)
    q = q / np.sqrt((q * q).sum(-1, keepdims=True))
    w, x, y, z = (q[..., i] for i in range(4))
    out = np.empty((*q.shape[:-1], 3, 3))
    out[..., 0, 0], out[..., 0, 1], out[..., 0, 2] = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
    out[..., 1, 0], out[..., 1, 1], out[..., 1, 2] = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
    out[..., 2, 0], out[..., 2, 1], out[..., 2, 2] = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)
    return out


def matrix_from_axis_angle(axis_angle: ArrayLike) -> Floats:
    """Axis-angle vectors ``[..., 3]`` (rad) to matrices ``[..., 3, 3]``, by Rodrigues' formula.

    Example:
        >>> matrix_from_axis_angle([0, 0, np.pi / 2]).round(6) @ [1, 0, 0]
        array([0., 1., 0.])
    """
    v = np.asarray(axis_angle, np.float64)
    angle2 = (v * v).sum(-1)[..., None, None]
    angle = np.sqrt(angle2)
    small = angle2 < 1e-12
    safe = np.where(small, 1.0, angle)
    a = np.where(small, 1 - angle2 / 6, np.sin(safe) / safe)
    b = np.where(small, 0.5 - angle2 / 24, (1 - np.cos(safe)) / (safe * safe))
    k = cross_matrix(v)
    return np.asarray(np.eye(3) + a * k + b * (k @ k))


def matrix_from_euler(euler: ArrayLike) -> Floats:
    """Euler angles ``[..., 3]`` (rad) to matrices ``[..., 3, 3]``."""
    angles = np.asarray(euler, np.float64)[..., None]
    x, y, z = (matrix_from_axis_angle(axis * angles[..., i, :]) for i, axis in enumerate(np.eye(3)))
    return np.asarray(z @ y @ x)


def quaternion_from_matrix(matrix: ArrayLike) -> Floats:
    """Matrices ``[..., 3, 3]`` to unit quaternions ``[..., 4]`` with w >= 0.

    Of the four ways to read a quaternion off a matrix, each row takes the one with the largest pivot, so that no digits
    cancel.
    """
    m = np.asarray(matrix, np.float64)
    flat = m.reshape(-1, 9)
    lower, upper, diagonal = flat.take(_TURN_PLUS, -1), flat.take(_TURN_MINUS, -1), flat.take(_DIAGONAL, -1)
    trace = diagonal.sum(-1, keepdims=True)
    # 4 times ww, xx, yy, zz, wx, wy, wz, yz, xz, xy
    products = np.concatenate([1 + trace, 1 - trace + 2 * diagonal, lower - upper, lower + upper], -1)
    pivot = products[:, :4].argmax(-1)
    q = products[np.arange(len(flat))[:, None], _PRODUCTS[pivot]]
    q /= np.sqrt((q * q).sum(-1, keepdims=True))
    return positive_w(q.reshape(*m.shape[:-2], 4))


def quaternion_from_euler(euler: ArrayLike) -> Floats:
    """Euler angles ``[..., 3]`` (rad) to unit quaternions ``[..., 4]``; w may be negative."""
    half = np.asarray(euler, np.float64) / 2
    (cr, cp, cy), (sr, sp, sy) = np.moveaxis(np.cos(half), -1, 0), np.moveaxis(np.sin(half), -1, 0)
    parts = [
        cr * cp * cy + sr * sp * sy,
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    ]
    return np.stack(parts, axis=-1)


def quaternion_from_axis_angle(axis_angle: ArrayLike) -> Floats:
    """Axis-angle vectors ``[..., 3]`` (rad) to unit quaternions ``[..., 4]``; w is negative beyond half a turn."""
    v = np.asarray(axis_angle, np.float64)
    angle = np.linalg.norm(v, axis=-1, keepdims=True)
    return np.concatenate([np.cos(angle / 2), v * np.sinc(angle / (2 * np.pi)) / 2], axis=-1)


def positive_w(quaternion: ArrayLike) -> Floats:
    """The one of the two quaternions ``[..., 4]`` of a rotation that has w >= 0."""
    q = np.asarray(quaternion, np.float64)
    return np.where(q[..., :1] < 0, -q, q)


def euler_from_matrix(matrix: ArrayLike) -> Floats:
    """Matrices ``[..., 3, 3]`` to Euler angles ``[..., 3]``, pitch in [-pi/2, pi/2]; at either end of it yaw is 0."""
    m = np.asarray(matrix, np.float64)
    cosine = np.hypot(m[..., 0, 0], m[..., 1, 0])
    locked = cosine <= _GIMBAL
    roll = np.where(locked, np.arctan2(-m[..., 1, 2], m[..., 1, 1]), np.arctan2(m[..., 2, 1], m[..., 2, 2]))
    pitch = np.arctan2(-m[..., 2, 0], cosine)
    yaw = np.where(locked, 0.0, np.arctan2(m[..., 1, 0], m[..., 0, 0]))
    return np.stack([roll, pitch, yaw], axis=-1)


def euler_from_axis_angle(axis_angle: ArrayLike) -> Floats:
    """Axis-angle vectors ``[..., 3]`` (rad) to Euler angles ``[..., 3]``; see :func:`euler_from_matrix`."""
    return euler_from_matrix(matrix_from_quaternion(quaternion_from_axis_angle(axis_angle)))


def axis_angle_from_quaternion(quaternion: ArrayLike) -> Floats:
    """Quaternions ``[..., 4]`` of any length but 0 to axis-angle vectors ``[..., 3]``, angle in [0, pi]."""
    q = positive_w(quaternion)
    w, vector = q[..., :1], q[..., 1:]
    sine = np.linalg.norm(vector, axis=-1, keepdims=True)
    # angle / sine tends to 2 / w at the identity, where the quotient itself is 0/0.
    scale = np.where(sine > 0, 2 * np.arctan2(sine, w) / np.where(sine > 0, sine, 1), 2 / np.where(w > 0, w, 1))
    return np.asarray(vector * scale)


def axis_angle_from_euler(euler: ArrayLike) -> Floats:
    """Euler angles ``[..., 3]`` (rad) to axis-angle vectors ``[..., 3]``, angle in [0, pi]."""
    return axis_angle_from_quaternion(quaternion_from_euler(euler))


def axis_angle_from_matrix(matrix: ArrayLike) -> Floats:
    """Matrices ``[..., 3, 3]`` to axis-angle vectors ``[..., 3]``, angle in [0, pi]."""
    return axis_angle_from_quaternion(quaternion_from_matrix(matrix))


def small_axis_angle_from_matrix(matrix: Floats) -> Floats:
    """:func:`axis_angle_from_matrix`, cheaper where the angle is below 90 degrees."""
    flat = matrix.reshape(*matrix.shape[:-2], 9)
    sine_axis = 0.5 * (flat.take(_TURN_PLUS, -1) - flat.take(_TURN_MINUS, -1))
    cosine = 0.5 * (flat.take(_DIAGONAL, -1).sum(-1, keepdims=True) - 1)
    sine = np.sqrt((sine_axis * sine_axis).sum(-1, keepdims=True))
    vector = sine_axis * (np.arctan2(sine, cosine) / np.maximum(sine, _TINY))
    large = cosine < 0
    return np.where(large, axis_angle_from_matrix(matrix), vector) if large.any() else np.asarray(vector)


def rotate(matrix: ArrayLike, vector: ArrayLike) -> Floats:
    """Vectors ``[..., 3]`` turned by matrices ``[..., 3, 3]``."""
    return np.asarray((np.asarray(matrix, np.float64) @ np.asarray(vector, np.float64)[..., None])[..., 0])


def cross_matrix(vector: Floats) -> Floats:
    """Matrices ``[..., 3, 3]`` of vectors ``v [..., 3]``: ``cross_matrix(v) @ u == cross(v, u)``."""
    out = np.zeros((*vector.shape[:-1], 3, 3))
    out[..., 0, 1], out[..., 0, 2] = -vector[..., 2], vector[..., 1]
    out[..., 1, 0], out[..., 1, 2] = vector[..., 2], -vector[..., 0]
    out[..., 2, 0], out[..., 2, 1] = -vector[..., 1], vector[..., 0]
    return out


def turned_about_z(quaternion: ArrayLike, angle: ArrayLike) -> Floats:
    """Orientations ``[..., 4]`` turned further by angles ``[...]`` (rad) about the world's z axis."""
    w, x, y, z = np.moveaxis(np.asarray(quaternion, np.float64), -1, 0)
    half = np.asarray(angle, np.float64) / 2
    c, s = np.cos(half), np.sin(half)
    return np.stack([c * w - s * z, c * x - s * y, c * y + s * x, c * z + s * w], axis=-1)


def heading(quaternion: ArrayLike) -> Floats:
    """Directions ``[...]`` (rad) of the x axes of bodies with orientations ``[..., 4]``, in the world's xy plane."""
    w, x, y, z = np.moveaxis(np.asarray(quaternion, np.float64), -1, 0)
    return np.asarray(np.arctan2(2 * (x * y + w * z), w * w + x * x - y * y - z * z))


def angle_difference(a: ArrayLike, b: ArrayLike) -> Floats:
    """Absolute differences ``[...]`` of directions ``[...]`` (rad), at most pi."""
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    return np.asarray(np.abs((difference + np.pi) % (2 * np.pi) - np.pi))


def rotation_angle(a: ArrayLike, b: ArrayLike) -> Floats:
    """Angles ``[...]`` (rad, at most pi) of the rotations that take orientations ``a [..., 4]`` to ``b [..., 4]``.

    The quaternions may have any length but 0. Small angles keep their digits, unlike those of an arc cosine.
    """
    p, q = np.asarray(a, np.float64), np.asarray(b, np.float64)
    p, q = p / np.linalg.norm(p, axis=-1, keepdims=True), q / np.linalg.norm(q, axis=-1, keepdims=True)
    apart, around = np.linalg.norm(p - q, axis=-1), np.linalg.norm(p + q, axis=-1)
    return np.asarray(4 * np.arctan2(np.minimum(apart, around), np.maximum(apart, around)))
