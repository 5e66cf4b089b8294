"""Simulated evaluations under ``until=decided``, thousands of them without a simulator, for plans and tests.

The evaluations are judged by the same functions as real ones (``looks.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.evaluation.looks import (
    Draw,
    FlipTest,
    Floats,
    Schedule,
    batches,
    layout_rates,
    limits,
    simulated_scores,
    swaps,
)

#: Swaps of a simulated evaluation: fewer than of a real one, which costs a little power and no validity.
_FLIPS = 999
#: Simulated evaluations that are judged together.
_RUNS_AT_ONCE = 500


@dataclass(frozen=True)
class Forecast:
    """The predicted distribution of evaluations.

    Attributes:
        mean: episodes until the verdict on average, where an open test counts with all episodes.
        better, worse: shares of the verdicts.
    """

    mean: float
    better: float
    worse: float

    @classmethod
    def of(cls, verdicts: NDArray[np.int64], looks: NDArray[np.int64]) -> Forecast:
        """Make from ``[R, K]`` what each look of each evaluation says: 1, -1, or 0 for open."""
        said = verdicts != 0
        stop = np.where(said.any(1), said.argmax(1), len(looks) - 1)
        final = verdicts[np.arange(len(verdicts)), stop]
        return cls(float(looks[stop].mean()), float((final > 0).mean()), float((final < 0).mean()))


def against_rate(
    agent: float,
    baseline: float,
    schedule: Schedule,
    correlation: float = 0.0,
    runs: int = 2000,
    seed: int = 0,
) -> Forecast:
    """Simulate ``until=decided`` with a rate as baseline.

    Args:
        agent: its success rate.
        baseline: the rate that it is compared with.
        schedule: layouts, trials and error level.
        correlation: of two trials of one layout. Layouts' rates are beta distributed; at 1, a layout always or never
            succeeds.
        runs: evaluations to simulate.
        seed: the same seed gives the same forecast.

    Example:
        >>> against_rate(0.85, 0.65, Schedule.of(24, 10)).mean < 80
        True
    """
    scores = simulated_scores(schedule, agent, baseline, np.random.default_rng(seed), correlation, runs)
    up, down = limits(schedule, baseline)
    return Forecast.of((scores > up).astype(np.int64) - (-scores > down), schedule.looks)


def against_run(
    agent: float,
    baseline: float,
    schedule: Schedule,
    correlation: float = 0.0,
    agreement: float = 0.0,
    runs: int = 2000,
    seed: int = 0,
) -> Forecast:
    """Simulate ``until=decided`` with a run as baseline, which is simulated too.

    Args:
        agent, baseline: success rates of the two.
        schedule, runs, seed: as in :func:`against_rate`.
        correlation: of two trials of one layout, for each of the two, who find different layouts hard.
        agreement: correlation of the two outcomes of an address beyond that of chance (phi coefficient), as far as the
            layout's rates allow.
    """
    rng = np.random.default_rng(seed)
    verdicts = []
    for count in batches(runs, _RUNS_AT_ONCE):
        shape = count, schedule.sizes[0]
        a, b = (layout_rates(rate, correlation, shape, rng) for rate in (agent, baseline))
        alike = a * b + agreement * np.sqrt(a * (1 - a) * b * (1 - b))
        both = np.clip(alike, np.maximum(0, a + b - 1), np.minimum(a, b))
        steps = schedule.sums(count, _differences(a - both, b - both, rng))
        test = FlipTest(swaps(schedule.sizes[0], _FLIPS), count)
        looks = [test.look(sums, spent) for (sums, _), spent in zip(steps, schedule.spent, strict=True)]
        verdicts.append(np.stack(looks, 1))
    return Forecast.of(np.concatenate(verdicts), schedule.looks)


def _differences(only_agent: Floats, only_baseline: Floats, rng: np.random.Generator) -> Draw:
    """Draws 1 where only the agent succeeds, -1 where only the baseline does, else 0."""

    def draw(begin: int, end: int) -> NDArray[np.int64]:
        """Outcomes ``[runs, end - begin]`` of the layouts from ``begin`` up to ``end``."""
        chance = rng.random((len(only_agent), end - begin))
        won = chance < only_agent[:, begin:end]
        lost = chance >= 1 - only_baseline[:, begin:end]
        return won.astype(np.int64) - lost

    return draw
