"""The course of a stored episode as arrays; the rules read states only through it.

Places are in the robot's frame: x away from the robot, y to its left, z up (m). Row 0 is the initial state, row ``t``
the state after control step ``t``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.conventions.rotations import matrix_from_quaternion, rotate
from vlaser_gym.envs import transforms
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.robots.base import Robot
from vlaser_gym.envs.robots.kinematics import kinematic_tree
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.envs.tasks.base import Layout, ObjectSpec, Task
from vlaser_gym.envs.tasks.cabinet import handle_pose, joint_name
from vlaser_gym.envs.tasks.google_objects import spoken
from vlaser_gym.evaluation.begun import placement_of

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: Least impulse of a touch, N s: the original's of a grasp.
TOUCH_IMPULSE = 1e-6
#: Two sides pinch an object when their impulses point apart by more than 120 degrees.
_OPPOSED = -0.5
#: Control steps for which a pinch may be interrupted, and which it must last.
_GAP, _SHORTEST = 1, 2
#: Flags by which tasks themselves tell that the source is held.
_HELD_FLAGS = ("flag/is_src_obj_grasped", "flag/is_grasped")
#: Names that no person would say.
_PLAIN_NAMES = {
    "bridge_plate_objaverse_larger": "plate",
    "dummy_sink_target_plane": "basket",
    "table_cloth_generated_shorter": "towel",
}
#: From the handle inwards to the middle of what is open of a drawer: this much, and half of the opening (m).
_BEHIND_HANDLE = 0.04


@dataclass(frozen=True)
class Course:
    """An episode of ``T`` control steps with ``n`` objects.

    Attributes:
        task, layout: what it was about.
        names: of the objects, as people say them.
        source, target: indices of what is manipulated and of its goal; -1 where there is none.
        tcp: ``[T + 1, 3]``.
        opening: of the gripper, ``[T + 1]``, 1 open, 0 closed.
        objects: centres of mass, ``[T + 1, n, 3]``.
        touched: whether a finger touches an object, ``[T + 1, n]``; where nobody stored contacts all are False.
        held: whether both sides of the gripper pinch an object, ``[T + 1, n]``.
        contacts: contacts of all objects were stored.
        source_contacts: at least whether the source is held is known.
        drawers: openings by drawer, ``[T + 1]``.
        goal_drawer: the drawer that the task is about; empty without one.
        handles: of the drawers, ``[T + 1, 3]`` each.
        stage: index of the sub-task in which the robot was, ``[T + 1]``.
        success: ``[T + 1]``.
    """

    task: Task
    layout: Layout
    names: tuple[str, ...]
    source: int
    target: int
    tcp: Floats
    opening: Floats
    objects: Floats
    touched: Bools
    held: Bools
    contacts: bool
    source_contacts: bool
    drawers: Mapping[str, Floats]
    goal_drawer: str
    handles: Mapping[str, Floats]
    stage: NDArray[np.int64]
    success: Bools

    @property
    def last(self) -> int:
        """Index of the last row."""
        return len(self.tcp) - 1

    @property
    def source_name(self) -> str:
        """The name of the manipulated object."""
        return self.names[self.source] if self.source >= 0 else f"{self.goal_drawer} drawer"

    @property
    def place(self) -> Floats:
        """The position of the manipulated object or handle, ``[T + 1, 3]``."""
        return self.objects[:, self.source] if self.source >= 0 else self.handles[self.goal_drawer]

    @property
    def goal(self) -> Floats | None:
        """The goal position of the source, ``[T + 1, 3]``: on its target, or in the open part of its drawer."""
        if self.target >= 0:
            return self.objects[:, self.target]
        if self.source >= 0 and self.goal_drawer:
            inwards = self.handles[self.goal_drawer] - _outwards(self) * _BEHIND_HANDLE
            return inwards - _outwards(self) * self.drawers[self.goal_drawer][:, None] / 2
        return None

    def shift(self, index: int) -> Floats:
        """The horizontal distance of an object from its initial position, ``[T + 1]``."""
        return np.asarray(np.linalg.norm(self.objects[:, index, :2] - self.objects[0, index, :2], axis=-1))

    def height(self, index: int) -> Floats:
        """The height of an object above its initial position, ``[T + 1]``."""
        return np.asarray(self.objects[:, index, 2] - self.objects[0, index, 2])

    def holds(self, index: int) -> list[tuple[int, int]]:
        """First and last row of each stretch in which an object is held, over short gaps; short ones are left out."""
        stretches: list[tuple[int, int]] = []
        for row in np.flatnonzero(self.held[:, index]).tolist():
            if stretches and row - stretches[-1][1] <= 1 + _GAP:
                stretches[-1] = (stretches[-1][0], row)
            else:
                stretches.append((row, row))
        return [(begin, end) for begin, end in stretches if end - begin + 1 >= _SHORTEST]


def _outwards(course: Course) -> Floats:
    """Unit vector out of the cabinet, in the robot's frame."""
    rotation = matrix_from_quaternion(_base_pose(course.task, course.layout)[3:])
    return np.asarray(rotation.T @ [1.0, 0.0, 0.0])


