"""The interim analyses of a sequential test: when they happen, and the limits that decide.

Layouts count as a sample: trials of one layout resemble each other, so nothing here takes episodes as independent. All
functions work on a batch of R evaluations at once, on what each of L layouts has summed up to at each look. The same
functions serve an evaluation (R = 1) and simulate thousands of them. The choice of tests is told in
``docs/statistics.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.errors import InvalidConfigError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
#: ``draw(a, b)`` gives ``[R, b - a]``: the next outcomes of layouts ``a`` to ``b`` (excluded) in R evaluations.
Draw = Callable[[int, int], NDArray[np.bool_ | np.int64 | np.float64]]

#: No test at the usual levels can decide after fewer episodes.
FEWEST = 6
#: Looks of the first pass: each after three quarters of the episodes of the next.
_WITHIN_PASS = 0.75
#: Looks after passes: each after so many times the episodes of the one before. Up to ten passes that is every pass.
_BETWEEN_PASSES = 1.1
#: Ways to swap agent and baseline that an evaluation's outcomes are compared with, besides its own.
FLIPS = 9_999
#: More layouts than these are swapped in as many groups, which is as valid and bounds time and memory.
_GROUPS = 512
#: Correlations within layouts over which limits against a rate are calibrated; the worst one counts.
_CORRELATIONS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
#: Evaluations simulated for each of them: as many as this number of episodes makes, within limits.
_EPISODES, _FEWEST_RUNS, _MOST_RUNS = 5_000_000, 2_000, 20_000
#: Layouts times evaluations that are held in memory at once.
_CHUNK = 4_000_000
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Schedule:
    """A plan that runs in passes: every layout once, then again those that have further trials.

    Attributes:
        sizes: layouts of each pass, falling; layouts are numbered so that those with most trials come first.
        level: chance at most of a wrong verdict over all looks.

    Raises:
        InvalidConfigError: for a level outside (0, 1).

    Example:
        >>> Schedule.of(24, 3).looks.tolist()
        [6, 7, 9, 11, 14, 18, 24, 48, 72]
    """

    sizes: tuple[int, ...]
    level: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise InvalidConfigError(f"level must lie between 0 and 1; got {self.level}.")

    @classmethod
    def of(cls, layouts: int, trials: int, level: float = 0.05) -> Schedule:
        """Make from all layouts, with equally many trials."""
        return cls((layouts,) * trials, level)

    @property
    def total(self) -> int:
        """Episodes of the plan."""
        return sum(self.sizes)

    @property
    def looks(self) -> NDArray[np.int64]:
        """``[K]`` after how many episodes the test looks."""
        first, *later = np.cumsum(self.sizes).tolist()
        looks = [first]
        while (earlier := int(np.ceil(looks[0] * _WITHIN_PASS))) >= FEWEST and earlier < looks[0]:
            looks.insert(0, earlier)
        for end in later:
            if end >= _BETWEEN_PASSES * looks[-1] or end == self.total:
                looks.append(end)
        return np.array(looks)

    @property
    def spent(self) -> Floats:
        """``[K]`` chance of a wrong verdict up to each look: as much of the level as of the plan has run."""
        return np.asarray(self.level * self.looks / self.total, np.float64)

    def sums(self, runs: int, draw: Draw) -> Iterator[tuple[Floats, Floats]]:
        """Go through the plan and stop at every look.

        Args:
            runs: R.
            draw: gives the outcomes.

        Yields:
            ``[R, L]`` sums of each layout's outcomes and ``[L]`` how many they are; the same arrays every time.
        """
        sums, counts = np.zeros((runs, self.sizes[0])), np.zeros(self.sizes[0])
        looks, done = set(self.looks.tolist()), 0
        for size in self.sizes:
            stops = sorted({look - done for look in looks if done < look <= done + size} | {size})
            for begin, end in zip([0, *stops], stops, strict=False):
                sums[:, begin:end] += draw(begin, end)
                counts[begin:end] += 1
                if done + end in looks:
                    yield sums, counts
            done += size


def score(sums: Floats, counts: Floats, rate: float) -> Floats:
    """``[R]`` by how many standard errors success lies above ``rate``, with layouts as a sample.

    Args:
        sums: ``[R, L]`` successes per layout.
        counts: ``[L]`` episodes per layout.
        rate: between 0 and 1, both excluded.
    """
    episodes = counts.sum()
    return np.asarray((sums.sum(-1) - episodes * rate) / np.sqrt(rate * (1 - rate) * spread(sums, counts)), np.float64)


def spread(sums: Floats, counts: Floats, squares: Floats | None = None) -> Floats:
    """``[R]`` variance of the sum of all outcomes, in units of the variance of one of them.

    With a correlation of the trials of a layout it is N + correlation x (ordered pairs of episodes of one layout). The
    correlation is estimated: mean product of the deviations of such pairs from the overall mean, over the variance,
    kept between 0 and 1. Where all episodes end alike nothing is known of it, and it counts as 1.

    Args:
        sums: ``[R, L]`` of outcomes per layout.
        counts: ``[L]`` episodes per layout.
        squares: ``[R]`` sums of all squared outcomes, if they are not 0 and 1.
    """
    episodes, pairs = counts.sum(), (counts * (counts - 1)).sum()
    if not pairs:
        return np.full(len(sums), episodes)
    mean = sums.sum(-1) / episodes
    variance = (sums.sum(-1) if squares is None else squares) / episodes - mean**2
    products = ((sums - mean[:, None] * counts) ** 2).sum(-1) - episodes * variance
    alike = variance < _TOLERANCE
    correlation = np.clip(products / np.where(alike, 1, variance * pairs), 0, 1)
    return np.asarray(episodes + np.where(alike, 1, correlation) * pairs, np.float64)


def simulated_scores(
    schedule: Schedule,
    rate: float,
    null: float,
    rng: np.random.Generator,
    correlation: float = 0.0,
    runs: int = _MOST_RUNS,
    looks: int | None = None,
) -> Floats:
    """Simulate evaluations of an agent with a success rate of ``rate``.

    Args:
        schedule: layouts and passes.
        rate: of the agent.
        null: what it is compared with.
        rng: draws.
        correlation: of two trials of one layout.
        runs: R.
        looks: go no further than so many looks, K; by default all.

    Returns:
        ``[R, K]`` :func:`score` against ``null`` at every look.
    """
    parts = []
    for chunk in batches(runs, max(1, _CHUNK // schedule.sizes[0])):
        rates = layout_rates(rate, correlation, (chunk, schedule.sizes[0]), rng)
        steps = islice(schedule.sums(chunk, _bernoulli(rates, rng)), looks)
        parts.append(np.stack([score(sums, counts, null) for sums, counts in steps], 1))
    return np.concatenate(parts)


def layout_rates(rate: float, correlation: float, size: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Draw success rates of layouts around ``rate``, beta distributed, such that two trials of one layout correlate.

    With no correlation all layouts are alike; with a correlation of 1 each always or never succeeds.
    """
    if correlation == 0:
        return np.full(size, rate)
    if correlation == 1:
        return (rng.random(size) < rate).astype(np.float64)
    weight = (1 - correlation) / correlation
    return rng.beta(rate * weight, (1 - rate) * weight, size)


