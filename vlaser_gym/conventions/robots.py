"""Units, frames and signs of actions and proprioception, robot by robot: the one place that says them.

Source: SimplerEnv's controllers ``arm_pd_ee_target_delta_pose_align2_gripper_pd_joint_pos`` (WidowX) and
``arm_pd_ee_delta_pose_align_interpolate_by_planner_gripper_pd_joint_target_delta_pos_interpolate_by_planner`` (Google
Robot), ManiSkill2_real2sim at ef7a4d4. Tests measure every sign here on the engine, and compare rates and ranges with
the robots' definitions; ``docs/conventions.md`` shows these tables.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any, Literal

from vlaser_gym.errors import UnknownNameError

#: Both robots' root link; their arms reach along +x.
BASE_FRAME = "robot base: x forward, y left, z up"
CHUNK = "H >= 1 actions per decision, one per control step; all are executed before the agent is asked again"


@dataclass(frozen=True)
class Quantity:
    """Neighbouring entries of a vector that mean one thing.

    Attributes:
        name: of the whole.
        entries: name of each entry, in order.
        unit: ``m``, ``rad``, or ``1`` where there is none.
        frame: in which they are components; empty where there is none.
        mode: ``relative`` if 0 changes nothing, ``absolute`` if a number always means the same place.
        positive: what positive numbers do or mean.
        meaning: everything else, for people.
        low, high: of every entry. Actions beyond are executed as the bound; proprioception has none beyond. ``None``
            where there is no bound.
    """

    name: str
    entries: tuple[str, ...]
    unit: str
    frame: str
    mode: Literal["absolute", "relative"]
    positive: str
    meaning: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class RobotConvention:
    """The convention of a robot's numbers.

    Attributes:
        robot: its name.
        action: the 7 numbers of an action, in order.
        proprio: the 8 numbers of the observation ``proprio``, in order.
        control_hz: control steps, and so actions, per second.
        reach: largest horizontal distance of the tool centre point (TCP) from the base's vertical axis, m.
        chunk: how many actions an agent gives at once.

    Example:
        >>> convention = get_convention("google_robot")
        >>> convention.action_part("gripper").positive, convention.columns("gripper")
        ('closes', slice(6, 7, None))
    """

    robot: str
    action: tuple[Quantity, ...]
    proprio: tuple[Quantity, ...]
    control_hz: float
    reach: float
    chunk: str = CHUNK

    def action_part(self, name: str) -> Quantity:
        """A part of the action.

        Raises:
            UnknownNameError: if there is none of that name.
        """
        return self.action[self._index(name)]

    def columns(self, name: str) -> slice:
        """The columns of a part of the action among the 7 numbers.

        Raises:
            UnknownNameError: if there is none of that name.
        """
        ends = list(accumulate(len(part.entries) for part in self.action))
        index = self._index(name)
        return slice(ends[index] - len(self.action[index].entries), ends[index])

    def _index(self, name: str) -> int:
        names = [part.name for part in self.action]
        if name not in names:
            raise UnknownNameError(f"part of an action of {self.robot}", name, names)
        return names.index(name)

    def described(self) -> dict[str, Any]:
        """The setup as plain dictionaries, lists, text and numbers, for files and messages."""
        described = asdict(self)
        for vector in ("action", "proprio"):
            described[vector] = [{**part, "entries": list(part["entries"])} for part in described[vector]]
        return described


def _motion(translation: str, rotation: str) -> tuple[Quantity, Quantity]:
    """The six numbers of the arm, which no bound cuts off."""
    return (
        Quantity("translation", ("x", "y", "z"), "m", BASE_FRAME, "relative", "along the axis", translation),
        Quantity(
            "rotation", ("rx", "ry", "rz"), "rad", BASE_FRAME, "relative", "right-handed about the axis", rotation
        ),
    )


def _proprio(tcp: str, openness: str) -> tuple[Quantity, ...]:
    turn = "attitude of the TCP, unit quaternion, scalar first"
    return (
        Quantity("position", ("x", "y", "z"), "m", BASE_FRAME, "absolute", "along the axis", f"the TCP, {tcp}"),
        Quantity(
            "quaternion", ("qw", "qx", "qy", "qz"), "1", BASE_FRAME, "absolute", "qw is never below 0", turn, -1, 1
        ),
        Quantity("openness", ("openness",), "1", "", "absolute", "open", openness, None, 1.0),
    )


WIDOWX = RobotConvention(
    robot="widowx",
    action=(
        *_motion(
            "per control step, added to the position that the controller aims at; what a step does not reach is kept",
            "per control step, axis-angle; turns the pose that the controller aims at about the measured TCP",
        ),
        Quantity(
            "gripper",
            ("gripper",),
            "1",
            "",
            "absolute",
            "opens",
            "where the fingers shall be: -1 closed, 0 half open, +1 open; to be given at every step",
            -1.0,
            1.0,
        ),
    ),
    proprio=_proprio("ee_gripper_link", "1 open, 0 closed; slightly below 0 when pressed together"),
    control_hz=5.0,
    reach=0.66,
)

GOOGLE_ROBOT = RobotConvention(
    robot="google_robot",
    action=(
        *_motion(
            "per control step, added to the measured position; what a step does not reach is forgotten",
            "per control step, axis-angle; turns the measured pose about the TCP",
        ),
        Quantity(
            "gripper",
            ("gripper",),
            "1",
            "",
            "relative",
            "closes",
            "change of where the fingers shall be: +1 is from open to closed, -1 from closed to open, 0 goes on with "
            "the last command",
            -1.0,
            1.0,
        ),
    ),
    proprio=_proprio("link_gripper_tcp", "1 open, 0 fully turned in; 0.17 when closed on nothing"),
    control_hz=3.0,
    reach=1.11,
)

#: By the robot's name.
CONVENTIONS: dict[str, RobotConvention] = {convention.robot: convention for convention in (WIDOWX, GOOGLE_ROBOT)}


def get_convention(robot: str) -> RobotConvention:
    """The convention of a robot's numbers.

    Raises:
        UnknownNameError: for a robot of which nothing is declared.
    """
    if robot not in CONVENTIONS:
        raise UnknownNameError("robot", robot, CONVENTIONS)
    return CONVENTIONS[robot]
