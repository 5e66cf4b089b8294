"""Rollouts through the inference engine, against the plain loop that decides for all environments at once."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from demonstrations import tiny_config
from fake_lanes import FakeLanes

from vlaser_gym.agents.acting import PolicyAgent
from vlaser_gym.agents.inference import InferenceEngine
from vlaser_gym.agents.vlaser.agent import VlaserAgent, nano_processor
from vlaser_gym.agents.vlaser.densities import make_density
from vlaser_gym.agents.vlaser.exploration import ExploringAgent, make_exploration
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.trainable import TrainableVlaser
from vlaser_gym.cli import group_config, typed
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.settings.algorithms import DENSITIES, PpoSettings
from vlaser_gym.training.critic import ValueHead
from vlaser_gym.training.data.prefix_cache import PrefixCache
from vlaser_gym.training.environments import LearningEnv
from vlaser_gym.training.ppo import PPO
from vlaser_gym.training.rollout import Actor, collect
from vlaser_gym.training.trainer import RunOptions

T, CONFIG = 4, tiny_config()


def make_agent(density: str = "flow_sde") -> TrainableVlaser:
    torch.set_num_threads(1)
    made = make_density(density, CONFIG.num_flow_steps, width=CONFIG.expert_width, action_dim=7)
    return TrainableVlaser(VlaserPolicy.initialise(CONFIG, 1), nano_processor(CONFIG), made).eval()


def make_env(agent: TrainableVlaser, count: int) -> LearningEnv:
    env = LearningEnv(FakeLanes(count), agent, 0.99)
    env.reset(0)
    return env


def make_critic(agent: TrainableVlaser) -> ValueHead:
    critic = ValueHead(agent.value_width, seed=2)
    torch.nn.init.normal_(critic.last.weight, generator=torch.Generator().manual_seed(4))
    return critic


def draws(agent: TrainableVlaser, count: int) -> list:
    return [agent.draw(count, torch.Generator().manual_seed(step)) for step in range(T)]


def rolled_out(size: int, count: int, density: str = "flow_sde"):
    agent = make_agent(density)
    cache = PrefixCache(10**7, "cpu", T * count)
    env = make_env(agent, count)
    return collect(env, Actor(agent, make_critic(agent), size), draws(agent, count), cache), cache


@torch.no_grad()
def plainly(count: int, density: str) -> dict[str, np.ndarray]:
    """Every decision for all environments at once, written without the engine."""
    agent = make_agent(density)
    critic, env = make_critic(agent), make_env(agent, count)
    turns = []
    for drawn in draws(agent, count):
        inputs = {name: torch.from_numpy(values) for name, values in env.inputs.items()}
        encoding = agent.encode(inputs)
        sample = agent.sample(encoding, inputs, drawn, with_value=True)
        env.step(sample.chunk.numpy())
        turns.append((sample.latent["chain"], sample.log_prob, critic(sample.value_features), encoding.cache[-1][0]))
    inputs = {name: torch.from_numpy(values) for name, values in env.inputs.items()}
    last = critic(agent.value_features(agent.encode(inputs), inputs))
    chain, log_prob, values, keys = (torch.stack(part).numpy() for part in zip(*turns, strict=True))
    return {"chain": chain, "log_prob": log_prob, "values": values, "keys": keys, "last": last.numpy()}


@pytest.mark.parametrize("density", DENSITIES)
def test_rollouts_are_those_of_the_plain_loop_to_the_last_bit(density: str) -> None:
    rollout, cache = rolled_out(6, 6, density)
    expected = plainly(6, density)
    np.testing.assert_array_equal(rollout.latent["chain"], expected["chain"])
    np.testing.assert_array_equal(rollout.log_probs, expected["log_prob"])
    np.testing.assert_array_equal(rollout.values, expected["values"])
    np.testing.assert_array_equal(rollout.last_values, expected["last"])
    kept = cache.rows(np.arange(T * 6), "cpu").cache[-1][0].numpy()
    np.testing.assert_array_equal(kept, expected["keys"].reshape(kept.shape))


def test_an_environments_decisions_do_not_depend_on_the_others() -> None:
    """Of eleven environments each gets the chains that it gets among four, as every batch has eight rows."""
    many, few = rolled_out(8, 11)[0], rolled_out(8, 4)[0]
    agent = make_agent()
    drawn = draws(agent, 11)
    actor = Actor(agent, make_critic(agent), 8)
    env = make_env(agent, 4)
    mine = [{name: values[:4] for name, values in turn.items()} for turn in drawn]
    again = collect(env, actor, mine, PrefixCache(0, "cpu", T * 4))
    np.testing.assert_array_equal(again.latent["chain"], many.latent["chain"][:, :4])
    np.testing.assert_array_equal(again.log_probs, many.log_probs[:, :4])
    np.testing.assert_array_equal(again.values, many.values[:, :4])
    np.testing.assert_array_equal(again.final_values, many.final_values[:, :4])
    assert many.final_values.any()
    assert (few.latent["chain"] != again.latent["chain"]).any()  # other random numbers


def test_evaluations_explorations_and_rollouts_have_one_engine() -> None:
    agent = make_agent()
    policy, processor = agent.policy, agent.processor
    exploring = ExploringAgent(policy, processor, make_exploration("flow_sde", policy, noise_level=0.5))
    engines = [
        VlaserAgent(policy, processor).decide._deciding,
        exploring.decide._sampling,
        PolicyAgent(agent, explore=True)._engine,
        Actor(agent, None, 8).decide,
    ]
    assert {type(engine) for engine in engines} == {InferenceEngine}
    assert {engine.sizes for engine in engines} == {(8,)}


# ---------------------------------------------------------------------- the run's size


def make_ppo(path, count: int = 4, **changes) -> PPO:
    made = {"iterations": 2, "n_steps": T, "batch_size": 8, "epochs": 1, "critic_warmup": 0, **changes}
    settings = typed(PpoSettings, {**group_config("algo", "ppo"), **made})
    agent = make_agent()
    return PPO(agent, LearningEnv(FakeLanes(count), agent, settings.gamma), settings, path, RunOptions(save_every=1))


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr("vlaser_gym.training.metrics.draw_curves", lambda *_: None)


def shapes_of(trainer: PPO) -> list[int]:
    seen: list[int] = []
    compute = trainer.actor.decide.compute
    trainer.actor.decide.compute = lambda rows: seen.append(len(rows["proprio"])) or compute(rows)
    return seen


def test_a_run_keeps_its_size_when_it_goes_on(tmp_path, no_pictures) -> None:
    first = make_ppo(tmp_path, rollout_batch=3)
    assert not first.run(lambda: first.done == 1)
    assert first.settled() == {"rollout_batch": 3, "simulator": "fake 1"}
    second = make_ppo(tmp_path)  # the setting left open
    seen = shapes_of(second)
    assert second.run()
    assert seen == [3, 3] * T
    whole = make_ppo(tmp_path / "whole", rollout_batch=3)
    assert whole.run()
    for name, value in whole.weights().items():
        assert torch.equal(value, second.weights()[name]), name
    with pytest.raises(InvalidConfigError, match=r"decides in batches of 3: continue it with algo\.rollout_batch=3"):
        make_ppo(tmp_path, rollout_batch=4)


def test_runs_of_before_decided_for_all_environments_at_once(tmp_path, no_pictures) -> None:
    first = make_ppo(tmp_path, rollout_batch=3)
    first.run(lambda: first.done == 1)
    state = torch.load(tmp_path / "trainer.pt", weights_only=True)
    del state["rollout_batch"]
    torch.save(state, tmp_path / "trainer.pt")
    assert make_ppo(tmp_path).rollout_batch == 4


def test_a_policy_that_is_not_declared_recordable_is_never_recorded() -> None:
    """On a GPU; a stand-in, as nothing is computed."""

    class Unknown:
        device, recordable = SimpleNamespace(type="cuda"), False

    unknown, known = Unknown(), Unknown()
    known.recordable = TrainableVlaser.recordable
    assert [Actor(agent, None, 4).decide.record for agent in (unknown, known)] == [False, True]  # type: ignore[arg-type]
