"""Patterns over the episodes of a run: where it fails, and which way it misses.

The candidates are fixed before anybody looks: :data:`SPLITS` of the layouts of each task, and :data:`DIRECTIONS` of
the misses of all tasks together. Every p-value is corrected for all candidates that the run could be asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.conventions.rotations import angle_difference, heading
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.evaluation.comparison import holm, p_text
from vlaser_gym.evaluation.diagnosis.rules import Diagnosis
from vlaser_gym.evaluation.table import short_name

Floats = NDArray[np.float64]
Diagnosed = Sequence[tuple[Mapping[str, Any], Diagnosis]]

#: Least number of layouts on each side of a split, and of misses of a direction.
_FEWEST = 4
#: Places nearer to each other than this are alike when layouts are split, m; and rad where angles are.
_ALIKE = 0.01
#: Permutations where layouts have several trials.
_PERMUTATIONS = 9999


@dataclass(frozen=True)
class Pattern:
    """Something that a run's failures have in common.

    Attributes:
        sentence: without its test.
        p: two-sided: of a split an exact test (Fisher's, within tasks; by permutation where layouts have
            several trials), of a direction a sign test.
        subject: what it is about: a task, ``all tasks``, or ``misses``.
        corrected: by Holm's method, for all candidates that were looked at.
    """

    sentence: str
    p: float
    subject: str
    corrected: float = 1.0

    def told(self, candidates: int) -> str:
        """The sentence and its test."""
        chance = "" if self.corrected <= 0.05 else "; may be chance"
        equal = "" if p_text(self.p).startswith("<") else "= "
        after = p_text(self.corrected)
        return (
            f"{self.sentence} (p {equal}{p_text(self.p)}, {after} corrected for the {candidates} patterns looked at"
            f"{chance})."
        )


@dataclass(frozen=True)
class _Layout:
    """A layout of one task in a run.

    Attributes:
        place: of the object or the handle at first, ``[2]`` (m, robot frame).
        goal: where it belongs, ``[2]``.
        yaw: of the object in the robot's frame, rad; of the robot where there is none.
        rate: share of successes.
        misses: ``[k, 2]``, from the object to where the gripper closed on nothing.
    """

    place: Floats
    goal: Floats
    yaw: float
    rate: float
    n: int
    misses: Floats


#: Candidates: names of the upper and the lower part of a task's layouts, and the number by which they are split.
SPLITS: tuple[tuple[str, str, Callable[[_Layout, Floats], float]], ...] = (
    ("outer layouts", "inner", lambda layout, middle: float(np.hypot(*(layout.place - middle)))),
    ("layouts on the left", "right", lambda layout, middle: float(layout.place[1])),
    ("layouts far from the robot", "near", lambda layout, middle: float(layout.place[0])),
    ("layouts with a far goal", "near goal", lambda layout, middle: float(np.hypot(*(layout.goal - layout.place)))),
    ("layouts with the object across", "along", lambda layout, middle: float(abs(np.sin(layout.yaw)))),
)
#: Candidates: which way a miss goes, the other way, and the number whose sign tells.
DIRECTIONS: tuple[tuple[str, str, Callable[[Floats, Floats, Floats], float]], ...] = (
    ("towards the middle of the work area", "outwards", lambda miss, place, middle: float(miss @ (middle - place))),
    ("to the left", "to the right", lambda miss, place, middle: float(miss[1])),
    ("beyond the object", "short of it", lambda miss, place, middle: float(miss[0])),
)


def find_patterns(diagnosed: Diagnosed) -> tuple[tuple[Pattern, ...], int]:
    """All candidates that could be asked, the strongest first, and how many they are.

    Args:
        diagnosed: records with their diagnoses, of one run.
    """
    tasks = {name: _layouts(name, diagnosed) for name in dict.fromkeys(record["task"] for record, _ in diagnosed)}
    found = [*_directions(tasks, diagnosed), *_splits(tasks)]
    corrected = holm([pattern.p for pattern in found]) if found else []
    patterns = [replace(pattern, corrected=p) for pattern, p in zip(found, corrected, strict=True)]
    return tuple(sorted(patterns, key=lambda pattern: pattern.p)), len(patterns)


def strongest(diagnosed: Diagnosed, count: int = 3) -> list[str]:
    """Sentences about the strongest patterns, one for each subject, with their tests."""
    patterns, candidates = find_patterns(diagnosed)
    firsts = {pattern.subject: pattern for pattern in reversed(patterns)}
    return [pattern.told(candidates) for pattern in patterns if firsts[pattern.subject] is pattern][:count]


def _layouts(task: str, diagnosed: Diagnosed) -> list[_Layout]:
    """The layouts of a task whose episodes have places."""
    groups: dict[tuple[str, str], list[tuple[Mapping[str, Any], Diagnosis]]] = {}
    for record, diagnosis in diagnosed:
        if record["task"] == task and diagnosis.place is not None:
            groups.setdefault((record["variant"], record["layout"]), []).append((record, diagnosis))
    return [_layout(task, *name, group) for name, group in groups.items()]


def _layout(task: str, variant: str, layout: str, episodes: Sequence[tuple[Mapping[str, Any], Diagnosis]]) -> _Layout:
    first = episodes[0][1]
    assert first.place is not None
    misses = [diagnosis.miss[:2] for _, diagnosis in episodes if diagnosis.miss is not None]
    return _Layout(
        place=np.array(first.place[:2]),
        goal=np.array((first.goal or first.place)[:2]),
        yaw=_yaw(task, variant, layout),
        rate=sum(bool(record["success"]) for record, _ in episodes) / len(episodes),
        n=len(episodes),
        misses=np.array(misses).reshape(-1, 2),
    )


def _yaw(task_name: str, variant: str, layout_name: str) -> float:
    """Yaw of the source in the robot's frame."""
    task = get_task(task_name)
    layout = task.layout(layout_name, variant)
    base = np.array(layout.base_pose or get_setup(task.robot_setup).base_pose)
    source = task.source if layout.source is None else layout.source
    if not 0 <= source < len(layout.object_pose):  # a drawer, which turns with the scenery
        return float(heading(base[3:]))
    return float(angle_difference(heading(layout.object_pose[source, 3:]), heading(base[3:])))


