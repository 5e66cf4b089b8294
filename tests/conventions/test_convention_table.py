"""Published conventions: golden numbers computed by hand, round trips, and what cannot be converted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vlaser_gym.conventions import CONVENTIONS, PRESETS, Convention, Conversion, Start, get_preset, of_robot
from vlaser_gym.conventions.convention import ROTATIONS, Gripper, State, View
from vlaser_gym.conventions.conversion import check, matrices, problems, read_state, turned, write_state
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.errors import GymError, InvalidConfigError, UnknownNameError

POSES = [name for name, preset in PRESETS.items() if preset.space == "pose"]
JOINTS = [name for name in PRESETS if name not in POSES]
#: The WidowX stands turned by half a turn in its scene: the base frame's x and y are the world's, reversed.
BASE = np.array([0.147, 0.028, 0.870, 0.0, 0.0, 0.0, 1.0])
#: The tool at rest in the base frame, its axes along the base's, the gripper open.
REST = np.array([[0.2, 0.0, 0.1, 1.0, 0.0, 0.0, 0.0, 1.0]])
HALF, QUARTER = np.pi, np.pi / 2
#: A quarter turn about x and then one about the fixed z take x to y, y to z and z to x: 120 degrees about (1, 1, 1).
THIRD = [2 * np.pi / 3 / np.sqrt(3)] * 3
#: (convention, robot, its action, the robot's action).
GOLDEN: list[tuple[str, str, list[float], list[float]]] = [
    ("simpler_widowx", "widowx", [0.01, 0.02, 0.03, 0, 0, 0.1, -1], [0.01, 0.02, 0.03, 0, 0, 0.1, -1]),
    ("simpler_google_robot", "widowx", [0.01, 0.02, 0.03, 0, 0, 0.1, 1], [0.01, 0.02, 0.03, 0, 0, 0.1, -1]),
    ("simpler_google_robot", "google_robot", [0.01, 0, 0, 0, 0.2, 0, -0.5], [0.01, 0, 0, 0, 0.2, 0, -0.5]),
    ("simpler_widowx", "google_robot", [0.01, 0, 0, 0, 0.2, 0, -1], [0.01, 0, 0, 0, 0.2, 0, 1]),
    ("bridge", "widowx", [0.01, 0, -0.02, QUARTER, 0, QUARTER, 1], [0.01, 0, -0.02, *THIRD, 1]),
    ("fractal", "google_robot", [0, 0, 0.1, QUARTER, 0, QUARTER, 0.25], [0, 0, 0.1, *THIRD, 0.75]),
    ("openpi_libero", "widowx", [1, 0.5, -1, 0, 0, 1, 1], [-0.05, -0.025, -0.05, 0, 0, 0.5, -1]),
    ("openpi_libero", "widowx", [0, 0, 0, 1, 0, 0, -1], [0, 0, 0, -0.5, 0, 0, 1]),
    ("rt1", "google_robot", [0.02, 0, 0, 0, 0, -0.3, 1], [0.02, 0, 0, 0, 0, -0.3, 1]),
    ("openvla", "widowx", [0.01, 0, 0, 0, QUARTER, 0, 0], [0.01, 0, 0, 0, QUARTER, 0, -1]),
    ("openvla_oft", "widowx", [0, -1, 0, 0, 0.2, 0, 0.5], [0, 0.05, 0, 0, -0.1, 0, 0]),
    # The tool turned a quarter about z: its matrix times a turn of -90 degrees about y has the columns (0, 0, 1),
    # (-1, 0, 0) first.
    ("xvla", "widowx", [0.25, 0, 0.1, 0, -1, 0, 0, 1, 0, 0, *[0] * 10], [0.05, 0, 0, 0, 0, QUARTER, 1]),
    ("gr00t", "widowx", [0, 0.01, 0, 0, 0, -QUARTER, 1], [0, 0.01, 0, 0, 0, -QUARTER, 1]),
]
#: (convention, state of this gym, its state); of the first two, roll, pitch and yaw are those of Vlaser's adapter.
STATES: list[tuple[str, list[float], list[float]]] = [
    ("bridge", [0.3, 0, 0.1, 0.5**0.5, 0, 0.5**0.5, 0, 0.5], [0.3, 0, 0.1, 0, 0, 0, 0, 0.5]),
    (
        "gr00t",
        [0.3, 0.1, 0.2, 0.68, 0.05, 0.72, -0.1, 1],
        [0.3, 0.1, 0.2, -0.07667912, 0.04884656, -0.21534539, 0, 1],
    ),
    ("fractal", [0.5, 0, 0.8, 0.8, 0, 0.6, 0, 0.25], [0.5, 0, 0.8, 0, 0.6, 0, 0.8, 0.75]),
    ("simpler_widowx", [0.5, 0, 0.8, 0.8, 0, 0.6, 0, 0.25], [0.5, 0, 0.8, 0.8, 0, 0.6, 0, 0.25]),
    # Half a turn of the base and half a turn of the tool about x are half a turn about y.
    (
        "openpi_libero",
        [0.2, 0.1, 0.1, 0, 1, 0, 0, 1],
        [0.147 - 0.2, 0.028 - 0.1, 0.97, 0, HALF, 0, 0.04, -0.04],
    ),
    ("openvla_oft", [0.2, 0.1, 0.1, 0, 1, 0, 0, 0], [0.147 - 0.2, 0.028 - 0.1, 0.97, 0, HALF, 0, 0, 0]),
    (
        "xvla",
        [0.2, 0, 0.1, 0.5**0.5, 0, 0, 0.5**0.5, 1],
        [0.2, 0, 0.1, 0, -1, 0, 0, 1, 0, 0, *[0] * 10],
    ),
]


def random_actions(convention: Convention, rng: np.random.Generator) -> np.ndarray:
    """Chunks ``[2, 5, size]`` as the convention may have them."""
    actions = np.zeros((2, 5, convention.size))
    actions[..., :3] = rng.uniform(-0.9, 0.9, (2, 5, 3))
    turns = Rotation.from_rotvec(rng.uniform(-1, 1, (10, 3))).as_matrix().reshape(2, 5, 3, 3)
    angles = turned(turns, convention.rotation)
    actions[..., 3 : convention.arm] = np.clip(angles, -0.9, 0.9) if convention.low else angles
    low, high = sorted((convention.gripper.closed, convention.gripper.open))
    # A relative gripper's changes add up to less than its way.
    scale = 0.1 if convention.gripper.mode == "relative" else 1.0
    actions[..., convention.arm] = scale * rng.uniform(low, high, (2, 5))
    return actions


@pytest.mark.parametrize(("name", "robot", "given", "wanted"), GOLDEN)
def test_golden_actions(name: str, robot: str, given: list[float], wanted: list[float]) -> None:
    conversion = Conversion(get_preset(name), of_robot(robot))
    found = conversion.actions([[given]], Start.of(REST, BASE))
    np.testing.assert_allclose(found[0, 0], wanted, atol=1e-9)


@pytest.mark.parametrize(("name", "ours", "theirs"), STATES)
def test_golden_states(name: str, ours: list[float], theirs: list[float]) -> None:
    conversion = Conversion(get_preset(name), of_robot("widowx"))
    found = conversion.state([ours], BASE)[0]
    if name in {"openpi_libero", "openvla_oft"}:
        found[3:6] *= np.sign(found[4])  # half a turn is the same both ways round
    np.testing.assert_allclose(found, theirs, atol=1e-7)


def test_every_preset_has_a_golden_number() -> None:
    assert len(PRESETS) >= 10
    assert {name for name, *_ in GOLDEN} == set(POSES)


@pytest.mark.parametrize("robot", ["widowx", "google_robot"])
@pytest.mark.parametrize("name", POSES)
def test_there_and_back(name: str, robot: str) -> None:
    rng = np.random.default_rng(7)
    pose = np.concatenate([rng.uniform(-0.3, 0.3, (2, 3)), Rotation.random(2, random_state=3).as_quat()], -1)
    start = Start(pose, np.full(2, 0.5), BASE)
    preset, ours = get_preset(name), of_robot(robot)
    for source, target in ((preset, ours), (ours, preset)):
        actions = random_actions(source, rng)
        conversion = Conversion(source, target)
        back = conversion.inverse.actions(conversion.actions(actions, start), start)
        np.testing.assert_allclose(back, actions, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in POSES if PRESETS[name].state.names])
def test_states_there_and_back(name: str) -> None:
    preset = get_preset(name)
    values = np.concatenate(
        [np.random.default_rng(2).uniform(-0.5, 0.5, (6, 3)), Rotation.random(6, random_state=1).as_quat()], -1
    )
    values[:, 3:] *= np.where(values[:, 3:4] < 0, -1, 1)
    openness = np.linspace(0, 1, 6)
    pose, back = read_state(write_state(values, openness, preset, BASE), preset, BASE)
    np.testing.assert_allclose(pose, values, atol=1e-6)
    np.testing.assert_allclose(back, openness, atol=1e-6)


@pytest.mark.parametrize("name", JOINTS)
@pytest.mark.parametrize("robot", ["widowx", "google_robot"])
def test_joints_are_no_poses(name: str, robot: str) -> None:
    with pytest.raises(InvalidConfigError, match=r"expects .* motions of the tool; .* of \d joints.*kinematics: conv"):
        check(get_preset(name), of_robot(robot))


@pytest.mark.parametrize("robot", sorted(CONVENTIONS))
def test_our_own_convention_is_what_robots_are_told(robot: str) -> None:
    """Rates, the gripper's sign and the images' sizes are those of the robots' definitions."""
    ours, told = of_robot(robot), CONVENTIONS[robot]
    grip = told.action_part("gripper")
    assert ours.control_hz == told.control_hz
    assert ours.gripper.mode == grip.mode
    assert (ours.gripper.open > ours.gripper.closed) == (grip.positive == "opens")
    task = "widowx_stack_cube" if robot == "widowx" else "google_robot_pick_coke_can"
    setup = get_setup(get_task(task).robot_setup)
    seen = {name: (setup.cameras[c].height, setup.cameras[c].width) for name, c in setup.image_cameras.items()}
    assert {view.name: (view.height, view.width) for view in ours.views} == seen


