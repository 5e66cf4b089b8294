from __future__ import annotations

import json
from itertools import product
from math import comb, log, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricate_run import TASKS, addresses, fabricate_run
from scipy.optimize import minimize_scalar
from scipy.stats import binom, multinomial, norm

from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError, StorageError, UnknownNameError
from vlaser_gym.evaluation.bootstrap import Stratum, stratified_bootstrap
from vlaser_gym.evaluation.comparison import (
    MOST_LEFT_OUT,
    compare_runs,
    differing_protocols,
    holm,
    load_runs,
    mcnemar,
    p_text,
    sign_flip,
    tango,
    task_weights,
)
from vlaser_gym.evaluation.report import write_report

Z = norm.isf(0.025)


def test_mcnemar_is_twice_the_smaller_tail() -> None:
    for b, c in product(range(12), repeat=2):
        tail = sum(comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
        assert mcnemar(b, c) == pytest.approx(min(1.0, 2 * tail))


def test_mcnemar_keeps_its_level() -> None:
    """Summed over all outcomes, for discordant shares from rare to always."""
    rejected, critical = [], -1  # largest count of the rarer outcome that the test rejects
    for d in range(241):
        while 2 * (critical + 1) < d and mcnemar(critical + 1, d - critical - 1) <= 0.05:
            critical += 1
        rejected.append(2 * binom.cdf(critical, d, 0.5))
    for n, share in product((24, 96, 240), (0.05, 0.2, 0.5, 1.0)):
        error = binom.pmf(np.arange(241), n, share) @ rejected
        assert error <= 0.05
    assert error > 0.03, "not by never rejecting"


def test_sign_flip_against_all_swaps() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        totals = rng.integers(-3, 4, 8)
        sums = [abs(np.dot(signs, totals)) for signs in product((-1, 1), repeat=8)]
        assert sign_flip(list(totals)) == pytest.approx(np.mean(np.array(sums) >= abs(totals.sum())))


def test_sign_flip_of_single_trials_is_mcnemars() -> None:
    for b, c in ((0, 0), (0, 5), (3, 9), (7, 7), (1, 20)):
        assert sign_flip([-1] * b + [1] * c + [0] * 4) == pytest.approx(mcnemar(b, c))


def likelihood_score(b: int, c: int, n: int, difference: float) -> float:
    """(observed - expected) / standard error at the most likely model with this difference, found numerically."""

    def unlikely(share: float) -> float:
        cells = np.array([share, share + difference, 1 - 2 * share - difference])
        return -sum(k * log(max(p, 1e-300)) for k, p in zip((b, c, n - b - c), cells, strict=True) if k)

    low, high = max(0.0, -difference), (1 - difference) / 2
    share = minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return (c - b - n * difference) / sqrt(n * (2 * share + difference - difference**2))


@pytest.mark.parametrize(("b", "c", "n"), [(2, 10, 24), (5, 5, 24), (9, 2, 32), (12, 40, 240), (1, 3, 96)])
def test_tango_inverts_the_likelihood_score(b: int, c: int, n: int) -> None:
    low, high = tango(b, c, n)
    assert likelihood_score(b, c, n, low) == pytest.approx(Z, abs=1e-4)
    assert likelihood_score(b, c, n, high) == pytest.approx(-Z, abs=1e-4)
    assert tango(c, b, n) == pytest.approx((-high, -low)), "swapping the runs mirrors the interval"


def test_tango_at_the_edges() -> None:
    """Without any success of one run only: a proportion's Wilson limits, worked by hand from the score."""
    low, high = tango(0, 0, 24)
    assert high == pytest.approx(Z**2 / (24 + Z**2), abs=1e-6)
    assert low == -high
    low, high = tango(0, 24, 24)
    assert (low, high) == (pytest.approx((24 - Z**2) / (24 + Z**2), abs=1e-6), 1.0)
    with pytest.raises(ValueError, match="discordant pairs among n = 4"):
        tango(3, 2, 4)


def test_tango_covers() -> None:
    """Summed over all outcomes of 24 pairs, averaged over rates and correlations."""
    n = 24
    limits = {(b, c): tango(b, c, n) for b in range(n + 1) for c in range(n + 1 - b)}
    cells = np.array(list(limits))
    low, high = np.array(list(limits.values())).T
    covered = []
    for a, b in product((0.1, 0.3, 0.5, 0.8), repeat=2):
        for both in np.linspace(max(0, a + b - 1), min(a, b), 4)[1:-1]:
            shares = [a - both, b - both, 1 - a - b + 2 * both]
            outcomes = np.column_stack([cells, n - cells.sum(1)])
            weights = multinomial.pmf(outcomes, n, shares)
            covered.append(weights[(low <= b - a) & (b - a <= high)].sum())
    assert 0.93 <= np.mean(covered) <= 0.97
    assert min(covered) > 0.90


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([0.2]) == [0.2]


def test_one_trial_per_layout(tmp_path: Path) -> None:
    """Counts, rates, intervals and p-values of two tasks, by hand."""
    where = addresses()
    a = {x: x.layout_index < 10 for x in where}
    b = {x: x.layout_index < (19 if x.task == TASKS[0] else 8) and x.layout_index != 3 for x in where}
    runs = load_runs([fabricate_run(tmp_path / "a", a), fabricate_run(tmp_path / "b", b)])
    (two,) = compare_runs(runs).against
    carrot, cube = two.tasks
    assert (carrot.both, carrot.only_a, carrot.only_b, carrot.neither) == (9, 1, 9, 5)
    assert (cube.both, cube.only_a, cube.only_b, cube.neither) == (7, 3, 0, 14)
    assert (carrot.a, carrot.b, carrot.difference) == pytest.approx((10 / 24, 18 / 24, 8 / 24))
    assert carrot.interval == tango(1, 9, 24)
    assert (carrot.p, cube.p) == (mcnemar(1, 9), mcnemar(3, 0))
    assert (carrot.p_holm, cube.p_holm) == pytest.approx((2 * mcnemar(1, 9), mcnemar(3, 0)))
    assert two.overall.difference == pytest.approx((8 - 3) / 48)
    assert two.overall.p == mcnemar(4, 9)
    assert (two.overall.n, two.overall.layouts, two.unpaired, two.warnings) == (48, 48, (0, 0), ())
    below = sqrt(sum((r.difference - r.interval[0]) ** 2 for r in (carrot, cube))) / 2
    assert two.overall.interval[0] == pytest.approx(5 / 48 - below)


def test_the_overall_test_is_one_of_the_mean_over_tasks(tmp_path: Path) -> None:
    """24 episodes of one task, 60 of another: of all episodes A wins 26 and B 12, yet the mean speaks for B."""
    carrot = addresses(TASKS[:1])
    cube = [Address(TASKS[1], "default", f"region:{k}", 0) for k in range(60)]
    a = dict.fromkeys(carrot, False) | {x: k < 26 for k, x in enumerate(cube)}
    b = {x: k < 12 for k, x in enumerate(carrot)} | dict.fromkeys(cube, False)
    overall = (
        compare_runs(load_runs([fabricate_run(tmp_path / n, run) for n, run in (("a", a), ("b", b))]))
        .against[0]
        .overall
    )
    assert overall.difference == pytest.approx((12 / 24 - 26 / 60) / 2)
    wins, losses = np.arange(13), np.arange(27)
    swapped = (2 * wins - 12)[:, None] / 24 - (2 * losses - 26)[None] / 60
    chances = binom.pmf(wins, 12, 0.5)[:, None] * binom.pmf(losses, 26, 0.5)[None]
    assert overall.p == pytest.approx(chances[np.abs(swapped) >= 12 / 24 - 26 / 60 - 1e-9].sum())
    assert overall.p > 0.5
    assert mcnemar(26, 12) < 0.05


def test_weights_of_tasks_stay_small() -> None:
    weights = task_weights([97, 89, 83, 300])
    assert np.allclose(np.array(weights) * [97, 89, 83, 300] / (weights[0] * 97), 1, atol=0.01)
    assert sum(w * n for w, n in zip(weights, (97, 89, 83, 300), strict=True)) < 250_000


def test_a_run_that_chose_its_end_is_told(tmp_path: Path) -> None:
    where = addresses(TASKS[:1])
    paths = [fabricate_run(tmp_path / "a", dict.fromkeys(where, True))]
    paths.append(fabricate_run(tmp_path / "b", dict.fromkeys(where, False), until="decided"))
    (warning,) = compare_runs(load_runs(paths)).against[0].warnings
    assert warning.startswith("b stopped when its question was decided")


def test_several_trials_are_grouped_by_layout(tmp_path: Path) -> None:
    where = addresses(TASKS[:1], layouts=8, trials=5)
    a = {x: x.trial == 0 for x in where}
    b = {x: x.trial < x.layout_index % 4 for x in where}
    runs = load_runs([fabricate_run(tmp_path / "a", a), fabricate_run(tmp_path / "b", b)])
    (row,) = compare_runs(runs).against[0].tasks
    totals = [k % 4 - 1 for k in range(8)]
    assert (row.n, row.layouts, row.method) == (40, 8, "bootstrap by layout")
    assert row.difference == pytest.approx(sum(totals) / 40)
    assert row.interval == stratified_bootstrap([Stratum.of(totals, [5] * 8)])
    assert row.p == pytest.approx(sign_flip(totals))
    assert row.p > mcnemar(row.only_a, row.only_b), "trials of a layout are no independent pairs"


def test_layouts_that_all_agree_still_have_an_interval(tmp_path: Path) -> None:
    where = addresses(TASKS[:1], layouts=6, trials=3)
    paths = [fabricate_run(tmp_path / name, dict.fromkeys(where, True)) for name in "ab"]
    (row,) = compare_runs(load_runs(paths)).against[0].tasks
    assert row.interval == tango(0, 0, 6)
    assert row.p == 1.0


def test_the_other_way_to_count(tmp_path: Path) -> None:
    where = addresses(TASKS[:1], layouts=8)
    a = fabricate_run(tmp_path / "a", dict.fromkeys(where, False), lost=where[:5])
    b = fabricate_run(tmp_path / "b", dict.fromkeys(where, False))
    runs = load_runs([a, b])
    assert compare_runs(runs).against[0].overall.difference == 0
    assert compare_runs(runs, "any").against[0].overall.difference == pytest.approx(-5 / 8)
    with pytest.raises(UnknownNameError, match="way to count 'often'"):
        compare_runs(runs, "often")


def test_several_runs_are_corrected_together(tmp_path: Path) -> None:
    where = addresses(TASKS[:1])
    cuts = {"base": 6, "one": 13, "two": 14, "three": 7}
    runs = load_runs([fabricate_run(tmp_path / n, {x: x.layout_index < k for x in where}) for n, k in cuts.items()])
    comparison = compare_runs(runs)
    assert [two.b for two in comparison.against] == ["one", "two", "three"]
    raw = [mcnemar(0, k) for k in (7, 8, 1)]
    assert [two.overall.p for two in comparison.against] == raw
    assert [two.overall.p_holm for two in comparison.against] == pytest.approx(
        [2 * raw[0], 3 * raw[1], max(raw[2], 2 * raw[0])]
    )
    assert json.loads(json.dumps(comparison.as_dict()))["against"][0]["tasks"][0]["only_b"] == 7


def test_only_common_addresses_are_compared(tmp_path: Path) -> None:
    a = fabricate_run(tmp_path / "a", dict.fromkeys(addresses(layouts=10), True))
    b = fabricate_run(tmp_path / "b", dict.fromkeys(addresses(TASKS[:1], layouts=14), False))
    (two,) = compare_runs(load_runs([a, b])).against
    assert (two.overall.n, two.unpaired) == (10, (10, 4))
    assert two.warnings[-1] == "Left out for want of a partner: 10 episodes of a, 4 of b."


def test_nothing_in_common_is_refused(tmp_path: Path) -> None:
    a = fabricate_run(tmp_path / "a", {Address(TASKS[0], trial=0): True})
    b = fabricate_run(tmp_path / "b", {Address(TASKS[0], trial=1): True})
    with pytest.raises(InvalidConfigError, match="no episode in common") as error:
        compare_runs(load_runs([a, b]))
    assert "grid:0/0" in str(error.value)
    assert "grid:0/1" in str(error.value)


def test_differing_protocols_are_told(tmp_path: Path) -> None:
    where = dict.fromkeys(addresses(TASKS[:1], layouts=2), True)
    a = fabricate_run(tmp_path / "a", where)
    b = fabricate_run(tmp_path / "b", where, engine="maniskill", look="original", terminate_on_success=True)
    runs = load_runs([a, b])
    assert differing_protocols(*runs) == (
        "engine differs: mujoco in a, maniskill in b.",
        "look differs: builtin in a, original in b.",
        "terminate_on_success differs: False in a, True in b.",
    )
    assert compare_runs(runs).against[0].warnings == differing_protocols(*runs)


def test_environments_are_compared_by_value(tmp_path: Path) -> None:
    """Of the tasks that both have; a run that tells nothing is not compared."""
    settings = [{TASKS[0]: {"control_freq": 5, "shader_dir": shader}} for shader in ("ibl", "rt")]
    outcomes = dict.fromkeys(addresses(layouts=2), True)
    paths = [
        fabricate_run(tmp_path / "one", outcomes, environment_settings=settings[0]),
        fabricate_run(tmp_path / "two", outcomes, environment_settings=settings[1]),
        fabricate_run(tmp_path / "old", outcomes),
    ]
    one, two, old = load_runs(paths)
    assert differing_protocols(one, two) == (f"shader dir of {TASKS[0]} differs: ibl in one, rt in two.",)
    assert differing_protocols(one, old) == ()


def test_what_is_no_comparison(tmp_path: Path) -> None:
    run = fabricate_run(tmp_path / "a", dict.fromkeys(addresses(layouts=2), True))
    with pytest.raises(InvalidConfigError, match="two runs or more; got 1"):
        compare_runs(load_runs([run]))
    with pytest.raises(InvalidConfigError, match="given twice"):
        load_runs([run, tmp_path / "." / "a"])
    with pytest.raises(StorageError, match="no run directory"):
        load_runs([run, tmp_path])
    with pytest.raises(InvalidConfigError, match="holds no finished episode"):
        load_runs([fabricate_run(tmp_path / "empty", {})])


def test_labels_tell_runs_apart(tmp_path: Path) -> None:
    where = dict.fromkeys(addresses(layouts=1), True)
    paths = [fabricate_run(tmp_path / group / "run", where) for group in ("x", "y")]
    assert [run.label for run in load_runs(paths)] == ["x/run", "y/run"]


def test_p_text() -> None:
    assert [p_text(p) for p in (0.0004, 0.0213, 1.0)] == ["< 0.001", "0.021", "1.000"]


def test_runs_of_all_names_that_the_preset_once_held_still_compare(tmp_path: Path) -> None:
    """Both names of the same nine episodes stay in the table; that the mean counts them twice is said."""
    names = ["google_robot_open_drawer", "google_robot_open_top_drawer"]
    where = addresses(names, layouts=9)
    for name, k in (("a", 3), ("b", 6)):
        fabricate_run(tmp_path / name, {x: x.layout_index < k for x in where}, task="google_robot")
    two = compare_runs(load_runs([tmp_path / "a", tmp_path / "b"])).against[0]
    assert [row.task for row in two.tasks] == names
    assert any(f"{names[0]} and {names[1]} (9); name each once." in warning for warning in two.warnings)
    page = write_report(tmp_path / "a").read_text()
    assert f"{names[0]} and {names[1]} (9)" in page


# ---- episodes that the simulator did not finish ----------------------------------------------------------------------


def compared(folder: Path, where: list[Address], a: int, b: int, errors_a: list[int], errors_b: list[int]) -> Any:
    """A succeeds on the first ``a`` of ``where``, B on the first ``b``; both crash where told, by position."""
    for name, successes, errors in (("a", a, errors_a), ("b", b, errors_b)):
        outcomes = {x: k < successes for k, x in enumerate(where)}
        fabricate_run(folder / name, outcomes, errors=[where[k] for k in errors])
    return compare_runs(load_runs([folder / "a", folder / "b"])).against[0]


def test_a_pair_with_an_error_counts_in_the_rates_alone(tmp_path: Path) -> None:
    """Of 48 pairs B crashes in one that A solves, A in one that B does not solve either: by hand."""
    two = compared(tmp_path, addresses(TASKS[:1], layouts=48), 30, 20, [40], [25])
    (row,) = two.tasks
    assert (row.n, row.errors_a, row.errors_b, row.tested, row.layouts) == (48, 1, 1, 46, 46)
    assert (row.a, row.b) == (30 / 48, 20 / 48)
    assert (row.both, row.only_a, row.only_b, row.neither) == (20, 9, 0, 17), "of A's ten more, one met B's crash"
    assert row.difference == -9 / 46
    assert row.interval == tango(9, 0, 46)
    assert row.p == row.p_holm == two.overall.p == 2 / 2**9
    (warning,) = two.warnings
    assert warning == (
        "In 2 of 48 pairs the simulator did not finish an episode (1 of a, 1 of b). The rates A and B count it as a "
        f"failure; B - A, its interval and p leave the pair out: with it they would be {-1000 / 48:.1f} points, "
        f"p = {2 / 2**10:.3f}."
    )


@pytest.mark.parametrize(("errors", "decides"), [(1, True), (2, False)])
def test_the_share_up_to_which_it_decides(tmp_path: Path, errors: int, decides: bool) -> None:
    """One pair of 20 is 5 %."""
    two = compared(tmp_path, addresses(TASKS[:1], layouts=20), 5, 19, [], [*range(20 - errors, 20)])
    assert two.overall.p == two.tasks[0].p == (pytest.approx(2 / 2**14) if decides else None)
    assert (two.overall.p_holm is None) is not decides


def test_several_trials_with_a_crash(tmp_path: Path) -> None:
    """Layouts' sums are taken of the trials that both finished."""
    where = addresses(TASKS[:1], layouts=10, trials=3)
    two = compared(tmp_path, where, 6, 18, [7], [])
    totals = [0, 0, 2, 3, 3, 3, 0, 0, 0, 0]
    assert (two.overall.tested, two.overall.layouts) == (29, 10)
    assert two.overall.p == sign_flip(totals)
    assert two.overall.interval == stratified_bootstrap([Stratum.of(totals, [3, 3, 2, *[3] * 7])])


def test_a_task_without_a_single_whole_pair(tmp_path: Path) -> None:
    """Its rates stand; it enters no difference, and the mean over tasks misses half of itself."""
    two = compared(tmp_path, addresses(layouts=6), 12, 6, [], [*range(6, 12)])
    first, second = two.tasks
    assert (second.difference, second.interval, second.p, second.tested, second.layouts) == (None, None, None, 0, 0)
    assert (first.difference, first.p, two.overall.difference) == (0, 1, 0)
    assert (two.overall.b, two.overall.n, two.overall.p) == (0.5, 12, None)
    assert f"Every pair of {TASKS[1]} holds an error: it enters no difference." in two.warnings
    page = write_report(tmp_path / "a", compare_to=tmp_path / "b", path=tmp_path / "page.html").read_text()
    assert "holds an error: it enters no difference" in page


def test_nothing_but_errors(tmp_path: Path) -> None:
    two = compared(tmp_path, addresses(TASKS[:1], layouts=3), 3, 0, [], [0, 1, 2])
    assert (two.overall.a, two.overall.b, two.overall.difference, two.overall.p) == (1, 0, None, None)
    write_report(tmp_path / "a", compare_to=tmp_path / "b", path=tmp_path / "page.html")


def wrong_verdicts(n: int, rate: float, share: float) -> float:
    """Chance of p <= 5 % between equal agents if ``share`` of B's episodes crash, each of which would have failed."""
    left = rate / (1 - share)
    only_a, only_b = (1 - share) * rate * (1 - left), (1 - share) * (1 - rate) * left
    chance = 0.0
    for d in range(n + 1):
        counts = np.arange(d + 1)
        rejects = 2 * binom.cdf(np.minimum(counts, d - counts), d, 0.5) <= 0.05
        chance += binom.pmf(d, n, only_a + only_b) * (binom.pmf(counts, d, only_b / (only_a + only_b)) @ rejects)
    return float(chance)


@pytest.mark.parametrize(
    ("share", "chances"),
    [(0.0, (2.4, 3.7, 4.0)), (0.05, (2.6, 4.8, 7.2)), (0.1, (3.2, 8.7, 18.4)), (0.2, (6.3, 28.5, 65.8))],
)
def test_the_table_of_the_document(share: float, chances: tuple[float, ...]) -> None:
    """Why 5 %: docs/statistics.md."""
    for n, chance in zip((24, 96, 240), chances, strict=True):
        assert 100 * wrong_verdicts(n, 0.5, share) == pytest.approx(chance, abs=0.05)


def test_what_the_share_still_allows_at_worst() -> None:
    assert 100 * wrong_verdicts(240, 0.7, MOST_LEFT_OUT) == pytest.approx(11.9, abs=0.05)