def _splits(tasks: Mapping[str, Sequence[_Layout]]) -> Iterator[Pattern]:
    """Splits of each task, and of all tasks that can be split so; parts that another split has too come once."""
    asked: set[tuple[str, bytes]] = set()
    for upper, lower, value in SPLITS:
        strata: dict[str, _Stratum] = {}
        for task, layouts in tasks.items():
            above = _halves(layouts, value)
            if above is None or {(task, above.tobytes()), (task, (~above).tobytes())} & asked:
                continue
            asked.add((task, above.tobytes()))
            strata[short_name(task)] = _Stratum(layouts, above)
        for task, stratum in strata.items():
            yield Pattern(
                f"{task}: {upper} {stratum.tell(True)}, {lower} {stratum.tell(False)}", _p_of([stratum]), task
            )
        if len(strata) > 1:
            each = "; ".join(f"{task} {one.tell(True)} and {one.tell(False)}" for task, one in strata.items())
            yield Pattern(f"{upper} against {lower}: {each}", _p_of(list(strata.values())), "all tasks")


@dataclass(frozen=True)
class _Stratum:
    """The layouts of one task in two parts."""

    layouts: Sequence[_Layout]
    above: NDArray[np.bool_]

    @property
    def rates(self) -> Floats:
        """Success rates of the two parts, per layout."""
        return np.array([layout.rate for layout in self.layouts])

    def tell(self, above: bool) -> str:
        """Successes of a part."""
        part = [layout for layout, up in zip(self.layouts, self.above, strict=True) if up == above]
        return f"{round(sum(one.rate * one.n for one in part))} of {sum(one.n for one in part)}"


