from __future__ import annotations

import dataclasses
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from demonstrations import tiny_config
from fake_lanes import FakeLanes
from torch import distributed

from vlaser_gym.agents.vlaser.agent import load_agent, nano_processor
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.shipped import SHIPPED
from vlaser_gym.agents.vlaser.trainable import TrainableVlaser
from vlaser_gym.cli import group_config, typed
from vlaser_gym.errors import DivergedError, InvalidConfigError, StorageError, UnknownNameError
from vlaser_gym.settings.algorithms import DENSITIES, LIKELIHOODS, PpoSettings
from vlaser_gym.training.distributed import ProcessGroup
from vlaser_gym.training.environments import LearningEnv
from vlaser_gym.training.job import Job
from vlaser_gym.training.metrics import MetricLogger, read_metrics
from vlaser_gym.training.ppo import PPO
from vlaser_gym.training.rollout import Rollout
from vlaser_gym.training.seeds import seed_of
from vlaser_gym.training.trainer import RunOptions, trained

SETTINGS = dataclasses.replace(
    typed(PpoSettings, group_config("algo", "ppo")),
    iterations=2,
    n_steps=6,
    batch_size=12,
    micro_batch=8,
    epochs=2,
    learning_rate=1e-3,
    density="flow_sde",
    flow_steps=3,
    critic_warmup=0,
    warmup=0,
    target_kl=None,
)


def trainable(config: VlaserConfig, settings: PpoSettings, seed: int, policy_seed: int = 1) -> TrainableVlaser:
    """As :meth:`Job.vlaser` makes it."""
    job = Job(SimpleNamespace(seed=seed), settings, "", Path(), ProcessGroup())
    return job.vlaser(VlaserPolicy.initialise(config, policy_seed), nano_processor(config))


def make(path, config=None, envs=4, seed=3, policy_seed=1, group=None, evaluate=None, every=0, **changes) -> PPO:
    torch.set_num_threads(1)
    config = config or tiny_config()
    settings = dataclasses.replace(SETTINGS, **changes)
    agent = trainable(config, settings, seed, policy_seed)
    env = LearningEnv(FakeLanes(envs), agent, settings.gamma)
    group = group or ProcessGroup()
    options = RunOptions(seed, group, settings.save_every, evaluate=evaluate, evaluate_every=every)
    return PPO(agent, env, settings, path, options)


def weights(trainer: PPO) -> dict[str, torch.Tensor]:
    named = dict(trainer.agent.named_parameters())
    if trainer.critic is not None:
        named |= {f"value_head.{name}": value for name, value in trainer.critic.named_parameters()}
    return {name: value.detach().clone() for name, value in named.items()}


def spoil(trainer: PPO, iteration: int) -> None:
    """The first advantage of one iteration is not a number."""
    recompute = trainer.recompute_log_probs

    def spoiled(rollout):
        if trainer.done == iteration:
            rollout.advantages[0, 0] = math.nan
        return recompute(rollout)

    trainer.recompute_log_probs = spoiled


