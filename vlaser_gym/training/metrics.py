"""Metric logging of a training run: JSON lines, TensorBoard events, a plot of the curves, and a tracker."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from vlaser_gym.evaluation.records import COUNT, check_fields
from vlaser_gym.evaluation.tracker import Tracker
from vlaser_gym.storage.files import appearing, storage_errors, write_whole
from vlaser_gym.storage.lines import append_line, line_of, read_lines

Row = dict[str, Any]
#: Metrics that people look for first.
_FIRST = ("success/mean", "success/", "evaluation/success", "rollout/success", "rollout/reward")


class MetricLogger:
    """Metrics of a run, in ``metrics.jsonl``, as TensorBoard events and as ``curves.png``.

    Args:
        path: the run directory.
        step: the step that the run continues from; later rows of an interrupted run are dropped.
        tracker: is told the rows that a checkpoint covers; no other can be dropped.
    """

    def __init__(self, path: Path, step: int = 0, tracker: Tracker | None = None) -> None:
        # Imported here: the import takes seconds.
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

        self.path, self._file = path, path / "metrics.jsonl"
        self._drawn, self._cost = time.monotonic(), 0.0
        with self._sentences():
            path.mkdir(parents=True, exist_ok=True)
            self.rows = [row for row in read_metrics(self._file) if row["step"] <= step]
            write_whole(self._file, b"".join(line_of(row) for row in self.rows))
            self._events: Any = SummaryWriter(str(path / "tensorboard"), purge_step=step)
        self._overview: tuple[str, ...] = ()
        self.tracker = tracker
        self.keep(step)

    def __enter__(self) -> MetricLogger:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.close(failed=kind is not None)

    def add(self, step: int, **values: float) -> None:
        """Add the metrics of one step."""
        row = {"step": step, **values}
        self.rows.append(row)
        with self._sentences():
            with self._file.open("ab", buffering=0) as stream:
                append_line(stream, row)
            for name, value in values.items():
                self._events.add_scalar(name, value, step)
            overview = tuple(name for name in ordered(self.rows) if name.startswith(_FIRST))
            if overview != self._overview:
                self._overview = overview
                self._events.add_custom_scalars({"Overview": {"success and return": ["Multiline", list(overview)]}})
        if step <= self._kept:
            self.keep(self._kept)

    def keep(self, step: int) -> None:
        """A checkpoint covers the rows up to a step."""
        self._kept = step
        if self.tracker is not None:
            self.tracker.send([row for row in self.rows if row["step"] <= step])

    def scored(self, step: int, group: str = "success/") -> bool:
        """True if an evaluation's metrics, whose names begin with ``group``, exist for a step."""
        return any(row["step"] == step and any(name.startswith(group) for name in row) for row in self.rows)

    def draw(self, every: float = 0.0) -> None:
        """Write ``curves.png``, one panel per metric, unless it was done in the last ``every`` seconds.

        With ``every``, images never take more than a hundredth of the time.
        """
        if every and time.monotonic() - self._drawn < max(every, 100 * self._cost):
            return
        begun = time.monotonic()
        with self._sentences():
            draw_curves({self.path.name: self.rows}, self.path / "curves.png")
            self._events.flush()
        self._drawn = time.monotonic()
        self._cost = self._drawn - begun

    def close(self, failed: bool = False) -> None:
        """Draw a last time and close the files; ``failed`` if the run ended with an error."""
        self.draw()
        with self._sentences():
            self._events.close()
        if self.tracker is not None:
            self.tracker.close(failed)

    def _sentences(self) -> AbstractContextManager[None]:
        return storage_errors(
            f"Cannot write the numbers of {self.path}",
            "make space there: the last checkpoint is whole, and the same command goes on from it",
        )


def read_metrics(file: Path) -> list[Row]:
    """Rows of ``metrics.jsonl``; a cut last line is left out.

    Raises:
        StorageError: for any other line that is damaged.
    """
    return read_lines(file, lambda row: check_fields(row, {"step": COUNT}))


def ordered(rows: Iterable[Row]) -> list[str]:
    """Names of the metrics, success and return first."""
    names = list(dict.fromkeys(name for row in rows for name in row if name != "step"))
    return sorted(
        names, key=lambda name: next((i for i, head in enumerate(_FIRST) if name.startswith(head)), len(_FIRST))
    )


def draw_curves(runs: dict[str, list[Row]], file: Path, names: Sequence[str] = ()) -> None:
    """One panel per metric, one line per run; ``names`` of metrics choose panels and their order, without them all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    names = names or ordered(row for rows in runs.values() for row in rows)
    if not names:
        return
    columns = 2 if len(names) == 4 else min(3, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(5 * columns, 3.2 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    for index, name in enumerate(names):
        axes = figure.add_subplot(lines, columns, index + 1)
        for label, rows in runs.items():
            points = [(row["step"], row[name]) for row in rows if name in row]
            axes.plot(*zip(*points, strict=True), label=label, marker="." if len(points) < 50 else None)
        axes.set_title(name)
        axes.set_xlabel("step")
        axes.grid(visible=True, alpha=0.3)
        if len(runs) > 1:
            axes.legend(fontsize="small")
    with appearing(file, sync=False) as partial:
        figure.savefig(partial, dpi=100, format="png")
