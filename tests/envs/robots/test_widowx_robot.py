"""The WidowX and its controller against recordings of the original."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vlaser_gym.conventions import rotations
from vlaser_gym.envs import transforms
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.robots.kinematics import MAX_STEPS, STEP, TOLERANCE, ArmKinematics, KinematicTree
from vlaser_gym.envs.robots.widowx import WIDOWX, WidowXController
from vlaser_gym.errors import UnknownNameError

LANE = np.zeros(1, np.int64)
SEQUENCES = ["00", "01", "02", "06", "08"]


def replay(golden: Path, sequence: str):
    """Feed the recorded joint positions and actions to the controller; yield its targets beside the recorded ones."""
    arrays = np.load(golden / "replay_free" / "widowx" / f"{sequence}.npz")
    controller = WidowXController(1)
    qpos = arrays["qpos"].astype(np.float64)
    controller.reset(LANE, qpos[:1])
    for step, action in enumerate(arrays["action"].astype(np.float64)):
        targets = controller.act(LANE, action[None], qpos[step : step + 1], np.zeros((1, 8)))
        yield step, targets.position[0, 0], controller, arrays


@pytest.mark.golden
@pytest.mark.parametrize("sequence", SEQUENCES)
def test_joint_targets_equal_the_recorded_ones(golden: Path, sequence: str) -> None:
    arm = ArmKinematics(WIDOWX)
    for step, position, controller, arrays in replay(golden, sequence):
        expected = arrays["arm_target_qpos"][step + 1].astype(np.float64)
        _, ours = arm.tcp(position[None])
        _, theirs = arm.tcp(np.concatenate([expected, position[6:]])[None])
        assert np.linalg.norm(ours - theirs) < 1e-4, step
        np.testing.assert_allclose(position[:6], expected, atol=2e-4)
        np.testing.assert_allclose(position[6:], arrays["gripper_target_qpos"][step + 1], atol=1e-7)
        pose = controller.target_pose(LANE)[0]
        recorded = arrays["arm_target_pose"][step + 1]
        np.testing.assert_allclose(pose[:3], recorded[:3], atol=1e-5)
        assert abs(pose[3:] @ recorded[3:]) > 1 - 1e-6


@pytest.mark.golden
@pytest.mark.parametrize("sequence", ["06", "08"])
def test_inverse_kinematics_fails_where_the_original_fails(golden: Path, sequence: str) -> None:
    failures = 0
    for step, position, controller, arrays in replay(golden, sequence):
        assert bool(controller.ik_success[0]) == bool(arrays["ik_success"][step]), step
        if not controller.ik_success[0]:
            failures += 1
            np.testing.assert_array_equal(position[:6], arrays["qpos"][step, :6].astype(np.float64))
    assert failures == (35 if sequence == "08" else 0)


@pytest.mark.golden
@pytest.mark.parametrize("task", ["widowx_carrot_on_plate", "widowx_put_eggplant_in_basket"])
def test_setup_and_forward_kinematics_equal_the_recordings(golden: Path, task: str) -> None:
    setup = get_setup("widowx_sink" if "eggplant" in task else "widowx")
    folder = golden / "reset" / task
    meta = json.loads((folder / "index.json").read_text())["000"]
    arrays = np.load(folder / "000.npz")
    assert meta["joint_names"] == [joint.name for joint in WIDOWX.moving_joints]
    limits = [(joint.lower, joint.upper) for joint in WIDOWX.moving_joints]
    np.testing.assert_allclose(limits, meta["joint_limits"], atol=1e-6)
    np.testing.assert_allclose(setup.qpos, arrays["qpos"], atol=1e-6)
    np.testing.assert_allclose(setup.base_pose, arrays["base_pose_world"], atol=1e-6)
    poses = KinematicTree(WIDOWX).link_poses(arrays["qpos"][None].astype(np.float64), meta["link_names"])
    for name, expected in zip(meta["link_names"], arrays["link_pose_world"], strict=True):
        ours = transforms.compose(setup.base_pose, transforms.make_pose(poses[name][1], poses[name][0]))[0]
        np.testing.assert_allclose(ours[:3], expected[:3], atol=1e-6)
        assert abs(ours[3:] @ expected[3:]) > 1 - 1e-6
    openness = setup.openness(arrays["qpos"][None].astype(np.float64))
    np.testing.assert_allclose(openness, arrays["gripper_openness"], atol=1e-6)


def test_inverse_kinematics_leaves_the_residual_of_the_tenth_steps() -> None:
    """The fast solution against the original's plain iteration, written out."""
    arm = ArmKinematics(WIDOWX)
    rng = np.random.default_rng(3)
    start = np.array([get_setup("widowx").qpos] * 16)
    rotation, position = arm.tcp(start)
    position = position + rng.uniform(-0.03, 0.03, (16, 3))
    rotation = rotations.matrix_from_axis_angle(rng.uniform(-0.2, 0.2, (16, 3))) @ rotation
    fast, success = arm.inverse(rotation, position, start)
    assert success.all()
    goal_rotation = rotation @ arm._tcp_rotation.T
    goal_position = position - goal_rotation @ arm._tcp_position
    slow, slow_success = arm._original_steps(goal_rotation, goal_position, start[:, :6])
    assert slow_success.all()
    np.testing.assert_allclose(fast, slow, atol=2e-4)
    assert (1 - STEP) ** MAX_STEPS < TOLERANCE


