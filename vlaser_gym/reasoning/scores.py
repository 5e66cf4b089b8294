"""The score of an answer, and scores of many with intervals.

Every form has one score between 0 and 1, which is what means, intervals and comparisons are of:

- ``point``: share of the points that are inside the mask (as Where2Place and RefSpatial count).
- ``box``: 1 where the intersection over union is at least 0.5.
- ``choice``: 1 for the right option.
- ``number``: mean relative accuracy: share of the thresholds 0.5, 0.55 to 0.95 for which the relative error is below
  one minus the threshold (VSIBench's measure).
- ``trace``: 1 where the mean distance of the points is at most 5 % of the image's diagonal.

An answer that cannot be read scores 0 and is counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from vlaser_gym.evaluation.bootstrap import Stratum, stratified_bootstrap
from vlaser_gym.evaluation.statistics import Interval, wilson
from vlaser_gym.reasoning.answers import Box, read_box, read_choice, read_number, read_points
from vlaser_gym.reasoning.coordinates import decode_mask
from vlaser_gym.reasoning.folder import Question

#: Intersection over union from which a box counts, and the thresholds of the mean relative accuracy.
BOX_IOU = 0.5
ACCURACIES = tuple(round(0.5 + 0.05 * k, 2) for k in range(10))
#: Mean distance up to which a trace counts, as a share of the image's diagonal.
TRACE_DISTANCE = 0.05
#: Smallest true value that relative errors are taken of, in the truth's unit.
_LEAST_VALUE = 1.0


@dataclass(frozen=True)
class Score:
    """The score of one answer.

    Attributes:
        value: 0 to 1.
        read: the answer could be read.
        detail: of the form: ``iou``, ``error`` (relative), ``distance`` (share of the diagonal); ``None`` without one.
    """

    value: float
    read: bool
    detail: float | None = None


def score(question: Question, answer: str) -> Score:
    """Score an answer to a question."""
    return _SCORES[question.form](question, answer)


def _point(question: Question, answer: str) -> Score:
    width, height = question.sizes[0]
    points = read_points(answer, width, height)
    if not points:
        return Score(0.0, read=False)
    if "mask" not in question.truth:
        return _nearest(question, points)
    mask = decode_mask(question.truth["mask"])
    inside = [bool(mask[min(int(y), height - 1), min(int(x), width - 1)]) for x, y in points]
    return Score(sum(inside) / len(inside), read=True)


def _nearest(question: Question, points: Sequence[tuple[float, float]]) -> Score:
    """Points are right within a radius of a true point, as benchmarks without masks count."""
    truth, radius = np.array(question.truth["points"], float), float(question.truth["radius"])
    gaps = np.linalg.norm(np.array(points)[:, None] - truth[None], axis=-1)
    return Score(float((gaps.min(1) <= radius).mean()), read=True)


def _box(question: Question, answer: str) -> Score:
    box = read_box(answer, *question.sizes[0])
    if box is None:
        return Score(0.0, read=False)
    overlap = iou(box, question.truth["box"])
    return Score(float(overlap >= BOX_IOU), read=True, detail=overlap)


def iou(a: Box | Sequence[float], b: Box | Sequence[float]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom).

    Example:
        >>> iou((0, 0, 2, 1), (1, 0, 3, 1)) == 1 / 3
        True
    """
    across = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    down = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    both = across * down
    return both / (sum(areas) - both) if both else 0.0


def _choice(question: Question, answer: str) -> Score:
    chosen = read_choice(answer, question.options, question.lettered)
    return Score(float(chosen == question.right), read=chosen is not None)


def _number(question: Question, answer: str) -> Score:
    value = read_number(answer, question.truth.get("unit", ""))
    if value is None:
        return Score(0.0, read=False)
    true = float(question.truth["value"])
    error = abs(value - true) / max(abs(true), _LEAST_VALUE)
    return Score(float(np.mean([error < 1 - accuracy for accuracy in ACCURACIES])), read=True, detail=error)


