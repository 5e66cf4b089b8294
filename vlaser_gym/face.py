"""The commands as functions, for scripts and notebooks: ``evaluate``, ``train``, ``collect`` and ``compare``.

Keyword arguments are the command's keys, with the same defaults: ``episodes=24`` here is ``episodes=24`` there. Keys of
a group are a mapping, such as ``algo={"name": "ppo", "iterations": 20}`` or ``engine={"threads": 2}``. Whatever is
wrong raises a :class:`~vlaser_gym.errors.GymError`; nothing reads ``sys.argv`` and nothing ends the process.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from vlaser_gym.agents.base import Agent
from vlaser_gym.cli import load, typed
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.settings.words import overrides

#: Columns of a result's text.
_WIDTH = 160


class Rate(NamedTuple):
    """A success rate, 0 to 1, with its 95 % interval, of ``n`` episodes."""

    rate: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class EvalResult:
    """The result of an evaluation; printed, it is the command's table.

    Attributes:
        path: the run directory.
        complete: no episode is missing.
        records: one per episode, sorted by address; see ``docs/run_directory.md``.
        summary: what ``summary.json`` holds.
        notes: where report and videos are, or why they are not.
        table: the text that the command prints.
    """

    path: Path
    complete: bool
    records: list[dict[str, Any]] = field(repr=False)
    summary: dict[str, Any] = field(repr=False)
    notes: tuple[str, ...] = ()
    table: str = ""

    @property
    def rates(self) -> dict[str, Rate]:
        """Success rates by task at the last step; at any step for episodes that ended at their first success."""
        rows = self.summary["tasks"]
        counted = {row["task"]: (row["n"], row["success_any" if row["stopped"] else "success"]) for row in rows}
        return {task: Rate(found["rate"], found["low"], found["high"], n) for task, (n, found) in counted.items()}

    @property
    def mean(self) -> Rate:
        """Mean of the tasks' rates."""
        rows = self.summary["tasks"]
        found = self.summary["mean"]["success_any" if any(row["stopped"] for row in rows) else "success"]
        return Rate(found["rate"], found["low"], found["high"], sum(row["n"] for row in rows))

    def __repr__(self) -> str:
        return "\n".join([self.table.strip(), *self.notes])


@dataclass(frozen=True)
class TrainResult:
    """The result of a training run.

    Attributes:
        path: the run directory.
        metrics: the last value of each metric.
        finished: everything is done; if not, the same call with ``run=path`` goes on.
        stopped_by: the signal that ended it before (SIGTERM), if one did.
    """

    path: Path
    metrics: dict[str, float]
    finished: bool = True
    stopped_by: int | None = None

    @property
    def checkpoint(self) -> Path:
        """The trained policy, for ``init=`` and ``checkpoint=``; Stable-Baselines3's models lie in :attr:`path`."""
        folder = self.path / "checkpoint"
        return folder if folder.is_dir() else self.path


@dataclass(frozen=True)
class CompareResult:
    """The result of a comparison; printed, it is the command's tables and verdicts.

    Attributes:
        comparison: the first run against each of the others.
        table: the text that the command prints.
        notes: which files were written.
    """

    comparison: Any = field(repr=False)
    table: str = ""
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return "\n".join([self.table.strip(), *self.notes])


def evaluate(agent: str | Mapping[str, Any] | Agent | None = None, task: Any = None, **keys: Any) -> EvalResult:
    """Score an agent, as ``python -m vlaser_gym.eval`` does.

    Args:
        agent: one of the command's by name; a mapping with ``name`` or ``_target_`` and its keys; or an object with
            ``reset`` and ``act`` (or a policy with ``acting()``, such as a
            :class:`~vlaser_gym.agents.trainable.TrainableAgent`).
        task: a task, a preset, or a list of tasks.
        keys: the command's other keys, such as ``episodes=24``, ``checkpoint="nano"`` or ``run="runs/mine"``.

    Raises:
        GymError: for whatever is wrong with the settings; then nothing is left behind.

    Example:
        >>> evaluate("expert", task="widowx_stack_cube", episodes=24)  # doctest: +SKIP
    """
    # The commands import torch, which takes seconds; here and below.
    from vlaser_gym.commands.eval import finish, print_table, score  # noqa: PLC0415
    from vlaser_gym.evaluation.evaluator import EvalSettings  # noqa: PLC0415

    acting = None if agent is None or isinstance(agent, str | Mapping) else _acting(agent)
    if acting is None:
        keys["agent"] = agent
    else:
        launcher = keys.get("launcher")
        launcher = launcher.get("name") if isinstance(launcher, Mapping) else launcher
        if launcher not in (None, "local"):
            raise InvalidConfigError(
                f"An agent object acts in this process; got launcher={launcher}: give the agent by name, or as a "
                "mapping with _target_, so that workers can build their own."
            )
        kind = type(agent)
        keys["agent"] = {"name": "custom", "_target_": f"{kind.__module__}.{kind.__qualname__}"}
    settings = EvalSettings.from_config(load("eval", overrides("eval", task=task, **keys)))
    notes: list[str] = []
    evaluation = score(settings, acting, notes.append)
    table = _text(lambda console: print_table(evaluation, console))
    finish(evaluation, notes.append)
    records = evaluation.store.sorted_records()
    return EvalResult(evaluation.path, evaluation.complete, records, evaluation.summary(), tuple(notes), table)


