"""The Google Robot and its controller against recordings of the original."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import ruckig

from vlaser_gym.conventions import rotations
from vlaser_gym.envs import transforms
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.robots.google_controller import RATE, SUBSTEPS, GoogleRobotController
from vlaser_gym.envs.robots.google_robot import (
    ALTERNATIVE_HEAD_TILTS,
    GOOGLE_ROBOT,
    HEAD_TILT,
    START_QPOS,
    base_pose,
)
from vlaser_gym.envs.robots.kinematics import ArmKinematics, KinematicTree
from vlaser_gym.envs.robots.planning import JointPlanner
from vlaser_gym.errors import SimulationError

LANE = np.zeros(1, np.int64)
SEQUENCES = ["00", "01", "02", "06", "08"]
ARM, FINGERS = [0, 1, 2, 3, 4, 5, 6, 9, 10], [7, 8]
DESCRIPTION = (
    "assets/simplerenv/mani_skill2_real2sim/assets/descriptions/googlerobot_description/"
    "google_robot_meta_sim_fix_wheel_fix_fingertip.urdf"
)


def recording(golden: Path, sequence: str) -> dict[str, np.ndarray]:
    with np.load(golden / "replay_free" / "google_robot" / f"{sequence}.npz") as arrays:
        return {name: arrays[name].astype(np.float64) for name in arrays}


@cache
def replay(golden: Path, sequence: str) -> dict[str, np.ndarray]:
    """Feed recorded joint positions, speeds and actions to the controller; its targets, one row per control step."""
    arrays, rows = recording(golden, sequence), []
    controller = GoogleRobotController(GOOGLE_ROBOT, 1)
    controller.reset(LANE, arrays["qpos"][:1])
    for step, action in enumerate(arrays["action"]):
        qpos, qvel = arrays["qpos"][step : step + 1], arrays["qvel"][step : step + 1]
        targets = controller.act(LANE, action[None], qpos, qvel)
        fingers = controller.get_state()["gripper_goal"][0]
        rows.append((targets.position[0], targets.velocity[0], fingers, controller.ik_success[0]))
    return dict(
        zip(("position", "velocity", "fingers", "ik_success"), map(np.array, zip(*rows, strict=True)), strict=True)
    )


#: Joint goals differ by the extrapolated posture (rad): large steps near the end of the arm's reach are the hardest.
POSTURE = {"00": 5e-5, "01": 5e-5, "02": 5e-5, "06": 5e-4, "08": 5e-4}


@pytest.mark.golden
@pytest.mark.parametrize("sequence", SEQUENCES)
def test_goals_equal_the_recorded_ones(golden: Path, sequence: str) -> None:
    """Pose goals and their inverse kinematics (head included) at every control step."""
    arrays = recording(golden, sequence)
    action, qpos = arrays["action"], arrays["qpos"][:-1]
    controller = GoogleRobotController(GOOGLE_ROBOT, len(action))
    rotation, position = controller.goal_pose(action, qpos)
    expected = arrays["arm_target_pose"][1:]
    np.testing.assert_allclose(position, expected[:, :3], atol=2e-6)
    assert np.abs((transforms.make_pose(position, rotation)[:, 3:] * expected[:, 3:]).sum(-1)).min() > 1 - 1e-6
    goal, theirs = controller.arm_goal(np.arange(len(action)), action, qpos), arrays["arm_target_qpos"][1:]
    np.testing.assert_allclose(goal, theirs, atol=POSTURE[sequence])
    assert np.array_equal(goal[:, 7:], qpos[:, 9:])
    ours, recorded = qpos.copy(), qpos.copy()
    ours[:, controller.columns], recorded[:, controller.columns] = goal, theirs
    (_, p), (_, q) = controller.kinematics.tcp(ours), controller.kinematics.tcp(recorded)
    assert np.linalg.norm(p - q, axis=1).max() < 3e-5
    np.testing.assert_array_equal(controller.ik_success, arrays.get("ik_success", np.ones(len(action))) > 0)
    assert controller.ik_success.all() == (sequence not in ("06", "08"))


@pytest.mark.golden
@pytest.mark.parametrize("sequence", SEQUENCES)
def test_last_drive_targets_equal_the_recorded_ones(golden: Path, sequence: str) -> None:
    arrays, ours = recording(golden, sequence), replay(golden, sequence)
    assert ours["position"].shape == ours["velocity"].shape == (len(arrays["action"]), SUBSTEPS, 11)
    last = ours["position"][:, -1]
    np.testing.assert_allclose(last[:, ARM], arrays["arm_drive_target"][1:], atol=POSTURE[sequence])
    np.testing.assert_allclose(last[:, FINGERS], arrays["gripper_drive_target"][1:], atol=1e-5)
    np.testing.assert_allclose(ours["fingers"], arrays["gripper_target_qpos"][1:], atol=1e-5)
    np.testing.assert_array_equal(ours["velocity"][..., ARM], 0.0)
    np.testing.assert_array_equal(ours["ik_success"], arrays.get("ik_success", np.ones(len(last))) > 0)


@pytest.mark.golden
@pytest.mark.parametrize("sequence", ["00", "01", "02"])
def test_drive_targets_of_every_substep_equal_the_recorded_ones(golden: Path, sequence: str) -> None:
    arrays, ours = recording(golden, sequence), replay(golden, sequence)
    steps = arrays["fine_step_index"].astype(int)
    assert len(steps) >= 3
    np.testing.assert_allclose(ours["position"][steps][..., ARM], arrays["fine_arm_drive_target"], atol=3e-5)
    np.testing.assert_allclose(ours["position"][steps][..., FINGERS], arrays["fine_gripper_drive_target"], atol=1e-5)


@pytest.mark.golden
@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("google_robot_pick_coke_can.standing", "google_robot_pick"),
        ("google_robot_move_near", "google_robot_move_near"),
        ("google_robot_place_apple_in_closed_top_drawer", "google_robot_drawer"),
    ],
)
def test_setup_and_forward_kinematics_equal_the_recordings(golden: Path, task: str, name: str) -> None:
    setup, folder = get_setup(name), golden / "reset" / task
    meta, arrays = json.loads((folder / "index.json").read_text())["000"], np.load(folder / "000.npz")
    assert meta["joint_names"] == [joint.name for joint in GOOGLE_ROBOT.moving_joints]
    limits = [(joint.lower, joint.upper) for joint in GOOGLE_ROBOT.moving_joints]
    np.testing.assert_allclose(limits, meta["joint_limits"], atol=1e-6)
    np.testing.assert_allclose(setup.qpos, arrays["qpos"], atol=1e-6)
    np.testing.assert_allclose(setup.base_pose, arrays["base_pose_world"], atol=1e-6)
    assert (setup.control_hz, setup.physics_hz) == (meta["control_freq"], meta["sim_freq"])
    qpos = arrays["qpos"][None].astype(np.float64)
    links = [link.name for link in GOOGLE_ROBOT.links]
    assert set(links) <= set(meta["link_names"])
    for link, (rotation, position) in KinematicTree(GOOGLE_ROBOT).link_poses(qpos, links).items():
        ours = transforms.compose(setup.base_pose, transforms.make_pose(position, rotation))[0]
        expected = arrays["link_pose_world"][meta["link_names"].index(link)]
        np.testing.assert_allclose(ours[:3], expected[:3], atol=2e-6, err_msg=link)
        assert abs(ours[3:] @ expected[3:]) > 1 - 1e-6
    np.testing.assert_allclose(setup.openness(qpos), arrays["gripper_openness"], atol=1e-6)


@pytest.mark.golden
def test_the_camera_sees_what_the_original_sees(golden: Path) -> None:
    setup, folder = get_setup("google_robot_pick"), golden / "reset" / "google_robot_pick_coke_can.standing"
    arrays, camera = np.load(folder / "000.npz"), setup.camera
    rotation, position = KinematicTree(GOOGLE_ROBOT).link_poses(np.array([setup.qpos]), [camera.link])[camera.link]
    link = transforms.compose(setup.base_pose, transforms.make_pose(position, rotation)[0])
    world = transforms.compose(link, camera.pose)
    x, y, z = rotations.matrix_from_quaternion(world[3:]).T
    expected = arrays["cam2world_gl"]
    np.testing.assert_allclose(np.stack([-y, z, -x], 1), expected[:3, :3], atol=1e-5)
    np.testing.assert_allclose(world[:3], expected[:3, 3], atol=2e-6)
    intrinsic = [[camera.focal, 0, camera.cx], [0, camera.focal, camera.cy], [0, 0, 1]]
    np.testing.assert_allclose(arrays["cam_intrinsic"], intrinsic, atol=1e-4)


@pytest.mark.golden
@pytest.mark.parametrize("sequence", SEQUENCES)
def test_poses_and_openness_along_recorded_motion(golden: Path, sequence: str) -> None:
    arrays, setup = recording(golden, sequence), get_setup("google_robot_pick")
    rotation, position = ArmKinematics(GOOGLE_ROBOT).tcp(arrays["qpos"])
    ours = transforms.make_pose(position, rotation)
    np.testing.assert_allclose(position, arrays["tcp_base"][:, :3], atol=2e-6)
    np.testing.assert_allclose(ours, arrays["eef_pos"][:, :7], atol=1e-5)
    np.testing.assert_allclose(setup.openness(arrays["qpos"]), arrays["eef_pos"][:, 7], atol=1e-6)


def vector(text: str) -> list[float]:
    return [float(value) for value in text.split()]


@pytest.mark.golden
def test_links_and_joints_are_those_of_the_description(shared: Path) -> None:
    root = ElementTree.parse(shared / DESCRIPTION).getroot()
    links = {link.get("name"): link for link in root.findall("link")}
    joints = {joint.get("name"): joint for joint in root.findall("joint")}
    for joint in GOOGLE_ROBOT.joints:
        element = joints[joint.name]
        assert element.get("type") == joint.kind
        assert (element.find("parent").get("link"), element.find("child").get("link")) == (joint.parent, joint.child)
        np.testing.assert_allclose(vector(element.find("origin").get("xyz")), joint.xyz, atol=1e-12)
        np.testing.assert_allclose(vector(element.find("origin").get("rpy")), joint.rpy, atol=1e-10)
        if joint.kind == "revolute":
            assert vector(element.find("axis").get("xyz")) == list(joint.axis)
            limit = element.find("limit")
            assert (float(limit.get("lower")), float(limit.get("upper"))) == (joint.lower, joint.upper)
    for link in GOOGLE_ROBOT.links:
        inertial = links[link.name].find("inertial")
        if inertial is None or "nail" in link.name:
            continue
        np.testing.assert_allclose(float(inertial.find("mass").get("value")), link.mass, rtol=1e-12)
        np.testing.assert_allclose(vector(inertial.find("origin").get("xyz")), link.com, atol=1e-10)
        keys = ("ixx", "iyy", "izz", "ixy", "ixz", "iyz")
        tensor = [float(inertial.find("inertia").get(key)) for key in keys]
        # Off-diagonal moments of the wheels below 2e-7 are left out.
        np.testing.assert_allclose(link.inertia, tensor, rtol=1e-9, atol=1e-12 if "wheel" not in link.name else 2e-6)


def test_tree_and_names() -> None:
    order = [joint.name for joint in GOOGLE_ROBOT.moving_joints]
    assert order[:7] == list(GOOGLE_ROBOT.arm_joints)
    assert order[7:9] == list(GOOGLE_ROBOT.gripper_joints)
    assert len(START_QPOS) == len(order) == 11
    assert order[HEAD_TILT] == "joint_head_tilt"
    assert [round(tilt - START_QPOS[HEAD_TILT], 6) for tilt in ALTERNATIVE_HEAD_TILTS] == [0.15, -0.12]
    names = {link.name for link in GOOGLE_ROBOT.links}
    assert {joint.child for joint in GOOGLE_ROBOT.joints} | {"link_base"} == names
    assert {*GOOGLE_ROBOT.finger_links, *(link for link, *_ in GOOGLE_ROBOT.surfaces)} <= names
    np.testing.assert_allclose(base_pose(0.35, 0.2), get_setup("google_robot_pick").base_pose)


# ---------------------------------------------------------------------------------------------------- the planner


def test_samples_equal_those_of_the_solver() -> None:
    """Random starts and goals, against the solver's own evaluation of its trajectories."""
    rng = np.random.default_rng(3)
    planner = JointPlanner(4, 1.5, 2.0, 50.0, RATE, SUBSTEPS)
    start, speed = rng.normal(size=(40, 4)), rng.uniform(-1.4, 1.4, (40, 4))
    goal = start + rng.normal(size=(40, 4)) * np.repeat([0.001, 0.03, 0.3, 2.0], 10)[:, None]
    speed[:20] *= 0.1
    position, velocity = planner.plan(start, speed, goal)
    for b in range(40):
        given = ruckig.InputParameter(4)
        given.current_position, given.current_velocity = start[b].tolist(), speed[b].tolist()
        given.target_position = goal[b].tolist()
        given.max_velocity, given.max_acceleration, given.max_jerk = [1.5] * 4, [2.0] * 4, [50.0] * 4
        trajectory = ruckig.Trajectory(4)
        ruckig.Ruckig(4).calculate(given, trajectory)
        times = [min(k / 513, trajectory.duration) for k in range(1, 172)]
        expected = [trajectory.at_time(t)[:2] for t in times]
        np.testing.assert_allclose(position[b], [row[0] for row in expected], atol=1e-9)
        np.testing.assert_allclose(velocity[b], [row[1] for row in expected], atol=1e-8)


