"""Forward and inverse kinematics of a robot tree, batched over environments.

The inverse reproduces the solver of the original simulator (Pinocchio's closed-loop IK as SAPIEN calls it): damped
least squares on the SE(3) logarithm of the error in the frame of the joint that carries the TCP, steps of one tenth, at
most 100 of them, tolerance 1e-4. Where full steps converge, they are taken instead (3 instead of about 70), and the
residual that the original leaves is put back; where they do not, the original's own iteration is run.

An arm with more joints than a pose has coordinates reaches a goal in many postures, and which one the iteration ends in
depends on the size of its steps. There the way is walked twice, in 3 and in 6 equal parts, and the posture is
extrapolated to the original's step pattern.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.conventions.rotations import cross_matrix, matrix_from_euler, rotate
from vlaser_gym.envs import transforms
from vlaser_gym.envs.robots.base import Floats, Joint, Robot

Bools = NDArray[np.bool_]

#: Constants of the original solver (spec: SAPIEN 2.2.2 PinocchioModel.compute_inverse_kinematics).
TOLERANCE, STEP, DAMPING, MAX_STEPS = 1e-4, 0.1, 1e-6, 100
_FULL_STEPS = 8
_RIDGE = DAMPING * np.eye(6)
#: The posture error of Euler steps grows with the sum of the squares of their shares of the way. Equal steps have one
#: over their number; the original's tenth of what remains has this.
_SQUARES = STEP / (2 - STEP)
_COARSE, _FINE = 3, 6
#: Where the two walks end farther apart than this (rad), the extrapolation is not trusted.
_MAX_SPREAD = 0.005


class _Motions:
    """Transforms of moving joints in the frame of the moving joint before them, ``[n, B, 4, 4]`` for ``q [B, n]``.

    A joint's transform is the product of the fixed joints before it and of its own motion: a constant, plus constants
    times sin q and 1 - cos q (Rodrigues' formula) or times q.

    Args:
        paths: for each moving joint the fixed joints before it, then itself.
    """

    def __init__(self, paths: Sequence[Sequence[Joint]]) -> None:
        joints = [path[-1] for path in paths]
        offsets = np.array([_fixed_frame(path) for path in paths]).reshape(-1, 4, 4)
        #: Origins ``[n, 3]`` and orientations at rest ``[n, 3, 3]`` of the joints, each in the frame of the one before.
        self.offsets, self.rest_rotations = offsets[:, :3, 3], offsets[:, :3, :3]
        self.axes = np.array([joint.axis for joint in joints], np.float64).reshape(-1, 3)
        turning = np.array([joint.kind == "revolute" for joint in joints], bool)
        turn, slide = np.zeros((2, len(joints), 4, 4))
        turn[:, :3, :3] = cross_matrix(self.axes) * turning[:, None, None]
        slide[:, :3, 3] = self.axes * ~turning[:, None]
        sine = offsets @ turn
        self._constant, self._sine, self._versine = offsets[:, None], sine[:, None], (sine @ turn)[:, None]
        self._linear = (offsets @ slide)[:, None] if slide.any() else None

    def __call__(self, q: Floats) -> Floats:
        """``q [B, n]`` -> ``[n, B, 4, 4]``."""
        q = np.ascontiguousarray(q.T)[:, :, None, None]
        out = self._constant + np.sin(q) * self._sine
        out += (1 - np.cos(q)) * self._versine
        if self._linear is not None:
            out += q * self._linear
        return np.asarray(out)


def _fixed_frame(path: Sequence[Joint]) -> Floats:
    """Product of the origins of joints, all at rest, ``[4, 4]``."""
    frame = np.eye(4)
    for joint in path:
        origin = np.eye(4)
        origin[:3, :3], origin[:3, 3] = matrix_from_euler(joint.rpy), joint.xyz
        frame = frame @ origin
    return frame


def _split(path: Sequence[Joint]) -> list[list[Joint]]:
    """A path cut behind each of its revolute joints."""
    parts: list[list[Joint]] = [[]]
    for joint in path:
        parts[-1].append(joint)
        if joint.kind == "revolute":
            parts.append([])
    return [part for part in parts if part]


@dataclass(frozen=True)
class _Plan:
    """The kinematic chain to some links: its moving joints, the predecessor of each (-1: the root), and the links.

    ``links`` holds the number of the joint that carries the link (-1: none does) and the link's frame in the joint's.
    """

    columns: NDArray[np.int64]
    motions: _Motions
    parents: tuple[int, ...]
    links: Mapping[str, tuple[int, Floats]]


class KinematicTree:
    """Forward kinematics of every link of a robot."""

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self.link_names = tuple(link.name for link in robot.links)
        self._index = {joint.name: i for i, joint in enumerate(robot.moving_joints)}
        self._by_child = {joint.child: joint for joint in robot.joints}
        self._plans: dict[tuple[str, ...], _Plan] = {}

    def path(self, link: str) -> list[Joint]:
        """Joints from the root to ``link``."""
        joints: list[Joint] = []
        while link in self._by_child:
            joints.insert(0, self._by_child[link])
            link = joints[0].parent
        return joints

    def link_poses(self, qpos: Floats, links: Sequence[str]) -> dict[str, tuple[Floats, Floats]]:
        """``link -> (R [B, 3, 3], p [B, 3])`` in the root frame, for ``qpos [B, J]``."""
        key = tuple(links)
        if key not in self._plans:
            self._plans[key] = self._plan(key)
        plan = self._plans[key]
        frames = plan.motions(qpos[:, plan.columns])
        for i, parent in enumerate(plan.parents):
            if parent >= 0:
                frames[i] = frames[parent] @ frames[i]
        poses = {}
        for link, (joint, offset) in plan.links.items():
            frame = np.broadcast_to(offset, (len(qpos), 4, 4)) if joint < 0 else frames[joint] @ offset
            poses[link] = frame[:, :3, :3], frame[:, :3, 3]
        return poses

    def _plan(self, links: tuple[str, ...]) -> _Plan:
        order: list[str] = []
        paths: list[list[Joint]] = []
        parents: list[int] = []
        placed: dict[str, tuple[int, Floats]] = {}
        for link in links:
            last, pending = -1, []
            for joint in self.path(link):
                pending.append(joint)
                if joint.kind == "fixed":
                    continue
                if joint.name not in order:
                    order.append(joint.name)
                    paths.append(pending)
                    parents.append(last)
                last, pending = order.index(joint.name), []
            placed[link] = last, _fixed_frame(pending)
        columns = np.array([self._index[name] for name in order], np.int64)
        return _Plan(columns, _Motions(paths), tuple(parents), placed)


@cache
def kinematic_tree(robot: Robot) -> KinematicTree:
    """A robot's tree, made once: planning a chain takes longer than following an episode along it."""
    return KinematicTree(robot)


class ArmKinematics:
    """The chain of revolute arm joints that carries the TCP."""

    def __init__(self, robot: Robot) -> None:
        self.tree = KinematicTree(robot)
        path = self.tree.path(robot.tcp_link)
        last = max(i for i, joint in enumerate(path) if joint.kind == "revolute")
        self.joints = tuple(joint for joint in path[: last + 1] if joint.kind == "revolute")
        order = [joint.name for joint in robot.moving_joints]
        #: Columns of ``qpos`` that hold the chain's joints.
        self.columns = np.array([order.index(joint.name) for joint in self.joints])
        # Fixed joints between two moving ones are folded into the offset of the later one.
        self._motions = _Motions(_split(path[: last + 1]))
        self._axes = self._motions.axes[:, None, :, None]
        tcp = _fixed_frame(path[last + 1 :])
        self._tcp_rotation, self._tcp_position = tcp[:3, :3], tcp[:3, 3]
        self._shoulder, self._wrist, self._reach = self._measure_reach()

    def _measure_reach(self) -> tuple[Floats, Floats, float]:
        """A point that never moves (root frame), one that a goal fixes (last joint's frame), their greatest distance.

        A joint on the axis of the first one stays where it is; one on the axis of the last one goes where the goal
        says: these two links are no part of the way that the arm stretches. The lengths in between add up.
        """
        offsets, axes, turns = self._motions.offsets, self._motions.axes, self._motions.rest_rotations
        first, last = 0, len(axes) - 1
        shoulder, wrist = offsets[0], np.zeros(3)
        if np.allclose(np.cross(axes[0], offsets[1]), 0):
            first, shoulder = 1, shoulder + turns[0] @ offsets[1]
        back = turns[-1].T @ offsets[-1]
        if np.allclose(np.cross(axes[-1], back), 0):
            last, wrist = last - 1, -back
        return shoulder, wrist, float(np.linalg.norm(offsets[first + 1 : last + 1], axis=-1).sum())

    def _within_reach(self, rotation: Floats, position: Floats) -> Bools:
        """False where no posture comes within the tolerance of the goal of the last joint's frame, ``[B]``."""
        way = position + rotation @ self._wrist - self._shoulder
        return np.asarray(np.sqrt((way * way).sum(-1)) < self._reach + 2 * TOLERANCE)

    def _frames(self, q: Floats) -> Floats:
        """Frames of the chain's joints in the root frame, ``[n, B, 4, 4]``, for ``q [B, n]``."""
        frames = self._motions(q)
        for i in range(1, len(frames)):
            frames[i] = frames[i - 1] @ frames[i]
        return frames

    def joint_frames(self, q: Floats) -> tuple[Floats, Floats]:
        """Frames of the chain's joints: ``(R [B, n, 3, 3], p [B, n, 3])`` in the root frame, for ``q [B, n]``."""
        frames = self._frames(q).swapaxes(0, 1)
        return frames[..., :3, :3], frames[..., :3, 3]

    def tcp(self, qpos: Floats) -> tuple[Floats, Floats]:
        """TCP ``(R [B, 3, 3], p [B, 3])`` in the root frame, for full ``qpos [B, J]``."""
        frame = self._frames(qpos[:, self.columns])[-1]
        rotation, position = frame[:, :3, :3], frame[:, :3, 3]
        return rotation @ self._tcp_rotation, position + rotation @ self._tcp_position

    def _error_and_jacobian(self, q: Floats, rotation: Floats, position: Floats) -> tuple[Floats, Floats]:
        """SE(3) error of the last joint frame and its local Jacobian ``[B, 6, n]``; the goal is a joint-frame pose."""
        frames = self._frames(q)
        rotations, positions = frames[..., :3, :3], frames[..., :3, 3]
        back = rotation.swapaxes(-1, -2)
        error = transforms.se3_log(back @ rotations[-1], rotate(back, positions[-1] - position))
        # Columns: what the last frame does when a joint turns, in the world and then seen from that frame.
        world = np.empty((2, *positions.shape))
        np.matmul(rotations, self._axes, out=world[1, ..., None])
        world[0] = transforms.cross(world[1], positions[-1] - positions)
        local = world.swapaxes(1, 2) @ rotations[-1]
        return error, local.transpose(1, 0, 3, 2).reshape(len(q), 6, -1)

    @staticmethod
    def _damped_step(jacobian: Floats, error: Floats) -> Floats:
        transpose = np.swapaxes(jacobian, 1, 2)
        gram = jacobian @ transpose + _RIDGE
        return np.asarray((transpose @ np.linalg.solve(gram, error[..., None]))[..., 0])

    def inverse(self, rotation: Floats, position: Floats, qpos: Floats) -> tuple[Floats, Bools]:
        """Joint positions that put the TCP at the goal, as the original solver finds them.

        Args:
            rotation: goal TCP orientation in the root frame, ``[B, 3, 3]``.
            position: goal TCP position, ``[B, 3]``, m.
            qpos: measured joint positions ``[B, J]``; the search starts here.

        Returns:
            ``(q [B, n], success [B])``; where the search fails, ``q`` is the measured position.
        """
        start = qpos[:, self.columns]
        joint_rotation = rotation @ self._tcp_rotation.T
        joint_position = position - joint_rotation @ self._tcp_position
        q, success = start.copy(), np.zeros(len(start), bool)
        # The search always fails beyond reach; leaving it out saves its hundred steps.
        rows = np.flatnonzero(self._within_reach(joint_rotation, joint_position))
        if rows.size:
            q[rows], success[rows] = self._search(joint_rotation[rows], joint_position[rows], start[rows])
        return q, success

    def _search(self, rotation: Floats, position: Floats, start: Floats) -> tuple[Floats, Bools]:
        fast = self._redundant_steps if len(self.joints) > 6 else self._full_steps
        q, success = fast(rotation, position, start)
        slow = np.flatnonzero(~success)
        if slow.size:
            q[slow], success[slow] = self._original_steps(rotation[slow], position[slow], start[slow])
        return q, success

    def _full_steps(
        self, rotation: Floats, position: Floats, start: Floats, guess: Floats | None = None
    ) -> tuple[Floats, Bools]:
        q = start.copy()
        first, jacobian = self._error_and_jacobian(q, rotation, position)
        error = first
        if guess is not None:
            q = guess
            error, jacobian = self._error_and_jacobian(q, rotation, position)
        for _ in range(_FULL_STEPS):
            # A converged environment stands still, so that its result does not depend on its neighbours.
            open_ = np.abs(error).max(-1) > 1e-8
            if not open_.any():
                break
            q = np.where(open_[:, None], q - self._damped_step(jacobian, error), q)
            error, jacobian = self._error_and_jacobian(q, rotation, position)
        converged = np.abs(error).max(-1) < 1e-6
        norm = np.sqrt((first * first).sum(-1))
        steps = np.ceil(np.log(np.maximum(norm, TOLERANCE) / TOLERANCE) / -np.log(1 - STEP))
        residual = (1 - STEP) ** steps[:, None] * first
        q = np.where(norm[:, None] < TOLERANCE, start, q + self._damped_step(jacobian, residual))
        return q, converged & (steps <= MAX_STEPS)

    def _redundant_steps(self, rotation: Floats, position: Floats, start: Floats) -> tuple[Floats, Bools]:
        coarse, fine = (self._equal_steps(rotation, position, start, count) for count in (_COARSE, _FINE))
        weight = (_SQUARES - 1 / _FINE) / (1 / _COARSE - 1 / _FINE)
        q, success = self._full_steps(rotation, position, start, fine + weight * (coarse - fine))
        return q, success & (np.abs(coarse - fine).max(-1) < _MAX_SPREAD)

    def _equal_steps(self, rotation: Floats, position: Floats, start: Floats, count: int) -> Floats:
        q = start
        for left in range(count, 0, -1):
            error, jacobian = self._error_and_jacobian(q, rotation, position)
            q = q - self._damped_step(jacobian, error) / left
        return q

    def _original_steps(self, rotation: Floats, position: Floats, start: Floats) -> tuple[Floats, Bools]:
        q, success = start.copy(), np.zeros(len(start), bool)
        for _ in range(MAX_STEPS):
            error, jacobian = self._error_and_jacobian(q, rotation, position)
            success |= np.sqrt((error * error).sum(-1)) < TOLERANCE
            if success.all():
                break
            q = np.where(success[:, None], q, q - STEP * self._damped_step(jacobian, error))
        return np.where(success[:, None], q, start), success
