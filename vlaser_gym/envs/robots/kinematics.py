"""Forward and inverse kinematics of a robot tree, batched over lanes.

The inverse reproduces the solver of the original simulator (Pinocchio's closed-loop IK as SAPIEN calls it): damped
least squares on the SE(3) logarithm of the error in the frame of the joint that carries the TCP, steps of one tenth, at
most 100 of them, tolerance 1e-4. Where full steps converge, they are taken instead (3 instead of about 70), and the
residual that the original leaves is put back; where they do not, the original's own iteration is run.

An arm with more joints than a pose has coordinates reaches a goal in many postures, and which one the iteration ends in
depends on the size of its steps. There the way is walked twice, in 3 and in 6 equal parts, and the posture is
extrapolated to the original's step pattern.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.envs import transforms
from vlaser_gym.envs.robots.base import Floats, Joint, Robot

Bools = NDArray[np.bool_]

#: Constants of the original solver (spec: SAPIEN 2.2.2 PinocchioModel.compute_inverse_kinematics).
TOLERANCE, STEP, DAMPING, MAX_STEPS = 1e-4, 0.1, 1e-6, 100
_FULL_STEPS = 8
#: The posture error of Euler steps grows with the sum of the squares of their shares of the way. Equal steps have one
#: over their number; the original's tenth of what remains has this.
_SQUARES = STEP / (2 - STEP)
_COARSE, _FINE = 3, 6
#: Where the two walks end farther apart than this (rad), the extrapolation is not trusted.
_MAX_SPREAD = 0.005


class KinematicTree:
    """Forward kinematics of every link of a robot."""

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self.link_names = tuple(link.name for link in robot.links)
        self._index = {joint.name: i for i, joint in enumerate(robot.moving_joints)}
        self._by_child = {joint.child: joint for joint in robot.joints}

    def path(self, link: str) -> list[Joint]:
        """Joints from the root to ``link``."""
        joints: list[Joint] = []
        while link in self._by_child:
            joints.insert(0, self._by_child[link])
            link = joints[0].parent
        return joints

    def link_poses(self, qpos: Floats, links: Sequence[str]) -> dict[str, tuple[Floats, Floats]]:
        """``link -> (R [B, 3, 3], p [B, 3])`` in the root frame, for ``qpos [B, J]``."""
        done: dict[str, tuple[Floats, Floats]] = {}
        for link in links:
            self._pose(link, qpos, done)
        return {link: done[link] for link in links}

    def _pose(self, link: str, qpos: Floats, done: dict[str, tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
        if link not in done:
            joint = self._by_child.get(link)
            if joint is None:
                eye = np.broadcast_to(np.eye(3), (len(qpos), 3, 3))
                done[link] = eye, np.zeros((len(qpos), 3))
            else:
                rotation, position = self._pose(joint.parent, qpos, done)
                done[link] = self._advance(joint, rotation, position, qpos)
        return done[link]

    def _advance(self, joint: Joint, rotation: Floats, position: Floats, qpos: Floats) -> tuple[Floats, Floats]:
        position = position + apply_constant(rotation, joint.xyz)
        if any(joint.rpy):
            rotation = rotation @ transforms.rpy_to_matrix(*joint.rpy)
        if joint.kind == "fixed":
            return rotation, position
        q = qpos[:, self._index[joint.name], None]
        motion = q * np.asarray(joint.axis)
        if joint.kind == "prismatic":
            return rotation, position + transforms.apply(rotation, motion)
        return rotation @ transforms.rotvec_to_matrix(motion), position


def apply_constant(rotation: Floats, vector: Sequence[float]) -> Floats:
    """``rotation [B, 3, 3] @ vector [3]``; skips the work for the zero vector."""
    if not any(vector):
        return np.zeros((len(rotation), 3))
    return np.asarray(rotation @ np.asarray(vector, np.float64))


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
        self._axes = np.array([joint.axis for joint in self.joints])
        k = transforms.cross_matrix(self._axes)
        self._k, self._kk = k, k @ k
        # Fixed joints between two moving ones are folded into the offset of the later one.
        self._offsets = self._fold(path[: last + 1])
        rotation, position = self._rigid(path[last + 1 :])
        self._tcp_rotation, self._tcp_position = rotation, position

    def _fold(self, path: list[Joint]) -> list[tuple[Floats, Floats]]:
        offsets, pending = [], []
        for joint in path:
            pending.append(joint)
            if joint.kind == "revolute":
                offsets.append(self._rigid(pending))
                pending = []
        return offsets

    @staticmethod
    def _rigid(path: list[Joint]) -> tuple[Floats, Floats]:
        rotation, position = np.eye(3), np.zeros(3)
        for joint in path:
            position = position + rotation @ np.asarray(joint.xyz)
            rotation = rotation @ transforms.rpy_to_matrix(*joint.rpy)
        return rotation, position

    @cached_property
    def _fixed_rotations(self) -> list[bool]:
        return [bool(np.array_equal(rotation, np.eye(3))) for rotation, _ in self._offsets]

    def joint_frames(self, q: Floats) -> tuple[Floats, Floats]:
        """Frames of the chain's joints: ``(R [B, n, 3, 3], p [B, n, 3])`` in the root frame, for ``q [B, n]``."""
        sin, cos = np.sin(q)[..., None, None], np.cos(q)[..., None, None]
        turns = np.eye(3) + sin * self._k + (1 - cos) * self._kk
        rotations, positions = np.empty((*q.shape, 3, 3)), np.empty((*q.shape, 3))
        rotation = np.broadcast_to(np.eye(3), (len(q), 3, 3))
        position = np.zeros((len(q), 3))
        for i, (offset_rotation, offset) in enumerate(self._offsets):
            position = position + rotation @ offset
            if not self._fixed_rotations[i]:
                rotation = rotation @ offset_rotation
            rotation = rotation @ turns[:, i]
            rotations[:, i], positions[:, i] = rotation, position
        return rotations, positions

    def tcp(self, qpos: Floats) -> tuple[Floats, Floats]:
        """TCP ``(R [B, 3, 3], p [B, 3])`` in the root frame, for full ``qpos [B, J]``."""
        rotations, positions = self.joint_frames(qpos[:, self.columns])
        rotation, position = rotations[:, -1], positions[:, -1]
        return rotation @ self._tcp_rotation, position + rotation @ self._tcp_position

    def _error_and_jacobian(self, q: Floats, rotation: Floats, position: Floats) -> tuple[Floats, Floats]:
        """SE(3) error of the last joint frame and its local Jacobian ``[B, 6, n]``; the goal is a joint-frame pose."""
        rotations, positions = self.joint_frames(q)
        back = np.swapaxes(rotation, -1, -2)
        error = transforms.se3_log(back @ rotations[:, -1], transforms.apply(back, positions[:, -1] - position))
        axes = (rotations @ self._axes[..., None])[..., 0]
        linear = transforms.cross(axes, positions[:, -1:] - positions)
        to_local = np.swapaxes(rotations[:, -1], -1, -2)
        jacobian = np.concatenate([to_local @ np.swapaxes(linear, 1, 2), to_local @ np.swapaxes(axes, 1, 2)], 1)
        return error, jacobian

    @staticmethod
    def _damped_step(jacobian: Floats, error: Floats) -> Floats:
        transpose = np.swapaxes(jacobian, 1, 2)
        gram = jacobian @ transpose + DAMPING * np.eye(6)
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
        fast = self._redundant_steps if len(self.joints) > 6 else self._full_steps
        q, success = fast(joint_rotation, joint_position, start)
        slow = np.flatnonzero(~success)
        if slow.size:
            q[slow], success[slow] = self._original_steps(joint_rotation[slow], joint_position[slow], start[slow])
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
            # A converged lane stands still, so that its result does not depend on its neighbours.
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
