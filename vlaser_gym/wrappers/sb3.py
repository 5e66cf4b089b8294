"""Stable-Baselines3 on these environments.

:class:`StableBaselines3VecEnv` is the ``VecEnv`` that its algorithms train on; :class:`StableBaselines3Env` is the same
for one episode at a time (its environment checker, its Monitor, its evaluation helpers). Both see the world through
:func:`for_stable_baselines3`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from vlaser_gym.envs.robots import is_image
from vlaser_gym.envs.single import SingleLane
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.wrappers.action import ACTION_RANGE, ChunkActions, ScaleActions
from vlaser_gym.wrappers.base import Info
from vlaser_gym.wrappers.observation import ResizeImage, TokenizeInstruction


def for_stable_baselines3(
    env: VectorEnv[Any, Any, Any],
    *,
    image_size: tuple[int, int] = (96, 96),
    instruction: dict[str, Any] | None = None,
    action_range: Sequence[float] = ACTION_RANGE,
    horizon: int | None = None,
    gamma: float = 1.0,
) -> VectorEnv[Any, Any, Any]:
    """Spaces that Stable-Baselines3 takes.

    Args:
        env: the environments; further wrappers (:class:`SubgoalReward`) go below.
        image_size: height and width; images come channels first, ``uint8 [3, h, w]``, so that none of its own
            wrappers has to turn them.
        instruction: arguments of :class:`TokenizeInstruction`. Ids are a Box, not a MultiDiscrete, which would reach
            the network as one-hot vectors; a features extractor of yours embeds them.
        action_range: what +-1 stands for; see :class:`ScaleActions`.
        horizon: None for single control steps, or actions are chunks ``[horizon, 7]``.
        gamma: discount inside a chunk; give the algorithm ``gamma ** horizon``.
    """
    space: Any = env.single_observation_space
    if any(map(is_image, space.spaces)):
        env = ResizeImage(env, image_size, channels_first=True)
    if "instruction" in space.spaces:
        env = TokenizeInstruction(env, **(instruction or {}))
    if horizon is not None:
        env = ChunkActions(env, horizon, gamma)
    return ScaleActions(env, action_range)


class StableBaselines3Env(SingleLane):
    """One episode at a time for Stable-Baselines3.

    Args:
        env: a vector environment of size one.
        transforms: arguments of :func:`for_stable_baselines3`.

    Example:
        >>> from stable_baselines3.common.env_checker import check_env
        >>> from vlaser_gym.envs.vector import SceneVectorEnv
        >>> env = StableBaselines3Env(SceneVectorEnv("widowx_stack_cube", observe=("proprio", "instruction")))
        >>> check_env(env)
        >>> env.close()
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], **transforms: Any) -> None:
        super().__init__(for_stable_baselines3(env, **transforms))


class StableBaselines3VecEnv(VecEnv):  # type: ignore[misc]  # Stable-Baselines3 is not followed by the type checker
    """Many episodes at a time for Stable-Baselines3.

    An environment that ends begins its next episode in the same step; ``infos[i]`` then has ``terminal_observation``,
    ``TimeLimit.truncated`` and ``is_success``. Every ``infos[i]`` holds the flags of the environment's task. Seeds and
    options of ``seed`` and ``set_options`` count at the next ``reset``.

    Args:
        env: environments with autoreset mode SAME_STEP.
        transforms: arguments of :func:`for_stable_baselines3`.

    Raises:
        InvalidConfigError: for another autoreset mode.

    Example:
        >>> from vlaser_gym.envs.vector import SceneVectorEnv
        >>> lanes = SceneVectorEnv("widowx_stack_cube", num_envs=2, observe=("proprio", "instruction"))
        >>> env = StableBaselines3VecEnv(lanes, horizon=60)
        >>> observation = env.reset()
        >>> {name: values.shape for name, values in observation.items()}
        {'proprio': (2, 8), 'instruction': (2, 64)}
        >>> _, _, dones, infos = env.step(np.zeros((2, 60, 7)))
        >>> dones.tolist(), infos[0]["TimeLimit.truncated"], infos[0]["terminal_observation"]["proprio"].shape
        ([True, True], True, (8,))
        >>> env.close()
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], **transforms: Any) -> None:
        mode = env.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise InvalidConfigError(f"Stable-Baselines3 needs autoreset mode SAME_STEP; got {mode}.")
        #: The wrapped vector environment.
        self.lanes: Any = for_stable_baselines3(env, **transforms)
        self._actions: NDArray[Any] | None = None
        super().__init__(env.num_envs, self.lanes.single_observation_space, self.lanes.single_action_space)

    def reset(self) -> dict[str, NDArray[Any]]:
        """Start an episode on every environment."""
        seed = None if None in self._seeds else self._seeds
        names = dict.fromkeys(name for options in self._options for name in options)
        options = {name: [lane.get(name) for lane in self._options] for name in names}
        observation, info = self.lanes.reset(seed=seed, options=options)
        self.reset_infos = self._lane_infos(info)
        self._reset_seeds()
        self._reset_options()
        return _arrays(observation)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions for :meth:`step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[dict[str, NDArray[Any]], NDArray[np.float32], NDArray[np.bool_], list[Info]]:
        """Execute the actions."""
        observation, reward, terminated, truncated, info = self.lanes.step(self._actions)
        done = terminated | truncated
        infos = self._lane_infos(info)
        for i in np.flatnonzero(done):
            infos[i]["terminal_observation"] = info["final_obs"][i]
            infos[i]["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
            infos[i]["is_success"] = infos[i]["success"]
        return _arrays(observation), reward.astype(np.float32), done, infos

    def _lane_infos(self, info: Info) -> list[Info]:
        """Infos, one dict per environment: its entries of all one-dimensional arrays and of lists."""
        infos: list[Info] = [{} for _ in range(self.num_envs)]
        for name, values in info.items():
            if name.startswith("_") or name == "final_obs":
                continue
            mask = info.get(f"_{name}", np.ones(self.num_envs, bool))
            for i in np.flatnonzero(mask):
                if isinstance(values, np.ndarray):
                    infos[i][name] = values[i].item()
                elif isinstance(values, list) and values[i] is not None:
                    infos[i][name] = values[i]
        return infos

    def close(self) -> None:
        """Stop the engine."""
        self.lanes.close()

    def get_images(self) -> Sequence[NDArray[np.uint8]]:
        """Images of the robot's camera in full size."""
        return list(self.lanes.render())

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of the vector environment, once per environment."""
        source = self.lanes if hasattr(self.lanes, attr_name) else self.lanes.unwrapped
        return [getattr(source, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Not possible: environments are not objects of their own."""
        raise NotImplementedError(f"All environments share one simulation: set {attr_name!r} on .lanes.unwrapped.")

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> Any:
        """Not possible: environments are not objects of their own."""
        raise NotImplementedError(f"All environments share one simulation: call {method_name!r} on .lanes.unwrapped.")

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """False: no environment has a wrapper of its own."""
        return [False for _ in self._get_indices(indices)]


def _arrays(observation: dict[str, Any]) -> dict[str, NDArray[Any]]:
    return {name: np.asarray(values) for name, values in observation.items()}
