"""Speed of environments and policies: ``python -m vlaser_gym.bench num_envs=8 chunk=4``; ``--help`` lists the keys.

Environments run small random actions, ended episodes are refilled. Three measurements: physics alone (proprioception
    and
instruction), an image at every control step, an image at every replan. ``policies=vlaser_2b`` also times decisions,
``memory=vlaser_2b`` adds what training takes of it, ``training=vlaser_2b`` how fast that is.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from omegaconf import DictConfig
from rich import box
from rich.console import Console
from rich.table import Table

from vlaser_gym.cli import run, typed
from vlaser_gym.envs.engines import ActingEngine, check_counts, check_engine
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import by_robot, get_task, resolve
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.evaluation.table import make_console
from vlaser_gym.settings.commands import BenchSettings
from vlaser_gym.storage.files import check_output, write_output

_WITHOUT, _WITH = ("proprio", "instruction"), ("image", "proprio", "instruction")
#: Numbers of GPUs in the tables of memory.
_GPUS = (1, 2, 4, 8)
#: Bounds of the random actions, m and rad per control step.
_BOUNDS = np.array([0.02, 0.02, 0.02, 0.05, 0.05, 0.05, 1.0])


@dataclass(frozen=True)
class Measurement:
    """One row of the table.

    Attributes:
        control_steps: executed in ``seconds`` of wall time, all environments together.
        cpu_seconds: processor time of this process, its physics threads included, render processes not.
        physics, images: share of the wall time in the engine's ``step`` and ``images``; ``other`` is the rest:
            inverse kinematics, evaluation, observations, new episodes.
    """

    tasks: tuple[str, ...]
    pictures: str
    control_steps: int
    seconds: float
    cpu_seconds: float
    physics: float
    images: float

    @property
    def rate(self) -> float:
        """Control steps per second."""
        return self.control_steps / self.seconds

    @property
    def other(self) -> float:
        """Share of the wall time that is neither physics nor images."""
        return 1.0 - self.physics - self.images

    def as_dict(self) -> dict[str, Any]:
        """Dictionary for JSON."""
        return {
            "tasks": list(self.tasks),
            "pictures": self.pictures,
            "control_steps": self.control_steps,
            "seconds": self.seconds,
            "control_steps_per_second": self.rate,
            "cpu_ms_per_control_step": 1000 * self.cpu_seconds / self.control_steps,
            "share_physics": self.physics,
            "share_images": self.images,
            "share_other": self.other,
        }


def main(config: DictConfig) -> None:
    """Measure, print the table, write the JSON."""
    settings = typed(BenchSettings, config)
    names = resolve(settings.task)
    _check(settings)
    console = make_console()
    results = []
    for tasks in batches(names) if settings.environments else ():
        with console.status(f"Measuring {', '.join(tasks)}"):
            results += measure_tasks(settings, tasks)
    if settings.environments:
        console.print(_table(settings, results))
    told = report(settings, results)
    told |= _policies(settings, console)
    if settings.environments and settings.look == "original" and settings.engine["name"] == "mujoco":
        told["picture_time_ratio"] = {name: picture_time_ratio(settings, name) for name in names}
        for name, ratio in told["picture_time_ratio"].items():
            console.print(f"{name}: images take {ratio:.2f} times as long as the built-in look's")
    if settings.policies:
        from vlaser_gym.agents.vlaser.serving_benchmark import time_policy  # noqa: PLC0415  torch takes seconds

        told["policies"] = [time_policy(policy, settings.device, console.print) for policy in settings.policies]
    if settings.output is not None:
        write_output("output", settings.output, (json.dumps(told, indent=1) + "\n").encode())


def batches(names: Sequence[str]) -> list[tuple[str, ...]]:
    """The task sets to measure: each task by itself, then all of a robot, as a batch has one robot only.

    Example:
        >>> batches(["widowx_stack_cube", "widowx_carrot_on_plate", "google_robot_move_near"])[3:]
        [('widowx_stack_cube', 'widowx_carrot_on_plate')]
    """
    groups = by_robot(get_task(name) for name in names).values()
    return [(name,) for name in names] + [tuple(task.name for task in group) for group in groups if len(group) > 1]


def measure_tasks(settings: BenchSettings, tasks: Sequence[str]) -> list[Measurement]:
    """The three measurements of a batch of tasks."""
    kinds = (("none", _WITHOUT, settings.chunk), ("every step", _WITH, 1), ("every replan", _WITH, settings.chunk))
    options = {key: value for key, value in settings.engine.items() if key != "name"}
    results = []
    for pictures, observe, horizon in kinds:
        env = SceneVectorEnv(
            tasks,
            settings.num_envs,
            engine=settings.engine["name"],
            look=settings.look,
            observe=observe,
            engine_options=options,
        )
        try:
            results.append(measure(env, tuple(tasks), pictures, horizon, settings.seconds))
        finally:
            env.close()
    return results


def picture_time_ratio(settings: BenchSettings, task: str, rounds: int = 40) -> float:
    """Time that images of the look take, over the built-in look's.

    Of ``rounds`` calls, taken in turns, the shortest counts: whatever else runs on the machine only adds to it.
    """
    options = {key: value for key, value in settings.engine.items() if key != "name"}
    lanes = np.arange(settings.num_envs)
    envs = [
        SceneVectorEnv(task, settings.num_envs, engine=settings.engine["name"], look=look, engine_options=options)
        for look in ("builtin", settings.look)
    ]
    try:
        watches = [_Stopwatch(env.engine.images) for env in envs]
        for env in envs:
            env.reset(seed=0)  # makes an image of every environment: processes are started by now
        times = np.array([[watch.timed(lanes) for watch in watches] for _ in range(rounds)])
        builtin, other = times.min(0)
        return float(other / builtin)
    finally:
        for env in envs:
            env.close()


def measure(env: SceneVectorEnv, tasks: tuple[str, ...], pictures: str, horizon: int, seconds: float) -> Measurement:
    """Run chunks of ``horizon`` random actions for at least ``seconds`` of wall time."""
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    env.step_chunk(_actions(rng, env.num_envs, horizon))  # scenes are compiled and processes started by now
    engine: Any = env.engine
    stepping = "execute" if isinstance(env.engine, ActingEngine) else "step"
    physics, images = _Stopwatch(getattr(engine, stepping)), _Stopwatch(engine.images)
    setattr(engine, stepping, physics)
    engine.images = images
    steps, wall, cpu = 0, 0.0, time.process_time()
    while wall < seconds:
        chunk = _actions(rng, env.num_envs, horizon)
        begun = time.perf_counter()
        *_, info = env.step_chunk(chunk)
        wall += time.perf_counter() - begun
        steps += int(info["steps"].sum())
    cpu = time.process_time() - cpu
    return Measurement(tasks, pictures, steps, wall, cpu, physics.seconds / wall, images.seconds / wall)


class _Stopwatch:
    """A function that sums up the wall time of its calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.seconds = 0.0

    def __call__(self, *arguments: Any) -> Any:
        begun = time.perf_counter()
        try:
            return self._function(*arguments)
        finally:
            self.seconds += time.perf_counter() - begun

    def timed(self, *arguments: Any) -> float:
        """Seconds that one call takes."""
        before = self.seconds
        self(*arguments)
        return self.seconds - before


