"""The events of an episode, detected in its course one kind at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vlaser_gym.evaluation.diagnosis.course import Course, Floats

Triple = tuple[float, float, float]

#: An object has been moved when it is so far from where it was, or has been lifted so far, m.
MOVED, LIFTED = 0.015, 0.015
#: A drawer has been moved, m.
DRAWER_MOVED = 0.01
#: The gripper has come to an object, or to a handle, when its TCP is so near, m.
NEAR_OBJECT, NEAR_HANDLE = 0.10, 0.15
#: The gripper closes where its opening falls by so much; it is closed after this share of the fall.
_CLOSING, _CLOSED_SHARE = 0.25, 0.8
#: Less change of the opening in a control step is none; so much more is an opening gripper.
_STILL, _OPENING = 0.02, 0.05
#: A gripper that closes higher above the object, or farther from it in the plane, does not mean it, m.
_REACH_UP, _REACH_ASIDE = 0.06, 0.20
#: Control steps after the start of a closing and after its end within which a pinch belongs to it.
_CATCH = 2


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes:
        step: the control step after which it shows; 0 is the initial state.
        kind: ``approached``, ``closed`` (on nothing), ``pushed``, ``grasped``, ``slipped``, ``released``, ``drawer``
            (moved), ``succeeded``, ``lost``.
        what: the object or the drawer.
        offset: for ``closed``: from the object to the TCP (m, robot frame); for ``slipped`` and ``released``: from the
            goal to the object.
        amount: for ``pushed`` and ``drawer`` how far (m); for ``slipped`` and ``released`` the height above rest (m).
    """

    step: int
    kind: str
    what: str
    offset: Triple | None = None
    amount: float = 0.0


def find_events(course: Course) -> tuple[Event, ...]:
    """All events, in their order."""
    events = [*_approach(course), *_drawers(course), *_outcomes(course)]
    if course.source >= 0:
        events += [*_closings(course), *_grasps(course), *_pushes(course)]
    return tuple(sorted(events, key=lambda event: event.step))


def _approach(course: Course) -> Iterator[Event]:
    near = NEAR_OBJECT if course.source >= 0 else NEAR_HANDLE
    rows = np.flatnonzero(np.linalg.norm(course.tcp - course.place, axis=-1) < near)
    if len(rows):
        yield Event(int(rows[0]), "approached", course.source_name)


def _outcomes(course: Course) -> Iterator[Event]:
    """Events of success and of its loss."""
    for row in np.flatnonzero(np.diff(course.success.astype(int))).tolist():
        yield Event(row + 1, "succeeded" if course.success[row + 1] else "lost", course.source_name)


def _drawers(course: Course) -> Iterator[Event]:
    for name, opening in course.drawers.items():
        rows = np.flatnonzero(np.abs(opening - opening[0]) > DRAWER_MOVED)
        if len(rows):
            most = opening[np.argmax(np.abs(opening - opening[0]))] - opening[0]
            yield Event(int(rows[0]), "drawer", f"{name} drawer", amount=float(most))


def closings(opening: Floats) -> list[tuple[int, int]]:
    """First and last row of each closing of the gripper: it falls by a quarter of its range, without a rest between."""
    found, start = [], 0
    falls = np.diff(opening) < -_STILL
    for row in range(len(falls)):
        if not falls[row]:
            start = row + 1
        elif row + 1 == len(falls) or not falls[row + 1]:
            fall = opening[start] - opening[row + 1]
            if fall > _CLOSING:
                level = opening[start] - _CLOSED_SHARE * fall
                found.append((start, start + int(np.argmax(opening[start : row + 2] <= level))))
    return found


def _closings(course: Course) -> Iterator[Event]:
    """Closings near the object that catch nothing."""
    holds = [hold for index in range(len(course.names)) for hold in course.holds(index)]
    for begin, end in closings(course.opening):
        caught = any(first <= end + _CATCH and last >= begin for first, last in holds)
        # A moving arm closes on its way: where it was lowest is where it meant to grasp.
        lowest = begin + int(np.argmin(course.tcp[begin : end + 1, 2]))
        offset = course.tcp[lowest] - course.place[lowest]
        meant = offset[2] < _REACH_UP and np.hypot(*offset[:2]) < _REACH_ASIDE
        if meant and not caught:
            yield Event(begin + 1, "closed", course.source_name, _triple(offset))


def _grasps(course: Course) -> Iterator[Event]:
    """Every grasp of every object, and how it ended."""
    for index, name in enumerate(course.names):
        for begin, end in course.holds(index):
            yield Event(begin, "grasped", name)
            if end < course.last:
                opened = course.opening[end + 1 : end + 4].max() - course.opening[end] > _OPENING
                offset = None
                if index == course.source and course.goal is not None:
                    offset = _triple(course.place[course.last] - course.goal[course.last])
                height = float(course.height(index)[end])
                yield Event(end + 1, "released" if opened else "slipped", name, offset, height)


def _pushes(course: Course) -> Iterator[Event]:
    """The first time that each object is moved without being held."""
    for index, name in enumerate(course.names):
        shift = course.shift(index)
        rows = np.flatnonzero(shift > MOVED)
        if len(rows) and not course.held[: rows[0] + 1, index].any():
            yield Event(int(rows[0]), "pushed", name, amount=float(shift[-1]))


def _triple(vector: Floats) -> Triple:
    x, y, z = (float(value) for value in vector)
    return x, y, z
