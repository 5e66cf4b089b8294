"""Embodied question answering: what the robot holds, what has been done, what went wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from vlaser_gym.envs.tasks.cabinet import DRAWERS
from vlaser_gym.reasoning.kinds import Candidate, Kind, each, worded
from vlaser_gym.reasoning.moments import Moment
from vlaser_gym.reasoning.things import GRIPPER, handle_name

#: A drawer is open beyond the first and closed up to the second, m; in between it is not asked about.
OPEN, CLOSED = 0.05, 0.01
#: Control steps between two frames, and how far something has moved between them at least, m.
LEAST_STEPS, LEAST_WAY = 5, 0.05


def _held(moment: Moment) -> Iterator[Candidate]:
    is_seen = moment.things[GRIPPER].is_seen
    objects = [name for name, thing in moment.things.items() if thing.kind == "object"]
    if moment.held is not None and is_seen and objects:
        about = " | ".join(sorted(objects))
        yield Candidate(about, f"the {moment.held}" if moment.held else "nothing", (moment,))


def _open_drawer(moment: Moment) -> Iterator[Candidate]:
    if not moment.openings or any(CLOSED < value < OPEN for value in moment.openings.values()):
        return
    opened = [drawer for drawer in DRAWERS if moment.openings[drawer] >= OPEN]
    if len(opened) < 2:
        yield Candidate("drawers", f"the {opened[0]} one" if opened else "none", (moment,))


def _drawer_way(moment: Moment) -> Iterator[Candidate]:
    for drawer, opening in moment.openings.items():
        if opening >= OPEN and moment.things[handle_name(drawer)].is_seen:
            centimetres = round(100 * opening, 2)
            truth = {"value": centimetres, "unit": "cm"}
            yield Candidate(f"{drawer} drawer", "", (moment,), {"a": drawer}, truth, f"{round(centimetres)} cm")


def _done(moment: Moment) -> Iterator[Candidate]:
    """Frames of the first steps look like any other's beginning: they are left to those that have moved on."""
    if moment.step > 0:
        told = {"instruction": moment.instruction}
        yield Candidate(moment.instruction, "yes" if moment.done else "no", (moment,), told)


def _later(moments: Sequence[Moment]) -> Iterator[Candidate]:
    for earlier, later in pairwise(moments):
        ways = [np.linalg.norm(np.subtract(later.things[n].world, earlier.things[n].world)) for n in later.things]
        if later.step - earlier.step >= LEAST_STEPS and max(ways) > LEAST_WAY:
            told = {"instruction": later.instruction}
            yield Candidate(later.task, "the second", (earlier, later), told)
            yield Candidate(later.task, "the first", (later, earlier), told)


def _ending(moments: Sequence[Moment]) -> Iterator[Candidate]:
    first, last = moments[0], moments[-1]
    if first.step == 0 and last.step == last.last > 0 and last.ending:
        yield Candidate(last.instruction, last.ending, (first, last), {"instruction": last.instruction})


KINDS = (
    Kind(
        "held",
        "embodied",
        "choice",
        worded(
            "What does the gripper hold: {options}?",
            "Is the gripper holding {options}?",
            "Between the fingers there is {options}. Which?",
            lettered=("What is in the gripper?",),
        ),
        each(_held),
    ),
    Kind(
        "open_drawer",
        "embodied",
        "choice",
        worded(
            "Which drawer is open: {options}?",
            "Of the drawers, {options} is open. Which?",
            "Is there an open drawer? Answer {options}.",
            lettered=("Which drawer is open?",),
        ),
        each(_open_drawer),
    ),
    Kind(
        "drawer_opening",
        "embodied",
        "number",
        worded(
            "How far is the {a} drawer open, in centimetres?",
            "By how many cm has the {a} drawer been pulled out?",
            "Give the opening of the {a} drawer in centimetres.",
            "The {a} drawer is open. How far, in cm?",
        ),
        each(_drawer_way),
    ),
    Kind(
        "task_done",
        "embodied",
        "choice",
        worded(
            "The robot was told: {instruction}. Has it been done? Answer {options}.",
            "Task: {instruction}. Is it complete, {options}?",
            "Has the robot finished this: {instruction}? {options}?",
            lettered=('Has the task "{instruction}" been done?',),
        ),
        each(_done),
    ),
    Kind(
        "later",
        "embodied",
        "choice",
        worded(
            "The robot was told: {instruction}. Which picture was taken later, {options}?",
            'Two frames of the task "{instruction}": is {options} the later one?',
            "While the robot does this: {instruction}, which frame comes second in time, {options}?",
            lettered=("Task: {instruction}. Which of the two pictures is the later one?",),
        ),
        _later,
    ),
    Kind(
        "ending",
        "embodied",
        "choice",
        worded(
            "Begin and end of an attempt at: {instruction}. What happened: {options}?",
            "The robot was told: {instruction}. These are the first and the last frame. How did it end: {options}?",
            'Judge this attempt at "{instruction}" by its first and last picture: {options}?',
            lettered=('First and last picture of the task "{instruction}". Did it fail, and how?',),
        ),
        _ending,
    ),
)