def collected(trainer: PPO) -> Rollout:
    """A rollout with its advantages, and no update."""
    rollout = trainer.collect()
    trainer.estimate(rollout)
    return rollout


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Curves are drawn in seconds, and tested elsewhere."""
    monkeypatch.setattr("vlaser_gym.training.metrics.draw_curves", lambda *_: None)


# ---------------------------------------------------------------------- ratios


LEVELS_OF_DENSITIES = [
    (density, flow_steps, likelihood)
    for density in DENSITIES
    for flow_steps in (1, 4, 10)
    for likelihood in (LIKELIHOODS if flow_steps == 4 else ("chain",))
    if (density, flow_steps) != ("flow_cps", 1)
]


@pytest.mark.parametrize(("density", "flow_steps", "likelihood"), LEVELS_OF_DENSITIES)
def test_ratio_is_one_before_the_first_update(tmp_path, density, flow_steps, likelihood):
    """Rollout and update of nano, fp32; half of the prefixes kept, half encoded again."""
    config, changes = VlaserConfig.preset("nano"), {"density": density, "likelihood": likelihood}
    trainer = make(tmp_path, config, **changes, flow_steps=flow_steps, n_steps=3, cache_mb=0)
    trainer.cache.budget = 6 * config.layers * 2 * config.kv_heads * config.head_dim * 4 * 72 + 6 * 8
    rollout = collected(trainer)
    assert trainer.cache.capacity == 6
    sampled = rollout.log_probs.copy()
    trainer.recompute_log_probs(rollout)
    # What sampling computed step by step is the same but for rounding.
    np.testing.assert_allclose(rollout.log_probs, sampled, rtol=0, atol=1e-4)
    assert trainer.accumulate(rollout, np.arange(12))["ratio_error"] < 1e-5
    with torch.no_grad():
        trainer.agent.policy.action_decoder.bias.add_(1e-3)
    assert trainer.accumulate(rollout, np.arange(12))["ratio_error"] > 1e-4


def test_chains_are_stored_as_drawn_and_executed_clamped(tmp_path):
    trainer = make(tmp_path)
    with torch.no_grad():
        trainer.agent.policy.action_decoder.bias.fill_(3.0)
    chains = collected(trainer).latent["chain"]
    assert chains.shape == (6, 4, 4, 4, 7)
    assert (chains[:, :, -1] > 1).mean() > 0.9
    executed = np.stack(trainer.env.env.unwrapped.actions[:6])
    expected = trainer.agent.processor.arm_actions(np.clip(chains[:, :, -1].astype(np.float64), -1, 1))[..., :4, :]
    np.testing.assert_allclose(executed[..., :6], expected[..., :6], atol=1e-12)
    np.testing.assert_array_equal(executed[..., 6], np.where(expected[..., 6] > 0.5, 1.0, -1.0))


def test_the_checkpoint_acts_as_it_was_trained(tmp_path):
    """Flow steps of the rollouts and executed steps: environments, evaluations on the way and the checkpoint agree."""
    seen = []
    evaluate = lambda agent: seen.append(agent.policy.config.num_flow_steps) or {"success/mean": 0.0}  # noqa: E731
    config = tiny_config(act_steps=2)
    steps = config.num_flow_steps + 4
    trainer = make(tmp_path, config, iterations=1, flow_steps=steps, evaluate=evaluate, every=1)
    trainer.run()
    agent = load_agent(str(tmp_path / "checkpoint"))
    assert agent.decide.num_steps == trainer.agent.density.num_steps == steps
    assert set(seen) == {steps}
    assert agent.act_steps == trainer.agent.act_steps == trainer.env.env.unwrapped.actions[0].shape[1] == 2


# ---------------------------------------------------------------------- rollout


def test_a_rollout_has_ragged_discounts_and_final_values(tmp_path):
    """Episodes of 6 control steps in chunks of 4: truncation after 2 steps, success after any number."""
    trainer = make(tmp_path, n_steps=12, batch_size=24)
    torch.nn.init.normal_(trainer.critic.last.weight)
    seen = []
    step = trainer.env.env.step
    trainer.env.env.step = lambda actions: seen.append(step(actions)) or seen[-1]
    rollout = collected(trainer)
    assert len(seen) == 12
    kinds = set()
    for t, (_, rewards, terminated, truncated, info) in enumerate(seen):
        for i in range(4):
            assert rollout.discounts[t, i] == pytest.approx(trainer.settings.gamma ** info["steps"][i])
            assert rollout.dones[t, i] == (terminated[i] or truncated[i])
            assert rollout.rewards[t, i] == np.float32(rewards[i])  # nothing was added by the loop
            cut = bool(truncated[i] and not terminated[i])
            kinds.add((cut, int(info["steps"][i])))
            if not cut:
                assert rollout.final_values[t, i] == 0
                continue
            last = {k: (v,) if isinstance(v, str) else v[None] for k, v in info["final_obs"][i].items()}
            inputs = {k: torch.from_numpy(v) for k, v in trainer.agent.transform(last).items()}
            with torch.no_grad():
                features = trainer.agent.value_features(trainer.agent.encode(inputs), inputs)
                value = float(trainer.critic(features))
            assert value != 0
            assert rollout.final_values[t, i] == pytest.approx(value, abs=1e-5)
    assert (True, 2) in kinds
    assert len({steps for _, steps in kinds}) > 2
    assert rollout.final_values[~rollout.dones].any() == False  # noqa: E712
    t, i = np.argwhere(~rollout.dones[:-1])[0]
    delta = rollout.rewards[t, i] + rollout.discounts[t, i] * rollout.values[t + 1, i] - rollout.values[t, i]
    raw = rollout.returns - rollout.values
    following = rollout.discounts[t, i] * trainer.settings.gae_lambda * raw[t + 1, i]
    assert raw[t, i] == pytest.approx(delta + following, abs=1e-6)
    normalised = (raw - raw.mean()) / (raw.std(ddof=1) + 1e-8)
    np.testing.assert_allclose(rollout.advantages, normalised, atol=1e-12)


# ---------------------------------------------------------------------- gradients


def test_policy_gradient_is_that_of_finite_differences(tmp_path, monkeypatch):
    """Along random directions in the actor's parameters, in float64, for a density whose noise is learned too."""
    trainer = make(tmp_path, density="flow_noise", entropy=0.01)
    batch = next(batch for _, batch in collected(trainer).batches(np.arange(8), 8, trainer.agent))

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
    # The critic reads the actor's features, but its loss is none of the actor's.
    monkeypatch.setattr("vlaser_gym.training.ppo.VALUE_WEIGHT", 0.0)
    loss = trainer.loss(batch)[0]
    parameters = trained(trainer.agent)
    gradient = torch.autograd.grad(loss, parameters)
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

    numeric = (moved(1e-6) - moved(-1e-6)) / 2e-6
    assert abs(analytic) > 1e-3
    assert numeric == pytest.approx(analytic, rel=1e-4)


