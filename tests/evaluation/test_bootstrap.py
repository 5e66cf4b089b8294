from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import t as student

from vlaser_gym.evaluation.bootstrap import Stratum, mean_over_tasks, stratified_bootstrap


def test_mean_over_tasks_weighs_tasks_alike() -> None:
    strata = [Stratum.of([1, 0, 1, 1]), Stratum.of([3, 0], [3, 1])]
    assert mean_over_tasks(strata) == pytest.approx((3 / 4 + 3 / 4) / 2)


def test_quantiles_are_those_of_all_resamples() -> None:
    """All 4^4 x 3^3 ways to draw layouts again, weighed alike, at the level that the widening asks for."""
    strata = [Stratum.of([0, 2, 1, 2], [2, 2, 2, 2]), Stratum.of([1, 4, 0], [1, 4, 3])]
    means = [
        [s.totals[list(i)].sum() / s.trials[list(i)].sum() for i in product(range(len(s.totals)), repeat=len(s.totals))]
        for s in strata
    ]
    every = np.add.outer(*map(np.array, means)).ravel() / 2
    from scipy.stats import norm

    tail = norm.sf(np.sqrt(7 / 5) * student.ppf(0.95, 5))
    expected = np.quantile(every, [tail, 1 - tail])
    found = stratified_bootstrap(strata, level=0.9, resamples=20_000)
    assert found == pytest.approx(expected, abs=0.02)


def test_with_many_layouts_it_is_students_interval() -> None:
    values = np.random.default_rng(5).normal(0.5, 0.1, 60)
    half = student.ppf(0.975, 59) * values.std(ddof=1) / np.sqrt(60)
    low, high = stratified_bootstrap([Stratum.of(values)])
    assert low == pytest.approx(values.mean() - half, abs=0.003)
    assert high == pytest.approx(values.mean() + half, abs=0.003)


def test_the_same_data_give_the_same_interval() -> None:
    strata = [Stratum.of([0, 1, 1, 0, 1])]
    assert stratified_bootstrap(strata) == stratified_bootstrap(strata)
    assert stratified_bootstrap(strata) != stratified_bootstrap(strata, seed=1, resamples=101)


def test_layouts_that_agree_show_no_spread() -> None:
    strata = [Stratum.of([2, 2, 2], [2, 2, 2])]
    assert strata[0].constant
    assert stratified_bootstrap(strata) == (1.0, 1.0)
    one_layout = [Stratum.of([1], [2]), Stratum.of([0, 1])]
    low, high = stratified_bootstrap(one_layout)
    assert low == 0.25
    assert high == 0.75


@pytest.mark.parametrize(("totals", "trials"), [([], None), ([1, 2], [1]), ([1], [0])])
def test_strata_need_layouts_with_trials(totals: list[int], trials: list[int] | None) -> None:
    with pytest.raises(ValueError, match="one total and one positive number"):
        Stratum.of(totals, trials)
