"""Rotations of batches of poses; quaternions are ``w x y z``."""

from __future__ import annotations

import numpy as np

from vlaser_gym.envs.tasks.base import Floats


def rotation_matrix(quaternion: Floats) -> Floats:
    """``[..., 4] -> [..., 3, 3]``; the quaternion need not have unit length."""
    scaled = quaternion * np.sqrt(2.0 / (quaternion * quaternion).sum(-1, keepdims=True))
    w, x, y, z = (scaled[..., i] for i in range(4))
    matrix = np.empty((*quaternion.shape[:-1], 3, 3))
    matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 0, 2] = 1 - y * y - z * z, x * y - w * z, x * z + w * y
    matrix[..., 1, 0], matrix[..., 1, 1], matrix[..., 1, 2] = x * y + w * z, 1 - x * x - z * z, y * z - w * x
    matrix[..., 2, 0], matrix[..., 2, 1], matrix[..., 2, 2] = x * z - w * y, y * z + w * x, 1 - x * x - y * y
    return matrix


def turned(quaternion: Floats, angle: float) -> Floats:
    """One orientation ``[4]`` turned by ``angle`` (rad) about world z."""
    w, x, y, z = quaternion
    c, s = np.cos(angle / 2), np.sin(angle / 2)
    return np.array([c * w - s * z, c * x - s * y, c * y + s * x, c * z + s * w])


def heading(quaternion: Floats) -> Floats:
    """Direction of the body's x axis in the world's xy plane, rad: ``[..., 4] -> [...]``."""
    w, x, y, z = np.moveaxis(quaternion, -1, 0)
    return np.asarray(np.arctan2(2 * (x * y + w * z), w * w + x * x - y * y - z * z))


def angle_difference(a: Floats, b: Floats) -> Floats:
    """Absolute difference of two directions, rad, at most pi."""
    return np.abs((a - b + np.pi) % (2 * np.pi) - np.pi)


def rotation_angle(a: Floats, b: Floats) -> Floats:
    """Angle of the rotation that takes unit quaternion ``a`` to ``b``, rad: ``[..., 4] -> [...]``."""
    return np.asarray(2 * np.arccos(np.clip(np.abs((a * b).sum(-1)), 0.0, 1.0)))
