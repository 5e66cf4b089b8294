"""The result table and the progress bar, for terminals and for plain text."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from vlaser_gym.evaluation.comparison import p_text
from vlaser_gym.evaluation.statistics import Interval

if TYPE_CHECKING:
    from vlaser_gym.envs.perturbations.protocols import PerturbedProtocol
from vlaser_gym.evaluation.aggregation import Aggregate
from vlaser_gym.evaluation.robustness import Robustness
from vlaser_gym.evaluation.variants import VariantChange

#: Columns of plain text, where nobody says how wide a line may be.
_PLAIN_WIDTH = 160
#: Consoles with fewer columns get tables with short names, and intervals below their numbers.
_WIDE = 110


def make_console(stderr: bool = False) -> Console:
    """A console that writes colours to terminals and plain, unwrapped text elsewhere."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=_PLAIN_WIDTH, no_color=True)


def _gap(narrow: bool) -> str:
    """Between a number and what belongs to it."""
    return "\n" if narrow else " "


def is_narrow(console: Console) -> bool:
    """True if the console is so narrow that tables must be shortened."""
    return console.width < _WIDE


def short_name(task: str) -> str:
    """A task's name without its robot, for narrow places."""
    return task.removeprefix("widowx_").removeprefix("google_robot_").replace("_", " ")


def result_table(
    summary: Mapping[str, Any], pace: Mapping[str, float], plain: bool = False, narrow: bool = False
) -> Table:
    """Success rates: one row per task, and their mean.

    Args:
        summary: of :func:`~vlaser_gym.evaluation.summary.summarise`.
        pace: episodes per minute by task; tasks without one show a dash.
        plain: no characters beyond ASCII.
        narrow: for 80 columns, where pace has no room.
    """
    outcomes = ("success\nat last\nstep", "success\nat any\nstep")
    wide = ("success\nat last step", "success\nat any step")
    steps = ("steps\n(to\nfirst\nsucc.)",) if narrow else ("steps", "steps to\nsuccess\n(if any)", "episodes\nper min")
    headers = ("n", *(outcomes if narrow else wide), *steps)
    table = make_table("task (reduced)" if summary.get("reduced") else "task", headers, plain, wrap=False)
    for row in summary["tasks"]:
        table.add_row(*_cells(row, pace.get(row["task"]), narrow))
    if len(summary["tasks"]) > 1:
        table.add_section()
        total = str(sum(row["n"] for row in summary["tasks"]))
        stopped = any(map(_stopped, summary["tasks"]))
        last, anywhere = (rate_cell(summary["mean"][key], narrow) for key in ("success", "success_any"))
        means = ["-" if stopped else last, anywhere]
        table.add_row("mean over tasks", total, *means, *[""] * len(steps))
    return table


def subgoal_table(summary: Mapping[str, Any], plain: bool = False, narrow: bool = False) -> Table:
    """In how many episodes each sub-goal was reached at some step, %; a dash where a task has no such sub-goal."""
    title = "sub-goals reached at any step"
    if narrow:  # for 80 columns, a line for each sub-goal
        table = make_table(title, ("sub-goal", "%"), plain, wrap=False)
        for row in summary["tasks"]:
            for index, (name, rate) in enumerate(row["subgoals"].items()):
                task = "" if index else short_name(row["task"])
                table.add_row(task, name.replace("_", " "), f"{100 * rate['rate']:.1f}")
        return table
    names = dict.fromkeys(name for row in summary["tasks"] for name in row["subgoals"])
    table = make_table(title, tuple(name.replace("_", " ") for name in names), plain)
    for row in summary["tasks"]:
        rates = [row["subgoals"].get(name) for name in names]
        table.add_row(row["task"], *("-" if rate is None else f"{100 * rate['rate']:.1f}" for rate in rates))
    return table


def drop_table(found: Robustness, plain: bool = False, narrow: bool = False) -> Table:
    """The table of perturbations: success and paired change with interval of each; a family's mean comes first.

    Args:
        found: by :func:`~vlaser_gym.evaluation.robustness.measure_drops`.
        plain: no characters beyond ASCII.
        narrow: for 80 columns.
    """
    headers = ("pairs", "success\n%", "change, points", "lost", "won", "p")
    table = make_table("perturbation", headers, plain, wrap=False)
    benign = found.drops[0].overall
    table.add_row("none", str(benign.n), f"{100 * benign.a:.1f}", "", "", "", "")
    means = {drop.label for drop in found.families}
    for family in dict.fromkeys(drop.family for drop in found.drops):
        table.add_section()
        for drop in found.of_family(family):
            row = drop.overall
            label = f"{family} (mean)" if drop.label in means else drop.label
            change = "-" if row.difference is None else _points(row.difference, row.interval or (-1.0, 1.0), narrow)
            counts = str(row.n), f"{100 * row.b:.1f}", change, str(row.only_a), str(row.only_b)
            table.add_row(label, *counts, p_text(row.p_holm))
    return table


