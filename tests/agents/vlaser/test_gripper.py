"""Gripper logic against the recorded trace, a scalar loop and hand counts."""

from __future__ import annotations

import numpy as np
import pytest

from vlaser_gym.agents.vlaser.gripper import GoogleRobotGripper, make_gripper
from vlaser_gym.errors import UnknownNameError

TRACE_IN = np.array([1.0] * 3 + [0.02] * 19 + [0.5] * 14)
TRACE_OUT = np.array([-1.0] * 15 + [0.96] * 15 + [0.0] * 6)


def google(lanes: int) -> GoogleRobotGripper:
    gripper = GoogleRobotGripper()
    gripper.reset(np.arange(lanes))
    return gripper


def scalar_hold(openness: np.ndarray) -> np.ndarray:
    """The rule told one step at a time for one environment."""
    out, left, value = [], 0, 0.0
    for x in openness:
        relative = 1 - 2 * x
        if left == 0 and abs(relative) > 0.5:
            left, value = 15, relative
        out.append(value if left else relative)
        left = max(left - 1, 0)
    return np.array(out)


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 36])
def test_trace_does_not_depend_on_the_chunk(chunk: int) -> None:
    gripper = google(1)
    parts = [gripper.commands(part[None], np.array([0])) for part in TRACE_IN.reshape(-1, chunk)]
    np.testing.assert_allclose(np.concatenate(parts, axis=1)[0], TRACE_OUT, atol=1e-12)


def test_lanes_equal_a_scalar_loop_in_any_order() -> None:
    rng = np.random.default_rng(0)
    openness = rng.random((5, 120))
    gripper, out = google(5), np.empty((5, 120))
    for start in range(0, 120, 2):
        lanes = rng.permutation(5)
        out[lanes, start : start + 2] = gripper.commands(openness[lanes, start : start + 2], lanes)
    np.testing.assert_array_equal(out, np.stack([scalar_hold(row) for row in openness]))


def test_reset_forgets_one_lane_only() -> None:
    gripper = google(2)
    lanes = np.arange(2)
    gripper.commands(np.ones((2, 4)), lanes)
    gripper.reset(np.array([1]))
    out = gripper.commands(np.zeros((2, 12)), lanes)
    np.testing.assert_array_equal(out[0], [-1.0] * 11 + [1.0])
    np.testing.assert_array_equal(out[1], [1.0] * 12)


def test_snapshot_continues_the_hold() -> None:
    gripper = google(1)
    gripper.commands(TRACE_IN[None, :10], np.array([0]))
    state, expected = gripper.get_state(), gripper.commands(TRACE_IN[None, 10:], np.array([0]))
    other = GoogleRobotGripper()
    other.set_state(state)
    np.testing.assert_array_equal(other.commands(TRACE_IN[None, 10:], np.array([0])), expected)


def test_widowx_threshold() -> None:
    gripper = make_gripper("widowx")
    out = gripper.commands(np.array([[0.0, 0.5, 0.51, 1.0, -1.0]]), np.array([0]))
    np.testing.assert_array_equal(out, [[-1, -1, 1, 1, -1]])


@pytest.mark.parametrize(("robot", "commands"), [("widowx", [-1.0, 1.0]), ("google_robot", [1.0, -1.0])])
def test_labels_mean_closed_and_open(robot: str, commands: list[float]) -> None:
    gripper = make_gripper(robot)
    labels = gripper.openness(np.array(commands))
    np.testing.assert_array_equal(labels, [0, 1])
    gripper.reset(np.arange(2))
    np.testing.assert_array_equal(gripper.commands(labels[:, None], np.arange(2))[:, 0], commands)


def test_unknown_robot() -> None:
    with pytest.raises(UnknownNameError, match="widowx"):
        make_gripper("widow")
