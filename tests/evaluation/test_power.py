from __future__ import annotations

from math import ceil

import numpy as np
import pytest
from scipy.stats import norm

from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.comparison import mcnemar
from vlaser_gym.evaluation.power import discordant_share, paired_episodes, paired_power, plan, unpaired_episodes
from vlaser_gym.evaluation.sequential import UntilDecided


def test_unpaired_power_by_simulation() -> None:
    for a, b in ((0.65, 0.85), (0.65, 0.75), (0.1, 0.2)):
        n = unpaired_episodes(a, b)
        x, y = np.random.default_rng(0).binomial(n, [[a], [b]], (2, 40_000)) / n
        pooled = (x + y) / 2
        z = (x - y) / np.sqrt(np.maximum(2 * pooled * (1 - pooled) / n, 1e-12))
        assert np.mean(2 * norm.sf(np.abs(z)) <= 0.05) == pytest.approx(0.8, abs=0.02)


def test_known_sample_size() -> None:
    """Fleiss, Levin and Paik: 0.6 against 0.7, power 0.8, two-sided 5 %: 356 per group without correction."""
    assert unpaired_episodes(0.6, 0.7) == 356


def test_paired_power_is_summed_exactly() -> None:
    """Against a simulation that calls the test itself."""
    n, a, b, share = 60, 0.65, 0.85, 0.32
    cells = [(share + a - b) / 2, (share + b - a) / 2, 1 - share]
    draws = np.random.default_rng(1).multinomial(n, cells, 4000)
    pairs, counts = np.unique(draws[:, :2], axis=0, return_counts=True)
    found = sum(k for (x, y), k in zip(pairs, counts, strict=True) if mcnemar(int(x), int(y)) <= 0.05)
    assert paired_power(np.array([n]), a, b, share)[0] == pytest.approx(found / 4000, abs=0.025)


def test_paired_episodes_is_the_first_number_that_suffices() -> None:
    n = paired_episodes(0.65, 0.85, 0.32)
    power = paired_power(np.arange(n - 30, n + 1), 0.65, 0.85, 0.32)
    assert power[-1] >= 0.8
    assert power[:-12].max() < 0.8


def test_discordant_share() -> None:
    assert discordant_share(0.6, 0.8, 0.0) == pytest.approx(0.6 * 0.2 + 0.4 * 0.8)
    rng = np.random.default_rng(0)
    shared = rng.random(200_000) < 0.3
    x, y = np.where(shared, rng.random((1, 200_000)) < 0.7, rng.random((2, 200_000)) < 0.7)
    correlation = np.corrcoef(x, y)[0, 1]
    assert discordant_share(0.7, 0.7, correlation) == pytest.approx(np.mean(x != y), abs=0.005)


def test_pairing_helps_as_far_as_outcomes_correlate() -> None:
    rows, swapped = plan(0.60, 0.70), plan(0.70, 0.60)
    assert [row.design for row in rows] == ["unpaired"] + ["paired"] * 4
    episodes = [row.episodes for row in rows[1:]]
    assert episodes == sorted(episodes, reverse=True)
    assert rows[1].episodes == pytest.approx(rows[0].episodes, rel=0.1), "uncorrelated pairs save nothing"
    assert [row.episodes for row in swapped] == [row.episodes for row in rows]


def test_sequential_column_is_what_the_test_does() -> None:
    """Drawn and judged one by one: a plan of 24 layouts with a quarter more episodes than the fixed design's."""
    unpaired, row = plan(0.65, 0.85, correlations=(0.2,))
    share, rng = row.discordant, np.random.default_rng(0)
    assert share is not None

    def episodes(fixed: int) -> list[Address]:
        trials = ceil(1.25 * fixed / 24)
        return [Address("x", layout=f"grid:{k}", trial=r) for k in range(24) for r in range(trials)]

    stops, known = [], []
    for _ in range(150):
        where = episodes(row.episodes)
        draws = dict(zip(where, rng.random(len(where)), strict=True))
        until = UntilDecided(where, {x: draws[x] > (share + 0.2) / 2 for x in where})
        until({x: draws[x] < (share + 0.2) / 2 or draws[x] > share for x in where})
        stops.append(until.n)
        until = UntilDecided(episodes(unpaired.episodes), 0.65)
        until({x: bool(rng.random() < 0.85) for x in until.plan})
        known.append(until.n)
    assert row.sequential == pytest.approx(np.mean(stops), abs=4 * np.std(stops) / 150**0.5 + 1)
    assert unpaired.sequential == pytest.approx(np.mean(known), abs=4 * np.std(known) / 150**0.5 + 1)


def test_impossible_correlations_are_left_out() -> None:
    assert max(row.correlation or 0 for row in plan(0.1, 0.9)) == 0.0


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        (0.5, 0.5, {}, "two different rates"),
        (0.0, 0.5, {}, "between 0 and 100 %; got 0 and 50"),
        (0.5, 1.2, {}, "got 50 and 120"),
        (0.5, 0.6, {"power": 1.0}, "power must lie"),
        (0.5, 0.6, {"power": 0.01}, "power must exceed alpha"),
        (0.5, 0.501, {}, "cannot be told apart"),
    ],
)
def test_impossible_plans(a: float, b: float, options: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        plan(a, b, **options)
