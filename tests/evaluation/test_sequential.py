from __future__ import annotations

from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from fabricate_run import TASKS, addresses, fabricate_run
from scipy.stats import binomtest, kstest

from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.comparison import sign_flip, tango
from vlaser_gym.evaluation.looks import Schedule
from vlaser_gym.evaluation.sequential import Baseline, Outcome, UntilDecided, in_passes, read_baseline

EPISODES = [Address("widowx_stack_cube", layout=f"grid:{k}", trial=r) for r in range(10) for k in range(24)]


def decide(outcomes: dict[Address, Outcome], baseline: Baseline, level: float = 0.05) -> UntilDecided:
    """An evaluation of all these episodes."""
    until = UntilDecided(list(outcomes), baseline, level)
    until(outcomes)
    return until


def draw(rng: np.random.Generator, rates: np.ndarray) -> dict[Address, Outcome]:
    """Outcomes of :data:`EPISODES` with these rates ``[24]`` of the layouts."""
    return {x: bool(rng.random() < rates[x.layout_index]) for x in EPISODES}


def test_equal_agents_whose_trials_agree_are_hardly_ever_told_apart() -> None:
    """Layouts always or never succeed, half of them for either agent: a layout is one observation, not ten."""
    rng = np.random.default_rng(3)
    wrong, runs = 0, 60
    for _ in range(runs):
        a, b = (draw(rng, (rng.random(24) < 0.5).astype(float)) for _ in range(2))
        wrong += UntilDecided(EPISODES, b)(a) is not None
    assert wrong / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5


def test_an_agent_as_good_as_the_rate_is_hardly_ever_told_from_it() -> None:
    """The same against a rate, with a correlation of 0.5 within layouts (beta distributed)."""
    rng = np.random.default_rng(4)
    runs = 200
    wrong = sum(UntilDecided(EPISODES, 0.65)(draw(rng, rng.beta(0.65, 0.35, 24))) is not None for _ in range(runs))
    assert wrong / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5


def test_good_at_different_layouts_yet_equally_good() -> None:
    rng = np.random.default_rng(5)
    wrong, runs = 0, 40
    for _ in range(runs):
        rates = rng.permutation(np.linspace(0.3, 1.0, 24))
        wrong += decide(draw(rng, rng.permutation(rates)), draw(rng, rates)).verdict is not None
    assert wrong / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5


def test_easy_layouts_that_come_in_a_block_do_not_mislead() -> None:
    """Right on the whole while single layouts are easy or hard, in the order of the benchmark or its reverse."""
    rng = np.random.default_rng(8)
    rates = np.linspace(0.3, 1.0, 24)
    verdicts = [decide(draw(rng, order), 0.65).verdict for order in (rates, rates[::-1]) for _ in range(60)]
    assert sum(verdict is not None for verdict in verdicts) <= 0.05 * 120 + 3 * (0.05 * 0.95 * 120) ** 0.5


def test_several_tasks_are_one_question() -> None:
    """A hard and an easy task with 65 % on the whole: neither decides, though each alone would be decided."""
    rng = np.random.default_rng(6)
    where = addresses(layouts=24, trials=5)
    rates = dict(zip(TASKS, (0.4, 0.9), strict=True))
    wrong = 0
    for _ in range(50):
        outcomes: dict[Address, Outcome] = {x: bool(rng.random() < rates[x.task]) for x in where}
        wrong += decide(outcomes, 0.65).verdict is not None
    assert wrong <= 7
    for task, verdict in zip(TASKS, ("worse", "better"), strict=True):
        alone = {x: success for x, success in outcomes.items() if x.task == task}
        assert decide(alone, 0.65).verdict == verdict


