"""The report page of stored runs. Its text is ``templates/report.html``, its behaviour ``templates/report.js``."""

from __future__ import annotations

import base64
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.errors import StorageError
from vlaser_gym.evaluation.comparison import Comparison, StoredRun, compare_runs, load_runs, p_text
from vlaser_gym.evaluation.conventions import furthest_subgoal, subgoal_funnel, success_conventions
from vlaser_gym.evaluation.diagnosis import FAILURE_CLASSES, Diagnosis
from vlaser_gym.evaluation.diagnosis.run import diagnose_run
from vlaser_gym.evaluation.plan import Reduction, double_counts
from vlaser_gym.evaluation.published import published_lines
from vlaser_gym.evaluation.report.charts import ChartRow, Mark, interval_chart
from vlaser_gym.evaluation.report.failures import (
    changed_classes,
    changed_layouts,
    failure_rows,
    layout_map,
    pattern_lines,
)
from vlaser_gym.evaluation.statistics import mean_of_rates, wilson
from vlaser_gym.evaluation.store import Record, address_of, read_states, read_timing
from vlaser_gym.evaluation.summary import retried_episodes, summarise_run
from vlaser_gym.evaluation.table import short_name
from vlaser_gym.evaluation.told import changes, instructions_told, thoughts_had
from vlaser_gym.evaluation.variants import variant_changes
from vlaser_gym.evaluation.video import find_video, step_limit, video_folder, video_name
from vlaser_gym.storage.files import write_whole

#: Videos beyond this many bytes stay files of their own, next to which the page must then be kept.
EMBED_LIMIT = 48 * 2**20
Videos = Mapping[Address, str | Path]
Pictures = Mapping[Address, bytes]


def write_report(
    run_dir: str | Path,
    videos: Videos | None = None,
    compare_to: str | Path | None = None,
    *,
    compare_videos: Videos | None = None,
    thumbnails: Pictures | None = None,
    compare_thumbnails: Pictures | None = None,
    diagnoses: Mapping[Address, Diagnosis] | None = None,
    path: str | Path | None = None,
    comparison: Comparison | None = None,
) -> Path:
    """Write the report of a run, or of two side by side. It works offline and needs no other file.

    Args:
        run_dir: the run; in a comparison the baseline, A.
        videos: MP4 files by address. They become part of the page, up to 48 MiB; for other episodes the page looks for
            the file that the rendering command would make, and otherwise shows that command.
        compare_to: a second run, B; only addresses that both hold are shown.
        compare_videos: videos of the second run.
        thumbnails: JPEG images of :func:`render_thumbnails`, shown on the tiles.
        compare_thumbnails: those of the second run.
        diagnoses: of the first run's episodes, where they are known already.
        path: the page; ``report.html`` in the run directory, or ``compare.html`` in that of the second run.
        comparison: of these two and perhaps of further runs, for which its p-values are then corrected; ``None`` for
            one of these two by the benchmark's rule.

    Returns:
        Path of the page.

    Raises:
        StorageError: if a run cannot be read or the page cannot be written.
        InvalidConfigError: if the two runs have no episode in common.
    """
    runs = load_runs([run_dir] if compare_to is None else [run_dir, compare_to])
    default = runs[0].path / "report.html" if len(runs) == 1 else runs[1].path / "compare.html"
    page = Path(path) if path is not None else default
    media = _Media(page)
    sides = [
        _Side(stored, clips or {}, pictures or {}, media, known or {})
        for stored, clips, pictures, known in zip(
            runs, (videos, compare_videos), (thumbnails, compare_thumbnails), (diagnoses, None), strict=False
        )
    ]
    if comparison is None and len(runs) > 1:
        comparison = compare_runs(runs)
    context = _context(sides, comparison)
    write_page(page, template_environment().get_template("report.html").render(**context, media=media.embedded))
    return page


