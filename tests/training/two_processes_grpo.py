"""Run by test_grpo.py in each of several processes: trains on this process's groups and stores the weights."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from test_grpo import make, weights

from vlaser_gym.training import metrics
from vlaser_gym.training.distributed import joined_processes

if __name__ == "__main__":
    path, envs = Path(sys.argv[1]), int(sys.argv[2])
    metrics.draw_curves = lambda *_: None
    with joined_processes("cpu") as group:
        trainer = make(path / "run", envs=envs // group.size, group=group, learning_rate=1e-4)
        trainer.run()
        torch.save(weights(trainer), path / f"weights-{group.rank}.pt")