@pytest.mark.parametrize("density", DENSITIES)
def test_what_pays_becomes_more_frequent(tmp_path, density):
    """Advantage: how far a chain's actions go up. The same random numbers then lead further up."""
    trainer = make(tmp_path, envs=16, density=density, n_steps=4, batch_size=64, micro_batch=64)
    rollout = collected(trainer)

    def up(chains):
        return chains[..., -1, :, 2].mean(-1)

    first = up(rollout.latent["chain"])
    rollout.advantages = first - first.mean()
    for _ in range(8):
        trainer.take_step(trainer.accumulate(rollout, np.arange(64)))
    inputs = {name: torch.from_numpy(values[0]) for name, values in rollout.inputs.items()}
    draws = trainer.agent.draw(16, torch.Generator().manual_seed(seed_of(3, 0, 0)))
    with torch.no_grad():
        sample = trainer.agent.sample(trainer.agent.encode(inputs), inputs, draws)
    assert float(sample.chunk[..., 2].mean()) > float(first[0].mean()) + 0.02


def test_kept_prefixes_and_encoding_again_train_alike(tmp_path):
    """Three optimizer steps with cached keys and values, against the same with none."""
    after = []
    for name, megabytes in (("kept", 100), ("again", 0)):
        trainer = make(tmp_path / name, cache_mb=megabytes)
        rollout = collected(trainer)
        assert (trainer.cache.capacity > 0) == (megabytes > 0)
        before = weights(trainer)
        trainer.set_learning_rates()
        for rows in (np.arange(0, 12), np.arange(12, 24), np.arange(6, 18)):
            trainer.take_step(trainer.accumulate(rollout, rows))
        after.append(weights(trainer))
    kept, again = after
    for name, value in kept.items():
        assert (value - again[name]).abs().max() < 1e-5, name
    assert max((kept[name] - before[name]).abs().max() for name in kept) > 1e-3


def test_micro_batches_give_the_gradient_of_the_whole(tmp_path):
    gradients = []
    for size in (3, 12):
        trainer = make(tmp_path / str(size), micro_batch=size)
        trainer.accumulate(collected(trainer), np.arange(12))
        gradients.append([p.grad.clone() for p in trained(trainer.agent) if p.grad is not None])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


# ---------------------------------------------------------------------- adapters


