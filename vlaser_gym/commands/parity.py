"""Fidelity of an engine: ``python -m vlaser_gym.parity golden=FOLDER``; ``--help`` lists the keys."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich import box
from rich.console import Console
from rich.table import Table

from vlaser_gym.cli import run, typed, words
from vlaser_gym.envs.bridge import ENVIRONMENTS, BridgeEnvironments
from vlaser_gym.envs.engines import check_counts, check_engine
from vlaser_gym.envs.rendering import PICTURE_ENGINES
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import get_task, resolve
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.evaluation.bridge import bridge_robot_figures, bridge_task_figures
from vlaser_gym.evaluation.parity import INITIAL, Recordings, Simulator, robot_figures, task_figures
from vlaser_gym.evaluation.pictures import beside, compare_pictures, picture_figures
from vlaser_gym.evaluation.runner import EpisodeResult
from vlaser_gym.evaluation.table import make_console
from vlaser_gym.evaluation.transfer import (
    BELIEFS,
    RECORDED,
    Key,
    Outcomes,
    Transfer,
    Trial,
    compare_sides,
    drawn_trials,
    policy_name,
    recorded_trials,
    run_trials,
)
from vlaser_gym.evaluation.transfer_videos import BesideVideos, Side, States, recorded_states
from vlaser_gym.settings.commands import ParitySettings
from vlaser_gym.storage.files import check_output, write_output

#: What can be measured.
FIGURES = ("replays", "pictures", "bridge", "ranking")
_OWN = "ManiSkill's own environments"


def main(config: DictConfig) -> None:
    """Replay the recordings and print the figures."""
    settings = typed(ParitySettings, config)
    engine = str(settings.engine["name"])
    look = check_engine(engine, settings.look)
    check_counts(settings.engine)
    check_output("output", settings.output)
    check_output("beside", settings.beside, folder=True)
    check_output("videos", settings.videos, folder=True)
    options = {key: value for key, value in settings.engine.items() if key != "name"}
    simulator = Simulator(engine, look, options, settings.num_envs)
    names, figures = resolve(settings.task), _figures(settings, look)
    report: dict[str, Any] = {"engine": engine, "look": look}
    console = make_console()
    if set(figures) != {"ranking"}:
        report |= _against_recordings(settings, names, figures, simulator, console)
    if "ranking" in figures:
        sides = _sides(settings, names, simulator)
        transfers = [compare_sides(a.name, b.name, a.outcomes, b.outcomes) for a in sides[:-1] for b in sides[-1:]]
        report["ranking"] = [transfer.stored() for transfer in transfers]
        console.print(_ranking_table(transfers))
        for transfer in transfers:
            console.print(_disagreements(transfer), soft_wrap=True)
        if settings.videos is not None:
            console.print(_write_videos(settings, sides), soft_wrap=True)
    if settings.output is not None:
        write_output("output", settings.output, (json.dumps(report, indent=1) + "\n").encode())


def _against_recordings(
    settings: ParitySettings, names: Sequence[str], figures: Sequence[str], simulator: Simulator, console: Console
) -> dict[str, Any]:
    """Print and return the figures that compare with the original's recordings."""
    recordings, engine, options = Recordings(settings.golden), simulator.engine, simulator.options
    report: dict[str, Any] = {}
    if "replays" in figures:
        report["tasks"] = [task_figures(recordings, name, simulator) for name in names]
        console.print(_task_table(report["tasks"]))
        kinds = dict.fromkeys(get_setup(get_task(name).robot_setup).robot.name for name in names)
        report["robots"] = [robot_figures(recordings, robot, simulator) for robot in kinds]
        console.print(_robot_table(report["robots"]))
    if "pictures" in figures:
        report["pictures"] = [_pictures(recordings, name, engine, options, settings.beside) for name in names]
        console.print(_picture_table(report["pictures"]))
    if "bridge" in figures:
        with BridgeEnvironments(options.get("assets")) as environments:
            rows = [row for name in names for row in bridge_task_figures(recordings, name, environments)]
            motion = bridge_robot_figures(recordings, environments)
        report |= {"bridge_tasks": rows, "bridge_robots": [motion]}
        console.print(_task_table(rows, f"{_OWN}: initial state, open-loop replays"))
        console.print(_robot_table([motion], f"{_OWN}: free motion of the TCP"))
    return report


