"""Conventions as data: the meaning of the numbers of an agent, environment, data set or server.

:class:`RobotConvention` tells people about the two robots of this gym; a :class:`Convention` is what programs compare
and convert (:mod:`vlaser_gym.conventions.conversion`). Those of published policies and data sets are in
:mod:`vlaser_gym.conventions.presets`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.errors import InvalidConfigError, UnknownNameError

Floats = NDArray[np.float64]

Space = Literal["pose", "joint_positions", "joint_velocities"]
Frame = Literal["base", "world", "tool"]
Motion = Literal["delta", "chained", "absolute"]
GripperMode = Literal["absolute", "relative"]

#: How many numbers a rotation takes. Euler angles are ``euler:`` and the axes in order, in lower case for fixed axes
#: (``euler:xyz`` is roll, pitch, yaw) and in upper case for turning ones. Of ``rot6d`` the matrix's first column comes
#: before its second, of ``rot6d_rows`` the two entries of each row stand together.
ROTATIONS = {"axis_angle": 3, "quaternion_wxyz": 4, "quaternion_xyzw": 4, "rot6d": 6, "rot6d_rows": 6}
#: What the numbers of a rotation are called in a state.
ROTATION_NAMES: Mapping[str, tuple[str, ...]] = {
    "axis_angle": ("rx", "ry", "rz"),
    "quaternion_wxyz": ("qw", "qx", "qy", "qz"),
    "quaternion_xyzw": ("qx", "qy", "qz", "qw"),
    "rot6d": tuple(f"r{i}" for i in range(6)),
    "rot6d_rows": tuple(f"r{i}" for i in range(6)),
}
POSITION = ("x", "y", "z")
#: What is said of a rotation that is turned by nothing.
NO_TURN = (1.0, 0.0, 0.0, 0.0)
#: Numbers of an action, or actions of a chunk, at most.
_MOST = 10_000
#: Names of state entries that are always 0.
PAD = "pad"


def rotation_size(kind: str) -> int:
    """The number of values of a rotation of this kind.

    Raises:
        UnknownNameError: for a kind that is none.
    """
    if kind.startswith("euler:"):
        axes = kind.removeprefix("euler:")
        alike = axes.isupper() or axes.islower()
        if len(axes) == 3 and alike and set(axes.lower()) <= set("xyz") and all(a != b for a, b in pairwise(axes)):
            return 3
    if kind not in ROTATIONS:
        raise UnknownNameError("rotation", kind, (*ROTATIONS, "euler:xyz"))
    return ROTATIONS[kind]


def rotation_names(kind: str) -> tuple[str, ...]:
    """The names of a rotation's values in a state."""
    if kind.startswith("euler:"):
        return tuple({"x": "roll", "y": "pitch", "z": "yaw"}[axis] for axis in kind.removeprefix("euler:").lower())
    return ROTATION_NAMES[kind]


def _check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UnknownNameError(f"{key} of a convention", value, choices)


@dataclass(frozen=True)
class Gripper:
    """The meaning of a gripper value.

    Attributes:
        open, closed: the numbers of a gripper fully open and fully closed; of a relative one, those that take it all
            the way, with 0 for staying.
        mode: ``absolute`` for a place, ``relative`` for a change of it.
        unit: ``1``, or ``m`` for a width.

    Example:
        >>> Gripper(open=0.08, closed=0.0, unit="m").openness(np.array([0.0, 0.02])).tolist()
        [0.0, 0.25]
    """

    open: float
    closed: float
    mode: GripperMode = "absolute"
    unit: Literal["1", "m"] = "1"

    def __post_init__(self) -> None:
        _check_choice("gripper.mode", self.mode, get_args(GripperMode))
        if not np.isfinite([self.open, self.closed]).all() or self.open == self.closed:
            raise InvalidConfigError(
                f"A gripper needs different numbers for open and closed; got {self.open}, {self.closed}."
            )
        if self.mode == "relative" and self.open != -self.closed:
            raise InvalidConfigError(
                "A relative gripper stays at 0, so that open and closed are opposite numbers; got "
                f"{self.open} and {self.closed}."
            )

    def openness(self, values: Floats) -> Floats:
        """Numbers as openness, 0 closed to 1 open; of a relative gripper as the change of it."""
        if self.mode == "relative":
            return np.asarray(values / self.open, np.float64)
        return np.asarray((values - self.closed) / (self.open - self.closed), np.float64)

    def numbers(self, openness: Floats) -> Floats:
        """The inverse of :meth:`openness`."""
        if self.mode == "relative":
            return np.asarray(openness * self.open, np.float64)
        return np.asarray(self.closed + openness * (self.open - self.closed), np.float64)

    @property
    def words(self) -> str:
        """The convention in words, such as ``-1 closes, +1 opens (relative)``."""
        unit = " m" if self.unit == "m" else ""
        if self.mode == "relative":
            return f"{self.closed:+g} closes, {self.open:+g} opens, 0 stays (relative)"
        return f"{self.closed:g}{unit} closed to {self.open:g}{unit} open"