def _trace(question: Question, answer: str) -> Score:
    width, height = question.sizes[0]
    points, true = read_points(answer, width, height), np.array(question.truth["points"], float)
    if not points:
        return Score(0.0, read=False)
    # A trace that stops early stays where it stopped.
    drawn = np.array([*points, *[points[-1]] * len(true)], float)[: len(true)]
    distance = float(np.linalg.norm(drawn - true, axis=1).mean() / np.hypot(width, height))
    return Score(float(distance <= TRACE_DISTANCE), read=True, detail=distance)


_SCORES: dict[str, Callable[[Question, str], Score]] = {
    "point": _point,
    "box": _box,
    "choice": _choice,
    "number": _number,
    "trace": _trace,
}


@dataclass(frozen=True)
class Row:
    """Scores of several questions.

    Attributes:
        mean: of the scores, ``interval``: its 95 %.
        n: questions, ``layouts``: different ones that their images show.
        unread: answers that could not be read, ``cut``: that were cut by the token limit.
        detail: median of the details; ``None`` without them.
        constant: score of the best constant answers; ``None`` without a training split.
        blind: score of the same model without images; ``None`` where it was not asked.
    """

    mean: float
    interval: Interval
    n: int
    layouts: int
    unread: int
    cut: int
    detail: float | None
    constant: float | None
    blind: float | None

    def as_dict(self) -> dict[str, Any]:
        """Dictionary for JSON."""
        return {**vars(self), "interval": list(self.interval)}


@dataclass(frozen=True)
class Scored:
    """A question, the score of its answer, and what it is compared with."""

    question: Question
    score: Score
    cut: bool
    constant: Score | None
    blind: Score | None


def summarise(scored: Iterable[Scored], key: Callable[[Question], str]) -> dict[str, Row]:
    """Rows of scores, by what a question belongs to."""
    groups: dict[str, list[Scored]] = defaultdict(list)
    for one in scored:
        groups[key(one.question)].append(one)
    return {name: row_of(groups[name]) for name in sorted(groups)}


def row_of(scored: Sequence[Scored]) -> Row:
    """The row of at least one question. Questions on one layout are drawn together, as they resemble each other."""
    values = [one.score.value for one in scored]
    details = [one.score.detail for one in scored if one.score.detail is not None]
    return Row(
        mean=float(np.mean(values)),
        interval=interval_of([one.question for one in scored], values),
        n=len(scored),
        layouts=len({layout_of(one.question) for one in scored}),
        unread=sum(not one.score.read for one in scored),
        cut=sum(one.cut for one in scored),
        detail=median(details) if details else None,
        constant=_mean([one.constant for one in scored]),
        blind=_mean([one.blind for one in scored]),
    )


def _mean(scores: Sequence[Score | None]) -> float | None:
    known = [one.value for one in scores if one is not None]
    return float(np.mean(known)) if len(known) == len(scores) else None


def layout_of(question: Question) -> str:
    """The cluster of a question: its layout, or in benchmarks its image."""
    return f"{question.task}/{question.layout}" if question.layout else question.images[0]


def interval_of(questions: Sequence[Question], values: Sequence[float]) -> Interval:
    """95 % interval of a mean of scores: bootstrap over layouts; Wilson's where all layouts agree."""
    stratum = stratum_of(questions, values)
    if stratum.constant:
        return wilson(round(sum(values)), len(values))
    return stratified_bootstrap([stratum])


def stratum_of(questions: Sequence[Question], values: Sequence[float]) -> Stratum:
    """Sums and numbers of scores per layout."""
    totals: Mapping[str, list[float]] = defaultdict(list)
    for question, value in zip(questions, values, strict=True):
        totals[layout_of(question)].append(value)
    return Stratum.of([sum(group) for group in totals.values()], [len(group) for group in totals.values()])
