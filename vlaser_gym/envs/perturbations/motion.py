"""Execution: what stands between decisions and motion, and between motion and what is measured of it."""

from __future__ import annotations

import numpy as np

from vlaser_gym.conventions import rotations
from vlaser_gym.envs.perturbations.base import Floats, Moment, Perturbation

#: Radians of an orientation's noise for a millimetre of a position's.
_RADIANS_PER_MILLIMETRE = 0.008


class ActionNoise(Perturbation):
    """An arm that does not do exactly what it is told."""

    name, family = "action_noise", "execution"
    sentence = "Gaussian noise of {strength} mm (and of 0.008 rad per mm) on every action's motion; not on the gripper"
    strengths = (2.0, 5.0, 10.0)

    def actions(self, chunk: Floats, previous: Floats, moment: Moment) -> Floats:
        """Add the noise, drawn anew for every action."""
        noise = moment.of_step().normal(size=(len(chunk), 6)) * self.strength
        noisy = chunk.copy()
        noisy[:, :3] += noise[:, :3] / 1000
        noisy[:, 3:6] += noise[:, 3:] * _RADIANS_PER_MILLIMETRE
        return noisy


class Delay(Perturbation):
    """Actions that arrive late."""

    name, family = "delay", "execution"
    sentence = "every action executed {strength} control step(s) late"
    strengths = (1.0, 2.0, 3.0)

    def actions(self, chunk: Floats, previous: Floats, moment: Moment) -> Floats:
        """The last actions of before first, the last of now not yet."""
        late = int(self.strength)
        return np.concatenate([previous, chunk])[len(previous) - late : len(previous) - late + len(chunk)]


class ProprioNoise(Perturbation):
    """Encoders that are off."""

    name, family = "proprio_noise", "execution"
    sentence = "Gaussian noise of {strength} mm (0.008 rad and 0.01 of openness per mm) on the proprioception"
    strengths = (2.0, 5.0, 10.0)

    def proprio(self, proprio: Floats, moment: Moment) -> Floats:
        """Displace position, attitude and openness, drawn anew for every decision."""
        noise = moment.of_step().normal(size=7) * self.strength
        turn = rotations.matrix_from_axis_angle(noise[3:6] * _RADIANS_PER_MILLIMETRE)
        quaternion = rotations.quaternion_from_matrix(turn @ rotations.matrix_from_quaternion(proprio[3:7]))
        openness = min(1.0, proprio[7] + 0.01 * noise[6])
        return np.concatenate([proprio[:3] + noise[:3] / 1000, rotations.positive_w(quaternion), [openness]])
