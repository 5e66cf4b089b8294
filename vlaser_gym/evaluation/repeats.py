"""Runs that were repeated with other seeds, as one: folders with the same runs below them, one folder per seed.

Success is at the last step, the unweighted mean over tasks. Intervals are of a bootstrap over layouts, whose trials are
those of all seeds together: they say nothing of other seeds, whose rates stand beside.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError, StorageError
from vlaser_gym.evaluation.bootstrap import Stratum, mean_over_tasks, rate_interval, stratified_bootstrap
from vlaser_gym.evaluation.comparison import StoredRun, differing_protocols, layouts_as_pairs, load_runs
from vlaser_gym.evaluation.statistics import Interval
from vlaser_gym.evaluation.store import Record

#: Where an episode stands: number of the seed, and address.
Place = tuple[int, Address]


@dataclass(frozen=True)
class Rate:
    """Success of one run with all its seeds.

    Attributes:
        mean: over tasks, of all seeds together, with its ``interval``; an error is a failure.
        seeds: of each seed.
        episodes: in all.
        difference: to the baseline, over the pairs of episodes without an error, with its ``difference_interval``;
            ``None`` for itself.
        warnings: in what the runs differ from the baseline's besides the agent, and how many pairs were left out.
    """

    mean: float
    interval: Interval
    seeds: tuple[float, ...]
    episodes: int
    difference: float | None = None
    difference_interval: Interval | None = None
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Dictionary for JSON."""
        return asdict(self)


def read_repeats(folders: Sequence[str | Path], names: Sequence[str], level: float = 0.95) -> dict[str, Rate]:
    """Runs by name, the baseline first.

    Args:
        folders: one per seed.
        names: of the runs below each folder, the baseline's first; patterns such as ``*/after`` stand for all that
            every folder has.
        level: coverage of the intervals.

    Raises:
        StorageError: for a name or a pattern that a folder lacks, or a run that cannot be read.
        InvalidConfigError: without a second run, for a folder that is given twice, and for runs of other episodes than
            the baseline's.
    """
    found = list(dict.fromkeys(name for given in names for name in _matching(folders, given)))
    if len(found) < 2:
        raise InvalidConfigError(
            f"Expected two or more runs below {', '.join(map(str, folders))}, the baseline first, such as "
            f'before "*/after"; got {", ".join(names) or "none"}.'
        )
    runs = {name: runs_of_seeds(folders, name) for name in found}
    base = found[0]
    return {name: rate(runs[name], runs[base] if name != base else None, name, level) for name in found}


def runs_of_seeds(folders: Sequence[str | Path], name: str) -> list[StoredRun]:
    """The run of one name below every folder. A baseline may be one run for all, by links.

    Raises:
        StorageError: if a run cannot be read.
        InvalidConfigError: for a folder that is given twice, and a run without a finished episode.
    """
    if len({Path(folder).resolve() for folder in folders}) < len(folders):
        raise InvalidConfigError(
            f"Expected a folder for each seed; one of {', '.join(map(str, folders))} stands twice."
        )
    return [load_runs([Path(folder) / name])[0] for folder in folders]


def _matching(folders: Sequence[str | Path], pattern: str) -> list[str]:
    """Names of the runs that all folders have."""
    try:
        paths = [{str(path.relative_to(folder)) for path in Path(folder).glob(pattern)} for folder in folders]
    except (NotImplementedError, ValueError, IndexError) as error:
        raise InvalidConfigError(
            f'With repeats= runs are named from its folders on, such as before or "*/after"; got {pattern!r}.'
        ) from error
    common = sorted(set.intersection(*paths)) if paths else []
    if not common:
        lacking = [str(folder) for folder, found in zip(folders, paths, strict=True) if not found]
        raise StorageError(f"No run {pattern} is in {' and '.join(lacking or map(str, folders))}: finish it there.")
    return common


def rate(mine: Sequence[StoredRun], base: Sequence[StoredRun] | None, name: str, level: float = 0.95) -> Rate:
    """The rate of one run, and its difference to the baseline's where there is one.

    Args:
        mine: the run of every seed.
        base: the baseline's, in the same order.
        name: of the run.
        level: coverage of the intervals.

    Raises:
        InvalidConfigError: if the two ran different episodes.
    """
    own = _episodes(mine)
    success = {place: float(record["success"]) for place, record in own.items()}
    by_seed = [_strata({p: v for p, v in success.items() if p[0] == seed}) for seed in range(len(mine))]
    strata = _strata(success)
    seeds = tuple(mean_over_tasks(each) for each in by_seed)
    alone = Rate(mean_over_tasks(strata), rate_interval(strata, level), seeds, len(own))
    if base is None:
        return alone
    others = _episodes(base)
    if own.keys() != others.keys():
        raise InvalidConfigError(
            f"The policies of {name} and of the baseline should have run the same episodes; "
            f"{len(own.keys() ^ others.keys())} are of one only: repeat the recipe's command, which finishes them."
        )
    tested = [place for place in own if own[place]["error"] is None and others[place]["error"] is None]
    if not tested:
        raise InvalidConfigError(f"Every pair of {name} and the baseline holds an episode that the simulator ended.")
    changes = _strata({place: success[place] - others[place]["success"] for place in tested})
    agree = all(stratum.constant for stratum in changes)
    warnings = _differing(mine, base, name)
    if left_out := len(own) - len(tested):
        count = f"{left_out} of {len(own)} pairs of {name}"
        warnings += (f"{count} hold an error: it is a failure in the rates, and they are left out of the difference.",)
    return replace(
        alone,
        difference=mean_over_tasks(changes),
        difference_interval=layouts_as_pairs(changes, level) if agree else stratified_bootstrap(changes, level),
        warnings=warnings,
    )


def _episodes(runs: Sequence[StoredRun]) -> dict[Place, Record]:
    return {(seed, address): record for seed, run in enumerate(runs) for address, record in run.records.items()}


def _strata(values: Mapping[Place, float]) -> list[Stratum]:
    """Strata by task: each layout of each variant with its trials of all seeds."""
    tasks: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for (_, address), value in values.items():
        tasks[address.task][address.variant, address.layout].append(value)
    return [
        Stratum.of([sum(of) for of in layouts.values()], [len(of) for of in layouts.values()])
        for _, layouts in sorted(tasks.items())
    ]


def _differing(mine: Sequence[StoredRun], base: Sequence[StoredRun], name: str) -> tuple[str, ...]:
    """Differences besides the agent, of any seed: one sentence each."""
    pairs = [(replace(b, label="the baseline"), replace(a, label=name)) for a, b in zip(mine, base, strict=True)]
    return tuple(dict.fromkeys(sentence for b, a in pairs for sentence in differing_protocols(b, a)))
