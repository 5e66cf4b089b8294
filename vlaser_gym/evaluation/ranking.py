"""Does a simulator order policies as the real world does: SimplerEnv's two measures.

Definitions: SimplerEnv 4ab7178, ``simpler_env/utils/metrics.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from yaml import YAMLError

from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.evaluation.comparison import StoredRun
from vlaser_gym.evaluation.conventions import OUTCOMES
from vlaser_gym.evaluation.published import published_table, published_tables
from vlaser_gym.settings.reading import read_yaml

#: Policy -> task -> success rate between 0 and 1.
RealRates = Mapping[str, Mapping[str, float]]


def mmrv(sim: ArrayLike, real: ArrayLike) -> float:
    """Mean maximum rank violation, between 0 (best) and 1.

    A pair of policies whose strict order differs between simulation and reality weighs as much as their *real* rates
    differ; each policy counts with its worst pair. Hence the order of the arguments matters.

    Args:
        sim: ``[P]`` success rates of P policies in simulation.
        real: ``[P]`` the same policies' rates on the real robot, same order.

    Example:
        >>> mmrv([0.2, 0.8, 0.5], [0.1, 0.6, 0.7])
        0.0666...
    """
    sim, real = _vectors(sim, real)
    differs = (sim[:, None] > sim) != (real[:, None] > real)
    return float(np.mean(np.max(np.where(differs, np.abs(real[:, None] - real), 0.0), axis=1)))


def pearson(sim: ArrayLike, real: ArrayLike) -> float:
    """Pearson's correlation of success rates; 1 if both are constant, 0 if one is.

    Args:
        sim: ``[P]`` rates in simulation.
        real: ``[P]`` rates on the real robot, same order.
    """
    sim, real = _vectors(sim, real)
    x, y = sim - sim.mean(), real - real.mean()
    if np.array_equal(x, y):
        return 1.0
    # The small number is the original's: constant rates give 0 rather than a division by zero.
    return float(x @ y / (np.sqrt(x @ x) * np.sqrt(y @ y) + 1e-8))


@dataclass(frozen=True)
class Ranking:
    """The agreement of two sides on the order of policies in one task."""

    task: str
    policies: int
    mmrv: float
    pearson: float


def rank_against(
    runs: Sequence[StoredRun], policies: Sequence[str], real: RealRates, count: str = "last"
) -> list[Ranking]:
    """MMRV and Pearson's r of each task that two runs or more share with the real rates.

    Args:
        runs: one per policy.
        policies: each run's policy in ``real``.
        real: success rates on the real robot.
        count: ``"last"`` or ``"any"``.

    Raises:
        InvalidConfigError: if runs and policies do not match, or no task can be judged.
        UnknownNameError: for a policy without real rates, or another way to count.
    """
    if len(runs) != len(policies) or len(set(policies)) < len(policies):
        raise InvalidConfigError(
            f"policies= names the policy of each run once, in order; got {len(policies)} names for {len(runs)} runs."
        )
    if count not in OUTCOMES:
        raise UnknownNameError("way to count", count, OUTCOMES)
    for policy in policies:
        if policy not in real:
            raise UnknownNameError("policy", policy, real)
    rates, found = [], []
    for run in runs:
        outcomes: dict[str, list[bool]] = {}
        for address, record in run.records.items():
            outcomes.setdefault(address.task, []).append(bool(record[OUTCOMES[count]]))
        rates.append({task: float(np.mean(values)) for task, values in outcomes.items()})
    for task in dict.fromkeys(task for run in rates for task in run):
        pairs = [
            (r[task], real[p][task]) for r, p in zip(rates, policies, strict=True) if task in r and task in real[p]
        ]
        if len(pairs) > 1:
            sim, truth = zip(*pairs, strict=True)
            found.append(Ranking(task, len(pairs), mmrv(sim, truth), pearson(sim, truth)))
    if not found:
        raise InvalidConfigError("No task has real rates and episodes of two policies or more: nothing to rank.")
    return found


def read_real_rates(source: str) -> RealRates:
    """Real success rates from a published table (``"simplerenv-real"``) or a YAML file.

    Raises:
        UnknownNameError: if it is neither.
        InvalidConfigError: if the file is not ``policy -> task -> rate between 0 and 1``.
    """
    if not Path(source).is_file():
        table = published_table(source)
        if not any(len(tasks) == 1 for tasks in table.columns.values()):
            usable = [name for name, t in published_tables().items() if any(len(c) == 1 for c in t.columns.values())]
            raise UnknownNameError("table of rates by task", source, usable)
        return {row.model: table.rates(row.model) for row in table.rows}
    try:
        data = read_yaml(Path(source).read_text(encoding="utf-8"))
        rates = {str(p): {str(t): float(rate) for t, rate in tasks.items()} for p, tasks in data.items()}
    except (YAMLError, OSError, AttributeError, TypeError, ValueError):
        rates = {}
    if not rates or not all(0 <= rate <= 1 for tasks in rates.values() for rate in tasks.values()):
        raise InvalidConfigError(f"{source} must hold policies, below each its tasks with rates between 0 and 1.")
    return rates


def _vectors(sim: ArrayLike, real: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = np.asarray(sim, np.float64), np.asarray(real, np.float64)
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise ValueError(f"expected as many rates in simulation as in reality; got shapes {x.shape} and {y.shape}")
    return x, y