def test_plans_respect_their_limits_and_arrive() -> None:
    rng = np.random.default_rng(4)
    planner = JointPlanner(2, 1.0, 7.0, 50.0, RATE, 3000)
    start, goal = rng.uniform(-1, 1, (20, 2)), rng.uniform(-1, 1, (20, 2))
    speed = rng.uniform(-3, 3, (20, 2))
    position, velocity = planner.plan(start, speed, goal)
    assert np.abs(velocity).max() <= 1.0 + 1e-9
    acceleration = np.diff(velocity, axis=1) * RATE
    assert np.abs(acceleration).max() <= 7.0 + 1e-6
    assert np.abs(np.diff(acceleration, axis=1) * RATE).max() <= 50.0 + 1e-3
    np.testing.assert_allclose(position[:, 0], start + np.clip(speed, -1, 1) / RATE, atol=1e-4)
    np.testing.assert_array_equal(position[:, -1], goal)
    np.testing.assert_array_equal(velocity[:, -1], 0.0)


def test_ways_that_are_rounding_errors_are_no_obstacle() -> None:
    """These numbers came out of a simulation of resting fingers; Ruckig alone finds no motion for them."""
    planner = JointPlanner(2, 1.0, 7.0, 50.0, RATE, 5)
    position = np.array([[6.991675158186846e-12, 1.336246019627216e-11]])
    velocity = np.array([[-3.716276853983626e-13, 1.45327630168543e-11]])
    with pytest.raises(ruckig.RuckigError):
        planner._solved(position[0], velocity[0], np.zeros(2))
    samples, speeds = planner.plan(position, velocity, np.zeros((1, 2)))
    np.testing.assert_allclose(samples, 0.0, atol=1e-6)
    np.testing.assert_allclose(speeds, 0.0, atol=1e-6)


