"""The facts in a stored episode's states: positions of things, what is held, the next sub-task.

Everything here is computed from recorded poses, joints and the task's own flags; images come afterwards
(:mod:`vlaser_gym.reasoning.scenes`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.conventions import rotations
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.rendering import drawn_states
from vlaser_gym.envs.robots import RobotSetup, get_setup
from vlaser_gym.envs.robots.kinematics import ArmKinematics
from vlaser_gym.envs.robots.projection import Projector
from vlaser_gym.envs.tasks import Task, cabinet, get_task
from vlaser_gym.envs.tasks.base import Floats
from vlaser_gym.envs.tasks.drawers import CLOSED
from vlaser_gym.reasoning.things import GRIPPER, Thing, spoken_name, things_of

#: Flags by which tasks say that their object is in the fingers now.
_GRASP_FLAGS = ("is_src_obj_grasped", "is_grasped")
#: Without such a flag: held is what has risen this much (m) and is this close to the TCP (m).
HELD_RISE, HELD_DISTANCE = 0.015, 0.09
#: Control steps that a direction is taken over, and its least movement (m) and lead over the second axis.
DIRECTION_STEPS, DIRECTION_LEAST, DIRECTION_LEAD = 4, 0.005, 1.5
#: Names of the robot frame's axes, positive and negative.
DIRECTIONS = (("forward", "backward"), ("left", "right"), ("up", "down"))
#: Control steps between the points of a trace, and how many there are.
TRACE_EVERY, TRACE_POINTS = 2, 5
#: An object has moved that is farther than this (m) from where it began.
MOVED = 0.03


class Robots:
    """Kinematics of the robots, built once each: building them takes longer than asking them."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[ArmKinematics, Projector]] = {}

    def __call__(self, setup: RobotSetup) -> tuple[ArmKinematics, Projector]:
        """The arm and the policy camera of a setup."""
        if setup.name not in self._known:
            self._known[setup.name] = ArmKinematics(setup.robot), Projector(setup)
        return self._known[setup.name]