def variant_table(changes: Sequence[VariantChange], plain: bool = False, narrow: bool = False) -> Table:
    """The table of a protocol's variants: success in the base scene and in the variant, and the paired change.

    Args:
        changes: by :func:`~vlaser_gym.evaluation.variants.variant_changes`.
        plain: no characters beyond ASCII.
        narrow: for 80 columns.
    """
    headers = ("tasks", "pairs", "base\n%", "variant\n%", "change, points", "lost", "won", "p")
    table = make_table("variant", headers, plain, wrap=False)
    for change in changes:
        row = change.overall
        points = "-" if row.difference is None else _points(row.difference, row.interval or (-1.0, 1.0), narrow)
        numbers = str(len(change.tasks)), str(row.n), f"{100 * row.a:.1f}", f"{100 * row.b:.1f}"
        table.add_row(change.variant, *numbers, points, str(row.only_a), str(row.only_b), p_text(row.p_holm))
    return table


def aggregate_table(rows: Sequence[Aggregate], protocol: PerturbedProtocol, plain: bool = False) -> Table:
    """A protocol of perturbed arms: for each task, a column, the rate of every group, and the score with its interval.

    Args:
        rows: by :func:`~vlaser_gym.evaluation.aggregation.aggregate`.
        protocol: whose groups these are.
        plain: no characters beyond ASCII.
    """
    names = ["mean over\ntasks" if row.task == "all" else textwrap.fill(short_name(row.task), 12) for row in rows]
    table = make_table("success, %", names, plain, wrap=False)

    def add(label: str, group: str) -> None:
        """A row with the rate of a group in each column, percent."""
        rates = [row.groups[group] for row in rows]
        table.add_row(label, *("-" if rate is None else f"{100 * rate:.1f}" for rate in rates))

    for group in protocol.groups:
        if group not in protocol.apart:
            add(group, group)
    table.add_section()
    table.add_row("score", *(f"{100 * row.value:.1f}" for row in rows))
    table.add_row("95 % interval", *(f"[{100 * row.interval[0]:.0f}, {100 * row.interval[1]:.0f}]" for row in rows))
    table.add_row("arms", *(str(row.arms) for row in rows))
    table.add_section()
    for group in protocol.apart:
        add(f"{group} (apart)", group)
    return table


def _points(difference: float, interval: Interval, narrow: bool) -> str:
    """A change with its interval, which narrow tables round to whole points."""
    low, high = (f"{100 * limit:+.{0 if narrow else 1}f}" for limit in interval)
    return f"{100 * difference:+.1f} [{low}, {high}]"


def make_table(first: str, others: Sequence[str], plain: bool, wrap: bool = True) -> Table:
    """A table whose first column gives way where the terminal is narrow."""
    style = box.ASCII if plain else box.SIMPLE_HEAD
    table = Table(box=style, header_style="bold", pad_edge=plain, collapse_padding=not plain)
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=not wrap)
    return table


def _cells(row: Mapping[str, Any], pace: float | None, narrow: bool) -> list[str]:
    numbers = (row["mean_steps"], row["mean_first_success_step"], pace)
    steps, first, per_minute = ("-" if number is None else f"{number:.1f}" for number in numbers)
    return [
        short_name(row["task"]) if narrow else row["task"],
        str(row["n"])
        + ((f"\n{row['errors']} err" if narrow else f" ({row['errors']} errors)") if row["errors"] else ""),
        "-" if _stopped(row) else rate_cell(row["success"], narrow),
        rate_cell(row["success_any"], narrow),
        *([f"{steps}\n({first})"] if narrow else [steps, first, per_minute]),
    ]


def _stopped(row: Mapping[str, Any]) -> bool:
    """Episodes ended at their first success: nobody knows what their last step would have shown."""
    return bool(row.get("stopped", False))


def rate_cell(rate: Mapping[str, float], narrow: bool = False) -> str:
    """A rate and its interval in percent, such as ``62.5 [42.7, 78.8]``; where it is narrow, below each other."""
    return f"{100 * rate['rate']:.1f}{_gap(narrow)}[{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"


class EpisodeProgress:
    """A bar with successes and pace on a terminal; elsewhere a line now and then. Use as a context manager.

    Args:
        console: where to; standard error, so that tables can be piped.
        every: seconds between lines where there is no terminal.
    """

    def __init__(self, console: Console, every: float = 10.0) -> None:
        self.console = console
        self.every = every
        self._successes = self._finished = self._done = self._total = 0
        self._begun = self._said = time.monotonic()
        columns = (TextColumn("episodes"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
        self._bar = Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal)
        self._task: TaskID | None = None

    def start(self, done: int, total: int) -> None:
        """``done`` of ``total`` episodes are stored already."""
        self._done, self._total = done, total
        self._begun = time.monotonic()
        self._task = self._bar.add_task("episodes", total=total, completed=done, note="")

    def add(self, record: Mapping[str, Any]) -> None:
        """Count a finished episode."""
        self._finished += 1
        self._successes += bool(record["success"])
        now = time.monotonic()
        pace = 60 * self._finished / max(now - self._begun, 1e-9)
        note = f"{100 * self._successes / self._finished:.0f} % success, {pace:.0f} episodes/min"
        if self._task is not None:
            self._bar.update(self._task, advance=1, note=note)
        if not self.console.is_terminal and (now - self._said > self.every or self._stored == self._total):
            self._said = now
            self.console.print(f"{self._stored}/{self._total} episodes, {note}")

    @property
    def _stored(self) -> int:
        return self._done + self._finished

    def __enter__(self) -> EpisodeProgress:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()
