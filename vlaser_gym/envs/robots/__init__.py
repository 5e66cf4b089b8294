"""Robots: what they are, how they are driven, where their cameras look. No engine is imported here."""

from vlaser_gym.envs.robots import google_robot
from vlaser_gym.envs.robots.base import POLICY_CAMERA, Camera, Controller, DriveTargets, Robot, RobotSetup, is_image
from vlaser_gym.envs.robots.numbers import ManiskillNumbers, MujocoNumbers, SimplerNumbers
from vlaser_gym.envs.robots.widowx import SINK_SETUP, TABLE_SETUP
from vlaser_gym.errors import InvalidConfigError, UnknownNameError

_SETUPS: dict[str, RobotSetup] = {setup.name: setup for setup in (TABLE_SETUP, SINK_SETUP, *google_robot.SETUPS)}

__all__ = [
    "POLICY_CAMERA",
    "Camera",
    "Controller",
    "DriveTargets",
    "ManiskillNumbers",
    "MujocoNumbers",
    "Robot",
    "RobotSetup",
    "SimplerNumbers",
    "get_setup",
    "is_image",
    "register_setup",
]


def get_setup(name: str) -> RobotSetup:
    """The robot setup of that name.

    Raises:
        UnknownNameError: if there is none.
    """
    if name not in _SETUPS:
        raise UnknownNameError("robot setup", name, _SETUPS)
    return _SETUPS[name]


def register_setup(setup: RobotSetup) -> None:
    """Make a robot, as a family of tasks uses it, known by its name. The same again changes nothing.

    Raises:
        InvalidConfigError: if another setup has that name.
    """
    if _SETUPS.setdefault(setup.name, setup) != setup:
        raise InvalidConfigError(
            f"There is another robot setup named {setup.name!r}: give the one to be registered another name."
        )
