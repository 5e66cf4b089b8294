"""Simulation of one environment: a SAPIEN scene that is built anew for every episode.

PhysX remembers contacts, sleeping bodies and the order in which things were made. A scene built anew forgets them, so
that what happens depends on the placement and the targets since then alone; the original rebuilds its scene at every
recorded reset too. Snapshots rest on the same: they hold the placement and all targets since, and are put back by
running them again, because PhysX's own state cannot be read out whole.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.envs.assets import AssetPack
from vlaser_gym.envs.engines.base import Reading, touch_queries
from vlaser_gym.envs.engines.maniskill.scene import (
    Scene,
    body_of,
    build_scene,
    joints_of,
    links_of,
    make_pose,
    numbers_of,
    part_of,
)
from vlaser_gym.envs.engines.maniskill.start import Start, Targets
from vlaser_gym.envs.robots import Robot, get_setup
from vlaser_gym.envs.robots.base import Joint
from vlaser_gym.envs.tasks.base import ContactQuery

#: Impulse above which a finger presses on something, N s.
PRESSING = 1e-6


class Simulation:
    """The physics of one environment."""

    def __init__(self, start: Start, pack: AssetPack) -> None:
        scene = build_scene(start.key, pack)
        setup = get_setup(scene.task.robot_setup)
        self._scene, self._system, self._robot = scene, scene.scene.px, scene.robot
        self._substeps = round(setup.physics_hz / setup.control_hz)
        joints = joints_of(scene.robot)
        self._drives = [joints[joint.name] for joint in setup.robot.moving_joints]
        order = list(joints)
        #: Column of SAPIEN's ``qpos`` of each joint of ours.
        self._columns = np.array([order.index(joint.name) for joint in setup.robot.moving_joints])
        # The original's PhysX clamps drive targets to the joint's limits; this one drives on until it meets them.
        self._limits = np.array([(joint.lower, joint.upper) for joint in setup.robot.moving_joints], np.float32).T
        self._fingers = _Fingers(scene, setup.robot) if numbers_of(setup.robot).speed else None
        objects = scene.task.objects_of(start.key.cast)
        self._queries = [_Query(query, scene) for query in scene.task.contacts_of(start.key.cast)]
        self._touches = [_Query(query, scene) for query in touch_queries(setup.robot, objects)]
        self._touch_shape = len(objects), len(setup.robot.finger_links), 3
        self._cabinet = {} if scene.cabinet is None else joints_of(scene.cabinet)
        self.put(start)

    def put(self, start: Start) -> None:
        """Everything to its place, at rest."""
        place_bodies(self._scene, start, self._columns)
        for drive, target in zip(self._drives, start.qpos, strict=True):
            drive.set_drive_target(float(target))
            drive.set_drive_velocity_target(0.0)

    def step(self, targets: Targets) -> None:
        """Advance the simulation by one control step."""
        position, velocity = np.clip(targets.position, *self._limits), targets.velocity
        sent = -1
        for pick in substep_picks(self._substeps, targets):
            if pick != sent:
                self._drive(position[pick], None if velocity is None else velocity[pick])
                sent = pick
            # The original adds what gravity and Coriolis forces need as a generalised force, every substep.
            self._robot.set_qf(self._robot.compute_passive_force(True, True))
            self._system.step()

    def _drive(self, position: NDArray[np.float32], velocity: NDArray[np.float32] | None) -> None:
        for drive, target in zip(self._drives, position.tolist(), strict=True):
            drive.set_drive_target(target)
        if velocity is not None:
            for drive, target in zip(self._drives, velocity.tolist(), strict=True):
                drive.set_drive_velocity_target(target)

    def read(self) -> Reading:
        """The state now; impulses are those of the last substep."""
        objects = [_numbers(entity.pose) for entity in self._scene.objects]
        contacts = self._system.get_contacts()
        qpos = np.asarray(self._robot.get_qpos(), np.float64)[self._columns]
        qvel = np.asarray(self._robot.get_qvel(), np.float64)[self._columns]
        if self._fingers is not None:
            self._fingers.correct(qvel, qpos, contacts)
        return Reading(
            qpos=qpos,
            qvel=qvel,
            object_pose=np.array(objects, np.float64).reshape(-1, 7),
            impulse=np.array([query.impulse(contacts) for query in self._queries]).reshape(-1, 3),
            joints=self._joints(),
            touch=np.array([query.impulse(contacts) for query in self._touches]).reshape(self._touch_shape),
        )

    def _joints(self) -> dict[str, float]:
        if self._scene.cabinet is None:
            return {}
        return dict(zip(self._cabinet, np.asarray(self._scene.cabinet.get_qpos(), np.float64).tolist(), strict=True))


def substep_picks(substeps: int, targets: Targets) -> list[int]:
    """The index of the controller target that holds in each substep of a control step."""
    return [substep * len(targets.position) // substeps for substep in range(substeps)]


def place_bodies(scene: Scene, start: Start, columns: NDArray[np.int64]) -> None:
    """Robot, objects and drawers of a scene to where they begin, at rest."""
    scene.robot.set_root_pose(make_pose(start.base_pose))
    qpos = np.zeros(len(columns), np.float32)
    qpos[columns] = start.qpos
    scene.robot.set_qpos(qpos)
    scene.robot.set_qvel(np.zeros_like(qpos))
    for entity, pose in zip(scene.objects, start.object_pose, strict=True):
        entity.set_pose(make_pose(pose))
    if scene.cabinet is not None:
        names = list(joints_of(scene.cabinet))
        scene.cabinet.set_qpos(np.array([start.joints[name] for name in names], np.float32))


class Finger(NamedTuple):
    """A finger joint: its column among the robot's moving joints, and the links that it carries."""

    column: int
    joint: Joint
    links: list[Any]


