"""Planning: what comes next, in words, as a direction and as a path in the image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vlaser_gym.agents.vlaser.answering import SUBTASK_QUESTION
from vlaser_gym.reasoning.coordinates import number_of, point_text
from vlaser_gym.reasoning.kinds import Candidate, Kind, each, worded
from vlaser_gym.reasoning.moments import Moment
from vlaser_gym.reasoning.things import GRIPPER

#: A path in the image that is asked about is this long at least, as a share of the image's width.
LEAST_PATH = 0.03


def _next(moment: Moment) -> Iterator[Candidate]:
    if moment.subtask is not None:
        told = {"instruction": moment.instruction}
        yield Candidate(moment.instruction, moment.subtasks[moment.subtask], (moment,), told)


def _left(moment: Moment) -> Iterator[Candidate]:
    """The remaining sub-tasks in order, without the final entry for "nothing"."""
    if moment.subtask is not None:
        told = {"instruction": moment.instruction}
        rest = moment.subtasks[moment.subtask : -1]
        yield Candidate(moment.instruction, "; ".join(rest) or moment.subtasks[-1], (moment,), told)


def _direction(moment: Moment) -> Iterator[Candidate]:
    if moment.direction:
        told = {"instruction": moment.instruction}
        plan = "" if moment.subtask is None else moment.subtasks[moment.subtask]
        goal = moment.target if moment.held else moment.source
        places = (GRIPPER, goal) if goal in moment.things else ()
        yield Candidate(moment.instruction, moment.direction, (moment,), told, plan=plan, places=places)


def _trace(moment: Moment) -> Iterator[Candidate]:
    pixels = moment.trace
    if not pixels:
        return
    length = float(np.linalg.norm(np.diff(pixels, axis=0), axis=1).sum())
    if length >= LEAST_PATH * moment.width:
        numbers = [(number_of(int(x), moment.width), number_of(int(y), moment.height)) for x, y in pixels]
        told = {"instruction": moment.instruction, "count": str(len(pixels))}
        yield Candidate(moment.instruction, "", (moment,), told, {"points": pixels}, point_text(numbers))


KINDS = (
    Kind(
        "next_subtask",
        "planning",
        "choice",
        worded(
            "The robot shall {instruction}. What must it do next: {options}?",
            SUBTASK_QUESTION,
            "Task: {instruction}. The next step is one of these: {options}. Which?",
            "In order to {instruction}, what comes next: {options}?",
            lettered=("The robot shall {instruction}. What is the next step?",),
        ),
        each(_next),
    ),
    Kind(
        "subtasks_left",
        "planning",
        "choice",
        worded(
            "The robot shall {instruction}. What is left to do, in order? One of: {options}.",
            "Task: {instruction}. Which steps remain: {options}?",
            "To {instruction}, what remains to be done, in order: {options}?",
            lettered=("The robot shall {instruction}. Which steps are left, in order?",),
        ),
        each(_left),
    ),
    Kind(
        "direction",
        "planning",
        "choice",
        worded(
            "The robot shall {instruction}. Which way must the gripper go next, {options}?",
            "Task: {instruction}. In the robot's frame, does the gripper move {options} now?",
            "To {instruction}, the gripper must go {options}. Which?",
            lettered=("The robot shall {instruction}. Which way must the gripper go next in the robot's frame?",),
        ),
        each(_direction),
    ),
    Kind(
        "trace",
        "planning",
        "trace",
        worded(
            "The robot shall {instruction}. Mark the next {count} places of the gripper in the picture, in order.",
            "Task: {instruction}. Where does the gripper go? Answer with {count} points in order.",
            'Draw the gripper\'s path for "{instruction}" as {count} points.',
            "To {instruction}, which {count} points of the picture does the gripper pass next?",
        ),
        each(_trace),
    ),
)
