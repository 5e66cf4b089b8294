"""Published results, and what they say next to a run of one's own.

The numbers and their sources are in ``published.yaml``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from omegaconf import OmegaConf

from vlaser_gym.agents.vlaser.versions import why_outdated
from vlaser_gym.errors import UnknownNameError
from vlaser_gym.evaluation.statistics import mean_of_rates, wilson

#: Table -> models that are set beside a run: what the policy of this gym is measured against.
REFERENCES = {
    "vlaser-widowx": ("Vlaser-QA", "Vlaser-All"),
    "open-pi-zero-widowx": ("pi0 Beta bf16",),
    "vlaser-google-matching": ("Vlaser-QA", "Vlaser-All"),
    "vlaser-google-aggregation": ("Vlaser-QA", "Vlaser-All"),
}
_ORIGIN = {
    "vlaser-widowx": "paper",
    "vlaser-google-matching": "paper",
    "vlaser-google-aggregation": "paper",
    "open-pi-zero-widowx": "open-pi-zero",
}
#: Settings in which a run and a table may differ.
_SETTINGS = ("engine", "look", "variant", "layouts", "terminate_on_success")
#: Those of them that a protocol decides.
_FIXED_BY_PROTOCOL = ("variant", "layouts")


@dataclass(frozen=True)
class PublishedRow:
    """One model.

    Attributes:
        values: success between 0 and 1 by column; columns without a published number are absent.
        average: as printed, between 0 and 1; ``None`` if none was.
    """

    model: str
    values: Mapping[str, float]
    average: float | None
    note: str = ""


@dataclass(frozen=True)
class PublishedTable:
    """One table.

    Attributes:
        sources: where the numbers stand, in words.
        columns: column -> tasks that it pools.
        protocol: settings of this gym that come nearest to how the numbers were made.
        scores: protocol of this gym -> column -> the name of its score there.
    """

    id: str
    title: str
    sources: tuple[str, ...]
    columns: Mapping[str, tuple[str, ...]]
    rows: tuple[PublishedRow, ...]
    protocol: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    scores: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def row(self, model: str) -> PublishedRow:
        """The row of a model.

        Raises:
            UnknownNameError: if there is none.
        """
        for row in self.rows:
            if row.model == model:
                return row
        raise UnknownNameError(f"model of the table {self.id!r}", model, [row.model for row in self.rows])

    def rates(self, model: str) -> dict[str, float]:
        """A model's success between 0 and 1 by task, for columns that stand for a single task."""
        values = self.row(model).values
        return {self.columns[name][0]: value for name, value in values.items() if len(self.columns[name]) == 1}


@cache
def published_tables() -> dict[str, PublishedTable]:
    """All tables, by their id."""
    text = files(__package__).joinpath("published.yaml").read_text(encoding="utf-8")
    data: Any = OmegaConf.to_container(OmegaConf.create(text))
    return {entry["id"]: _table(entry, data["sources"]) for entry in data["tables"]}


def published_table(name: str) -> PublishedTable:
    """One table.

    Raises:
        UnknownNameError: if there is no such table.
    """
    if name not in published_tables():
        raise UnknownNameError("published table", name, published_tables())
    return published_tables()[name]


