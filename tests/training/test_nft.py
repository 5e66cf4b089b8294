from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from demonstrations import tiny_config
from fabricate_episodes import CUBE, episode_of, write_run
from test_dpo import begin, trainable

from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import normalize_pixels
from vlaser_gym.cli import group_config, typed
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.settings.algorithms import NftSettings
from vlaser_gym.training.nft import (
    NegativeAwareTrainer,
    episode_optimality,
    equal_shares,
    negative_aware_objective,
)
from vlaser_gym.training.trainer import RunOptions

SETTINGS = dataclasses.replace(typed(NftSettings, group_config("algo", "nft")), batch_size=6, micro_batch=6)


def at(layout: int, trial: int) -> Address:
    return Address(CUBE, layout=f"region:{layout}", trial=trial)


OUTCOMES = {at(k, t): o for k in (0, 1) for t, o in enumerate([(True, 8, 4), (False, 12, 1), (False, 16, 1)])}


def make(path, outcomes=OUTCOMES, log_every=50, **changes) -> NegativeAwareTrainer:
    torch.set_num_threads(1)
    settings = dataclasses.replace(SETTINGS, **changes)
    if not (path / "data").exists():
        write_run(path / "data", outcomes, tiny_config(), density=None)
    return NegativeAwareTrainer(
        trainable(tiny_config(), settings),
        lambda number, agent: [path / "data"],
        settings,
        path / "run",
        RunOptions(3, save_every=1, log_every=log_every),
    )


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Curves are drawn in seconds, and tested elsewhere."""
    monkeypatch.setattr("vlaser_gym.training.metrics.draw_curves", lambda *_: None)


def test_two_chunks_by_hand():
    """A good and a bad chunk of one number; loss, gradient, and the numbers that are logged."""
    beta, v, old, weight = 0.5, [0.3, -0.2], [0.1, 0.4], [1.5, 0.5]
    target, r = [1.0, -1.0], [0.9, 0.2]
    positive = [((1 - beta) * o + beta * x - u) ** 2 for x, o, u in zip(v, old, target, strict=True)]
    negative = [((1 + beta) * o - beta * x - u) ** 2 for x, o, u in zip(v, old, target, strict=True)]
    by_hand = sum(k * (w * p + (1 - w) * n) for k, w, p, n in zip(weight, r, positive, negative, strict=True)) / 2
    slopes = [
        k * (w * ((1 - beta) * o + beta * x - u) - (1 - w) * ((1 + beta) * o - beta * x - u)) * 2 * beta / 2
        for k, x, o, u, w in zip(weight, v, old, target, r, strict=True)
    ]

    def tensor(values, *shape):
        return torch.tensor(values, dtype=torch.float64).view(2, *shape)

    velocity = tensor(v, 1, 1, 1).requires_grad_()
    others = tensor(old, 1, 1, 1), tensor(target, 1, 1, 1), tensor(r)
    loss, means = negative_aware_objective(velocity, *others, beta, tensor(weight))
    loss.backward()
    assert loss.item() == pytest.approx(by_hand, abs=1e-12)
    assert velocity.grad.flatten().tolist() == pytest.approx(slopes, abs=1e-12)
    change = [(x - u) ** 2 - (o - u) ** 2 for x, o, u in zip(v, old, target, strict=True)]
    halves = [change[0] / 2, change[1] / 2]
    expected = (by_hand, np.mean(positive), np.mean(negative), *halves, np.mean([0.2**2, 0.6**2]), 0.5, 0.5)
    assert means.tolist() == pytest.approx(expected, abs=1e-12)


def test_changes_are_per_decision_of_their_side_whatever_the_parts(tmp_path):
    """Parts of a batch without winners, or without losers, do not count as parts whose change is 0."""
    trainer = begin(make(tmp_path))
    trainer.take_step()
    generator = torch.Generator().manual_seed(1)
    items = np.arange(trainer.items)
    parts = [trainer.losses(items[i : i + 1], generator)[1] for i in items]
    changes = [float(part[3] + part[4]) for part in parts]  # of one decision, which is on one side
    wins = [bool(part[6]) for part in parts]
    assert 0 < sum(wins) < len(wins)
    row = trainer.summarise(dict(zip(trainer.statistics, torch.stack(parts).mean(0).tolist(), strict=True)))
    sides = [[c for c, w in zip(changes, wins, strict=True) if w == side] for side in (True, False)]
    assert [row["win_error_change"], row["lose_error_change"]] == pytest.approx([np.mean(side) for side in sides])
    alone = trainer.summarise(dict(zip(trainer.statistics, parts[wins.index(True)].tolist(), strict=True)))
    assert "lose_error_change" not in alone


def test_a_run_of_an_older_version_goes_on_without_its_last_numbers(tmp_path):
    first = make(tmp_path, rounds=1, log_every=100)
    assert not first.run(lambda: first.position >= 2)
    file = tmp_path / "run/trainer.pt"
    state = torch.load(file, weights_only=True)
    torch.save({**state, "means": [means[:6] for means in state["means"]]}, file)
    second = make(tmp_path, rounds=1)
    assert second.position == 2
    assert second.run()


def test_at_the_start_good_chunks_pull_and_bad_ones_push_equally():
    old, target = torch.randn(2, 2, 2, 4, 7, dtype=torch.float64)
    gradients = []
    for r in (1.0, 0.5, 0.0):
        velocity, one = old.clone().requires_grad_(), torch.ones(2, dtype=torch.float64)
        negative_aware_objective(velocity, old, target, r * one, 1.0, one)[0].backward()
        gradients.append(velocity.grad)
    torch.testing.assert_close(gradients[0], -gradients[2])
    assert gradients[1].abs().max() < 1e-15
    assert (gradients[0] * (target - old)).sum() < 0, "downhill is towards what was done"


def test_without_failures_it_is_flow_matching_on_successes(tmp_path):
    trainer = begin(make(tmp_path, negatives=False))
    assert trainer.items == 4, "two successes of two decisions"
    rows = np.arange(4)
    loss, means = trainer.losses(rows, torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    noise, u = torch.randn(4, 4, 4, 7, generator=generator), torch.rand(16, generator=generator)
    t = (0.999 * (1 - u ** (1 / 1.5))).view(4, 4)
    decisions = trainer.memory.decisions
    batch = {
        "actions": decisions.chunk,
        "proprio": decisions.inputs["proprio"],
        "pixel_values": normalize_pixels(decisions.inputs["pixels"]),
        "input_ids": decisions.inputs["input_ids"],
    }
    with torch.no_grad():
        parts = [trainer.agent.policy.flow_loss(batch, noise[:, k], t[:, k]) for k in range(4)]
    assert loss.item() == pytest.approx(float(torch.stack(parts).mean()), rel=1e-5)
    assert means[1].item() == pytest.approx(loss.item())


def test_optimality_by_hand():
    """Rates 1/3, 1 and 0; advantages 2/3, -1/3, -1/3 and zeros."""
    wins = {0: [True, False, False], 1: [True, True], 2: [False]}
    episodes = [episode_of(at(k, t), (s, 9, 1)) for k, outcomes in wins.items() for t, s in enumerate(outcomes)]
    assert episode_optimality(episodes).tolist() == pytest.approx([1, 0.25, 0.25, 0.5, 0.5, 0.5])
    assert episode_optimality(episodes[3:]).tolist() == [0.5] * 3
    assert not len(episode_optimality([]))
    assert equal_shares(np.array([0, 2, 6])).tolist() == [1.5, 1.5, 0.75, 0.75, 0.75, 0.75]


def test_it_learns_what_paid(tmp_path):
    trainer = make(tmp_path, epochs=10, learning_rate=5e-3)
    assert trainer.run()
    start = VlaserPolicy.initialise(tiny_config(), 1)
    trainer.reference = None
    begin(trainer)
    trainer.reference.load(start.state_dict())
    _, means = trainer.losses(np.arange(trainer.items), torch.Generator().manual_seed(9))
    named = trainer.summarise(dict(zip(trainer.statistics, means.tolist(), strict=True)))
    assert named["win_error_change"] < named["lose_error_change"] - 0.01


def test_nothing_to_learn_is_explained(tmp_path):
    for name, outcomes, word in (
        ("alike", dict.fromkeys(OUTCOMES, (False, 8, 1)), "all episodes succeeded or all failed"),
        ("once", {at(k, 0): (k == 0, 8, 1) for k in range(2)}, "none of 2 episodes shares its initial state"),
    ):
        with pytest.raises(InvalidConfigError, match=word):
            make(tmp_path / name, outcomes).run()
    trainer = make(tmp_path / "alike", rounds=2)
    assert trainer.run()
    assert trainer.position == 0


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    whole = make(tmp_path / "whole", rounds=2)
    assert whole.run()
    first = make(tmp_path / "parts", rounds=2)
    assert not first.run(lambda: first.position >= 13)
    second = make(tmp_path / "parts", rounds=2)
    assert (second.done, second.position) == (1, 13)
    assert second.run()
    ends = [dict(trainer.agent.named_parameters()) for trainer in (whole, second)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
