"""Compare runs: ``python -m vlaser_gym.compare runs/a runs/b`` or ``--plan 65 70``; ``--help`` lists the keys."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from itertools import takewhile
from pathlib import Path

from omegaconf import DictConfig
from rich import box
from rich.console import Console
from rich.table import Table

from vlaser_gym.cli import run, typed
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.comparison import (
    MOST_LEFT_OUT,
    Comparison,
    RunComparison,
    StoredRun,
    TaskDifference,
    compare_runs,
    load_runs,
    p_text,
)
from vlaser_gym.evaluation.diagnosis import FAILURE_CLASSES
from vlaser_gym.evaluation.diagnosis.changes import class_changes, layout_changes
from vlaser_gym.evaluation.diagnosis.run import diagnose_run
from vlaser_gym.evaluation.plan import Reduction
from vlaser_gym.evaluation.power import plan
from vlaser_gym.evaluation.ranking import rank_against, read_real_rates
from vlaser_gym.evaluation.repeats import Rate, read_repeats
from vlaser_gym.evaluation.report import find_videos, write_report
from vlaser_gym.evaluation.statistics import Interval
from vlaser_gym.evaluation.table import is_narrow, make_console, make_table, short_name
from vlaser_gym.reasoning.asking import is_answer_run
from vlaser_gym.reasoning.comparison import AnswerComparison, compare_answers
from vlaser_gym.reasoning.starts import LAYOUTS, correlation, draw_starts, read_starts
from vlaser_gym.settings.commands import CompareSettings
from vlaser_gym.storage.files import check_output, write_output

#: The command's questions, and the settings that each of them reads.
_READ = {
    "--plan": ("plan", "power", "alpha"),
    "starts=": ("starts", "level", "json"),
    "repeats=": ("repeats", "runs", "level", "json"),
    "real=": ("runs", "real", "policies", "count"),
    "a comparison": ("runs", "count", "level", "json", "report"),
}


def main(config: DictConfig) -> None:
    """Print a plan, or compare runs."""
    settings = comparison_settings(config)
    if settings.plan is not None:
        _print_plan(settings)
        return
    if settings.starts:
        _print_starts(settings)
        return
    if settings.repeats:
        _print_repeats(settings)
        return
    if any(is_answer_run(folder) for folder in settings.runs):
        _compare_answers(settings)
        return
    runs = load_runs(settings.runs)
    if settings.real is not None:
        _print_ranking(runs, settings)
        return
    comparison = compare_runs(runs, settings.count, settings.level)
    tell(runs, comparison)
    write_files(runs, comparison, settings)


def _print_starts(settings: CompareSettings) -> None:
    """Print the comparison of policy starts."""
    starts = read_starts(settings.starts, settings.level)
    console = make_console()
    seeds = f"{len(settings.starts)} seed{'s' * (len(settings.starts) > 1)}"
    print(f"\nSuccess at the last step in %, {100 * settings.level:g} % intervals over layouts, {seeds} in order")
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else box.ASCII, header_style="bold")
    for name in ("start", "answers", "after", "layouts", "n", "success", "by seed", "minus none"):
        table.add_column(name, justify="left" if name in ("start", "layouts") else "right", no_wrap=True)
    for start in starts:
        for kind, rate in start.rates.items():
            change = "" if rate.difference is None else _with_interval(rate.difference, rate.difference_interval, "+")
            shown = [_mean(start.answers), _mean(start.answers_after), kind, str(rate.episodes)]
            by_seed = " ".join(f"{100 * value:.1f}" for value in rate.seeds)
            table.add_row(start.name, *shown, _with_interval(rate.mean, rate.interval), by_seed, change)
    console.print(table)
    _print_warnings([rate for start in starts for rate in start.rates.values()])
    for kind in LAYOUTS:
        found = correlation(starts, kind)
        print(f"Correlation of answers and success, {kind}: {'not defined' if found is None else f'{found:+.2f}'}")
    file = Path(settings.starts[0]) / "starts.png"
    draw_starts(starts, file)
    print(f"Scatter plot: {file}")
    if settings.json is not None:
        write_output("json", settings.json, (json.dumps([one.as_dict() for one in starts], indent=2) + "\n").encode())
        print(f"JSON: {settings.json}")


def _print_repeats(settings: CompareSettings) -> None:
    """Print runs with all their seeds against the first."""
    rates = read_repeats(settings.repeats, settings.runs, settings.level)
    console = make_console()
    print(f"\nSuccess at the last step in %, {100 * settings.level:g} % intervals over layouts, seeds in order")
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else box.ASCII, header_style="bold")
    for name in ("run", "n", "success", "by seed", f"minus {next(iter(rates))}"):
        table.add_column(name, justify="left" if name == "run" else "right", no_wrap=True)
    for name, of in rates.items():
        change = "" if of.difference is None else _with_interval(of.difference, of.difference_interval, "+")
        by_seed = " ".join(f"{100 * value:.1f}" for value in of.seeds)
        table.add_row(name, str(of.episodes), _with_interval(of.mean, of.interval), by_seed, change)
    console.print(table)
    _print_warnings(list(rates.values()))
    if settings.json is not None:
        found = {name: of.as_dict() for name, of in rates.items()}
        write_output("json", settings.json, (json.dumps(found, indent=2) + "\n").encode())
        print(f"JSON: {settings.json}")


def _print_warnings(rates: Sequence[Rate]) -> None:
    for sentence in dict.fromkeys(sentence for rate in rates for sentence in rate.warnings):
        print(sentence)


def _mean(values: Sequence[float]) -> str:
    return f"{100 * sum(values) / len(values):.1f}" if values else "-"


def _with_interval(value: float, interval: Interval | None, sign: str = "") -> str:
    low, high = (100 * limit for limit in interval or (0.0, 0.0))
    return f"{100 * value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def _compare_answers(settings: CompareSettings) -> None:
    """Two runs of ``reason``, question by question."""
    if len(settings.runs) != 2 or not all(is_answer_run(folder) for folder in settings.runs):
        raise InvalidConfigError(
            f"Answers are compared with answers: give two runs, both of reason; got {', '.join(settings.runs)}."
        )
    for key in ("real", "report"):
        if getattr(settings, key) is not None:
            raise InvalidConfigError(f"{key}= is not read when runs of reason are compared; leave it out.")
    found = compare_answers(settings.runs[0], settings.runs[1], settings.level)
    print_answers(found, settings.level)
    if settings.json is not None:
        write_output("json", settings.json, (json.dumps(found.as_dict(), indent=2) + "\n").encode())
        print(f"JSON: {settings.json}")


def print_answers(found: AnswerComparison, level: float, console: Console | None = None) -> None:
    """A table of differences by kind of question, and a verdict."""
    console = console or make_console()
    print(f"\nA = {found.a}   B = {found.b}   scores in %, {100 * level:g} % intervals, the same questions")
    if any(found.unpaired):
        print(f"Left out: {found.unpaired[0]} questions that only A answered, {found.unpaired[1]} that only B did.")
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else box.ASCII, header_style="bold")
    for name in ("kind", "n", "layouts", "A", "B", "B - A", "p", "p (Holm)"):
        table.add_column(name, justify="left" if name == "kind" else "right", no_wrap=True)
    for row in (*found.kinds, found.overall):
        low, high = (100 * limit for limit in row.interval)
        difference = f"{100 * row.difference:+.1f} [{low:+.1f}, {high:+.1f}]"
        cells = [f"{100 * row.a:.1f}", f"{100 * row.b:.1f}", difference, p_text(row.p), p_text(row.p_holm)]
        table.add_row("mean over kinds" if row.kind == "all" else row.kind, str(row.n), str(row.layouts), *cells)
    console.print(table)
    overall = found.overall
    if overall.p <= 1 - level:
        print(f"B is {'better' if overall.difference > 0 else 'worse'} than A (p {_relation(overall.p)}).")
    else:
        print(f"These questions do not show which is better (p {_relation(overall.p)}).")


def write_files(
    runs: Sequence[StoredRun], comparison: Comparison, settings: CompareSettings, say: Callable[[str], None] = print
) -> None:
    """The files that were asked for."""
    if settings.json is not None:
        write_output("json", settings.json, (json.dumps(comparison.as_dict(), indent=2) + "\n").encode())
        say(f"JSON: {settings.json}")
    if settings.report is not None:
        a, b = runs[:2]
        mine, others = find_videos(a.path), find_videos(b.path)
        page = write_report(a.path, mine, b.path, compare_videos=others, path=settings.report, comparison=comparison)
        say(f"Report: {page}" + (f" (of {a.label} and {b.label} only)" if len(runs) > 2 else ""))


def overrides(arguments: Sequence[str]) -> list[str]:
    """Command line words as ``key=value``: folders become ``runs=``, the words after ``--plan`` become ``plan=``.

    Example:
        >>> overrides(["runs/a", "runs/b", "level=0.9"])
        ["runs=['runs/a','runs/b']", 'level=0.9']
        >>> overrides(["--plan", "65", "70"])
        ['plan=[65,70]']
    """
    words = list(arguments)
    if "--plan" in words:
        at = words.index("--plan")
        rates = [*takewhile(lambda word: "=" not in word and not word.startswith("-"), words[at + 1 :])]
        words[at : at + 1 + len(rates)] = [f"plan=[{','.join(rates)}]"]
    folders = [w for w in words if not w.startswith("-") and ("=" not in w or Path(w).is_dir())]
    others = [w for w in words if w not in folders]
    quoted = ",".join("'" + folder.replace("\\", "\\\\").replace("'", "\\'") + "'" for folder in folders)
    return ([f"runs=[{quoted}]"] if folders else []) + others


def comparison_settings(config: DictConfig) -> CompareSettings:
    """Settings of the right types.

    Raises:
        InvalidConfigError: for a setting that the question does not read, rather than leave it without effect, and for
            files that could not be written.
    """
    settings = typed(CompareSettings, config)
    defaults, keys = CompareSettings(), {name: name.strip("-=") for name in _READ if name != "a comparison"}
    asked = next(
        (name for name, key in keys.items() if getattr(settings, key) != getattr(defaults, key)), "a comparison"
    )
    for key in (entry.name for entry in fields(settings) if entry.name not in _READ[asked]):
        if (value := getattr(settings, key)) != getattr(defaults, key):
            raise InvalidConfigError(f"{asked} reads only {', '.join(_READ[asked])}; got {key}={value}: leave it out.")
    check_output("json", settings.json)
    check_output("report", settings.report)
    return settings


def tell(runs: Sequence[StoredRun], comparison: Comparison, console: Console | None = None) -> None:
    """Print a comparison; to standard output if no console is given."""
    console = console or make_console()
    print_comparison(comparison, console)
    print_changes(runs, console)


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """A table and a verdict for each run against the first; to standard output if no console is given."""
    console = console or make_console()
    for two in comparison.against:
        rule = {"last": "last step", "any": "any step"}[comparison.count]
        heading = f"A = {two.a}   B = {two.b}   success at {rule} in %, {100 * comparison.level:g} % intervals"
        warnings = [f"Warning: {warning}" for warning in two.warnings]
        for part in (f"\n{heading}", _table(two, comparison, console), _verdict(two, comparison.level), *warnings):
            console.print(part, soft_wrap=isinstance(part, str), markup=False, highlight=False)


def print_changes(runs: Sequence[StoredRun], console: Console | None = None) -> None:
    """Print the changes of each run against the first, by failure class and layout; nothing without failures."""
    console = console or make_console()
    first, *others = ((run, diagnose_run(run.path, run.records)) for run in runs)
    for other, found in others:
        changes = class_changes(first[1], found)
        if not changes:
            continue
        console.print(f"\nFailures of {first[0].label} (A) and {other.label} (B)", markup=False, highlight=False)
        table = make_table("failure", ("A", "B", "mended", "broken", "became another"), not console.is_terminal)
        for change in changes:
            became = ", ".join(f"{FAILURE_CLASSES[key].label} {n}" for key, n in Counter(change.became).most_common())
            numbers = (str(n) for n in (change.a, change.b, change.mended, change.broken))
            table.add_row(FAILURE_CLASSES[change.failure].label, *numbers, became or "-")
        console.print(table)
        for task, lists in layout_changes(first[1], found).items():
            told = [f"{what} {', '.join(layouts)}" for what, layouts in lists.items() if layouts]
            line = f"{short_name(task)}: {'; '.join(told)}"
            console.print(line, soft_wrap=not is_narrow(console), markup=False, highlight=False)


def _table(two: RunComparison, comparison: Comparison, console: Console) -> Table:
    several = len(comparison.against) > 1 or len(two.tasks) > 1
    headers = ["pairs", "errors\nA, B", "A", "B", "B - A", "only A", "only B", "p", *(["p (Holm)"] if several else [])]
    cells = _cells
    if is_narrow(console):
        # For 80 columns the row of A stands above that of B; errors are told by the warning below.
        headers = ["pairs\n(lay-\nouts)", "A\nB", "B - A", "only A\nonly B", "p\n(Holm)" if several else "p"]
        cells = _narrow_cells
    table = make_table("task", headers, not console.is_terminal, wrap=False)
    return _filled(table, two, partial(cells, several=several))


def _filled(table: Table, two: RunComparison, cells: Callable[[TaskDifference], list[str]]) -> Table:
    for row in two.tasks:
        table.add_row(*cells(row))
    if len(two.tasks) > 1:
        table.add_section()
        table.add_row(*cells(two.overall))
    return table


def _cells(row: TaskDifference, several: bool) -> list[str]:
    pairs = str(row.n) if row.tested == row.n else f"{row.tested} of {row.n}"
    pairs += "" if row.layouts == row.tested else f" on {row.layouts} layouts"
    cells = ["mean over tasks" if row.task == "all" else row.task, pairs, f"{row.errors_a}, {row.errors_b}"]
    cells += [f"{100 * row.a:.1f}", f"{100 * row.b:.1f}", _difference(row, " ", " "), str(row.only_a), str(row.only_b)]
    return cells + [p_text(row.p)] + ([p_text(row.p_holm)] if several else [])


def _narrow_cells(row: TaskDifference, several: bool) -> list[str]:
    pairs = str(row.n) if row.tested == row.n else f"{row.tested}/{row.n}"
    pairs += "" if row.layouts == row.tested else f"\n({row.layouts})"
    cells = ["mean over tasks" if row.task == "all" else short_name(row.task), pairs]
    cells += [f"{100 * row.a:.1f}\n{100 * row.b:.1f}", _difference(row, "\n", "\n"), f"{row.only_a}\n{row.only_b}"]
    return [*cells, f"{p_text(row.p)}\n{p_text(row.p_holm)}" if several else p_text(row.p)]


def _difference(row: TaskDifference, before: str, inside: str) -> str:
    """B - A and its interval, and what stands before and inside that."""
    if row.difference is None or row.interval is None:
        return "-"
    low, high = (100 * limit for limit in row.interval)
    return f"{100 * row.difference:+.1f}{before}[{low:+.1f},{inside}{high:+.1f}]"


def _verdict(two: RunComparison, level: float) -> str:
    row = two.overall
    if row.p_holm is None or row.difference is None:
        return (
            f"No verdict: more than {100 * MOST_LEFT_OUT:g} % of the pairs hold an episode that the simulator did not "
            "finish, and the others may favour either run (docs/statistics.md): run these episodes again."
        )
    if row.p_holm <= 1 - level:
        return f"B is {'better' if row.difference > 0 else 'worse'} than A (p {_relation(row.p_holm)})."
    return f"These episodes do not show which is better (p {_relation(row.p_holm)})."


def _relation(p: float) -> str:
    return p_text(p) if p < 0.001 else f"= {p_text(p)}"


def _print_plan(settings: CompareSettings) -> None:
    a, b = _rates(settings.plan or [])
    rows = plan(a, b, settings.power, settings.alpha)
    console = make_console()
    print(
        f"Episodes of each run that tell {100 * a:g} % from {100 * b:g} % "
        f"(power {settings.power:g}, two-sided alpha {settings.alpha:g}):"
    )
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else box.ASCII, header_style="bold")
    for name in ("design", "outcomes differ", "episodes", "until=decided, on average"):
        table.add_column(name, justify="left" if name == "design" else "right")
    for row in rows:
        design = row.design if row.correlation is None else f"{row.design}, correlation {row.correlation:g}"
        differ = "-" if row.discordant is None else f"{100 * row.discordant:.1f} %"
        table.add_row(design, differ, str(row.episodes), "-" if row.sequential is None else str(row.sequential))
    console.print(table)
    print(
        "Paired runs share their addresses; the correlation is that of their outcomes there. compare prints how often\n"
        "two runs' outcomes differ. until=decided counts the second run only, planned for a quarter more episodes on\n"
        "24 layouts that are alike."
    )


def _rates(numbers: Sequence[float]) -> tuple[float, float]:
    """Rates between 0 and 1; as in ``baseline=`` of the evaluation, numbers above 1 are percent."""
    if len(numbers) != 2 or (numbers[0] > 1) != (numbers[1] > 1):
        raise InvalidConfigError(
            "--plan takes two success rates, both in percent (--plan 65 70) or both as shares (--plan 0.65 0.7); got "
            f"{' '.join(f'{number:g}' for number in numbers) or 'none'}."
        )
    a, b = (number / 100 if number > 1 else number for number in numbers)
    return a, b


def _print_ranking(runs: Sequence[StoredRun], settings: CompareSettings) -> None:
    real = read_real_rates(str(settings.real))
    console = make_console()
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else box.ASCII, header_style="bold")
    for name in ("task", "policies", "MMRV", "Pearson r"):
        table.add_column(name, justify="left" if name == "task" else "right")
    for row in rank_against(runs, settings.policies, real, settings.count):
        table.add_row(row.task, str(row.policies), f"{row.mmrv:.4f}", f"{row.pearson:.3f}")
    print(f"The runs' success rates against those of {settings.real} (MMRV: 0 is best):")
    console.print(table)
    for stored in runs:
        if (reduction := Reduction.of(stored.config)) is not None:
            print(f"Warning: {stored.label} is {reduction}.")
        if errors := sum(record["error"] is not None for record in stored.records.values()):
            print(f"Warning: {errors} of {len(stored.records)} episodes of {stored.label} are errors: failures here.")


def command() -> None:
    """``python -m vlaser_gym.compare``."""
    run("compare", main, overrides(sys.argv[1:]))