@pytest.mark.slow
def test_adapters_learn_alone_and_go_on(tmp_path):
    """LoRA on the expert: prefixes are kept, the stored policy has the adapters added in, a resumed run is exact."""
    whole = make(tmp_path / "whole", lora=2, pull=0.1)
    before = weights(whole)
    assert whole.run()
    assert whole.cache.capacity > 0
    changed = {name for name, value in weights(whole).items() if not torch.equal(before[name], value)}
    assert changed
    assert all(".lora_" in name or name.startswith("value_head.") for name in changed)
    first = make(tmp_path / "parts", lora=2, pull=0.1)
    assert not first.run(lambda: first.done == 1)
    second = make(tmp_path / "parts", lora=2, pull=0.1)
    assert second.run()
    a, b = weights(whole), weights(second)
    assert all(torch.equal(a[name], b[name]) for name in a)
    batch = next(batch for _, batch in collected(whole).batches(np.arange(8), 8, whole.agent))
    stored = load_agent(str(tmp_path / "whole/checkpoint")).policy
    velocities = []
    for policy in (whole.agent.policy, stored, VlaserPolicy.initialise(tiny_config(), 1)):
        with torch.no_grad():
            prefix = policy.encode_proprio(batch.encoding, batch.inputs["proprio"])
            velocities.append(policy.velocity(prefix, batch.latent["chain"][:, 1], torch.full((8,), 1 / 3)))
    torch.testing.assert_close(velocities[0], velocities[1], rtol=0, atol=1e-5)
    assert (velocities[0] - velocities[2]).abs().max() > 1e-3


def test_adapters_on_language_leave_nothing_to_keep(tmp_path):
    trainer = make(tmp_path, iterations=1, lora=2, freeze=["vision", "embedding"])
    before = weights(trainer)
    trainer.run()
    assert trainer.cache.capacity == 0
    changed = {name.split(".")[1] for name, v in weights(trainer).items() if not torch.equal(before[name], v)}
    assert {"language", "expert"} <= changed
    assert not changed & {"vision", "embed_tokens"}


def test_with_adapters_an_embedding_that_is_not_frozen_stays(tmp_path):
    trainer = make(tmp_path, iterations=1, lora=2, freeze=["vision", "language"])
    assert all(".lora_" in name for name in trainer.weights() if name.startswith("policy."))
    trainer.run()
    assert trainer.cache.capacity > 0, "keys and values do not change"


# ---------------------------------------------------------------------- the update


def test_frozen_parts_and_warm_up(tmp_path):
    trainer = make(tmp_path, iterations=1, critic_warmup=1)
    before = weights(trainer)
    trainer.run()
    after = weights(trainer)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("value_head.") for name in changed)
    trainer = make(tmp_path / "b", iterations=1)
    before = weights(trainer)
    trainer.run()
    after = weights(trainer)
    changed = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    assert {"expert", "action_decoder"} <= changed
    assert not changed & {"vision", "projector", "language", "embed_tokens"}


def test_the_critic_does_not_shape_the_actor(tmp_path):
    trainer = make(tmp_path)
    torch.nn.init.normal_(trainer.critic.last.weight)
    rollout = collected(trainer)
    rollout.advantages = np.zeros((6, 4))
    trainer.accumulate(rollout, np.arange(12))
    assert all(p.grad is None or not p.grad.any() for p in trained(trainer.agent))
    assert all(p.grad.any() for p in trained(trainer.critic))


def test_vision_and_language_can_be_trained(tmp_path):
    """Nothing is kept then: keys and values change with every step."""
    trainer = make(tmp_path, iterations=1, freeze=[])
    before = weights(trainer)
    trainer.run()
    assert trainer.cache.capacity == 0
    changed = {n.split(".")[1] for n, v in weights(trainer).items() if not torch.equal(before[n], v)}
    assert {"vision", "projector", "language", "embed_tokens", "expert"} <= changed


def test_bf16_products_train_fp32_weights(tmp_path):
    trainer = make(tmp_path, iterations=1, precision="bfloat16")
    rollout = collected(trainer)
    assert trainer.cache.rows(np.arange(2), "cpu").cache[-1][1].dtype == torch.bfloat16
    drawn = rollout.log_probs.copy()
    trainer.recompute_log_probs(rollout)
    assert np.abs(rollout.log_probs - drawn).max() > 1e-3  # why they are taken again
    assert trainer.accumulate(rollout, np.arange(12))["ratio_error"] < 1e-5
    assert all(p.grad.dtype == torch.float32 for p in trained(trainer.agent) if p.grad is not None)


