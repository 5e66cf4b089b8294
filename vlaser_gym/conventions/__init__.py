"""The meaning of numbers: units, frames and signs of each robot's actions and proprioception; other conventions, and
conversions between them. Imports no other room.
"""

from vlaser_gym.conventions.convention import Convention, Gripper, State, View
from vlaser_gym.conventions.conversion import Conversion, Start
from vlaser_gym.conventions.presets import PRESETS, get_preset, of_robot
from vlaser_gym.conventions.robots import CONVENTIONS, Quantity, RobotConvention, get_convention

__all__ = [
    "CONVENTIONS",
    "PRESETS",
    "Convention",
    "Conversion",
    "Gripper",
    "Quantity",
    "RobotConvention",
    "Start",
    "State",
    "View",
    "get_convention",
    "get_preset",
    "of_robot",
]