def _actions(rng: np.random.Generator, num_envs: int, horizon: int) -> Any:
    return rng.uniform(-_BOUNDS, _BOUNDS, (num_envs, horizon, 7))


def _policies(settings: BenchSettings, console: Console) -> dict[str, Any]:
    """Memory and time of training policies."""
    if not (settings.memory or settings.training):
        return {}
    # torch takes seconds to import.
    from vlaser_gym.training import memory, speed  # noqa: PLC0415

    told: dict[str, Any] = {"memory": {}, "training": {}}
    for name in settings.memory:
        rows = memory.memory_rows(name, _GPUS)
        console.print(memory.tabulate(name, rows, _GPUS))
        told["memory"][name] = [memory.as_dict(case, _GPUS, found) for case, found in rows]
    for name in settings.training:
        timings = speed.time_training(name, settings.device)
        console.print(speed.tabulate(name, timings))
        told["training"][name] = [vars(timing) for timing in timings]
    return told


def _check(settings: BenchSettings) -> None:
    """Complain before minutes are spent."""
    settings.look = check_engine(str(settings.engine["name"]), settings.look)
    check_counts(settings.engine)
    check_output("output", settings.output)
    if settings.policies:
        from vlaser_gym.agents.vlaser.serving_benchmark import check_policies  # noqa: PLC0415

        check_policies(settings.policies, settings.device)


def report(settings: BenchSettings, results: Sequence[Measurement]) -> dict[str, Any]:
    """Everything that was measured and on what, for JSON."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "engine": str(settings.engine["name"]),
        "look": settings.look,
        "num_envs": settings.num_envs,
        "chunk": settings.chunk,
        "machine": {"system": platform.platform(), "python": platform.python_version(), "cores": cores},
        "measurements": [result.as_dict() for result in results],
    }


def _table(settings: BenchSettings, results: Sequence[Measurement]) -> Table:
    title = f"{settings.engine['name']}, num_envs={settings.num_envs}, chunk={settings.chunk}"
    table = Table(title=title, box=box.ASCII, caption="shares of the wall time, %")
    table.add_column("task")
    table.add_column("pictures")
    for name in ("control steps / s", "CPU ms / step", "physics", "images", "other"):
        table.add_column(name, justify="right")
    for result in results:
        robot = get_setup(get_task(result.tasks[0]).robot_setup).robot.name
        task = result.tasks[0] if len(result.tasks) == 1 else f"{len(result.tasks)} mixed ({robot})"
        shares = (f"{100 * share:.1f}" for share in (result.physics, result.images, result.other))
        cpu = f"{1000 * result.cpu_seconds / result.control_steps:.2f}"
        table.add_row(task, result.pictures, f"{result.rate:.0f}", cpu, *shares)
    return table


def command() -> None:
    """``python -m vlaser_gym.bench``."""
    run("bench", main)