def test_zero_actions_hold_the_measured_position() -> None:
    controller = WidowXController(2)
    qpos = np.array([get_setup("widowx").qpos] * 2)
    controller.reset(np.arange(2), qpos)
    targets = controller.act(np.arange(2), np.zeros((2, 7)), qpos, np.zeros((2, 8)))
    np.testing.assert_array_equal(targets.position[:, 0, :6], qpos[:, :6])
    np.testing.assert_allclose(targets.position[:, 0, 6:], 0.026)


def test_lanes_do_not_see_each_other() -> None:
    rng = np.random.default_rng(5)
    actions = rng.uniform(-0.3, 0.3, (6, 8, 7))
    qpos = np.array([get_setup("widowx").qpos] * 8) + rng.uniform(-0.05, 0.05, (8, 8)) * ([1] * 6 + [0] * 2)

    def run(lanes: np.ndarray) -> np.ndarray:
        controller = WidowXController(8)
        controller.reset(lanes, qpos[lanes])
        return np.array([controller.act(lanes, a[lanes], qpos[lanes], qpos[lanes]).position for a in actions])

    whole = run(np.arange(8))
    for lanes in (np.array([3]), np.array([5, 0, 2])):
        assert np.array_equal(run(lanes), whole[:, lanes])


def test_state_round_trip_continues_the_same() -> None:
    controller, other = WidowXController(1), WidowXController(1)
    qpos = np.array([get_setup("widowx").qpos])
    controller.reset(LANE, qpos)
    controller.act(LANE, np.full((1, 7), 0.02), qpos, qpos)
    other.set_state(controller.get_state())
    action = np.full((1, 7), -0.01)
    first, second = (c.act(LANE, action, qpos, qpos).position for c in (controller, other))
    assert np.array_equal(first, second)


def test_unknown_setup_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="widowx_sink"):
        get_setup("widow_sink")


def test_beyond_reach_the_original_s_iteration_would_fail() -> None:
    """Goals around the rim of the workspace: what is given up at once is exactly what a hundred steps do not reach."""
    arm = ArmKinematics(WIDOWX)
    rng = np.random.default_rng(11)
    start = np.array([get_setup("widowx").qpos] * 64)
    start[:, :6] += rng.uniform(-0.3, 0.3, (64, 6))
    rotation, position = arm.tcp(start)
    position = position + rng.uniform(0.0, 0.3, (64, 1)) * position / np.linalg.norm(position, axis=1, keepdims=True)
    goal_rotation = rotation @ arm._tcp_rotation.T
    goal_position = position - goal_rotation @ arm._tcp_position
    beyond = ~arm._within_reach(goal_rotation, goal_position)
    assert 16 < beyond.sum() < 48
    _, reached = arm._original_steps(goal_rotation, goal_position, start[:, :6])
    assert not reached[beyond].any()
    q, success = arm.inverse(rotation, position, start)
    assert np.array_equal(success, reached)
    assert np.array_equal(q[beyond], start[beyond, :6])


def test_reach_is_the_stretched_arm() -> None:
    """Shoulder to elbow, elbow to wrist: spec's joint origins (0.04975, 0.25) and 0.175 + 0.075 m."""
    arm = ArmKinematics(WIDOWX)
    assert arm._reach == pytest.approx(np.hypot(0.04975, 0.25) + 0.25)
    np.testing.assert_allclose(arm._shoulder, [0, 0, 0.072 + 0.03865])
    rng = np.random.default_rng(0)
    turns, positions = arm.joint_frames(rng.uniform(-3, 3, (200, 6)))
    wrist = positions[:, -1] + rotations.rotate(turns[:, -1], np.broadcast_to(arm._wrist, (200, 3)))
    np.testing.assert_allclose(wrist, positions[:, -2], atol=1e-12)
    assert (np.linalg.norm(wrist - arm._shoulder, axis=1) <= arm._reach + 1e-12).all()
