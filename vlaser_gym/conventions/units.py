"""Actions that cannot be what the robot takes them for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.conventions.robots import RobotConvention

#: rad. No turn needs more: a longer axis-angle vector is a shorter turn the other way round.
LARGEST_TURN = np.pi


def doubted_units(convention: RobotConvention, actions: NDArray[np.float64]) -> str:
    """The reason why actions cannot be metres and radians per control step, in words; empty if they can be.

    They cannot if steps are longer than the arm, or turns above 180 degrees. Policies that work, and scripts that aim
    at their goal in one step, stay below both; a single such step may be a stray one (an angle that wraps around, as
    there are in Bridge's recordings) and is let pass.

    Args:
        convention: of the robot.
        actions: ``[..., 7]``, of an episode; the largest step is named.

    Example:
        >>> from vlaser_gym.conventions import get_convention
        >>> doubted_units(get_convention("widowx"), np.full((60, 7), 0.03))
        ''
        >>> doubted_units(get_convention("widowx"), np.ones((60, 7))).split(": ")
        ['the largest step is 1.73 m and 1.73 rad (widowx reaches 0.66 m, no turn exceeds 3.14 rad)',
         'normalised numbers or millimetres?']
    """
    lengths, angles = (
        np.linalg.norm(actions[..., convention.columns(name)], axis=-1) for name in ("translation", "rotation")
    )
    too_far, too_much = lengths > convention.reach, angles > LARGEST_TURN
    if (too_far | too_much).sum() < 2:
        return ""
    limits = f"{convention.robot} reaches {convention.reach:g} m, no turn exceeds {LARGEST_TURN:.2f} rad"
    guess = "degrees"
    if too_far.any():
        # Normalised to +-1, no turn is longer than 1.73, the root of 3.
        guess = "normalised numbers" + (", millimetres or degrees" if too_much.any() else " or millimetres")
    return f"the largest step is {lengths.max():.2f} m and {angles.max():.2f} rad ({limits}): {guess}?"
