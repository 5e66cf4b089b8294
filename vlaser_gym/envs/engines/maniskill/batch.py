"""Many environments in one physics system: sub-scenes side by side that are stepped together.

A system takes up nothing more once it runs. It therefore holds sub-scenes that were each built for a key, and an
environment borrows one with the key of its episode. Only where none is free the system is built anew, and the states of
the other environments are carried over. All sub-scenes move in every step; those of environments that were not to move
are put back afterwards.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from mani_skill.envs.scene import ManiSkillScene
from numpy.typing import NDArray

from vlaser_gym.envs.assets import AssetPack
from vlaser_gym.envs.engines.base import Reading
from vlaser_gym.envs.engines.maniskill.contacts import Contacts, check_contacts
from vlaser_gym.envs.engines.maniskill.physics import blocked_speed, substep_picks
from vlaser_gym.envs.engines.maniskill.scene import Scene, body_of, build_scene, joints_of, numbers_of
from vlaser_gym.envs.engines.maniskill.start import Start, Targets
from vlaser_gym.envs.robots import RobotSetup, get_setup
from vlaser_gym.envs.tasks import get_task

Floats = NDArray[np.float32]


class Arrays(NamedTuple):
    """State and drive targets of a whole system.

    Attributes:
        bodies: ``[B, 13]``: position (m), quaternion (w x y z), linear (m/s) and angular velocity (rad/s), each in its
            own sub-scene.
        qpos: ``[A, D]``, joint positions of articulations, padded to the most joints; SAPIEN's order of joints.
        qvel: likewise.
        target: likewise, positions that the drives are sent to.
        target_speed: likewise.
    """

    bodies: Floats
    qpos: Floats
    qvel: Floats
    target: Floats
    target_speed: Floats

    def copy(self) -> Arrays:
        """The same numbers in memory of their own."""
        return Arrays(*(array.copy() for array in self))


class System(Protocol):
    """The physics interface of a batch; :class:`.cuda.CudaSystem` implements it by PhysX on a GPU."""

    def add_scene(self) -> ManiSkillScene:
        """An empty sub-scene; before :meth:`begin` only."""

    def begin(self, pairs: Sequence[tuple[Any, Any]]) -> Arrays:
        """Close the system to further bodies; ``pairs`` of bodies are those whose contact will be asked for."""

    def body_row(self, body: Any) -> int:
        """Row of a rigid body in :attr:`Arrays.bodies`."""

    def articulation_row(self, articulation: Any) -> int:
        """Row of an articulation in :attr:`Arrays.qpos`."""

    def apply(self, arrays: Arrays) -> None:
        """Put everything into a state."""

    def drive(self, arrays: Arrays) -> None:
        """Send the drive targets."""

    def step(self) -> None:
        """Advance the physics by one substep."""

    def fetch(self, arrays: Arrays) -> Arrays:
        """The state now, with the drive targets of ``arrays``."""

    def impulses(self) -> Floats:
        """``[P, 3]``: impulse (N s) of the last substep on the first body of each pair by the second."""


class Batches:
    """The environments of one process, in a batch for each kind of robot.

    Args:
        pack: where shapes are read from.
        make_system: makes an empty system for a substep in seconds.
    """

    def __init__(self, pack: AssetPack, make_system: Callable[[float], System]) -> None:
        self._pack, self._make_system = pack, make_system
        self._batches: dict[tuple[float, float], Batch] = {}
        self._of_lane: dict[int, Batch] = {}

    def run(self, jobs: Sequence[tuple[int, Start, Sequence[Targets]]]) -> list[Reading]:
        """Begin episodes, and repeat the control steps that they have behind them.

        Raises:
            InvalidConfigError: if a task cannot be told on a GPU; nothing has changed then.
        """
        for _, start, _ in jobs:
            check_contacts(start.key)
        for lane, start, _ in jobs:
            if lane in self._of_lane:
                self._of_lane[lane].release(lane)
            self._of_lane[lane] = self._batch(get_setup(get_task(start.key.task).robot_setup))
        return self._answers(jobs, Batch.run)

    def step(self, jobs: Sequence[tuple[int, Targets]]) -> list[Reading]:
        """One control step of each environment named; the others stay where they are."""
        return self._answers(jobs, Batch.step)

    def _answers(self, jobs: Sequence[Any], ask: Callable[[Batch, Sequence[Any]], dict[int, Reading]]) -> list[Reading]:
        readings: dict[int, Reading] = {}
        for batch in self._batches.values():
            own = [job for job in jobs if self._of_lane[job[0]] is batch]
            if own:
                readings |= ask(batch, own)
        return [readings[job[0]] for job in jobs]

    def _batch(self, setup: RobotSetup) -> Batch:
        key = (setup.physics_hz, setup.control_hz)
        if key not in self._batches:
            self._batches[key] = Batch(setup, self._pack, self._make_system)
        return self._batches[key]


class Batch:
    """The physics of all environments whose robots have one substep and one rate of control.

    Args:
        setup: that robot, or one like it.
        pack: where shapes are read from.
        make_system: makes an empty system for a substep in seconds.
    """

    def __init__(self, setup: RobotSetup, pack: AssetPack, make_system: Callable[[float], System]) -> None:
        self._pack, self._make_system = pack, make_system
        self._substep = 1.0 / setup.physics_hz
        self._substeps = round(setup.physics_hz / setup.control_hz)
        self._system: System | None = None
        self._slots: list[_Slot] = []
        self._of_lane: dict[int, _Slot] = {}
        self._arrays: Arrays

    def release(self, lane: int) -> None:
        """The environment's episode is over; its sub-scene can be borrowed."""
        self._of_lane.pop(lane, None)

    def run(self, jobs: Sequence[tuple[int, Start, Sequence[Targets]]]) -> dict[int, Reading]:
        """Begin episodes, and repeat the control steps that they have behind them; readings by environment."""
        for lane, _, _ in jobs:
            self.release(lane)
        starts = {lane: start for lane, start, _ in jobs}
        if not self._borrow(starts):
            self._rebuild(starts)
        assert self._system is not None
        for lane, start, _ in jobs:
            self._of_lane[lane].put(start, self._arrays)
        self._system.apply(self._arrays)
        readings = {lane: self._of_lane[lane].read(self._arrays, None) for lane, _, _ in jobs}
        for step in range(max(len(history) for _, _, history in jobs)):
            readings |= self.step([(lane, history[step]) for lane, _, history in jobs if step < len(history)])
        return readings

    def step(self, jobs: Sequence[tuple[int, Targets]]) -> dict[int, Reading]:
        """One control step of some environments; the others stay where they are."""
        assert self._system is not None
        before, arrays = self._arrays, self._arrays.copy()
        plans = [(self._of_lane[lane], targets, substep_picks(self._substeps, targets)) for lane, targets in jobs]
        for substep in range(self._substeps):
            due = [plan for plan in plans if substep == 0 or plan[2][substep] != plan[2][substep - 1]]
            for slot, targets, picks in due:
                slot.drive(targets, picks[substep], arrays)
            if due:
                self._system.drive(arrays)
            self._system.step()
        self._arrays = self._system.fetch(arrays)
        impulses = self._system.impulses()
        if others := self._of_lane.keys() - {lane for lane, _ in jobs}:
            for lane in others:
                self._of_lane[lane].set_rows(self._arrays, self._of_lane[lane].rows(before))
            self._system.apply(self._arrays)
        return {lane: self._of_lane[lane].read(self._arrays, impulses) for lane, _ in jobs}

    def _borrow(self, starts: Mapping[int, Start]) -> bool:
        """Give each environment a free sub-scene with the key of its episode; False, and nothing, if one is missing."""
        free = self._free()
        found: dict[int, _Slot] = {}
        for lane, start in starts.items():
            slot = next((slot for slot in free if slot.start.key == start.key), None)
            if slot is None:
                return False
            free.remove(slot)
            found[lane] = slot
        self._of_lane |= found
        return True

    def _free(self) -> list[_Slot]:
        return [slot for slot in self._slots if slot not in self._of_lane.values()]

    def _rebuild(self, starts: Mapping[int, Start]) -> None:
        """A new system with a sub-scene for each environment, and at most as many spare ones, which rest where they
        began.
        """
        carried = {lane: (slot.start, slot.rows(self._arrays)) for lane, slot in self._of_lane.items()}
        begin = {**{lane: start for lane, (start, _) in carried.items()}, **starts}
        wanted = {start.key for start in starts.values()}
        spare = [start for start in (slot.start for slot in self._free()) if start.key not in wanted][: len(begin)]
        # Its memory on the GPU is needed for the new one; ManiSkill's scenes and actors hold each other.
        self._slots, self._of_lane, self._system = [], {}, None
        gc.collect()
        self._system, self._slots, self._arrays = self._build([*begin.values(), *spare])
        self._of_lane = dict(zip(begin, self._slots, strict=False))
        for slot in self._slots:
            slot.put(slot.start, self._arrays)
        for lane, (_, rows) in carried.items():
            self._of_lane[lane].set_rows(self._arrays, rows)

    def _build(self, starts: Sequence[Start]) -> tuple[System, list[_Slot], Arrays]:
        system = self._make_system(self._substep)
        scenes = [build_scene(start.key, self._pack, into=system.add_scene()) for start in starts]
        # What the original adds against gravity cannot be asked for on a GPU: the robot weighs nothing instead.
        for link in (link for scene in scenes for link in scene.robot.links):
            link.disable_gravity = True
        contacts = [Contacts(scene, start.key.cast) for scene, start in zip(scenes, starts, strict=True)]
        arrays = system.begin([pair for contact in contacts for pair in contact.pairs])
        first = np.cumsum([0, *(len(contact.pairs) for contact in contacts)])
        slots = [_Slot(*parts, system) for parts in zip(starts, scenes, contacts, first.tolist(), strict=False)]
        return system, slots, arrays


