"""Rotations against scipy, closed forms and published numbers."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vlaser_gym.conventions import rotations

RANDOM = Rotation.random(500, rng=np.random.default_rng(0))
# Half turns and quarter turns, where formulas tend to lose digits or signs.
CORNERS = Rotation.from_rotvec(
    np.concatenate([angle * np.eye(3) for angle in (0.0, 1e-9, np.pi / 2, -np.pi / 2, np.pi - 1e-7, np.pi)])
)
CASES = pytest.mark.parametrize("case", [RANDOM, CORNERS], ids=["random", "corners"])


def wxyz(case: Rotation) -> np.ndarray:
    return case.as_quat(canonical=True, scalar_first=True)


def assert_same(found: Rotation, expected: Rotation, atol: float = 1e-12) -> None:
    np.testing.assert_allclose(found.as_matrix(), expected.as_matrix(), atol=atol)


def test_examples_of_the_docstrings() -> None:
    assert doctest.testmod(rotations).failed == 0


@CASES
def test_matrix_from_quaternion_of_any_length(case: Rotation) -> None:
    lengths = np.linspace(0.5, 3.0, len(case))[:, None]
    np.testing.assert_allclose(
        rotations.matrix_from_quaternion(lengths * wxyz(case)), case.as_matrix(), rtol=0, atol=1e-14
    )


@CASES
def test_quaternion_from_matrix_has_positive_w(case: Rotation) -> None:
    quaternion = rotations.quaternion_from_matrix(case.as_matrix())
    assert (quaternion[:, 0] >= 0).all()
    np.testing.assert_allclose(rotations.matrix_from_quaternion(quaternion), case.as_matrix(), atol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(quaternion, axis=-1), 1, atol=4e-16)


def test_positive_w_keeps_the_rotation_and_turns_no_other_sign() -> None:
    quaternion = np.array([[-0.5, 0.5, -0.5, 0.5], [0.5, 0.5, -0.5, 0.5], [0.0, -1.0, 0.0, 0.0]])
    expected = [[0.5, -0.5, 0.5, -0.5], [0.5, 0.5, -0.5, 0.5], [0.0, -1.0, 0.0, 0.0]]
    np.testing.assert_array_equal(rotations.positive_w(quaternion), expected)


@CASES
def test_euler_angles_are_about_fixed_axes(case: Rotation) -> None:
    euler = rotations.euler_from_matrix(case.as_matrix())
    assert_same(Rotation.from_euler("xyz", euler), case)
    np.testing.assert_allclose(rotations.matrix_from_euler(euler), case.as_matrix(), atol=1e-12)
    assert_same(Rotation.from_quat(rotations.quaternion_from_euler(euler), scalar_first=True), case)


def test_matrices_of_euler_angles_beyond_a_turn() -> None:
    euler = np.random.default_rng(1).uniform(-9, 9, (50, 3))
    expected = Rotation.from_euler("xyz", euler).as_matrix()
    np.testing.assert_allclose(rotations.matrix_from_euler(euler), expected, atol=1e-12)
    np.testing.assert_allclose(
        rotations.matrix_from_quaternion(rotations.quaternion_from_euler(euler)), expected, atol=1e-12
    )


def test_euler_angles_equal_scipy_away_from_the_poles() -> None:
    np.testing.assert_allclose(rotations.euler_from_matrix(RANDOM.as_matrix()), RANDOM.as_euler("xyz"), atol=1e-12)


def test_at_the_pole_yaw_is_zero() -> None:
    matrix = np.array([[0, np.sin(0.3), np.cos(0.3)], [0, np.cos(0.3), -np.sin(0.3)], [-1, 0, 0]])
    np.testing.assert_allclose(rotations.euler_from_matrix(matrix), [0.3, np.pi / 2, 0], atol=1e-12)


@CASES
def test_axis_angle(case: Rotation) -> None:
    vector = rotations.axis_angle_from_quaternion(wxyz(case))
    assert_same(Rotation.from_rotvec(vector), case)
    assert (np.linalg.norm(vector, axis=-1) <= np.pi + 1e-12).all()
    back = Rotation.from_quat(rotations.quaternion_from_axis_angle(vector), scalar_first=True)
    assert_same(back, case)
    assert_same(Rotation.from_euler("xyz", rotations.euler_from_axis_angle(vector)), case)


@CASES
def test_axis_angle_from_matrix(case: Rotation) -> None:
    # Near half a turn the matrix itself holds the axis to half of its digits only.
    assert_same(Rotation.from_rotvec(rotations.axis_angle_from_matrix(case.as_matrix())), case, atol=1e-7)
    away = case[case.magnitude() < 3.1]
    np.testing.assert_allclose(rotations.axis_angle_from_matrix(away.as_matrix()), away.as_rotvec(), atol=1e-12)


def test_small_axis_angle_from_matrix_is_right_for_large_angles_too() -> None:
    case = RANDOM[RANDOM.magnitude() < 3.1]
    for part in (case, case[case.magnitude() < 1.5]):  # all below 90 degrees: the short way
        np.testing.assert_allclose(
            rotations.small_axis_angle_from_matrix(part.as_matrix()), part.as_rotvec(), atol=1e-12
        )
    assert (rotations.small_axis_angle_from_matrix(np.eye(3)) == 0).all()


def test_matrix_from_axis_angle() -> None:
    small = np.random.default_rng(2).normal(size=(50, 3)) * 1e-7
    vectors = np.concatenate([RANDOM.as_rotvec(), CORNERS.as_rotvec(), 3 * RANDOM.as_rotvec(), small])
    np.testing.assert_allclose(
        rotations.matrix_from_axis_angle(vectors), Rotation.from_rotvec(vectors).as_matrix(), atol=1e-12
    )


def test_tiny_rotations_keep_their_digits() -> None:
    tiny = np.array([1e-12, -2e-12, 3e-12])
    np.testing.assert_allclose(rotations.axis_angle_from_euler(tiny), tiny, rtol=1e-9)
    np.testing.assert_allclose(rotations.euler_from_axis_angle(tiny), tiny, rtol=1e-9)


def test_identity_is_the_zero_vector() -> None:
    assert (rotations.axis_angle_from_euler(np.zeros((2, 5, 3))) == np.zeros((2, 5, 3))).all()


def test_published_axis_angle() -> None:
    """Numbers of SimplerEnv's action conversion (transforms3d)."""
    np.testing.assert_allclose(
        rotations.axis_angle_from_euler([0.1, -0.2, 0.3]), [0.12892336, -0.1834258, 0.30874816], atol=1e-8
    )


