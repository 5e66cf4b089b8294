from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_grpo import make as make_grpo
from test_ppo import collected, make, no_pictures  # noqa: F401  (a fixture)

from vlaser_gym.agents.trainable import Likelihood
from vlaser_gym.agents.vlaser.agent import load_agent
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.settings.algorithms import LIKELIHOODS
from vlaser_gym.training.likelihood import check_level, log_ratios
from vlaser_gym.training.trainer import trained


def judged(trainer, rollout, move=0.02):
    """A batch whose likelihoods were taken before the policy moved, and what the policy thinks after."""
    trainer.recompute_log_probs(rollout)
    batch = next(batch for _, batch in rollout.batches(np.arange(12), 12, trainer.agent))
    with torch.no_grad():
        trainer.agent.policy.action_decoder.bias.add_(move)
        found = trainer.agent.log_prob(batch.encoding, batch.inputs, batch.latent, with_value=False)
    return batch, found


def normal_log_prob(chain, moments, steps):
    """By torch's own, of each number: ``[B, S, H, A]``."""
    row = torch.arange(len(chain))[:, None]
    return torch.distributions.Normal(moments.mean, moments.std).log_prob(chain[row, steps + 1].double())


@pytest.mark.parametrize("level", LIKELIHOODS)
def test_a_level_is_what_it_says(tmp_path, level):
    """From every number's log-probability by torch's Normal, before and after the policy moved."""
    trainer = make(tmp_path, flow_steps=4)
    rollout = collected(trainer)
    assert not rollout.executed.all()  # some episodes end inside a chunk
    trainer.recompute_log_probs(rollout)
    batch = next(batch for _, batch in rollout.batches(np.arange(12), 12, trainer.agent))
    numbers = []
    with torch.no_grad():
        for _ in range(2):
            prefix = trainer.agent.policy.encode_proprio(batch.encoding, batch.inputs["proprio"])
            chain, steps = batch.latent["chain"], batch.latent["stochastic"]
            field = lambda x, t: (trainer.agent.policy.velocity(prefix, x, t), None)  # noqa: B023, E731
            moments = trainer.agent.density.moments(field, chain[:, :-1], steps)
            numbers.append(normal_log_prob(chain, moments, steps))
            found = trainer.agent.log_prob(batch.encoding, batch.inputs, batch.latent, with_value=False)
            trainer.agent.policy.action_decoder.bias.add_(0.02)
    change = numbers[1] - numbers[0]
    trainer.agent.policy.action_decoder.bias.data.sub_(0.02)
    ratios, share = log_ratios(level, found, batch)
    ran = batch.executed.double()
    for b in range(12):
        per_action = [float(change[b, :, h].sum()) / 4 for h in range(4)]
        expected = {
            "chain": [float(change[b].sum())],
            "chunk": [sum(per_action[h] for h in range(4) if ran[b, h])],
            "action": [per_action[h] if ran[b, h] else 0.0 for h in range(4)],
        }[level]
        # Log-probabilities of the rollout were taken before the policy moved, in one pass: equal but for rounding.
        assert ratios[b].tolist() == pytest.approx(expected, abs=2e-3)
        weights = [float(ran[b, h] / ran[b].sum()) for h in range(4)] if level == "action" else [1.0]
        assert share[b].tolist() == pytest.approx(weights)


def test_ppo_clips_and_measures_on_the_level(tmp_path):
    """Loss, clip fraction and divergence by hand, action by action, with a dual clip and a clipped critic."""
    changes = {"likelihood": "action", "dual_clip": 1.25, "value_clip": 0.1, "noise_level": 0.2}
    trainer = make(tmp_path, **changes)
    torch.nn.init.normal_(trainer.critic.last.weight)
    rollout = collected(trainer)
    batch, found = judged(trainer, rollout, 0.1)
    torch.nn.init.normal_(trainer.critic.last.weight)
    _, terms = trainer.loss(batch)
    ratios, share = log_ratios("action", found, batch)
    surrogate = clipped = divergence = 0.0
    dual = 0
    for b in range(12):
        advantage = float(batch.advantages[b])
        for log_ratio, weight in zip(ratios[b].tolist(), share[b].tolist(), strict=True):
            ratio = math.exp(log_ratio)
            gain = min(advantage * ratio, advantage * min(max(ratio, 0.8), 1.2))
            if advantage < 0 and gain < 1.25 * advantage:
                gain, dual = 1.25 * advantage, dual + 1
            surrogate -= weight * gain
            clipped += weight * (abs(ratio - 1) > 0.2)
            divergence += weight * (ratio - 1 - log_ratio)
    assert dual > 0
    assert 0 < clipped < 12
    assert float(terms["policy_loss"]) == pytest.approx(surrogate, rel=1e-6)
    assert float(terms["clip_fraction"]) == pytest.approx(clipped)
    assert float(terms["approx_kl"]) == pytest.approx(divergence, rel=1e-6)
    with torch.no_grad():
        values = trainer.critic(trainer.agent.value_features(batch.encoding, batch.inputs))
    errors = [
        max((v - r) ** 2, (old + min(max(v - old, -0.1), 0.1) - r) ** 2)
        for v, old, r in zip(values.tolist(), batch.values.tolist(), batch.returns.tolist(), strict=True)
    ]
    assert float(terms["value_loss"]) == pytest.approx(sum(errors), rel=1e-5)
    assert any(abs(v - old) > 0.1 for v, old in zip(values.tolist(), batch.values.tolist(), strict=True))