def test_an_empty_batch_and_numbers_that_are_not_finite() -> None:
    planner = JointPlanner(2, 1.0, 7.0, 50.0, RATE, 5)
    nothing = np.zeros((0, 2))
    assert planner.plan(nothing, nothing, nothing)[0].shape == (0, 5, 2)
    with pytest.raises(SimulationError, match="joint motion"):
        planner.plan(np.zeros((1, 2)), np.zeros((1, 2)), np.full((1, 2), np.nan))


# ------------------------------------------------------------------------------------------------- the controller


def act(controller: GoogleRobotController, lanes, action, qpos=None, qvel=None):
    qpos = np.tile(START_QPOS, (len(lanes), 1)) if qpos is None else qpos
    return controller.act(np.asarray(lanes), action, qpos, np.zeros_like(qpos) if qvel is None else qvel)


def started(lanes: int) -> GoogleRobotController:
    controller = GoogleRobotController(GOOGLE_ROBOT, lanes)
    controller.reset(np.arange(lanes), np.tile(START_QPOS, (lanes, 1)))
    return controller


def test_zero_actions_hold_still() -> None:
    targets = act(started(1), [0], np.zeros((1, 7)))
    np.testing.assert_allclose(targets.position[0], np.tile(START_QPOS, (SUBSTEPS, 1)), atol=1e-12)
    assert targets.velocity is not None
    np.testing.assert_allclose(targets.velocity, 0, atol=1e-12)