def _figures(settings: ParitySettings, look: str) -> list[str]:
    """The requested figures; by default the replays, and the images if the look has photographs."""
    photographs = settings.engine["name"] in PICTURE_ENGINES and look == "original"
    if settings.figures is None:
        # The original's ray tracer takes minutes for an image where there is no GPU.
        return ["replays", "pictures"] if photographs and settings.engine["name"] != "simpler" else ["replays"]
    for name in words(settings.figures):
        if name not in FIGURES:
            raise UnknownNameError("figures", name, FIGURES)
        if name == "bridge":
            _check_bridge(settings)
        if name == "pictures" and not photographs:
            raise InvalidConfigError(
                "figures=pictures compares the look original of engine=mujoco, maniskill or simpler: add look=original."
            )
    return words(settings.figures)


def _check_bridge(settings: ParitySettings) -> None:
    if settings.engine["name"] != "maniskill":
        raise InvalidConfigError("figures=bridge plays in ManiSkill's own environments: add engine=maniskill.")
    if strange := [name for name in resolve(settings.task) if name not in ENVIRONMENTS]:
        raise InvalidConfigError(
            f"figures=bridge expects tasks that ManiSkill has itself ({', '.join(ENVIRONMENTS)}); got {strange[0]}: "
            "use task=widowx."
        )


def _pictures(
    recordings: Recordings, task: str, engine: str, options: Mapping[str, Any], folder: str | None
) -> dict[str, Any]:
    """Figures of a task's images; the first pair of them goes into ``folder``."""
    assets = options.get("assets")
    comparisons = list(compare_pictures(recordings, task, assets, engine=engine, options=options))
    if folder is not None and comparisons:
        Path(folder).mkdir(parents=True, exist_ok=True)
        beside(comparisons[0]).save(Path(folder) / f"{task}.png", optimize=True)
    return {"task": task, **(picture_figures(comparisons) if comparisons else {"pictures": []})}


@dataclass
class _Side:
    """The episodes of one side: outcomes, and states where videos are wanted."""

    name: str
    look: str
    outcomes: Outcomes = field(default_factory=dict)
    states: dict[Key, States] = field(default_factory=dict)


def _sides(settings: ParitySettings, names: Sequence[str], simulator: Simulator) -> list[_Side]:
    """The reference sides, and the engine last, all played."""
    others = words(settings.engines) if settings.engines is not None else [RECORDED]
    checkpoints = words(settings.checkpoints) if settings.checkpoints is not None else []
    if RECORDED in others and checkpoints:
        raise InvalidConfigError(
            "The recorded episodes are experts' alone: name the engines that checkpoints= are compared on with "
            "engines=, such as engines=mujoco/original."
        )
    looks = {
        other: check_engine(other.split("/")[0], other.partition("/")[2] or None)
        for other in others
        if other != RECORDED
    }
    trials = drawn_trials(names, settings.episodes, (*BELIEFS, *checkpoints))
    sides = [_Side(other, looks.get(other, "original")) for other in others]
    for side in sides:
        if side.name == RECORDED:
            trials, side.outcomes = recorded_trials(Path(settings.golden), names)
    for side in sides:
        if side.name != RECORDED:
            _play(side, trials, side.name.split("/")[0], {}, settings)
    ours = _Side(f"{simulator.engine}/{simulator.look}", str(simulator.look))
    _play(ours, trials, simulator.engine, simulator.options, settings)
    return [*sides, ours]


def _play(
    side: _Side, trials: Sequence[Trial], engine: str, options: Mapping[str, Any], settings: ParitySettings
) -> None:
    def keep(trial: Trial, result: EpisodeResult) -> None:
        if settings.videos is not None:
            side.states[trial.key] = result.trajectory

    side.outcomes = run_trials(trials, engine, side.look, options, settings.num_envs, keep)


def _write_videos(settings: ParitySettings, sides: Sequence[_Side]) -> str:
    """Videos of all episodes that end otherwise than on the engine, and a line about each."""
    *others, ours = sides
    lines = []
    with BesideVideos(Path(settings.videos or "."), settings.engine.get("assets")) as videos:
        for other in others:
            for key in [key for key, ended in ours.outcomes.items() if other.outcomes.get(key, ended) != ended]:
                recorded = other.name == RECORDED
                states = recorded_states(Path(settings.golden), key) if recorded else other.states[key]
                pair = (
                    Side(other.name, other.look, states, other.outcomes[key]),
                    Side(ours.name, ours.look, ours.states[key], ours.outcomes[key]),
                )
                lines.append(f"{policy_name(key[0])} {key[1]}: {videos.write(key, pair)}")
    return "\n".join(lines or ["No episode ends otherwise: no videos."])