@pytest.mark.parametrize("density", ["flow_sde", "flow_cps", "chunk_gaussian"])
@pytest.mark.parametrize("level", ["chunk", "action"])
def test_the_gradient_of_a_level_is_that_of_finite_differences(tmp_path, monkeypatch, density, level):
    """Along a random direction in the actor's parameters, in float64."""
    trainer = make(tmp_path, density=density, likelihood=level, dual_clip=3.0)
    rollout = collected(trainer)
    trainer.recompute_log_probs(rollout)
    batch = next(batch for _, batch in rollout.batches(np.arange(8), 8, trainer.agent))

    def double(value):
        return value.double() if value.is_floating_point() else value

    batch = dataclasses.replace(
        batch,
        encoding=batch.encoding.map(double),
        inputs={name: double(value) for name, value in batch.inputs.items()},
        latent={name: double(value) for name, value in batch.latent.items()},
        advantages=batch.advantages.double(),
    )
    trainer.agent.double()
    monkeypatch.setattr("vlaser_gym.training.ppo.VALUE_WEIGHT", 0.0)
    parameters = trained(trainer.agent)
    gradient = torch.autograd.grad(trainer.loss(batch)[0], parameters)
    generator = torch.Generator().manual_seed(0)
    directions = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
    analytic = sum(float((g * d).sum()) for g, d in zip(gradient, directions, strict=True))

    @torch.no_grad()
    def moved(step):
        for p, d in zip(parameters, directions, strict=True):
            p.add_(d, alpha=step)
        value = float(trainer.loss(batch)[0])
        for p, d in zip(parameters, directions, strict=True):
            p.sub_(d, alpha=step)
        return value

    numeric = (moved(1e-7) - moved(-1e-7)) / 2e-7
    assert abs(analytic) > 1e-3
    assert numeric == pytest.approx(analytic, rel=1e-4)


def test_what_no_environment_ran_does_not_count(tmp_path):
    """Actions behind the end of an episode change neither ratio nor loss of the levels that know actions."""
    trainer = make(tmp_path, density="chunk_gaussian", likelihood="chunk")
    rollout = collected(trainer)
    batch, found = judged(trainer, rollout)
    cut = (~batch.executed).nonzero()
    assert len(cut)
    spoiled = found.actions.clone()
    spoiled[cut[:, 0], cut[:, 1]] += 100.0
    other = dataclasses.replace(found, actions=spoiled)
    for level in ("chunk", "action"):
        assert torch.equal(log_ratios(level, found, batch)[0], log_ratios(level, other, batch)[0])


def test_fewer_ratios_are_clipped_on_the_finer_levels(tmp_path):
    """The same movement: a product over all numbers leaves the range first."""
    fractions = {}
    for level in LIKELIHOODS:
        trainer = make(tmp_path / level, likelihood=level, flow_steps=4)
        batch, _ = judged(trainer, collected(trainer), 0.02)
        fractions[level] = float(trainer.loss(batch)[1]["clip_fraction"])
    assert fractions["chain"] > fractions["chunk"] >= fractions["action"]


def test_advantages_of_each_task_have_mean_0_and_spread_1(tmp_path):
    trainer = make(tmp_path, advantages="task")
    trainer.env.tasks = np.array(["a", "b", "a", "b"])
    rollout = trainer.collect()
    rollout.rewards[:, 1::2] += 5.0  # another task, another scale
    trainer.estimate(rollout)
    for first in (0, 1):
        mine = rollout.advantages[:, first::2]
        assert mine.mean() == pytest.approx(0, abs=1e-12)
        assert mine.std(ddof=1) == pytest.approx(1, abs=1e-6)
    raw = rollout.returns - rollout.values
    assert abs(raw[:, 1::2].mean() - raw[:, ::2].mean()) > 1


def test_groups_that_fared_alike_are_left_out_or_count_with_0(tmp_path):
    kept = make_grpo(tmp_path / "kept", filter_groups=False)
    left = make_grpo(tmp_path / "left")
    for trainer in (kept, left):
        rollout = trainer.collect()
        rollout.rewards[:] = 0.0
        trainer.estimate(rollout)
        assert not rollout.advantages.any()
        expected = np.flatnonzero(rollout.active) if trainer is kept else []
        np.testing.assert_array_equal(rollout.rows, expected)


def test_the_policy_trained_with_noise_on_chunks_acts_without(tmp_path):
    """Its checkpoint begins the flow at 0, as the rollouts' mean did: deterministic."""
    trainer = make(tmp_path, iterations=1, density="chunk_gaussian", likelihood="chunk", learning_rate=1e-7)
    assert trainer.run()
    agent = load_agent(str(tmp_path / "checkpoint"))
    assert agent.describe()["initial_noise"] == 0.0
    assert "initial_noise_of_checkpoint" not in agent.describe()
    assert trainer.agent.density.initial_noise == trainer.agent.acting().initial_noise == 0.0
    other = make(tmp_path / "other", iterations=1, density="chunk_gaussian", initial_noise=0.5)
    assert other.agent.policy.config.initial_noise == other.agent.density.initial_noise == 0.5
    assert make(tmp_path / "sde").agent.policy.config.initial_noise == 1.0


def test_bad_settings_are_refused(tmp_path):
    whole = SimpleNamespace(likelihoods=("chain",))
    with pytest.raises(InvalidConfigError, match=r"algo\.likelihood=action needs the likelihood of each action"):
        check_level("action", whole)
    with pytest.raises(UnknownNameError, match="likelihood"):
        make(tmp_path, likelihood="token")
    with pytest.raises(InvalidConfigError, match=r"algo\.chunk_noise must be two numbers above 0"):
        make(tmp_path, chunk_noise=(0.1, 0.0))
    with pytest.raises(InvalidConfigError, match=r"algo\.initial_noise"):
        make(tmp_path, initial_noise=1.5)
    assert Likelihood(torch.zeros(1), torch.zeros(1), 1, torch.zeros(1), None).actions is None
