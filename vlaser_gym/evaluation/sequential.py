"""Stopping an evaluation as soon as its question is answered.

The question: is the agent's success rate above or below a baseline's? The evaluation runs in passes, every layout once,
then again; at looks fixed beforehand (``looks.py``) it is tested with layouts as a sample, as ``compare`` does. The
level is spent over the looks, so that all of them together give a wrong verdict with at most that chance. Why these
tests is told in ``docs/statistics.md``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.comparison import MOST_LEFT_OUT, tango
from vlaser_gym.evaluation.conventions import OUTCOMES
from vlaser_gym.evaluation.looks import FlipTest, Floats, Schedule, limits, score, spread, swaps
from vlaser_gym.evaluation.statistics import Interval
from vlaser_gym.evaluation.store import Record, address_of, read_records

#: Success of an episode; ``None`` if the simulator could not finish it.
Outcome = bool | None
#: The baseline of a sequential test: a rate, or the outcomes of a run.
Baseline = float | Mapping[Address, Outcome]
#: Evaluations simulated for each rate that an interval tries.
_INTERVAL_RUNS = 2_000
#: Limits of intervals are searched up to so many standard errors from the estimate, by halving the range so often.
_REACH, _TRIES = 6.0, 5


@dataclass(frozen=True)
class _Seen:
    """The data at an interim analysis: per layout ``sums [L]`` of outcomes or differences, and ``counts [L]``.

    ``squares`` is the sum of all squared outcomes or differences: the number of those that are not 0.
    """

    look: int
    sums: Floats
    counts: Floats
    squares: float

    @property
    def mean(self) -> float:
        """Success rate over all episodes."""
        return float(self.sums.sum() / self.counts.sum())

    @property
    def repetition(self) -> float:
        """The design effect: the number of episodes that are worth one with a layout of its own."""
        return float(spread(self.sums[None], self.counts, np.array([self.squares]))[0] / self.counts.sum())


class UntilDecided:
    """Tells an evaluation in which order to run and when to stop.

    Episodes enter the test in the order of :attr:`plan`, each as soon as all before it have ended. So the verdict does
    not depend on how many ran side by side, nor on which of them were faster: successes can be, and would otherwise
    come first. Episodes that were under way when the verdict fell are stored but not part of it.

    Several tasks are one question, that of the rate over all episodes of the plan: each counts as much, whatever its
    task. A layout of one task is another layout than that of another task.

    An episode that the simulator could not finish is a failure where a rate is the baseline. Against a run it is left
    out, whichever of the two it happened to. A look at which they are
    more than :data:`~vlaser_gym.evaluation.comparison.MOST_LEFT_OUT` decides nothing.

    Args:
        addresses: all episodes that the evaluation may run.
        baseline: a rate strictly between 0 and 1, or outcomes by address.
        level: chance at most of a wrong verdict if the agent is just as good as the baseline; half of it goes to each
            direction.

    Attributes:
        plan: the addresses, pass by pass. The order within a pass is random but the same every time: the first pass is
            looked at before its end, and the benchmark's layouts come in blocks that are not alike.
        schedule: at which numbers of episodes it is tested.
        n: episodes that have entered the test.
        wins, losses: successes and failures; against a run, episodes that only the agent (only the baseline) solved.
        errors: episodes among them that the simulator could not finish (against a run, here or there).
        verdict: ``"better"``, ``"worse"`` or ``None`` as long as it is open. It never changes once given.

    Raises:
        InvalidConfigError: for a rate or level outside (0, 1), or if the baseline run lacks some of the episodes.

    Example:
        >>> episodes = [Address("widowx_stack_cube", layout=f"grid:{k}") for k in range(24)]
        >>> until = UntilDecided(episodes, 0.5)
        >>> until({until.plan[0]: True}) is None
        True
        >>> until({address: True for address in until.plan})
        'better than 50.0 % after 9 episodes (error level 5 %)'
    """

    def __init__(self, addresses: Sequence[Address], baseline: Baseline, level: float = 0.05) -> None:
        passes = in_passes(addresses)
        self.plan = [address for episodes in passes for address in episodes]
        self.schedule = Schedule(tuple(map(len, passes)), level)
        self.baseline = baseline
        _check_baseline(baseline, addresses)
        self._test = (
            _AgainstRun(self.schedule) if isinstance(baseline, Mapping) else _AgainstRate(self.schedule, baseline)
        )
        # Layouts are numbered in the order of their first episode, with most trials first as the schedule wants it.
        trials = Counter(map(_layout, self.plan))
        numbers = {layout: k for k, layout in enumerate(sorted(trials, key=lambda layout: -trials[layout]))}
        self._layouts = np.array([numbers[_layout(address)] for address in self.plan])
        self._values, self._counted = np.zeros(len(self.plan)), np.zeros(len(self.plan))
        self._looks = self.schedule.looks.tolist()
        self._seen: list[_Seen] = []
        self.n = self.wins = self.losses = self.errors = 0
        self.verdict: str | None = None

    def __call__(self, results: Mapping[Address, Outcome]) -> str | None:
        """The reason to stop now, or ``None`` to go on.

        Args:
            results: outcomes of all episodes that have ended, by address.
        """
        while self.verdict is None and self.n < len(self.plan):
            address = self.plan[self.n]
            if address not in results:
                return None
            self._enter(address, results[address])
            if self.n in self._looks:
                self._look()
        return None if self.verdict is None else self.conclusion

    @property
    def conclusion(self) -> str:
        """The verdict in words, or why there is none."""
        if self.verdict is None and self._too_many_errors:
            return (
                f"undecided after {self.n} episodes: the simulator could not finish {self.errors} of them, "
                f"more than {100 * MOST_LEFT_OUT:g} %"
            )
        paired = isinstance(self.baseline, Mapping)
        whom = "the baseline run" if isinstance(self.baseline, Mapping) else f"{100 * self.baseline:.1f} %"
        pairs = f", {self.wins} won, {self.losses} lost" if paired and self.verdict else ""
        lost = f", {self.errors} {'left out' if paired else 'failed'} for simulator errors" if self.errors else ""
        said = f"{self.verdict} than {whom} after" if self.verdict else "undecided after all"
        return f"{said} {self.n} episodes{pairs}{lost} (error level {100 * self.schedule.level:g} %)"

    @property
    def quantity(self) -> str:
        """The quantity of :meth:`interval`: ``"rate"``, or ``"difference"`` against a run."""
        return "difference" if isinstance(self.baseline, Mapping) else "rate"

    def interval(self) -> Interval:
        """Confidence interval of the rate, or against a run of the difference of the rates (agent minus baseline).

        It holds what the last look would not have rejected as baseline, so it covers with ``1 - level`` at all looks
        together, also if one stops because of what it shows. Unlike Wilson's it takes layouts as a sample. Of a
        difference it is the wider end, on either side, of two intervals: by swaps, and Tango's score interval of as
        many pairs as the episodes are worth. Before the first look it says nothing.
        """
        return self._test.interval(self._seen)

    def _enter(self, address: Address, outcome: Outcome) -> None:
        """Take over the next episode."""
        failed = outcome is None
        value = int(bool(outcome))
        if isinstance(self.baseline, Mapping):
            other = self.baseline[address]
            failed |= other is None
            value = 0 if failed else value - int(bool(other))
            self._counted[self.n] = not failed
            self.losses += value < 0
        else:
            self._counted[self.n] = 1
            self.losses += not value
        self.wins += value > 0
        self._values[self.n] = value
        self.errors += failed
        self.n += 1

    def _look(self) -> None:
        """Run the test on the episodes finished so far."""
        if self._too_many_errors:
            return
        layouts, size = self._layouts[: self.n], self.schedule.sizes[0]
        sums, counts = (
            np.bincount(layouts, what[: self.n], size).astype(np.float64) for what in (self._values, self._counted)
        )
        squares = float(np.square(self._values[: self.n]).sum())
        self._seen.append(_Seen(self._looks.index(self.n), sums, counts, squares))
        self.verdict = self._test.verdict(self._seen)

    @property
    def _too_many_errors(self) -> bool:
        return self.errors > MOST_LEFT_OUT * self.n


class _AgainstRate:
    """Compares the number of standard errors between the agent and a rate with calibrated limits."""

    def __init__(self, schedule: Schedule, rate: float) -> None:
        self.schedule = schedule
        self.rate = rate

    def verdict(self, seen: Sequence[_Seen]) -> str | None:
        """``"better"`` or ``"worse"`` than the rate at the last of the interim analyses; ``None`` to go on."""
        now = seen[-1]
        first_pass = self.schedule.looks <= self.schedule.sizes[0]
        # The first pass needs no calibration over correlations, which takes a second.
        looks = int(first_pass.sum()) if first_pass[now.look] else None
        up, down = limits(self.schedule, self.rate, looks)[:, now.look]
        distance = float(score(now.sums[None], now.counts, self.rate)[0])
        return "better" if distance > up else "worse" if -distance > down else None

    def interval(self, seen: Sequence[_Seen]) -> Interval:
        """Rates that the last of the interim analyses does not reject, 0 to 1."""
        if not seen:
            return 0.0, 1.0
        now, mean = seen[-1], seen[-1].mean

        def is_open(rate: float) -> bool:
            """True if the last interim analysis does not reject this rate of the agent."""
            bounds = limits(self.schedule, rate, now.look + 1, _INTERVAL_RUNS)[:, -1]
            distance = score(now.sums[None], now.counts, rate)[0]
            return bool(-bounds[1] <= distance <= bounds[0])

        low, high = (_edge(mean, bound, end, is_open) for bound, end in zip(_reach(now), (0.0, 1.0), strict=True))
        return _without(self.rate, self.verdict(seen), low, high)


class _AgainstRun:
    """Flips the signs of layouts' sums of differences."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.signs = swaps(schedule.sizes[0])
        self._test, self._tested, self._said = FlipTest(self.signs), 0, 0

    def verdict(self, seen: Sequence[_Seen]) -> str | None:
        """``"better"`` or ``"worse"`` than the run at the last of the interim analyses; ``None`` to go on."""
        for look in seen[self._tested :]:
            self._said = int(self._test.look(look.sums[None], self.schedule.spent[look.look])[0])
        self._tested = len(seen)
        return {1: "better", -1: "worse"}.get(self._said)

    def interval(self, seen: Sequence[_Seen]) -> Interval:
        """Differences of rates, -1 to 1, that the last of the interim analyses does not reject."""
        if not seen:
            return -1.0, 1.0
        now = seen[-1]

        def is_open(difference: float) -> bool:
            """True if the last interim analysis does not reject this difference between agent and baseline."""
            test = FlipTest(self.signs)
            said = [test.look((s.sums - difference * s.counts)[None], self.schedule.spent[s.look]) for s in seen]
            return int(said[-1][0]) == 0

        by_swaps = [_edge(now.mean, end, end, is_open, tries=8) for end in (-1.0, 1.0)]
        # Swaps take differences as symmetric around the true one, which single outcomes are around none but 0.
        pairs = now.counts.sum() / now.repetition
        won, lost = (pairs * (now.squares + sign * now.sums.sum()) / 2 / now.counts.sum() for sign in (1, -1))
        by_score = tango(lost, won, pairs, 1 - self.schedule.spent[now.look])
        low, high = min(by_swaps[0], by_score[0]), max(by_swaps[1], by_score[1])
        return _without(0.0, self.verdict(seen), low, high)


