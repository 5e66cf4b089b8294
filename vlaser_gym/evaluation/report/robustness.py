"""The page of a robustness evaluation: what each perturbation costs, as a table and as bars."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlaser_gym.envs.perturbations import Perturbation
from vlaser_gym.evaluation.comparison import load_runs, p_text
from vlaser_gym.evaluation.report.builder import template_environment, write_page
from vlaser_gym.evaluation.report.charts import Bar, bar_chart
from vlaser_gym.evaluation.robustness import FIGURES, PAGE, Drop, Robustness, arm_folder, goal_line
from vlaser_gym.evaluation.table import short_name


def write_robustness(run: Path, found: Robustness, perturbations: Sequence[Perturbation]) -> Path:
    """Write the page and the figures as JSON into the folder of all arms; returns the page.

    Args:
        run: that folder.
        found: what the perturbations cost.
        perturbations: of the arms, for the links to their runs.

    Raises:
        StorageError: if they cannot be written.
    """
    (benign,) = load_runs([arm_folder(run, None)])
    links = {one.label: arm_folder(run, one).name for one in perturbations}
    families = list(dict.fromkeys(drop.family for drop in found.drops))
    rows = [drop for family in families for drop in found.of_family(family)]
    means = {drop.label for drop in found.families}
    context: dict[str, Any] = {
        "title": run.name,
        "agent": next(iter(benign.records.values()))["agent"],
        "rows": rows,
        "means": means,
        "links": {
            label: f"{name}/report.html" for label, name in links.items() if (run / name / "report.html").is_file()
        },
        "benign": found.drops[0],
        "tasks": [(row.task, short_name(row.task)) for row in found.drops[0].tasks],
        "chart": bar_chart([_bar(drop, drop.label in means) for drop in rows], "Change of success, points"),
        "goals": list(filter(None, map(goal_line, rows))),
        "p_text": p_text,
    }
    write_page(run / FIGURES, json.dumps(found.as_dict(), indent=2) + "\n")
    write_page(run / PAGE, template_environment().get_template("robustness.html").render(**context))
    return run / PAGE


def _bar(drop: Drop, strong: bool) -> Bar:
    overall = drop.overall
    return Bar(drop.label.replace("_", " "), overall.difference, overall.interval, strong)
