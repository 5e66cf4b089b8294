"""Run by test_scaling.py in each of several processes: trains, and stores the whole weights.

Arguments: algorithm, folder, steps (or iterations) to take now, fields of :class:`Scaling` and settings as JSON. The
folder holds the data; ``run`` in it is the run directory, and ``found-RANK.pt`` the weights of each process.
"""

from __future__ import annotations

import functools
import importlib
import json
import sys
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


if __name__ == "__main__":
    algo, path, steps = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    metrics.draw_curves = lambda *_: None
    with joined_processes("cpu") as group:
        trainer = make(algo, path, group, *(json.loads(text) for text in sys.argv[4:6]))
        count = iter(range(1000))
        trainer.run(lambda: next(count) >= steps)
        found = dict(trainer.agent.state_dict())
        if getattr(trainer, "critic", None) is not None:
            found |= {f"critic.{name}": value for name, value in trainer.critic.state_dict().items()}
        torch.save(whole(found), path / f"found-{group.rank}.pt")
