"""Bootstrap intervals for means over tasks whose episodes are grouped by layout.

Trials of one layout resemble each other, so layouts, not episodes, are what is drawn again; tasks are strata and are
never drawn. With few layouts the plain percentile interval is too narrow. It is widened to the level that makes it
match Student's interval for normal data (Hesterberg 2015, The American Statistician 69, 371-386, section 4.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlaser_gym.evaluation.statistics import Interval, wilson

#: Enough for limits that repeat within half a percent point whatever the seed.
RESAMPLES = 4999


@dataclass(frozen=True)
class Stratum:
    """The layouts of one task.

    Attributes:
        totals: ``[L]`` sum of what is averaged (successes, or differences of two runs) over the trials of each layout.
        trials: ``[L]`` number of trials of each layout.
    """

    totals: NDArray[np.float64]
    trials: NDArray[np.float64]

    @classmethod
    def of(cls, totals: ArrayLike, trials: ArrayLike | None = None) -> Stratum:
        """Make a stratum of sequences of length L; one trial per layout unless told."""
        sums = np.asarray(totals, np.float64)
        counts = np.ones_like(sums) if trials is None else np.asarray(trials, np.float64)
        if sums.ndim != 1 or sums.shape != counts.shape or not len(sums) or (counts <= 0).any():
            raise ValueError(f"expected one total and one positive number of trials per layout; got {sums}, {counts}")
        return cls(sums, counts)

    @property
    def mean(self) -> float:
        """Mean over episodes."""
        return float(self.totals.sum() / self.trials.sum())

    @property
    def constant(self) -> bool:
        """All layouts agree, or there is only one, so that resampling shows no spread."""
        return bool(np.ptp(self.totals / self.trials) == 0)


def mean_over_tasks(strata: Sequence[Stratum]) -> float:
    """Unweighted mean of the tasks' means."""
    return float(np.mean([stratum.mean for stratum in strata]))


def stratified_bootstrap(
    strata: Sequence[Stratum], level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Interval for :func:`mean_over_tasks`; layouts are drawn again within each task.

    Args:
        strata: one per task.
        level: coverage aimed at.
        resamples: bootstrap samples.
        seed: the same seed gives the same interval.

    Returns:
        The interval. It has no width if every task's layouts agree among themselves: :func:`rate_interval` has one.

    Example:
        >>> low, high = stratified_bootstrap([Stratum.of([0, 3, 2, 3], [3, 3, 3, 3]), Stratum.of([1, 1, 0, 1])])
        >>> 0 < low < 0.7 < high < 1
        True
    """
    from scipy.stats import bootstrap, norm, t  # noqa: PLC0415  loading it takes a second

    def statistic(*drawn: NDArray[np.int64], axis: int = -1) -> Any:
        """The mean over tasks of the rates of layouts ``drawn``, indices ``[..., n]`` for each task."""
        means = [s.totals[i].sum(axis) / s.trials[i].sum(axis) for s, i in zip(strata, drawn, strict=True)]
        return np.mean(means, axis=0)

    if all(stratum.constant for stratum in strata):
        mean = mean_over_tasks(strata)
        return mean, mean
    # The percentile level whose interval is as wide as Student's.
    several = [len(stratum.totals) for stratum in strata if len(stratum.totals) > 1]
    freedom = sum(n - 1 for n in several)
    narrowness = sqrt(sum(several) / freedom)
    widened = float(1 - 2 * norm.sf(narrowness * t.ppf((1 + level) / 2, freedom)))
    result = bootstrap(
        [np.arange(len(stratum.totals)) if len(stratum.totals) > 1 else np.zeros(2, int) for stratum in strata],
        statistic,
        n_resamples=resamples,
        vectorized=True,
        method="percentile",
        confidence_level=widened,
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def rate_interval(strata: Sequence[Stratum], level: float = 0.95) -> Interval:
    """Interval for :func:`mean_over_tasks` of rates; where all layouts agree there is no spread to draw from, and their
    number alone limits the rate.

    Example:
        >>> low, high = rate_interval([Stratum.of([3, 3, 3, 3], [3, 3, 3, 3])])
        >>> round(low, 2), high
        (0.51, 1.0)
    """
    if not all(stratum.constant for stratum in strata):
        return stratified_bootstrap(strata, level)
    layouts = sum(len(stratum.totals) for stratum in strata)
    return wilson(round(mean_over_tasks(strata) * layouts), layouts, level)
