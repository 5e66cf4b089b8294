from __future__ import annotations

from collections.abc import Callable

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from vlaser_gym.envs.single import SceneEnv
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import GymError, InvalidActionError

CUBE = "widowx_stack_cube"
REST = np.array([0, 0, 0, 0, 0, 0, 1.0])
OBSERVE = ("proprio", "instruction", "state")


def test_single_equals_a_vector_of_one() -> None:
    env, lanes = SceneEnv(CUBE, observe=OBSERVE), SceneVectorEnv(CUBE, 1, observe=OBSERVE)
    observation, _ = env.reset(seed=3)
    batch, _ = lanes.reset(seed=3)
    assert env.address == lanes.addresses[0]
    rng = np.random.default_rng(0)
    for _ in range(5):
        assert env.observation_space.contains(observation)
        assert np.array_equal(observation["state"], batch["state"][0])
        assert observation["instruction"] == batch["instruction"][0]
        action = rng.uniform(-0.03, 0.03, 7)
        observation, reward, terminated, truncated, info = env.step(action)
        batch, *_, batch_info = lanes.step(action[None])
        assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)
        assert info["elapsed_steps"] == batch_info["elapsed_steps"][0]
        assert info["chunk"]["ran"].tolist() == [True]
        assert not any(name.startswith("_") for name in info)
    env.close()
    lanes.close()


def test_an_episode_ends_and_waits_for_its_reset(script: Callable[..., None]) -> None:
    script({"success": (2,)})
    env = SceneEnv(CUBE, observe=("proprio",), terminate_on_success=True)
    env.reset(options={"layout": 2})
    assert env.step(REST)[2] is False
    _, reward, terminated, truncated, info = env.step(REST)
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info["success"]
    with pytest.raises(ResetNeeded, match="ended after 2 control steps"):
        env.step(REST)
    env.reset(options={"layout": 2})
    assert env.step(REST)[4]["elapsed_steps"] == 1
    env.close()


def test_snapshot_of_a_single_environment() -> None:
    env = SceneEnv(CUBE, observe=("state",))
    env.reset(seed=0)
    snapshot = env.get_state()
    first = env.step(REST)[0]["state"]
    env.set_state(snapshot)
    assert np.array_equal(env.step(REST)[0]["state"], first)
    env.close()


@pytest.mark.parametrize("shape", [(1, 7), (6,), (8,), ()])
def test_actions_of_the_wrong_shape(shape: tuple[int, ...]) -> None:
    env = SceneEnv(CUBE, observe=("proprio",))
    env.reset(seed=0)
    with pytest.raises(InvalidActionError, match=r"Expected an action of shape \(7,\); got"):
        env.step(np.zeros(shape))
    env.close()


def test_errors_are_those_of_the_vector_environment() -> None:
    with pytest.raises(GymError, match="Unknown observation 'images'"):
        SceneEnv(CUBE, observe=("pictures",))
    with pytest.raises(GymError, match="seed must be a whole number"):
        SceneEnv(CUBE, observe=()).reset(seed=-1)
    with pytest.raises(gymnasium.error.ResetNeeded):
        SceneEnv(CUBE, observe=()).step(REST)