def test_lanes_do_not_influence_each_other() -> None:
    rng = np.random.default_rng(0)
    action = rng.normal(size=(3, 5, 7)) * [0.02, 0.02, 0.02, 0.1, 0.1, 0.1, 1.0]
    together, alone = started(3), [started(3) for _ in range(3)]
    for step in range(5):
        lanes = [0, 1, 2] if step != 2 else [2, 0]
        targets = act(together, lanes, action[lanes, step])
        for row, lane in enumerate(lanes):
            own = act(alone[lane], [lane], action[[lane], step])
            np.testing.assert_array_equal(own.position[0], targets.position[row])
            np.testing.assert_array_equal(own.velocity[0], targets.velocity[row])


def test_snapshots_continue_bit_for_bit() -> None:
    rng = np.random.default_rng(1)
    action = rng.normal(size=(6, 2, 7)) * [0.02, 0.02, 0.02, 0.1, 0.1, 0.1, 1.0]
    first = started(2)
    for step in range(3):
        act(first, [0, 1], action[step])
    second = GoogleRobotController(GOOGLE_ROBOT, 2)
    second.set_state(first.get_state())
    for step in range(3, 6):
        ours, theirs = act(first, [0, 1], action[step]), act(second, [0, 1], action[step])
        np.testing.assert_array_equal(ours.position, theirs.position)
        np.testing.assert_array_equal(ours.velocity, theirs.velocity)


