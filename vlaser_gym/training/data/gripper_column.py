"""The meaning of the gripper column of a data set: declared, never guessed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlaser_gym.agents.vlaser.gripper import make_gripper
from vlaser_gym.errors import InvalidConfigError, UnknownNameError

Floats = NDArray[np.float64]
MEANINGS = ("command", "open", "closed", "width:METRES")
#: Measured openings may pass their bounds by this share of the range, and are clipped to them then.
MARGIN = 0.05


@dataclass(frozen=True)
class GripperColumn:
    """The meaning of a gripper column.

    Attributes:
        meaning: ``"command"`` (this gym's commands, -1 to 1, with the robot's sign), ``"open"`` (0 closed to 1 open),
            ``"closed"`` (0 open to 1 closed), ``"width"`` (metres between the fingers), or ``None``: nobody said.
        widest: of a width (m), fully open.
    """

    meaning: str | None = None
    widest: float = 1.0

    @classmethod
    def parse(cls, text: str | None) -> GripperColumn:
        """Parse ``null``, ``command``, ``open``, ``closed`` or ``width:0.08``.

        Raises:
            UnknownNameError: for another word.
            InvalidConfigError: for a width that is no length above 0.
        """
        meaning, _, number = (text or "").partition(":")
        if text is None or text in MEANINGS[:3]:
            return cls(text)
        if meaning != "width":
            raise UnknownNameError("gripper", text, MEANINGS)
        try:
            widest = float(number)
        except ValueError:
            widest = math.nan
        if not 0 < widest < math.inf:
            raise InvalidConfigError(
                f"gripper=width:METRES needs the widest opening above 0, such as gripper=width:0.08; got {text}."
            )
        return cls("width", widest)

    def wrong(self, values: ArrayLike, robot: str, of_this_gym: bool) -> NDArray[np.bool_]:
        """The values that contradict the column's meaning, as a mask.

        Args:
            values: the whole column, of any shape.
            robot: ``"widowx"`` or ``"google_robot"``.
            of_this_gym: it was recorded by this gym: then they are commands, also where nobody said so.
        """
        array = np.asarray(values, np.float64)
        if self.meaning is not None:
            low, high = (
                (-1.0, 1.0) if self.meaning == "command" else (-MARGIN * self.widest, (1 + MARGIN) * self.widest)
            )
            return np.asarray((array < low) | (array > high))
        if of_this_gym:
            return np.abs(array) > 1
        if robot == "google_robot" and not (array < 0).any():
            # As relative commands they would never open; 0 and 1 are more likely states, and of which sign is unknown.
            return np.ones_like(array, bool)
        return ~np.isin(array, (-1.0, 0.0, 1.0))

    def expected(self, robot: str, of_this_gym: bool) -> str:
        """The expected values of the column, in words."""
        if self.meaning is None and not of_this_gym:
            relative = ", some of them below 0, as -1 opens this robot's" if robot == "google_robot" else ""
            return f"-1, 0 or 1 while nobody says what it means{relative}"
        words = {
            "open": "0 (closed) to 1 (open)",
            "closed": "0 (open) to 1 (closed)",
            "width": f"0 to {self.widest:g} m between the fingers",
        }
        return words.get(self.meaning or "", "commands from -1 to 1")

    def openness(self, values: Floats, robot: str) -> Floats:
        """Labels for a policy, 0 closed to 1 open, of the same shape."""
        if self.meaning in (None, "command"):
            return make_gripper(robot).openness(values)
        share = np.clip(values / self.widest, 0.0, 1.0)
        return np.asarray(1 - share if self.meaning == "closed" else share)
