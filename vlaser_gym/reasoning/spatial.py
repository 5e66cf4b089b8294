"""Spatial questions: where things are to each other, for the camera and for the robot.

Pairs whose difference is too small to be called one or the other are not asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np

from vlaser_gym.reasoning.kinds import Candidate, Kind, each, worded
from vlaser_gym.reasoning.moments import Moment
from vlaser_gym.reasoning.things import GRIPPER

#: Least differences: in the image (share of its width), and in the scene (m).
LEAST_SHARE, LEAST_METRES = 0.05, 0.03
#: Heights are the same within this, m.
SAME_HEIGHT = 0.02
#: How the names of cans end.
_CANS = " can"

Compare = Callable[[Moment, str, str], float]


def _pairs(moment: Moment) -> Iterator[tuple[str, str]]:
    yield from combinations(moment.seen(), 2)


def _relation(compare: Compare, least: float, options: tuple[str, str]) -> Callable[[Moment], Iterator[Candidate]]:
    """Candidates about pairs: the first option where ``compare`` is clearly positive."""

    def find(moment: Moment) -> Iterator[Candidate]:
        """A candidate for every pair of seen things whose difference is clear."""
        for a, b in _pairs(moment):
            difference = compare(moment, a, b)
            if abs(difference) > least:
                fixed = not (moment.things[a].moves or moment.things[b].moves)
                answer = options[int(difference < 0)]
                yield Candidate(f"{a} | {b}", answer, (moment,), {"a": a, "b": b}, fixed=fixed, places=(a, b))

    return find


def _coordinate(frame: str, axis: int, sign: float = 1.0) -> Compare:
    """The difference of two things' coordinates in a frame, first minus second."""

    def compare(moment: Moment, a: str, b: str) -> float:
        """The difference of two named things, m."""
        values = [getattr(moment.things[name], frame)[axis] for name in (a, b)]
        return sign * float(values[0] - values[1])

    return compare


def _to_the_left(moment: Moment, a: str, b: str) -> float:
    """The horizontal distance by which the first thing is farther left, as a share of the image's width."""
    return (moment.things[b].pixel[0] - moment.things[a].pixel[0]) / moment.width


def _distance(moment: Moment, a: str, b: str) -> float:
    return float(np.linalg.norm(np.subtract(moment.things[a].world, moment.things[b].world)))


def _nearer(moment: Moment) -> Iterator[Candidate]:
    if not moment.things[GRIPPER].is_seen:
        return
    for a, b in _pairs(moment):
        if GRIPPER in (a, b):
            continue
        lead = _distance(moment, b, GRIPPER) - _distance(moment, a, GRIPPER)
        if abs(lead) > LEAST_METRES:
            words, places = {"a": a, "b": b}, (GRIPPER, a, b)
            yield Candidate(f"{a} | {b}", a if lead > 0 else b, (moment,), words, places=places)


def _distances(moment: Moment) -> Iterator[Candidate]:
    """Distances of things that are not at the same place: a distance of zero has no relative error."""
    for a, b in _pairs(moment):
        centimetres = round(100 * _distance(moment, a, b), 2)
        if centimetres >= 100 * LEAST_METRES:
            fixed = not (moment.things[a].moves or moment.things[b].moves)
            truth, words = {"value": centimetres, "unit": "cm"}, {"a": a, "b": b}
            text = f"{round(centimetres)} cm"
            yield Candidate(f"{a} | {b}", "", (moment,), words, truth, text, fixed=fixed, places=(a, b))


def _highest(moment: Moment) -> Iterator[Candidate]:
    names = moment.seen("object", "gripper")
    if len(names) < 3 or len(names) < sum(thing.kind in ("object", "gripper") for thing in moment.things.values()):
        return
    second, first = sorted(names, key=lambda name: moment.things[name].world[2])[-2:]
    if moment.things[first].world[2] - moment.things[second].world[2] > SAME_HEIGHT:
        yield Candidate(" | ".join(names), first, (moment,))


def _is_on(moment: Moment) -> Iterator[Candidate]:
    if moment.on_target is None or moment.target not in moment.things:
        return
    apart = moment.on_target or float(
        np.linalg.norm(np.subtract(moment.things[moment.source].world, moment.things[moment.target].world)[:2])
    )
    if apart is True or apart > LEAST_METRES:
        words = {"a": moment.source, "b": moment.target, "in": "in" if "basket" in moment.target else "on"}
        answer = "yes" if moment.on_target else "no"
        places = (moment.source, moment.target)
        yield Candidate(" | ".join(places), answer, (moment,), words, places=places)


def _how_many(moment: Moment) -> Iterator[Candidate]:
    """Only where everything that there is is seen."""
    objects = [name for name, thing in moment.things.items() if thing.kind == "object"]
    if not objects or any(not moment.things[name].is_seen for name in objects):
        return
    yield Candidate("objects", str(len(objects)), (moment,), {"a": "loose objects"})
    if cans := sum(name.endswith(_CANS) for name in objects):
        yield Candidate("cans", str(cans), (moment,), {"a": "cans"})