class Episode:
    """A stored episode.

    Args:
        record: its line in the run.
        states: its arrays, see :func:`~vlaser_gym.evaluation.store.read_states`.
        robots: kinematics.
    """

    def __init__(self, record: Mapping[str, Any], states: Mapping[str, NDArray[Any]], robots: Robots) -> None:
        self.record, self.states = record, states
        self.address = Address(record["task"], record["variant"], record["layout"], record["trial"])
        self.task: Task = get_task(self.address.task)
        self.setup = get_setup(self.task.robot_setup)
        self.layout = self.task.layout(self.address.layout, self.address.variant)
        self.things = things_of(self.task, self.layout.cast, self.setup)
        self._arm, self.projector = robots(self.setup)
        self.qpos = np.asarray(states["qpos"], np.float64)
        self.last = len(self.qpos) - 1
        base = states["base_pose"] if "base_pose" in states else np.array(self.setup.base_pose)
        self.base = np.broadcast_to(np.asarray(base, np.float64), (len(self.qpos), 7))
        self.openness = self.setup.openness(self.qpos)

    @property
    def robot(self) -> str:
        """Name of the robot."""
        return self.setup.robot.name

    @cached_property
    def tcp(self) -> Floats:
        """TCP in the robot's frame, ``[T + 1, 3]``, m."""
        return np.asarray(self._arm.tcp(self.qpos)[1])

    @cached_property
    def centres(self) -> dict[str, Floats]:
        """Centres of the things in the world, ``[T + 1, 3]``, m: centres of mass, handles' middles, the TCP."""
        return {name: self._centre(thing) for name, thing in self.things.items()}

    def _centre(self, thing: Thing) -> Floats:
        if thing.kind == "gripper":
            return self.base[:, :3] + rotations.rotate(rotations.matrix_from_quaternion(self.base[:, 3:]), self.tcp)
        if thing.kind == "handle":
            drawer = thing.name.split()[-2]
            opening = self.states[f"joint/{cabinet.joint_name(drawer)}"]
            return np.array([cabinet.handle_pose(drawer, float(value))[:3] for value in opening])
        poses = np.asarray(self.states[f"object/{self.task.objects_of(self.layout.cast)[thing.body].name}"], np.float64)
        return poses[:, :3] + rotations.rotate(rotations.matrix_from_quaternion(poses[:, 3:]), np.array(thing.com))

    @cached_property
    def source(self) -> str:
        """Name of the thing to be moved."""
        index = self.task.source if self.layout.source is None else self.layout.source
        return self._handle if index < 0 else self._object(index)

    @cached_property
    def target(self) -> str:
        """Name of the thing that is the goal; empty where there is none."""
        index = self.task.target if self.layout.target is None else self.layout.target
        return "yellow basket" if self.task.scenery == "bridge_sink" else "" if index < 0 else self._object(index)

    def _object(self, index: int) -> str:
        return spoken_name(self.task.objects_of(self.layout.cast)[index].name)

    @property
    def _handle(self) -> str:
        return f"handle of the {self.drawer} drawer"

    @property
    def drawer(self) -> str:
        """The drawer that the task is about; empty where there is none."""
        return self.layout.goal_joint.removesuffix(cabinet.joint_name(""))

    def instruction(self, step: int) -> str:
        """The instruction at a step."""
        told = self.states.get("instruction")
        return str(self.record["instruction"] if told is None else told[step])

    def flag(self, name: str, step: int) -> bool:
        """A flag of the task after ``step`` control steps; nothing has happened after none."""
        values = self.states.get(f"flag/{name}")
        return bool(values is not None and step > 0 and values[step - 1])

    def opens_first(self, step: int) -> bool:
        """The robot is told to open the drawer that something will be put into later."""
        return "is_drawer_open" in self.task.flags and not int(self.states["stage"][step])

    def done(self, step: int) -> bool:
        """True where the instruction is fulfilled."""
        return self.flag("is_drawer_open" if self.opens_first(step) else "success", step)

    def state(self, step: int) -> dict[str, NDArray[Any]]:
        """The simulator state that an image of this step shows."""
        return {name: values[step] for name, values in drawn_states(self.states).items()}

    def rise(self, name: str, step: int) -> float:
        """The height of a thing above its initial position, m."""
        heights = self.centres[name][:, 2]
        return float(heights[step] - heights[0])

    def held(self, step: int) -> str | None:
        """Name of what the gripper holds, ``""`` for nothing, ``None`` where contacts and places do not agree."""
        lifted = [
            name
            for name, thing in self.things.items()
            if thing.kind == "object" and self.rise(name, step) > HELD_RISE and self._gap(name, step) < HELD_DISTANCE
        ]
        grasped = [flag for flag in _GRASP_FLAGS if flag in self.task.flags]
        if not grasped:
            return None if len(lifted) > 1 else "".join(lifted)
        holds = self.flag(grasped[0], step)
        if not holds and lifted:
            return None
        return self.source if holds else ""

    def _gap(self, name: str, step: int) -> float:
        return float(np.linalg.norm(self.centres[name][step] - self.centres[GRIPPER][step]))

    def distance(self, a: str, b: str, step: int) -> float:
        """Between the centres of two things, m."""
        return float(np.linalg.norm(self.centres[a][step] - self.centres[b][step]))

    def direction(self, step: int) -> str:
        """The axis of the robot's frame along which the gripper goes next; empty where none stands out."""
        if step + DIRECTION_STEPS > self.last:
            return ""
        way = self.tcp[step + DIRECTION_STEPS] - self.tcp[step]
        second, first = np.argsort(np.abs(way))[1:]
        clear = abs(way[first]) > DIRECTION_LEAST and abs(way[first]) >= DIRECTION_LEAD * abs(way[second])
        return DIRECTIONS[first][int(way[first] < 0)] if clear else ""

    def trace(self, step: int) -> list[list[float]]:
        """Pixels of the next places of the TCP, as the camera of this step would show them; empty near the end."""
        rows = step + TRACE_EVERY * np.arange(1, TRACE_POINTS + 1)
        if rows[-1] > self.last:
            return []
        camera = [np.repeat(array[step : step + 1], TRACE_POINTS, axis=0) for array in (self.qpos, self.base)]
        seen = self.projector.seen(camera[0], camera[1], self.centres[GRIPPER][rows])
        if (seen[:, 2] <= self.projector.camera.near).any():
            return []
        return [[round(float(x), 2), round(float(y), 2)] for x, y in self.projector.pixels(seen)]

    def openings(self, step: int) -> dict[str, float]:
        """The opening of each drawer, m; empty without a cabinet."""
        names = cabinet.DRAWERS if self.task.scenery == "google_cabinet" else ()
        return {drawer: float(self.states[f"joint/{cabinet.joint_name(drawer)}"][step]) for drawer in names}

    @cached_property
    def closes(self) -> bool:
        """The task is to close its drawer."""
        return bool(self.drawer) and self.layout.joints[self.layout.goal_joint] > CLOSED

    @property
    def succeeded(self) -> bool:
        """The task is done at the last step."""
        return bool(self.record["success"])

    def ending(self) -> str:
        """The end of the episode in the words of an answer; empty if no short answer fits."""
        if self.succeeded:
            return "the task was done"
        if self.things[self.source].kind == "handle":
            opening = self.states[f"joint/{self.layout.goal_joint}"]
            moved = abs(float(opening[-1] - opening[0])) > MOVED
            return f"the {self.drawer} drawer moved, but not far enough" if moved else "the drawer was not moved"
        held, way = self.held(self.last), self.centres[self.source]
        if held is None:
            return ""
        if held == self.source:
            return f"the {self.source} is still held by the gripper"
        moved = float(np.linalg.norm(way[-1] - way[0])) > MOVED
        return f"the {self.source} was moved to a wrong place" if moved else f"the {self.source} was not moved"
