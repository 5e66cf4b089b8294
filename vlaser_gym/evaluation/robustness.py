"""Paired drops: the same episodes with and without each perturbation, in one run directory each.

``RUN/benign`` is a plain evaluation, byte for byte; ``RUN/blur-medium`` holds the same addresses with a perturbation.
Each is a run like any other: it can be compared, rendered and diagnosed by itself. What follows here is paired by
address and tested as :mod:`vlaser_gym.evaluation.comparison` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.perturbations import FAMILIES, Perturbation, check_perturbation, find_perturbations
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.comparison import StoredRun, TaskDifference, compare_runs, holm, load_runs
from vlaser_gym.evaluation.evaluator import EvalSettings

#: The arm without a perturbation.
BENIGN = "benign"
#: The page and the figures in the folder of all arms.
PAGE, FIGURES = "robustness.html", "robustness.json"


@dataclass(frozen=True)
class Drop:
    """The paired drop of a perturbation or of a family.

    Attributes:
        label: name and level of the perturbation, or name of the family.
        family: of the perturbation.
        meaning: what was done.
        tasks: a row per task; A is the benign arm, B the perturbed one.
        overall: all tasks; its difference is below 0 where success was lost.
        original_goal: where the robot was told another goal than usual, in how many episodes the object was at the
            usual one at the end; ``None`` elsewhere.
    """

    label: str
    family: str
    meaning: str
    tasks: tuple[TaskDifference, ...]
    overall: TaskDifference
    original_goal: int | None = None


@dataclass(frozen=True)
class Robustness:
    """The paired drops of all perturbations of an evaluation.

    Attributes:
        drops: of each perturbation, family after family. Their p-values are corrected among each other.
        families: of each family with several perturbations: the mean over these, corrected among the families.
        warnings: what to know of single arms.
    """

    drops: tuple[Drop, ...]
    families: tuple[Drop, ...]
    warnings: tuple[str, ...] = ()

    def of_family(self, family: str) -> list[Drop]:
        """The family's own row, if it has one, then its perturbations."""
        return [drop for drop in (*self.families, *self.drops) if drop.family == family]

    def as_dict(self) -> dict[str, Any]:
        """Dictionary for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Arm:
    """The episodes of some tasks with one perturbation."""

    perturbation: Perturbation
    tasks: tuple[str, ...]


def plan_arms(settings: EvalSettings, texts: Sequence[str]) -> tuple[list[Arm], list[str]]:
    """The perturbed arms that texts mean, family after family, and in words what is left out of them.

    Args:
        settings: of the evaluation without perturbations.
        texts: what ``perturb=`` names.

    Raises:
        UnknownNameError: for a name that does not exist.
        InvalidConfigError: for one named by itself that engine, look or tasks do not have, or if none is left.
    """
    arms: dict[str, Arm] = {}
    left_out: list[str] = []
    for text in texts:
        found = find_perturbations([text])
        for perturbation in found:
            tasks = [task for task in settings.tasks if perturbation.applies(task)] or settings.tasks
            try:
                check_perturbation(perturbation, settings.engine, str(settings.look), tasks)
            except InvalidConfigError as error:
                if len(found) == 1:
                    raise
                left_out.append(str(error))
                continue
            arms[perturbation.label] = Arm(perturbation, tuple(task.name for task in tasks))
            others = [task.name for task in settings.tasks if task not in tasks]
            left_out += [f"perturb={perturbation.name} has nothing to change in {', '.join(others)}."] if others else []
    if not arms:
        raise InvalidConfigError(f"None of perturb={','.join(texts)} is left: {' '.join(left_out)}")
    order = sorted(arms.values(), key=lambda arm: FAMILIES.index(arm.perturbation.family))
    return order, list(dict.fromkeys(left_out))


def arm_folder(run: Path, perturbation: Perturbation | None) -> Path:
    """The run directory of one arm."""
    return run / (BENIGN if perturbation is None else perturbation.label.replace(":", "-"))


def measure_drops(run: Path, perturbations: Sequence[Perturbation]) -> Robustness:
    """Compare the arms of a robustness evaluation, which are all there.

    Raises:
        StorageError: if an arm cannot be read.
    """
    benign, *arms = load_runs([arm_folder(run, one) for one in (None, *perturbations)])
    compared = compare_runs([benign, *arms]).against
    drops = [
        Drop(one.label, one.family, one.meaning, two.tasks, two.overall, _at_original_goal(one, arm))
        for one, two, arm in zip(perturbations, compared, arms, strict=True)
    ]
    families = []
    for family in dict.fromkeys(one.family for one in perturbations):
        of = [arm for one, arm in zip(perturbations, arms, strict=True) if one.family == family]
        if len(of) > 1:
            (two,) = compare_runs([_repeated(benign, len(of)), _together(of)]).against
            families.append(Drop(family, family, f"mean over {len(of)} perturbations", two.tasks, two.overall))
    return Robustness(tuple(drops), tuple(_corrected(families)))


def _at_original_goal(perturbation: Perturbation, run: StoredRun) -> int | None:
    if "original_goal" not in perturbation.flags:
        return None
    return sum(bool(record["flags"].get("original_goal")) for record in run.records.values())


def goal_line(drop: Drop) -> str:
    """Both goals of a perturbation that tells another one than usual; empty for the others."""
    if drop.original_goal is None:
        return ""
    told = sum(round(row.b * row.n) for row in drop.tasks)
    return (
        f"{drop.label}: at the goal that was told {told} of {drop.overall.n}, at the usual goal {drop.original_goal}."
    )


def _repeated(run: StoredRun, times: int) -> StoredRun:
    """A run whose every episode counts several times, as trials of its layout."""
    records = {_trial(a, i, times): record for a, record in run.records.items() for i in range(times)}
    return replace(run, records=records)


def _together(runs: Sequence[StoredRun]) -> StoredRun:
    """Runs of the same episodes as one, as trials of their layouts: what they share is not counted as independent."""
    records = {_trial(a, i, len(runs)): r for i, run in enumerate(runs) for a, r in run.records.items()}
    return replace(runs[0], records=records)


def _trial(address: Address, index: int, times: int) -> Address:
    return replace(address, trial=address.trial * times + index)


def _corrected(families: Sequence[Drop]) -> list[Drop]:
    """Holm's correction of the families' overall p-values, where there are any."""
    tested = [drop.overall.p for drop in families if drop.overall.p is not None]
    corrected = iter(holm(tested))
    return [
        drop if drop.overall.p is None else replace(drop, overall=replace(drop.overall, p_holm=next(corrected)))
        for drop in families
    ]
