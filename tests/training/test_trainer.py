"""Updates that are not finite; what the trainers do then stands with their tests."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_ppo import make
from torch import nn

from vlaser_gym.errors import DivergedError


def test_gradients_are_scaled_to_their_common_norm(tmp_path):
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    trainer = make(tmp_path)
    trainer.clip_gradients(parameters, 1.0, "step 7", "algo.learning_rate", {})
    torch.testing.assert_close(parameters[0].grad, torch.tensor([0.6, 0.0]))
    torch.testing.assert_close(parameters[1].grad, torch.tensor([0.8]))
    trainer.clip_gradients(parameters, math.inf, "step 7", "algo.learning_rate", {})
    torch.testing.assert_close(parameters[1].grad, torch.tensor([0.8]))
    trainer.clip_gradients([], 1.0, "step 7", "algo.learning_rate", {})


@pytest.mark.parametrize(("value", "said"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_the_first_number_that_is_not_finite_is_named(tmp_path, value, said):
    trainer = make(tmp_path / "mine")
    losses = {"loss": torch.tensor(1e30), "value loss": torch.tensor(value)}
    with pytest.raises(DivergedError) as caught:
        trainer.clip_gradients([], 1.0, "step 7", "algo.learning_rate", losses)
    assert str(caught.value) == (
        f"Training diverged: the value loss of step 7 is {said}, and the weights stay as they were before it; lower "
        f"algo.learning_rate and resume from the last checkpoint with run={tmp_path / 'mine'}."
    )
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.tensor([value])
    with pytest.raises(DivergedError, match="the critic's gradient norm of step 7 is"):
        trainer.clip_gradients([parameter], 1.0, "step 7", "algo.learning_rate", {}, "critic's ")


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["sft", "ppo"])
def test_all_processes_stop_together(tmp_path, algo):
    """The second one's share of the batch is spoiled; a process that went on alone would wait for the others."""
    script = str(Path(__file__).parent / "two_processes_diverging.py")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([*launch, script, algo, str(tmp_path)], env=environment, timeout=600, check=True)
    first, second = ((tmp_path / f"said-{rank}.txt").read_text() for rank in range(2))
    assert first == second
    assert first.startswith("Training diverged: the ")
