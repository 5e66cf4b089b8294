"""SAPIEN 3 through ManiSkill 3: lanes are shared out among worker processes, each a scene of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.envs.assets import AssetPack
from vlaser_gym.envs.engines.base import Ints, Placement, Reading
from vlaser_gym.envs.engines.child import Child
from vlaser_gym.envs.engines.maniskill.start import SceneKey, Start, Targets
from vlaser_gym.envs.robots import DriveTargets, get_setup
from vlaser_gym.errors import InvalidConfigError, SimulationError

#: Module of the worker processes.
WORKER = "vlaser_gym.envs.engines.maniskill.worker"


class ManiskillEngine:
    """The original's scenes on SAPIEN 3, CPU physics, in worker processes.

    A lane's scene is built anew at every placement, so that what happens on it depends on the placement and its targets
    alone. Snapshots hold both and are put back by running the targets again: exact, at the cost of those steps.

    Args:
        num_lanes: number of simulations.
        look: ``"original"``: meshes, textures and photographs of the asset pack.
        processes: worker processes; None for one per core, and no more than there are lanes.
        assets: directory of the asset pack; None for the one that ``python -m vlaser_gym.assets`` fills.

    Raises:
        MissingAssetError: if there is no asset pack.
        InvalidConfigError: for fewer than one process, or if the extra ``maniskill`` is not installed.
    """

    name = "maniskill"

    def __init__(
        self, num_lanes: int, look: str = "original", processes: int | None = None, assets: str | None = None
    ) -> None:
        if processes is not None and processes < 1:
            raise InvalidConfigError(f"engine.processes must be at least 1; got {processes}.")
        self.version, self.look = installed_version(), look
        directory = str(AssetPack(assets).directory.resolve())
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._workers = [start_worker() for _ in range(min(processes or cores, num_lanes))]
        for worker in self._workers:
            worker.send(("open", directory))
        self._opened = False
        self._starts: list[Start | None] = [None] * num_lanes
        self._history: list[list[Targets]] = [[] for _ in range(num_lanes)]
        self._readings: list[Reading | None] = [None] * num_lanes

    def place(self, lanes: Sequence[int], placements: Sequence[Placement]) -> None:
        """Put lanes into initial states, everything at rest."""
        for lane, placement in zip(lanes, placements, strict=True):
            self._starts[lane], self._history[lane] = _start(placement), []
        self._run(lanes)

    def _run(self, lanes: Sequence[int]) -> None:
        jobs = [(int(lane), self._starts[lane], self._history[lane]) for lane in lanes]
        for lane, reading in zip(lanes, self._ask("run", jobs), strict=True):
            self._readings[lane] = reading

    def step(self, lanes: Ints, targets: DriveTargets) -> None:
        """Run one control step on ``lanes``."""
        position = targets.position.astype(np.float32)
        velocity = None if targets.velocity is None else targets.velocity.astype(np.float32)
        jobs = []
        for row, lane in enumerate(lanes.tolist()):
            if self._starts[lane] is None:
                raise SimulationError(f"Lane {lane} is not placed: reset it before it is stepped.")
            jobs.append((lane, Targets(position[row], None if velocity is None else velocity[row])))
        readings = self._ask("step", jobs)
        for (lane, sent), reading in zip(jobs, readings, strict=True):
            self._history[lane].append(sent)
            self._readings[lane] = reading
        diverged = [lane for (lane, _), reading in zip(jobs, readings, strict=True) if not _is_finite(reading)]
        if diverged:
            raise SimulationError(f"The simulation of lanes {diverged} diverged: reset them.")

    def read(self, lanes: Ints) -> list[Reading]:
        """States of ``lanes``."""
        readings = []
        for lane in lanes:
            reading = self._readings[lane]
            assert reading is not None
            readings.append(reading)
        return readings

    def images(self, lanes: Ints) -> NDArray[np.uint8]:
        """Pictures of the robot's camera, ``[B, H, W, 3]``."""
        return np.stack(self._ask("draw", [(lane,) for lane in lanes.tolist()]))

    def get_state(self) -> dict[str, Any]:
        """How each lane began and the targets it has followed since."""
        return {"starts": list(self._starts), "history": [list(steps) for steps in self._history]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Runs :meth:`get_state`'s answer again."""
        self._starts, self._history = list(state["starts"]), [list(steps) for steps in state["history"]]
        self._run([lane for lane, start in enumerate(self._starts) if start is not None])

    def _ask(self, command: str, jobs: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Answers to jobs, whose first item is their lane, all workers at once."""
        self._finish_opening()
        shares = [
            [i for i, job in enumerate(jobs) if job[0] % len(self._workers) == w] for w in range(len(self._workers))
        ]
        busy = [(worker, share) for worker, share in zip(self._workers, shares, strict=True) if share]
        for worker, share in busy:
            worker.send((command, [jobs[i] for i in share]))
        answers: list[Any] = [None] * len(jobs)
        for worker, share in busy:
            for i, answer in zip(share, worker.receive(), strict=True):
                answers[i] = answer
        return answers

    def _finish_opening(self) -> None:
        if not self._opened:
            for worker in self._workers:
                worker.receive()
            self._opened = True

    def close(self) -> None:
        """End the worker processes."""
        for worker in self._workers:
            worker.close()
        self._workers = []


def installed_version() -> str:
    """Versions of ManiSkill and SAPIEN.

    Raises:
        InvalidConfigError: if the extra is not installed.
    """
    try:
        return f"{version('mani-skill')} (SAPIEN {version('sapien')})"
    except PackageNotFoundError as error:
        raise InvalidConfigError(
            "engine=maniskill needs ManiSkill 3: pip install -e '.[maniskill]' -c constraints.txt."
        ) from error


def start_worker(module: str = WORKER, **environment: str) -> Child:
    """A process with ManiSkill in it, whose import of MuJoCo fails for a wrong ``MUJOCO_GL``: it is kept from that."""
    kept = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    return Child(module, {**kept, **environment})


def probe() -> str:
    """Name of the device that draws, tried out in a process of its own.

    Raises:
        GymError: if there is none, or its driver brings the process down.
    """
    worker = start_worker()
    try:
        worker.send(("probe",))
        return str(worker.receive())
    finally:
        worker.close()


def _start(placement: Placement) -> Start:
    task, layout = placement.task, placement.layout
    return Start(
        SceneKey(task.name, placement.variant, layout.cast),
        np.array(placement.qpos, np.float64),
        np.array(layout.object_pose, np.float64),
        dict(layout.joints),
        tuple(layout.base_pose or get_setup(task.robot_setup).base_pose),
    )


def _is_finite(reading: Reading) -> bool:
    return bool(np.isfinite(reading.qpos).all() and np.isfinite(reading.object_pose).all())
