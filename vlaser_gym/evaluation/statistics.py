"""Confidence intervals of success rates.

All intervals are two-sided with equal tails. Episodes count as independent draws: with several trials per layout the
trials of one layout resemble each other, and the intervals are then a little too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import sqrt

Interval = tuple[float, float]


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927, without continuity correction); ``(0, 1)`` for ``n = 0``.

    Example:
        >>> low, high = wilson(15, 24)
        >>> f"{low:.3f} {high:.3f}"
        '0.427 0.788'
    """
    return _interval(successes, n, level, "wilson")


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> Interval:
    """The exact interval of Clopper and Pearson (1934): never covers less than ``level``; ``(0, 1)`` for ``n = 0``."""
    return _interval(successes, n, level, "exact")


def mean_of_rates(counts: Sequence[tuple[int, int]], level: float = 0.95) -> tuple[float, Interval]:
    """Unweighted mean of the success rates of several tasks, and its interval.

    The interval combines the tasks' Wilson limits by the squares of their distances from the rates (the method of
    variance estimates recovery, Zou and Donner 2008); for a single task it is Wilson's.

    Args:
        counts: ``(successes, n)`` of each task; tasks without episodes are left out.
        level: coverage aimed at.

    Example:
        >>> mean, (low, high) = mean_of_rates([(24, 24), (12, 24)])
        >>> f"{mean:.2f} {low:.3f} {high:.3f}"
        '0.75 0.634 0.843'
    """
    played = [(k, n) for k, n in counts if n > 0]
    if not played:
        return float("nan"), (0.0, 1.0)
    rates = [k / n for k, n in played]
    limits = [wilson(k, n, level) for k, n in played]
    mean = sum(rates) / len(rates)
    below = sqrt(sum((p - low) ** 2 for p, (low, _) in zip(rates, limits, strict=True))) / len(rates)
    above = sqrt(sum((high - p) ** 2 for p, (_, high) in zip(rates, limits, strict=True))) / len(rates)
    return mean, (mean - below, mean + above)


@lru_cache(maxsize=4096)
def _interval(successes: int, n: int, level: float, method: str) -> Interval:
    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie between 0 and n = {n}; got {successes}")
    if n == 0:
        return 0.0, 1.0
    # Loading scipy.stats takes a second, which commands that only print a mistake should not pay.
    from scipy.stats import binomtest  # noqa: PLC0415

    interval = binomtest(successes, n).proportion_ci(level, method)
    return float(interval.low), float(interval.high)
