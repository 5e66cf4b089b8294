"""Run by test_scaling.py in each of several processes: fine-tunes and stores the whole weights.

Arguments: data set, run directory, steps in all, steps to take now, and what to change of settings and scaling as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from scaled import build

from vlaser_gym.training import metrics
from vlaser_gym.training.distributed import joined_processes
from vlaser_gym.training.scaling import whole

if __name__ == "__main__":
    data, path, steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    metrics.draw_curves = lambda *_: None
    with joined_processes("cpu") as group:
        trainer = build(data, path, group, **json.loads(sys.argv[4]))
        count = iter(range(1000))
        trainer.run(lambda: next(count) >= steps)
        found = whole(dict(trainer.agent.state_dict()))
        if group.is_main_process:
            torch.save(found, path / "found.pt")
