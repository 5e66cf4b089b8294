"""Run by test_ppo.py in each of several processes: trains in this process's environments and stores the weights."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from test_ppo import make, weights

from vlaser_gym.training import metrics
from vlaser_gym.training.distributed import joined_processes

if __name__ == "__main__":
    path, envs = Path(sys.argv[1]), int(sys.argv[2])
    metrics.draw_curves = lambda *_: None
    with joined_processes("cpu") as group:
        trainer = make(
            path / "run",
            envs=envs // group.size,
            seed=3,
            group=group,
            n_steps=4,
            batch_size=8,
            target_kl=0.5,
            learning_rate=1e-4,
        )
        trainer.run()
        torch.save(weights(trainer), path / f"weights-{group.rank}.pt")