def test_rotate() -> None:
    vectors = np.random.default_rng(3).normal(size=(len(RANDOM), 3))
    np.testing.assert_allclose(rotations.rotate(RANDOM.as_matrix(), vectors), RANDOM.apply(vectors), atol=1e-12)


def test_cross_matrix() -> None:
    a, b = np.random.default_rng(4).normal(size=(2, 7, 3))
    np.testing.assert_allclose(rotations.rotate(rotations.cross_matrix(a), b), np.cross(a, b), atol=1e-12)


def test_turned_about_z_is_about_the_world_s_axis() -> None:
    angles = np.linspace(-4, 4, len(RANDOM))
    expected = Rotation.from_rotvec(angles[:, None] * [0, 0, 1]) * RANDOM
    assert_same(Rotation.from_quat(rotations.turned_about_z(wxyz(RANDOM), angles), scalar_first=True), expected)


def test_heading_is_that_of_the_x_axis() -> None:
    x_axis = RANDOM.apply([1.0, 0.0, 0.0])
    np.testing.assert_allclose(rotations.heading(wxyz(RANDOM)), np.arctan2(x_axis[:, 1], x_axis[:, 0]), atol=1e-9)


def test_angle_difference_wraps() -> None:
    assert np.isclose(rotations.angle_difference(np.pi - 0.1, -np.pi + 0.1), 0.2)
    assert np.isclose(rotations.angle_difference(0.1, 0.1 - 2 * np.pi), 0.0, atol=1e-12)


