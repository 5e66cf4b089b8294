"""The scripted expert before the cabinet: opens drawers, closes them, puts an object from the top into one.

Handles cannot be gripped (the original's touch nothing): a drawer is opened with closed fingers that reach over its
front, hook behind it and pull, and closed by pushing against the front.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vlaser_gym.agents.scripted_google import CLOSE, KEEP, OPEN, Floats, GoogleEpisode, GoogleScript, centre
from vlaser_gym.conventions import rotations
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.tasks.base import Task
from vlaser_gym.envs.tasks.cabinet import DRAWERS, joint_name
from vlaser_gym.envs.tasks.drawers import CLOSED
from vlaser_gym.envs.tasks.drawers import OPEN as OPENED
from vlaser_gym.envs.tasks.place_in_drawer import FORCED_STEP
from vlaser_gym.envs.vector import STATE_FIELDS

#: Places of the TCP around the middle of the handle: outwards, up (m). Behind the front the fingers are still above its
#: edge, 5 cm over the handle, on which they would come to stand.
_BEFORE, _OVER, _BEHIND, _HOOKED = (0.07, 0.165), (-0.02, 0.105), (-0.066, 0.085), (-0.068, 0.042)
_IN_FRONT, _AT_FRONT = (0.10, 0.02), (0.03, 0.0)
#: Height over the handle at which the fingers are clear of the drawer (m).
_CLEAR = 0.24
#: How far a drawer is pulled open (m); farther where something shall be put into it.
_WIDE, _WIDER = 0.2, 0.26
#: Angle of the gripper below level (rad) where the arm is neither stretched nor folded.
_SLOPE = 0.79
#: Height of the arm's first joint above the base (m), distance from it beyond which the gripper that pulls is flatter,
#: as the arm is stretched (m), and by how much (rad per metre).
_SHOULDER, _FAR, _FLATTER = 0.71, 0.98, 3.2
#: Distance from the robot within which the gripper that pushes is steeper, as the arm is folded (m), by how much (rad
#: per metre), and the steepest (rad).
_NEAR, _STEEPER, _STEEPEST = 0.6, 3.0, 1.35
#: Height over an object on the cabinet at which the gripper comes and goes (m).
_OVER_OBJECT = 0.11


class CabinetEpisode(GoogleEpisode):
    """Open a drawer, close one, or open one and put an object into it; which of them the layout tells."""

    def __init__(self, task: Task, address: Address, script: GoogleScript | None = None) -> None:
        super().__init__(script)
        layout = task.layout(address.layout, address.variant)
        bodies = task.objects_of(layout.cast)
        self._object = bodies[0] if bodies else None
        self._drawer = [joint_name(drawer) for drawer in DRAWERS].index(layout.goal_joint)
        self._closes = layout.joints[layout.goal_joint] > CLOSED

    def _look(self, state: Floats) -> None:
        handle = state[STATE_FIELDS["target"]]
        self._handle, self._frame = handle[:3], rotations.matrix_from_quaternion(handle[3:])
        self._opening = float(state[STATE_FIELDS["joints"]][self._drawer])
        if self._object is not None:
            self._place, _ = centre(state[STATE_FIELDS["source"]], self._object)

    def _run(self) -> Iterator[float]:
        if self._closes:
            yield from self._push()
        elif self._opening < OPENED:
            yield from self._pull_open()
        else:  # whoever acted before has opened it and may still stand behind its front
            rise = max(0.0, _CLEAR - float((self._tcp - self._handle) @ self._frame[:, 2]))
            yield from self._move(self._tcp + self._frame @ [0, 0, rise], KEEP, 0.05)
        if self._object is not None:
            self.subtask_done = not self.waits
            while self.waits and self._steps < FORCED_STEP:
                yield KEEP
            yield from self._fetch()
            yield from self._drop()
        while True:
            yield KEEP

    def _at(self, outwards: float, up: float) -> Floats:
        """A place around the handle as it is now, in the robot's frame."""
        return np.asarray(self._handle + self._frame @ np.array([outwards, 0.0, up]))

    def _point(self, slope: float) -> None:
        """Turn towards the cabinet, ``slope`` below level, the fingers side by side."""
        inward, up = -self._frame[:, 0], self._frame[:, 2]
        approach = np.cos(slope) * inward - np.sin(slope) * up
        closing = np.cross(up, inward)
        self._goal_rotation = np.stack([np.cross(closing, approach), closing, approach], -1)

    def _pull_open(self) -> Iterator[float]:
        far = float(np.linalg.norm(self._handle - [0, 0, _SHOULDER]))
        self._point(_SLOPE - _FLATTER * max(0.0, far - _FAR))
        wanted = _WIDE if self._object is None else _WIDER
        for _ in range(3):
            yield from self._move(self._at(*_BEFORE), CLOSE, tolerance=0.03)
            yield from self._move(self._at(*_OVER), CLOSE, tolerance=0.02)
            yield from self._move(self._at(*_BEHIND), CLOSE, tolerance=0.015)
            yield from self._move(self._at(*_HOOKED), CLOSE, tolerance=0.008)
            yield from self._drag(wanted)
            if self._opening > wanted - 0.03:
                break
            yield from self._move(self._tcp + self._frame @ [0, 0, 0.08], CLOSE, tolerance=0.03)
        yield from self._move(self._at(-0.075, 0.10), CLOSE, tolerance=0.03)
        yield from self._move(self._at(0.02, _CLEAR), KEEP, tolerance=0.05)

    def _drag(self, wanted: float) -> Iterator[float]:
        """Pull outwards and press down a little, while the drawer follows."""
        slack = 0
        while self._opening < wanted and slack < 5:
            before = self._opening
            self._goal = self._at(_HOOKED[0] + 0.06, _HOOKED[1] - 0.02)
            yield CLOSE
            slack = slack + 1 if self._opening - before < 0.003 else 0

    def _push(self) -> Iterator[float]:
        near = float(np.linalg.norm(self._handle[:2]))
        self._point(min(_STEEPEST, _SLOPE + _STEEPER * max(0.0, _NEAR - near)))
        yield from self._move(self._at(*_IN_FRONT), CLOSE, tolerance=0.03)
        yield from self._move(self._at(*_AT_FRONT), CLOSE, tolerance=0.02)
        slack = 0
        while self._opening > 0.005 and slack < 8:
            before = self._opening
            self._goal = self._at(-0.06, 0.0)
            yield CLOSE
            slack = slack + 1 if before - self._opening < 0.003 else 0
        yield from self._move(self._at(0.08, 0.02), KEEP)

    def _fetch(self) -> Iterator[float]:
        """Grasp the object on the cabinet's top and lift it."""
        for _ in range(3):
            rest = self._place.copy()
            self._goal_rotation = self._leaning(rest, self._start_closing)
            yield from self._move(rest + [0, 0, _OVER_OBJECT], OPEN, tolerance=0.03)
            yield from self._move(rest, KEEP, tolerance=0.008)
            yield from self._close()
            yield from self._move(rest + [0, 0, _OVER_OBJECT], KEEP, tolerance=0.03)
            if self._place[2] > rest[2] + 0.05:
                break

    def _drop(self) -> Iterator[float]:
        """Carry the object over the open drawer and let it go close above its floor."""
        held = self._tcp - self._place
        over = self._at(-0.04 - self._opening / 2, 0.0)
        yield from self._move(np.array([*over[:2], self._place[2]]) + held, KEEP, tolerance=0.03)
        yield from self._move(np.array([*over[:2], over[2] + 0.03]) + held, KEEP, tolerance=0.02)
        for _ in range(6):
            if self._needed(OPEN) == KEEP:
                break
            yield OPEN
        yield from self._move(self._tcp + [0, 0, 0.15], KEEP, tolerance=0.03)
