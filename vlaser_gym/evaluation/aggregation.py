"""The score of a protocol that is made of perturbed arms: a mean over arms, group by group."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vlaser_gym.envs.perturbations import get_perturbation
from vlaser_gym.envs.perturbations.protocols import PerturbedProtocol
from vlaser_gym.evaluation.bootstrap import Stratum, rate_interval
from vlaser_gym.evaluation.comparison import StoredRun, load_runs
from vlaser_gym.evaluation.robustness import BENIGN, arm_folder
from vlaser_gym.evaluation.statistics import Interval
from vlaser_gym.storage.files import write_whole

#: The scores in the folder of all arms.
SCORES = "aggregation.json"


@dataclass(frozen=True)
class Aggregate:
    """The aggregate score of a task.

    Attributes:
        task: name, or ``"all"`` for the unweighted mean over tasks.
        groups: group -> mean rate of its arms; ``None`` for one that the task does not have.
        value: the score, the mean over all arms but those apart, the unperturbed one among them.
        interval: 95 %, by drawing layouts again, which all arms share.
        arms: over how many arms it is the mean; of all tasks together the sum of theirs.
        episodes: how many they are.
    """

    task: str
    groups: dict[str, float | None]
    value: float
    interval: Interval
    arms: int
    episodes: int


def aggregate(run: Path, protocol: PerturbedProtocol) -> list[Aggregate]:
    """A row for each task of a robustness evaluation, and the mean where there are several.

    Raises:
        StorageError: if an arm cannot be read.
    """
    folders = {BENIGN: arm_folder(run, None)}
    folders |= {label: arm_folder(run, get_perturbation(label)) for label in protocol.labels}
    arms = dict(zip(folders, load_runs([folder for folder in folders.values() if folder.is_dir()]), strict=True))
    tasks = list(dict.fromkeys(address.task for address in arms[BENIGN].records))
    rows, strata = [], []
    for task in tasks:
        groups: dict[str, float | None] = {}
        counted: list[dict[str, bool]] = []
        for group, labels in protocol.groups.items():
            mine = [_outcomes(arms[label], task) for label in (labels or (BENIGN,))]
            mine = [outcomes for outcomes in mine if outcomes]
            groups[group] = float(np.mean([np.mean(list(of.values())) for of in mine])) if mine else None
            counted += [] if group in protocol.apart else mine
        layouts = list(counted[0])
        stratum = Stratum.of([sum(of[layout] for of in counted) for layout in layouts], [len(counted)] * len(layouts))
        episodes = len(layouts) * len(counted)
        rows.append(Aggregate(task, groups, stratum.mean, rate_interval([stratum]), len(counted), episodes))
        strata.append(stratum)
    return rows if len(rows) == 1 else [*rows, _mean(rows, strata)]


def write_scores(run: Path, protocol: PerturbedProtocol, rows: Sequence[Aggregate]) -> Path:
    """The scores as JSON in the folder of all arms."""
    data = {"protocol": protocol.name, "apart": protocol.apart, "scores": [asdict(row) for row in rows]}
    write_whole(run / SCORES, (json.dumps(data, indent=2) + "\n").encode())
    return run / SCORES


def _outcomes(run: StoredRun, task: str) -> dict[str, bool]:
    """Success of a task's layouts; empty for an arm that does not have the task."""
    return {a.layout: bool(record["success"]) for a, record in run.records.items() if a.task == task}


def _mean(rows: Sequence[Aggregate], strata: Sequence[Stratum]) -> Aggregate:
    groups: dict[str, float | None] = {}
    for group in rows[0].groups:
        rates = [rate for row in rows if (rate := row.groups[group]) is not None]
        groups[group] = float(np.mean(rates)) if rates else None
    value = float(np.mean([row.value for row in rows]))
    return Aggregate(
        "all", groups, value, rate_interval(strata), sum(row.arms for row in rows), sum(row.episodes for row in rows)
    )
