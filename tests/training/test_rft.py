from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from demonstrations import tiny_config
from fabricate_episodes import write_run
from test_dpo import begin, trainable
from test_nft import OUTCOMES, at, no_pictures  # noqa: F401  (a fixture)

from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import normalize_pixels
from vlaser_gym.cli import group_config, typed
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.settings.algorithms import RftSettings
from vlaser_gym.training.rft import SuccessCloningTrainer
from vlaser_gym.training.trainer import RunOptions, trained

SETTINGS = dataclasses.replace(typed(RftSettings, group_config("algo", "rft")), batch_size=6, micro_batch=6)
#: Successes of 8 and 16 control steps, 2 and 4 decisions; the failure teaches nothing.
MIXED = {at(0, 0): (True, 8, 4), at(0, 1): (True, 16, 4), at(0, 2): (False, 12, 1), at(1, 0): (True, 8, 4)}


def make(path, outcomes=MIXED, **changes) -> SuccessCloningTrainer:
    torch.set_num_threads(1)
    settings = dataclasses.replace(SETTINGS, **changes)
    if not (path / "data").exists():
        write_run(path / "data", outcomes, tiny_config(), density=None)
    return SuccessCloningTrainer(
        trainable(tiny_config(), settings),
        lambda number, agent: [path / "data"],
        settings,
        path / "run",
        RunOptions(3, save_every=1),
    )


def test_only_successes_are_imitated(tmp_path):
    trainer = make(tmp_path)
    begin(trainer)
    assert trainer.items == 2 + 4 + 2
    assert trainer.reference is None
    few = make(tmp_path / "few", per_layout=1)
    begin(few)
    assert few.items == 2 + 2, "the first success of each start"


def test_the_loss_is_the_policys_flow_matching_with_equal_shares_of_episodes(tmp_path):
    trainer = make(tmp_path)
    begin(trainer)
    loss, means = trainer.losses(np.arange(8), torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    noise, u = torch.randn(8, 4, 4, 7, generator=generator), torch.rand(32, generator=generator)
    t = (0.999 * (1 - u ** (1 / 1.5))).view(8, 4)
    decisions = trainer.memory.decisions
    batch = {
        "actions": decisions.chunk,
        "proprio": decisions.inputs["proprio"],
        "pixel_values": normalize_pixels(decisions.inputs["pixels"]),
        "input_ids": decisions.inputs["input_ids"],
    }
    with torch.no_grad():
        parts = [trainer.agent.policy.flow_loss(batch, noise[:, k], t[:, k], reduction="none") for k in range(4)]
    each = torch.stack(parts).mean(0)
    episodes = [each[0:2].mean(), each[2:6].mean(), each[6:8].mean()]
    assert float(loss.detach()) == pytest.approx(float(sum(episodes)) / 3, rel=1e-5)
    assert means.tolist() == pytest.approx([float(loss.detach())])


def test_its_gradient_is_that_of_finite_differences(tmp_path):
    trainer = make(tmp_path)
    begin(trainer)
    rows = np.arange(4)
    (bias,) = [p for name, p in trainer.agent.named_parameters() if name.endswith("action_decoder.bias")]

    def value(step=0.0):
        with torch.no_grad():
            bias[2] += step
        found = trainer.losses(rows, torch.Generator().manual_seed(5))[0]
        with torch.no_grad():
            bias[2] -= step
        return found

    gradient = float(torch.autograd.grad(value(), bias)[0][2])
    numeric = float((value(1e-2) - value(-1e-2)).detach()) / 2e-2
    assert abs(gradient) > 1e-3
    assert numeric == pytest.approx(gradient, rel=1e-2)


def test_it_learns_what_succeeded(tmp_path):
    trainer = make(tmp_path, epochs=20, learning_rate=5e-3)
    begin(trainer)
    before = float(trainer.losses(np.arange(8), torch.Generator().manual_seed(9))[0].detach())
    assert trainer.run()
    begin(trainer)
    after = float(trainer.losses(np.arange(8), torch.Generator().manual_seed(9))[0].detach())
    assert after < 0.9 * before
    start = VlaserPolicy.initialise(tiny_config(), 1).state_dict()
    changed = {n.split(".")[1] for n, p in trainer.agent.named_parameters() if not torch.equal(p, start[n[7:]])}
    assert "expert" in changed
    assert not changed & {"vision", "language"}
    assert len(trained(trainer.agent)) > 0


def test_nothing_to_imitate_is_explained(tmp_path):
    failures = dict.fromkeys(OUTCOMES, (False, 8, 1))
    with pytest.raises(InvalidConfigError, match=r"Nothing to imitate in .*: none of 6 episodes succeeded"):
        make(tmp_path, failures).run()
    trainer = make(tmp_path, failures, rounds=2)
    assert trainer.run()
    assert trainer.position == 0


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    whole = make(tmp_path / "whole", rounds=2)
    assert whole.run()
    first = make(tmp_path / "parts", rounds=2)
    assert not first.run(lambda: first.position >= 9)
    second = make(tmp_path / "parts", rounds=2)
    assert (second.done, second.position) == (1, 9)
    assert second.run()
    ends = [dict(trainer.agent.named_parameters()) for trainer in (whole, second)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