def test_a_plan_continues_where_the_last_one_was_cut() -> None:
    """With the arm held in place by the recording, targets still join without a jump."""
    controller = started(1)
    action = np.array([[0.2, 0, 0, 0, 0, 0, 0]])
    before = act(controller, [0], action).position[0, :, :7]
    after = act(controller, [0], -action).position[0, :, :7]
    step = np.abs(after[0] - before[-1] - (before[-1] - before[-2]))
    assert np.abs(before[-1] - before[0]).max() > 0.05
    assert step.max() < 2.0 / RATE**2 + 50.0 / RATE**3 + 1e-9


@pytest.mark.parametrize(
    ("first", "second", "goal"),
    [(1.0, 0.0, 1.31), (0.5, 0.0, 0.655), (5.0, 0.0, 1.31), (-1.0, 0.0, -0.0101), (1.0, 0.0007, 1.31)],
)
def test_gripper_goals(first: float, second: float, goal: float) -> None:
    """Positive closes; a second command below 0.001 rad keeps the goal although the fingers have not arrived."""
    controller = started(1)
    for value in (first, second):
        act(controller, [0], np.array([[0, 0, 0, 0, 0, 0, value]]))
    np.testing.assert_allclose(controller.get_state()["gripper_goal"], goal)


def test_a_small_gripper_command_starts_from_the_last_target_sent() -> None:
    controller = started(1)
    close = act(controller, [0], np.array([[0, 0, 0, 0, 0, 0, 1.0]]))
    sent = close.position[0, -1, FINGERS]
    assert 0.15 < sent[0] < 0.25
    act(controller, [0], np.array([[0, 0, 0, 0, 0, 0, 0.1]]))
    np.testing.assert_allclose(controller.get_state()["gripper_goal"][0], sent + 0.131)


def test_reset_forgets_the_lane_and_no_other() -> None:
    controller = started(2)
    action = np.tile([0.05, 0, 0, 0, 0, 0, 1.0], (2, 1))
    act(controller, [0, 1], action)
    kept = controller.get_state()
    controller.reset(np.array([0]), np.array([START_QPOS]))
    state, fresh = controller.get_state(), started(2).get_state()
    for name, values in state.items():
        np.testing.assert_array_equal(values[0], fresh[name][0])
        np.testing.assert_array_equal(values[1], kept[name][1])