def fingers_of(scene: Scene) -> list[Finger]:
    """The finger joints whose reported speed depends on what they press on; none for most robots."""
    robot, links = get_setup(scene.task.robot_setup).robot, links_of(scene.robot)
    if not numbers_of(robot).speed:
        return []
    return [
        Finger(column, joint, [links[name] for name in robot.carried_by(joint.name)])
        for column, joint in enumerate(robot.moving_joints)
        if joint.name in robot.gripper_joints
    ]


def blocked_speed(joint: Joint, gap: float, lag: float, speed: float) -> float:
    """The speed that the original reports for a finger that presses on something.

    See ``speed`` of :class:`~vlaser_gym.envs.robots.ManiskillNumbers`.

    Args:
        joint: the finger's.
        gap: drive target minus position, rad.
        lag: target speed minus speed, rad/s.
        speed: rad/s per N m of the drive.
    """
    return speed * float(np.clip(joint.kp * gap + joint.kd * lag, -joint.force, joint.force))


class _Fingers:
    """Corrects the speeds of fingers that press on something."""

    def __init__(self, scene: Scene, robot: Robot) -> None:
        joints = joints_of(scene.robot)
        self._speed, self._robot = numbers_of(robot).speed, list(scene.robot.links)
        self._fingers = [(finger, joints[finger.joint.name]) for finger in fingers_of(scene)]

    def correct(self, qvel: NDArray[np.float64], qpos: NDArray[np.float64], contacts: list[Any]) -> None:
        """Put the speeds of pressing fingers into ``qvel [J]``."""
        for (column, joint, links), drive in self._fingers:
            if any(self._presses(contact, links) for contact in contacts):
                gap = drive.drive_target[0] - qpos[column]
                lag = drive.drive_velocity_target[0] - qvel[column]
                qvel[column] = blocked_speed(joint, gap, lag, self._speed)

    def _presses(self, contact: Any, links: list[Any]) -> bool:
        first, second = contact.bodies
        other = second if first in links else first if second in links else None
        if other is None or other in self._robot:
            return False
        return any(np.linalg.norm(point.impulse) > PRESSING for point in contact.points)


class _Query:
    """A contact query with its subjects found in a scene."""

    def __init__(self, query: ContactQuery, scene: Scene) -> None:
        self._of, self._of_shape = subject_of(query.of, scene)
        self._by, self._by_shape = subject_of(query.by, scene)

    def impulse(self, contacts: list[Any]) -> NDArray[np.float64]:
        """Vector sum over the contact points, ``[3]``, N s."""
        total = np.zeros(3)
        for contact in contacts:
            sign = self._side(contact)
            if sign:
                for point in contact.points:
                    total += sign * np.asarray(point.impulse, np.float64)
        return total

    def _side(self, contact: Any) -> int:
        """1 where the contact's impulses act on ``of``, -1 where they act on ``by``, 0 where it is another contact."""
        (first, second), (first_shape, second_shape) = contact.bodies, contact.shapes
        if self._is_of(first, first_shape) and self._is_by(second, second_shape):
            return 1
        return -int(self._is_of(second, second_shape) and self._is_by(first, first_shape))

    def _is_of(self, body: Any, shape: Any) -> bool:
        return body in self._of and (self._of_shape is None or shape == self._of_shape)

    def _is_by(self, body: Any, shape: Any) -> bool:
        return body in self._by and (self._by_shape is None or shape == self._by_shape)


def subject_of(name: str, scene: Scene) -> tuple[list[Any], Any]:
    """Bodies meant by a contact query's subject, and the one shape of theirs where it means a part."""
    kind, _, own = name.partition(":")
    if kind == "object":
        index = [spec.name for spec in scene.objects_spec].index(own)
        return [body_of(scene.objects[index])], None
    if kind == "link":
        return [links_of(scene.robot)[own]], None
    if kind == "part":
        link, shape = part_of(scene, own)
        return [link], shape
    cabinet = [] if scene.cabinet is None else list(scene.cabinet.links)
    return [body_of(entity) for entity in scene.surroundings] + cabinet, None


def _numbers(pose: Any) -> NDArray[np.float64]:
    return np.concatenate([pose.p, pose.q])
