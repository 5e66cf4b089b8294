"""Run in each of several processes by test_scaling.py: trains, and stores the whole weights.

Arguments: algorithm, folder, steps (or iterations) to take now, fields of :class:`Scaling` and settings as JSON. The
folder holds the data; ``run`` in it is the run directory, and ``found-RANK.pt`` the weights of each process.
"""

from __future__ import annotations

import functools
import importlib
import json
import math
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import scaled
import torch

from vlaser_gym.training import metrics
from vlaser_gym.training.distributed import ProcessGroup, joined_processes
from vlaser_gym.training.scaling import Scaling, whole
from vlaser_gym.training.trainer import RunOptions

#: Environments of all processes together, of the learners that act.
ENVS = {"ppo": 4, "grpo": 12}


def make(algo: str, path: Path, group: ProcessGroup, scaling: dict[str, Any], changes: dict[str, Any]) -> Any:
    """The learner of an algorithm's own tests."""
    if algo == "sft":
        return scaled.build(path / "data", path / "run", group, scaling=scaling, **changes)
    module = importlib.import_module(f"test_{algo}")
    module.RunOptions = functools.partial(RunOptions, scaling=Scaling(**scaling))
    if algo in ENVS:
        return module.make(path / "run", envs=ENVS[algo] // group.size, group=group, **changes)
    module.RunOptions = functools.partial(module.RunOptions, group=group)
    return module.make(path, **changes)


def train(
    algo: str,
    path: Path,
    steps: int,
    scaling: dict[str, Any],
    changes: dict[str, Any],
    dies_after: int | None = None,
) -> None:
    """In one process of those that the environment names; the last of them kills itself after ``dies_after`` steps."""
    torch.set_num_threads(1)
    metrics.draw_curves = lambda *_: None
    with joined_processes("cpu") as group:
        trainer = make(algo, path, group, scaling, changes)
        count = iter(range(1000))

        def stop() -> bool:
            taken = next(count)
            if taken == dies_after and group.rank == group.size - 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return taken >= steps

        trainer.run(stop)
        found = dict(trainer.agent.state_dict())
        if getattr(trainer, "critic", None) is not None:
            found |= {f"critic.{name}": value for name, value in trainer.critic.state_dict().items()}
        torch.save(whole(found), path / f"found-{group.rank}.pt")


def fork_all(processes: int, work: Callable[[], None], log: Path) -> None:
    """Run ``work`` in so many forked processes that find each other as those of ``torchrun`` do.

    They have all imports already, which take longer than the work. If one fails, the others are ended.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(processes)}
    running = {
        _fork(place | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, work, log): rank for rank in range(processes)
    }
    failed, deadline = False, time.monotonic() + 600
    while running:
        for child in list(running):
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                del running[child]
                failed |= bool(status)
        if running and (failed or time.monotonic() > deadline):
            for child in running:
                os.kill(child, signal.SIGKILL)
            failed, deadline = True, math.inf
        time.sleep(0.02)
    assert not failed, log.read_text()[-4000:]


def _fork(environment: dict[str, str], work: Callable[[], None], log: Path) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.environ.update(environment)
        output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        work()
        status = 0
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


if __name__ == "__main__":
    train(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), *(json.loads(text) for text in sys.argv[4:6]))
