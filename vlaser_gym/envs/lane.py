"""One environment of a vector environment: the episode it runs and what is known of it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.engines.base import Placement, Reading
from vlaser_gym.envs.instructions import Instructions
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks.base import Layout, Memory, ObjectSpec, Task
from vlaser_gym.envs.tasks.cabinet import handle_pose, joint_name

_SAVED = (
    "started",
    "address",
    "layout",
    "elapsed",
    "flags",
    "success_any",
    "terminated",
    "truncated",
    "stage",
    "memory",
    "reading",
    "rng",
)


class Lane:
    """Bookkeeping of one episode after another; no simulation happens here.

    Args:
        task: the first episode's.
        limit: of control steps, in place of the tasks' own.
        instructions: sentences in place of the tasks' own.
    """

    def __init__(self, task: Task, limit: int | None = None, instructions: Instructions | None = None) -> None:
        self.task, self._limit, self._instructions = task, limit, instructions
        self.address = Address(task.name)
        self.rng: np.random.Generator | None = None
        self.elapsed, self.stage = 0, 0
        self.flags: dict[str, bool] = {}
        self.memory: Memory = {}
        self.reading: Reading
        self.layout: Layout
        self.success_any = self.terminated = False
        # An environment that was never reset has no episode to step.
        self.started, self.truncated = False, True

    @property
    def ended(self) -> bool:
        """The episode is over."""
        return self.terminated or self.truncated

    @property
    def max_steps(self) -> int:
        """Control steps after which the episode is truncated."""
        return self.task.max_steps if self._limit is None else self._limit

    @property
    def instruction(self) -> str:
        """The current instruction; one of one's own holds for all stages of a task."""
        own = None if self._instructions is None else self._instructions.told(self.address)
        if own is not None:
            return own
        if self.reading.verdict is not None:
            return self.reading.verdict.instruction
        return self.task.instruction(self.address.layout, self.address.variant, self.stage)

    @property
    def base_pose(self) -> NDArray[np.float64]:
        """World pose of the robot's root link, ``[7]``."""
        return np.array(self.layout.base_pose or get_setup(self.task.robot_setup).base_pose)

    @property
    def objects(self) -> tuple[ObjectSpec, ...]:
        """The bodies of this episode."""
        return self.task.objects_of(self.layout.cast)

    @property
    def source_name(self) -> str:
        """Name of the manipulated object, or of the drawer's joint where there is none."""
        source = self.task.source if self.layout.source is None else self.layout.source
        return self.layout.goal_joint if source < 0 else self.objects[source].name

    @property
    def source_pose(self) -> NDArray[np.float64]:
        """World pose ``[7]`` of what is manipulated: an object, or the middle of a drawer's handle."""
        source = self.task.source if self.layout.source is None else self.layout.source
        return self._handle() if source < 0 else np.asarray(self.reading.object_pose[source])

    @property
    def target_pose(self) -> NDArray[np.float64]:
        """World pose ``[7]`` of the goal: an object, a drawer's handle, or where there is none the source's own."""
        target = self.task.target if self.layout.target is None else self.layout.target
        if target >= 0:
            return np.asarray(self.reading.object_pose[target])
        return self._handle() if self.layout.goal_joint else self.source_pose

    def _handle(self) -> NDArray[np.float64]:
        joint = self.layout.goal_joint
        return np.array(handle_pose(joint.removesuffix(joint_name("")), self.reading.joints[joint]))

    def begin(self, address: Address, placement: Placement, reading: Reading) -> None:
        """A new episode starts at its initial state."""
        self.task, self.address, self.reading = placement.task, address, reading
        self.layout = placement.layout
        self.memory = self.task.begin([placement.layout])
        self.flags = dict.fromkeys(self.task.flags, False)
        self.elapsed, self.stage = 0, 0
        self.success_any = self.terminated = self.truncated = False
        self.started = True

    def advance(self, reading: Reading) -> None:
        """A control step has run."""
        self.reading = reading
        self.elapsed += 1

    def advance_subtask(self) -> None:
        """The agent says that the current sub-task is done."""
        self.memory = self.task.advance(self.memory)
        self.stage = int(self.task.stage(self.memory)[0])

    def evaluate(self, flags: dict[str, bool], memory: Memory, stage: int, terminate_on_success: bool) -> None:
        """Take in the task's verdict on the last control step."""
        self.flags, self.memory, self.stage = flags, memory, stage
        self.success_any |= flags["success"]
        self.terminated = terminate_on_success and flags["success"]
        self.truncated = self.elapsed >= self.max_steps

    def state(self) -> dict[str, NDArray[Any]]:
        """The state by name: ``qpos``, ``object/<name>``, ``joint/<name>``, and what the robot is told in it.

        ``touch/<name>`` (N s, ``[n_finger_links, 3]``) is there where the engine reports contacts: the impulse of an
        object on each finger link.

        ``base_pose`` (of the robot's root link, world) is there where the layout brings its own. ``instruction`` is the
        text that an observation of this state holds, ``stage`` the index of the sub-task that it belongs to.
        """
        named = {"qpos": self.reading.qpos.copy()}
        if self.layout.base_pose is not None:
            named["base_pose"] = np.array(self.layout.base_pose)
        for obj, pose in zip(self.objects, self.reading.object_pose, strict=True):
            named[f"object/{obj.name}"] = pose.copy()
        if self.reading.touch is not None:
            for obj, impulse in zip(self.objects, self.reading.touch, strict=True):
                named[f"touch/{obj.name}"] = impulse.astype(np.float32)
        for joint, value in self.reading.joints.items():
            named[f"joint/{joint}"] = np.array(value)
        return {**named, "instruction": np.array(self.instruction), "stage": np.array(self.stage)}

    def get_state(self) -> dict[str, Any]:
        """A deep copy of the environment's fields."""
        return {name: copy.deepcopy(getattr(self, name, None)) for name in _SAVED}

    def set_state(self, state: dict[str, Any], task: Task) -> None:
        """Restore what :meth:`get_state` returned."""
        self.task = task
        for name in _SAVED:
            setattr(self, name, copy.deepcopy(state[name]))
