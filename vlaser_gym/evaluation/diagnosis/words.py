"""Numbers in words."""

from __future__ import annotations

#: The smaller part of a direction is told where it is at least this share of the larger.
_SIDE_SHARE = 0.5
#: What is so far beside something (m) need not be told to be above it, too.
_ASIDE = 0.01


def millimetres(length: float) -> str:
    """A length in metres, to the millimetre.

    Example:
        >>> millimetres(0.0314)
        '31 mm'
    """
    return f"{abs(1000 * length):.0f} mm"


def beside(offset: tuple[float, float, float], what: str) -> str:
    """The direction of an offset, in words, as seen from the robot.

    Args:
        offset: from ``what`` (m): x away from the robot, y to its left, z up.
        what: with its article.

    Returns:
        The larger parts of the way. A height is told only of what is straight above, or below.

    Example:
        >>> beside((0.002, 0.031, 0.0), "the carrot"), beside((-0.02, -0.03, 0.01), "the can")
        ('31 mm left of the carrot', '30 mm right and 20 mm short of the can')
    """
    if offset[2] > 0 and max(abs(offset[0]), abs(offset[1])) > _ASIDE:
        offset = (offset[0], offset[1], 0.0)
    words = (("beyond", "short of"), ("left of", "right of"), ("above", "below"))
    parts = sorted(((abs(value), pair[value < 0]) for value, pair in zip(offset, words, strict=True)), reverse=True)
    told = [part for part in parts if part[0] >= _SIDE_SHARE * parts[0][0]][:2]
    if len(told) == 1:
        return f"{millimetres(told[0][0])} {told[0][1]} {what}"
    (one, first), (other, second) = told
    return f"{millimetres(one)} {first.removesuffix(' of')} and {millimetres(other)} {second} {what}"
