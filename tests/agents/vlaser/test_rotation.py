"""Rotations against scipy, closed forms and published numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vlaser_gym.agents.vlaser import rotation

RANDOM = Rotation.random(500, rng=np.random.default_rng(0))
# Half turns and quarter turns, where formulas tend to lose digits or signs.
CORNERS = Rotation.from_rotvec(
    np.concatenate([angle * np.eye(3) for angle in (0.0, 1e-9, np.pi / 2, -np.pi / 2, np.pi - 1e-7, np.pi)])
)
CASES = pytest.mark.parametrize("case", [RANDOM, CORNERS], ids=["random", "corners"])


def wxyz(case: Rotation) -> np.ndarray:
    return case.as_quat(canonical=True, scalar_first=True)


@CASES
def test_matrix_from_quaternion_of_any_length(case: Rotation) -> None:
    np.testing.assert_allclose(rotation.matrix_from_quaternion(3 * wxyz(case)), case.as_matrix(), atol=1e-14)


@CASES
def test_quaternion_from_matrix_has_positive_w(case: Rotation) -> None:
    quaternion = rotation.quaternion_from_matrix(case.as_matrix())
    assert (quaternion[:, 0] >= 0).all()
    np.testing.assert_allclose(rotation.matrix_from_quaternion(quaternion), case.as_matrix(), atol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(quaternion, axis=-1), 1, atol=1e-15)


@CASES
def test_euler_angles_are_static_xyz(case: Rotation) -> None:
    euler = rotation.euler_from_matrix(case.as_matrix())
    np.testing.assert_allclose(Rotation.from_euler("xyz", euler).as_matrix(), case.as_matrix(), atol=1e-12)
    np.testing.assert_allclose(rotation.matrix_from_euler(euler), case.as_matrix(), atol=1e-12)


def test_euler_angles_equal_scipy_away_from_the_poles() -> None:
    np.testing.assert_allclose(rotation.euler_from_matrix(RANDOM.as_matrix()), RANDOM.as_euler("xyz"), atol=1e-12)


def test_at_the_pole_yaw_is_zero() -> None:
    matrix = np.array([[0, np.sin(0.3), np.cos(0.3)], [0, np.cos(0.3), -np.sin(0.3)], [-1, 0, 0]])
    np.testing.assert_allclose(rotation.euler_from_matrix(matrix), [0.3, np.pi / 2, 0], atol=1e-12)


@CASES
def test_axis_angle(case: Rotation) -> None:
    vector = rotation.axis_angle_from_quaternion(wxyz(case))
    np.testing.assert_allclose(Rotation.from_rotvec(vector).as_matrix(), case.as_matrix(), atol=1e-12)
    assert (np.linalg.norm(vector, axis=-1) <= np.pi + 1e-12).all()
    np.testing.assert_allclose(
        rotation.matrix_from_quaternion(rotation.quaternion_from_axis_angle(vector)), case.as_matrix(), atol=1e-12
    )
    np.testing.assert_allclose(
        Rotation.from_euler("xyz", rotation.euler_from_axis_angle(vector)).as_matrix(), case.as_matrix(), atol=1e-12
    )


def test_tiny_rotations_keep_their_digits() -> None:
    tiny = np.array([1e-12, -2e-12, 3e-12])
    np.testing.assert_allclose(rotation.axis_angle_from_euler(tiny), tiny, rtol=1e-9)
    np.testing.assert_allclose(rotation.euler_from_axis_angle(tiny), tiny, rtol=1e-9)


def test_identity_is_the_zero_vector() -> None:
    assert (rotation.axis_angle_from_euler(np.zeros((2, 5, 3))) == np.zeros((2, 5, 3))).all()


def test_published_axis_angle() -> None:
    """Numbers of SimplerEnv's action conversion (transforms3d)."""
    np.testing.assert_allclose(
        rotation.axis_angle_from_euler([0.1, -0.2, 0.3]), [0.12892336, -0.1834258, 0.30874816], atol=1e-8
    )