@pytest.mark.parametrize(("first", "second"), list(product([1.0, -1.0], [0.3, -3.0])))
def test_rotation_angle_ignores_sign_and_length_of_the_quaternions(first: float, second: float) -> None:
    a, b = RANDOM[:250], RANDOM[250:]
    found = rotations.rotation_angle(first * wxyz(a), second * wxyz(b))
    np.testing.assert_allclose(found, (a.inv() * b).magnitude(), atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-7, 1e-3, 1.0, np.pi])
def test_rotation_angle_keeps_the_digits_of_small_angles(angle: float) -> None:
    b = Rotation.from_rotvec([0, angle, 0])
    found = rotations.rotation_angle([1, 0, 0, 0], wxyz(b))
    np.testing.assert_allclose(found, angle, rtol=1e-9)


QUATERNIONS, VECTORS = wxyz(RANDOM[:6]), RANDOM[:6].as_rotvec()
ALL: dict[str, tuple[Callable[..., np.ndarray], tuple[np.ndarray, ...]]] = {
    "matrix_from_quaternion": (rotations.matrix_from_quaternion, (QUATERNIONS,)),
    "matrix_from_axis_angle": (rotations.matrix_from_axis_angle, (VECTORS,)),
    "matrix_from_euler": (rotations.matrix_from_euler, (VECTORS,)),
    "quaternion_from_matrix": (rotations.quaternion_from_matrix, (RANDOM[:6].as_matrix(),)),
    "quaternion_from_euler": (rotations.quaternion_from_euler, (VECTORS,)),
    "quaternion_from_axis_angle": (rotations.quaternion_from_axis_angle, (VECTORS,)),
    "positive_w": (rotations.positive_w, (-QUATERNIONS,)),
    "euler_from_matrix": (rotations.euler_from_matrix, (RANDOM[:6].as_matrix(),)),
    "euler_from_axis_angle": (rotations.euler_from_axis_angle, (VECTORS,)),
    "axis_angle_from_quaternion": (rotations.axis_angle_from_quaternion, (QUATERNIONS,)),
    "axis_angle_from_euler": (rotations.axis_angle_from_euler, (VECTORS,)),
    "axis_angle_from_matrix": (rotations.axis_angle_from_matrix, (RANDOM[:6].as_matrix(),)),
    "small_axis_angle_from_matrix": (rotations.small_axis_angle_from_matrix, (RANDOM[:6].as_matrix(),)),
    "rotate": (rotations.rotate, (RANDOM[:6].as_matrix(), VECTORS)),
    "cross_matrix": (rotations.cross_matrix, (VECTORS,)),
    "turned_about_z": (rotations.turned_about_z, (QUATERNIONS, VECTORS[:, 0])),
    "heading": (rotations.heading, (QUATERNIONS,)),
    "angle_difference": (rotations.angle_difference, (VECTORS[:, 0], VECTORS[:, 1])),
    "rotation_angle": (rotations.rotation_angle, (QUATERNIONS, QUATERNIONS[::-1])),
}


@pytest.mark.parametrize("name", ALL)
def test_leading_axes_are_kept_and_a_row_does_not_depend_on_the_others(name: str) -> None:
    function, arguments = ALL[name]
    whole = function(*(argument.reshape(2, 3, *argument.shape[1:]) for argument in arguments))
    rows = np.stack([function(*(argument[i] for argument in arguments)) for i in range(6)])
    assert whole.dtype == np.float64
    np.testing.assert_array_equal(whole, rows.reshape(2, 3, *rows.shape[1:]))


def test_all_functions_are_in_that_table() -> None:
    own = {name for name, value in vars(rotations).items() if getattr(value, "__module__", "") == rotations.__name__}
    assert own == set(ALL)
