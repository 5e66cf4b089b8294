from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from demonstrations import tiny_config
from fake_lanes import FakeLanes
from gymnasium.vector import AutoresetMode
from test_ppo import collected, no_pictures, trainable, weights  # noqa: F401  (a fixture)

from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.shipped import SHIPPED
from vlaser_gym.cli import group_config, typed
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.settings.algorithms import DENSITIES, GrpoSettings
from vlaser_gym.training.advantages import group_advantages
from vlaser_gym.training.distributed import ProcessGroup
from vlaser_gym.training.environments import GroupEnv, make_learning_env
from vlaser_gym.training.grpo import GRPO
from vlaser_gym.training.metrics import read_metrics
from vlaser_gym.training.trainer import RunOptions

SETTINGS = dataclasses.replace(
    typed(GrpoSettings, group_config("algo", "grpo")),
    density="flow_sde",
    iterations=2,
    group_size=3,
    rounds=2,
    batch_size=8,
    micro_batch=8,
    epochs=2,
    learning_rate=1e-3,
    flow_steps=3,
    warmup=0,
    target_kl=None,
)


class OneByOne(FakeLanes):
    """Ended environments stand still until they are reset; seeds and options of every reset are noted."""

    def __init__(self, num_envs: int) -> None:
        super().__init__(num_envs)
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED}
        self.ended = np.ones(num_envs, bool)
        self.resets: list[tuple[np.ndarray, list[int], dict]] = []
        self.rows = [self._one(i) for i in range(num_envs)]

    def reset(self, *, seed=None, options=None):
        mask = np.asarray(options["reset_mask"])
        self.resets.append((mask.copy(), list(seed), options))
        for i in np.flatnonzero(mask):
            self.rngs[i] = np.random.default_rng(seed[i])
            self.elapsed[i], self.ended[i] = 0, False
            self.rows[i] = self._one(i)
            # The same image for the same seed; from here on, luck differs from environment to environment.
            self.rngs[i] = np.random.default_rng([seed[i], options["trial"][i]])
        return self._stack(self.rows), {}

    def step_chunk(self, actions):
        self.actions.append(actions.copy())
        N, H = actions.shape[:2]
        ran, reward = np.zeros((N, H), bool), np.zeros((N, H))
        terminated, truncated = np.zeros(N, bool), np.zeros(N, bool)
        for i in np.flatnonzero(~self.ended):
            for h in range(H):
                self.elapsed[i] += 1
                ran[i, h] = True
                reward[i, h] = terminated[i] = self.rngs[i].random() < 0.15
                truncated[i] = self.elapsed[i] >= self.max_steps
                if terminated[i] or truncated[i]:
                    break
            self.rows[i] = self._one(i)
        self.ended |= terminated | truncated
        chunk = {"ran": ran, "reward": reward, "flags": {}}
        info = {"success": terminated.copy(), "steps": ran.sum(1), "chunk": chunk}
        return self._stack(self.rows), reward.sum(1), terminated, truncated, info


def make(path, config=None, envs=6, seed=3, group=None, **changes) -> GRPO:
    torch.set_num_threads(1)
    settings = dataclasses.replace(SETTINGS, **changes)
    agent = trainable(config or tiny_config(), settings, seed)
    group = group or ProcessGroup()
    first = group.rank * envs // settings.group_size
    size, rounds = settings.group_size, settings.rounds
    env = GroupEnv(OneByOne(envs), agent, settings.gamma, tasks=["a", "b", "c"], size=size, rounds=rounds, first=first)
    return GRPO(agent, env, settings, path, RunOptions(seed, group, settings.save_every), decisions=2)


# ---------------------------------------------------------------------- advantages


def test_advantages_by_hand():
    """One success in four: mean 1/4, spread sqrt(3)/4. Groups that agree get nothing."""
    got = group_advantages([[0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0]])
    third = 1 / np.sqrt(3)
    expected = [[-third, 3 * third, -third, -third], [0, 0, 0, 0], [0, 0, 0, 0], [1, 1, -1, -1]]
    np.testing.assert_allclose(got, expected, atol=1e-15)


