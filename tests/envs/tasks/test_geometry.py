"""Rotations against scipy."""

import numpy as np
from scipy.spatial.transform import Rotation

from vlaser_gym.envs.tasks.geometry import angle_difference, heading, rotation_angle, rotation_matrix, turned


def random_rotations(n: int) -> Rotation:
    return Rotation.random(n, random_state=np.random.default_rng(3))


def wxyz(rotation: Rotation) -> np.ndarray:
    return rotation.as_quat(scalar_first=True)


def test_rotation_matrix_of_any_length():
    rotation = random_rotations(50)
    scale = np.linspace(0.5, 3.0, 50)[:, None]
    np.testing.assert_allclose(rotation_matrix(wxyz(rotation) * scale), rotation.as_matrix(), atol=1e-12)


def test_rotation_matrix_keeps_leading_dimensions():
    quaternion = wxyz(random_rotations(6)).reshape(2, 3, 4)
    assert rotation_matrix(quaternion).shape == (2, 3, 3, 3)
    np.testing.assert_array_equal(rotation_matrix(quaternion)[1, 2], rotation_matrix(quaternion[1, 2]))


def test_turned_is_about_world_z():
    for rotation, angle in zip(random_rotations(20), np.linspace(-4, 4, 20), strict=True):
        expected = Rotation.from_rotvec([0, 0, angle]) * rotation
        got = Rotation.from_quat(turned(wxyz(rotation), angle), scalar_first=True)
        assert (expected.inv() * got).magnitude() < 1e-12


def test_heading_is_that_of_the_x_axis():
    rotation = random_rotations(50)
    x_axis = rotation.apply([1.0, 0.0, 0.0])
    np.testing.assert_allclose(heading(wxyz(rotation)), np.arctan2(x_axis[:, 1], x_axis[:, 0]), atol=1e-9)


def test_rotation_angle_ignores_the_sign_of_the_quaternion():
    a, b = random_rotations(40)[:20], random_rotations(40)[20:]
    expected = (a.inv() * b).magnitude()
    np.testing.assert_allclose(rotation_angle(wxyz(a), wxyz(b)), expected, atol=1e-7)
    np.testing.assert_allclose(rotation_angle(-wxyz(a), wxyz(b)), expected, atol=1e-7)


def test_angle_difference_wraps():
    assert np.isclose(angle_difference(np.array(np.pi - 0.1), np.array(-np.pi + 0.1)), 0.2)
    assert np.isclose(angle_difference(np.array(0.1), np.array(0.1 - 2 * np.pi)), 0.0, atol=1e-12)