@lru_cache(maxsize=256)
def limits(schedule: Schedule, rate: float, looks: int | None = None, runs: int = _MOST_RUNS) -> Floats:
    """The limits that scores must exceed for "better", and their negatives for "worse", at each interim analysis.

    Calibrated by simulation, with a fixed seed, of agents that are exactly as good as ``rate``. If their layouts are
    alike, either verdict is given up to each look with at most half of what is spent there. In the first pass that is
    all; the limits of later looks are then raised, all by one factor, until either verdict is given with at most half
    of the level whatever the correlation within layouts is.

    Args:
        schedule: layouts, passes and error level.
        rate: of the baseline.
        looks: only the first so many, K; by default all.
        runs: evaluations to simulate at most, for each correlation.

    Returns:
        ``[2, K]``.
    """
    spent, later = schedule.spent[:looks], schedule.looks[:looks] > schedule.sizes[0]
    runs = min(max(_EPISODES // schedule.total, _FEWEST_RUNS), runs)
    # Where no layout has a second trial yet there is nothing to correlate.
    correlations = _CORRELATIONS if later.any() else _CORRELATIONS[:1]
    scores = np.stack(
        [
            simulated_scores(schedule, rate, rate, np.random.default_rng([20250131, k]), correlation, runs, len(spent))
            for k, correlation in enumerate(correlations)
        ]
    )
    return np.stack([_one_sided(side, spent / 2, later) for side in (scores, -scores)])


def _one_sided(scores: Floats, spent: Floats, later: Bools) -> Floats:
    """``[K]`` limits that scores ``[C, R, K]`` of C correlations, the first of which is 0, exceed rarely enough."""
    runs = scores.shape[1]
    alike = _exceeded_rarely(scores[0], (spent * runs + _TOLERANCE).astype(np.int64))
    if not later.any():
        return alike
    decided = (scores[..., ~later] > alike[~later]).any(-1)
    factors = np.where(decided, np.inf, (scores[..., later] / alike[later]).max(-1))
    allowed = int(spent[-1] * runs + _TOLERANCE)
    factor = max(1.0, np.sort(factors, 1)[:, -allowed - 1].max() + _TOLERANCE)
    return np.where(later, factor * alike, alike)


def _exceeded_rarely(scores: Floats, allowed: NDArray[np.int64]) -> Floats:
    """``[K]`` smallest limits that at most ``allowed [K]`` of ``[R, K]`` exceed up to each look."""
    waiting, found = np.ones(len(scores), bool), []
    for now, most in zip(scores.T, allowed, strict=True):
        left = most - int((~waiting).sum())
        found.append(np.sort(np.where(waiting, now, -np.inf))[-left - 1] + _TOLERANCE)
        waiting &= now <= found[-1]
    return np.array(found)


class FlipTest:
    """Tests at each look whether agent and baseline might as well be swapped on any layout, with all of its trials.

    The evaluation is compared with the same evaluation after swaps: its difference has to be among the largest. At each
    look so many of the swapped ones may have been "decided", this look and those before together, as the level spent
    so far allows. Which of them it is that was really observed is pure chance if the two agents may be swapped; so it
    is among the decided ones with at most that chance.

    Args:
        signs: ``[F, L]`` of :func:`swaps`; the first are all 1.
        runs: R evaluations are tested at once.
    """

    def __init__(self, signs: Floats, runs: int = 1) -> None:
        self.signs = signs
        self._waiting = np.ones((runs, len(signs)), bool)

    def look(self, sums: Floats, spent: float) -> NDArray[np.int64]:
        """The next look.

        Args:
            sums: ``[R, L]`` sums of differences (agent minus baseline) per layout.
            spent: chance of a wrong verdict up to this look.

        Returns:
            ``[R]`` 1 where the agent is better and this look decides so, -1 where it is worse, 0 where it stays open.
            Of an evaluation that an earlier look has decided it is what this look would say without that.
        """
        runs, layouts = sums.shape
        if layouts > _GROUPS:  # as sums of at most as many groups as are swapped
            padded = np.pad(sums, ((0, 0), (0, -layouts % _GROUPS)))
            sums = np.asarray(padded.reshape(runs, -1, _GROUPS).sum(1), np.float64)
        totals = sums @ self.signs.T
        sizes = np.where(self._waiting, np.abs(totals), -1.0)
        most = int(spent * len(self.signs) + _TOLERANCE)
        largest = np.sort(np.partition(sizes, -most - 1)[:, -most - 1 :])
        decided = (~self._waiting).sum(1)
        limit = largest[np.arange(len(sizes)), decided] + _TOLERANCE
        self._waiting &= sizes <= limit[:, None]
        own = totals[:, 0]
        return np.where(np.abs(own) > limit, np.sign(own), 0).astype(np.int64)


@lru_cache(maxsize=8)
def swaps(layouts: int, flips: int = FLIPS) -> Floats:
    """``[flips + 1, L]`` of 1 and -1, where -1 swaps agent and baseline on a layout; the first row swaps nothing."""
    # The seed is arbitrary. It is fixed so that the same outcomes give the same verdict.
    signs = np.random.default_rng(20250131).choice([-1.0, 1.0], (flips + 1, min(layouts, _GROUPS)))
    signs[0] = 1
    return signs


def _bernoulli(rates: Floats, rng: np.random.Generator) -> Draw:
    return lambda begin, end: rng.random((len(rates), end - begin)) < rates[:, begin:end]


def batches(runs: int, most: int) -> Iterator[int]:
    """Numbers of evaluations that are simulated together, ``runs`` in all and never more than ``most``."""
    for begin in range(0, runs, most):
        yield min(most, runs - begin)
