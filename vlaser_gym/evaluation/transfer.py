"""Do two simulators order policies alike: the same policies, episodes and noise on both, compared episode by episode.

The policies are experts with wrong beliefs (:class:`~vlaser_gym.agents.believing.BelievingExpert`), whose quality is
graded, and checkpoints. Recordings of such experts in the original are a side of their own, :data:`RECORDED`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from vlaser_gym.agents.base import Agent
from vlaser_gym.agents.believing import BelievingExpert
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.engines import lanes_that_fit
from vlaser_gym.envs.tasks import by_robot, get_task
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.comparison import mcnemar
from vlaser_gym.evaluation.ranking import mmrv, pearson
from vlaser_gym.evaluation.runner import EpisodeResult, Runner
from vlaser_gym.evaluation.statistics import Interval, wilson

Floats = NDArray[np.float64]

#: The original's recorded episodes, as a side.
RECORDED = "recorded"
#: Standard deviations of beliefs (m): the policies.
BELIEFS = (0.0, 0.005, 0.010, 0.015, 0.020, 0.030)
#: Bootstrap samples of the intervals.
_RESAMPLES = 2000


#: An expert by its belief (m), or a checkpoint by its name or folder.
Policy = float | str
#: An episode of a policy, on whatever side.
Key = tuple[Policy, Address]


@dataclass(frozen=True)
class Trial:
    """An episode of a policy, its address, and the errors ``[2, 3]`` (m) that were recorded of an expert, if any."""

    policy: Policy
    address: Address
    errors: tuple[tuple[float, ...], ...] | None = None

    @property
    def key(self) -> Key:
        """The name that identifies the episode on every side."""
        return self.policy, self.address


#: ``Trial.key`` -> success at the last step.
Outcomes = Mapping[Key, bool]


def policy_name(policy: Policy) -> str:
    """For people: ``"10 mm"`` of an expert."""
    return policy if isinstance(policy, str) else f"{1000 * policy:g} mm"


@dataclass(frozen=True)
class Transfer:
    """The agreement of side B with side A, its reference.

    Attributes:
        n: episodes that both hold.
        policies: experts, best belief first, then checkpoints.
        rates_a, rates_b: mean over tasks of each policy.
        agreement: share of the episodes that end alike.
        only_a, only_b: successes of one side alone; ``p`` is McNemar's, two-sided.
        pearson, mmrv: over policies; ``cell_pearson``, ``cell_mmrv``: over the cells of policy and task. Intervals (95
            %): layouts are drawn again within tasks, for all policies and both sides together.
        disagreements: policy, address, which side succeeded.
    """

    a: str
    b: str
    n: int
    policies: tuple[Policy, ...]
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
    disagreements: tuple[tuple[Policy, str, str], ...]

    def stored(self) -> dict[str, Any]:
        """Dictionary for JSON."""
        return asdict(self)


def drawn_trials(tasks: Sequence[str], layouts: int, policies: Sequence[Policy] = BELIEFS) -> list[Trial]:
    """Every policy on the first ``layouts`` of the grid of each task."""
    addresses = [
        Address(name, "default", f"grid:{index}")
        for name in tasks
        for index in range(min(layouts, get_task(name).num_layouts))
    ]
    return [Trial(policy, address) for policy in policies for address in addresses]


def recorded_trials(golden: Path, tasks: Sequence[str]) -> tuple[list[Trial], dict[Key, bool]]:
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
    on_episode: Callable[[Trial, EpisodeResult], None] = lambda trial, result: None,
) -> dict[Key, bool]:
    """Outcomes of trials on an engine.

    Args:
        trials: what to run.
        engine, look, options: of the environments.
        lanes: most episodes at the same time.
        on_episode: told each, with its states.

    Raises:
        InvalidConfigError: for a checkpoint of another robot than its episodes'.
    """
    outcomes: dict[Key, bool] = {}
    for those in _played_together(trials):
        by_key = {trial.key: trial for trial in those}
        agents = {policy: _agent(policy, those) for policy in dict.fromkeys(trial.policy for trial in those)}
        grouped = {policy: [t.address for t in those if t.policy == policy] for policy in agents}
        observe = next(iter(agents.values())).observes
        fitting = lanes_that_fit(engine, min(lanes, *map(len, grouped.values())), pictures="image" in observe)
        env = SceneVectorEnv(
            list(dict.fromkeys(trial.address.task for trial in those)),
            fitting,
            engine=engine,
            look=look,
            observe=observe,
            autoreset_mode=AutoresetMode.DISABLED,
            record_states=True,
            engine_options=options,
        )
        try:
            for policy, addresses in grouped.items():
                for result in Runner(env, agents[policy], addresses, name=policy_name(policy)):
                    outcomes[policy, result.address] = result.success
                    on_episode(by_key[policy, result.address], result)
        finally:
            env.close()
    return outcomes


def _played_together(trials: Sequence[Trial]) -> Iterator[list[Trial]]:
    """Trials of one robot whose policies read the same: all experts, or one checkpoint."""
    for tasks in by_robot([get_task(name) for name in dict.fromkeys(t.address.task for t in trials)]).values():
        names = [task.name for task in tasks]
        own = [trial for trial in trials if trial.address.task in names]
        for reads in dict.fromkeys(trial.policy if isinstance(trial.policy, str) else "" for trial in own):
            yield [t for t in own if (t.policy if isinstance(t.policy, str) else "") == reads]


def _agent(policy: Policy, trials: Sequence[Trial]) -> Agent:
    """The agent of a policy; an expert takes over the errors that were recorded."""
    if not isinstance(policy, str):
        return BelievingExpert(policy, {t.address: t.errors for t in trials if t.policy == policy and t.errors})
    from vlaser_gym.agents.vlaser.agent import load_agent  # noqa: PLC0415  needs torch

    agent, (robot,) = load_agent(policy), by_robot([get_task(trial.address.task) for trial in trials])
    if agent.robot != robot:
        raise InvalidConfigError(
            f"The checkpoint {policy} is for {agent.robot}; the tasks are of {robot}: choose tasks of one robot, and "
            "checkpoints for it."
        )
    return agent


def _order(policy: Policy) -> tuple[bool, Policy]:
    """Sorts experts by their belief before checkpoints by their name."""
    return isinstance(policy, str), policy


def compare_sides(a: str, b: str, of_a: Outcomes, of_b: Outcomes, seed: int = 0) -> Transfer:
    """Side B against side A, on the episodes that both hold.

    Raises:
        InvalidConfigError: if there is none, or a policy lacks some of them.
    """
    keys = sorted(of_a.keys() & of_b.keys(), key=lambda key: (_order(key[0]), key[1].sort_key))
    policies = tuple(sorted({policy for policy, _ in keys}, key=_order))
    addresses = sorted({address for _, address in keys}, key=lambda address: address.sort_key)
    if not keys or len(keys) != len(policies) * len(addresses):
        raise InvalidConfigError(
            f"{a} and {b} must share the same episodes of every policy; they share {len(keys)} of {len(addresses)} "
            f"addresses and {len(policies)} policies."
        )
    tasks = np.unique([address.task for address in addresses], return_inverse=True)[1].ravel()
    ours, theirs = (np.array([[side[x, y] for y in addresses] for x in policies], float) for side in (of_b, of_a))
    cells = [_cells(side, tasks) for side in (theirs, ours)]
    rates = [cell.mean(1) for cell in cells]
    alike = int((ours == theirs).sum())
    only_a, only_b = (int((one > other).sum()) for one, other in ((theirs, ours), (ours, theirs)))
    samples = _samples(theirs, ours, tasks, np.random.default_rng(seed))
    return Transfer(
        a=a,
        b=b,
        n=len(keys),
        policies=policies,
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
