"""Several checkpoints scored by the same episodes: which they are, their table, and their learning curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from rich.table import Table

from vlaser_gym.cli import words
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.table import make_table, rate_cell
from vlaser_gym.storage.files import appearing


@dataclass(frozen=True)
class CheckpointScore:
    """The score of one checkpoint.

    Attributes:
        name: short, and of no other checkpoint of the table.
        run: its run directory.
        summary: of :func:`~vlaser_gym.evaluation.summary.summarise`.
    """

    name: str
    run: Path
    summary: Mapping[str, Any]

    @property
    def step(self) -> int | None:
        """The step of training that the checkpoint is from: checkpoints by step have it as their name."""
        last = self.name.rsplit("/", maxsplit=1)[-1]
        return int(last) if last.isdecimal() else None

    @property
    def success(self) -> Mapping[str, float]:
        """``rate``, ``low`` and ``high`` over all tasks; at any step where episodes ended at their first success."""
        stopped = any(row["stopped"] for row in self.summary["tasks"])
        rate: Mapping[str, float] = self.summary["mean"]["success_any" if stopped else "success"]
        return rate


def find_checkpoints(checkpoint: Any) -> list[str]:
    """The checkpoints meant by ``a,b`` or by a pattern such as ``RUN/checkpoints/*``, in order, each once.

    Raises:
        InvalidConfigError: for a pattern that nothing matches.
    """
    found: list[str] = []
    for text in [] if checkpoint is None else words(checkpoint):
        matches = sorted(glob(text)) if has_magic(text) else [text]
        if not matches:
            raise InvalidConfigError(f"checkpoint={text} matches nothing; expected folders such as RUN/checkpoints/*.")
        found += matches
    return list(dict.fromkeys(found))


def short_names(checkpoints: Sequence[str]) -> list[str]:
    """The last parts of the paths, as many as tell them apart.

    >>> short_names(["a/checkpoints/000200", "a/checkpoints/000400"])
    ['000200', '000400']
    >>> short_names(["a/checkpoint", "b/checkpoint"])
    ['a/checkpoint', 'b/checkpoint']
    """
    parts = [Path(text).parts for text in checkpoints]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(of[-count:]) for of in parts]
        if len(set(names)) == len(names):
            break
    return names


def checkpoint_table(scores: Sequence[CheckpointScore], plain: bool = False) -> Table:
    """One row per checkpoint: episodes, success over all tasks with its 95 % interval, and success of each task."""
    tasks = [row["task"] for row in scores[0].summary["tasks"]]
    several = tasks if len(tasks) > 1 else []
    reduced = " (reduced)" if scores[0].summary.get("reduced") else ""
    table = make_table(f"checkpoint{reduced}", ("n", "success", *several), plain)
    for score in scores:
        rows = score.summary["tasks"]
        key = "success_any" if any(row["stopped"] for row in rows) else "success"
        each = [f"{100 * row[key]['rate']:.1f}" for row in rows] if several else []
        table.add_row(score.name, str(sum(row["n"] for row in rows)), rate_cell(score.success), *each)
    return table


def draw_learning_curve(scores: Sequence[CheckpointScore], file: Path) -> None:
    """Success over the step of training with 95 % intervals; over the checkpoints' names where they have no step."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    steps = [score.step for score in scores]
    by_step = all(step is not None for step in steps) and len(set(steps)) == len(steps)
    where = [float(step or 0) for step in steps] if by_step else [float(i) for i in range(len(scores))]
    rates = [100 * score.success["rate"] for score in scores]
    below = [max(0.0, rate - 100 * score.success["low"]) for rate, score in zip(rates, scores, strict=True)]
    above = [max(0.0, 100 * score.success["high"] - rate) for rate, score in zip(rates, scores, strict=True)]
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.errorbar(where, rates, yerr=(below, above), marker="o", linestyle="-" if by_step else "", capsize=3)
    axes.set(ylim=(-2, 102), ylabel="success rate, %", xlabel="step of training" if by_step else "checkpoint")
    if not by_step:
        axes.set_xticks(where, [score.name for score in scores], rotation=20, ha="right")
    axes.grid(visible=True, alpha=0.3)
    with appearing(file, sync=False) as partial:
        figure.savefig(partial, dpi=120, format="png")