def test_every_decision_has_its_episode_s_advantage(tmp_path):
    """Recomputed episode by episode from what the environments reported."""
    trainer = make(tmp_path, envs=12, rounds=3)
    seen = []
    step = trainer.env.env.step
    trainer.env.env.step = lambda actions: seen.append(step(actions)) or seen[-1]
    rollout = collected(trainer)
    episodes = [[[] for _ in range(3)] for _ in range(12)]  # environment, round: numbers of its decisions
    success = np.zeros((12, 3))
    turn = [0] * 12
    for t, (_, _, terminated, truncated, info) in enumerate(seen):
        dones = terminated | truncated
        for i in range(12):
            if turn[i] == 3:
                assert not dones[i]
                continue
            episodes[i][turn[i]].append(t)
            if dones[i]:
                success[i, turn[i]] = info["success"][i]
                turn[i] += 1
    assert turn == [3] * 12
    expected = np.zeros((len(seen), 12))
    for group in range(4):
        members = range(3 * group, 3 * group + 3)
        for r in range(3):
            outcomes = [success[i, r] for i in members]
            mean, spread = sum(outcomes) / 3, np.std(outcomes)
            for i in members:
                for t in episodes[i][r]:
                    expected[t, i] = (success[i, r] - mean) / spread if spread else 0.0
    np.testing.assert_allclose(rollout.advantages, expected, atol=1e-12)
    assert rollout.active.sum() == sum(len(rows) for lane in episodes for rows in lane) < 6 * 12
    useful = np.flatnonzero(expected)
    assert 0 < len(useful) < rollout.active.sum()
    np.testing.assert_array_equal(rollout.rows, useful)
    # An update sees all of them once per epoch, and nothing else.
    parts = list(trainer.minibatches(rollout))
    assert len(parts) == 2 * max(1, round(len(useful) / 8))
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.sort(np.tile(useful, 2)))


# ---------------------------------------------------------------------- groups


def test_members_begin_alike_and_go_on_at_their_own_pace(tmp_path):
    trainer = make(tmp_path)
    rollout, lanes = collected(trainer), trainer.env.env.unwrapped
    first = rollout.inputs["pixels"][0]
    for i, j in ((0, 1), (1, 2), (3, 4)):
        np.testing.assert_array_equal(first[i], first[j])
    assert (first[0] != first[3]).any()
    chains = rollout.latent["chain"][0]
    assert (chains[0] != chains[1]).any()
    # Of each member: seeds and tasks of its episodes in order.
    runs = [[] for _ in range(6)]
    for mask, seeds, options in lanes.resets:
        for i in np.flatnonzero(mask):
            assert options["trial"][i] == i % 3
            runs[i].append((seeds[i], options["task"][i]))
    assert runs[0] == runs[1] == runs[2]
    assert runs[3] == runs[4] == runs[5]
    assert [task for _, task in runs[0] + runs[3]] == ["a", "b", "c", "a"]
    assert len({seed for seed, _ in runs[0] + runs[3]}) == 4
    lengths = rollout.active.sum(0)
    assert len(set(lengths.tolist())) > 1  # some stood still while others went on


def test_lanes_that_stand_still_take_no_place_and_change_no_shape(tmp_path):
    """Every batch has the run's one size, and only the keys and values of active environments are kept."""
    trainer = make(tmp_path)
    encoded = []
    encode = trainer.agent.encode
    trainer.agent.encode = lambda inputs: encoded.append(len(inputs["proprio"])) or encode(inputs)
    rollout = collected(trainer)
    assert rollout.active.sum(1).min() < 6
    assert encoded == [trainer.rollout_batch] * len(rollout.active) == [6] * len(rollout.active)
    assert trainer.cache._filled == rollout.active.sum() < rollout.active.size
    for rows, batch in rollout.batches(np.flatnonzero(rollout.active), 8, trainer.agent):
        step, index = np.divmod(rows, 6)
        inputs = {name: torch.from_numpy(values[step, index]) for name, values in rollout.inputs.items()}
        for kept, again in zip(batch.encoding.tensors(), encode(inputs).tensors(), strict=True):
            torch.testing.assert_close(kept[: len(rows)], again, rtol=0, atol=1e-5)


@pytest.mark.parametrize("density", DENSITIES)
def test_ratio_is_one_before_the_first_update(tmp_path, density):
    trainer = make(
        tmp_path, VlaserConfig.preset("nano"), density=density, flow_steps=4, iterations=1, learning_rate=1e-6
    )
    trainer.run()
    row = read_metrics(tmp_path / "metrics.jsonl")[-1]
    assert row["train/updates"] > 0
    assert row["train/first_ratio_error"] < 1e-5
    assert row["train/log_prob_rounding"] < 1e-4


# ---------------------------------------------------------------------- learning


def test_an_iteration_without_differences_changes_nothing(tmp_path):
    trainer = make(tmp_path, iterations=1)
    trainer.env.env.unwrapped.step_chunk = failing(trainer.env.env.unwrapped)
    before = weights(trainer)
    assert trainer.run()
    assert all(torch.equal(before[name], value) for name, value in weights(trainer).items())
    row = read_metrics(tmp_path / "metrics.jsonl")[-1]
    assert (row["rollout/useful_groups"], row["train/updates"]) == (0, 0)


