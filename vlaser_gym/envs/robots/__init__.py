"""Robots: what they are, how they are driven, where their cameras look. No engine is imported here."""

from vlaser_gym.envs.robots import google_robot
from vlaser_gym.envs.robots.base import Camera, Controller, DriveTargets, Robot, RobotSetup
from vlaser_gym.envs.robots.widowx import SINK_SETUP, TABLE_SETUP
from vlaser_gym.errors import UnknownNameError

_SETUPS = {setup.name: setup for setup in (TABLE_SETUP, SINK_SETUP, *google_robot.SETUPS)}

__all__ = ["Camera", "Controller", "DriveTargets", "Robot", "RobotSetup", "get_setup"]


def get_setup(name: str) -> RobotSetup:
    """The robot setup of that name.

    Raises:
        UnknownNameError: if there is none.
    """
    if name not in _SETUPS:
        raise UnknownNameError("robot setup", name, _SETUPS)
    return _SETUPS[name]