def find_videos(run_dir: str | Path) -> dict[Address, Path]:
    """Videos of a run that ``python -m vlaser_gym.render`` has left in its default folder, by address."""
    (stored,) = load_runs([run_dir])
    files = {a: find_video(run_dir, record) for a, record in stored.records.items() if record["states"]}
    return {address: file for address, file in files.items() if file is not None}


class _Media:
    """Videos and images that become part of the page."""

    def __init__(self, page: Path) -> None:
        self.page = page
        self._folders: dict[Path, str] = {}
        self.embedded: list[str] = []
        self._size = 0

    def video(self, file: Path | None) -> int | None:
        """Number of the embedded video; ``None`` if there is none or the page is full."""
        if file is None or self._size + file.stat().st_size > EMBED_LIMIT:
            return None
        self._size += file.stat().st_size
        self.embedded.append(base64.b64encode(file.read_bytes()).decode())
        return len(self.embedded) - 1

    def link(self, file: Path) -> str:
        """The page's link to a file."""
        if file.parent not in self._folders:
            relative = Path(os.path.relpath(file.parent.resolve(), self.page.resolve().parent))
            self._folders[file.parent] = quote(relative.as_posix())
        return f"{self._folders[file.parent]}/{quote(file.name)}"


class _Side:
    """One of the runs on the page."""

    def __init__(
        self,
        stored: StoredRun,
        videos: Videos,
        thumbnails: Pictures,
        media: _Media,
        diagnoses: Mapping[Address, Diagnosis],
    ) -> None:
        self.stored = stored
        self.videos = {address: Path(file) for address, file in videos.items()}
        self.thumbnails = thumbnails
        self.media = media
        unknown = {address: record for address, record in stored.records.items() if address not in diagnoses}
        self.diagnoses = {**diagnoses, **diagnose_run(stored.path, unknown)}

    def episode(self, address: Address) -> dict[str, Any]:
        """The data of an episode on the page."""
        record = self.stored.records[address]
        picture = self.thumbnails.get(address)
        return {
            "outcome": _outcome(record),
            "first": record["first_success_step"],
            "steps": record["steps"],
            "reached": furthest_subgoal(record, get_task(address.task).subgoals),
            "error": record["error"],
            "failure": self.diagnoses[address].failure,
            "why": self.diagnoses[address].sentence,
            "events": [[event.step, f"{event.kind} {event.what}"] for event in self.diagnoses[address].events],
            "agent": record["agent"],
            **self._timeline(record),
            "video": self.media.video(self.videos.get(address)),
            "file": self.media.link(self._file(record)) if record["states"] else None,
            "command": self._command(address) if record["states"] else None,
            "picture": None if picture is None else base64.b64encode(picture).decode(),
        }

    def _file(self, record: Record) -> Path:
        return self.videos.get(address_of(record), video_folder(self.stored.path) / video_name(record))

    def _command(self, address: Address) -> str:
        return (
            f"python -m vlaser_gym.render run={shlex.quote(str(self.stored.path))} episodes={shlex.quote(str(address))}"
        )

    def _timeline(self, record: Record) -> dict[str, Any]:
        """Steps at which the agent decided, what it was told from when on, and when each flag was true."""
        wanted = {"decision", "instruction", "thought", *(f"flag/{name}" for name in record["flags"])}
        try:
            states = read_states(self.stored.path, record, wanted)
        except StorageError:
            states = {}
        names = [name for name in record["flags"] if f"flag/{name}" in states]
        return {
            "decisions": states["decision"].tolist() if "decision" in states else [],
            "told": changes(instructions_told(record, states)),
            **({"said": changes(said)} if (said := thoughts_had(states, int(record["steps"]))) else {}),
            "flags": dict(zip(names, _spans([states[f"flag/{name}"] for name in names]), strict=True)),
        }