def failing(lanes: OneByOne):
    step = lanes.step_chunk

    def without_success(actions):
        observation, reward, terminated, truncated, info = step(actions)
        chunk = {**info["chunk"], "reward": np.zeros_like(info["chunk"]["reward"])}
        info = {**info, "chunk": chunk, "success": np.zeros_like(terminated)}
        return observation, 0 * reward, np.zeros_like(terminated), terminated | truncated, info

    return without_success


def test_there_is_no_critic_and_only_the_actor_moves(tmp_path):
    trainer = make(tmp_path, iterations=1)
    before = weights(trainer)
    assert trainer.run()
    changed = {name.split(".")[1] for name, value in weights(trainer).items() if not torch.equal(before[name], value)}
    assert {"expert", "action_decoder"} <= changed
    assert not changed & {"vision", "projector", "language", "embed_tokens"}
    assert not any(name.startswith("value_head") for name in before)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    whole = make(tmp_path / "whole", iterations=4)
    assert whole.run()
    first = make(tmp_path / "parts", iterations=4)
    assert not first.run(lambda: first.done == 2)
    second = make(tmp_path / "parts", iterations=4)
    assert second.done == 2
    assert second.run()
    a, b = weights(whole), weights(second)
    assert all(torch.equal(a[name], b[name]) for name in a)
    rows = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts")]
    for one, other in zip(*rows, strict=True):
        assert {k: v for k, v in one.items() if "time" not in k} == {k: v for k, v in other.items() if "time" not in k}


def test_a_run_goes_on_in_another_number_of_environments(tmp_path):
    """Its rollouts are whole episodes: nothing is under way between two."""
    assert not (first := make(tmp_path, iterations=3)).run(lambda: first.done == 2)
    second = make(tmp_path, iterations=3, envs=9)
    assert second.env.num_envs != first.env.num_envs
    assert all(torch.equal(value, weights(second)[name]) for name, value in weights(first).items())
    assert second.run()
    assert [row["step"] > 0 for row in read_metrics(tmp_path / "metrics.jsonl")] == [True] * 3


def test_bad_group_sizes_are_refused(tmp_path):
    with pytest.raises(InvalidConfigError, match=r"num_envs must be a multiple of algo\.group_size=4.*got 6\."):
        make_learning_env(["widowx_stack_cube"], 6, None, dataclasses.replace(SETTINGS, group_size=4))
    with pytest.raises(InvalidConfigError, match=r"algo\.group_size must be at least 2; got 1\."):
        make(tmp_path, group_size=1)
    with pytest.raises(InvalidConfigError, match=r"algo\.rounds must be at least 1; got 0\."):
        make(tmp_path, rounds=0)


# ---------------------------------------------------------------------- several processes, and the command


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_same_groups(tmp_path):
    script, launch = (
        str(Path(__file__).parent / "two_processes_grpo.py"),
        ["-m", "torch.distributed.run", "--standalone"],
    )
    ends = []
    for count in (1, 2):
        path = tmp_path / str(count)
        path.mkdir()
        command = [sys.executable, *launch, f"--nproc_per_node={count}", script, str(path), "12"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stderr
        ends.append([torch.load(path / f"weights-{rank}.pt", weights_only=True) for rank in range(count)])
    (one,), (first, second) = ends
    fresh = weights(make(tmp_path / "fresh"))
    for name, value in one.items():
        assert torch.equal(first[name], second[name]), name
        assert (first[name] - value).abs().max() < 1e-5, name
    assert max(float((value - fresh[name]).abs().max()) for name, value in one.items()) > 3e-4


COMMAND = (
    *(
        "task=widowx_stack_cube",
        "num_envs=2",
        "threads=1",
        f"init={SHIPPED / 'nano'}",
        "algo=grpo",
        "evaluate_episodes=0",
    ),
    *("algo.group_size=2", "algo.rounds=1", "algo.epochs=1", "algo.save_every=1"),
)


def train(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "vlaser_gym.train", *COMMAND, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.long
def test_a_killed_run_goes_on_exactly(tmp_path):
    """SIGKILL in the middle of an iteration, on real environments, from the shipped policy: it fails and succeeds."""
    options = ("algo.iterations=8",)
    whole = train(*options, f"run={tmp_path}/whole")
    assert whole.wait(900) == 0
    killed = train(*options, f"run={tmp_path}/killed")
    metrics = tmp_path / "killed/metrics.jsonl"
    while len(read_metrics(metrics)) < 2 and killed.poll() is None:
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert torch.load(tmp_path / "killed/trainer.pt", weights_only=True)["iteration"] < 8
    assert train(*options, f"run={tmp_path}/killed").wait(900) == 0
    ends = [torch.load(tmp_path / name / "trainer.pt", weights_only=True) for name in ("whole", "killed")]
    for name, value in ends[0]["trained"].items():
        assert torch.equal(value, ends[1]["trained"][name]), name
