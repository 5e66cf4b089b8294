from __future__ import annotations

from itertools import pairwise, product
from math import exp
from pathlib import Path

import numpy as np
import pytest
from fabricate_run import TASKS, addresses, fabricate_run
from scipy.integrate import quad
from scipy.stats import kstest

from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.sequential import (
    SequentialTest,
    UntilDecided,
    forecast,
    log_evidence,
    read_baseline,
    shuffled,
)

EPISODES = [Address("widowx_stack_cube", layout=f"grid:{k}", trial=r) for r in range(10) for k in range(24)]


@pytest.mark.parametrize(
    ("wins", "losses", "null"), [(0, 0, 0.5), (9, 1, 0.65), (3, 12, 0.2), (40, 5, 0.65), (2, 2, 0.9)]
)
def test_evidence_is_the_mean_likelihood_ratio(wins: int, losses: int, null: float) -> None:
    ratio, _ = quad(lambda p: (p / null) ** wins * ((1 - p) / (1 - null)) ** losses / (1 - null), null, 1, epsabs=0)
    assert exp(float(log_evidence(wins, losses, null))) == pytest.approx(ratio, rel=1e-6)


@pytest.mark.parametrize("null", [0.05, 0.5, 0.65])
def test_evidence_is_a_fair_bet(null: float) -> None:
    """Under the null the next outcome is expected to leave it as it is; under anything worse, to lower it."""
    for wins, losses in product((0, 3, 17), repeat=2):
        now, won, lost = (exp(float(log_evidence(wins + w, losses + k, null))) for w, k in ((0, 0), (1, 0), (0, 1)))
        assert null * won + (1 - null) * lost == pytest.approx(now, rel=1e-9)
        assert 0.5 * null * won + (1 - 0.5 * null) * lost < now


def feed(test: SequentialTest, outcomes: np.ndarray) -> int:
    """Episodes until the verdict, or all."""
    for address, success in zip(EPISODES, outcomes, strict=False):
        if test.verdict is not None:
            break
        test.add(address, bool(success))
    return test.n


def test_forecast_against_the_test_itself() -> None:
    rng = np.random.default_rng(0)
    for rate, null in ((0.85, 0.65), (0.5, 0.65)):
        tests = [SequentialTest(null) for _ in range(250)]
        stops = [feed(test, rng.random(240) < rate) for test in tests]
        expected = forecast(rate, null)
        assert np.mean(stops) == pytest.approx(expected.mean, abs=4 * np.std(stops) / 250**0.5)
        verdicts = [test.verdict for test in tests]
        assert verdicts.count("better") / 250 == pytest.approx(expected.better, abs=0.04)
        assert verdicts.count("worse") / 250 == pytest.approx(expected.worse, abs=0.04)


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.2, 0.35, 0.5, 0.65, 0.85, 0.95, 0.98])
def test_type_one_error_against_a_rate(rate: float) -> None:
    """Summed over all paths: looking after each of 2,000 episodes, either wrong verdict stays under half the level."""
    sure = forecast(rate, rate, most=2000)
    assert sure.better <= 0.025
    assert sure.worse <= 0.025
    assert sure.better + sure.worse > 0.002, "not by never deciding"


@pytest.mark.parametrize("level", [0.01, 0.2])
def test_other_levels(level: float) -> None:
    sure = forecast(0.6, 0.6, level, most=1000)
    assert 0.2 * level < sure.better + sure.worse <= level


def paired(rng: np.random.Generator, a: np.ndarray, b: np.ndarray, baseline: bool = True) -> UntilDecided:
    """One evaluation: a baseline run with the rates ``a [24]`` per layout, the agent with ``b``; 10 trials each."""
    of = {x: bool(rng.random() < a[x.layout_index]) for x in EPISODES}
    until = UntilDecided(EPISODES, of if baseline else float(a.mean()))
    until({x: bool(rng.random() < b[x.layout_index]) for x in EPISODES})
    return until


def test_type_one_error_against_a_run() -> None:
    """Layouts unlike each other, and the two agents good at different ones, yet equally good on the whole."""
    rng = np.random.default_rng(3)
    wrong, runs = 0, 300
    for _ in range(runs):
        a = rng.permutation(np.linspace(0.3, 1.0, 24))
        wrong += paired(rng, a, rng.permutation(a)).test.verdict is not None
    assert wrong / runs <= 0.05


def test_type_one_error_with_unlike_layouts() -> None:
    """A rate that holds on the whole while single layouts are easy or hard: right in the plan's order only."""
    rng = np.random.default_rng(8)
    rates = np.linspace(0.3, 1.0, 24)[::-1]
    shuffled_wrong, sorted_wrong, runs = 0, 0, 120
    for _ in range(runs):
        shuffled_wrong += paired(rng, rates, rates, baseline=False).test.verdict is not None
        test = SequentialTest(float(rates.mean()))
        feed(test, rng.random(240) < np.repeat(rates, 10))
        sorted_wrong += test.verdict is not None
    assert shuffled_wrong / runs <= 0.05
    assert sorted_wrong / runs > 0.5, "layout after layout, the easy ones first, misleads it"


def test_it_saves_half_of_the_episodes() -> None:
    """65 against 85 %: the mean stop, against a known rate and against a stored run, next to 240 episodes."""
    known = forecast(0.85, 0.65)
    assert known.mean <= 60
    assert known.better >= 0.99
    assert forecast(0.65, 0.85).mean <= 60
    rng = np.random.default_rng(4)
    evaluations = [paired(rng, np.full(24, 0.65), np.full(24, 0.85)) for _ in range(300)]
    assert np.mean([len(until.used) for until in evaluations]) <= 120
    assert np.mean([until.test.verdict == "better" for until in evaluations]) >= 0.95


