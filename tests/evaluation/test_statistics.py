from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from scipy.stats import beta, binom

from vlaser_gym.evaluation.statistics import clopper_pearson, mean_of_rates, wilson

Z = 1.959963984540054
CASES = [(0, 24), (1, 24), (12, 24), (23, 24), (24, 24), (60, 96), (1, 1), (0, 1), (127, 240)]


@pytest.mark.parametrize(("k", "n"), CASES)
def test_wilson_is_its_closed_form(k: int, n: int) -> None:
    centre = (k + Z**2 / 2) / (n + Z**2)
    half = Z / (n + Z**2) * sqrt(k * (n - k) / n + Z**2 / 4)
    assert wilson(k, n) == pytest.approx((max(0, centre - half), min(1, centre + half)), abs=1e-12)


@pytest.mark.parametrize(("k", "n"), CASES)
def test_clopper_pearson_is_its_beta_quantiles(k: int, n: int) -> None:
    low = beta.ppf(0.025, k, n - k + 1) if k else 0.0
    high = beta.ppf(0.975, k + 1, n - k) if k < n else 1.0
    assert clopper_pearson(k, n) == pytest.approx((low, high), abs=1e-9)


def test_known_values() -> None:
    """Newcombe 1998 (Statistics in Medicine 17, 857-872), table I: 81/263, 15/148, 0/20, 1/29."""
    for (k, n), score, exact in [
        ((81, 263), (0.2553, 0.3662), (0.2527, 0.3676)),
        ((15, 148), (0.0624, 0.1605), (0.0578, 0.1617)),
        ((0, 20), (0.0000, 0.1611), (0.0000, 0.1684)),
        ((1, 29), (0.0061, 0.1718), (0.0009, 0.1776)),
    ]:
        assert wilson(k, n) == pytest.approx(score, abs=5.1e-5)
        assert clopper_pearson(k, n) == pytest.approx(exact, abs=5.1e-5)


def coverage(interval: np.ndarray, n: int, p: float) -> float:
    weights = binom.pmf(np.arange(n + 1), n, p)
    return float(weights[(interval[:, 0] <= p) & (p <= interval[:, 1])].sum())


@pytest.mark.parametrize("n", [24, 96])
def test_exact_coverage(n: int) -> None:
    """Summed over all outcomes, not simulated: Wilson near 95 % on average, Clopper-Pearson never below."""
    ps = np.linspace(0.05, 0.95, 91)
    limits = {f: np.array([f(k, n) for k in range(n + 1)]) for f in (wilson, clopper_pearson)}
    assert 0.93 <= np.mean([coverage(limits[wilson], n, p) for p in ps]) <= 0.97
    assert min(coverage(limits[clopper_pearson], n, p) for p in ps) >= 0.95


def test_nothing_is_known_without_episodes() -> None:
    assert wilson(0, 0) == clopper_pearson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="between 0 and n = 4"):
        wilson(5, 4)


def test_the_mean_of_one_task_has_wilsons_interval() -> None:
    mean, interval = mean_of_rates([(17, 24), (0, 0)])
    assert mean == 17 / 24
    assert interval == pytest.approx(wilson(17, 24))


def test_the_interval_of_a_mean_over_tasks_covers() -> None:
    """Simulated: four tasks of unequal difficulty, 24 episodes each."""
    rng = np.random.default_rng(0)
    rates = np.array([0.2, 0.5, 0.8, 0.95])
    draws = rng.binomial(24, rates, (600, 4))
    limits = np.array([mean_of_rates([(int(k), 24) for k in row])[1] for row in draws])
    covered = np.mean((limits[:, 0] <= rates.mean()) & (rates.mean() <= limits[:, 1]))
    assert 0.93 <= covered <= 0.975
    assert np.mean(limits[:, 1] - limits[:, 0]) < 0.9 * (wilson(48, 96)[1] - wilson(48, 96)[0])