def published_lines(summary: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """A run's rates next to published ones, and warnings where the two were not made alike.

    Args:
        summary: of :func:`~vlaser_gym.evaluation.summary.summarise`.
        config: the run's settings, as stored in its directory.

    Returns:
        Lines for people; empty if nothing is published for these tasks.

    Example:
        ``"mean over 4 tasks: yours 63.5 [53.6, 72.5] - Vlaser-QA (paper) 62.6, Vlaser-All (paper) 65.1"``
    """
    lines: dict[str, list[str]] = {}
    differences: dict[str, None] = {}
    for table, models in ((published_table(name), models) for name, models in REFERENCES.items()):
        found = list(_comparable(table, summary, config))
        for what, yours, column in found:
            values = [(m, _published_value(table, m, column)) for m in models]
            said = lines.setdefault(f"{what}: yours {yours}", [])
            said += [f"{model} ({_ORIGIN[table.id]}) {100 * v:.1f}" for model, v in values if v is not None]
        if found:
            differences |= dict.fromkeys(protocol_differences(summary, config, table))
    text = [f"{yours} - {', '.join(others)}" for yours, others in lines.items() if others]
    warning = f"Not the same protocol: {'; '.join(differences)}." if text and differences else ""
    return text + ([warning] if warning else [])


def protocol_differences(summary: Mapping[str, Any], config: Mapping[str, Any], table: PublishedTable) -> list[str]:
    """In what a run differs from how a table's numbers were made, a phrase each."""
    yours = {**config, "engine": _engine(config)}
    fixed = _FIXED_BY_PROTOCOL if config.get("protocol") else ()
    differences = [
        f"{name.replace('_', ' ')} {_word(yours[name])} here, {_word(published)} there"
        for name, published in table.protocol.items()
        if name in _SETTINGS and name not in fixed and name in yours and yours[name] != published
    ]
    if config.get("until") == "decided":
        differences.append("stopped when decided here, all episodes there")
    outdated = why_outdated(config.get("agent_settings"))
    if outdated is not None:
        differences.append(outdated)
    return [*differences, *_count_differences(_counts(table, summary, config), table)]


def _count_differences(counts: Mapping[str, int], table: PublishedTable) -> Iterator[str]:
    """Where other numbers of episodes (by column) were run."""
    each = sorted(set(counts.values()))
    wanted = table.protocol.get("episodes")
    if wanted is not None and each != [wanted]:
        yield f"{' or '.join(map(str, each))} episodes per task here, {wanted} there"
    for column, total in table.protocol.get("totals", {}).items():
        if counts.get(column, total) != total:
            yield f"{counts[column]} episodes of {column} here, {total} there"


def _counts(table: PublishedTable, summary: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, int]:
    """Episodes of each column of a table that a run has any of."""
    if config.get("protocol"):
        return {column: score["n"] for column, score in _scores(table, summary, config)}
    played = {row["task"]: row["n"] for row in summary["tasks"]}
    counts = {column: sum(played.get(task, 0) for task in tasks) for column, tasks in table.columns.items()}
    return {column: count for column, count in counts.items() if count}


def _comparable(
    table: PublishedTable, summary: Mapping[str, Any], config: Mapping[str, Any]
) -> Iterator[tuple[str, str, str | None]]:
    """What of a run a table has numbers for: ``(what, the run's rate in words, column or None for the average)``.

    A protocol says itself which of its scores stands for which column; without one, the column's tasks are pooled.
    """
    if config.get("protocol"):
        for column, score in _scores(table, summary, config):
            yield score["name"], _rate(score["value"], (score["low"], score["high"])), column
    elif table.protocol.get("variant", config.get("variant")) == "aggregation" != config.get("variant"):
        return  # a table of many variants says nothing of one
    else:
        yield from _pooled(table, {row["task"]: row for row in summary["tasks"]})


def _scores(
    table: PublishedTable, summary: Mapping[str, Any], config: Mapping[str, Any]
) -> list[tuple[str, Mapping[str, Any]]]:
    """The scores of a run's protocol that have a column in a table."""
    named = {score["name"]: score for score in summary.get("protocol", [])}
    columns = table.scores.get(config["protocol"], {})
    return [(column, named[name]) for column, name in columns.items() if name in named]


def _pooled(table: PublishedTable, rows: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, str | None]]:
    pooled: dict[str, tuple[int, int]] = {}
    for column, tasks in table.columns.items():
        if tasks and all(task in rows for task in tasks):
            pooled[column] = (
                sum(rows[task]["success"]["count"] for task in tasks),
                sum(rows[task]["n"] for task in tasks),
            )
    for column, (count, n) in pooled.items():
        yield ", ".join(table.columns[column]), _rate(count / n, wilson(count, n)), column
    if len(pooled) > 1 and len(pooled) == len(table.columns):
        yield f"mean over {len(pooled)} tasks", _rate(*mean_of_rates(list(pooled.values()))), None


def _published_value(table: PublishedTable, model: str, column: str | None) -> float | None:
    row = table.row(model)
    if column is not None:
        return row.values.get(column)
    if row.average is not None:
        return row.average
    return sum(row.values.values()) / len(row.values) if len(row.values) == len(table.columns) else None


def _rate(rate: float, interval: tuple[float, float]) -> str:
    return f"{100 * rate:.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _engine(config: Mapping[str, Any]) -> Any:
    engine = config.get("engine")
    return engine.get("name") if isinstance(engine, Mapping) else engine


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _table(entry: Mapping[str, Any], sources: Mapping[str, str]) -> PublishedTable:
    scale = {"percent": 100.0, "share": 1.0}[entry["unit"]]
    columns = {name: tuple(tasks) for name, tasks in entry["columns"].items()}
    return PublishedTable(
        id=entry["id"],
        title=entry["title"],
        sources=tuple(sources[name] for name in entry["sources"]),
        columns=columns,
        rows=tuple(_row(row, tuple(columns), scale) for row in entry["rows"]),
        protocol=entry.get("protocol", {}),
        note=entry.get("note", ""),
        scores=entry.get("scores", {}),
    )


def _row(row: Mapping[str, Any], columns: Sequence[str], scale: float) -> PublishedRow:
    values = {name: v / scale for name, v in zip(columns, row["values"], strict=True) if v is not None}
    average = row["average"]
    return PublishedRow(row["model"], values, None if average is None else average / scale, row.get("note", ""))