def test_an_update_stops_at_the_divergence(tmp_path):
    trainer = make(tmp_path, iterations=1, epochs=5, learning_rate=3e-2, target_kl=1e-3)
    trainer.metrics = MetricLogger(tmp_path)
    trainer.step()
    assert 1 < read_metrics(tmp_path / "metrics.jsonl")[-1]["train/updates"] < 10


@pytest.mark.slow
def test_pull_keeps_the_policy_near_its_start(tmp_path):
    distances = []
    for name, pull in (("free", 0.0), ("pulled", 1000.0)):
        trainer = make(tmp_path / name, iterations=2, pull=pull, epochs=4)
        before = weights(trainer)
        trainer.run()
        batch = next(batch for _, batch in collected(trainer).batches(np.arange(8), 8, trainer.agent))
        start, moved = VlaserPolicy.initialise(tiny_config(), 1), trainer.agent.policy
        with torch.no_grad():
            new, old = (
                policy.velocity(
                    policy.encode_proprio(batch.encoding, batch.inputs["proprio"]),
                    batch.latent["chain"][:, 1],
                    torch.full((8,), 1 / 3),
                )
                for policy in (moved, start)
            )
        assert any(not torch.equal(before[n], v) for n, v in weights(trainer).items() if n.startswith("policy."))
        distances.append(float((new - old).square().mean()))
    assert distances[1] < 0.5 * distances[0]


def test_pull_needs_the_encoders_of_the_start(tmp_path):
    """The first policy would be asked about keys and values that it never made."""
    for changes in ({"freeze": []}, {"freeze": ["vision", "embedding"], "lora": 2}):
        with pytest.raises(InvalidConfigError, match=r"algo\.pull=0\.1 needs vision, embedding and language"):
            make(tmp_path, pull=0.1, **changes)


def test_learning_rates_follow_the_schedule(tmp_path):
    trainer = make(tmp_path, iterations=4, schedule="linear", learning_rate=1e-3, critic_learning_rate=1e-2)
    trainer.run()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["train/learning_rate"] for row in rows] == pytest.approx([7.5e-4, 5e-4, 2.5e-4, 0])
    assert [row["train/critic_learning_rate"] for row in rows] == pytest.approx([7.5e-3, 5e-3, 2.5e-3, 0])


def test_the_actors_rate_rises_behind_the_critics_start(tmp_path):
    make(tmp_path, iterations=5, critic_warmup=1, warmup=3, learning_rate=3e-4).run()
    rates = [row["train/learning_rate"] for row in read_metrics(tmp_path / "metrics.jsonl")]
    assert rates[1:] == pytest.approx([1e-4, 2e-4, 3e-4, 3e-4])


# ---------------------------------------------------------------------- going on


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    whole = make(tmp_path / "whole", iterations=4)
    assert whole.run()
    first = make(tmp_path / "parts", iterations=4)
    assert not first.run(lambda: first.done == 2)
    second = make(tmp_path / "parts", iterations=4, policy_seed=1)
    assert second.done == 2
    assert second.run()
    a, b = weights(whole), weights(second)
    assert all(torch.equal(a[name], b[name]) for name in a)
    rows = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts")]
    assert [r["step"] for r in rows[0]] == [r["step"] for r in rows[1]] == [24, 48, 72, 96]
    for one, other in zip(*rows, strict=True):
        assert {k: v for k, v in one.items() if "time" not in k} == {k: v for k, v in other.items() if "time" not in k}
    assert rows[0][0]["rollout/reward"] > 0


def test_episodes_that_go_on_need_their_environments(tmp_path):
    make(tmp_path, iterations=2, envs=4).run(lambda: True)
    make(tmp_path, envs=6)  # nothing has begun
    first = make(tmp_path, iterations=2, envs=4)
    first.run(lambda: first.done == 1)
    with pytest.raises(InvalidConfigError, match=r"in 4 environments, .* continue it with num_envs=4, not 6\.$"):
        make(tmp_path, envs=6)