def test_one_trial_per_layout_is_decided_like_mcnemar_and_the_binomial_test() -> None:
    """Successes come last in the plan, so that the last look decides if any."""
    single = EPISODES[:24]
    for won in range(6, 13):
        baseline = dict.fromkeys(single, False)
        outcomes: dict[Address, Outcome] = {x: k >= 24 - won for k, x in enumerate(UntilDecided(single, 0.5).plan)}
        until = decide(outcomes, baseline)
        assert until.n == 24 or binomtest(until.wins, until.wins).pvalue <= 0.05
        if binomtest(won, won).pvalue <= 0.0125:
            assert until.verdict == "better"
    assert decide(dict.fromkeys(single, True), dict.fromkeys(single, False)).n == 9
    # 0.5^9 is the first power below 0.025 x 9 / 24, half of what is spent there; 0.5^7 is above 0.025 x 7 / 24.
    assert decide(dict.fromkeys(single, True), 0.5).n == 9
    assert decide(dict.fromkeys(single, False), 0.5).verdict == "worse"


def test_it_decides_when_the_exact_test_of_layouts_does() -> None:
    """Seven layouts, two trials: at the last look `compare`'s p-value against what has been spent and what is left."""
    few = [x for x in EPISODES if x.layout_index < 7 and x.trial < 2]
    rng = np.random.default_rng(1)
    verdicts = set()
    for _ in range(60):
        baseline: dict[Address, Outcome] = {x: bool(rng.random() < 0.2) for x in few}
        outcomes: dict[Address, Outcome] = {x: bool(rng.random() < 0.8) for x in few}
        until = decide(outcomes, baseline, level=0.2)
        totals = [
            sum(int(bool(outcomes[x])) - int(bool(baseline[x])) for x in few if x.layout_index == k) for k in range(7)
        ]
        if until.verdict is None:
            assert sign_flip(totals) > 0.2 * 7 / 14, "what is left for the last look in any case"
        elif until.n == len(few):
            assert sign_flip(totals) <= 0.2 + 0.01
        verdicts.add(until.verdict)
    assert verdicts == {"better", None}


def test_against_a_run_only_differing_pairs_count() -> None:
    baseline: dict[Address, Outcome] = dict(zip(EPISODES, [True, False] * 120, strict=True))
    until = UntilDecided(EPISODES, baseline)
    first = until.plan[:12]
    until({x: k < 8 for k, x in enumerate(first)})
    won = sum(not baseline[x] for x in first[:8])
    assert (until.n, until.wins, until.losses) == (12, won, sum(bool(baseline[x]) for x in first[8:]))


def test_verdicts_mirror_and_stay() -> None:
    up, down = (UntilDecided(EPISODES, 0.5) for _ in range(2))
    assert up(dict.fromkeys(EPISODES, True))
    assert down(dict.fromkeys(EPISODES, False))
    assert (up.verdict, down.verdict, up.n) == ("better", "worse", down.n)
    assert up(dict.fromkeys(EPISODES, False)) == up.conclusion
    assert up.verdict == "better"


def test_the_interval_holds_what_the_last_look_would_not_have_rejected() -> None:
    """Against a rate: other rates inside and outside of it, taken as baselines themselves."""
    rng = np.random.default_rng(7)
    outcomes = {x: success for x, success in draw(rng, np.full(24, 0.7)).items() if x.trial < 2}
    until = decide(outcomes, 0.7)
    low, high = until.interval()
    assert until.verdict is None
    assert low < sum(map(bool, outcomes.values())) / 48 < high
    assert decide(outcomes, low - 0.02).verdict == "better"
    assert decide(outcomes, high + 0.02).verdict == "worse"
    assert decide(outcomes, low + 0.04).verdict is decide(outcomes, high - 0.04).verdict is None


def test_the_interval_of_a_difference_is_the_wider_of_two() -> None:
    """Five layouts with one look: all swaps written out on a fine grid of differences, and Tango's interval."""
    few = [x for x in EPISODES if x.layout_index < 5]
    rng = np.random.default_rng(9)
    outcomes, baseline = (
        {x: success for x, success in draw(rng, np.full(24, rate)).items() if x in few} for rate in (0.8, 0.4)
    )
    until = UntilDecided(few, baseline, level=0.9)
    until({x: outcomes[x] for x in until.plan[:5]})
    totals = np.array([int(bool(outcomes[x])) - int(bool(baseline[x])) for x in until.plan[:5]])
    every = np.array(list(product([1, -1], repeat=5)))

    def p(difference: float) -> float:
        shifted = totals - difference
        return float((np.abs(every @ shifted) >= abs(shifted.sum()) - 1e-9).mean())

    inside = [d for d in np.linspace(-1, 1, 2001) if p(d) > 0.09]
    low, high = tango(int((totals < 0).sum()), int((totals > 0).sum()), 5, 1 - 0.09)
    assert until.interval() == pytest.approx((min(low, *inside), max(high, *inside)), abs=0.02)


