"""Paired comparison of runs, episode by episode, on the same addresses.

Methods and their reasons are in ``docs/statistics.md``. Differences are B minus A; A, the first run, is the baseline.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from math import lcm, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from vlaser_gym.agents.vlaser.versions import why_outdated
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.evaluation.bootstrap import Stratum, mean_over_tasks, stratified_bootstrap
from vlaser_gym.evaluation.conventions import OUTCOMES
from vlaser_gym.evaluation.plan import Reduction, double_counts
from vlaser_gym.evaluation.statistics import Interval, mean_of_rates, wilson
from vlaser_gym.evaluation.store import Record, address_of, read_config, read_records

#: What names a layout: its trials are alike.
LayoutKey = tuple[str, str, str]
#: Fields of records and settings in which runs should agree before their rates are compared.
_SAME_FIELDS = ("engine", "engine_version", "look")
_SAME_SETTINGS = ("terminate_on_success", "vlaser_gym")
#: Largest share of pairs with an error beside which a comparison still decides; why is told in docs/statistics.md.
MOST_LEFT_OUT = 0.05
#: Sum of the weights of all layouts, up to which weights are exact; beyond, they are rounded.
_FINE = 200_000


@dataclass(frozen=True)
class StoredRun:
    """A run as it was stored.

    Attributes:
        label: short name, different for the runs of one comparison.
        config: its settings.
        records: by address.
    """

    path: Path
    label: str
    config: Mapping[str, Any]
    records: Mapping[Address, Record]


def load_runs(paths: Sequence[str | Path]) -> list[StoredRun]:
    """Read runs and give them short names.

    Raises:
        InvalidConfigError: if a run is named twice or holds no finished episode.
        StorageError: if a path is no run directory.
    """
    folders = [Path(path) for path in paths]
    twice = [str(p) for p, n in Counter(folder.resolve() for folder in folders).items() if n > 1]
    if twice:
        raise InvalidConfigError(f"The run {twice[0]} was given twice: a comparison needs different runs.")
    runs = []
    for folder, label in zip(folders, _labels(folders), strict=True):
        records = {address_of(record): record for record in read_records(folder)}
        if not records:
            raise InvalidConfigError(f"{folder} holds no finished episode yet: run it with python -m vlaser_gym.eval.")
        runs.append(StoredRun(folder, label, read_config(folder), records))
    return runs


@dataclass(frozen=True)
class TaskDifference:
    """Difference of one task, or of all (``task="all"``: unweighted mean over tasks).

    Attributes:
        n: episodes that both runs hold.
        errors_a, errors_b: those of them that the simulator did not finish.
        a, b: success rates of all ``n``, in which an error is a failure; intervals in ``a_interval``, ``b_interval``.
        tested: pairs without an error; what follows is about these.
        layouts: how many different layouts these are.
        only_a, only_b, both, neither: how many of them ended how.
        difference: rate of B minus rate of A, with ``interval``; both ``None`` if no pair is without an error.
        method: how the interval was found.
        p: two-sided, uncorrected; ``None`` if more than :data:`MOST_LEFT_OUT` of the pairs hold an error.
        p_holm: after Holm's correction; equal to ``p`` if nothing else was tested.
    """

    task: str
    n: int
    errors_a: int
    errors_b: int
    tested: int
    layouts: int
    a: float
    a_interval: Interval
    b: float
    b_interval: Interval
    only_a: int
    only_b: int
    both: int
    neither: int
    difference: float | None
    interval: Interval | None
    method: str
    p: float | None
    p_holm: float | None = None


@dataclass(frozen=True)
class RunComparison:
    """A against one other run.

    Attributes:
        a, b: labels.
        unpaired: episodes of A and of B that the other lacks; they are left out.
        warnings: in what the runs differ besides the agent.
        tasks: a row per task.
        overall: all tasks together.
    """

    a: str
    b: str
    unpaired: tuple[int, int]
    warnings: tuple[str, ...]
    tasks: tuple[TaskDifference, ...]
    overall: TaskDifference


@dataclass(frozen=True)
class Comparison:
    """The first run against each of the others."""

    count: str
    level: float
    runs: tuple[str, ...]
    against: tuple[RunComparison, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """Dictionary for JSON."""
        return asdict(self)


def compare_runs(runs: Sequence[StoredRun], count: str = "last", level: float = 0.95) -> Comparison:
    """Compare the first run with each of the others.

    Args:
        runs: two or more.
        count: ``"last"`` or ``"any"``: success at the last step, or at any.
        level: coverage of the intervals.

    Returns:
        The differences. Pairs with an episode that the simulator did not finish count in the rates and nowhere else.
        P-values are corrected by Holm's method: those of ``overall`` among the runs, those of single tasks among all
        tasks of all runs.

    Raises:
        InvalidConfigError: for fewer than two runs, or runs without a common address.
        UnknownNameError: for another way to count.
    """
    if len(runs) < 2:
        raise InvalidConfigError(f"A comparison needs two runs or more; got {len(runs)}.")
    if count not in OUTCOMES:
        raise UnknownNameError("way to count", count, OUTCOMES)
    if not 0 < level < 1:
        raise InvalidConfigError(f"level must lie between 0 and 1; got {level}.")
    found = [_compare_two(runs[0], other, OUTCOMES[count], level) for other in runs[1:]]
    overall = _corrected([two.overall.p for two in found])
    single = _corrected([row.p for two in found for row in two.tasks])
    corrected = [
        replace(
            two,
            tasks=tuple(replace(row, p_holm=next(single)) for row in two.tasks),
            overall=replace(two.overall, p_holm=next(overall)),
        )
        for two in found
    ]
    return Comparison(count, level, tuple(run.label for run in runs), tuple(corrected))


def common_addresses(a: StoredRun, b: StoredRun) -> list[Address]:
    """Addresses that both runs hold, sorted.

    Raises:
        InvalidConfigError: if there is none.
    """
    common = sorted(a.records.keys() & b.records.keys(), key=lambda address: address.sort_key)
    if not common:
        raise InvalidConfigError(
            f"{a.path} and {b.path} have no episode in common (task, variant, layout and trial must be the same); "
            f"the first holds {min(map(str, a.records))}, the second {min(map(str, b.records))}: "
            "repeat one of them with the other's settings."
        )
    return common


def differing_protocols(a: StoredRun, b: StoredRun) -> tuple[str, ...]:
    """Differences of two runs that change rates, besides the agent: one sentence each."""
    sides = {}
    for name in _SAME_FIELDS:
        values = [", ".join(sorted({str(r[name]) for r in run.records.values()})) for run in (a, b)]
        sides[name.replace("_", " ")] = values
    for name in _SAME_SETTINGS:
        sides[name] = [str(run.config.get(name, "not stored")) for run in (a, b)]
    sides["perturb"] = [str(run.config.get("perturb") or "none") for run in (a, b)]
    sides["instruction"] = [str(run.config.get("instruction") or "the tasks' own") for run in (a, b)]
    environments = [run.config.get("environment_settings") or {} for run in (a, b)]
    for task in environments[0]:
        for name in environments[0][task]:
            if name in environments[1].get(task, {}):
                sides[f"{name.replace('_', ' ')} of {task}"] = [str(settings[task][name]) for settings in environments]
    differing = [
        f"{name} differs: {first} in {a.label}, {second} in {b.label}."
        for name, (first, second) in sides.items()
        if first != second
    ]
    outdated = [(run.label, why_outdated(run.config.get("agent_settings"))) for run in (a, b)]
    reduced = [f"{run.label} is {reduction}." for run in (a, b) if (reduction := Reduction.of(run.config))]
    return (*differing, *(f"{label} was {why}." for label, why in outdated if why is not None), *reduced)


def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's exact test: two-sided p-value of the null that either run alone succeeds equally often.

    Example:
        >>> round(mcnemar(1, 9), 4)
        0.0215
    """
    from scipy.stats import binomtest  # noqa: PLC0415  loading it takes a second

    return float(binomtest(only_b, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def sign_flip(totals: Sequence[int]) -> float:
    """Exact two-sided p-value of the null that A and B may be swapped on any layout.

    The statistic is the sum of ``totals``; its distribution under all swaps is found by convolution. With one trial per
    layout, totals are -1, 0 and 1, and the test is McNemar's.

    Args:
        totals: per layout, successes of B minus successes of A, all times the same weight or each times its own.
    """
    distribution = np.ones(1)
    for size in (abs(int(total)) for total in totals if total):
        wider = np.zeros(len(distribution) + 2 * size)
        wider[: len(distribution)] += distribution / 2
        wider[2 * size :] += distribution / 2
        distribution = wider
    reach = len(distribution) // 2
    sums = np.abs(np.arange(-reach, reach + 1))
    return float(min(1.0, distribution[sums >= abs(sum(totals))].sum()))


def tango(only_a: float, only_b: float, n: float, level: float = 0.95) -> Interval:
    """Score interval of the difference of two paired rates, B minus A (Tango 1998, Statistics in Medicine 17, 891-908).

    Args:
        only_a, only_b: pairs with just one success.
        n: all pairs, at least 1.
        level: coverage aimed at.
    """
    from scipy.optimize import brentq  # noqa: PLC0415
    from scipy.stats import norm  # noqa: PLC0415

    if min(only_a, only_b) < 0 or n < max(1, only_a + only_b):
        raise ValueError(f"expected {only_a} + {only_b} discordant pairs among n = {n}")
    z = float(norm.isf((1 - level) / 2))
    estimate = (only_b - only_a) / n

    def score(difference: float) -> float:
        """Standard errors by which the estimate exceeds a difference, if that were the true one."""
        a, c = 2 * n, -only_a * difference * (1 - difference)
        b = -only_b - only_a + (2 * n - only_b + only_a) * difference
        share = (sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        variance = n * (2 * share + difference * (1 - difference))
        return (only_b - only_a - n * difference) / sqrt(max(variance, 1e-300))

    inside = 1 - 1e-12
    low = -1.0 if estimate <= -inside else brentq(lambda d: score(d) - z, -inside, estimate, xtol=1e-12)
    high = 1.0 if estimate >= inside else brentq(lambda d: score(d) + z, estimate, inside, xtol=1e-12)
    return float(low), float(high)


def holm(ps: Sequence[float]) -> list[float]:
    """P-values corrected for having tested several hypotheses (Holm 1979).

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(ps)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        corrected[index] = largest
    return corrected


def _corrected(ps: Sequence[float | None]) -> Iterator[float | None]:
    """Holm's correction among what was tested."""
    corrected = iter(holm([p for p in ps if p is not None]))
    return iter([None if p is None else next(corrected) for p in ps])


@dataclass(frozen=True)
class _Pairs:
    """Outcomes of the pairs of one task, and of what they sum up to per layout.

    Attributes:
        all: outcomes of A and B of all pairs, in which an error is a failure.
        errors: how many of A and of B are errors.
        outcomes: of the pairs that are tested.
        layouts: those of them; ``None`` if no pair is tested.
    """

    task: str
    all: tuple[tuple[bool, bool], ...]
    errors: tuple[int, int]
    outcomes: tuple[tuple[bool, bool], ...]
    layouts: Stratum | None

    @classmethod
    def of(
        cls, task: str, addresses: Sequence[Address], runs: tuple[StoredRun, StoredRun], key: str, with_errors: bool
    ) -> _Pairs:
        """Pairs of a task's episodes, which both runs hold, by the success that records keep as ``key``.

        Args:
            with_errors: pairs with an error are tested, too.
        """
        records = [tuple(run.records[address] for run in runs) for address in addresses]
        outcomes = [(bool(a[key]), bool(b[key])) for a, b in records]
        failed = [(a["error"] is not None, b["error"] is not None) for a, b in records]
        by_layout: dict[LayoutKey, list[tuple[bool, bool]]] = {}
        for address, outcome, error in zip(addresses, outcomes, failed, strict=True):
            if with_errors or not any(error):
                by_layout.setdefault((address.task, address.variant, address.layout), []).append(outcome)
        totals = [sum(b - a for a, b in pairs) for pairs in by_layout.values()]
        layouts = Stratum.of(totals, [len(pairs) for pairs in by_layout.values()]) if totals else None
        tested = tuple(pair for pairs in by_layout.values() for pair in pairs)
        return cls(task, tuple(outcomes), (sum(a for a, _ in failed), sum(b for _, b in failed)), tested, layouts)

    def count(self, a: bool, b: bool) -> int:
        """Tested pairs in which A and B ended so."""
        return self.outcomes.count((a, b))

    @property
    def tested(self) -> int:
        """Number of tested pairs."""
        return len(self.outcomes)

    @property
    def left_out(self) -> float:
        """Share of the pairs that are not tested."""
        return (len(self.all) - self.tested) / len(self.all)

    @property
    def difference(self) -> float | None:
        """Difference of the rates, B minus A, among the tested pairs."""
        return (self.count(False, True) - self.count(True, False)) / self.tested if self.tested else None

    @property
    def num_layouts(self) -> int:
        """Different layouts of the tested pairs."""
        return 0 if self.layouts is None else len(self.layouts.totals)

    @property
    def clustered(self) -> bool:
        """True if a layout has several trials: its pairs are then not independent."""
        return self.num_layouts < self.tested

    @property
    def can_bootstrap(self) -> bool:
        """True if the mean differences of layouts vary: resampling equal ones would show no spread."""
        return self.layouts is not None and not self.layouts.constant

    def interval(self, level: float) -> tuple[Interval | None, str]:
        """Interval of this task's difference, and the method that found it."""
        if self.layouts is None:
            return None, "no pair without an error"
        if not self.clustered:
            return tango(self.count(True, False), self.count(False, True), self.tested, level), "score (Tango)"
        if self.can_bootstrap:
            return stratified_bootstrap([self.layouts], level), "bootstrap by layout"
        return layouts_as_pairs([self.layouts], level), "score (Tango), layouts as pairs"


def layouts_as_pairs(strata: Sequence[Stratum], level: float = 0.95) -> Interval:
    """Interval of a mean difference where all layouts agree, which shows no spread: a layout then counts as one pair,
    which is on the safe side.
    """
    shown, layouts = mean_over_tasks(strata), sum(len(stratum.totals) for stratum in strata)
    only = round(abs(shown) * layouts)
    return tango(only * (shown < 0), only * (shown > 0), layouts, level)


def _compare_two(a: StoredRun, b: StoredRun, key: str, level: float) -> RunComparison:
    common = common_addresses(a, b)
    by_task = [(task, list(addresses)) for task, addresses in groupby(common, lambda address: address.task)]
    groups = [_Pairs.of(task, addresses, (a, b), key, with_errors=False) for task, addresses in by_task]
    rows = tuple(_task_difference(pairs, level) for pairs in groups)
    overall = _overall(groups, rows, level)
    warnings = [*differing_protocols(a, b)]
    warnings += [
        f"{run.label} stopped when its question was decided (until=decided): p-values and intervals do not hold for it."
        for run in (a, b)
        if run.config.get("until") == "decided"
    ]
    unpaired = len(a.records) - len(common), len(b.records) - len(common)
    if any(unpaired):
        warnings.append(
            f"Left out for want of a partner: {unpaired[0]} episodes of {a.label}, {unpaired[1]} of {b.label}."
        )
    if not (a.config.get("protocol") or b.config.get("protocol")) and (doubled := double_counts(common)):
        warnings.append(doubled)
    if overall.tested < overall.n:
        everything = [_Pairs.of(task, addresses, (a, b), key, with_errors=True) for task, addresses in by_task]
        warnings.append(_of_errors(overall, everything, a.label, b.label))
    warnings += [f"Every pair of {row.task} holds an error: it enters no difference." for row in rows if not row.tested]
    return RunComparison(a.label, b.label, unpaired, tuple(warnings), rows, overall)


def _of_errors(overall: TaskDifference, everything: Sequence[_Pairs], a: str, b: str) -> str:
    """The effect of episodes that the simulator did not finish on a comparison, in words.

    Args:
        overall: without the pairs that hold one.
        everything: all pairs, in which an error is a failure.
        a, b: labels of the runs.
    """
    difference = np.mean([pairs.difference for pairs in everything if pairs.difference is not None])
    p = "" if overall.p is None else f", p = {p_text(_p_value(everything))}"
    undecided = f" Above {100 * MOST_LEFT_OUT:g} % of the pairs nothing is decided, and no p given."
    return (
        f"In {overall.n - overall.tested} of {overall.n} pairs the simulator did not finish an episode "
        f"({overall.errors_a} of {a}, {overall.errors_b} of {b}). The rates A and B count it as a failure; B - A, its "
        f"interval and p leave the pair out: with it they would be {100 * difference:+.1f} points{p}."
    ) + (undecided if overall.p is None else "")


def _task_difference(pairs: _Pairs, level: float) -> TaskDifference:
    a, b = (sum(outcome[side] for outcome in pairs.all) for side in (0, 1))
    n = len(pairs.all)
    interval, method = pairs.interval(level)
    return TaskDifference(
        task=pairs.task,
        n=n,
        errors_a=pairs.errors[0],
        errors_b=pairs.errors[1],
        tested=pairs.tested,
        layouts=pairs.num_layouts,
        a=a / n,
        a_interval=wilson(a, n, level),
        b=b / n,
        b_interval=wilson(b, n, level),
        only_a=pairs.count(True, False),
        only_b=pairs.count(False, True),
        both=pairs.count(True, True),
        neither=pairs.count(False, False),
        difference=pairs.difference,
        interval=interval,
        method=method,
        p=_p_value([pairs]) if _decides([pairs]) else None,
    )


def _overall(groups: Sequence[_Pairs], rows: Sequence[TaskDifference], level: float) -> TaskDifference:
    """Mean over tasks; the difference is that over the tasks that have tested pairs."""
    a, a_interval = mean_of_rates([(round(row.a * row.n), row.n) for row in rows], level)
    b, b_interval = mean_of_rates([(round(row.b * row.n), row.n) for row in rows], level)
    known = [(row.difference, row.interval) for row in rows if row.difference is not None and row.interval is not None]
    difference: float | None = None
    interval: Interval | None = None
    method = rows[0].method
    if known:
        difference = float(np.mean([value for value, _ in known]))
        strata = [pairs.layouts for pairs in groups if pairs.layouts is not None]
        if any(pairs.clustered for pairs in groups) and not any(layouts.constant for layouts in strata):
            interval, pooled = stratified_bootstrap(strata, level), "bootstrap by layout, within tasks"
        else:
            # Squared distances of the limits from the differences add up (Zou and Donner 2008).
            below = sqrt(sum((value - low) ** 2 for value, (low, _) in known)) / len(known)
            above = sqrt(sum((high - value) ** 2 for value, (_, high) in known)) / len(known)
            interval, pooled = (difference - below, difference + above), "tasks' intervals combined (Zou and Donner)"
        method = method if len(rows) == 1 else pooled
    counts = ("n", "errors_a", "errors_b", "tested", "layouts", "only_a", "only_b", "both", "neither")
    return TaskDifference(
        task="all",
        a=a,
        a_interval=a_interval,
        b=b,
        b_interval=b_interval,
        difference=difference,
        interval=interval,
        method=method,
        p=_p_value(groups) if _decides(groups) else None,
        **{name: sum(getattr(row, name) for row in rows) for name in counts},
    )


def _decides(groups: Sequence[_Pairs]) -> bool:
    """True if few enough pairs are missing: in the mean over tasks, from which a task without pairs is left out."""
    return float(np.mean([pairs.left_out for pairs in groups])) <= MOST_LEFT_OUT + 1e-9


def _p_value(groups: Sequence[_Pairs]) -> float:
    """Tests the mean over tasks: layouts count as they do there, more in a task of few episodes."""
    tested = [(pairs, pairs.layouts) for pairs in groups if pairs.layouts is not None]
    weights = task_weights([pairs.tested for pairs, _ in tested])
    if len(set(weights)) > 1 or any(pairs.clustered for pairs, _ in tested):
        weighted = zip(weights, tested, strict=True)
        return sign_flip([weight * int(total) for weight, (_, layouts) in weighted for total in layouts.totals])
    return mcnemar(sum(p.count(True, False) for p, _ in tested), sum(p.count(False, True) for p, _ in tested))


def task_weights(counts: Sequence[int]) -> list[int]:
    """Whole numbers in proportion to ``1 / count``: what one episode of each task counts in the mean over tasks.

    They are rounded where exact ones would be huge. The test is exact for whatever weights are fixed beforehand.

    Example:
        >>> task_weights([24, 24]), task_weights([24, 60])
        ([1, 1], [5, 2])
    """
    common = lcm(*counts)
    if len(counts) * common > _FINE:
        common = _FINE // len(counts)
    return [max(1, round(common / count)) for count in counts] if len(set(counts)) > 1 else [1] * len(counts)


def _labels(folders: Sequence[Path]) -> list[str]:
    """Shortest ends of the paths that tell each from the others."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts), default=0) + 1):
        labels = ["/".join(p[-length:]) for p in parts]
        if len(set(labels)) == len(labels):
            return labels
    return [str(folder) for folder in folders]


def p_text(p: float | None) -> str:
    """Three digits; very small ones as a bound; a dash where nothing was tested."""
    if p is None:
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
