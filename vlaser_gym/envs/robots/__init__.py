"""Robots: what they are, how they are driven, where their cameras look. No engine is imported here."""

from vlaser_gym.envs.robots import google_robot
from vlaser_gym.envs.robots.base import POLICY_CAMERA, Camera, Controller, DriveTargets, Robot, RobotSetup, is_image
from vlaser_gym.envs.robots.numbers import ManiskillNumbers, MujocoNumbers, SimplerNumbers
from vlaser_gym.envs.robots.widowx import SINK_SETUP, TABLE_SETUP
from vlaser_gym.errors import InvalidConfigError, UnknownNameError

_SETUPS: dict[str, RobotSetup] = {setup.name: setup for setup in (TABLE_SETUP, SINK_SETUP, *google_robot.SETUPS)}
_ADDED: dict[str, RobotSetup] = {}

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
    "added_setups",
    "get_setup",
    "is_image",
    "register_setup",
]


def get_setup(name: str) -> RobotSetup:
    """The robot setup of that name.

    Raises:
        UnknownNameError: if there is none.
    """
    known = {**_SETUPS, **_ADDED}
    if name not in known:
        raise UnknownNameError("robot setup", name, known)
    return known[name]


def register_setup(setup: RobotSetup) -> None:
    """Make a robot, as a family of tasks uses it, known by its name; of one name, the setup registered last counts.

    Raises:
        InvalidConfigError: for something else, or the name of one of the gym's own.
    """
    if not isinstance(setup, RobotSetup):
        raise InvalidConfigError(f"Expected a RobotSetup to register; got {type(setup).__name__}.")
    if setup.name in _SETUPS:
        raise InvalidConfigError(f"The robot setup {setup.name!r} is the gym's own: give yours another name.")
    _ADDED[setup.name] = setup


def added_setups() -> tuple[RobotSetup, ...]:
    """Setups that :func:`register_setup` was given."""
    return tuple(_ADDED.values())