def test_the_interval_of_a_difference_covers_where_few_episodes_differ() -> None:
    """5 points apart, one in ten differs: swaps alone miss the truth in two of three evaluations."""
    rng = np.random.default_rng(11)
    missed, runs = 0, 30
    for _ in range(runs):
        chance = dict(zip(EPISODES[:72], rng.random(72), strict=True))
        until = UntilDecided(EPISODES[:72], {x: u > 0.075 for x, u in chance.items()})
        until({x: u < 0.975 for x, u in chance.items()})
        low, high = until.interval()
        missed += not low <= 0.05 <= high
    assert missed <= 0.05 * runs + 3 * (0.05 * 0.95 * runs) ** 0.5


def test_intervals_exclude_what_the_verdict_has_ruled_out() -> None:
    better, worse = (decide(dict.fromkeys(EPISODES, success), 0.6) for success in (True, False))
    assert better.interval()[0] >= 0.6
    assert better.interval()[1] == 1.0
    assert worse.interval()[1] <= 0.6
    assert worse.interval()[0] == 0.0
    low, high = decide(dict.fromkeys(EPISODES, True), dict.fromkeys(EPISODES, False)).interval()
    assert 0 <= low < high == 1.0
    assert UntilDecided(EPISODES, 0.5).interval() == (0.0, 1.0)
    assert UntilDecided(EPISODES, dict.fromkeys(EPISODES, True)).interval() == (-1.0, 1.0)


def test_passes_are_complete_and_always_the_same() -> None:
    passes = in_passes(EPISODES)
    assert passes == in_passes(EPISODES[::-1])
    assert [{x.trial for x in episodes} for episodes in passes] == [{r} for r in range(10)]
    assert all(sorted(x.layout_index for x in episodes) == list(range(24)) for episodes in passes)
    mixed = in_passes(addresses(layouts=24, trials=5))
    assert [len(episodes) for episodes in mixed] == [48] * 5
    places = [k / 48 for episodes in mixed for k, x in enumerate(episodes) if x.task == TASKS[0]]
    assert kstest(places, "uniform").pvalue > 0.01, "tasks are spread over each pass"


def test_layouts_with_further_trials_come_last() -> None:
    """26 episodes of 24 layouts: two layouts have a second trial."""
    uneven = [*EPISODES[:24], *EPISODES[24:26]]
    until = UntilDecided(uneven, 0.5)
    assert until.schedule == Schedule((24, 2))
    assert {x.layout_index for x in until.plan[24:]} == {0, 1}
    until({x: x.layout_index % 2 == 0 for x in uneven})
    assert (until.n, until.wins, until.verdict) == (26, 13, None)


def test_the_verdict_does_not_depend_on_who_finishes_first() -> None:
    """Results arrive in any order; they enter in the order of the plan."""
    rng = np.random.default_rng(2)
    results = draw(rng, np.full(24, 0.9))
    straight = UntilDecided(EPISODES, 0.65)
    said = [straight({x: results[x] for x in straight.plan[:k]}) for k in range(len(EPISODES))]
    stop = next(k for k, reason in enumerate(said) if reason)
    assert said[stop - 1] is None
    jumbled = UntilDecided(EPISODES, 0.65)
    arrived: dict[Address, Outcome] = {}
    reasons = []
    for begin in range(0, stop + 8, 8):
        for address in rng.permutation(np.array(jumbled.plan[begin : begin + 8], object)):
            arrived[address] = results[address]
            reasons.append(jumbled(arrived))
    assert reasons[-1] == said[stop]
    assert jumbled.n == straight.n == stop
    assert all(x is None or x == y for x, y in pairwise(reasons))


def test_successes_that_come_first_wait_for_the_others() -> None:
    until = UntilDecided(EPISODES, 0.65)
    assert until(dict.fromkeys(until.plan[1:100], True)) is None
    assert until.n == 0


