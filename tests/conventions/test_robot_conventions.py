"""What is declared of the robots' numbers, measured on the engine and compared with the robots' definitions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize

from vlaser_gym.conventions import CONVENTIONS, Quantity, RobotConvention, get_convention, rotations
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.robots.kinematics import KinematicTree
from vlaser_gym.envs.robots.widowx import WidowXController
from vlaser_gym.envs.tasks import by_robot, get_task, task_names
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import UnknownNameError

ROOT = Path(__file__).resolve().parents[2]
TASKS = {"widowx": "widowx_carrot_on_plate", "google_robot": "google_robot_pick_coke_can"}
BOTH = pytest.mark.parametrize("convention", CONVENTIONS.values(), ids=list(CONVENTIONS))


def proprio_after(robot: str, *actions: list[float]) -> np.ndarray:
    """``proprio [len(actions) + 1, 8]`` at the start and after each action."""
    env = SceneVectorEnv(TASKS[robot], observe=("proprio",), engine_options={"threads": 1})
    rows = [env.reset(options={"layout": 0})[0]["proprio"][0]]
    rows += [env.step(np.array([action]))[0]["proprio"][0] for action in actions]
    env.close()
    return np.array(rows, np.float64)


def only(column: int, value: float, convention: RobotConvention) -> list[float]:
    """An action that is zero but for one number; the gripper stays where it is."""
    stay = 0.0 if convention.action_part("gripper").mode == "relative" else 1.0
    return [value if i == column else stay * (i == 6) for i in range(7)]


@BOTH
def test_translations_go_along_the_axes_of_the_base(convention: RobotConvention) -> None:
    """Four steps of 3 cm: the Google Robot stays behind, the direction is plain."""
    for axis in range(3):
        columns = range(7)[convention.columns("translation")]
        before, *_, after = proprio_after(convention.robot, *[only(columns[axis], 0.03, convention)] * 4)
        moved = after[:3] - before[:3]
        assert moved[axis] > 0.02
        assert np.abs(np.delete(moved, axis)).max() < 0.3 * moved[axis]


@BOTH
def test_rotations_are_right_handed_about_the_axes_of_the_base(convention: RobotConvention) -> None:
    for axis in range(3):
        columns = range(7)[convention.columns("rotation")]
        before, *_, after = proprio_after(convention.robot, *[only(columns[axis], 0.1, convention)] * 4)
        first, last = (rotations.matrix_from_quaternion(row[3:7]) for row in (before, after))
        turned = rotations.axis_angle_from_matrix((last @ first.T)[None])[0]
        assert turned[axis] > 0.05
        assert np.abs(np.delete(turned, axis)).max() < 0.3 * turned[axis]
        assert np.linalg.norm(after[:3] - before[:3]) < 0.03, "about the TCP"


@BOTH
def test_what_one_does_to_the_fingers(convention: RobotConvention) -> None:
    """+1 opens the WidowX and closes the Google Robot."""
    gripper = convention.action_part("gripper")
    (column,) = range(7)[convention.columns("gripper")]
    closing = -1.0 if gripper.positive == "opens" else 1.0
    openness = proprio_after(
        convention.robot, *[only(column, closing, convention)] * 6, *[only(column, -closing, convention)] * 6
    )[:, 7]
    assert openness[0] > 0.95
    assert openness[6] < 0.3, "closed"
    assert openness[12] > 0.9, "open again"


@BOTH
def test_what_zero_does_to_the_fingers(convention: RobotConvention) -> None:
    """An absolute zero is half open; a relative one goes on with the last command."""
    gripper = convention.action_part("gripper")
    assert gripper.mode == {"widowx": "absolute", "google_robot": "relative"}[convention.robot]
    closing = -1.0 if gripper.positive == "opens" else 1.0
    rest = proprio_after(convention.robot, [0.0] * 6 + [closing], *[[0.0] * 7] * 8)[-1, 7]
    assert rest == pytest.approx(0.5, abs=0.05) if gripper.mode == "absolute" else rest < 0.3


@BOTH
def test_beyond_the_gripper_s_range_nothing_changes(convention: RobotConvention) -> None:
    gripper = convention.action_part("gripper")
    assert (gripper.low, gripper.high) == (-1, 1)
    for bound in (gripper.low, gripper.high):
        within, beyond = (proprio_after(convention.robot, [0.0] * 6 + [value]) for value in (bound, 5 * bound))
        np.testing.assert_array_equal(within, beyond)


@BOTH
def test_nothing_bounds_or_scales_the_arm_s_numbers(convention: RobotConvention) -> None:
    """The controllers aim 2.5 m further and 1.7 rad round, beyond the bounds of the action space."""
    assert all(convention.action_part(name).low is None for name in ("translation", "rotation"))
    assert all(convention.action_part(name).high is None for name in ("translation", "rotation"))
    setup, lanes = get_setup(get_task(TASKS[convention.robot]).robot_setup), np.array([0])
    controller, qpos = setup.make_controller(1), np.array([setup.qpos])
    controller.reset(lanes, qpos)
    rotation, position = controller.kinematics.tcp(qpos)
    action = np.array([[2.5, 0, 0, 0, 0, 1.7, 0]])
    if isinstance(controller, WidowXController):
        controller.act(lanes, action, qpos, np.zeros_like(qpos))
        goal = controller.target_pose(lanes)
        there, turned = goal[:, :3], rotations.matrix_from_quaternion(goal[:, 3:])
    else:
        turned, there = controller.goal_pose(action, qpos)
    np.testing.assert_allclose(there - position, [[2.5, 0, 0]], atol=1e-9)
    vector = rotations.axis_angle_from_matrix(turned @ np.swapaxes(rotation, 1, 2))
    np.testing.assert_allclose(vector, [[0, 0, 1.7]], atol=1e-9)


@BOTH
def test_declarations_agree_with_the_robots_definitions(convention: RobotConvention) -> None:
    tasks = by_robot(map(get_task, task_names()))[convention.robot]
    setups = [get_setup(task.robot_setup) for task in tasks]
    assert {setup.control_hz for setup in setups} == {convention.control_hz}
    (position,) = (part for part in convention.proprio if part.name == "position")
    assert setups[0].robot.tcp_link in position.meaning
    env = SceneVectorEnv(tasks[0].name, observe=("proprio",), engine_options={"threads": 1})
    entries = {name: [e for part in getattr(convention, name) for e in part.entries] for name in ("action", "proprio")}
    assert len(entries["action"]) == len(set(entries["action"])) == env.single_action_space.shape[0] == 7
    assert len(entries["proprio"]) == len(set(entries["proprio"])) == env.single_observation_space["proprio"].shape[0]
    env.close()


@BOTH
def test_the_reach_is_that_of_the_arm(convention: RobotConvention) -> None:
    """Largest horizontal distance of the TCP over all joint positions within their limits."""
    robot = get_setup(get_task(TASKS[convention.robot]).robot_setup).robot
    tree = KinematicTree(robot)
    bounds = np.array([(joint.lower, joint.upper) for joint in robot.moving_joints])

    def distance(qpos: np.ndarray) -> np.ndarray:
        return np.asarray(np.linalg.norm(tree.link_poses(qpos, [robot.tcp_link])[robot.tcp_link][1][:, :2], axis=1))

    samples = np.random.default_rng(0).uniform(*bounds.T, (20_000, len(bounds)))
    best = samples[np.argsort(distance(samples))[-3:]]
    reach = max(-minimize(lambda q: -distance(q[None])[0], start, bounds=bounds).fun for start in best)
    assert convention.reach == pytest.approx(reach, abs=0.005)


def test_every_robot_of_a_task_is_declared() -> None:
    assert set(by_robot(map(get_task, task_names()))) == set(CONVENTIONS)
    with pytest.raises(UnknownNameError, match="nearest: widowx"):
        get_convention("widow")
    with pytest.raises(UnknownNameError, match="rotation"):
        get_convention("widowx").columns("rotations")


@BOTH
def test_declarations_can_be_written_as_json(convention: RobotConvention) -> None:
    described = convention.described()
    assert json.loads(json.dumps(described)) == described
    assert described["action"][2]["positive"] == convention.action_part("gripper").positive


def row(part: Quantity, begin: int) -> str:
    end = begin + len(part.entries) - 1
    where = f"{begin}-{end}" if end > begin else f"{begin}"
    cells = (f"{where} `{' '.join(part.entries)}`", part.name, part.unit, part.mode, part.positive, part.meaning)
    return f"| {' | '.join(cells)} |"


@BOTH
def test_the_document_shows_the_declarations(convention: RobotConvention) -> None:
    titles = {"widowx": "WidowX", "google_robot": "Google Robot"}
    text = (ROOT / "docs" / "conventions.md").read_text()
    section = text.split(f"\n## {titles[convention.robot]}\n")[1].split("\n## ")[0]
    assert f"{convention.control_hz:g} control steps per second; reach {convention.reach:g} m." in section
    rows = []
    for vector in (convention.action, convention.proprio):
        begin = 0
        for part in vector:
            rows.append(row(part, begin))
            begin += len(part.entries)
    assert [line for line in section.splitlines() if line[:3].strip("| ").isdigit()] == rows
    frames = {part.frame for part in (*convention.action, *convention.proprio)} - {""}
    assert frames == {"robot base: x forward, y left, z up"}
    assert all(frame in text for frame in frames)
