"""Comparison of policy starts: folders of the recipe ``reasoning``, one per seed, as one table.

A folder holds ``starts/NAME/`` for every start: ``grid`` and ``region`` (runs of eval), ``answers`` (a run of reason,
of the vision-language model before it became a policy; absent for a start without one) and ``answers_after`` (of the
policy). Success is at the last step, the unweighted mean over tasks. Intervals are of a bootstrap over layouts, whose
trials are those of all seeds: they say nothing of other seeds, whose rates stand beside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlaser_gym.errors import StorageError
from vlaser_gym.evaluation.repeats import Rate, rate, runs_of_seeds
from vlaser_gym.reasoning.asking import SUMMARY_FILE
from vlaser_gym.storage.files import storage_errors
from vlaser_gym.storage.lines import parse_object

#: What the others are compared with.
BASELINE = "none"
LAYOUTS = ("grid", "region")
STARTS_FOLDER = "starts"


@dataclass(frozen=True)
class Start:
    """One initialisation and the policies trained from it.

    Attributes:
        name: of its folder.
        answers: score of the answers before it became a policy, unweighted over kinds, of each seed; empty without.
        answers_after: the same of the policy.
        rates: by kind of layouts, ``grid`` and ``region``.
    """

    name: str
    answers: tuple[float, ...]
    answers_after: tuple[float, ...]
    rates: Mapping[str, Rate]

    def as_dict(self) -> dict[str, Any]:
        """Dictionary for JSON."""
        return asdict(self)


def read_starts(folders: Sequence[str | Path], level: float = 0.95) -> list[Start]:
    """The starts that all folders have, ``none`` first.

    Raises:
        StorageError: for a folder without starts, or a run that is not there.
        InvalidConfigError: for starts whose policies ran other episodes than those of ``none``.
    """
    names = [sorted(path.name for path in (Path(folder) / STARTS_FOLDER).glob("*/")) for folder in folders]
    if not names or not all(BASELINE in found for found in names):
        lacking = [str(folder) for folder, found in zip(folders, names, strict=True) if BASELINE not in found]
        raise StorageError(
            f"{', '.join(lacking) or 'starts='} should be a folder of the recipe reasoning, with "
            f"{STARTS_FOLDER}/{BASELINE}; it is not: make it with python -m vlaser_gym.recipe reasoning run=FOLDER."
        )
    common = [name for name in names[0] if all(name in found for found in names)]
    runs = {
        name: {kind: runs_of_seeds(folders, f"{STARTS_FOLDER}/{name}/{kind}") for kind in LAYOUTS} for name in common
    }
    return [
        Start(
            name,
            _scores(folders, name, "answers"),
            _scores(folders, name, "answers_after"),
            {
                kind: rate(found, runs[BASELINE][kind] if name != BASELINE else None, name, level)
                for kind, found in runs[name].items()
            },
        )
        for name in sorted(common, key=lambda name: (name != BASELINE, name))
    ]


def _scores(folders: Sequence[str | Path], name: str, run: str) -> tuple[float, ...]:
    """Mean over kinds of each seed's answers; empty where there are none."""
    files = [Path(folder) / STARTS_FOLDER / name / run / SUMMARY_FILE for folder in folders]
    if not all(file.is_file() for file in files):
        return ()
    summaries = [parse_object(file.read_bytes()) or {} for file in files]
    try:
        return tuple(float(np.mean([row["mean"] for row in found["kind"].values()])) for found in summaries)
    except (KeyError, TypeError) as error:
        raise StorageError(f"{files[0]} should be the summary of a run of reason; it lacks {error}.") from error


def correlation(starts: Sequence[Start], kind: str) -> float | None:
    """Pearson's, of reasoning score and success, over the starts with scores and their seeds; ``None`` for fewer than
    three pairs or without spread.
    """
    pairs = [
        pair for start in starts if start.answers for pair in zip(start.answers, start.rates[kind].seeds, strict=True)
    ]
    if len(pairs) < 3 or min(np.ptp(np.array(pairs), axis=0)) == 0:
        return None
    return float(np.corrcoef(np.array(pairs).T)[0, 1])


def draw_starts(starts: Sequence[Start], file: Path) -> None:
    """Success against reasoning score, a point per start and seed.

    Raises:
        StorageError: if the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  (the import takes a second)
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(5 * len(LAYOUTS), 4), layout="constrained")
    FigureCanvasAgg(figure)
    for number, kind in enumerate(LAYOUTS, 1):
        axes = figure.add_subplot(1, len(LAYOUTS), number)
        for start in starts:
            x = start.answers or (0.0,) * len(start.rates[kind].seeds)
            axes.scatter([100 * v for v in x], [100 * v for v in start.rates[kind].seeds], label=start.name)
        axes.set(title=kind, xlabel="reasoning score of the start (%; none: 0)", ylabel="success of the policy (%)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
    with storage_errors(f"Cannot write {file}", "choose another run="):
        figure.savefig(file, dpi=120)
