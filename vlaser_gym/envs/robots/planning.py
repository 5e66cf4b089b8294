"""Time-optimal joint motion with limited velocity, acceleration and jerk, for many environments.

Ruckig finds the motion of one environment (all joints arrive together); the samples of all environments are then
computed at once from the seven cubic pieces of each joint, which costs a small part of asking Ruckig for every sample.
"""

from __future__ import annotations

import numpy as np
import ruckig

from vlaser_gym.envs.robots.base import Floats
from vlaser_gym.errors import SimulationError

#: Ways (rad) and speeds (rad/s) that may be left out where no motion is found with them.
_NOTHING = 1e-6


class JointPlanner:
    """Plans from a moving start to a standstill at a goal.

    Args:
        joints: number of joints.
        velocity, acceleration, jerk: limits of every joint (rad/s, rad/s^2, rad/s^3).
        rate: samples per second.
        samples: how many; sample ``k`` (1 to ``samples``) is taken ``k / rate`` after the start.
    """

    def __init__(
        self, joints: int, velocity: float, acceleration: float, jerk: float, rate: float, samples: int
    ) -> None:
        self.velocity = velocity
        self._joints = joints
        self._times = np.arange(1, samples + 1) / rate
        self._solver = ruckig.Ruckig(joints)
        self._input = ruckig.InputParameter(joints)
        self._input.max_velocity = [velocity] * joints
        self._input.max_acceleration = [acceleration] * joints
        self._input.max_jerk = [jerk] * joints

    def plan(self, position: Floats, velocity: Floats, goal: Floats) -> tuple[Floats, Floats]:
        """Positions and velocities ``[B, samples, J]`` on the way from ``position`` to ``goal``, each ``[B, J]``.

        Velocities are clipped to the limit first, accelerations start at zero. After its arrival a joint stands at
        its goal.

        Raises:
            SimulationError: if there is no such motion (numbers that are not finite).
        """
        velocity = np.clip(velocity, -self.velocity, self.velocity)
        pieces = [self._pieces(*rows) for rows in zip(position, velocity, goal, strict=True)]
        if not pieces:
            nothing = np.zeros((0, len(self._times), self._joints))
            return nothing, nothing.copy()
        return self._sample(np.array(pieces))

    def _pieces(self, position: Floats, velocity: Floats, goal: Floats) -> list[list[list[float]]]:
        """Start time, position, velocity, acceleration and jerk of eight pieces, ``[J, 5, 8]``; the last stands."""
        try:
            trajectory = self._solved(position, velocity, goal)
        except ruckig.RuckigError:
            # Ruckig stumbles over ways and speeds that are mere rounding errors: without those it finds the rest.
            position = np.where(np.abs(goal - position) < _NOTHING, goal, position)
            velocity = np.where(np.abs(velocity) < _NOTHING, 0.0, velocity)
            try:
                trajectory = self._solved(position, velocity, goal)
            except ruckig.RuckigError as error:
                raise SimulationError(
                    f"No joint motion leads from {position.tolist()} to {goal.tolist()}: {error}"
                ) from error
        pieces = []
        for profile, end in zip(trajectory.profiles[0], goal.tolist(), strict=True):
            starts, total = [0.0], 0.0
            for duration in profile.t:
                total += duration
                starts.append(total)
            pieces.append(
                [starts, [*profile.p[:7], end], [*profile.v[:7], 0.0], [*profile.a[:7], 0.0], [*profile.j, 0.0]]
            )
        return pieces

    def _solved(self, position: Floats, velocity: Floats, goal: Floats) -> ruckig.Trajectory:
        trajectory = ruckig.Trajectory(self._joints)
        self._input.current_position = position.tolist()
        self._input.current_velocity = velocity.tolist()
        self._input.target_position = goal.tolist()
        self._solver.calculate(self._input, trajectory)
        return trajectory

    def _sample(self, pieces: Floats) -> tuple[Floats, Floats]:
        """``pieces [B, J, 5, 8]`` at all sample times."""
        index = (pieces[:, :, 0, None, 1:] <= self._times[:, None]).sum(-1)
        start, p, v, a, j = (np.take_along_axis(pieces[:, :, i], index, axis=2) for i in range(5))
        t = self._times - start
        position = p + t * (v + t * (a / 2 + t * j / 6))
        speed = v + t * (a + t * j / 2)
        return np.swapaxes(position, 1, 2), np.swapaxes(speed, 1, 2)