def _openness(moment: Moment) -> Iterator[Candidate]:
    if moment.things[GRIPPER].is_seen:
        percent = round(100 * min(moment.openness, 1.0), 2)
        truth = {"value": percent, "unit": "percent"}
        yield Candidate(moment.robot, "", (moment,), {}, truth, f"{round(percent)} percent")


_SIDES, _DEPTHS, _HEIGHTS = ("left", "right"), ("in front", "behind"), ("above", "below")


def _mirror(options: tuple[str, str]) -> dict[str, str]:
    return {options[0]: options[1], options[1]: options[0]}


KINDS = (
    Kind(
        "side_in_view",
        "spatial",
        "choice",
        worded(
            "In the picture, is the {a} to the {options} of the {b}?",
            "On which side of the {b} is the {a} in the picture, {options}?",
            "Seen by the camera, the {a} is on one side of the {b}: {options}?",
            lettered=("Where is the {a} in the picture, seen from the {b}?",),
        ),
        each(_relation(_to_the_left, LEAST_SHARE, _SIDES)),
        _mirror(_SIDES),
    ),
    Kind(
        "depth_in_view",
        "spatial",
        "choice",
        worded(
            "For the camera, is the {a} {options} of the {b}?",
            "Is the {a} nearer to the camera than the {b} (in front) or farther (behind)? Answer {options}.",
            "Looking from the camera, the {a} is {options} of the {b}. Which?",
            lettered=("How does the {a} stand to the {b} for the camera?",),
        ),
        each(_relation(_coordinate("camera", 2, -1.0), LEAST_METRES, _DEPTHS)),
        _mirror(_DEPTHS),
    ),
    Kind(
        "side_for_robot",
        "spatial",
        "choice",
        worded(
            "For the robot, is the {a} to the {options} of the {b}?",
            "From where the robot stands, is the {a} {options} of the {b}?",
            "In the robot's own frame, the {a} is on one side of the {b}: {options}?",
            lettered=("On which side of the {b} is the {a} for the robot?",),
        ),
        each(_relation(_coordinate("robot", 1), LEAST_METRES, _SIDES)),
        _mirror(_SIDES),
    ),
    Kind(
        "depth_for_robot",
        "spatial",
        "choice",
        worded(
            "For the robot, is the {a} {options} of the {b}?",
            "Is the {a} nearer to the robot's base than the {b} (in front) or farther (behind)? Answer {options}.",
            "Along the robot's forward axis, the {a} is {options} of the {b}. Which?",
            lettered=("How does the {a} stand to the {b} for the robot?",),
        ),
        each(_relation(_coordinate("robot", 0, -1.0), LEAST_METRES, _DEPTHS)),
        _mirror(_DEPTHS),
    ),
    Kind(
        "height",
        "spatial",
        "choice",
        worded(
            "Is the {a} higher than the {b} (above) or lower (below)? Answer {options}.",
            "By height, is the {a} {options} the {b}?",
            "The {a} is {options} the level of the {b}. Which?",
            lettered=("At which height is the {a}, compared with the {b}?",),
        ),
        each(_relation(_coordinate("world", 2), LEAST_METRES, _HEIGHTS)),
        _mirror(_HEIGHTS),
    ),
    Kind(
        "nearer",
        "spatial",
        "choice",
        worded(
            "Which is nearer to the gripper, the {options}?",
            "The gripper is closer to one of these: {options}. Which one?",
            "From the gripper it is a shorter way to the {options}. Which?",
            lettered=("Which of them is nearer to the gripper?",),
        ),
        each(_nearer),
    ),
    Kind(
        "distance",
        "spatial",
        "number",
        worded(
            "How far is the {a} from the {b}, in centimetres?",
            "Give the distance between the {a} and the {b} in cm.",
            "Estimate how many centimetres lie between the middles of the {a} and the {b}.",
            "What is the distance from the {a} to the {b} in centimetres?",
        ),
        each(_distances),
    ),
    Kind(
        "highest",
        "spatial",
        "choice",
        worded(
            "Which of these is highest: {options}?",
            "What stands or hangs highest, the {options}?",
            "One of these is above all others: {options}. Which?",
            lettered=("Which of these things is highest?",),
        ),
        each(_highest),
    ),
    Kind(
        "is_on",
        "spatial",
        "choice",
        worded(
            "Is the {a} {in} the {b}? Answer {options}.",
            "Does the {a} lie {in} the {b}, {options}?",
            "True of this picture: the {a} is {in} the {b}. {options}?",
            lettered=("Is the {a} {in} the {b}?",),
        ),
        each(_is_on),
    ),
    Kind(
        "how_many",
        "spatial",
        "choice",
        worded(
            "How many {a} are in the picture? Answer {options}.",
            "Count the {a}: {options}?",
            "What is the number of {a} here, {options}?",
            lettered=("How many {a} are there?",),
        ),
        each(_how_many),
    ),
    Kind(
        "gripper_open",
        "spatial",
        "number",
        worded(
            "How far is the gripper open, in percent?",
            "Give the opening of the gripper in percent (100 is wide open).",
            "By how many percent are the fingers open?",
            "What is the gripper's opening, from 0 to 100 percent?",
        ),
        each(_openness),
    ),
)
