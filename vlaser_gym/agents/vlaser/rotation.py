"""Rotations, batched: quaternions (w first), matrices, static-xyz Euler angles, axis-angle vectors.

All functions take arrays with any leading axes and compute in float64. Euler angles are (roll, pitch, yaw) about the
fixed axes x, y, z in this order: ``R = Rz(yaw) @ Ry(pitch) @ Rx(roll)`` (``"sxyz"`` of transforms3d, which SimplerEnv
and the Bridge data set use).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_GIMBAL = 4 * np.finfo(np.float64).eps


def matrix_from_quaternion(quaternion: ArrayLike) -> Array:
    """``[..., 4]`` wxyz, any non-zero length -> ``[..., 3, 3]``."""
    q = np.asarray(quaternion, np.float64)
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    w, x, y, z = np.moveaxis(q, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def quaternion_from_matrix(matrix: ArrayLike) -> Array:
    """``[..., 3, 3]`` rotation matrix -> ``[..., 4]`` unit quaternion wxyz with w >= 0."""
    m = np.asarray(matrix, np.float64)
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    yz, zx, xy = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    pxy, pzx, pyz = m[..., 1, 0] + m[..., 0, 1], m[..., 0, 2] + m[..., 2, 0], m[..., 2, 1] + m[..., 1, 2]
    # The outer product 4 q q^T; its longest row divided by its length is the quaternion, without cancellation.
    outer = np.stack(
        [
            np.stack([1 + xx + yy + zz, yz, zx, xy], axis=-1),
            np.stack([yz, 1 + xx - yy - zz, pxy, pzx], axis=-1),
            np.stack([zx, pxy, 1 - xx + yy - zz, pyz], axis=-1),
            np.stack([xy, pzx, pyz, 1 - xx - yy + zz], axis=-1),
        ],
        axis=-2,
    )
    longest = np.argmax(np.diagonal(outer, axis1=-2, axis2=-1), axis=-1)
    q = np.take_along_axis(outer, longest[..., None, None], axis=-2)[..., 0, :]
    return positive_w(q / np.linalg.norm(q, axis=-1, keepdims=True))


def positive_w(quaternion: Array) -> Array:
    """The one of the two quaternions of a rotation that has w >= 0."""
    return np.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def euler_from_matrix(matrix: ArrayLike) -> Array:
    """``[..., 3, 3]`` -> ``[..., 3]`` (roll, pitch, yaw), pitch in [-pi/2, pi/2]; yaw is 0 where pitch is +-pi/2."""
    m = np.asarray(matrix, np.float64)
    cosine = np.hypot(m[..., 0, 0], m[..., 1, 0])
    locked = cosine <= _GIMBAL
    roll = np.where(locked, np.arctan2(-m[..., 1, 2], m[..., 1, 1]), np.arctan2(m[..., 2, 1], m[..., 2, 2]))
    pitch = np.arctan2(-m[..., 2, 0], cosine)
    yaw = np.where(locked, 0.0, np.arctan2(m[..., 1, 0], m[..., 0, 0]))
    return np.stack([roll, pitch, yaw], axis=-1)


def matrix_from_euler(euler: ArrayLike) -> Array:
    """``[..., 3]`` (roll, pitch, yaw) -> ``[..., 3, 3]``."""
    return matrix_from_quaternion(quaternion_from_euler(euler))


def quaternion_from_euler(euler: ArrayLike) -> Array:
    """``[..., 3]`` (roll, pitch, yaw) -> ``[..., 4]`` unit quaternion wxyz."""
    half = np.asarray(euler, np.float64) / 2
    (cr, cp, cy), (sr, sp, sy) = np.moveaxis(np.cos(half), -1, 0), np.moveaxis(np.sin(half), -1, 0)
    parts = [
        cr * cp * cy + sr * sp * sy,
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    ]
    return np.stack(parts, axis=-1)


def axis_angle_from_quaternion(quaternion: ArrayLike) -> Array:
    """``[..., 4]`` wxyz, any length but 0 -> ``[..., 3]`` axis times angle (rad), angle in [0, pi]."""
    q = positive_w(np.asarray(quaternion, np.float64))
    w, vector = q[..., :1], q[..., 1:]
    sine = np.linalg.norm(vector, axis=-1, keepdims=True)
    # angle / sine tends to 2 / w at the identity, where the quotient itself is 0/0.
    scale = np.where(sine > 0, 2 * np.arctan2(sine, w) / np.where(sine > 0, sine, 1), 2 / np.where(w > 0, w, 1))
    return vector * scale


def quaternion_from_axis_angle(axis_angle: ArrayLike) -> Array:
    """``[..., 3]`` axis times angle (rad) -> ``[..., 4]`` unit quaternion wxyz."""
    v = np.asarray(axis_angle, np.float64)
    angle = np.linalg.norm(v, axis=-1, keepdims=True)
    return np.concatenate([np.cos(angle / 2), v * np.sinc(angle / (2 * np.pi)) / 2], axis=-1)


def axis_angle_from_euler(euler: ArrayLike) -> Array:
    """``[..., 3]`` (roll, pitch, yaw) -> ``[..., 3]`` axis times angle (rad)."""
    return axis_angle_from_quaternion(quaternion_from_euler(euler))


def euler_from_axis_angle(axis_angle: ArrayLike) -> Array:
    """``[..., 3]`` axis times angle (rad) -> ``[..., 3]`` (roll, pitch, yaw)."""
    return euler_from_matrix(matrix_from_quaternion(quaternion_from_axis_angle(axis_angle)))