def test_against_a_run_only_differing_pairs_count() -> None:
    baseline = dict(zip(EPISODES, [True, False] * 120, strict=True))
    test = SequentialTest(baseline)
    for address in EPISODES[:8]:
        test.add(address, True)
    assert (test.n, test.wins, test.losses) == (8, 4, 0)
    for address in EPISODES[8:12]:
        test.add(address, False)
    assert (test.n, test.wins, test.losses) == (12, 4, 2)
    with pytest.raises(KeyError):
        test.add(Address("elsewhere"), True)


def test_verdicts_mirror_and_stay() -> None:
    """Eight wins: 2 * 2^8 * (1 - 2^-9) / 9 = 56.8 is the first evidence above 2 / 0.05 = 40."""
    up, down = SequentialTest(0.5), SequentialTest(0.5)
    assert feed(up, np.ones(30)) == feed(down, np.zeros(30)) == 8
    assert (up.verdict, down.verdict) == ("better", "worse")
    for address in EPISODES[30:]:
        up.add(address, False)
    assert up.verdict == "better"
    assert up.evidence()[1] > 0


def test_the_interval_holds_at_all_times() -> None:
    rng = np.random.default_rng(7)
    missed = 0
    for _ in range(60):
        test = SequentialTest(0.5)
        inside = True
        for address, success in zip(EPISODES[:120], rng.random(120) < 0.7, strict=True):
            test.add(address, bool(success))
            if test.n % 4 == 0:
                low, high = test.interval()
                inside &= low <= 0.7 <= high
        missed += not inside
    assert missed <= 6
    assert SequentialTest(0.5).interval() == (0.0, 1.0)
    every = SequentialTest(0.5)
    feed(every, np.ones(20))
    assert every.interval()[1] == 1.0


def test_the_order_is_random_and_always_the_same() -> None:
    plan = shuffled(EPISODES)
    assert sorted(map(str, plan)) == sorted(map(str, EPISODES))
    assert plan == shuffled(EPISODES[::-1])
    mixed = shuffled(addresses(layouts=24, trials=5))
    places = [k / len(mixed) for k, address in enumerate(mixed) if address.task == TASKS[0]]
    assert kstest(places, "uniform").pvalue > 0.01, "tasks are spread over the plan"


def test_the_verdict_does_not_depend_on_who_finishes_first() -> None:
    """Results arrive in any order; they enter in the order of the plan."""
    rng = np.random.default_rng(2)
    results = {x: bool(rng.random() < 0.9) for x in EPISODES}
    straight = UntilDecided(EPISODES, 0.65)
    said = [straight({x: results[x] for x in straight.plan[:k]}) for k in range(len(EPISODES))]
    stop = next(k for k, reason in enumerate(said) if reason)
    assert said[stop - 1] is None
    jumbled = UntilDecided(EPISODES, 0.65)
    arrived: dict[Address, bool] = {}
    reasons = []
    for begin in range(0, stop + 8, 8):
        for address in rng.permutation(np.array(jumbled.plan[begin : begin + 8], object)):
            arrived[address] = results[address]
            reasons.append(jumbled(arrived))
    assert reasons[-1] == said[stop]
    assert jumbled.used == straight.used == straight.plan[:stop]
    assert all(x is None or x == y for x, y in pairwise(reasons))


def test_successes_that_come_first_wait_for_the_others() -> None:
    until = UntilDecided(EPISODES, 0.65)
    assert until(dict.fromkeys(until.plan[1:100], True)) is None
    assert until.test.n == 0


def test_reasons_are_sentences() -> None:
    known = UntilDecided(EPISODES, 0.65, level=0.1)
    reason = known(dict.fromkeys(EPISODES, False))
    assert reason == f"worse than 65.0 % after {known.test.n} episodes (error level 10 %)"
    against = UntilDecided(EPISODES, dict.fromkeys(EPISODES, False))
    reason = against(dict.fromkeys(EPISODES, True))
    assert reason == "better than the baseline run after 8 episodes, 8 won, 0 lost (error level 5 %)"


def test_baselines(tmp_path: Path) -> None:
    where = addresses(layouts=2)
    run = fabricate_run(tmp_path / "run", {x: x.layout_index == 0 for x in where}, lost=[where[1]])
    assert read_baseline(run)[where[0]] is True
    assert read_baseline(str(run))[where[1]] is False
    assert read_baseline(run, "any")[where[1]] is True
    assert [read_baseline(x) for x in ("65", 65, "0.65", "65%", 0.65)] == [0.65] * 5
    with pytest.raises(InvalidConfigError, match=r"run directory or a success rate such as 0\.65 or 65%; got 'best'"):
        read_baseline("best")
    for rate in (0.0, 1.0, 1.5, float("nan")):
        with pytest.raises(InvalidConfigError, match="strictly between 0 and 1"):
            SequentialTest(rate)
    with pytest.raises(InvalidConfigError, match="level must lie"):
        SequentialTest(0.5, level=0)
    with pytest.raises(
        InvalidConfigError, match=r"lacks 236 of 240 episodes, for instance widowx_stack_cube/default/grid:2"
    ):
        UntilDecided(EPISODES, {x: True for x in EPISODES if x.layout_index < 2 and x.trial < 2})
