from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import VecMonitor

from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.wrappers import SubgoalReward
from vlaser_gym.wrappers.sb3 import StableBaselines3Env, StableBaselines3VecEnv

CUBE = "widowx_stack_cube"
SPOON = "widowx_spoon_on_towel"
ALL = ("image", "proprio", "instruction")


@pytest.fixture(scope="module")
def one_lane() -> Iterator[SceneVectorEnv]:
    env = SceneVectorEnv(
        CUBE, observe=ALL, autoreset_mode=AutoresetMode.DISABLED, engine_options={"render_processes": 1}
    )
    yield env
    env.close()


@pytest.mark.parametrize("horizon", [None, 4])
def test_check_of_stable_baselines3_passes(one_lane: SceneVectorEnv, horizon: int | None) -> None:
    env = StableBaselines3Env(one_lane, image_size=(64, 64), horizon=horizon)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env)


def test_pictures_are_images_to_stable_baselines3(one_lane: SceneVectorEnv) -> None:
    env = StableBaselines3Env(one_lane)
    space: Any = env.observation_space
    assert is_image_space(space["image"], check_channels=True)
    assert is_image_space_channels_first(space["image"])
    assert not is_image_space(space["instruction"])


def lanes(num_envs: int = 2, **options: Any) -> SceneVectorEnv:
    return SceneVectorEnv([CUBE, SPOON], num_envs, **{"observe": ("proprio", "instruction"), **options})


def test_ended_lanes_hand_over_their_last_observation_and_begin_anew() -> None:
    env, plain = StableBaselines3VecEnv(lanes(), horizon=20), lanes(autoreset_mode=AutoresetMode.DISABLED)
    env.set_options([{"layout": 3}, {"layout": 4}])
    env.reset()
    plain.reset(options={"layout": [3, 4]})
    scale = np.array(env.lanes.action_range)
    rng = np.random.default_rng(0)
    for k in range(3):
        units = rng.uniform(-0.5, 0.5, (2, 20, 7))
        observation, reward, dones, infos = env.step(units)
        expected = plain.step_chunk(units * scale)[0]
        assert dones.tolist() == [k == 2] * 2
    for i in range(2):
        assert np.array_equal(infos[i]["terminal_observation"]["proprio"], expected["proprio"][i])
        assert not np.array_equal(observation["proprio"][i], expected["proprio"][i])
        assert infos[i]["TimeLimit.truncated"] is True
        assert infos[i]["is_success"] is False
        assert infos[i]["elapsed_steps"] == 60
        assert infos[i]["steps"] == 20
    assert reward.dtype == np.float32
    env.close()
    plain.close()


def test_a_success_that_ends_the_episode_is_no_time_limit(script: Callable[..., None]) -> None:
    script({"success": (2,)})
    env = StableBaselines3VecEnv(lanes(terminate_on_success=True))
    env.reset()
    units = np.zeros((2, 7))
    _, reward, dones, infos = env.step(units)
    assert not dones.any()
    assert "terminal_observation" not in infos[0]
    _, reward, dones, infos = env.step(units)
    assert dones.all()
    assert reward.tolist() == [1.0, 1.0]
    assert infos[1]["TimeLimit.truncated"] is False
    assert infos[1]["is_success"] is True
    assert infos[1]["src_on_target"] is False
    env.close()


def test_seed_and_options_count_at_the_next_reset_only() -> None:
    env = StableBaselines3VecEnv(lanes())
    env.seed(3)
    env.reset()
    first = env.get_attr("addresses")[0]
    env.seed(3)
    env.reset()
    assert env.get_attr("addresses")[0] == first
    env.set_options({"layout": 7})
    env.reset()
    assert [a.layout for a in env.get_attr("addresses")[0]] == ["grid:7", "grid:7"]
    env.seed(3)
    env.reset()
    assert env.get_attr("addresses")[0] == first
    env.close()


def test_mixed_tasks_have_their_own_token_ids() -> None:
    env = StableBaselines3VecEnv(lanes())
    instruction = env.reset()["instruction"]
    texts = [bytes(i - 1 for i in row if i).decode() for row in instruction]
    assert texts == ["stack the green block on the yellow block", "put the spoon on the towel"]
    env.close()


def test_only_same_step_lanes_are_taken() -> None:
    with pytest.raises(InvalidConfigError, match="SAME_STEP"):
        StableBaselines3VecEnv(lanes(autoreset_mode=AutoresetMode.DISABLED))


def test_ppo_learns_through_the_adapter(script: Callable[..., None]) -> None:
    """A smoke run: rollouts, an update that changes the policy, evaluation over whole episodes."""
    script({"ever_grasped": (5,)})
    torch.manual_seed(0)
    torch.set_num_threads(1)
    lanes_ = SceneVectorEnv(
        CUBE, 2, observe=ALL, engine_options={"render_processes": 1}, layouts="region", terminate_on_success=True
    )
    env = VecMonitor(StableBaselines3VecEnv(SubgoalReward(lanes_), image_size=(48, 48), horizon=15, gamma=0.99))
    model = PPO("MultiInputPolicy", env, n_steps=4, batch_size=4, n_epochs=1, device="cpu", gamma=0.99**15)
    before = [p.detach().clone() for p in model.policy.parameters()]
    model.learn(8)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.policy.parameters(), strict=True))
    assert [episode["l"] for episode in model.ep_info_buffer] == [4, 4]
    rewards, lengths = evaluate_policy(model, env, n_eval_episodes=2, return_episode_rewards=True)
    assert lengths == [4, 4]
    assert np.isfinite(rewards).all()
    env.close()
