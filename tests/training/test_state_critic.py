from __future__ import annotations

import numpy as np
import pytest
import torch
from demonstrations import tiny_config
from fake_lanes import FakeLanes
from gymnasium import spaces
from test_ppo import SETTINGS, collected, no_pictures, trainable, weights  # noqa: F401  (a fixture)
from test_ppo import make as make_without

from vlaser_gym.agents.vlaser.agent import load_agent
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.training.critic import StateCritic
from vlaser_gym.training.distributed import ProcessGroup
from vlaser_gym.training.environments import LearningEnv, make_learning_env
from vlaser_gym.training.ppo import PPO
from vlaser_gym.training.privileged import PrivilegedState
from vlaser_gym.training.trainer import RunOptions

TASKS = ["widowx_stack_cube", "widowx_spoon_on_towel"]


class StateLanes(FakeLanes):
    """Environments that show a state, drawn from a stream of its own, and tell how far they came."""

    def __init__(self, num_envs: int, state_seed: int = 0) -> None:
        super().__init__(num_envs)
        one = dict(self.single_observation_space.spaces)
        self.single_observation_space = spaces.Dict(**one, state=spaces.Box(-np.inf, np.inf, (26,), np.float32))
        self.states = np.random.default_rng(state_seed)
        self.seen: list[tuple[dict, dict]] = []

    def _one(self, lane):
        return {**super()._one(lane), "state": self.states.normal(size=26).astype(np.float32)}

    def _stack(self, rows):
        return {**super()._stack(rows), "state": np.stack([row["state"] for row in rows])}

    def step_chunk(self, actions):
        before = self.elapsed.copy()
        observation, reward, terminated, truncated, info = super().step_chunk(actions)
        info["elapsed_steps"] = before + info["steps"]
        info["moved_correct_obj"] = info["elapsed_steps"] % 2 == 0
        self.seen.append((observation, info))
        return observation, reward, terminated, truncated, info

    def get_state(self):
        return {**super().get_state(), "states": self.states}

    def set_state(self, state):
        super().set_state(state)
        self.states = state["states"]


def make(path, state_seed=0, **changes) -> PPO:
    torch.set_num_threads(1)
    settings = SETTINGS.__class__(**{**vars(SETTINGS), "critic": "state", **changes})
    agent = trainable(tiny_config(), settings, 3)
    tasks = [TASKS[i % 2] for i in range(4)]
    env = LearningEnv(StateLanes(4, state_seed), agent, settings.gamma, tasks, PrivilegedState(TASKS))
    return PPO(agent, env, settings, path, RunOptions(3, save_every=1))


def test_another_state_changes_values_and_no_action(tmp_path):
    rollouts = []
    for seed in (0, 1):
        trainer = make(tmp_path / str(seed), seed, n_steps=12, batch_size=24)
        torch.nn.init.normal_(trainer.critic.last.weight)
        rollouts.append(collected(trainer))
    one, other = rollouts
    np.testing.assert_array_equal(one.latent["chain"], other.latent["chain"])
    np.testing.assert_array_equal(one.log_probs, other.log_probs)
    assert "state" not in one.inputs
    assert (one.values != other.values).mean() > 0.9
    assert (one.advantages != other.advantages).mean() > 0.9


def test_its_loss_reaches_no_weight_of_the_actor(tmp_path):
    trainer = make(tmp_path)
    torch.nn.init.normal_(trainer.critic.last.weight)
    rollout = collected(trainer)
    rollout.advantages = np.zeros((6, 4))
    trainer.recompute_log_probs(rollout)
    assert trainer.accumulate(rollout, np.arange(12))["ratio_error"] < 1e-5
    assert all(p.grad is None or not p.grad.any() for p in trainer.agent.parameters())
    assert all(p.grad.any() for p in trainer.critic.parameters())


def test_rows_are_state_sub_goals_time_and_task(tmp_path):
    trainer = make(tmp_path, n_steps=12, batch_size=24)
    rollout = collected(trainer)
    reader, lanes = trainer.env.reader, trainer.env.env.unwrapped
    flag = 26 + reader.subgoals.index("moved_correct_obj")
    assert reader.width == rollout.privileged.shape[2] == 26 + len(reader.subgoals) + 1 + 2
    assert set(reader.subgoals) == {name for task in TASKS for name in get_task(task).subgoals}
    for t, (observation, info) in enumerate(lanes.seen[:-1]):
        row, done = rollout.privileged[t + 1], rollout.dones[t]
        np.testing.assert_array_equal(row[:, :26], observation["state"])
        np.testing.assert_array_equal(row[:, flag], info["moved_correct_obj"] & ~done)
        np.testing.assert_allclose(row[:, -3], np.where(done, 0, info["elapsed_steps"]) / 60, atol=1e-7)
        np.testing.assert_array_equal(row[:, -2:], [[1, 0], [0, 1], [1, 0], [0, 1]])
    assert rollout.dones.any()
    np.testing.assert_array_equal(rollout.privileged[0, :, 26:-2], 0)


