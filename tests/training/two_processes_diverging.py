"""Run by test_gradients.py in each of two processes: the second's numbers are spoiled, and both say why they stop."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import test_ppo
import test_sft
import torch
from demonstrations import write_set

from vlaser_gym.errors import DivergedError
from vlaser_gym.training import metrics
from vlaser_gym.training.distributed import ProcessGroup, joined_processes


def tune(path: Path, group: ProcessGroup) -> None:
    """The second step is spoiled."""
    trainer = test_sft.build(test_sft.read(write_set(path / f"set-{group.rank}", 4)), path / "run", group=group)
    if group.rank:
        test_sft.spoil(trainer, step=1)
    trainer.run()


def reinforce(path: Path, group: ProcessGroup) -> None:
    """The first advantage of the second iteration is spoiled."""
    trainer = test_ppo.make(path / "run", envs=2, group=group, n_steps=4, batch_size=8)
    if group.rank:
        test_ppo.spoil(trainer, iteration=1)
    trainer.run()


if __name__ == "__main__":
    algo, folder = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    metrics.draw_curves = lambda *_: None
    with joined_processes("cpu") as joined:
        with pytest.raises(DivergedError) as caught:
            {"sft": tune, "ppo": reinforce}[algo](folder, joined)
        (folder / f"said-{joined.rank}.txt").write_text(str(caught.value))
