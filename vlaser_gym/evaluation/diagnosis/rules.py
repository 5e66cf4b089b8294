"""Rules that turn the course of an episode into its one failure class and a sentence about it.

The rules are tried in the order of :func:`_explain`; the first that answers decides. ``docs/diagnosis.md`` tells them
in words, with their numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.evaluation.diagnosis.course import Course, Floats, read_course
from vlaser_gym.evaluation.diagnosis.events import DRAWER_MOVED, LIFTED, MOVED, Event, Triple, find_events
from vlaser_gym.evaluation.diagnosis.words import beside, millimetres

#: A drawer slipped when it came back by so much (m), and still moves when it moved so much in the last three steps.
_SLIPPED, _STILL_MOVING = 0.02, 0.009
#: Another drawer counts as the one that was meant when it moved so much, or the TCP came so near its handle, m.
_OTHER_MOVED, _OTHER_NEAR = 0.02, 0.10
#: A drawer that is opened so much further after the robot was told something else, m.
_STAGE_MOVED = 0.03
#: An object let go so low above where it began, or so near its goal, was put down, m.
_PUT_DOWN_HEIGHT, _PUT_DOWN_NEAR = 0.05, 0.06
#: Openings that count, by tasks of drawers (m): see :mod:`vlaser_gym.envs.tasks.drawers`.
_OPEN, _CLOSED = 0.15, 0.05


@dataclass(frozen=True)
class Diagnosis:
    """The failure class of an episode and its explanation.

    Attributes:
        failure: key of :data:`~vlaser_gym.evaluation.diagnosis.classes.FAILURE_CLASSES`; empty after a success.
        sentence: one clause, such as ``closed 31 mm left of the carrot``; empty after a success.
        step: the control step at which it went wrong; ``None`` where there is no such step.
        miss: for ``closed_on_nothing``: from the object (or the handle) to the TCP, m: x away from the robot, y to its
            left, z up.
        distance: for ``placed_beside``: from the goal in the plane, m.
        place: where the object (or the handle) was at first, in the robot's frame, m.
        goal: where it belonged then; ``None`` without one.
        events: all that happened, in order.
    """

    failure: str
    sentence: str
    step: int | None = None
    miss: Triple | None = None
    distance: float | None = None
    place: Triple | None = None
    goal: Triple | None = None
    events: tuple[Event, ...] = ()


@dataclass(frozen=True)
class _Cause:
    failure: str
    sentence: str
    step: int | None = None
    miss: Triple | None = None
    distance: float | None = None


def diagnose(record: Mapping[str, Any], states: Mapping[str, NDArray[Any]] | None) -> Diagnosis:
    """Find the failure class of a stored episode.

    Args:
        record: of the episode.
        states: its arrays by name; ``None`` if none were stored.
    """
    if record["error"] is not None:
        return Diagnosis("error", "the simulator did not finish it")
    try:
        course = read_course(record, {} if states is None else states)
    except (KeyError, ValueError):  # without states there is the record alone
        if record["success"]:
            return Diagnosis("", "")
        if record["success_any"]:
            return Diagnosis("lost_again", f"had succeeded at step {record['first_success_step']} and lost it")
        return Diagnosis("unknown", "its states were not stored")
    cause = _Cause("", "") if record["success"] else _explain(course, find_events(course))
    goal = None if course.goal is None else course.goal[0]
    return Diagnosis(**vars(cause), place=_triple(course.place[0]), goal=_triple(goal), events=find_events(course))


def _explain(course: Course, events: tuple[Event, ...]) -> _Cause:
    """The first rule that answers, from what came farthest to what did not begin."""
    rules: list[Callable[[Course, tuple[Event, ...]], _Cause | None]] = [_lost_again]
    if course.goal_drawer and course.source >= 0:
        rules.append(_wrong_stage)
    # A drawer that was open at some step, and after which a sub-task remained, did not cause the failure.
    if course.goal_drawer and not (course.source >= 0 and (course.drawers[course.goal_drawer] >= _OPEN).any()):
        rules += [_wrong_drawer, _drawer_moved]
    if course.source >= 0:
        rules += [_held_once, _in_the_dark, _wrong_object, _moved_or_missed, _time]
    else:
        rules.append(_hooked_nothing)
    causes = (rule(course, events) for rule in rules)
    what = course.source_name if course.source >= 0 else f"handle of the {course.source_name}"
    far_off = _Cause("never_approached", f"came no nearer than {millimetres(_nearest(course))} to the {what}")
    return next((cause for cause in causes if cause is not None), far_off)


def _of(events: tuple[Event, ...], kind: str, what: str) -> list[Event]:
    return [event for event in events if event.kind == kind and event.what == what]


def _lost_again(course: Course, events: tuple[Event, ...]) -> _Cause | None:
    if not course.success.any():
        return None
    lost = _of(events, "lost", course.source_name)[-1]
    first = int(np.argmax(course.success))
    return _Cause("lost_again", f"had succeeded at step {first} and lost it at step {lost.step}", lost.step)


# ---------------------------------------------------------------------------------------------------------- drawers


def _progress(course: Course) -> Floats:
    """The progress of the right drawer from its initial towards its required opening, ``[T + 1]`` (m)."""
    opening = course.drawers[course.goal_drawer]
    return np.asarray(opening - opening[0] if opening[0] <= _CLOSED else opening[0] - opening)


def _wrong_stage(course: Course, events: tuple[Event, ...]) -> _Cause | None:
    first, drawer = course.stage == 0, course.drawers[course.goal_drawer]
    moved = _of(events, "drawer", f"{course.goal_drawer} drawer")
    touches = np.flatnonzero((course.held[:, course.source] | (course.shift(course.source) > MOVED)) & first)
    if len(touches) and not (moved and moved[0].step < touches[0]) and drawer[first].max() < _OPEN:
        sentence = f"went for the {course.source_name} while it was told to open the {course.goal_drawer} drawer"
        return _Cause("wrong_stage", sentence, int(touches[0]))
    if first.all() or course.touched[:, course.source].any() or course.shift(course.source).max() > MOVED:
        return None
    if _of(events, "closed", course.source_name):  # it did go for the object, and missed it
        return None
    later = drawer[~first]
    if later.max() - later[0] < _STAGE_MOVED:
        return None
    step = int(np.argmax(~first))
    sentence = f"went on with the drawer after it was told to place the {course.source_name} (step {step})"
    return _Cause("wrong_stage", sentence, step)


def _wrong_drawer(course: Course, events: tuple[Event, ...]) -> _Cause | None:
    best = float(_progress(course).max())
    for name in course.drawers:
        if name == course.goal_drawer:
            continue
        for event in _of(events, "drawer", f"{name} drawer"):
            if abs(event.amount) > max(_OTHER_MOVED, best):
                how = "opened" if event.amount > 0 else "closed"
                sentence = f"{how} the {name} drawer by {millimetres(event.amount)}, not the {course.goal_drawer} one"
                return _Cause("wrong_drawer", sentence, event.step)
        near = np.linalg.norm(course.tcp - course.handles[name], axis=-1)
        told = np.linalg.norm(course.tcp - course.handles[course.goal_drawer], axis=-1)
        if best < DRAWER_MOVED and near.min() < min(_OTHER_NEAR, told.min()):
            return _Cause("wrong_drawer", f"reached for the {name} drawer, not the {course.goal_drawer} one",
                          int(np.argmin(near)))  # fmt: skip
    return None


def _drawer_moved(course: Course, events: tuple[Event, ...]) -> _Cause | None:
    progress, name = _progress(course), course.goal_drawer
    opening = float(course.drawers[name][0])
    needed = _OPEN - opening if opening <= _CLOSED else opening - _CLOSED
    best, final = float(progress.max()), float(progress[-1])
    if best < DRAWER_MOVED:
        return _hooked_nothing(course, events) if course.source >= 0 else None
    if final - progress[max(0, course.last - 3)] > _STILL_MOVING:
        sentence = f"was still moving the {name} drawer, {millimetres(final)} of {millimetres(needed)}, at the end"
        return _Cause("out_of_time", sentence, course.last)
    if best - final > _SLIPPED:
        sentence = f"the {name} drawer slipped back from {millimetres(best)} to {millimetres(final)}"
    else:
        sentence = f"the {name} drawer stopped short, {millimetres(best)} of {millimetres(needed)}"
    return _Cause("drawer_short", sentence, int(np.argmax(progress)))


def _hooked_nothing(course: Course, events: tuple[Event, ...]) -> _Cause | None:
    """It came to the handle and moved nothing."""
    name, offset = course.goal_drawer, course.tcp - course.handles[course.goal_drawer]
    nearest = int(np.argmin(np.linalg.norm(offset, axis=-1)))
    if np.linalg.norm(offset[nearest]) >= 0.15:
        return None
    miss = _triple(offset[nearest])
    sentence = f"moved no drawer: at best {beside(miss, f'the handle of the {name} drawer')}"
    return _Cause("closed_on_nothing", sentence, nearest, miss)


# ---------------------------------------------------------------------------------------------------------- objects


def _held_once(course: Course, events: tuple[Event, ...]) -> _Cause | None:
    """The object was held: what became of the last time."""
    holds, name = course.holds(course.source), course.source_name
    if not holds:
        return None
    begin, end = holds[-1]
    if end == course.last:
        to_go = ""
        if course.goal is not None:
            target = course.names[course.target] if course.target >= 0 else "drawer's middle"
            to_go = f", {millimetres(float(np.hypot(*(course.place[-1] - course.goal[-1])[:2])))} from the {target},"
        return _Cause("out_of_time", f"still held the {name}{to_go} at the end", course.last)
    loss = [e for e in events if e.kind in ("slipped", "released") and e.what == name][-1]
    carried = course.shift(course.source)[begin : end + 1].max() > MOVED
    lifted = course.height(course.source)[begin : end + 1].max() > LIFTED
    if course.goal is None or loss.offset is None:
        return _Cause("dropped", _drop(name, loss, bool(lifted)), loss.step)
    near = np.hypot(*(course.place[end] - course.goal[end])[:2]) < _PUT_DOWN_NEAR
    if loss.kind == "released" and (carried or lifted) and (near or loss.amount < _PUT_DOWN_HEIGHT):
        distance = float(np.hypot(*loss.offset[:2]))
        where = f"the middle of the {course.names[course.target]}" if course.target >= 0 else "the drawer's middle"
        return _Cause(
            "placed_beside", f"put the {name} down {millimetres(distance)} from {where}", loss.step, None, distance
        )
    return _Cause("dropped", _drop(name, loss, bool(lifted)), loss.step)


def _drop(name: str, loss: Event, lifted: bool) -> str:
    if not lifted:
        return f"the {name} {'was let go' if loss.kind == 'released' else 'slipped out'} before it was lifted"
    how = "let go of" if loss.kind == "released" else "lost"
    return f"{how} the {name} at step {loss.step}, {millimetres(loss.amount)} above its place"


def _in_the_dark(course: Course, events: tuple[Event, ...]) -> _Cause | None:
    """Without contacts nobody knows whether things that moved were held."""
    if course.contacts:
        return None
    moved = [i for i in range(len(course.names)) if max(course.shift(i).max(), course.height(i).max()) > MOVED]
    if all(i == course.source and course.source_contacts for i in moved):
        return None
    names = " and the ".join(course.names[i] for i in moved)
    return _Cause("unknown", f"the {names} moved; contacts were not stored")


def _wrong_object(course: Course, events: tuple[Event, ...]) -> _Cause | None:
    for event in events:
        if event.kind == "grasped" and event.what != course.source_name:
            return _Cause("wrong_object", f"grasped the {event.what}, not the {course.source_name}", event.step)
    return None


def _moved_or_missed(course: Course, events: tuple[Event, ...]) -> _Cause | None:
    """The earlier of two causes: a closing on nothing, or a push."""
    for event in events:
        if event.kind == "pushed" and event.what == course.source_name:
            sentence = f"pushed the {event.what} {millimetres(event.amount)} without grasping it"
            return _Cause("pushed_away", sentence, event.step)
        if event.kind == "closed" and event.offset is not None:
            return _Cause(
                "closed_on_nothing", f"closed {beside(event.offset, f'the {event.what}')}", event.step, event.offset
            )
    return None


def _time(course: Course, events: tuple[Event, ...]) -> _Cause | None:
    """It came to the object and had not closed yet."""
    if not _of(events, "approached", course.source_name):
        return None
    sentence = f"had come within {millimetres(_nearest(course))} of the {course.source_name} and not closed at the end"
    return _Cause("out_of_time", sentence, course.last)


def _nearest(course: Course) -> float:
    return float(np.linalg.norm(course.tcp - course.place, axis=-1).min())


def _triple(vector: Floats | None) -> Any:
    return None if vector is None else tuple(float(value) for value in vector)