def test_a_cut_episode_is_worth_what_its_last_state_is(tmp_path):
    trainer = make(tmp_path, n_steps=12, batch_size=24)
    torch.nn.init.normal_(trainer.critic.last.weight)
    rollout = trainer.collect()  # the critic has not taken in anything yet
    reader, found = trainer.env.reader, []
    for t, (_, info) in enumerate(trainer.env.env.unwrapped.seen):
        for i in np.flatnonzero(rollout.final_values[t]):
            flags = [1.0 * info[name][i] if name in info else 0.0 for name in reader.subgoals]
            row = [*info["final_obs"][i]["state"], *flags, info["elapsed_steps"][i] / 60, i % 2 == 0, i % 2 == 1]
            with torch.no_grad():
                value = float(trainer.critic(torch.tensor([row], dtype=torch.float32)))
            # It has seen nothing yet and divides by a spread of 0.01: a rounded input counts a hundredfold.
            assert rollout.final_values[t, i] == pytest.approx(value, abs=1e-3)
            found.append(value)
    assert len(found) > 2
    assert np.std(found) > 0.1


def test_the_critic_standardises_by_all_that_it_saw():
    rows = torch.from_numpy(np.random.default_rng(0).normal([3.0, -1.0, 7.0], [2.0, 0.5, 0.0], (500, 3)))
    critic = StateCritic(3)
    for part in rows.split(100):
        critic.take_in(part.float(), ProcessGroup())
    seen = []
    critic.layers.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    critic(rows.float())
    assert seen[0].mean(0).tolist() == pytest.approx([0, 0, 0], abs=1e-3)
    assert seen[0].std(0).tolist() == pytest.approx([1, 1, 0], abs=1e-2)


def test_it_learns_what_only_the_state_shows():
    torch.manual_seed(0)
    critic, rows = StateCritic(6), torch.randn(512, 6) * 0.05 + 0.3
    wanted = (rows[:, 0] > rows[:, 1]).float()
    critic.take_in(rows, ProcessGroup())
    optimizer = torch.optim.AdamW(critic.parameters(), lr=1e-3)
    for _ in range(150):
        optimizer.zero_grad()
        (critic(rows) - wanted).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        assert float((critic(rows) - wanted).var() / wanted.var()) < 0.3


def test_it_goes_on_exactly_and_is_no_part_of_the_policy(tmp_path):
    whole = make(tmp_path / "whole", iterations=3)
    assert whole.run()
    first = make(tmp_path / "parts", iterations=3)
    assert not first.run(lambda: first.done == 1)
    second = make(tmp_path / "parts", state_seed=9, iterations=3)
    assert second.run()
    a, b = weights(whole), weights(second)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert torch.equal(whole.critic.sums, second.critic.sums)
    assert float(whole.critic.sums[0, 0]) == 3 * 6 * 4
    stored = load_agent(str(tmp_path / "whole/checkpoint")).policy.state_dict()
    assert stored.keys() == whole.agent.policy.state_dict().keys()
    with pytest.raises(InvalidConfigError, match=r"algo\.critic"):
        make_without(tmp_path / "parts", iterations=3)


def test_real_environments_show_the_state_to_the_critic_alone(tmp_path):
    settings = SETTINGS.__class__(**{**vars(SETTINGS), "critic": "state", "n_steps": 2, "batch_size": 4})
    agent = trainable(tiny_config(), settings, 3)
    env = make_learning_env(TASKS, 2, agent, settings)
    try:
        trainer = PPO(agent, env, settings, tmp_path, RunOptions(3))
        rollout = collected(trainer)
        assert set(rollout.inputs) == {"pixels", "input_ids", "proprio"}
        assert rollout.privileged.shape == (2, 2, env.reader.width)
        np.testing.assert_allclose(rollout.privileged[:, :, -3], np.array([[0, 0], [4, 4]]) / 60, atol=1e-7)
        np.testing.assert_array_equal(rollout.privileged[0, :, -2:], np.eye(2))
        again = env.get_state()
        env.set_state(again)
        np.testing.assert_array_equal(env.privileged, again["privileged"])
    finally:
        env.close()
