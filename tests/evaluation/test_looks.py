from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import binom

from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.looks import (
    FlipTest,
    Schedule,
    layout_rates,
    limits,
    score,
    spread,
    swaps,
)


def test_looks_and_what_they_may_spend() -> None:
    schedule = Schedule.of(24, 10)
    assert schedule.looks.tolist() == [6, 7, 9, 11, 14, 18, 24, *range(48, 241, 24)]
    np.testing.assert_allclose(schedule.spent, 0.05 * schedule.looks / 240)
    assert Schedule.of(4, 2).looks.tolist() == [4, 8]
    assert Schedule((24, 2)).looks.tolist() == [6, 7, 9, 11, 14, 18, 24, 26], "the end is always looked at"
    long = Schedule.of(24, 100).looks
    assert len(long) < 50
    assert long[-1] == 2400
    assert not (long[long > 24] % 24).any()
    with pytest.raises(InvalidConfigError, match="level must lie"):
        Schedule.of(24, 1, level=1.0)


def test_sums_follow_the_passes() -> None:
    """Every drawn outcome names its layout and its turn: sums of such numbers tell which were drawn."""
    schedule, turns = Schedule((8, 8, 3)), np.zeros(8)

    def draw(begin: int, end: int) -> np.ndarray:
        turns[begin:end] += 1
        return 10.0 ** turns[None, begin:end]

    found = [(sums.copy(), counts.copy()) for sums, counts in schedule.sums(1, draw)]
    assert [int(counts.sum()) for _, counts in found] == schedule.looks.tolist() == [6, 8, 16, 19]
    assert found[0][0].tolist() == [[10.0] * 6 + [0.0] * 2]
    assert found[-1][0].tolist() == [[1110.0] * 3 + [110.0] * 5]


def test_spread_is_the_pairwise_correlation() -> None:
    """Against the estimate written out over all pairs of single episodes."""
    rng = np.random.default_rng(0)
    outcomes = [rng.random(n) < p for n, p in ((4, 0.9), (4, 0.3), (3, 1.0), (1, 0.0), (3, 0.4))]
    sums, counts = np.array([[float(x.sum()) for x in outcomes]]), np.array([float(len(x)) for x in outcomes])
    mean = np.concatenate(outcomes).mean()
    products = [(x[i] - mean) * (x[j] - mean) for x in outcomes for i in range(len(x)) for j in range(len(x)) if i != j]
    correlation = np.mean(products) / (mean * (1 - mean))
    assert 0 < correlation < 1
    assert spread(sums, counts)[0] == pytest.approx(15 + correlation * len(products))


def test_score_counts_layouts_where_trials_agree() -> None:
    """18 of 24 layouts always succeed: ten trials of each say as much as one."""
    sums = np.array([[10.0] * 18 + [0.0] * 6])
    expected = (18 - 24 * 0.5) / np.sqrt(24 * 0.25)
    assert score(sums, np.full(24, 10.0), 0.5)[0] == pytest.approx(expected)
    assert score(sums / 10, np.ones(24), 0.5)[0] == pytest.approx(expected)
    assert score(np.full((1, 24), 10.0), np.full(24, 10.0), 0.5)[0] == pytest.approx(np.sqrt(24)), "all alike"


@pytest.mark.parametrize("correlation", [0.0, 0.2, 0.6, 1.0])
def test_layout_rates_correlate_as_said(correlation: float) -> None:
    rates = layout_rates(0.3, correlation, (200_000,), np.random.default_rng(1))
    assert rates.mean() == pytest.approx(0.3, abs=0.005)
    assert rates.var() == pytest.approx(correlation * 0.3 * 0.7, abs=0.003)


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.85])
def test_limits_of_a_single_pass_against_the_binomial(rate: float) -> None:
    """One trial per layout: the chance that limits are exceeded up to each look, summed over all paths."""
    schedule = Schedule.of(24, 1)
    for side, sign in zip(limits(schedule, rate), (1, -1), strict=True):
        paths, at, wrong = np.ones(1), 0, 0.0
        for look, limit, spent in zip(schedule.looks, side, schedule.spent, strict=True):
            paths = np.convolve(paths, binom.pmf(np.arange(look - at + 1), look - at, rate))
            wins, at = np.arange(look + 1), int(look)
            decided = sign * (wins - look * rate) / np.sqrt(look * rate * (1 - rate)) > limit
            wrong += paths[decided].sum()
            paths = np.where(decided, 0.0, paths)
            assert wrong <= spent / 2 + 4 * np.sqrt(spent / 2 / 20_000)
        assert wrong > 0.003, "not by never deciding"


def test_flips_are_the_exact_test() -> None:
    """Few layouts, so all swaps can be written out: the level of a single look is that of the exact sign-flip test."""
    every = np.array(list(product([1.0, -1.0], repeat=8)))
    totals = np.array([[3, 2, 2, 1, 1, 1, 1, -1], [3, 2, 2, 1, 1, 0, 0, -1], [1] * 8, [-1] * 8], float)
    share = [float((np.abs(every @ row) >= abs(row.sum())).mean()) for row in totals]
    for level in (0.005, 0.01, 0.03, 0.1):
        verdicts = FlipTest(every, 4).look(totals, level)
        expected = [np.sign(row.sum()) if p <= level else 0 for row, p in zip(totals, share, strict=True)]
        assert verdicts.tolist() == expected
    sampled = FlipTest(swaps(8), 4).look(totals, 0.05)
    assert sampled.tolist() == [np.sign(row.sum()) if p <= 0.05 else 0 for row, p in zip(totals, share, strict=True)]


def test_all_looks_together_decide_for_no_more_swaps_than_the_level() -> None:
    """Written out over all swaps: whichever of them were the observed one, at most 5 % of them would be decided."""
    rng = np.random.default_rng(2)
    every = np.array(list(product([1.0, -1.0], repeat=9)))
    for _ in range(5):
        paths = np.cumsum(rng.integers(-1, 2, (6, 9)), 0).astype(float)
        spent = (0.05 * np.arange(1, 7) / 6).tolist()
        decided = np.zeros(len(every), bool)
        test = FlipTest(every, len(every))
        for path, level in zip(paths, spent, strict=True):
            decided |= test.look(every * path, level) != 0
            assert decided.mean() <= level
        assert decided.any()


def test_many_layouts_are_swapped_in_groups() -> None:
    sums = np.random.default_rng(0).integers(0, 2, (1, 100_000)).astype(float)
    assert swaps(100_000, 99).shape == (100, 512)
    verdict = FlipTest(swaps(100_000, 99)).look(sums, 0.05)
    assert verdict.tolist() == [1]