def _ranking_table(transfers: Sequence[Transfer]) -> Table:
    title = "Ranking of policies: the same episodes on both sides; 95 % intervals"
    table = Table(title=title, box=box.ASCII)
    table.add_column("reference and engine")
    for name in ("episodes", "Pearson", "MMRV", "by task: Pearson, MMRV", "alike %", "only one side", "p"):
        table.add_column(name, justify="right")
    for t in transfers:
        table.add_row(
            f"{t.a} - {t.b}",
            str(t.n),
            f"{t.pearson:.3f} [{t.pearson_interval[0]:.3f}, {t.pearson_interval[1]:.3f}]",
            f"{t.mmrv:.3f} [{t.mmrv_interval[0]:.3f}, {t.mmrv_interval[1]:.3f}]",
            f"{t.cell_pearson:.3f}, {t.cell_mmrv:.3f}",
            f"{100 * t.agreement:.1f} [{100 * t.agreement_interval[0]:.1f}, {100 * t.agreement_interval[1]:.1f}]",
            f"{t.only_a}, {t.only_b}",
            f"{t.p:.2g}",
        )
    return table


def _disagreements(transfer: Transfer) -> str:
    """Rates of both sides by policy, and every episode that ends otherwise."""
    rows = zip(transfer.policies, transfer.rates_a, transfer.rates_b, strict=True)
    rates = ", ".join(f"{policy_name(policy)} {100 * a:.0f} and {100 * b:.0f} %" for policy, a, b in rows)
    lines = [f"  {policy_name(policy)} {address}: {winner} alone" for policy, address, winner in transfer.disagreements]
    return "\n".join([f"{transfer.a} and {transfer.b} by policy: {rates}", *lines])


def _picture_table(rows: Sequence[dict[str, Any]]) -> Table:
    title = "Images: foreground against the recorded one; similarity (SSIM) inside the recorded foreground"
    table = Table(title=title, box=box.ASCII)
    table.add_column("task")
    heads = (
        "pictures",
        "least IoU",
        "of an object",
        "mean IoU",
        "SSIM",
        "bare photograph",
        "SSIM of the whole image",
    )
    for name in heads:
        table.add_column(name, justify="right")
    for row in rows:
        names = ("least_iou", "least_object_iou", "iou", "ssim", "photograph_ssim", "whole_ssim")
        figures = (row.get(name) for name in names)
        table.add_row(row["task"], str(len(row["pictures"])), *("-" if f is None else f"{f:.4f}" for f in figures))
    return table


def _task_table(rows: Sequence[dict[str, Any]], title: str = "Tasks: initial state, open-loop replays") -> Table:
    table = Table(title=title, box=box.ASCII)
    table.add_column("task")
    heads = ("objects mm", "deg", "TCP mm", "deg", "projection px", "recalled", "false successes", "source path mm")
    for name in heads:
        table.add_column(name, justify="right")
    for row in rows:
        deviations = [replay["source_max_mm"] for replay in row["replays"] if replay["original"]]
        table.add_row(
            row["task"],
            *("-" if row[key] is None else f"{row[key]:.3f}" for key in INITIAL),
            f"{row['recalled']}/{row['successes']}" if row["replays"] else "-",
            f"{row['false_successes']}/{row['failures']}" if row["replays"] else "-",
            f"{max(deviations):.1f}" if deviations else "-",
        )
    return table


def _robot_table(rows: Sequence[dict[str, Any]], title: str = "Robots: free motion of the TCP") -> Table:
    table = Table(title=title, box=box.ASCII)
    table.add_column("robot")
    table.add_column("motion")
    for name in ("steps", "RMS mm", "max mm", "RMS deg", "max deg"):
        table.add_column(name, justify="right")
    for row in rows:
        response = str(row["response_steps"]), "", f"{row['response_mm']:.2f}", "", ""
        table.add_row(row["robot"], "reference response", *response)
        for free in row["free"]:
            steps = str(free["steps"]) if free["steps"] == free["of"] else f"{free['steps']} of {free['of']}"
            figures = (f"{free[key]:.2f}" for key in ("rms_mm", "max_mm", "rms_deg", "max_deg"))
            table.add_row(row["robot"], f"sequence {free['sequence']}", steps, *figures)
    return table


def command() -> None:
    """``python -m vlaser_gym.parity``."""
    run("parity", main)