def test_the_same_convention_leaves_every_bit() -> None:
    actions = np.random.default_rng(0).normal(size=(2, 3, 7))
    conversion = Conversion(of_robot("widowx"), replace(of_robot("widowx"), chunk=4))
    assert conversion.is_identity
    assert conversion.lines() == []
    assert conversion.actions(actions, Start.of(REST)) is actions


@pytest.mark.parametrize("kind", [*ROTATIONS, "euler:xyz", "euler:zyx", "euler:XYZ", "euler:ZYZ"])
def test_rotations_are_scipys(kind: str) -> None:
    turns = Rotation.random(20, random_state=5)
    angles = turned(turns.as_matrix(), kind)
    np.testing.assert_allclose(matrices(angles, kind), turns.as_matrix(), atol=1e-7)
    if kind.startswith("euler"):
        there = Rotation.from_euler(kind.removeprefix("euler:"), angles).as_matrix()
        np.testing.assert_allclose(there, turns.as_matrix(), atol=1e-7)


def test_a_motion_in_the_tools_frame_follows_the_tool() -> None:
    """The tool looks along y: forward is +y of the base; and after a turn about its own z by 90 degrees it is -x."""
    looking = np.array([[0.2, 0.0, 0.1, 0.5**0.5, 0.0, 0.0, 0.5**0.5, 1.0]])
    tool = replace(of_robot("widowx"), name="mine", frame="tool", motion="delta")
    conversion = Conversion(tool, of_robot("widowx"))
    chunk = [[[0.1, 0, 0, 0, 0, QUARTER, 1], [0.1, 0, 0, 0, 0, 0, 1]]]
    found = conversion.actions(chunk, Start.of(looking, BASE))
    np.testing.assert_allclose(found[0, 0], [0, 0.1, 0, 0, 0, QUARTER, 1], atol=1e-9)
    np.testing.assert_allclose(found[0, 1], [-0.1, 0, 0, 0, 0, 0, 1], atol=1e-9)


