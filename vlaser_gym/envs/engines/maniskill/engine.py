"""SAPIEN 3 through ManiSkill 3: environments are shared out among worker processes, or simulated all at once on a
GPU.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.envs.assets import AssetPack
from vlaser_gym.envs.engines.base import Ints, Placement, Reading, refuse_other_cameras
from vlaser_gym.envs.engines.child import Child
from vlaser_gym.envs.engines.maniskill.start import SceneKey, Start, Targets
from vlaser_gym.envs.robots import POLICY_CAMERA, DriveTargets, get_setup
from vlaser_gym.errors import InvalidConfigError, SimulationError, UnknownNameError

#: Module of the worker processes.
WORKER = "vlaser_gym.envs.engines.maniskill.worker"
#: Where physics can run.
SIM_BACKENDS = ("cpu", "gpu")


class ManiskillEngine:
    """The original's scenes on SAPIEN 3, in worker processes.

    On CPUs an environment's scene is built anew at every placement, so that what happens on it depends on the placement
    and its
    targets alone. Snapshots hold both and are put back by running the targets again: exact, at the cost of those steps.
    On a GPU one process simulates all environments together (:mod:`.batch`) and the others draw; repetitions are then
    as close as PhysX's there, not bit for bit.

    Args:
        num_lanes: number of simulations.
        look: ``"original"``: meshes, textures and photographs of the asset pack.
        processes: worker processes; None for one per core, and no more than there are environments. With a GPU, of
            those that draw.
        assets: directory of the asset pack; None for the one that ``python -m vlaser_gym.assets`` fills.
        sim_backend: ``"cpu"`` or ``"gpu"``: where physics runs. Images are made by a GPU wherever there is one.

    Raises:
        MissingAssetError: if there is no asset pack.
        UnknownNameError: for another ``sim_backend``.
        InvalidConfigError: for fewer than one process, or if the extra ``maniskill`` is not installed.
    """

    name = "maniskill"
    policy_camera_only = True

    def __init__(
        self,
        num_lanes: int,
        look: str = "original",
        processes: int | None = None,
        assets: str | None = None,
        sim_backend: str = "cpu",
    ) -> None:
        if sim_backend not in SIM_BACKENDS:
            raise UnknownNameError("engine.sim_backend", sim_backend, SIM_BACKENDS)
        if processes is not None and processes < 1:
            raise InvalidConfigError(f"engine.processes must be at least 1; got {processes}.")
        self.version, self.look = installed_version() + (", GPU physics" if sim_backend == "gpu" else ""), look
        directory = str(AssetPack(assets).directory.resolve())
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        #: Those that draw, and those that simulate; on CPUs they are the same.
        self._artists = [start_worker() for _ in range(min(processes or cores, num_lanes))]
        self._workers = self._artists if sim_backend == "cpu" else [start_worker()]
        for worker in self._artists:
            worker.send(("open", directory))
        if sim_backend == "gpu":
            self._workers[0].send(("open", directory, sim_backend))
        self._opened = False
        self._starts: list[Start | None] = [None] * num_lanes
        self._history: list[list[Targets]] = [[] for _ in range(num_lanes)]
        self._readings: list[Reading | None] = [None] * num_lanes

    def place(self, lanes: Sequence[int], placements: Sequence[Placement]) -> None:
        """Put environments into initial states, everything at rest."""
        for lane, placement in zip(lanes, placements, strict=True):
            self._starts[lane], self._history[lane] = _start(placement), []
        self._run(lanes)

    def _run(self, lanes: Sequence[int]) -> None:
        jobs = [(int(lane), self._starts[lane], self._history[lane]) for lane in lanes]
        for lane, reading in zip(lanes, self._ask(self._workers, "run", jobs), strict=True):
            self._readings[lane] = reading

    def step(self, lanes: Ints, targets: DriveTargets) -> None:
        """Run one control step on ``lanes``."""
        position = targets.position.astype(np.float32)
        velocity = None if targets.velocity is None else targets.velocity.astype(np.float32)
        jobs = []
        for row, lane in enumerate(lanes.tolist()):
            if self._starts[lane] is None:
                raise SimulationError(f"Environment {lane} is not placed: reset it before it is stepped.")
            jobs.append((lane, Targets(position[row], None if velocity is None else velocity[row])))
        readings = self._ask(self._workers, "step", jobs)
        for (lane, sent), reading in zip(jobs, readings, strict=True):
            self._history[lane].append(sent)
            self._readings[lane] = reading
        diverged = [
            lane
            for (lane, _), reading in zip(jobs, readings, strict=True)
            if not (np.isfinite(reading.qpos).all() and np.isfinite(reading.object_pose).all())
        ]
        if diverged:
            raise SimulationError(f"The simulation of environments {diverged} diverged: reset them.")

    def read(self, lanes: Ints) -> list[Reading]:
        """Simulator states of ``lanes``."""
        readings = []
        for lane in lanes:
            reading = self._readings[lane]
            assert reading is not None
            readings.append(reading)
        return readings

    def images(self, lanes: Ints, camera: str = POLICY_CAMERA) -> NDArray[np.uint8]:
        """Images of the policy's camera, ``[B, H, W, 3]``."""
        refuse_other_cameras(self.name, [camera])
        readings = zip(lanes.tolist(), self.read(lanes), strict=True)
        return np.stack(self._ask(self._artists, "draw", [(lane, self._state(lane, seen)) for lane, seen in readings]))

    def _state(self, lane: int, seen: Reading) -> Start:
        start = self._starts[lane]
        assert start is not None
        return start._replace(qpos=seen.qpos, object_pose=seen.object_pose, joints=seen.joints)

    def get_state(self) -> dict[str, Any]:
        """The initial state of each environment and the joint targets that it has followed since."""
        return {"starts": list(self._starts), "history": [list(steps) for steps in self._history]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`get_state` returned."""
        self._starts, self._history = list(state["starts"]), [list(steps) for steps in state["history"]]
        self._run([lane for lane, start in enumerate(self._starts) if start is not None])

    def _ask(self, workers: Sequence[Child], command: str, jobs: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Answers to jobs, whose first item is their environment, all workers at once."""
        if not self._opened:
            for worker in self._all():
                worker.receive()
            self._opened = True
        shares = [[i for i, job in enumerate(jobs) if job[0] % len(workers) == w] for w in range(len(workers))]
        busy = [(worker, share) for worker, share in zip(workers, shares, strict=True) if share]
        for worker, share in busy:
            worker.send((command, [jobs[i] for i in share]))
        answers: list[Any] = [None] * len(jobs)
        for worker, share in busy:
            for i, answer in zip(share, worker.receive(), strict=True):
                answers[i] = answer
        return answers

    def _all(self) -> list[Child]:
        return list(dict.fromkeys([*self._workers, *self._artists]))

    def close(self) -> None:
        """Terminate the worker processes."""
        for worker in self._all():
            worker.close()
        self._workers = self._artists = []


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
        return str(worker.ask("probe"))
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
