"""Do two simulators order policies alike: the same policies, episodes and noise on both, compared episode by episode.

The policies are experts with wrong beliefs (:class:`~vlaser_gym.agents.believing.BelievingExpert`), whose quality is
graded. Recordings of such experts in the original are a side of their own, :data:`RECORDED`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from vlaser_gym.agents.believing import BelievingExpert
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.engines import lanes_that_fit
from vlaser_gym.envs.tasks import by_robot, get_task
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.comparison import mcnemar
from vlaser_gym.evaluation.ranking import mmrv, pearson
from vlaser_gym.evaluation.runner import Runner
from vlaser_gym.evaluation.statistics import Interval, wilson

Floats = NDArray[np.float64]

#: The original's recorded episodes, as a side.
RECORDED = "recorded"
#: Standard deviations of beliefs (m): the policies.
BELIEFS = (0.0, 0.005, 0.010, 0.015, 0.020, 0.030)
#: Bootstrap samples of the intervals.
_RESAMPLES = 2000


@dataclass(frozen=True)
class Trial:
    """An episode of a policy: its belief (m), its address, and the errors ``[2, 3]`` (m) that were recorded, if any."""

    belief: float
    address: Address
    errors: tuple[tuple[float, ...], ...] | None = None

    @property
    def key(self) -> tuple[float, Address]:
        """The name that identifies the policy on every side."""
        return self.belief, self.address


#: ``Trial.key`` -> success at the last step.
Outcomes = Mapping[tuple[float, Address], bool]


@dataclass(frozen=True)
class Transfer:
    """The agreement of side B with side A, its reference.

    Attributes:
        n: episodes that both hold.
        rates_a, rates_b: mean over tasks of each policy, best belief first.
        agreement: share of the episodes that end alike.
        only_a, only_b: successes of one side alone; ``p`` is McNemar's, two-sided.
        pearson, mmrv: over policies; ``cell_pearson``, ``cell_mmrv``: over the cells of policy and task. Intervals (95
            %): layouts are drawn again within tasks, for all policies and both sides together.
        disagreements: belief (m), address, which side succeeded.
    """

    a: str
    b: str
    n: int
    beliefs: tuple[float, ...]
    rates_a: tuple[float, ...]
    rates_b: tuple[float, ...]
    agreement: float
    agreement_interval: Interval
    only_a: int
    only_b: int
    p: float
    pearson: float
    pearson_interval: Interval
    mmrv: float
    mmrv_interval: Interval
    cell_pearson: float
    cell_mmrv: float
    disagreements: tuple[tuple[float, str, str], ...]

    def stored(self) -> dict[str, Any]:
        """Dictionary for JSON."""
        return asdict(self)


def drawn_trials(tasks: Sequence[str], layouts: int, beliefs: Sequence[float] = BELIEFS) -> list[Trial]:
    """Every policy on the first ``layouts`` of the grid of each task."""
    addresses = [
        Address(name, "default", f"grid:{index}")
        for name in tasks
        for index in range(min(layouts, get_task(name).num_layouts))
    ]
    return [Trial(belief, address) for belief in beliefs for address in addresses]


def recorded_trials(golden: Path, tasks: Sequence[str]) -> tuple[list[Trial], dict[tuple[float, Address], bool]]:
    """Recorded episodes of tasks in ``golden``'s folders ``ranking`` and ``ranking_google``, and how they ended.

    Raises:
        InvalidConfigError: if there are none.
    """
    trials, outcomes = [], {}
    for folder in ("ranking", "ranking_google"):
        file = golden / folder / "index.json"
        for row in json.loads(file.read_text()).values() if file.is_file() else ():
            if row["task"] in tasks:
                errors = (tuple(row["source_error_m"]), tuple(row["target_error_m"]))
                trial = Trial(row["belief_sigma_m"], Address(row["task"], "default", row["layout"]), errors)
                trials.append(trial)
                outcomes[trial.key] = bool(row["success"])
    if not trials:
        raise InvalidConfigError(
            f"{golden} holds no recorded episodes of {', '.join(tasks)} (ranking/index.json): leave "
            f"{RECORDED} out of engines=, or give their folder with golden=."
        )
    return trials, outcomes


def run_trials(
    trials: Sequence[Trial],
    engine: str,
    look: str | None,
    options: Mapping[str, Any],
    lanes: int = 8,
    on_episode: Callable[[], None] = lambda: None,
) -> dict[tuple[float, Address], bool]:
    """Outcomes of trials on an engine."""
    outcomes: dict[tuple[float, Address], bool] = {}
    for tasks in by_robot([get_task(name) for name in dict.fromkeys(t.address.task for t in trials)]).values():
        names = [task.name for task in tasks]
        own = [trial for trial in trials if trial.address.task in names]
        grouped = {belief: [t for t in own if t.belief == belief] for belief in dict.fromkeys(t.belief for t in own)}
        env = SceneVectorEnv(
            names,
            lanes_that_fit(engine, min(lanes, *map(len, grouped.values())), pictures=False),
            engine=engine,
            look=look,
            observe=("state",),
            autoreset_mode=AutoresetMode.DISABLED,
            engine_options=options,
        )
        try:
            for belief, those in grouped.items():
                agent = BelievingExpert(belief, {t.address: t.errors for t in those if t.errors is not None})
                for result in Runner(env, agent, [t.address for t in those], name="believing"):
                    outcomes[belief, result.address] = result.success
                    on_episode()
        finally:
            env.close()
    return outcomes


def compare_sides(a: str, b: str, of_a: Outcomes, of_b: Outcomes, seed: int = 0) -> Transfer:
    """Side B against side A, on the episodes that both hold.

    Raises:
        InvalidConfigError: if there is none, or a policy lacks some of them.
    """
    keys = sorted(of_a.keys() & of_b.keys(), key=lambda key: (key[0], key[1].sort_key))
    beliefs = tuple(sorted({belief for belief, _ in keys}))
    addresses = sorted({address for _, address in keys}, key=lambda address: address.sort_key)
    if not keys or len(keys) != len(beliefs) * len(addresses):
        raise InvalidConfigError(
            f"{a} and {b} must share the same episodes of every policy; they share {len(keys)} of {len(addresses)} "
            f"addresses and {len(beliefs)} policies."
        )
    tasks = np.unique([address.task for address in addresses], return_inverse=True)[1].ravel()
    ours, theirs = (np.array([[side[x, y] for y in addresses] for x in beliefs], float) for side in (of_b, of_a))
    cells = [_cells(side, tasks) for side in (theirs, ours)]
    rates = [cell.mean(1) for cell in cells]
    alike = int((ours == theirs).sum())
    only_a, only_b = (int((one > other).sum()) for one, other in ((theirs, ours), (ours, theirs)))
    samples = _samples(theirs, ours, tasks, np.random.default_rng(seed))
    return Transfer(
        a=a,
        b=b,
        n=len(keys),
        beliefs=beliefs,
        rates_a=tuple(rates[0].tolist()),
        rates_b=tuple(rates[1].tolist()),
        agreement=alike / len(keys),
        agreement_interval=wilson(alike, len(keys)),
        only_a=only_a,
        only_b=only_b,
        p=mcnemar(only_a, only_b),
        pearson=pearson(rates[1], rates[0]),
        pearson_interval=_percentiles(samples[:, 0]),
        mmrv=mmrv(rates[1], rates[0]),
        mmrv_interval=_percentiles(samples[:, 1]),
        cell_pearson=pearson(cells[1].ravel(), cells[0].ravel()),
        cell_mmrv=mmrv(cells[1].ravel(), cells[0].ravel()),
        disagreements=tuple(
            (key[0], str(key[1]), a if of_a[key] else b) for key in keys if bool(of_a[key]) != bool(of_b[key])
        ),
    )


def _cells(success: Floats, tasks: NDArray[np.int64]) -> Floats:
    """Rates ``[policies, tasks]`` of ``success [policies, addresses]``."""
    return np.stack([success[:, tasks == task].mean(1) for task in range(tasks.max() + 1)], 1)


def _samples(a: Floats, b: Floats, tasks: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """Pearson's r and MMRV ``[samples, 2]`` with layouts drawn again within each task."""
    places = [np.flatnonzero(tasks == task) for task in range(tasks.max() + 1)]
    found = []
    for _ in range(_RESAMPLES):
        drawn = [rng.choice(those, len(those)) for those in places]
        rates = [np.mean([side[:, those].mean(1) for those in drawn], 0) for side in (a, b)]
        found.append((pearson(rates[1], rates[0]), mmrv(rates[1], rates[0])))
    return np.array(found)


def _percentiles(values: Floats) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