def _halves(layouts: Sequence[_Layout], value: Callable[[_Layout, Floats], float]) -> NDArray[np.bool_] | None:
    """The layouts above the gap in a value that splits them most evenly; ``None`` without such a gap."""
    if not 0 < sum(layout.rate for layout in layouts) < len(layouts):
        return None
    middle = np.mean([layout.place for layout in layouts], axis=0)
    values = np.array([value(layout, middle) for layout in layouts])
    ordered = np.sort(values)
    cuts = [i for i in np.flatnonzero(np.diff(ordered) > _ALIKE) + 1 if _FEWEST <= i <= len(values) - _FEWEST]
    if not cuts:
        return None
    return np.asarray(values >= ordered[min(cuts, key=lambda i: abs(i - len(values) / 2))])


def _p_of(strata: Sequence[_Stratum]) -> float:
    """Two-sided, of no difference between the parts within each task.

    Where every layout has one outcome: the exact distribution of the successes above, given each task's successes, and
    the probability of all that is no more likely than what was seen. For one task this is Fisher's exact test.
    """
    rates = [stratum.rates for stratum in strata]
    if not all(np.isin(of, (0.0, 1.0)).all() for of in rates):
        return _p_by_permutation(strata)
    from scipy.stats import hypergeom  # noqa: PLC0415

    law = np.ones(1)
    for of, stratum in zip(rates, strata, strict=True):
        n, wins, drawn = len(of), int(of.sum()), int(stratum.above.sum())
        law = np.convolve(law, hypergeom.pmf(np.arange(min(wins, drawn) + 1), n, wins, drawn))
    seen = law[sum(int(of[stratum.above].sum()) for of, stratum in zip(rates, strata, strict=True))]
    return float(min(1.0, law[law <= seen * (1 + 1e-7)].sum()))


def _p_by_permutation(strata: Sequence[_Stratum]) -> float:
    """The same by shuffling layouts within their tasks, where several trials give them rates."""
    rng = np.random.default_rng(0)
    observed, shuffled = 0.0, np.zeros(_PERMUTATIONS)
    for stratum in strata:
        rates = stratum.rates - stratum.rates.mean()
        observed += rates[stratum.above].sum()
        shuffled += rng.permuted(np.tile(rates, (_PERMUTATIONS, 1)), axis=1)[:, stratum.above].sum(1)
    return float((1 + (np.abs(shuffled) >= abs(observed) - 1e-12).sum()) / (1 + _PERMUTATIONS))


def _directions(tasks: Mapping[str, Sequence[_Layout]], diagnosed: Diagnosed) -> Iterator[Pattern]:
    """The common direction of the misses of all tasks; a layout counts once, however many trials it has."""
    from scipy.stats import binomtest  # noqa: PLC0415

    missing = sum(diagnosis.failure == "closed_on_nothing" for _, diagnosis in diagnosed)
    failures = sum(bool(diagnosis.failure) for _, diagnosis in diagnosed)
    objects = {name: layouts for name, layouts in tasks.items() if layouts and get_task(name).objects}
    for one, other, value in DIRECTIONS:
        per_layout = []
        for layouts in objects.values():
            middle = np.mean([layout.place for layout in layouts], axis=0)
            per_layout += [[value(m, layout.place, middle) for m in layout.misses] for layout in layouts]
        signs = [float(np.sign(np.sum(np.sign(values)))) for values in per_layout if values]
        signs = [sign for sign in signs if sign]
        if len(signs) < _FEWEST:
            continue
        p = float(binomtest(sum(sign > 0 for sign in signs), len(signs)).pvalue)
        every = [v for values in per_layout for v in values if v]
        positive = sum(v > 0 for v in every)
        way, most = (one, positive) if 2 * positive >= len(every) else (other, len(every) - positive)
        yield Pattern(
            f"{missing} of {failures} failures closed on nothing, {most} of {len(every)} of these {way}", p, "misses"
        )
