"""Simulation studies: do intervals cover, do tests keep their level, in designs like the benchmark's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from vlaser_gym.evaluation.bootstrap import Stratum, stratified_bootstrap
from vlaser_gym.evaluation.comparison import mcnemar, sign_flip
from vlaser_gym.evaluation.looks import Schedule
from vlaser_gym.evaluation.simulation import Forecast, against_rate, against_run
from vlaser_gym.evaluation.statistics import mean_of_rates, wilson

RATES = np.linspace(0.05, 0.95, 91)


@pytest.mark.parametrize("n", [24, 96, 240])
def test_wilson_covers(n: int) -> None:
    """Summed over all outcomes and averaged over rates."""
    low, high = np.array([wilson(k, n) for k in range(n + 1)]).T
    weights = binom.pmf(np.arange(n + 1), n, RATES[:, None])
    covered = (weights * ((low <= RATES[:, None]) & (RATES[:, None] <= high))).sum(1)
    assert 0.93 <= covered.mean() <= 0.97
    assert covered.min() > 0.89


@pytest.mark.parametrize("n", [24, 240])
def test_mean_over_tasks_covers(n: int) -> None:
    """Four tasks of the benchmark's size, easy and hard."""
    rng = np.random.default_rng(n)
    covered = []
    for _ in range(40):
        rates = rng.uniform(0.05, 0.95, 4)
        for counts in rng.binomial(n, rates, (15, 4)):
            _, (low, high) = mean_of_rates([(int(k), n) for k in counts])
            covered.append(low <= rates.mean() <= high)
    assert 0.93 <= np.mean(covered) <= 0.97


def draw_layouts(rng: np.random.Generator, layouts: int, spread: float) -> np.ndarray:
    """Success rates of two agents on layouts drawn at random, ``[L, 2]``; equally good over all layouts."""
    ease = rng.uniform(0.2, 0.9, layouts)
    shift = rng.uniform(-spread, spread, layouts)
    return np.clip(np.column_stack([ease + shift, ease - shift]), 0, 1)


def test_bootstrap_by_layout_covers() -> None:
    """24 layouts of 10 trials on which two agents differ in either direction: equal only over all layouts."""
    rng = np.random.default_rng(11)
    runs, covered = 1000, 0
    for _ in range(runs):
        successes = rng.binomial(10, draw_layouts(rng, 24, 0.3))
        stratum = Stratum.of(successes[:, 1] - successes[:, 0], np.full(24, 10))
        low, high = stratified_bootstrap([stratum], resamples=499)
        covered += low <= 0 <= high
    assert 0.93 <= covered / runs <= 0.97


def test_tests_keep_their_level_with_trials_grouped_by_layout() -> None:
    """Same design: the test by layout keeps 5 %; McNemar's, which takes trials for independent pairs, does not."""
    rng = np.random.default_rng(12)
    runs, by_layout, by_trial = 600, 0, 0
    for _ in range(runs):
        rates = draw_layouts(rng, 24, 0.3)
        outcomes = rng.random((10, 24, 2)) < rates
        differences = outcomes[..., 1].astype(int) - outcomes[..., 0]
        by_layout += sign_flip(list(differences.sum(0))) <= 0.05
        by_trial += mcnemar(int((differences < 0).sum()), int((differences > 0).sum())) <= 0.05
    # Two standard errors of a simulation of this size above 5 %.
    assert by_layout / runs <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)
    assert by_trial / runs > 0.10


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_mcnemar_keeps_its_level(correlation: float) -> None:
    """Two equally good agents on 240 addresses, simulated."""
    rng = np.random.default_rng(13)
    runs, rejected = 1500, 0
    for _ in range(runs):
        first = rng.random(240) < 0.65
        same = rng.random(240) < correlation
        second = np.where(same, first, rng.random(240) < 0.65)
        rejected += mcnemar(int((first & ~second).sum()), int((second & ~first).sum())) <= 0.05
    assert 0.01 < rejected / runs <= 0.05


def wrong(forecast: Forecast) -> float:
    """Share of verdicts where none is right."""
    return forecast.better + forecast.worse


def most_wrong(runs: int) -> float:
    """The level and three standard errors."""
    return float(0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_until_decided_keeps_its_level(correlation: float) -> None:
    """24 layouts of 10 trials, equally good on average: up to 40 % wrong if trials count as independent."""
    schedule = Schedule.of(24, 10)
    assert 0.005 < wrong(against_run(0.5, 0.5, schedule, correlation, runs=1000)) <= most_wrong(1000)
    assert 0.005 < wrong(against_rate(0.65, 0.65, schedule, correlation)) <= most_wrong(2000)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("correlation", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("trials", [1, 3, 10])
def test_until_decided_keeps_its_level_everywhere(trials: int, correlation: float, rate: float) -> None:
    schedule = Schedule.of(24, trials)
    assert wrong(against_run(rate, rate, schedule, correlation, seed=1)) <= most_wrong(2000)
    assert wrong(against_rate(rate, rate, schedule, correlation, seed=1)) <= most_wrong(2000)


def test_until_decided_saves_half_of_the_episodes() -> None:
    """65 against 85 % on 24 layouts of 10 trials that are alike: at most 120 of 240 episodes on average."""
    schedule = Schedule.of(24, 10)
    forecasts = (
        against_run(0.85, 0.65, schedule, runs=500),
        against_run(0.65, 0.85, schedule, runs=500),
        against_rate(0.85, 0.65, schedule),
        against_rate(0.65, 0.85, schedule),
    )
    for forecast, better in zip(forecasts, (True, False, True, False), strict=True):
        assert forecast.mean <= 120
        assert (forecast.better if better else forecast.worse) >= 0.98


def test_power_of_few_trials() -> None:
    """65 against 85 %: what docs/statistics.md says of one and of three trials."""
    powers = [against_run(0.85, 0.65, Schedule.of(24, trials), runs=1000).better for trials in (1, 3)]
    assert powers == pytest.approx([0.24, 0.70], abs=0.06)
    powers = [against_rate(0.85, 0.65, Schedule.of(24, trials)).better for trials in (1, 3)]
    assert powers == pytest.approx([0.55, 0.94], abs=0.05)
