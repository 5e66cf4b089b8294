"""Grounding: where a thing is in the image, and what is at a place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vlaser_gym.agents.vlaser.frequent_words import POINTING_PROMPT
from vlaser_gym.reasoning.coordinates import box_numbers, box_text, number_of, point_text
from vlaser_gym.reasoning.kinds import Candidate, Kind, each, worded
from vlaser_gym.reasoning.moments import Moment


def point_on(moment: Moment, pixel: Sequence[int]) -> str:
    """A pixel (column, row) of a moment's image as an answer writes it."""
    column, row = pixel
    return point_text([[number_of(column, moment.width), number_of(row, moment.height)]])


def _points(moment: Moment) -> Iterator[Candidate]:
    for name in moment.seen():
        thing = moment.things[name]
        yield Candidate(
            name, "", (moment,), {"a": name}, {"mask": thing.mask, "box": thing.box}, point_on(moment, thing.inside),
            fixed=not thing.moves,
        )  # fmt: skip


def _boxes(moment: Moment) -> Iterator[Candidate]:
    for name in moment.seen():
        thing = moment.things[name]
        left, top, right, bottom = thing.box
        numbers = box_numbers((left, top, right, bottom), moment.width, moment.height)
        text = box_text(numbers, name)
        yield Candidate(name, "", (moment,), {"a": name}, {"box": thing.box}, text, fixed=not thing.moves)


def _names(moment: Moment) -> Iterator[Candidate]:
    seen = moment.seen()
    if len(seen) < 2:
        return
    for name in seen:
        place = point_on(moment, moment.things[name].probe)
        yield Candidate(" | ".join(sorted(moment.things)), name, (moment,), {"place": place})


KINDS = (
    Kind(
        "point",
        "grounding",
        "point",
        worded(
            "Point to the {a}.",
            "Where is the {a}? Answer with a point.",
            f"{POINTING_PROMPT} Point to the {{a}}.",
            "Give one point on the {a}.",
        ),
        each(_points),
    ),
    Kind(
        "box",
        "grounding",
        "box",
        worded(
            "Draw a box around the {a}.",
            "Where is <ref>{a}</ref>? Answer with a box.",
            "Give the box of the visible part of the {a}.",
            "Which box encloses the {a}?",
        ),
        each(_boxes),
    ),
    Kind(
        "name_at_point",
        "grounding",
        "choice",
        worded(
            "What is at {place}: the {options}?",
            "Name the thing at {place}. It is the {options}.",
            "The place {place} shows one of these: {options}. Which one?",
            lettered=("What is at {place}?",),
        ),
        each(_names),
    ),
)
