"""The files in examples/ do what they say: a policy of another family and an algorithm, from outside the package."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from demonstrations import write_set
from fabricate_episodes import CUBE, record_of
from fake_lanes import FakeLanes
from safetensors.torch import save_file

import vlaser_gym
from examples import gaussian_policy
from examples.gaussian_policy import HORIZON, SIZE, GaussianPolicy
from examples.reward_weighted_regression import RWR, RewardWeightedRegression, RwrSettings
from vlaser_gym.cli import group_config, load, typed
from vlaser_gym.commands import train as train_command
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError, MissingAssetError
from vlaser_gym.evaluation.store import RunStore
from vlaser_gym.settings.algorithms import PpoSettings
from vlaser_gym.training import algorithms
from vlaser_gym.training.environments import LearningEnv
from vlaser_gym.training.metrics import read_metrics
from vlaser_gym.training.ppo import PPO
from vlaser_gym.training.trainer import RunOptions

MAKE = "policy=examples.gaussian_policy:make"
SMALL = {
    **{"iterations": 1, "n_steps": 4, "batch_size": 16, "micro_batch": 16, "epochs": 2, "freeze": []},
    **{"critic_warmup": 0, "warmup": 0, "target_kl": None, "learning_rate": 1e-3},
}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr("vlaser_gym.training.metrics.draw_curves", lambda *_: None)


def parameters(policy: GaussianPolicy) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in policy.named_parameters()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def train(*arguments: str) -> None:
    train_command.main(load("train", [MAKE, "device=cpu", "threads=1", "evaluate_episodes=0", *arguments]))


def test_sft_trains_it_by_the_command(tmp_path: Path) -> None:
    data = write_set(tmp_path / "data", 3)
    train("algo=sft", "init=new", f"data={data}", f"run={tmp_path}/run", "algo.steps=2", "algo.batch_size=4")
    new, after = gaussian_policy.make("new"), gaussian_policy.make(str(tmp_path / "run" / "checkpoint"))
    # Imitation places the mean; nothing in it speaks of the spread.
    assert changed(parameters(new), parameters(after)) == parameters(new).keys() - {"spread"}


@pytest.mark.parametrize(("folder", "said"), [("nowhere", "does not exist"), ("other", "another kind of policy")])
def test_what_is_no_checkpoint_of_it_is_one_sentence(tmp_path: Path, folder: str, said: str) -> None:
    (tmp_path / "other").mkdir()
    save_file({"weight": torch.zeros(2)}, tmp_path / "other" / "model.safetensors")
    with pytest.raises(MissingAssetError, match=rf"{folder}/model\.safetensors .*{said}: give init=new, or the folder"):
        train("algo=ppo", f"init={tmp_path}/{folder}", f"run={tmp_path}/run")
    assert not (tmp_path / "run").exists()


def test_ppo_begins_with_a_ratio_of_one_and_changes_everything(tmp_path: Path) -> None:
    settings = dataclasses.replace(typed(PpoSettings, group_config("algo", "ppo")), **SMALL)
    policy = GaussianPolicy(1)
    before = parameters(policy)
    trainer = PPO(policy, LearningEnv(FakeLanes(8), policy, settings.gamma), settings, tmp_path, RunOptions(3))
    rollout = trainer.collect()
    # The density is a product of normal ones: recomputed from the stored chunk and the network's mean, by hand.
    inputs = {name: torch.from_numpy(values[0]) for name, values in rollout.inputs.items()}
    with torch.no_grad():
        mean = policy.decide(policy.encode(inputs), inputs).double().numpy()
    z = (rollout.latent["chunk"][0] - mean) / 0.15
    expected = (-0.5 * z**2 - np.log(0.15) - 0.5 * np.log(2 * np.pi)).sum((1, 2))
    np.testing.assert_allclose(rollout.log_probs[0], expected, atol=1e-4)
    trainer.estimate(rollout)
    assert trainer.accumulate(rollout, np.arange(32))["ratio_error"] < 1e-5
    trainer.update(rollout)
    assert changed(before, parameters(policy)) == before.keys()
    assert trainer.accumulate(rollout, np.arange(32))["ratio_error"] > 1e-3


def write_run(path: Path) -> Path:
    """Of two layouts a success and two failures, with what the policy read and drew."""
    with RunStore(path, {"agent_settings": {}}) as store:
        for layout in (0, 1):
            for trial, outcome in enumerate([(True, 8, 4), (False, 12, 1), (False, 16, 1)]):
                rng, count = np.random.default_rng([layout, trial]), outcome[1] // HORIZON
                arrays: dict[str, Any] = {
                    "pixels": rng.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8),
                    "proprio": rng.normal(size=(count, 8)).astype(np.float32),
                    "sentence": np.zeros((count, 1), np.int64),
                    "chunk": rng.normal(size=(count, HORIZON, 7)).astype(np.float32),
                }
                address = Address(CUBE, layout=f"region:{layout}", trial=trial)
                store.add(record_of(address, outcome), None, arrays)
    return path


@pytest.mark.parametrize("loss", ["flow_dpo", "tpo"])
def test_dpo_trains_it_by_the_command(tmp_path: Path, loss: str) -> None:
    GaussianPolicy(1).save(tmp_path / "start")
    where = (f"init={tmp_path}/start", f"data={write_run(tmp_path / 'data')}", f"run={tmp_path}/run")
    given = (
        "algo.rounds=0",
        f"algo.loss={loss}",
        "algo.epochs=1",
        "algo.batch_size=2",
        "log_every=1",
        "algo.freeze=[]",
    )
    train("algo=dpo", *where, *given)
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "train/preference" in row]
    # Policy and reference are the same before the first step.
    assert rows[0]["train/preference"] == pytest.approx(np.log(2), abs=1e-6)
    assert rows[0]["train/accuracy"] == 0.5
    before = parameters(GaussianPolicy(1))
    after = parameters(gaussian_policy.make(str(tmp_path / "run" / "checkpoint")))
    # The error of imitation does not look at the spread; the likelihood does.
    assert changed(before, after) >= before.keys() - {"spread"}
    assert ("spread" in changed(before, after)) == (loss == "tpo")


def test_flows_alone_are_refused_in_a_sentence(tmp_path: Path) -> None:
    GaussianPolicy(1).save(tmp_path / "start")
    where = (f"init={tmp_path}/start", f"data={write_run(tmp_path / 'data')}", f"run={tmp_path}/run")
    with pytest.raises(InvalidConfigError, match="GaussianPolicy is no flow"):
        train("algo=nft", *where, "algo.rounds=0", "algo.freeze=[]")


def test_it_is_scored_and_trained_in_the_real_environments(tmp_path: Path) -> None:
    GaussianPolicy(1).save(tmp_path / "start")
    task = "widowx_stack_cube"
    agent = {"_target_": "examples.gaussian_policy.agent", "checkpoint": str(tmp_path / "start")}
    scored = vlaser_gym.evaluate(agent, task=task, episodes=1, video=0, report=False, run=tmp_path / "eval")
    assert scored.records[0]["agent"] == "examples.gaussian_policy.agent"
    assert scored.records[0]["steps"] == 60
    algo = {"name": "ppo", **SMALL, "n_steps": 2, "batch_size": 4, "flow_steps": None}
    found = vlaser_gym.train(
        algo,
        tmp_path / "start",
        policy="examples.gaussian_policy:make",
        task=task,
        num_envs=2,
        threads=1,
        device="cpu",
        evaluate_episodes=0,
        run=tmp_path / "run",
    )
    assert found.metrics["train/first_ratio_error"] < 1e-5
    gaussian_policy.make(str(found.checkpoint))


# ---------------------------------------------------------------------- an algorithm of one's own


def rwr_settings(**changes: Any) -> RwrSettings:
    stock = vars(typed(PpoSettings, group_config("algo", "ppo")))
    return RwrSettings(**{**stock, **SMALL, "name": "rwr", **changes})


def upwards(policy: GaussianPolicy) -> float:
    """Mean of the upward action that the policy means, in observations of its own."""
    lanes = FakeLanes(16)
    observation, _ = lanes.reset(seed=99)
    inputs = {name: torch.from_numpy(values) for name, values in policy.transform(observation).items()}
    with torch.no_grad():
        return float(policy.decide(policy.encode(inputs), inputs)[..., 2].mean())


def test_reward_weighted_regression_learns_what_pays(tmp_path: Path) -> None:
    """On the fake environments going up makes success more frequent."""
    settings = rwr_settings(iterations=5, n_steps=8, batch_size=64, micro_batch=64, learning_rate=3e-3, gamma=0.9)
    policy = GaussianPolicy(1)
    with torch.no_grad():
        policy.spread.fill_(0.0)
    before = upwards(policy)
    env = LearningEnv(FakeLanes(16), policy, settings.gamma)
    trainer = RewardWeightedRegression(policy, env, settings, tmp_path, RunOptions(3, save_every=100))
    assert trainer.run()
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if "rollout/reward" in row]
    rewards = [row["rollout/reward"] for row in rows]
    assert upwards(policy) > before + 0.2
    assert np.mean(rewards[-2:]) > np.mean(rewards[:2])


def test_its_weights_are_those_of_the_formula(tmp_path: Path) -> None:
    """The gradient with respect to the spread, by hand: sum of w (1 - z^2) / numbers for a normal density."""
    settings = rwr_settings(temperature=0.5)
    policy = GaussianPolicy(1)
    env = LearningEnv(FakeLanes(4), policy, settings.gamma)
    trainer = RewardWeightedRegression(policy, env, settings, tmp_path, RunOptions(3))
    rollout = trainer.collect()
    trainer.estimate(rollout)
    trainer.accumulate(rollout, np.arange(16))
    returns = np.zeros((4, 4))
    later = np.zeros(4)
    for t in reversed(range(4)):
        later = rollout.rewards[t] + rollout.discounts[t] * ~rollout.dones[t] * later
        returns[t] = later
    weights = np.exp((returns - returns.mean()) / returns.std() / 0.5)
    z = np.zeros((4, 4, HORIZON, 7))
    for t in range(4):
        inputs = {name: torch.from_numpy(values[t]) for name, values in rollout.inputs.items()}
        with torch.no_grad():
            z[t] = (rollout.latent["chunk"][t] - policy.decide(policy.encode(inputs), inputs).numpy()) / 0.15
    expected = (weights[..., None, None] * (1 - z**2)).mean((0, 1)) / (HORIZON * 7)
    np.testing.assert_allclose(policy.spread.grad.numpy(), expected, atol=1e-4)


def test_it_is_known_to_the_command_once_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(algorithms, "ALGORITHMS", dict(algorithms.ALGORITHMS))
    vlaser_gym.register_algorithm("rwr", RWR)
    GaussianPolicy(1).save(tmp_path / "start")
    algo = {**vars(rwr_settings(n_steps=2, batch_size=4)), "noise_bounds": [0.05, 0.2]}
    config = load(
        "train",
        [MAKE, f"init={tmp_path}/start", "task=widowx_stack_cube", "num_envs=2", "threads=1", "evaluate_episodes=0"],
    )
    config.algo, config.run = algo, str(tmp_path / "run")
    train_command.main(config)
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["algo"]["temperature"] == 1.0
    assert (tmp_path / "run" / "checkpoint" / "model.safetensors").is_file()