def test_reasons_are_sentences() -> None:
    known = decide(dict.fromkeys(EPISODES, False), 0.65, level=0.1)
    assert known.conclusion == f"worse than 65.0 % after {known.n} episodes (error level 10 %)"
    against = decide(dict.fromkeys(EPISODES, True), dict.fromkeys(EPISODES, False))
    pairs = f"{against.n} won, 0 lost"
    assert against.conclusion == f"better than the baseline run after {against.n} episodes, {pairs} (error level 5 %)"
    alike = decide(dict.fromkeys(EPISODES, True), dict.fromkeys(EPISODES, True))
    assert alike.conclusion == "undecided after all 240 episodes (error level 5 %)"


def test_errors_of_the_simulator_are_left_out_of_pairs_and_fail_against_a_rate() -> None:
    """Every twentieth episode crashes, here or in the baseline: no verdict comes of that, few crashes do no harm."""
    crashed = [x for x in EPISODES if (x.layout_index + x.trial) % 20 == 0]
    baseline = dict.fromkeys(EPISODES, True)
    here = decide({x: None if x in crashed else True for x in EPISODES}, baseline)
    assert (here.n, here.wins, here.losses, here.errors) == (240, 0, 0, len(crashed))
    assert here.verdict is None
    assert (
        here.conclusion
        == f"undecided after all 240 episodes, {len(crashed)} left out for simulator errors (error level 5 %)"
    )
    there = decide(dict.fromkeys(EPISODES, False), {x: None if x in crashed else True for x in EPISODES})
    assert there.verdict == "worse"
    assert there.losses + there.errors == there.n
    rate = decide({x: None if x in crashed else True for x in EPISODES}, 0.95)
    assert rate.losses == rate.errors == len(crashed)


def test_too_many_errors_decide_nothing() -> None:
    """One in twenty may crash; beyond, neither failures nor successes of the others count for a verdict."""
    crashed = [x for x in EPISODES if x.trial % 5 == 0]
    for baseline in (0.9, dict.fromkeys(EPISODES, True)):
        until = decide({x: None if x in crashed else False for x in EPISODES}, baseline)
        assert until.verdict is None
        assert until.conclusion == (
            "undecided after 240 episodes: the simulator could not finish 48 of them, more than 5 %"
        )
    fewer = decide({x: None if x in crashed[:12] else False for x in EPISODES}, dict.fromkeys(EPISODES, True))
    assert fewer.verdict == "worse"
    assert 12 < fewer.n <= 240, "after the pass that crashed"
    assert fewer.errors <= 0.05 * fewer.n


def test_baselines(tmp_path: Path) -> None:
    where = addresses(layouts=2)
    outcomes = {x: x.layout_index == 0 for x in where}
    run = fabricate_run(tmp_path / "run", outcomes, lost=[where[1]])
    assert read_baseline(run)[where[0]] is True
    assert read_baseline(str(run))[where[1]] is False
    assert read_baseline(run, "any")[where[1]] is True
    crashed = fabricate_run(tmp_path / "crashed", outcomes, errors=[where[0]])
    assert [x for x, outcome in read_baseline(crashed).items() if outcome is None] == [where[0]]
    assert [read_baseline(x) for x in ("65", 65, "0.65", "65%", 0.65)] == [0.65] * 5
    with pytest.raises(InvalidConfigError, match=r"run directory or a success rate such as 0\.65 or 65%; got 'best'"):
        read_baseline("best")
    for rate in (0.0, 1.0, 1.5, float("nan")):
        with pytest.raises(InvalidConfigError, match="strictly between 0 and 1"):
            UntilDecided(EPISODES, rate)
    with pytest.raises(InvalidConfigError, match="level must lie"):
        UntilDecided(EPISODES, 0.5, level=0)
    with pytest.raises(
        InvalidConfigError, match=r"lacks 236 of 240 episodes, for instance widowx_stack_cube/default/grid:2"
    ):
        UntilDecided(EPISODES, {x: True for x in EPISODES if x.layout_index < 2 and x.trial < 2})
