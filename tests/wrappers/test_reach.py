from __future__ import annotations

import numpy as np
import pytest

from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.wrappers import ChunkActions, ReachReward

CUBE = "widowx_stack_cube"


def world_distances(env: SceneVectorEnv) -> np.ndarray:
    """From link poses and object poses in the world frame, not from the observation."""
    distances = []
    for lane in env.lanes:
        pose = env._tree.link_poses(lane.reading.qpos[None], [env._tcp_link])[env._tcp_link]
        w, x, y, z = lane.base_pose[3:]
        base = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
        )
        distances.append(np.linalg.norm(base @ pose[1][0] + lane.base_pose[:3] - lane.source_pose[:3]))
    return np.array(distances)


def test_the_reward_is_the_distance_between_tool_and_object() -> None:
    env = ReachReward(SceneVectorEnv(CUBE, 2, observe=("state",), terminate_on_success=True), scale=0.2, radius=0.04)
    observation, _ = env.reset(options={"layout": [3, 8]})
    reached = False
    for _ in range(60):
        away = observation["state"][:, 8:11] - observation["state"][:, :3]
        actions = np.zeros((2, 7))
        actions[0, :3] = np.clip(away[0], -0.02, 0.02)  # one environment goes there, one stays
        actions[:, 6] = 1
        observation, reward, terminated, truncated, info = env.step(actions)
        if not (terminated | truncated).any():
            distance = world_distances(env.unwrapped)
            np.testing.assert_allclose(reward, 1 - np.tanh(distance / 0.2), atol=1e-5)
            np.testing.assert_array_equal(info["reached"], distance < 0.04)
            reached |= bool(info["reached"][0])
    assert reached
    assert not info["reached"][1]
    # The last step ended the episodes: measured where they ended, not where the next ones begin.
    assert truncated.all()
    ends = np.stack([info["final_obs"][i]["state"] for i in range(2)])
    expected = np.linalg.norm(ends[:, :3] - ends[:, 8:11], axis=1)
    np.testing.assert_allclose(reward, 1 - np.tanh(expected / 0.2), atol=1e-6)
    env.close()


def test_a_chunk_is_measured_at_its_end() -> None:
    env = ReachReward(ChunkActions(SceneVectorEnv(CUBE, 1, observe=("state",)), horizon=4, gamma=0.9))
    env.reset(seed=0)
    _, reward, *_ = env.step(np.zeros((1, 4, 7)))
    np.testing.assert_allclose(reward, 1 - np.tanh(world_distances(env.unwrapped) / 0.25), atol=1e-5)
    env.close()


def test_bad_settings_are_refused() -> None:
    env = SceneVectorEnv(CUBE, observe=("proprio",))
    with pytest.raises(InvalidConfigError, match="observe it too"):
        ReachReward(env)
    env.close()
    env = SceneVectorEnv(CUBE, observe=("state",))
    with pytest.raises(InvalidConfigError, match=r"above 0; got 0\.25 and 0"):
        ReachReward(env, radius=0)
    env.close()