def read_course(record: Mapping[str, Any], states: Mapping[str, NDArray[Any]]) -> Course:
    """The course of a stored episode.

    Args:
        record: of the episode.
        states: its arrays, at least ``qpos`` and the poses of all objects.

    Raises:
        KeyError: if a state that every run stores is absent.
    """
    task = get_task(record["task"])
    # A perturbed episode may have other objects, or another goal.
    layout = placement_of(record).layout if "perturb" in record else task.layout(record["layout"], record["variant"])
    bodies = task.objects_of(layout.cast)
    setup = get_setup(task.robot_setup)
    qpos = np.asarray(states["qpos"], np.float64)
    to_robot = transforms.invert(_base_pose(task, layout))
    contacts = all(f"touch/{body.name}" in states for body in bodies)
    held, touched = _pinches(setup.robot, bodies, states, len(qpos)) if contacts else _nothing(len(qpos), len(bodies))
    source = _index(layout.source, task.source, len(bodies))
    flag = next((states[name] for name in _HELD_FLAGS if name in states), None)
    if not contacts and flag is not None and source >= 0:
        held[1:, source] = touched[1:, source] = flag
    drawers = {name.removesuffix(joint_name("")): _row(states, f"joint/{name}") for name in layout.joints}
    return Course(
        task=task,
        layout=layout,
        names=tuple(_PLAIN_NAMES.get(body.name, spoken(body.name)) for body in bodies),
        source=source,
        target=_index(layout.target, task.target, len(bodies)),
        tcp=kinematic_tree(setup.robot).link_poses(qpos, [setup.robot.tcp_link])[setup.robot.tcp_link][1],
        opening=setup.openness(qpos),
        objects=_centres(bodies, states, to_robot, len(qpos)),
        touched=touched,
        held=held,
        contacts=contacts,
        source_contacts=contacts or flag is not None,
        drawers=drawers,
        goal_drawer=layout.goal_joint.removesuffix(joint_name("")),
        handles={name: _handles(name, opening, to_robot) for name, opening in drawers.items()},
        stage=np.asarray(states["stage"], np.int64) if "stage" in states else np.zeros(len(qpos), np.int64),
        success=np.concatenate([[False], np.asarray(states["flag/success"], bool)]),
    )


def _base_pose(task: Task, layout: Layout) -> Floats:
    return np.array(layout.base_pose or get_setup(task.robot_setup).base_pose)


def _index(of_layout: int | None, of_task: int, count: int) -> int:
    """Index of an object; -1 where the task is about none."""
    index = of_task if of_layout is None else of_layout
    return index if index < count else -1


def _row(states: Mapping[str, NDArray[Any]], name: str) -> Floats:
    return np.asarray(states[name], np.float64)


def _centres(bodies: Sequence[ObjectSpec], states: Mapping[str, NDArray[Any]], to_robot: Floats, rows: int) -> Floats:
    """Centres of mass in the robot's frame, ``[rows, n, 3]``."""
    if not bodies:
        return np.zeros((rows, 0, 3))
    poses = np.stack([_row(states, f"object/{body.name}") for body in bodies], axis=1)
    world = poses[..., :3] + rotate(matrix_from_quaternion(poses[..., 3:]), np.array([body.com for body in bodies]))
    return np.asarray(to_robot[:3] + rotate(matrix_from_quaternion(to_robot[3:]), world))


def _handles(drawer: str, opening: Floats, to_robot: Floats) -> Floats:
    world = np.array(handle_pose(drawer, 0.0)[:3]) + opening[:, None] * [1.0, 0.0, 0.0]
    return np.asarray(to_robot[:3] + rotate(matrix_from_quaternion(to_robot[3:]), world))


def _nothing(rows: int, count: int) -> tuple[Bools, Bools]:
    return np.zeros((rows, count), bool), np.zeros((rows, count), bool)


def _pinches(
    robot: Robot, bodies: Sequence[ObjectSpec], states: Mapping[str, NDArray[Any]], rows: int
) -> tuple[Bools, Bools]:
    """True where both fingers press on an object from opposite sides, and where any finger touches it."""
    held, touched = _nothing(rows, len(bodies))
    carried = [robot.carried_by(joint) for joint in robot.gripper_joints]
    sides = [[i for i, link in enumerate(robot.finger_links) if link in of] for of in carried]
    for column, body in enumerate(bodies):
        impulse = _row(states, f"touch/{body.name}")
        touched[:, column] = (np.linalg.norm(impulse, axis=-1) > TOUCH_IMPULSE).any(-1)
        if len(sides) == 2:
            one, other = (impulse[:, links].sum(1) for links in sides)
            sizes = np.linalg.norm(one, axis=-1), np.linalg.norm(other, axis=-1)
            pressed = (sizes[0] > TOUCH_IMPULSE) & (sizes[1] > TOUCH_IMPULSE)
            held[:, column] = pressed & ((one * other).sum(-1) < _OPPOSED * sizes[0] * sizes[1])
    return held, touched
