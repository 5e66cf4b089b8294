"""Batched rotations against scipy and against the matrix logarithm."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import logm
from scipy.spatial.transform import Rotation

from vlaser_gym.envs import transforms

RNG = np.random.default_rng(0)
ROTATIONS = Rotation.concatenate(
    [Rotation.random(200, random_state=1), Rotation.from_rotvec(np.eye(3) * (np.pi - 1e-9)), Rotation.identity(2)]
)


def wxyz(rotation: Rotation) -> np.ndarray:
    return np.roll(rotation.as_quat(), 1, axis=-1)


def test_quaternions_and_matrices_agree_with_scipy() -> None:
    matrices = transforms.quat_to_matrix(wxyz(ROTATIONS))
    np.testing.assert_allclose(matrices, ROTATIONS.as_matrix(), atol=1e-12)
    quats = transforms.matrix_to_quat(ROTATIONS.as_matrix())
    assert (quats[:, 0] >= 0).all()
    np.testing.assert_allclose(np.abs((quats * wxyz(ROTATIONS)).sum(-1)), 1, atol=1e-12)


def test_rotation_vectors_agree_with_scipy() -> None:
    vectors = np.concatenate([ROTATIONS.as_rotvec(), RNG.normal(size=(50, 3)) * 1e-7])
    np.testing.assert_allclose(
        transforms.rotvec_to_matrix(vectors), Rotation.from_rotvec(vectors).as_matrix(), atol=1e-12
    )
    back = transforms.rotvec_to_matrix(transforms.matrix_to_rotvec(ROTATIONS.as_matrix()))
    np.testing.assert_allclose(back, ROTATIONS.as_matrix(), atol=1e-7)


def test_rpy_is_urdfs_fixed_axis_order() -> None:
    np.testing.assert_allclose(
        transforms.rpy_to_matrix(0.3, -0.4, 0.5), Rotation.from_euler("xyz", [0.3, -0.4, 0.5]).as_matrix(), atol=1e-12
    )


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


def test_a_row_does_not_depend_on_the_batch() -> None:
    vectors = RNG.normal(size=(37, 3))
    whole = transforms.se3_log(transforms.rotvec_to_matrix(vectors), vectors)
    for size in (1, 3, 8):
        part = transforms.se3_log(transforms.rotvec_to_matrix(vectors[:size]), vectors[:size])
        assert np.array_equal(part, whole[:size])