def _without(null: float, verdict: str | None, low: float, high: float) -> Interval:
    """Limits lie a little outside of what is possible, but never beyond what the verdict has ruled out."""
    return (max(low, null) if verdict == "better" else low), (min(high, null) if verdict == "worse" else high)


def _reach(now: _Seen) -> Interval:
    """Rates so far from the estimate that it is many standard errors from each of them."""
    weight, mean = _REACH**2 * now.repetition / now.counts.sum(), now.mean
    middle, half = mean + weight / 2, np.sqrt(weight * mean * (1 - mean) + weight**2 / 4)
    return max(0.0, float((middle - half) / (1 + weight))), min(1.0, float((middle + half) / (1 + weight)))


def _edge(inside: float, outside: float, end: float, is_open: Callable[[float], bool], tries: int = _TRIES) -> float:
    """The edge of the possible values, slightly outside.

    Args:
        inside: a value that is possible.
        outside: one that hardly is.
        end: where the search goes on if that one is possible too.
        is_open: tells.
        tries: how often the range is halved.
    """
    if inside == end:
        return end
    if outside != end and is_open(outside):
        inside, outside = outside, end
    for _ in range(tries):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if is_open(middle) else (inside, middle)
    return outside


def in_passes(addresses: Sequence[Address]) -> list[list[Address]]:
    """Every layout once, then again those that have further trials.

    The order within a pass is random but depends on nothing except the set of the addresses.
    """
    passes: list[list[Address]] = []
    begun: Counter[tuple[str, str, str]] = Counter()
    for address in sorted(addresses, key=lambda address: address.sort_key):
        turn = begun[_layout(address)]
        begun[_layout(address)] += 1
        passes += [[]] if turn == len(passes) else []
        passes[turn].append(address)
    # The seed is arbitrary. It is fixed so that a run that was interrupted goes on in the same order.
    rng = np.random.default_rng(20250131)
    return [[episodes[index] for index in rng.permutation(len(episodes))] for episodes in passes]


