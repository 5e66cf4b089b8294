"""Published results, and what they say next to a run of one's own.

The numbers and their sources are in ``published.yaml``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any

from omegaconf import OmegaConf

from vlaser_gym.agents.vlaser.versions import why_outdated
from vlaser_gym.envs.engines import effective_settings, published_settings
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.errors import UnknownNameError
from vlaser_gym.evaluation.plan import Reduction
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
#: Entries of a table's protocol that are no settings of a run, but say how many episodes or what of the agent.
_NO_SETTINGS = ("episodes", "totals", "agent")
#: Settings that a protocol of this gym decides.
_FIXED_BY_PROTOCOL = ("variant", "layouts")


@dataclass(frozen=True)
class PublishedRow:
    """The published results of one model.

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
    """A published table of results.

    Attributes:
        sources: where the numbers stand, in words.
        columns: column -> tasks that it pools.
        protocol: settings of this gym that come nearest to how the numbers were made; ``agent``: those that an agent
            tells of itself; ``episodes``, ``totals``: of each column.
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
    """A published table of results.

    Raises:
        UnknownNameError: if there is no such table.
    """
    if name not in published_tables():
        raise UnknownNameError("published table", name, published_tables())
    return published_tables()[name]


@dataclass(frozen=True)
class Departure:
    """A setting in which a run is not what a table's protocol is.

    Attributes:
        name: of the setting.
        published: its value in the protocol; ``None`` where that does not set it.
        here: its value in the run.
        tasks: to which this applies; empty for the whole run.
    """

    name: str
    published: Any
    here: Any
    tasks: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f" ({', '.join(self.tasks)})" if self.tasks else ""
        return f"{self.name.replace('_', ' ')} {_word(self.here)} here, {_word(self.published)} there{where}"


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
    if config.get("perturb"):  # nothing that is published was perturbed
        return []
    lines: dict[str, list[str]] = {}
    differences: dict[str, None] = {}
    reduced = "" if Reduction.of(config) is None else " (reduced)"
    for table, models in ((published_table(name), models) for name, models in REFERENCES.items()):
        found = list(_comparable(table, summary, config))
        for what, yours, column in found:
            values = [(m, _published_value(table, m, column)) for m in models]
            said = lines.setdefault(f"{what}{reduced}: yours {yours}", [])
            said += [f"{model} ({_ORIGIN[table.id]}) {100 * v:.1f}" for model, v in values if v is not None]
        if found:
            differences |= dict.fromkeys(str(departure) for departure in departures(summary, config, table))
    text = [f"{yours} - {', '.join(others)}" for yours, others in lines.items() if others]
    warning = f"Not the same protocol: {'; '.join(differences)}." if text and differences else ""
    return text + ([warning] if warning else [])


def departures(summary: Mapping[str, Any], config: Mapping[str, Any], table: PublishedTable) -> list[Departure]:
    """All settings, by value, in which a run differs from how a table's numbers were made.

    Compared are the run's own settings, what its environments were run with (``environment_settings``), what its agent
    tells of itself (``agent_settings``), and the numbers of episodes. What a run does not tell is not compared.
    """
    return [
        *_of_run(config, table),
        *_of_environments(summary, config, table),
        *_differing(table.protocol.get("agent", {}), config.get("agent_settings") or {}),
        *_of_counts(_counts(table, summary, config), table),
    ]


def _differing(published: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[Departure]:
    """Settings of a protocol that a run tells of, with another value."""
    for name, value in published.items():
        if name in here and here[name] != value:
            yield Departure(name, value, here[name])


def _of_run(config: Mapping[str, Any], table: PublishedTable) -> Iterator[Departure]:
    left_out = (*_NO_SETTINGS, *(_FIXED_BY_PROTOCOL if config.get("protocol") else ()))
    published = {name: value for name, value in table.protocol.items() if name not in left_out}
    yield from _differing(published, {**config, "engine": _engine(config).get("name")})
    if (reduction := Reduction.of(config)) is not None:
        yield Departure("episodes of each task and variant", "all", reduction.episodes)
    if config.get("instruction") is not None:
        yield Departure("instruction", "the benchmark's", "one's own")
    if config.get("until") == "decided":
        yield Departure("end", "after all episodes", "when decided")
    told = config.get("agent_settings") or {}
    if "initial_noise_of_checkpoint" in told:
        yield Departure("initial_noise", told["initial_noise_of_checkpoint"], told["initial_noise"])
    seen = _engine(config).get("image_size") or ""
    if told.get("image_size_of_checkpoint", seen) != seen:
        yield Departure("image_size", told["image_size_of_checkpoint"], seen or "the camera's own")
    outdated = why_outdated(told)
    if outdated is not None:
        yield Departure("agent", "as it is now", outdated)


def _of_environments(
    summary: Mapping[str, Any], config: Mapping[str, Any], table: PublishedTable
) -> Iterator[Departure]:
    """Values that the tasks' environments had; also of settings that the protocol leaves alone."""
    wanted = {task for tasks in table.columns.values() for task in tasks}
    tasks = [row["task"] for row in summary["tasks"] if row["task"] in wanted]
    found: dict[str, tuple[Departure, list[str]]] = {}
    for task in tasks:
        here, published = _environment(config, task), published_settings(get_task(task))
        for departure in (Departure(n, published.get(n), v) for n, v in here.items() if v != published.get(n)):
            found.setdefault(repr(departure), (departure, []))[1].append(task)
    for departure, those in found.values():
        yield departure if those == tasks else replace(departure, tasks=tuple(those))


def _environment(config: Mapping[str, Any], task: str) -> Mapping[str, Any]:
    """The environment settings of a task; for older runs they follow from the engine's settings."""
    stored: Mapping[str, Any] = (config.get("environment_settings") or {}).get(task) or {}
    return stored or effective_settings(_engine(config), get_task(task))


def _of_counts(counts: Mapping[str, int], table: PublishedTable) -> Iterator[Departure]:
    """The differences in the number of episodes, by column."""
    each = sorted(set(counts.values()))
    wanted = table.protocol.get("episodes")
    if wanted is not None and each != [wanted]:
        yield Departure("episodes per task", wanted, " or ".join(map(str, each)))
    for column, total in table.protocol.get("totals", {}).items():
        if counts.get(column, total) != total:
            yield Departure(f"episodes of {column}", total, counts[column])


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
    """The rates of a run that a table covers: ``(name, rate in words, column or None for the average)``.

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


def _engine(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A run's engine with its options."""
    engine = config["engine"]
    return engine if isinstance(engine, Mapping) else {"name": engine}


def _word(value: Any) -> str:
    """A value as the commands take it."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


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