def test_absolute_poses_become_differences_along_the_chunk() -> None:
    absolute = replace(of_robot("widowx"), name="mine", motion="absolute")
    chunk = [[[0.21, 0, 0.1, 0, 0, 0.3, 1], [0.21, 0.02, 0.1, 0, 0, 0.5, -1], [0.21, 0.02, 0.1, 0, 0, 0.5, -1]]]
    found = Conversion(absolute, of_robot("widowx")).actions(chunk, Start.of(REST, BASE))[0]
    wanted = [[0.01, 0, 0, 0, 0, 0.3, 1], [0, 0.02, 0, 0, 0, 0.2, -1], [0, 0, 0, 0, 0, 0, -1]]
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_percentiles_of_a_data_set_are_undone() -> None:
    low, high = (-0.02, -0.04, -0.02, -0.1, -0.1, -0.2), (0.04, 0.04, 0.06, 0.1, 0.1, 0.2)
    mine = replace(of_robot("widowx"), name="mine", low=low, high=high)
    found = Conversion(mine, of_robot("widowx")).actions([[[0, 0.5, -1, 0, 0, 1, 1]]], Start.of(REST))
    np.testing.assert_allclose(found[0, 0], [0.01, 0.02, -0.02, 0, 0, 0.2, 1], atol=1e-12)