def outcome_of(record: Record, count: str = "last") -> Outcome:
    """Success of a stored episode by a way to count; ``None`` if the simulator could not finish it."""
    return None if record["error"] is not None else bool(record[OUTCOMES[count]])


def read_baseline(baseline: Any, count: str = "last") -> Baseline:
    """``baseline=`` of the evaluation command: a run directory, or a rate (numbers above 1 are percent).

    Raises:
        InvalidConfigError: for anything else.
        StorageError: if the directory holds no run.
    """
    text = str(baseline)
    if Path(text).is_dir():
        return {address_of(record): outcome_of(record, count) for record in read_records(text)}
    try:
        rate = float(text.removesuffix("%"))
    except ValueError:
        raise InvalidConfigError(
            f"baseline must be a run directory or a success rate such as 0.65 or 65%; got {text!r}."
        ) from None
    return rate / 100 if rate > 1 or text.endswith("%") else rate


def _check_baseline(baseline: Baseline, plan: Sequence[Address]) -> None:
    if isinstance(baseline, Mapping):
        if missing := [address for address in plan if address not in baseline]:
            raise InvalidConfigError(
                f"The baseline run lacks {len(missing)} of {len(plan)} episodes, for instance {missing[0]}: "
                "give it and this evaluation the same task, variant, layouts, episodes and trials."
            )
    elif not 0 < baseline < 1:
        raise InvalidConfigError(
            f"A baseline rate lies strictly between 0 and 1 (0 and 100 %); got {baseline:g}: against certain "
            "failure or success a single episode decides."
        )


def _layout(address: Address) -> tuple[str, str, str]:
    """The layout key that the trials of an episode share."""
    return address.task, address.variant, address.layout
