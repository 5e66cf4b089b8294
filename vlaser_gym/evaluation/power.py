"""Power analysis: the number of episodes that it takes to tell two success rates apart.

Two designs. Unpaired: each run has its own episodes; the test is the two-proportion z test. Paired: both runs play the
same addresses; the test is McNemar's exact one, and what counts is how often the two disagree. The more alike the two
agents succeed and fail on the same layouts (correlation of their outcomes), the fewer episodes are needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.looks import Schedule
from vlaser_gym.evaluation.simulation import against_rate, against_run

#: Beyond this many episodes a plan is of no use to anybody.
MOST_EPISODES = 200_000
CORRELATIONS = (0.0, 0.2, 0.4, 0.6)
#: Sequential designs have layouts like a WidowX task, and so many times the episodes of the fixed design: about what
#: their looks cost.
_LAYOUTS, _LONGER = 24, 1.25
#: Fixed designs beyond this get no forecast of the sequential one, which would take minutes.
_LONGEST = 3000
#: Simulated evaluations of each sequential design.
_RUNS = 500


@dataclass(frozen=True)
class PlanRow:
    """Episodes that each of the two runs needs.

    Attributes:
        design: ``"unpaired"`` or ``"paired"``.
        correlation: of the two outcomes of an address; ``None`` for the unpaired design.
        discordant: share of addresses on which just one of the two succeeds; ``None`` for the unpaired design.
        episodes: per run, fixed beforehand.
        sequential: of the second run on average, if it stops as soon as the question is decided; unpaired against the
            first rate taken as known, paired against a stored run. Simulated: 24 layouts, all alike, with as many
            trials as hold a quarter more than ``episodes``; an open test counts with all of them. ``None`` for plans of
            several thousand episodes.
    """

    design: str
    correlation: float | None
    discordant: float | None
    episodes: int
    sequential: int | None


def plan(
    a: float,
    b: float,
    power: float = 0.8,
    alpha: float = 0.05,
    correlations: tuple[float, ...] = CORRELATIONS,
) -> list[PlanRow]:
    """Episodes needed to tell rates ``a`` and ``b`` apart, unpaired and paired.

    Args:
        a, b: success rates between 0 and 1.
        power: chance to find the difference if it is there.
        alpha: chance to find one if there is none (two-sided).
        correlations: of outcomes on the same address, for the paired design; those that ``a`` and ``b`` rule out are
            left out.

    Raises:
        InvalidConfigError: for rates that are equal, outside (0, 1), or too close to be told apart in 200,000 episodes.
    """
    _check(a, b, power, alpha)
    needed = unpaired_episodes(a, b, power, alpha)
    rows = [PlanRow("unpaired", None, None, needed, _sequential(a, b, None, needed, alpha))]
    for correlation in correlations:
        share = discordant_share(a, b, correlation)
        if share >= abs(a - b):
            needed = paired_episodes(a, b, share, power, alpha)
            sequential = _sequential(a, b, correlation, needed, alpha)
            rows.append(PlanRow("paired", correlation, share, needed, sequential))
    return rows


def _sequential(a: float, b: float, correlation: float | None, fixed: int, alpha: float) -> int | None:
    """Mean episodes of the second run, against the first rate (no correlation) or against the first run."""
    if fixed > _LONGEST:
        return None
    schedule = Schedule.of(_LAYOUTS, ceil(_LONGER * fixed / _LAYOUTS), alpha)
    if correlation is None:
        return ceil(against_rate(b, a, schedule, runs=_RUNS).mean)
    return ceil(against_run(b, a, schedule, agreement=correlation, runs=_RUNS).mean)


def unpaired_episodes(a: float, b: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Episodes per run for the two-sided z test of two proportions (Fleiss, Levin and Paik 2003, equation 4.14)."""
    from scipy.stats import norm  # noqa: PLC0415  loading it takes a second

    middle = (a + b) / 2
    under_null = norm.isf(alpha / 2) * sqrt(2 * middle * (1 - middle))
    under_difference = norm.isf(1 - power) * sqrt(a * (1 - a) + b * (1 - b))
    deviations = float(under_null + under_difference)
    return ceil((deviations / (a - b)) ** 2)


def paired_episodes(a: float, b: float, discordant: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Addresses that both runs must play for McNemar's exact test.

    Power is summed over the binomial distributions, not approximated. It rises in a saw-tooth: the answer is the
    least number that reaches ``power`` and from which it does not fall below again (looked at 24 points of the next
    tenth).

    Args:
        a, b: success rates.
        discordant: share of addresses on which just one of the two succeeds, at least ``|a - b|``.
        power, alpha: as in :func:`plan`.
    """

    def reached(n: int) -> bool:
        """True if ``n`` episodes, and all numbers up to a tenth more, have the power: it is not monotonic in ``n``."""
        ahead = np.unique(np.linspace(n, 1.1 * n + 3, 24).astype(np.int64))
        return bool(paired_power(ahead, a, b, discordant, alpha).min() >= power)

    low, high = 1, 64
    while not reached(high):
        low, high = high, 2 * high
        if high > MOST_EPISODES:
            raise InvalidConfigError(
                f"Rates of {100 * a:g} % and {100 * b:g} % cannot be told apart in {MOST_EPISODES} episodes: "
                "plan for a larger difference."
            )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def paired_power(
    episodes: NDArray[np.int64], a: float, b: float, discordant: float, alpha: float = 0.05
) -> NDArray[np.float64]:
    """Chance that McNemar's exact test finds the difference, for each number of episodes."""
    from scipy.stats import binom  # noqa: PLC0415

    # Numbers of disagreements ten standard deviations away have no weight, and leaving them out saves most of the work.
    fewest, most = (float(n) * discordant for n in (episodes.min(), episodes.max()))
    bottom = max(0, int(fewest - 10 * sqrt(fewest) - 20))
    top = min(int(episodes.max()), int(most + 10 * sqrt(most) + 20))
    disagreements = np.arange(bottom, top + 1)
    # The largest count of the rarer outcome at which the exact test rejects; -1 where it never does.
    guess = binom.ppf(alpha / 2, disagreements, 0.5).astype(np.int64)
    critical = np.where(2 * binom.cdf(guess, disagreements, 0.5) > alpha, guess - 1, guess)
    share = (discordant + a - b) / 2 / discordant if discordant else 0.5
    found = binom.cdf(critical, disagreements, share) + binom.sf(disagreements - critical - 1, disagreements, share)
    return np.array([binom.pmf(disagreements, n, discordant) @ found for n in episodes])


def discordant_share(a: float, b: float, correlation: float) -> float:
    """Share of addresses with just one success, if outcomes correlate so (phi coefficient).

    The result is below ``|a - b|`` where no pair of agents can correlate so strongly.
    """
    both = a * b + correlation * sqrt(a * (1 - a) * b * (1 - b))
    return a + b - 2 * both


def _check(a: float, b: float, power: float, alpha: float) -> None:
    if not (0 < a < 1 and 0 < b < 1) or a == b:
        raise InvalidConfigError(
            f"A plan needs two different rates between 0 and 100 %; got {100 * a:g} and {100 * b:g}."
        )
    for name, value in (("power", power), ("alpha", alpha)):
        if not 0 < value < 1:
            raise InvalidConfigError(f"{name} must lie between 0 and 1; got {value}.")
    if alpha >= power:
        raise InvalidConfigError(f"power must exceed alpha; got {power} and {alpha}.")
