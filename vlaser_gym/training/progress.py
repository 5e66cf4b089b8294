"""Progress of training: a bar in a terminal, a line a minute elsewhere, success first."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

#: Metrics that are shown, the first ones that a line has; and how many of them, in a narrow terminal and elsewhere.
_SHOWN = (
    *("success/mean", "rollout/success_rate", "rollout/success", "evaluation/success", "rollout/reward"),
    *("train/approx_kl", "loss/imitation", "train/loss", "train/explained_variance"),
)
#: Words for those whose names do not say it.
_LABELS = {"success/mean": "success", "rollout/success_rate": "rollouts", "rollout/success": "rollouts"}
_FEW, _MOST = 2, 3
_NARROW = 100


class TrainingProgress:
    """Use as a context manager.

    Args:
        console: where to.
        unit: what is counted.
        total: how many.
        every: seconds between lines where there is no terminal.
    """

    def __init__(self, console: Console, unit: str, total: int, every: float = 60.0) -> None:
        self.console, self.unit, self.every = console, unit, every
        self.total, self.done = total, 0
        self._numbers: dict[str, float] = {}
        self._begun = self._said = time.monotonic()
        self._first: int | None = None
        note = TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis"))
        columns = (TextColumn(unit), BarColumn(10), MofNCompleteColumn(), note, TextColumn("{task.fields[rate]}"))
        self._bar = Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task(unit, total=total, note="", rate="")

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def advance(self, done: int) -> None:
        """So many units are done."""
        self._first = done if self._first is None else self._first
        self.done = done
        self._bar.update(self._task, completed=done, note=self.text(), rate=_rate(self.pace))
        now = time.monotonic()
        if not self.console.is_terminal and (now - self._said > self.every or done == self.total):
            self._said = now
            left = self.seconds_left
            pace = f", {_rate(self.pace)}" if self.pace else ""
            minutes = round((left or 0.0) / 60)
            duration = f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(minutes, 1)} min"
            end = pace if left is None or done == self.total else f"{pace}, {duration} left"
            self.console.print(f"{self.unit} {done}/{self.total}  {self.text()}{end}", soft_wrap=True, highlight=False)

    def report(self, row: Mapping[str, float]) -> None:
        """Show the latest metrics beside the bar."""
        self._numbers |= {name: value for name, value in row.items() if name in _SHOWN}
        self._bar.update(self._task, note=self.text())

    def text(self) -> str:
        """The numbers that matter most, success first."""
        most = _FEW if self.console.is_terminal and self.console.width < _NARROW else _MOST
        shown = [name for name in _SHOWN if name in self._numbers][:most]
        labels = [_LABELS.get(name, name.rsplit("/", maxsplit=1)[-1].replace("_", " ")) for name in shown]
        return "  ".join(
            f"{label} {_value(name, self._numbers[name])}" for label, name in zip(labels, shown, strict=True)
        )

    @property
    def pace(self) -> float | None:
        """Seconds per unit so far; ``None`` before the second unit."""
        taken = self.done - (self._first or 0)
        return None if taken <= 0 else (time.monotonic() - self._begun) / taken

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the end at the pace so far."""
        return None if self.pace is None else self.pace * (self.total - self.done)


def _value(name: str, value: float) -> str:
    return f"{100 * value:.0f} %" if "success" in name else f"{value:.3g}"


def _rate(pace: float | None) -> str:
    """Units per second, or seconds per unit where these are more."""
    if not pace:
        return ""
    return f"{pace:.3g} s each" if pace >= 1 else f"{1 / pace:.3g} a second"
