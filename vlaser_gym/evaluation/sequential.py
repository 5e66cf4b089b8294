"""Stopping an evaluation as soon as its question is answered.

The question: is the agent's success rate above or below a baseline's? Both one-sided nulls ("not above", "not below")
are tested after every episode by betting against them: evidence is the factor by which a bettor who starts with one
coin has multiplied it. Under a null this factor is expected to stay at one or fall, so the chance that it ever exceeds
``2 / level`` is at most ``level / 2`` (Ville 1939), however often one looks and whenever one stops. Why this test and
not Wald's is told in ``docs/statistics.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.conventions import OUTCOMES
from vlaser_gym.evaluation.statistics import Interval
from vlaser_gym.evaluation.store import address_of, read_records

#: The baseline of a sequential test: a rate, or the outcomes of a run.
Baseline = float | Mapping[Address, bool]


class SequentialTest:
    """Fed with outcomes one by one, it says when enough is known.

    Against a rate every episode counts. Against a run, the outcome of each address is compared with the run's: pairs
    in which both succeed or both fail say nothing, of the others a half is expected either way if the agents are
    equally good.

    The bettor's stake is not fixed beforehand: it is averaged over all alternatives, with a uniform prior on the rate
    above (below) the null's (a beta mixture, in closed form).

    Args:
        baseline: a rate strictly between 0 and 1, or outcomes by address.
        level: chance at most of a wrong verdict if the agent is just as good as the baseline; half of it goes to
            each direction.

    Attributes:
        n: episodes fed so far.
        wins, losses: successes and failures; against a run, pairs that only the agent (only the baseline) solved.
        verdict: ``"better"``, ``"worse"`` or ``None`` as long as it is open. It never changes once given.

    Raises:
        InvalidConfigError: for a rate or level outside (0, 1).

    Example:
        >>> test = SequentialTest(0.5)
        >>> while test.verdict is None:
        ...     test.add(Address("widowx_stack_cube", trial=test.n), True)
        >>> test.n, test.verdict
        (8, 'better')
    """

    def __init__(self, baseline: Baseline, level: float = 0.05) -> None:
        if not 0 < level < 1:
            raise InvalidConfigError(f"level must lie between 0 and 1; got {level}.")
        self.level = level
        self.outcomes = baseline if isinstance(baseline, Mapping) else None
        self.null = 0.5 if isinstance(baseline, Mapping) else float(baseline)
        if not 0 < self.null < 1:
            raise InvalidConfigError(
                f"A baseline rate lies strictly between 0 and 1 (0 and 100 %); got {self.null:g}: against certain "
                "failure or success a single episode decides."
            )
        self.n = self.wins = self.losses = 0
        self.verdict: str | None = None

    def add(self, address: Address, success: bool) -> None:
        """Feed one episode.

        Raises:
            KeyError: if the baseline run lacks the address.
        """
        self.n += 1
        if self.outcomes is not None and self.outcomes[address] == success:
            return
        self.wins += success
        self.losses += not success
        if self.verdict is None:
            self.verdict = self._judge()

    def evidence(self) -> tuple[float, float]:
        """Natural logarithms of the evidence against "not better" and against "not worse"."""
        better = log_evidence(self.wins, self.losses, self.null)
        worse = log_evidence(self.losses, self.wins, 1 - self.null)
        return float(better), float(worse)

    def interval(self) -> Interval:
        """Confidence interval that holds at every time together, of the rate (against a run: of the share of wins).

        Unlike Wilson's it stays valid if one stops because of what it shows. It holds with ``1 - level``.
        """
        from scipy.optimize import brentq  # noqa: PLC0415  loading it takes a second

        if not self.wins + self.losses:
            return 0.0, 1.0

        def excess(rate: float) -> float:
            """Above 0 where the evidence against a rate suffices at the level (natural logarithm)."""
            return _two_sided_evidence(self.wins, self.losses, rate) - log(1 / self.level)

        edge = 1e-12
        middle = min(max(self.wins / (self.wins + self.losses), edge), 1 - edge)
        low = brentq(excess, edge, middle) if excess(edge) > 0 and middle > edge else 0.0
        high = brentq(excess, middle, 1 - edge) if excess(1 - edge) > 0 and middle < 1 - edge else 1.0
        return float(low), float(high)

    def _judge(self) -> str | None:
        threshold = log(2 / self.level)
        better, worse = self.evidence()
        if better >= threshold:
            return "better"
        return "worse" if worse >= threshold else None


def log_evidence(wins: ArrayLike, losses: ArrayLike, null: float) -> NDArray[np.float64]:
    """Logarithm of the evidence against "the rate is at most ``null``", for one or many counts.

    It is the mean likelihood ratio against ``null`` under a uniform prior on ``(null, 1)``. As a function of the
    data it is a product of factors linear in each outcome, so its expectation does not grow under any smaller rate.
    """
    from scipy.special import betaincc, betaln  # noqa: PLC0415

    w, k = np.asarray(wins, np.float64), np.asarray(losses, np.float64)
    with np.errstate(divide="ignore"):  # no weight above the null: no evidence
        above = np.log(betaincc(w + 1, k + 1, null))
    evidence = betaln(w + 1, k + 1) + above - log(1 - null) - w * log(null) - k * log(1 - null)
    return np.asarray(evidence, np.float64)


def _two_sided_evidence(wins: int, losses: int, null: float) -> float:
    """Logarithm of the mean likelihood ratio against exactly ``null`` under a uniform prior on (0, 1)."""
    from scipy.special import betaln  # noqa: PLC0415

    return float(betaln(wins + 1, losses + 1)) - wins * log(null) - losses * log(1 - null)


class UntilDecided:
    """Tells an evaluation in which order to run and when to stop.

    Episodes enter the test in the order of :attr:`plan`, each as soon as all before it have ended. So the verdict does
    not depend on how many ran side by side, nor on which of them were faster: successes can be, and would otherwise
    come first. Episodes that were under way when the verdict fell are stored but not part of it.

    Args:
        addresses: all episodes that the evaluation may run.
        baseline: a rate, or outcomes by address.
        level: error level of the test.

    Attributes:
        plan: the addresses in random order, the same every time; the test needs it, because the layouts and tasks of
            the benchmark come in blocks that are not alike.
        test: what has been fed so far.

    Raises:
        InvalidConfigError: if the baseline run lacks some of the episodes.

    Example:
        >>> episodes = [Address("widowx_stack_cube", layout=f"grid:{k}") for k in range(24)]
        >>> until = UntilDecided(episodes, 0.5)
        >>> until({until.plan[0]: True}) is None
        True
        >>> until({address: True for address in until.plan})
        'better than 50.0 % after 8 episodes (error level 5 %)'
    """

    def __init__(self, addresses: Sequence[Address], baseline: Baseline, level: float = 0.05) -> None:
        if isinstance(baseline, Mapping):
            missing = [address for address in addresses if address not in baseline]
            if missing:
                raise InvalidConfigError(
                    f"The baseline run lacks {len(missing)} of {len(addresses)} episodes, for instance {missing[0]}: "
                    "give it and this evaluation the same task, variant, layouts, episodes and trials."
                )
        self.plan = shuffled(addresses)
        self.test = SequentialTest(baseline, level)
        self.used: list[Address] = []

    def __call__(self, results: Mapping[Address, bool]) -> str | None:
        """Why to stop now, or ``None`` to go on.

        Args:
            results: success of all episodes that have ended, by address.
        """
        while self.test.verdict is None and len(self.used) < len(self.plan):
            address = self.plan[len(self.used)]
            if address not in results:
                return None
            self.used.append(address)
            self.test.add(address, bool(results[address]))
        return self.reason

    @property
    def reason(self) -> str | None:
        """The verdict in words."""
        test = self.test
        if test.verdict is None:
            return None
        whom = "the baseline run" if test.outcomes is not None else f"{100 * test.null:.1f} %"
        pairs = f", {test.wins} won, {test.losses} lost" if test.outcomes is not None else ""
        return f"{test.verdict} than {whom} after {test.n} episodes{pairs} (error level {100 * test.level:g} %)"


def shuffled(addresses: Sequence[Address]) -> list[Address]:
    """The addresses in an order that is random but depends on nothing except the set of them."""
    ordered = sorted(addresses, key=lambda address: address.sort_key)
    # The seed is arbitrary. It is fixed so that a run that was interrupted goes on in the same order.
    return [ordered[index] for index in np.random.default_rng(20250131).permutation(len(ordered))]


def read_baseline(baseline: Any, count: str = "last") -> Baseline:
    """``baseline=`` of the evaluation command: a run directory, or a rate (numbers above 1 are percent).

    Raises:
        InvalidConfigError: for anything else.
        StorageError: if the directory holds no run.
    """
    text = str(baseline)
    if Path(text).is_dir():
        return {address_of(record): bool(record[OUTCOMES[count]]) for record in read_records(text)}
    try:
        rate = float(text.removesuffix("%"))
    except ValueError:
        raise InvalidConfigError(
            f"baseline must be a run directory or a success rate such as 0.65 or 65%; got {text!r}."
        ) from None
    return rate / 100 if rate > 1 or text.endswith("%") else rate


@dataclass(frozen=True)
class Forecast:
    """How a sequential test will go.

    Attributes:
        mean: outcomes until the verdict on average, where an open test counts as ``most``.
        better, worse: chances of the verdicts within ``most`` outcomes.
    """

    mean: float
    better: float
    worse: float


def forecast(rate: float, null: float, level: float = 0.05, most: int = 240) -> Forecast:
    """What a test against ``null`` will do if the rate is ``rate``; summed over all paths, not simulated.

    For a comparison with a run, outcomes are the discordant pairs, ``null`` is a half, and ``rate`` the share that the
    agent wins.
    """
    counts = np.arange(1, most + 1)
    upper = _wins_needed(counts, null, level)
    lower = counts - _wins_needed(counts, 1 - null, level)
    paths, first = np.ones(1), 0  # chances of first, first + 1, ... wins with the test still open
    mean = better = worse = 0.0
    for low, high in zip(lower, upper, strict=True):
        mean += paths.sum()
        paths = np.append(paths * (1 - rate), 0.0) + np.append(0.0, paths * rate)
        begin, end = max(low + 1 - first, 0), max(high - first, 0)
        better, worse = better + paths[end:].sum(), worse + paths[:begin].sum()
        paths, first = paths[begin:end], first + begin
    return Forecast(float(mean), float(better), float(worse))


def _wins_needed(counts: NDArray[np.int64], null: float, level: float) -> NDArray[np.int64]:
    """Fewest wins that decide for "better" after so many outcomes; one more than there are outcomes if none do."""
    low, high = np.full_like(counts, -1), counts + 1
    while (high - low > 1).any():  # bisection: evidence grows with every win
        middle = (low + high) // 2
        enough = log_evidence(middle, counts - middle, null) >= log(2 / level)
        # Where the two have met, the middle equals the lower end, which never is enough.
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return high
