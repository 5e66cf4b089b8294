"""Run by test_grpo.py in each of several processes: trains on this process's groups and stores the weights."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from test_grpo import make, weights

from vlaser_gym.agents.learners import curves
from vlaser_gym.agents.learners.distributed import joined_workers

if __name__ == "__main__":
    path, lanes = Path(sys.argv[1]), int(sys.argv[2])
    curves.draw_curves = lambda *_: None
    with joined_workers("cpu") as workers:
        trainer = make(path / "run", lanes=lanes // workers.size, workers=workers, learning_rate=1e-4)
        trainer.run()
        torch.save(weights(trainer), path / f"weights-{workers.rank}.pt")
