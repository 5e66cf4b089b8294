"""Runs that were repeated with other seeds, as one: folders with the same runs below them, one folder per seed.

Success is at the last step, the unweighted mean over tasks. Intervals are of a bootstrap over layouts, whose trials are
those of all seeds together: they say nothing of other seeds, whose rates stand beside.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlaser_gym.errors import InvalidConfigError, StorageError
from vlaser_gym.evaluation.bootstrap import Stratum, mean_over_tasks, stratified_bootstrap
from vlaser_gym.evaluation.statistics import Interval
from vlaser_gym.evaluation.store import read_records

#: Success by (seed, task, layout, trial).
Successes = Mapping[tuple[int, str, str, int], bool]


@dataclass(frozen=True)
class Rate:
    """Success of one run with all its seeds.

    Attributes:
        mean: over tasks, of all seeds together, with its ``interval``.
        seeds: of each seed.
        episodes: in all.
        difference: to the baseline, episode by episode, with its ``difference_interval``; ``None`` for itself.
    """

    mean: float
    interval: Interval
    seeds: tuple[float, ...]
    episodes: int
    difference: float | None = None
    difference_interval: Interval | None = None

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
        InvalidConfigError: without a second run, and for runs of other episodes than the baseline's.
    """
    found = list(dict.fromkeys(name for given in names for name in _matching(folders, given)))
    if len(found) < 2:
        raise InvalidConfigError(
            f"Expected two or more runs below {', '.join(map(str, folders))}, the baseline first, such as "
            f'before "*/after"; got {", ".join(names) or "none"}.'
        )
    successes = {name: read_successes([Path(folder) / name for folder in folders]) for name in found}
    base = found[0]
    return {name: rate(successes[name], successes[base] if name != base else None, name, level) for name in found}


def _matching(folders: Sequence[str | Path], pattern: str) -> list[str]:
    """Names of the runs that all folders have."""
    paths = [{str(path.relative_to(folder)) for path in Path(folder).glob(pattern)} for folder in folders]
    common = sorted(set.intersection(*paths)) if paths else []
    if not common:
        lacking = [str(folder) for folder, found in zip(folders, paths, strict=True) if not found]
        raise StorageError(f"No run {pattern} is in {' and '.join(lacking or map(str, folders))}: finish it there.")
    return common


def read_successes(runs: Sequence[Path]) -> Successes:
    """Success of every episode of the runs of all seeds."""
    return {
        (seed, str(record["task"]), str(record["layout"]), int(record["trial"])): bool(record["success"])
        for seed, run in enumerate(runs)
        for record in read_records(run)
    }


def rate(mine: Successes, base: Successes | None, name: str, level: float = 0.95) -> Rate:
    """The rate of one run, and its difference to the baseline's where there is one.

    Raises:
        InvalidConfigError: if the two ran different episodes.
    """
    if base is not None and mine.keys() != base.keys():
        raise InvalidConfigError(
            f"The policies of {name} and of the baseline should have run the same episodes; "
            f"{len(mine.keys() ^ base.keys())} are of one only: repeat the recipe's command, which finishes them."
        )
    strata = _strata({place: float(value) for place, value in mine.items()})
    seeds = sorted({place[0] for place in mine})
    by_seed = [_strata({p: float(v) for p, v in mine.items() if p[0] == seed}) for seed in seeds]
    changes = None if base is None else _strata({place: float(mine[place]) - base[place] for place in mine})
    return Rate(
        mean_over_tasks(strata),
        stratified_bootstrap(strata, level),
        tuple(mean_over_tasks(own) for own in by_seed),
        len(mine),
        None if changes is None else mean_over_tasks(changes),
        None if changes is None else stratified_bootstrap(changes, level),
    )


def _strata(values: Mapping[tuple[int, str, str, int], float]) -> list[Stratum]:
    """Strata by task: each layout with its trials of all seeds."""
    tasks: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (_, task, layout, _), value in values.items():
        tasks[task][layout].append(value)
    return [
        Stratum.of([sum(of) for of in layouts.values()], [len(of) for of in layouts.values()])
        for _, layouts in sorted(tasks.items())
    ]