def test_a_failing_evaluation_costs_no_training_and_is_made_up_for(tmp_path):
    def fail(policy):
        raise StorageError("no images here")

    with pytest.raises(StorageError, match="no images"):
        make(tmp_path, evaluate=fail, every=1).run()
    scored = []

    def score(policy):
        scored.append(trainer.done)
        return {"success/mean": 1.0}

    for _ in range(2):
        trainer = make(tmp_path, evaluate=score, every=1)
        assert trainer.done == (2 if scored else 1)
        assert trainer.run()
    assert scored == [1, 2]
    (tmp_path / "trainer.pt").write_bytes(b"PK")
    with pytest.raises(StorageError, match=r"trainer\.pt should hold"):
        make(tmp_path)


def test_numbers_are_those_of_all_processes(tmp_path, monkeypatch):
    """A second process that is a copy of this one, but whose rewards are 1 and whose episodes all succeed."""
    monkeypatch.setattr(distributed, "all_reduce", lambda value: None)
    monkeypatch.setattr(ProcessGroup, "barrier", lambda self: None)
    monkeypatch.setattr(ProcessGroup, "broadcast", lambda self, value: value)
    monkeypatch.setattr(ProcessGroup, "sum_gradients", lambda self, parameters: None)

    def gather(self, value):
        if isinstance(value, tuple):
            (values, returns, rewards, dones), successes = value
            return [value, ((values, returns, np.ones_like(rewards), dones), [True] * 3 * len(successes))]
        return [value] if isinstance(value, np.ndarray) else [value, value]

    monkeypatch.setattr(ProcessGroup, "gather", gather)
    trainer = make(tmp_path, iterations=1, group=ProcessGroup(0, 2))
    collect, seen = trainer.collect, []
    trainer.collect = lambda: seen.append(collect()) or seen[-1]
    trainer.run()
    row = read_metrics(tmp_path / "metrics.jsonl")[-1]
    (rollout,), successes = seen, list(trainer.successes)
    assert row["step"] == 2 * 6 * 4
    assert row["rollout/reward"] == pytest.approx((rollout.rewards.mean() + 1) / 2)
    assert row["rollout/episodes"] == 2 * rollout.dones.sum()
    assert row["rollout/success_rate"] == pytest.approx((sum(successes) + 3 * len(successes)) / (4 * len(successes)))
    assert successes == rollout.successes


def test_an_update_that_is_not_finite_changes_nothing_and_the_checkpoint_stays(tmp_path):
    first = make(tmp_path, save_every=1)
    spoil(first, iteration=1)
    before: dict[str, torch.Tensor] = {}
    recompute = first.recompute_log_probs
    first.recompute_log_probs = lambda rollout: (before.update(weights(first)), recompute(rollout))[1]
    first.minibatches = lambda rollout: iter([np.arange(12)])
    match = (
        r"^Training diverged: the policy loss of update 2 in iteration 2 is nan, .*; lower algo\.learning_rate and "
        rf"resume from the last checkpoint with run={tmp_path}\.$"
    )
    with pytest.raises(DivergedError, match=match):
        first.run()
    after = weights(first)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert load_agent(str(tmp_path / "checkpoint"))
    second = make(tmp_path)
    assert second.done == 1
    assert second.run()


@pytest.mark.parametrize("who", ["actor", "critic"])
def test_neither_steps_where_one_gradient_is_not_finite(tmp_path, who):
    trainer = make(tmp_path)
    rollout = collected(trainer)
    trainer.set_learning_rates()
    means = trainer.accumulate(rollout, np.arange(12))
    parameters = trained({"actor": trainer.agent, "critic": trainer.critic}[who])
    next(p for p in parameters if p.grad is not None).grad.fill_(math.inf)
    before = weights(trainer)
    rate = {"actor": r"algo\.learning_rate", "critic": r"algo\.critic_learning_rate"}[who]
    with pytest.raises(DivergedError, match=rf"the {who}'s gradient norm of update .* is inf, .*; lower {rate} and"):
        trainer.take_step(means)
    after = weights(trainer)
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_the_stored_policy_acts_and_the_run_keeps_its_density(tmp_path):
    trainer = make(tmp_path, iterations=1)
    trainer.run()
    with pytest.raises(InvalidConfigError, match=r"same algo\.density"):
        make(tmp_path, iterations=2, density="flow_noise")
    agent = load_agent(str(tmp_path / "checkpoint"))
    for name, value in trainer.agent.policy.state_dict().items():
        assert torch.equal(agent.policy.state_dict()[name], value), name