class _Slot:
    """A sub-scene, and where its state stands in the system's arrays."""

    def __init__(self, start: Start, scene: Scene, contacts: Contacts, first_pair: int, system: System) -> None:
        self.start = start
        setup = get_setup(scene.task.robot_setup)
        moving, joints = setup.robot.moving_joints, list(joints_of(scene.robot))
        self._speed = numbers_of(setup.robot).speed
        self._limits = np.array([(joint.lower, joint.upper) for joint in moving], np.float32).T
        #: Index of each joint of ours, and of each drawer, in the arrays of articulations.
        self._robot = system.articulation_row(scene.robot), np.array([joints.index(j.name) for j in moving])
        self._root = system.body_row(scene.robot.root)
        self._objects = np.array([system.body_row(body_of(entity)) for entity in scene.objects], int)
        self._drawers = [] if scene.cabinet is None else list(joints_of(scene.cabinet))
        self._cabinet = (
            None if scene.cabinet is None else (system.articulation_row(scene.cabinet), slice(len(self._drawers)))
        )
        self._contacts, self._pairs = contacts, slice(first_pair, first_pair + len(contacts.pairs))

    def put(self, start: Start, arrays: Arrays) -> None:
        """Everything to where an episode begins, at rest."""
        self.start = start
        arrays.bodies[self._root] = arrays.bodies[self._objects] = 0.0
        arrays.bodies[self._root, :7] = start.base_pose
        arrays.bodies[self._objects, :7] = start.object_pose
        arrays.qpos[self._robot] = arrays.target[self._robot] = start.qpos
        arrays.qvel[self._robot] = arrays.target_speed[self._robot] = 0.0
        if self._cabinet is not None:
            arrays.qpos[self._cabinet] = [start.joints[name] for name in self._drawers]
            arrays.qvel[self._cabinet] = 0.0

    def rows(self, arrays: Arrays) -> list[Floats]:
        """Copies of the state in it."""
        return [array[index].copy() for array, index in self._parts(arrays)]

    def set_rows(self, arrays: Arrays, rows: Sequence[Floats]) -> None:
        """Puts :meth:`rows` back, into the same system's arrays or another's."""
        for (array, index), row in zip(self._parts(arrays), rows, strict=True):
            array[index] = row

    def _parts(self, arrays: Arrays) -> Iterator[tuple[Floats, Any]]:
        yield arrays.bodies, self._root
        yield arrays.bodies, self._objects
        for array in arrays[1:]:
            yield array, self._robot
            if self._cabinet is not None:
                yield array, self._cabinet

    def drive(self, targets: Targets, pick: int, arrays: Arrays) -> None:
        """Send the drives to one of the targets of a control step."""
        arrays.target[self._robot] = np.clip(targets.position[pick], *self._limits)
        arrays.target_speed[self._robot] = 0.0 if targets.velocity is None else targets.velocity[pick]

    def read(self, arrays: Arrays, impulses: Floats | None) -> Reading:
        """The state now; impulses ``[P, 3]`` of all pairs in the last substep, None where nothing has moved yet."""
        own = np.zeros((len(self._contacts.pairs), 3), np.float32) if impulses is None else impulses[self._pairs]
        drawers = () if self._cabinet is None else arrays.qpos[self._cabinet].astype(float)
        return Reading(
            qpos=arrays.qpos[self._robot].astype(np.float64),
            qvel=self._speeds(arrays, own),
            object_pose=arrays.bodies[self._objects, :7].astype(np.float64),
            impulse=self._contacts.sums(own),
            joints=dict(zip(self._drawers, map(float, drawers), strict=True)),
        )

    def _speeds(self, arrays: Arrays, impulses: Floats) -> NDArray[np.float64]:
        qvel: NDArray[np.float64] = arrays.qvel[self._robot].astype(np.float64)
        gap = arrays.target[self._robot] - arrays.qpos[self._robot].astype(np.float64)
        lag = arrays.target_speed[self._robot] - qvel
        for finger in self._contacts.pressing(impulses) if self._speed else ():
            i = finger.column
            qvel[i] = blocked_speed(finger.joint, gap[i], lag[i], self._speed)
        return qvel
