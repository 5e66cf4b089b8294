"""Rigid transforms against homogeneous matrices and the matrix logarithm."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import logm
from scipy.spatial.transform import Rotation

from vlaser_gym.conventions import rotations
from vlaser_gym.envs import transforms

RNG = np.random.default_rng(0)
ROTATIONS = Rotation.concatenate(
    [Rotation.random(200, random_state=1), Rotation.from_rotvec(np.eye(3) * (np.pi - 1e-9)), Rotation.identity(2)]
)


def wxyz(rotation: Rotation) -> np.ndarray:
    return np.roll(rotation.as_quat(), 1, axis=-1)


def test_compose_and_invert_agree_with_homogeneous_matrices() -> None:
    def homogeneous(pose: np.ndarray) -> np.ndarray:
        out = np.eye(4)
        out[:3, :3], out[:3, 3] = Rotation.from_quat(np.roll(pose[3:], -1)).as_matrix(), pose[:3]
        return out

    poses = np.concatenate([RNG.normal(size=(20, 3)), wxyz(ROTATIONS[:20])], -1)
    for a, b in zip(poses[:10], poses[10:], strict=True):
        both = homogeneous(transforms.compose(a, b))
        np.testing.assert_allclose(both, homogeneous(a) @ homogeneous(b), atol=1e-12)
        np.testing.assert_allclose(homogeneous(transforms.invert(a)), np.linalg.inv(homogeneous(a)), atol=1e-12)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 0.5, 2.5])
def test_se3_log_is_the_matrix_logarithm(scale: float) -> None:
    rotvec = RNG.normal(size=3)
    rotvec *= scale / np.linalg.norm(rotvec)
    position = RNG.normal(size=3)
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = Rotation.from_rotvec(rotvec).as_matrix(), position
    log = np.real(logm(transform))
    expected = [*log[:3, 3], log[2, 1], log[0, 2], log[1, 0]]
    np.testing.assert_allclose(transforms.se3_log(transform[None, :3, :3], position[None])[0], expected, atol=1e-8)


def test_cross_product() -> None:
    a, b = RNG.normal(size=(2, 4, 5, 3))
    np.testing.assert_allclose(transforms.cross(a, b), np.cross(a, b), atol=1e-12)


def test_a_row_does_not_depend_on_the_batch() -> None:
    vectors = RNG.normal(size=(37, 3))
    whole = transforms.se3_log(rotations.matrix_from_axis_angle(vectors), vectors)
    for size in (1, 3, 8):
        part = transforms.se3_log(rotations.matrix_from_axis_angle(vectors[:size]), vectors[:size])
        assert np.array_equal(part, whole[:size])