def _context(sides: Sequence[_Side], comparison: Comparison | None) -> dict[str, Any]:
    """The variables of the template."""
    first = sides[0].stored
    addresses = [a for a in first.records if all(a in side.stored.records for side in sides)]
    tasks = _task_order(addresses)
    facts = {}
    for name in tasks:
        longest = max(step_limit(record) for record in first.records.values() if record["task"] == name)
        facts[name] = {"label": short_name(name), "subgoals": list(get_task(name).subgoals), "max_steps": longest}
    data = {
        "sides": ["A", "B"][: len(sides)],
        "tasks": facts,
        "failures": {key: kind.label for key, kind in FAILURE_CLASSES.items()},
        "episodes": [
            {
                "id": str(address),
                "task": address.task,
                "layout": address.layout,
                "trial": address.trial,
                "variant": address.variant,
                "sides": [side.episode(address) for side in sides],
            }
            for address in addresses
        ],
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return {
        "title": " / ".join(side.stored.label for side in sides),
        "runs": [_run_facts(side.stored, name) for side, name in zip(sides, "AB", strict=False)],
        "results": _results(sides[0], tasks) if comparison is None else None,
        "comparison": None if comparison is None else {**_compared(comparison), **_changed(sides, addresses)},
        "tasks": tasks,
        "short": short_name,
        # It cannot end the script element that holds it.
        "data": Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")),
    }


def _changed(sides: Sequence[_Side], addresses: Sequence[Address]) -> dict[str, Any]:
    """The changes of failures from A to B, by class and by layout."""
    a, b = ({address: side.diagnoses[address] for address in addresses} for side in sides)
    return {"classes": changed_classes(a, b), "layouts": changed_layouts(a, b)}


def _results(side: _Side, tasks: Sequence[str]) -> dict[str, Any]:
    """Table, chart, failures, maps, funnel and published numbers of one run."""
    stored = side.stored
    records = list(stored.records.values())
    outcomes = {address: _outcome(record) for address, record in stored.records.items()}
    maps = {short_name(name): layout_map(name, side.diagnoses, outcomes) for name in tasks}
    per_task = {name: [r for r in records if r["task"] == name] for name in tasks}
    rows = [_result_row(name, mine) for name, mine in per_task.items()]
    if len(rows) > 1:
        rows.append(_mean_row(rows))
    chart = [
        ChartRow(
            row["label"],
            tuple(
                Mark(row[key][0], row[key][1], "a", hollow)
                for key, hollow in (("last", False), ("any", True))
                if row[key] is not None
            ),
            strong=row["mean"],
        )
        for row in rows
    ]
    funnels = []
    for name, mine in per_task.items():
        reached = subgoal_funnel(mine, get_task(name).subgoals)
        stages = [{**vars(stage), "interval": wilson(stage.reached, len(mine))} for stage in reached]
        funnels.append({"label": short_name(name), "stages": stages, "n": len(mine)})
    return {
        "rows": rows,
        "chart": interval_chart(chart, "Success rate of each task with its 95 % interval"),
        "funnels": funnels,
        "failures": failure_rows(side.diagnoses, tasks),
        "patterns": pattern_lines(stored.records, side.diagnoses),
        "maps": {label: drawn for label, drawn in maps.items() if drawn is not None},
        "conventions": success_conventions(records),
        "variants": variant_changes(stored.path, stored.records),
        "p_text": p_text,
        "doubled": None if stored.config.get("protocol") else double_counts(stored.records),
    }


def _result_row(task: str, records: Sequence[Record]) -> dict[str, Any]:
    last, anywhere, first = success_conventions(records)
    firsts = [record["first_success_step"] for record in records if record["first_success_step"] is not None]
    return {
        "label": short_name(task),
        "task": task,
        "mean": False,
        "n": len(records),
        "errors": sum(record["error"] is not None for record in records),
        "counts": {"last": last.count, "any": anywhere.count},
        "last": None if last.count is None else (last.count / len(records), wilson(last.count, len(records))),
        "any": (anywhere.count / len(records), wilson(anywhere.count, len(records))),  # type: ignore[operator,arg-type]
        "steps": {"to success": sum(firsts) / len(firsts) if firsts else None, "if stopped": first.mean_steps},
    }


def _mean_row(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def mean(key: str) -> tuple[float, tuple[float, float]] | None:
        counts = [(row["counts"][key], row["n"]) for row in rows]
        return None if any(count is None for count, _ in counts) else mean_of_rates(counts)

    return {
        "label": "mean over tasks",
        "task": "",
        "mean": True,
        "n": sum(row["n"] for row in rows),
        "errors": sum(row["errors"] for row in rows),
        "last": mean("last"),
        "any": mean("any"),
        "steps": {"to success": None, "if stopped": None},
    }


def _compared(comparison: Comparison) -> dict[str, Any]:
    two, level = comparison.against[0], f"{100 * comparison.level:g} %"
    rows = [*two.tasks, *([two.overall] if len(two.tasks) > 1 else [])]
    labels = ["mean over tasks" if row.task == "all" else short_name(row.task) for row in rows]
    rates = [
        ChartRow(
            label,
            (Mark(row.a, row.a_interval, "a"), Mark(row.b, row.b_interval, "b")),
            strong=row.task == "all",
        )
        for label, row in zip(labels, rows, strict=True)
    ]
    differences = [
        ChartRow(label, (Mark(row.difference, row.interval, "difference"),), strong=row.task == "all")
        for label, row in zip(labels, rows, strict=True)
        if row.difference is not None and row.interval is not None
    ]
    reach = max((abs(limit) for row in rows for limit in row.interval or ()), default=0.0)
    end = next(end for end in (0.2, 0.4, 0.6, 0.8, 1.0) if reach <= end + 1e-9)
    return {
        "rule": {"last": "last step", "any": "any step"}[comparison.count],
        "rows": [{"label": label, "row": row} for label, row in zip(labels, rows, strict=True)],
        "level": level,
        "runs": len(comparison.runs),
        "rates": interval_chart(rates, f"Success rates of A and B with {level} intervals"),
        "differences": interval_chart(differences, f"Difference B minus A with {level} interval", -end, end),
        "warnings": two.warnings,
        "p_text": p_text,
    }


def _run_facts(stored: StoredRun, name: str) -> dict[str, Any]:
    """The facts about a run at the head of the page."""
    records = list(stored.records.values())
    some = records[0]
    stops = bool(stored.config.get("terminate_on_success", False))
    tasks = [get_task(name) for name in _task_order(list(stored.records))]
    return {
        "side": name,
        "label": stored.label,
        "agent": some["agent"],
        "engine": f"{some['engine']} {some['engine_version']}",
        "look": some["look"],
        "episodes": len(records),
        "retried": sum(retried_episodes(read_timing(stored.path)).values()),
        "reduced": Reduction.of(stored.config),
        "ending": "stopped at first success" if stops else "run to the step limit",
        "published": published_lines(summarise_run(records, tasks, stored.config), stored.config),
    }


def _task_order(addresses: Sequence[Address]) -> list[str]:
    """Names of the tasks, as they first occur."""
    return list(dict.fromkeys(address.task for address in addresses))


def _outcome(record: Record) -> str:
    if record["error"] is not None:
        return "error"
    if record["success"]:
        return "success"
    return "lost" if record["success_any"] else "failure"


def _spans(flags: Sequence[NDArray[np.bool_]]) -> list[list[list[int]]]:
    """Stretches ``[begin, end)`` in which each flag is true, counted in control steps from 0."""
    spans: list[list[list[int]]] = [[] for _ in flags]
    if flags:
        rows, edges = np.nonzero(np.diff(np.pad(np.array(flags, np.int8), ((0, 0), (1, 1)))))
        for row, begin, end in zip(rows[::2].tolist(), edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            spans[row].append([begin, end])
    return spans


def template_environment() -> Environment:
    """The environment of the pages' templates."""
    loader = PackageLoader("vlaser_gym.evaluation.report")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def write_page(page: Path, text: str) -> None:
    """Write the page; it appears when it is complete.

    Raises:
        StorageError: if it cannot be written.
    """
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        write_whole(page, text.encode(), sync=False)
    except OSError as error:
        raise StorageError(f"Cannot write the report {page}: {error.strerror or error}.") from error
