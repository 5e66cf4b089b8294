"""Failures on the page: how many of each class, a map of each task's layouts, what a second run changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from vlaser_gym.envs.address import Address
from vlaser_gym.evaluation.diagnosis import FAILURE_CLASSES, Diagnosis
from vlaser_gym.evaluation.diagnosis.changes import class_changes, layout_changes
from vlaser_gym.evaluation.diagnosis.patterns import find_patterns
from vlaser_gym.evaluation.statistics import wilson
from vlaser_gym.evaluation.store import Record

Diagnoses = Mapping[Address, Diagnosis]
Floats = NDArray[np.float64]

#: Patterns that the page shows.
_MOST_PATTERNS = 8
#: Side of a map and its border, px; least extent that it shows, m.
_SIDE, _BORDER, _EXTENT = 260, 26, 0.12
#: Episodes that begin at places nearer than this stand on a ring around it, of this radius; m.
_SAME_PLACE, _RING = 0.012, 0.011


def failure_rows(diagnoses: Diagnoses, tasks: Sequence[str]) -> list[dict[str, Any]]:
    """A row per class that occurs: episodes with their share and its 95 % interval, and how many of each task."""
    counts = Counter(diagnosis.failure for diagnosis in diagnoses.values())
    per_task = Counter((address.task, diagnosis.failure) for address, diagnosis in diagnoses.items())
    return [
        {
            "key": key,
            "label": kind.label,
            "meaning": kind.meaning,
            "count": counts[key],
            "share": counts[key] / len(diagnoses),
            "interval": wilson(counts[key], len(diagnoses)),
            "tasks": [per_task[task, key] for task in tasks],
        }
        for key, kind in FAILURE_CLASSES.items()
        if counts[key]
    ]


def pattern_lines(records: Mapping[Address, Record], diagnoses: Diagnoses) -> list[str]:
    """The strongest patterns in words, with their tests."""
    patterns, candidates = find_patterns([(records[address], diagnosis) for address, diagnosis in diagnoses.items()])
    return [pattern.told(candidates) for pattern in patterns[:_MOST_PATTERNS] if pattern.p < 0.2]


def changed_classes(a: Diagnoses, b: Diagnoses) -> list[dict[str, Any]]:
    """A row per class: how often it occurs in both runs, what B mended and broke, and what became of the others."""
    return [
        {
            "label": FAILURE_CLASSES[change.failure].label,
            "change": change,
            "became": ", ".join(f"{FAILURE_CLASSES[key].label} {n}" for key, n in Counter(change.became).most_common()),
        }
        for change in class_changes(a, b)
    ]


def changed_layouts(a: Diagnoses, b: Diagnoses) -> dict[str, dict[str, str]]:
    """Task -> what happened -> the layouts, in words."""
    return {
        task: {what: ", ".join(layouts) or "none" for what, layouts in lists.items()}
        for task, lists in layout_changes(a, b).items()
    }


@dataclass(frozen=True)
class _Spot:
    """An episode on a map: where it begins, where it belongs, where it missed; ``[2]``, m, robot frame."""

    address: Address
    place: Floats
    goal: Floats | None
    miss: Floats | None
    kind: str
    words: str


def layout_map(task: str, diagnoses: Diagnoses, outcomes: Mapping[Address, str]) -> Markup | None:
    """The work area from above as SVG, the robot below it: every episode at its place, misses as lines.

    Args:
        task: whose episodes are shown.
        diagnoses: of the run.
        outcomes: ``success``, ``lost``, ``failure`` or ``error`` of every episode.

    Returns:
        ``None`` where no episode has a place.
    """
    spots = list(_spots(task, diagnoses, outcomes))
    if not spots:
        return None
    points = np.array([p for spot in spots for p in (spot.place, spot.goal) if p is not None])
    low, high = points.min(0), points.max(0)
    middle, extent = (low + high) / 2, max(float((high - low).max()), _EXTENT) + 2 * _RING
    scale = (_SIDE - 2 * _BORDER) / extent

    def at(point: Floats) -> tuple[float, float]:
        """Left is left, and away from the robot is up."""
        x, y = (point - middle) * scale
        return _SIDE / 2 - float(y), _SIDE / 2 - float(x)

    goals = sorted({tuple(np.round(at(spot.goal), 0)) for spot in spots if spot.goal is not None})
    square = Markup('<rect class="goal" x="{:.0f}" y="{:.0f}" width="12" height="12"/>')
    dot = Markup('<a href="#{}"><circle class="spot {}" cx="{:.1f}" cy="{:.1f}" r="4.2"><title>{}</title></circle></a>')
    parts = [
        Markup('<svg class="map" viewBox="0 0 {0} {0}" role="img" aria-label="Layouts of {1} from above">').format(
            _SIDE, task
        ),
        *(square.format(x - 6, y - 6) for x, y in goals),
        *_missed(spots, at),
        *(dot.format(spot.address, spot.kind, *at(spot.place), spot.words) for spot in spots),
        _scale_bar(scale),
    ]
    return Markup("").join([*parts, Markup("</svg>")])


def _spots(task: str, diagnoses: Diagnoses, outcomes: Mapping[Address, str]) -> Iterator[_Spot]:
    """Episodes of a task; those of one place next to each other, on a ring."""
    mine = [(address, found) for address, found in diagnoses.items() if address.task == task and found.place]
    places: list[tuple[Floats, list[tuple[Address, Diagnosis]]]] = []
    for address, found in mine:
        here = np.array(found.place)[:2]
        near = next((of for place, of in places if np.hypot(*(place - here)) < _SAME_PLACE), None)
        if near is None:
            places.append((here, [(address, found)]))
        else:
            near.append((address, found))
    for here, together in places:
        for number, (address, found) in enumerate(together):
            turn = 2 * np.pi * number / len(together)
            place = here + (_RING * np.array([np.cos(turn), np.sin(turn)]) if len(together) > 1 else 0.0)
            words = f"{address.layout}: {found.sentence or 'success'}"
            miss = None if found.miss is None else place + np.array(found.miss[:2])
            goal = None if found.goal is None else np.array(found.goal[:2])
            yield _Spot(address, place, goal, miss, outcomes[address], words)


def _missed(spots: Sequence[_Spot], at: Any) -> Iterator[Markup]:
    for spot in spots:
        if spot.miss is not None:
            (x, y), (to_x, to_y) = at(spot.place), at(spot.miss)
            yield Markup(
                '<line class="miss" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'
                '<circle class="missed" cx="{:.1f}" cy="{:.1f}" r="1.8"/>'
            ).format(x, y, to_x, to_y, to_x, to_y)


def _scale_bar(scale: float) -> Markup:
    """A scale bar of five centimetres."""
    return Markup(
        '<line class="bar" x1="10" x2="{:.1f}" y1="{y}" y2="{y}"/><text x="10" y="{t}">5 cm</text>'
        '<text x="{m}" y="{t}" text-anchor="end">robot &#8595;</text>'
    ).format(10 + 0.05 * scale, y=_SIDE - 8, t=_SIDE - 12, m=_SIDE - 8)
