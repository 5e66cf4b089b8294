"""Score answers: ``python -m vlaser_gym.reason data=DIR checkpoint=DIR`` or ``url=http://127.0.0.1:8000/v1``;
``--help`` lists the keys.
"""

from __future__ import annotations

from collections.abc import Mapping

from omegaconf import DictConfig
from rich import box
from rich.console import Console
from rich.table import Table

from vlaser_gym.cli import run, typed
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.table import make_console
from vlaser_gym.reasoning.asking import PAGE_FILE, ask_all, chosen_questions
from vlaser_gym.reasoning.benchmarks import convert
from vlaser_gym.reasoning.models import make_answerer
from vlaser_gym.reasoning.scores import Row
from vlaser_gym.reasoning.thoughts import conditioned, read_spoken
from vlaser_gym.settings.commands import ReasonSettings


def main(config: DictConfig) -> None:
    """Convert a benchmark, or ask and score."""
    settings = typed(ReasonSettings, config)
    if settings.convert is not None:
        _convert(settings)
        return
    if settings.thoughts:
        _print_thoughts(settings)
        return
    questions = chosen_questions(settings)
    model = make_answerer(settings)
    print(f"{len(questions)} questions of {settings.data} to {model.name}")
    found = ask_all(settings, model, _Told())
    console = make_console()
    for title in ("kind", "family", "split"):
        print_rows(title, {**found.rows[title], **({"all": found.overall} if title == "kind" else {})}, console)
    print(f"Answers: {found.path}")
    if settings.pictures:
        print(f"Wrong answers: {found.path / PAGE_FILE}")


class _Told:
    """Prints every tenth of the way."""

    def __init__(self) -> None:
        self._tenth = 0

    def __call__(self, done: int, total: int) -> None:
        if 10 * done // total > self._tenth:
            self._tenth = 10 * done // total
            print(f"{done} of {total} answers", flush=True)


def _print_thoughts(settings: ReasonSettings) -> None:
    """Print the accuracy of a policy's words by task, and success where they were right and wrong."""
    spoken, console = read_spoken(settings.data), make_console()
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else box.ASCII, header_style="bold")
    for name in ("task", "answers", "right", "unknown", "success, mostly right", "success, mostly wrong"):
        table.add_column(name, justify="left" if name == "task" else "right", no_wrap=True)
    for task in [*sorted({one.task for one in spoken}), "all"]:
        mine = [one for one in spoken if task in (one.task, "all")]
        right, wrong, unknown = (sum(getattr(one, key) for one in mine) for key in ("right", "wrong", "unknown"))
        share = _percent(right / (right + wrong) if right + wrong else None)
        given = [f"{_percent(of.rate)} (n={of.episodes})" for of in conditioned(mine).values()]
        table.add_row(task, str(right + wrong), share, str(unknown), *given)
    console.print(table)


def _convert(settings: ReasonSettings) -> None:
    if settings.output is None:
        raise InvalidConfigError(f"Converting needs output=FOLDER for the questions of {settings.data}.")
    count = convert(str(settings.convert), settings.data, settings.output)
    print(f"{count} questions in {settings.output}")


def print_rows(title: str, rows: Mapping[str, Row], console: Console) -> None:
    """A table of scores in percent."""
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else box.ASCII, header_style="bold")
    for name in (title, "n", "score", "95 %", "constant", "no image", "unread", "cut"):
        table.add_column(name, justify="left" if name == title else "right", no_wrap=True)
    for name, row in rows.items():
        low, high = (100 * limit for limit in row.interval)
        shown = [_percent(row.mean), f"[{low:.1f}, {high:.1f}]", _percent(row.constant), _percent(row.blind)]
        table.add_row(name, str(row.n), *shown, str(row.unread), str(row.cut))
    console.print(table)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def command() -> None:
    """``python -m vlaser_gym.reason``."""
    run("reason", main)