def train(algo: str | Mapping[str, Any] | None = None, init: Any = None, **keys: Any) -> TrainResult:
    """Train a policy, as ``python -m vlaser_gym.train`` does, which prints how it goes.

    Args:
        algo: an algorithm by name, or a mapping with ``name`` and its keys.
        init: what to start from.
        keys: the command's other keys, such as ``task="widowx"``, ``data="datasets/mine"`` or ``run="runs/mine"``.

    Returns:
        What it came to; after SIGTERM or at the end of ``max_minutes`` what it had come to, which is all stored.

    Raises:
        GymError: for whatever is wrong.
        KeyboardInterrupt: after Ctrl-C, once everything is stored.

    Example:
        >>> train("ppo", "nano", task="widowx_stack_cube", num_envs=8).metrics  # doctest: +SKIP
    """
    from vlaser_gym.commands.train import train_all  # noqa: PLC0415
    from vlaser_gym.settings.training import TrainSettings  # noqa: PLC0415
    from vlaser_gym.training.metrics import read_metrics  # noqa: PLC0415

    if init is not None and not isinstance(init, str | Path):
        raise InvalidConfigError(
            f"train() takes one init and gives one result; got {init!r}: call it once for each, or give the command "
            "a list."
        )
    settings = typed(TrainSettings, load("train", overrides("train", algo=algo, init=init, **keys)))
    (ending,) = train_all(settings).values()
    metrics = {name: value for row in read_metrics(ending.path / "metrics.jsonl") for name, value in row.items()}
    return TrainResult(ending.path, metrics, ending.finished, ending.stopped_by)


def collect(agent: str | Mapping[str, Any] | None = None, task: Any = None, **keys: Any) -> Path:
    """Record demonstrations, as ``python -m vlaser_gym.collect`` does, which prints how it goes.

    Args:
        agent: one of the command's by name, or a mapping with ``name`` or ``_target_`` and its keys.
        task: a task, a preset, or a list of tasks.
        keys: the command's other keys, such as ``episodes=100`` or ``output="datasets/mine"``.

    Returns:
        Where they are.

    Raises:
        GymError: for whatever is wrong.
    """
    from vlaser_gym.commands.collect import main  # noqa: PLC0415

    config = load("collect", overrides("collect", agent=agent, task=task, **keys))
    main(config)
    return Path(config.output)


def compare(*runs: str | Path | EvalResult, **keys: Any) -> CompareResult:
    """Compare runs episode by episode, as ``python -m vlaser_gym.compare`` does.

    Args:
        runs: run directories or results of :func:`evaluate`; the first is the baseline.
        keys: the command's other keys, such as ``count="any"`` or ``report="page.html"``. For a plan there is
            :func:`vlaser_gym.evaluation.power.plan`, for the order of policies
            :func:`vlaser_gym.evaluation.ranking.rank_against`.

    Raises:
        GymError: for runs that cannot be compared, and whatever else is wrong.
    """
    from vlaser_gym.commands.compare import comparison_settings, tell, write_files  # noqa: PLC0415
    from vlaser_gym.evaluation.comparison import compare_runs, load_runs  # noqa: PLC0415

    paths = [str(run.path if isinstance(run, EvalResult) else run) for run in runs]
    settings = comparison_settings(load("compare", overrides("compare", runs=paths, **keys)))
    if settings.plan is not None or settings.real is not None:
        raise InvalidConfigError(
            "compare() compares runs; for plan= call vlaser_gym.evaluation.power.plan, for real= "
            "vlaser_gym.evaluation.ranking.rank_against."
        )
    found = load_runs(paths)
    comparison = compare_runs(found, settings.count, settings.level)
    notes: list[str] = []
    write_files(found, comparison, settings, notes.append)
    return CompareResult(comparison, _text(lambda console: tell(found, comparison, console)), tuple(notes))


def _acting(agent: Any) -> Agent:
    """The agent that an object is, or that acts for a policy."""
    acting = agent.acting() if callable(getattr(agent, "acting", None)) else agent
    absent = [name for name in ("reset", "act") if not callable(getattr(acting, name, None))]
    if absent:
        raise InvalidConfigError(
            "agent should be a name, a mapping, or an object with the methods reset(lanes, addresses) and "
            f"act(observations, lanes); got a {type(agent).__name__} without {absent[0]}."
        )
    found: Agent = acting
    return found


def _text(tell: Callable[[Console], None]) -> str:
    stream = io.StringIO()
    tell(Console(file=stream, width=_WIDTH, no_color=True))
    return stream.getvalue()