def test_bad_settings_are_refused(tmp_path):
    with pytest.raises(InvalidConfigError, match="multiple of algo"):
        make(tmp_path, batch_size=13)
    with pytest.raises(UnknownNameError, match="density"):
        make(tmp_path, density="flow")
    with pytest.raises(InvalidConfigError, match="n_steps"):
        make(tmp_path, n_steps=0)


# ---------------------------------------------------------------------- several processes


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_same_lanes(tmp_path):
    """Each has half of the environments; rollouts, minibatches and gradients are those of one process with all."""
    script, launch = str(Path(__file__).parent / "two_processes.py"), ["-m", "torch.distributed.run", "--standalone"]
    ends = []
    for count in (1, 2):
        path = tmp_path / str(count)
        path.mkdir()
        command = [sys.executable, *launch, f"--nproc_per_node={count}", script, str(path), "4"]
        done = subprocess.run(
            command,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        ends.append([torch.load(path / f"weights-{rank}.pt", weights_only=True) for rank in range(count)])
    (one,), (first, second) = ends
    fresh = weights(make(tmp_path / "fresh"))
    moved = 0.0
    for name, value in one.items():
        assert torch.equal(first[name], second[name]), name
        assert (first[name] - value).abs().max() < 1e-5, name
        moved = max(moved, float((value - fresh[name]).abs().max()))
    assert moved > 3e-4
    state = torch.load(tmp_path / "2/run/trainer.pt", weights_only=True)
    assert len(state["lanes"]) == 2


# ---------------------------------------------------------------------- the command

COMMAND = (
    *(
        "task=widowx_stack_cube",
        "num_envs=2",
        "threads=1",
        f"init={SHIPPED / 'nano'}",
        "algo=ppo",
        "evaluate_episodes=0",
    ),
    *("algo.n_steps=3", "algo.batch_size=6", "algo.epochs=1", "algo.critic_warmup=0", "algo.reward=subgoals"),
)


def train(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "vlaser_gym.train", *COMMAND, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_train_command_on_real_environments(tmp_path):
    process = train("algo.iterations=2", f"run={tmp_path}/run")
    output = process.communicate(timeout=900)[0]
    assert process.returncode == 0, output
    assert "Iteration 2 of 2" in output
    assert [row["step"] for row in read_metrics(tmp_path / "run/metrics.jsonl")] == [6, 12]
    assert all(row["train/first_ratio_error"] < 1e-5 for row in read_metrics(tmp_path / "run/metrics.jsonl"))
    agent = load_agent(str(tmp_path / "run/checkpoint"))
    before = load_agent(str(SHIPPED / "nano")).policy
    assert torch.equal(
        agent.policy.vision.state_dict()["embeddings.position_embedding"],
        before.vision.state_dict()["embeddings.position_embedding"],
    )


@pytest.mark.slow
def test_a_killed_run_goes_on_exactly(tmp_path):
    """SIGKILL in the middle of an iteration, on real environments."""
    options = ("algo.iterations=6", "algo.save_every=1")
    whole = train(*options, f"run={tmp_path}/whole")
    assert whole.wait(900) == 0
    killed = train(*options, f"run={tmp_path}/killed")
    metrics = tmp_path / "killed/metrics.jsonl"
    while len(read_metrics(metrics)) < 3 and killed.poll() is None:
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    state = torch.load(tmp_path / "killed/trainer.pt", weights_only=True)
    assert 2 <= state["iteration"] < 6
    assert train(*options, f"run={tmp_path}/killed").wait(900) == 0
    ends = [torch.load(Path(tmp_path) / name / "trainer.pt", weights_only=True) for name in ("whole", "killed")]
    assert ends[0]["iteration"] == ends[1]["iteration"] == 6
    for name, value in ends[0]["trained"].items():
        assert torch.equal(value, ends[1]["trained"][name]), name
