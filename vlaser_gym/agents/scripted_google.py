"""The scripted expert on the Google Robot's table: grasps from above, lifts, and carries.

The controller forgets what a step does not reach and travels about a third of what it is told, so an action is simply
the way that is left, up to a largest step; nothing has to be tracked.

A policy that imitates this sees images. What the script does next therefore follows from what can be seen: it goes on
when the gripper has arrived, turned, closed or opened, not after so many steps; it tells the gripper nothing that it
need not be told, since a policy's command is held for several steps and would keep it from the next one; and it waits
a step before the fingers close, because a policy whose predicted actions count closes up to a step early.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.agents.disturbance import Miss, Pushes
from vlaser_gym.conventions import rotations
from vlaser_gym.envs import transforms
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks.base import ObjectSpec, Task
from vlaser_gym.envs.vector import STATE_FIELDS

Floats = NDArray[np.float64]

#: Gripper commands: relative, positive closes; an opened or closed gripper stays so at 0.
CLOSE, OPEN, KEEP = 1.0, -1.0, 0.0
#: An axis this much upright (cosine) is standing.
_STANDING = 0.8
#: Height over the grasp at which a miss on purpose is noticed late, m.
_LATE_NOTICE = 0.03
#: Directions from its goal in which an object may be put down, from its own side on (rad), and by how much farther from
#: there than the goal everything else must be (m).
_SIDES, _ROOM = (0.0, 0.4, -0.4, 0.8, -0.8, 1.2, -1.2), 0.03
#: Less motion (m) in a control step is none; fingers stand still if their openness changes by less.
_STILL, _FINGERS_STILL = 0.002, 0.02
#: A gripper this near to the line above an object (m), turned this well (rad), is over it.
_OVER, _TURNED = 0.02, 0.2
#: An object this far under where it lay has left the table, m.
_FALLEN = 0.2
#: Fingers this far apart are open.
_WIDE_OPEN = 0.95
#: Of the two headings (rad) along which the fingers can close across an object, the one from here to half a turn on is
#: taken: halfway between those of the grids' lying cans (90 and 180 degrees, relative to the robot).
_LEAST_CLOSING = np.pi / 4
#: What stands this far up from its centre (m) would meet the palm, 87 mm behind the fingertips: it is grasped from the
#: robot's side, leaning so far (rad).
_TALL, _TALL_LEAN = 0.095, 0.9
#: The database gives the sponge's sides in another order than its mesh has them.
_LONG_AXES = {"sponge": 0}


@dataclass(frozen=True)
class GoogleScript:
    """Numbers of the motion; lengths in metres, angles in radians.

    Attributes:
        max_step, max_turn: largest translation and rotation of one action, within the range of the data that Vlaser's
            policies for this robot are normalised by.
        approach: height of the waypoint above the object before it is grasped.
        lift: how far the object is raised.
        retreat: how far it is drawn towards the robot meanwhile.
        carry: height over its rest at which it is carried.
        gap: what is left between the boxes of a carried object and its goal.
        lean, near, lean_farther: angle between a gripper that grasps from above and the vertical, up to a distance from
            the robot, and by how much it grows per metre beyond: it points away from the robot, since the wrist's limit
            keeps a vertical one from what lies far.
        close_steps: most control steps that the fingers get.
    """

    max_step: float = 0.10
    max_turn: float = 0.34
    approach: float = 0.08
    lift: float = 0.08
    retreat: float = 0.05
    carry: float = 0.05
    gap: float = 0.05
    lean: float = 0.28
    near: float = 0.66
    lean_farther: float = 2.9
    close_steps: int = 6


#: Among other things the gripper comes and carries above them.
_AMONG_OTHERS = GoogleScript(approach=0.15, carry=0.13)


class GoogleEpisode(ABC):
    """The script of one episode as a generator of gripper commands; goals are set on the way.

    Attributes:
        intended: the last action without its disturbance, ``[7]``.
        pushes: what is added to the actions.
        subtask_done: what is told first in an episode of two sub-tasks is done.
        waits: for the step from which the environment tells the second, instead of saying so.
    """

    def __init__(self, script: GoogleScript | None = None) -> None:
        self._script = GoogleScript() if script is None else script
        self._plan: Iterator[float] | None = None
        self._goal, self._goal_rotation = np.zeros(3), np.eye(3)
        self.intended = np.zeros(7)
        self.pushes = Pushes()
        self.subtask_done = self.waits = False
        self._steps = 0

    @property
    def teaches(self) -> bool:
        """True where its actions are worth imitating."""
        return True

    def act(self, state: Floats) -> Floats:
        """The action ``[7]`` for a ``state`` observation ``[26]``."""
        self._tcp, self._rotation = state[:3], rotations.matrix_from_quaternion(state[3:7])
        self._openness = float(state[STATE_FIELDS["openness"]][0])
        if self._plan is None:
            self._goal, self._goal_rotation = self._tcp, self._rotation
            self._start_closing = float(np.arctan2(self._rotation[1, 1], self._rotation[0, 1]))
            self._plan = self._run()
        self._look(state)
        gripper = next(self._plan)
        self._steps += 1
        self.intended = np.concatenate([*self._towards_goal(), [gripper]])
        return self.intended + self.pushes.next()

    def _towards_goal(self) -> tuple[Floats, Floats]:
        """Translation and rotation of the next action; it never arrives before it has turned.

        Over an object, which it hides from the camera, a gripper that still has to turn looks like one that need not.
        """
        turn = rotations.axis_angle_from_matrix(self._goal_rotation @ self._rotation.T)
        way = self._goal - self._tcp
        share = 1 / max(1.0, np.ceil(float(np.linalg.norm(turn)) / self._script.max_turn))
        step = _limited(way, min(self._script.max_step, share * float(np.linalg.norm(way))))
        return step, _limited(turn, self._script.max_turn)

    @abstractmethod
    def _look(self, state: Floats) -> None:
        """Take from the state what the script needs to know."""

    @abstractmethod
    def _run(self) -> Iterator[float]:
        """The gripper command of every action, without end."""

    def _move(self, goal: Floats, gripper: float, tolerance: float = 0.015) -> Iterator[float]:
        """Until the goal is reached, or nothing moves any more: at its limits the wrist keeps some goals from it.

        The fingers are told ``gripper``, to open only while they are not.
        """
        self._goal = np.array(goal)
        idle = 0
        for _ in range(30):
            before = self._tcp, self._rotation
            yield self._needed(gripper)
            turn = rotations.axis_angle_from_matrix(self._goal_rotation @ self._rotation.T)
            if np.linalg.norm(self._tcp - self._goal) < tolerance and np.linalg.norm(turn) < 0.12:
                return
            moved = np.linalg.norm(self._tcp - before[0]) + 0.1 * np.abs(self._rotation - before[1]).max()
            idle = idle + 1 if moved < _STILL else 0
            if idle == 3:
                return

    def _leaning(self, place: Floats, closing: float, least: float = 0.0) -> Floats:
        """The gripper's rotation over a place, leaning away from the robot.

        Args:
            place: in the robot's frame, m.
            closing: heading along which the fingers close, rad.
            least: angle to the vertical, where it is not larger anyway, rad.
        """
        down = np.array([[-np.sin(closing), np.cos(closing), 0.0], [np.cos(closing), np.sin(closing), 0.0], [0, 0, -1]])
        distance = float(np.linalg.norm(place[:2]))
        lean = max(least, self._script.lean + self._script.lean_farther * max(0.0, distance - self._script.near))
        x, y = place[:2] / distance
        return np.asarray(rotations.matrix_from_axis_angle(lean * np.array([y, -x, 0.0])) @ down.T)

    def _close(self) -> Iterator[float]:
        """Wait a step, then close until the fingers stand still."""
        yield KEEP
        for _ in range(self._script.close_steps):
            before = self._openness
            yield CLOSE
            if self._openness < _WIDE_OPEN and before - self._openness < _FINGERS_STILL:
                return

    def _needed(self, gripper: float) -> float:
        """A command to the fingers, but for one to open where they are open already."""
        return KEEP if gripper == OPEN and self._openness > _WIDE_OPEN else gripper


class TableEpisode(GoogleEpisode):
    """Grasp an object on the table from above and lift it, or carry it to another.

    Attributes:
        miss: where the gripper strays to first, with open fingers.
    """

    miss = Miss()

    def __init__(self, task: Task, address: Address, script: GoogleScript | None = None) -> None:
        layout = task.layout(address.layout, address.variant)
        objects = task.objects_of(layout.cast)
        source = task.source if layout.source is None else layout.source
        target = task.target if layout.target is None else layout.target
        super().__init__(script or (GoogleScript() if target < 0 else _AMONG_OTHERS))
        base = transforms.invert(layout.base_pose or get_setup(task.robot_setup).base_pose)
        others = [pose for i, pose in enumerate(layout.object_pose) if i not in (source, target)]
        self._others = [transforms.compose(base, pose)[:2] for pose in others]
        self._object: ObjectSpec = objects[source]
        self._target_object: ObjectSpec | None = None if target < 0 else objects[target]
        self._source, _ = centre(transforms.compose(base, np.asarray(layout.object_pose[source])), self._object)
        self._rest = float(self._source[2])
        self._strays = False

    def _look(self, state: Floats) -> None:
        self._source, self._source_rotation = centre(state[STATE_FIELDS["source"]], self._object)
        self._target, _ = centre(state[STATE_FIELDS["target"]], self._target_object or self._object)

    @property
    def teaches(self) -> bool:
        """False on the way to a miss on purpose (:attr:`Disturbance.misses`), and once the object is off the table."""
        return not self._strays and bool(self._source[2] > self._rest - _FALLEN)

    def _run(self) -> Iterator[float]:
        """Grasp until the object hangs in the fingers, carry it if there is a goal, then stay.

        Who acted before may have come any part of the way.
        """
        if self.miss:
            yield from self._stray()
        if self._is_between_fingers() and not self._is_lifted():
            yield from self._raise()
        for _ in range(3):
            if self._is_lifted():
                break
            while self._needed(OPEN) != KEEP:
                yield OPEN
            yield from self._grasp()
        if self._target_object is not None:
            yield from self._carry()
        while True:
            yield CLOSE

    def _stray(self) -> Iterator[float]:
        """Beside the object at the height at which it is approached, or lower for a miss that is noticed late."""
        self._strays = True
        self._goal_rotation = self._grasp_rotation()
        height = self._script.approach if self.miss.noticed else _LATE_NOTICE
        beside = self._source + self.miss.error
        yield from self._move(beside + [0, 0, self._script.approach], KEEP, tolerance=0.03)
        yield from self._move(beside + [0, 0, height], KEEP, tolerance=0.03)
        self._strays = False

    def _grasp(self) -> Iterator[float]:
        self._goal_rotation = self._grasp_rotation()
        grasp = self._source.copy()
        if not self._is_over(grasp):
            yield from self._move(grasp + [0, 0, self._script.approach], KEEP, tolerance=0.025)
        yield from self._move(grasp, KEEP, tolerance=0.006)
        yield from self._raise()

    def _raise(self) -> Iterator[float]:
        """Close the fingers where they are and lift what is between them."""
        grasp = self._source.copy()
        yield from self._close()
        height = self._script.lift if self._target_object is None else self._script.carry
        yield from self._move(grasp + self._inward(self._script.retreat) + [0, 0, height], CLOSE)

    def _is_lifted(self) -> bool:
        return bool(self._source[2] > self._rest + self._script.lift / 2)

    def _is_over(self, grasp: Floats) -> bool:
        """The open gripper is on its way down to a grasp, turned as it should be."""
        turn = rotations.axis_angle_from_matrix(self._goal_rotation @ self._rotation.T)
        aside, above = np.linalg.norm((self._tcp - grasp)[:2]), self._tcp[2] - grasp[2]
        return bool(aside < _OVER and above < self._script.approach and np.linalg.norm(turn) < _TURNED)

    def _is_between_fingers(self) -> bool:
        """The fingers are closing around the object, or have closed."""
        return bool(self._openness < _WIDE_OPEN and np.linalg.norm(self._tcp - self._source) < _OVER)

    def _inward(self, length: float) -> Floats:
        """A way towards the robot, where the arm is less stretched."""
        return np.array([*-self._source[:2] / np.linalg.norm(self._source[:2]) * length, 0.0])

    def _carry(self) -> Iterator[float]:
        held = self._tcp - self._source
        assert self._target_object is not None
        place = self._beside(_radius(self._object) + _radius(self._target_object) + self._script.gap)
        yield from self._move(np.array([*place, self._source[2]]) + held, CLOSE)
        yield from self._move(self._goal - [0, 0, self._script.carry - 0.01], CLOSE)

    def _beside(self, distance: float) -> Floats:
        """A place at a distance (m) from the goal, on the object's side of it or the next where there is room."""
        apart = self._source[:2] - self._target[:2]
        side = float(np.arctan2(apart[1], apart[0]))
        places = [self._target[:2] + distance * np.array([np.cos(side + t), np.sin(side + t)]) for t in _SIDES]
        room = [all(np.linalg.norm(place - other) > distance + _ROOM for other in self._others) for place in places]
        return places[room.index(True) if any(room) else 0]

    def _grasp_rotation(self) -> Floats:
        """Closing across the object's long axis, leaning; what stands upright is grasped as the gripper is turned."""
        long = _LONG_AXES.get(self._object.name.removeprefix("baked_").removesuffix("_v2"))
        axis = self._source_rotation[:, int(np.argmax(self._object.bbox)) if long is None else long]
        if abs(axis[2]) > _STANDING and max(self._object.bbox) / 2 > _TALL:
            sideways = float(np.arctan2(self._source[0], -self._source[1]))
            return self._leaning(self._source, sideways, _TALL_LEAN)
        if abs(axis[2]) > _STANDING or np.ptp(self._object.bbox) < 0.01:
            return self._leaning(self._source, self._start_closing)
        across = np.arctan2(axis[0], -axis[1])
        return self._leaning(self._source, _LEAST_CLOSING + (across - _LEAST_CLOSING) % np.pi)


def centre(pose: Floats, body: ObjectSpec) -> tuple[Floats, Floats]:
    """Centre of mass and rotation of an object at a pose ``[7]``."""
    rotation = rotations.matrix_from_quaternion(pose[3:])
    return pose[:3] + rotation @ np.array(body.com), rotation


def _radius(body: ObjectSpec) -> float:
    """Half of the larger of the two smaller sides: things to move stand, or are nearly round."""
    return float(np.sort(body.bbox)[1] / 2)


def _limited(vector: Floats, length: float) -> Floats:
    return np.asarray(vector * min(1.0, length / max(float(np.linalg.norm(vector)), 1e-9)))
