"""Simulation studies: do intervals cover, do tests keep their level, in designs like the benchmark's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from vlaser_gym.evaluation.bootstrap import Stratum, stratified_bootstrap
from vlaser_gym.evaluation.comparison import mcnemar, sign_flip
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