def test_a_relative_gripper_adds_up_and_stops_at_its_ends() -> None:
    conversion = Conversion(of_robot("google_robot"), of_robot("widowx"))
    chunk = np.zeros((1, 4, 7))
    chunk[0, :, 6] = [0.25, 0.25, 2.0, -0.5]  # closes by quarters, beyond the end, and opens by half
    found = conversion.actions(chunk, Start.of(REST))[0, :, 6]
    np.testing.assert_allclose(found, [0.5, 0.0, -1.0, 0.0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"control_hz": 20.0}, r"takes 5 actions per second; mine gives 20.*would last 4 times.*control_hz=5"),
        ({"views": (View("depth_image"),)}, "shows image, wrist_image; mine looks at depth_image: observe"),
        ({"state": State(("joint_1", "gripper"))}, "has a state of x y z qw .*; mine reads joint_1: give it"),
    ],
)
def test_what_does_not_fit_is_one_sentence(change: dict[str, Any], said: str) -> None:
    mine = replace(of_robot("widowx"), name="mine", **change)
    assert len(problems(mine, of_robot("widowx"))) == 1
    with pytest.raises(InvalidConfigError, match=said) as caught:
        check(mine, of_robot("widowx"))
    assert "\n" not in str(caught.value)


def test_conventions_travel_as_plain_data() -> None:
    import json

    for preset in PRESETS.values():
        assert Convention.parse(json.loads(json.dumps(preset.described()))) == preset
    assert Convention.parse({"preset": "openpi_libero", "control_hz": 5}).low == get_preset("openpi_libero").low


@pytest.mark.parametrize(
    "given",
    [
        "libero",
        7,
        {"preset": "no such"},
        {"rotaton": "axis_angle"},
        {"rotation": "euler:xxy"},
        {"frame": "camera"},
        {"motion": "absolute", "frame": "tool"},
        {"low": [0] * 6, "high": [0] * 6},
        {"low": [0, 1]},
        {"gripper": {"open": 1}},
        {"gripper": 1},
        {"gripper": {"open": 1, "closed": 1}},
        {"control_hz": -1},
        {"views": 3},
        {"state": {"names": ["x"], "colour": 1}},
    ],
)
def test_what_is_no_convention_is_one_sentence(given: Any) -> None:
    with pytest.raises(GymError) as caught:
        Convention.parse(given)
    assert "\n" not in str(caught.value)


def test_grippers() -> None:
    width = Gripper(open=0.08, closed=0.0, unit="m")
    np.testing.assert_allclose(width.openness(np.array([0.0, 0.02, 0.08])), [0, 0.25, 1])
    np.testing.assert_allclose(Gripper(-1, 1, "relative").openness(np.array([1.0, -0.5])), [-1, 0.5])
    with pytest.raises(InvalidConfigError, match="stays at 0"):
        Gripper(1, 0, "relative")
    with pytest.raises(UnknownNameError, match=r"gripper\.mode"):
        Gripper(1, 0, "sideways")  # type: ignore[arg-type]


def test_actions_of_another_size_are_named() -> None:
    with pytest.raises(InvalidConfigError, match=r"xvla should be \[N, H, 20\]; got \[1, 1, 7\]"):
        Conversion(get_preset("xvla"), of_robot("widowx")).actions(np.zeros((1, 1, 7)), Start.of(REST))
