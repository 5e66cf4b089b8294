"""Actions that cannot be what the robot takes them for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.conventions.robots import RobotConvention

#: rad. No turn needs more: a longer axis-angle vector is a shorter turn the other way round.
LARGEST_TURN = np.pi


def doubted_units(convention: RobotConvention, actions: NDArray[np.float64]) -> str:
    """Why actions cannot be metres and radians per control step, in words; empty if they can be.

    They cannot if one step is longer than the arm, or one turn above 180 degrees. Policies that work, and scripts that
    aim at their goal in one step, stay below both.

    Args:
        convention: of the robot.
        actions: ``[..., 7]``, of an episode or more; the largest step counts.

    Example:
        >>> from vlaser_gym.conventions import get_convention
        >>> doubted_units(get_convention("widowx"), np.full((60, 7), 0.03))
        ''
        >>> doubted_units(get_convention("widowx"), np.ones((60, 7)))
        'the largest step is 1.73 m and 1.73 rad (widowx reaches 0.66 m, no turn exceeds 3.14 rad): normalised numbers?'
    """
    length, angle = (_largest(actions[..., convention.columns(name)]) for name in ("translation", "rotation"))
    if length <= convention.reach and angle <= LARGEST_TURN:
        return ""
    limits = f"{convention.robot} reaches {convention.reach:g} m, no turn exceeds {LARGEST_TURN:.2f} rad"
    guess = _guess(length > convention.reach, angle > LARGEST_TURN)
    return f"the largest step is {length:.2f} m and {angle:.2f} rad ({limits}): {guess}?"


def _largest(vectors: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(vectors, axis=-1).max(initial=0.0))


def _guess(too_far: bool, too_much: bool) -> str:
    """What the numbers may be. Normalised to +-1, no turn is longer than 1.73, the root of 3."""
    if not too_much:
        return "normalised numbers"
    return "normalised numbers, millimetres or degrees" if too_far else "degrees"
