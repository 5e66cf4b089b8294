"""Train a policy: ``python -m vlaser_gym.train algo=sft data=datasets/demonstrations``; ``--help`` lists the keys.

``algo=ppo init=FOLDER`` (or ``grpo``) goes on from a policy, in the environments; ``algo=dpo``, ``nft`` and ``rft``
learn from stored episodes, given by ``data=RUNS`` or collected in rounds; ``algo=vlm data=QUESTIONS`` learns to answer
questions; ``algo=sb3_ppo`` and ``sb3_sac`` are
Stable-Baselines3's own, from the privileged state.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from vlaser_gym.agents.vlaser.agent import RANDOM, choose_device
from vlaser_gym.agents.vlaser.config import PRESETS
from vlaser_gym.agents.vlaser.shipped import SHIPPED_NAMES
from vlaser_gym.agents.vlaser.versions import AGENT_VERSIONS, why_another_version
from vlaser_gym.cli import run, typed
from vlaser_gym.envs.engines import check_counts, check_engine
from vlaser_gym.errors import InvalidConfigError, StorageError
from vlaser_gym.evaluation.store import check_writable
from vlaser_gym.evaluation.table import make_console
from vlaser_gym.evaluation.tracker import check_tracker
from vlaser_gym.settings.fields import check_unread
from vlaser_gym.settings.training import LATER, TrainSettings
from vlaser_gym.storage.files import remove_leftovers, storage_errors, write_whole
from vlaser_gym.storage.lines import append_line, drop_cut_line, parse_object
from vlaser_gym.storage.locks import held
from vlaser_gym.training.algorithms import Algorithm, get_algorithm
from vlaser_gym.training.data.gripper_column import GripperColumn
from vlaser_gym.training.distributed import ProcessGroup, joined_processes
from vlaser_gym.training.job import Job, check_start
from vlaser_gym.training.metrics import draw_curves, read_metrics
from vlaser_gym.training.progress import TrainingProgress
from vlaser_gym.training.trainer import Trainer

SETTINGS_FILE, STARTS_FILE = "settings.json", "starts.jsonl"
#: Settings that may be others when a run goes on, or that the learner compares itself.
_MAY_DIFFER = ("algo", "data", "agent_version", "rollout_batch", "schema", "checkpointing", "shard", "compile")


@dataclass(frozen=True)
class Ending:
    """The way in which a run ended.

    Attributes:
        path: run directory.
        finished: everything is done.
        stopped_by: the signal that ended it, if one did.
    """

    path: Path
    finished: bool
    stopped_by: int | None = None


def main(config: DictConfig) -> None:
    """See :func:`train_all`; what SIGTERM has ended exits with status 143, as schedulers expect."""
    for ending in train_all(typed(TrainSettings, config)).values():
        if ending.stopped_by is not None:
            sys.exit(128 + ending.stopped_by)


def train_all(settings: TrainSettings) -> dict[str, Ending]:
    """Train from every initialisation and tabulate the results; a signal leaves out those that are to come.

    Raises:
        KeyboardInterrupt: after Ctrl-C, once everything is kept.
    """
    settings.look = check_engine(str(settings.engine["name"]), settings.look)
    check_counts(settings.engine)
    GripperColumn.parse(settings.gripper)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    path = Path(settings.run or f"runs/{_folder_name(settings.algo['name'])}-{datetime.now():%Y%m%d-%H%M%S}")
    paths = {init: path if len(settings.inits) == 1 else path / _folder_name(init) for init in settings.inits}
    _algorithm(settings)
    check_tracker(settings.tracker)
    check_writable(path)
    if settings.policy is None:
        for init in settings.inits:
            check_start(init)
    with joined_processes(choose_device(settings.device)) as group:
        endings: dict[str, Ending] = {}
        for init, folder in paths.items():
            endings[init] = train(settings, init, folder, group)
            if endings[init].stopped_by is not None:
                return endings
        if group.is_main_process and len(paths) > 1:
            _compare(paths, path)
    return endings


def train(settings: TrainSettings, init: str, path: Path, group: ProcessGroup) -> Ending:
    """Train once, from the checks to the summary; one process writes to the run's directory at a time.

    Raises:
        KeyboardInterrupt: after Ctrl-C, once everything is kept.
    """
    algorithm, algo = _algorithm(settings)
    _check_given(settings, algorithm, init, group)
    with held(path, "another run=") if group.is_main_process else nullcontext():
        if group.is_main_process:
            _check_same(path, settings.stored(init))
            remove_leftovers(path)
        group.barrier()
        return _train(settings, algorithm, algo, init, path, group)


def _train(
    settings: TrainSettings, algorithm: Algorithm, algo: Any, init: str, path: Path, group: ProcessGroup
) -> Ending:
    begun, console = time.monotonic(), make_console()
    progress: list[TrainingProgress] = []

    def stop() -> bool:
        return settings.max_minutes is not None and time.monotonic() - begun > 60 * settings.max_minutes

    def say(text: object) -> None:
        if group.is_main_process:
            console.print(text, soft_wrap=isinstance(text, str), markup=False, highlight=False)

    def report(row: dict[str, float]) -> None:
        for bar in progress:
            bar.report(row)
        if row.keys() & {"success/mean", "evaluation/success"}:
            say("  ".join(f"{name} {value:.4g}" for name, value in row.items()))

    def advance(done: int) -> None:
        for bar in progress:
            bar.advance(done)

    job = Job(settings, algo, init, path, group, report, say, advance)
    if not algorithm.needs_policy and init in PRESETS and init in SHIPPED_NAMES and settings.policy is None:
        say(f"init={init} is this package's trained policy; random weights, its former meaning: {RANDOM}{init}.")
    learner = algorithm.learner(job)
    try:
        if group.is_main_process:
            stored = settings.stored(init)
            if algorithm.needs_policy and isinstance(learner, Trainer):
                stored |= _agent_version(path, learner.agent.robot) | learner.settled()
            changes = changed_settings(path, stored)
            keep_settings(path, stored, learner.record())
            say(f"Run directory: {path}\n{init}: {learner.describe()}")
            if changes:
                say(f"Goes on with other settings than it was stored with: {', '.join(changes)}.")
        with ExitStack() as stack:
            if group.is_main_process and isinstance(learner, Trainer):
                progress.append(stack.enter_context(TrainingProgress(console, learner.unit, learner.total)))
            finished = learner.run(stop)
    finally:
        learner.close()
    received = getattr(learner, "stopped_by", None)
    why = "the time is up" if received is None else "stopped on request"
    ending = learner.summary() + ("" if finished else f" {why.capitalize()}; the same command with run={path} goes on.")
    if received == signal.SIGINT:
        raise KeyboardInterrupt(ending)
    say(ending)
    return Ending(path, finished, received)


def _algorithm(settings: TrainSettings) -> tuple[Algorithm, Any]:
    algorithm = get_algorithm(str(settings.algo.get("name")))
    return algorithm, typed(algorithm.settings, settings.algo, "algo.")


def _check_given(settings: TrainSettings, algorithm: Algorithm, init: str, group: ProcessGroup) -> None:
    """Raise :class:`InvalidConfigError` for what an algorithm cannot begin with, or would not read."""
    name = settings.algo["name"]
    if algorithm.needs_policy and init.startswith(RANDOM) and settings.policy is None:
        raise InvalidConfigError(
            f"algo={name} goes on from a policy, but init={init} has random weights; give the folder of a policy, "
            "or init=nano, the trained one that comes with this package."
        )
    for key, reason in algorithm.unread:
        check_unread(settings, (key,), f"algo={name}, {reason}")
    if algorithm.single_process and group.size > 1:
        raise InvalidConfigError(f"algo={name} trains in one process; start it without torchrun.")


def _check_same(path: Path, stored: dict[str, Any]) -> None:
    """Raise :class:`StorageError` if a run directory holds a run with other settings."""
    file = path / SETTINGS_FILE
    if not file.is_file():
        return
    before = parse_object(file.read_bytes())
    if before is None or not isinstance(before.get("algo", {}), dict):
        raise StorageError(f"{file} is damaged: expected the run's settings; restore the file or choose another run=.")
    if "schema" not in before and before.get("init") in PRESETS:
        before["init"] = f"{RANDOM}{before['init']}"
    now = {k: LATER[k] for k in LATER.keys() & before.keys()} | json.loads(json.dumps(stored))
    differing = sorted(k for k in now if before.get(k) != now[k])
    name, wanted = (kept.get("algo", {}).get("name") for kept in (before, stored))
    if name != wanted:
        raise StorageError(f"{path} holds a run of algo={name}, not {wanted}; choose another run= or algo={name}.")
    # What the weights have learned by cannot change on the way; runs from before the key have none in their settings.
    bounds = [kept.get("algo", {}).get("statistics") for kept in (before, stored)]
    if bounds[0] != bounds[1]:
        raise StorageError(
            f"{path} holds a run that began with algo.statistics={bounds[0] or 'null'}, not {bounds[1] or 'null'}; "
            "choose another run= or the same setting."
        )
    # Another schedule and more data are decisions that may be taken on the way; they go on record.
    differing = [name for name in differing if name not in _MAY_DIFFER]
    if differing:
        raise StorageError(
            f"{path} holds a run with another {differing[0]} ({before.get(differing[0])}); "
            "choose another run= or the same settings."
        )


def changed_settings(path: Path, stored: Mapping[str, Any]) -> list[str]:
    """The algorithm's settings that differ from those that a run was stored with, such as ``algo.steps=7 (was 5)``;
    none for a new run. They may differ.
    """
    file = path / SETTINGS_FILE
    before = (parse_object(file.read_bytes()) or {}).get("algo", {}) if file.is_file() else {}
    now = json.loads(json.dumps(stored["algo"]))
    return [f"algo.{k}={now[k]} (was {before[k]})" for k in now if k in before and before[k] != now[k]]


def _agent_version(path: Path, robot: str) -> dict[str, int]:
    """The agent version that a run stores; a run of another version is refused."""
    file = path / SETTINGS_FILE
    stored = parse_object(file.read_bytes()) if file.is_file() else {"agent_version": AGENT_VERSIONS[robot]}
    version = (stored or {}).get("agent_version", 1)
    outdated = why_another_version(robot, version)
    if outdated is not None:
        raise StorageError(f"{path} holds a run {outdated}. Begin again with another run=.")
    return {"agent_version": AGENT_VERSIONS[robot]}


def keep_settings(path: Path, stored: dict[str, Any], start: dict[str, Any]) -> None:
    """Keep the settings, which refuse others from here on, once nothing is left to check; and the start itself."""
    _check_same(path, stored)
    with storage_errors(f"Cannot write the settings to {path}", "make space there or choose another run="):
        path.mkdir(parents=True, exist_ok=True)
        write_whole(path / SETTINGS_FILE, (json.dumps(stored, indent=2) + "\n").encode())
        drop_cut_line(path / STARTS_FILE)
        with (path / STARTS_FILE).open("ab", buffering=0) as stream:
            append_line(stream, {**stored, **start})


def _folder_name(init: str) -> str:
    return re.sub(r"[^\w.-]+", "-", init).strip("-")


def _compare(runs: dict[str, Path], path: Path) -> None:
    """Table and curves of several initialisations."""
    from rich.table import Table  # noqa: PLC0415

    metrics = {init: read_metrics(folder / "metrics.jsonl") for init, folder in runs.items()}
    names = sorted({name for rows in metrics.values() for row in rows for name in row if "/" in name})
    table = Table(title="Last value of each metric, by initialisation")
    for heading in ("init", "step", *names):
        table.add_column(heading)
    for init, rows in metrics.items():
        last = {name: value for row in rows for name, value in row.items()}
        cells = [f"{last[name]:.4g}" if name in last else "-" for name in names]
        table.add_row(init, str(last.get("step", 0)), *cells)
    make_console().print(table)
    draw_curves(metrics, path / "curves.png")


def command() -> None:
    """``python -m vlaser_gym.train``."""
    run("train", main)
