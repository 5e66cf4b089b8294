"""Wrappers that change actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from vlaser_gym.envs.vector import numbers
from vlaser_gym.errors import InvalidActionError, InvalidConfigError
from vlaser_gym.wrappers.base import Bools, Info, Observation, SceneWrapper, Step

#: What +-1 stands for by default: the 1st and 99th percentile of BridgeData V2's actions, rounded up and made symmetric
#: (0.028, 0.041, 0.040 m; 0.081, 0.092, 0.205 rad). The gripper is as it is.
ACTION_RANGE = (0.03, 0.045, 0.045, 0.1, 0.1, 0.21, 1.0)


class ChunkActions(SceneWrapper):
    """An action is a chunk of ``horizon`` control steps, ``[N, horizon, 7]``.

    Images are made once per chunk. The reward is the discounted sum of the control steps that ran.

    Args:
        env: the environments.
        horizon: control steps per action.
        gamma: discount per control step inside a chunk. The value after a chunk is to be discounted by
            ``info["chunk"]["discount"] [N]``, which is ``gamma ** m`` where m control steps ran.

    Example:
        >>> from vlaser_gym.envs.vector import SceneVectorEnv
        >>> env = SceneVectorEnv("widowx_stack_cube", num_envs=2, observe=("proprio",))
        >>> env = ChunkActions(env, horizon=4, gamma=0.5)
        >>> _ = env.reset(seed=0)
        >>> env.action_space.shape
        (2, 4, 7)
        >>> *_, info = env.step(np.zeros((2, 4, 7)))
        >>> info["steps"].tolist(), info["chunk"]["discount"].tolist()
        ([4, 4], [0.0625, 0.0625])
        >>> env.close()
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], horizon: int, gamma: float = 1.0) -> None:
        super().__init__(env)
        if horizon < 1 or not 0 <= gamma <= 1:
            raise InvalidConfigError(f"ChunkActions needs horizon >= 1 and gamma in [0, 1]; got {horizon}, {gamma}.")
        self.horizon, self.gamma = horizon, gamma
        one = env.single_action_space
        assert isinstance(one, spaces.Box)
        self.single_action_space = spaces.Box(
            np.tile(one.low, (horizon, 1)), np.tile(one.high, (horizon, 1)), dtype=np.float32
        )
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def step(self, actions: NDArray[Any]) -> Step:
        """One chunk ``[N, horizon, 7]``."""
        actions = numbers(actions)
        if actions.shape != self.action_space.shape:
            raise InvalidActionError(f"Expected chunks of shape {self.action_space.shape}; got {actions.shape}.")
        return self.step_chunk(actions)

    def on_step(
        self, observation: Observation, reward: NDArray[Any], terminated: Bools, truncated: Bools, info: Info
    ) -> Step:
        """Discount inside the chunk."""
        chunk = info["chunk"]
        weights = self.gamma ** np.arange(chunk["reward"].shape[1])
        chunk = {**chunk, "discount": self.gamma ** chunk["ran"].sum(1)}
        return observation, (chunk["reward"] * weights).sum(1), terminated, truncated, {**info, "chunk": chunk}


class ScaleActions(SceneWrapper):
    """Actions in [-1, 1]: each dimension times its range. Numbers outside are clipped.

    Args:
        env: the environments, their actions chunked or not.
        action_range: what +-1 stands for: three translations (m), three components of an axis-angle (rad), gripper.

    Example:
        >>> from vlaser_gym.envs.vector import SceneVectorEnv
        >>> env = ScaleActions(SceneVectorEnv("widowx_stack_cube", observe=("proprio",)))
        >>> env.on_action(np.array([[1, 0, -2, 0, 0, 0, 0.5]])).tolist()
        [[0.03, 0.0, -0.045, 0.0, 0.0, 0.0, 0.5]]
        >>> env.close()
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], action_range: Sequence[float] = ACTION_RANGE) -> None:
        super().__init__(env)
        self.action_range = np.asarray(action_range, np.float64)
        if self.action_range.shape != (7,) or not (np.isfinite(self.action_range) & (self.action_range > 0)).all():
            raise InvalidConfigError(f"action_range needs 7 numbers above 0; got {list(action_range)}.")
        self.single_action_space = spaces.Box(-1.0, 1.0, env.single_action_space.shape, np.float32)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def on_action(self, actions: NDArray[Any]) -> NDArray[Any]:
        """Convert from [-1, 1] to metres and radians."""
        if actions.ndim < 2 or actions.shape[-1] != 7:
            raise InvalidActionError(f"Expected actions of shape {self.action_space.shape}; got {actions.shape}.")
        return scaled_actions(actions, self.action_range)


def scaled_actions(actions: NDArray[Any], action_range: NDArray[np.float64]) -> NDArray[np.float64]:
    """Actions ``[..., 7]`` in [-1, 1], clipped to that, times their range ``[7]``: metres, radians and gripper."""
    return np.asarray(np.clip(actions, -1.0, 1.0) * action_range)