@dataclass(frozen=True)
class View:
    """An image that is read.

    Attributes:
        name: of the observation, ``image`` for the main camera or ``wrist_image``.
        height, width: pixels; 0 where any size will do.
    """

    name: str
    height: int = 0
    width: int = 0


@dataclass(frozen=True)
class State:
    """The meaning of a state's values, by name.

    Attributes:
        names: one per number: ``x y z`` (m), the names of the rotation's numbers, ``gripper`` (twice for the two
            fingers' own places, of which the second is the opposite of the first), ``pad`` (always 0); any other name
            is of something that this gym does not have, such as a joint.
        rotation: its kind.
        gripper: what its number means; of two numbers, each.
        frame: in which the pose is.
    """

    names: tuple[str, ...] = ()
    rotation: str = "quaternion_wxyz"
    gripper: Gripper = Gripper(1.0, 0.0)
    frame: Frame = "base"

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of numbers that this gym cannot give."""
        known = {*POSITION, *rotation_names(self.rotation), "gripper", PAD}
        return tuple(name for name in self.names if name not in known)

    def columns(self, *names: str) -> list[int]:
        """The columns of these values; both of a name that occurs twice."""
        return [index for name in names for index, other in enumerate(self.names) if other == name]


@dataclass(frozen=True, kw_only=True)
class Convention:
    """The meaning of actions, states and images.

    An action is translation, rotation and gripper, or the joints and the gripper, in this order, and zeros up to
    ``width``.

    Attributes:
        name: whose.
        space: what actions are about: the tool's pose, or joints.
        rotation: kind of an action's rotation, see :data:`ROTATIONS`.
        frame: in which the motion is given: the robot's base, the world, or the tool itself.
        motion: ``delta`` (from the measured pose), ``chained`` (from where the controller aims already) or
            ``absolute``.
        low, high: what -1 and +1 stand for (m, rad), one for each number of translation and rotation; empty where
            numbers are metres and radians.
        gripper: its number in actions.
        width: numbers of an action with what fills it up.
        tool: attitude of the tool whose poses these are, seen from the robot's TCP: a quaternion w, x, y, z. Deltas in
            the base frame do not depend on it.
        joints: names of the joints that actions or states are about.
        joint_unit: of their numbers.
        state: layout of the state; without names none is read.
        views: images that are read.
        control_hz: actions per second.
        chunk: actions per decision; 0 where that is left open.
        notes: what else is to be known, and what could not be confirmed.

    Raises:
        UnknownNameError: for a word that is none of those above.
        InvalidConfigError: for attributes that contradict each other.
    """

    name: str
    space: Space = "pose"
    rotation: str = "axis_angle"
    frame: Frame = "base"
    motion: Motion = "delta"
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    gripper: Gripper = Gripper(1.0, -1.0)
    width: int = 0
    tool: tuple[float, ...] = NO_TURN
    joints: tuple[str, ...] = ()
    joint_unit: str = ""
    state: State = field(default_factory=State)
    views: tuple[View, ...] = ()
    control_hz: float | None = None
    chunk: int = 0
    notes: str = ""

    def __post_init__(self) -> None:
        self._check_kinds()
        for key, kind in (("space", Space), ("frame", Frame), ("motion", Motion)):
            _check_choice(key, getattr(self, key), get_args(kind))
        for rotation in (self.rotation, self.state.rotation):
            rotation_size(rotation)
        bounds = (len(self.low), len(self.high))
        if bounds != (0, 0) and (bounds != (self.arm, self.arm) or not np.less(self.low, self.high).all()):
            raise InvalidConfigError(
                f"The convention {self.name} needs {self.arm} rising pairs in low and high, or none; got {self.low} "
                f"and {self.high}."
            )
        if self.motion == "absolute" and self.frame == "tool":
            raise InvalidConfigError(f"The convention {self.name} gives absolute poses: their frame is base or world.")
        if self.control_hz is not None and not self.control_hz > 0:
            raise InvalidConfigError(f"The convention {self.name} needs control_hz above 0; got {self.control_hz}.")

    def _check_kinds(self) -> None:
        """Raise :class:`InvalidConfigError` for values of another type: a convention may be a stranger's message."""
        numbers = (*self.low, *self.high, *self.tool)
        words = (self.name, self.rotation, self.joint_unit, self.notes, *self.joints, *self.state.names)
        right = (
            all(isinstance(word, str) for word in words)
            and all(isinstance(number, int | float) and np.isfinite(number) for number in numbers)
            and all(isinstance(count, int) and 0 <= count <= _MOST for count in (self.width, self.chunk))
            and len(self.tool) == len(NO_TURN)
            and any(self.tool)
        )
        if not right or not isinstance(self.gripper, Gripper):
            raise InvalidConfigError(
                f"The convention {self.name!r:.99} has an attribute of the wrong kind; see docs/conventions.md."
            )

    @property
    def arm(self) -> int:
        """Numbers of an action before the gripper's."""
        return 3 + rotation_size(self.rotation) if self.space == "pose" else len(self.joints)

    @property
    def size(self) -> int:
        """Number of dimensions of an action."""
        return max(self.width, self.arm + 1)

    def described(self) -> dict[str, Any]:
        """The convention as plain dictionaries, lists, text and numbers; :meth:`parse` reads it."""
        told = _plain(asdict(self))
        assert isinstance(told, dict)
        return told

    def lines(self) -> list[str]:
        """The convention in words, a line for each property."""
        unit = "m and rad" if not self.low else f"-1 to 1, which stand for {_range(self.low)} to {_range(self.high)}"
        if self.space == "pose":
            actions = f"{self.motion} in the {self.frame} frame, {self.rotation}, {unit}"
        else:
            actions = (
                f"{self.space.replace('_', ' ')} of {', '.join(self.joints)} ({self.joint_unit or 'unknown unit'})"
            )
        views = ", ".join(f"{v.name} {v.height}x{v.width}" if v.height else v.name for v in self.views)
        state = " ".join(self.state.names)
        rate = "any rate" if self.control_hz is None else f"{self.control_hz:g} per second"
        return [
            f"actions: {self.size} numbers, {actions}; {rate}, {self.chunk or 'any number'} per decision",
            f"gripper: {self.gripper.words}",
            f"state: {state or 'none'}" + (f" ({self.state.frame} frame)" if state else ""),
            f"images: {views or 'none'}",
        ]

    @classmethod
    def parse(cls, given: Any) -> Convention:
        """A convention, a preset by its name, or a mapping: all attributes, or ``preset`` and those that differ.

        Raises:
            UnknownNameError: for a preset or an attribute that does not exist.
            InvalidConfigError: for something else.

        Example:
            >>> Convention.parse({"preset": "openpi_libero", "control_hz": 5}).control_hz
            5
        """
        from vlaser_gym.conventions.presets import get_preset  # noqa: PLC0415  (presets are conventions)

        if isinstance(given, cls):
            return given
        if isinstance(given, str):
            return get_preset(given)
        if not isinstance(given, Mapping):
            raise InvalidConfigError(
                f"A convention is the name of a preset, or a mapping of its attributes; got {given!r:.99}."
            )
        values = {str(key): value for key, value in given.items() if key != "preset"}
        known = [entry.name for entry in fields(cls)]
        for key in values:
            if key not in known:
                raise UnknownNameError("attribute of a convention", key, [*known, "preset"])
        try:
            typed = {key: _typed(key, value) for key, value in values.items()}
            base = get_preset(str(given["preset"])) if "preset" in given else None
            return cls(**{"name": "unnamed", **typed}) if base is None else replace(base, **typed)
        except (TypeError, ValueError, AttributeError) as error:
            raise InvalidConfigError(
                f"A convention cannot be read from {given!r:.200} ({error}); see docs/conventions.md."
            ) from error


def _typed(key: str, value: Any) -> Any:
    """A value as it comes from a file or a message, as the attribute's type."""
    if key == "gripper" and isinstance(value, Mapping):
        return Gripper(**value)
    if key == "state" and isinstance(value, Mapping):
        parts = {name: _typed(name, part) for name, part in value.items()}
        return State(**parts)
    if key == "views":
        return tuple(view if isinstance(view, View) else View(**view) for view in value)
    return tuple(value) if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _range(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"
