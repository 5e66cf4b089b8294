"""State environments with one array in and one array out, as reinforcement-learning libraries expect them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from vlaser_gym.envs.single import SingleLane
from vlaser_gym.envs.vector import make_lanes
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.wrappers.action import ACTION_RANGE, ScaleActions, scaled_actions
from vlaser_gym.wrappers.base import ObservationWrapper


class ArrayObservation(ObservationWrapper):
    """The only observation, without its name: a Box instead of a dictionary of one Box.

    Args:
        env: environments that observe ``state`` or ``proprio`` alone.

    Raises:
        InvalidConfigError: if they observe anything else.

    Example:
        >>> from vlaser_gym.envs.vector import SceneVectorEnv
        >>> env = ArrayObservation(SceneVectorEnv("widowx_stack_cube", observe="state"))
        >>> observation, _ = env.reset(seed=0)
        >>> observation.shape
        (1, 26)
        >>> env.close()
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        super().__init__(env)
        space: Any = env.single_observation_space
        names = tuple(getattr(space, "spaces", ()))
        if len(names) != 1 or names[0] not in {"state", "proprio"}:
            raise InvalidConfigError(
                f"One array is made of state or proprio alone; got {', '.join(names) or space}: observe='state'."
            )
        self.name = names[0]
        self._declare(space[self.name])

    def transform(self, observation: Any) -> Any:
        """Remove the state from the observation."""
        return observation[self.name]

    def _transform_one(self, observation: Any) -> Any:
        return observation[self.name]


def state_lanes(
    task: Any,
    num_envs: int = 1,
    observe: str = "state",
    action_range: Sequence[float] = ACTION_RANGE,
    **options: Any,
) -> VectorEnv[Any, Any, Any]:
    """Environments with arrays ``[N, 26]`` (or ``[N, 8]``) as observations and ``[N, 7]`` from -1 to 1 as actions.

    Args:
        task, num_envs, options: see :class:`~vlaser_gym.envs.vector.SceneVectorEnv`.
        observe: ``state`` or ``proprio``.
        action_range: what +-1 stands for; see :class:`ScaleActions`.
    """
    lanes = make_lanes(task, num_envs, observe=observe, **options)
    return ScaleActions(ArrayObservation(lanes), action_range)


class StateEnv(SingleLane):
    """One episode at a time with an array as observation and an array from -1 to 1 as action.

    Example:
        >>> from stable_baselines3.common.env_checker import check_env
        >>> env = gymnasium.make("vlaser_gym/widowx_stack_cube-state")
        >>> check_env(env.unwrapped)
        >>> env.close()
    """

    def __init__(self, task: Any, **options: Any) -> None:
        options.setdefault("autoreset_mode", AutoresetMode.DISABLED)
        super().__init__(state_lanes(task, 1, **options))


class ScaledAction(gymnasium.ActionWrapper[Any, NDArray[Any], NDArray[Any]]):
    """Actions from -1 to 1 for a single environment, as :class:`ScaleActions` has them for environments.

    Args:
        env: whose actions are ``[7]`` in metres and radians, such as ``gymnasium.make("vlaser_gym/...")``.
        action_range: what +-1 stands for.

    Example:
        >>> env = ScaledAction(gymnasium.make("vlaser_gym/widowx_stack_cube", observe="proprio"))
        >>> float(env.action_space.low.min()), float(env.action_space.high.max())
        (-1.0, 1.0)
        >>> env.close()
    """

    def __init__(self, env: gymnasium.Env[Any, Any], action_range: Sequence[float] = ACTION_RANGE) -> None:
        super().__init__(env)
        self.range = np.asarray(action_range, np.float64)
        if self.range.shape != env.action_space.shape or not (self.range > 0).all():
            raise InvalidConfigError(
                f"action_range needs {env.action_space.shape} numbers above 0; got {list(action_range)}."
            )
        self.action_space = spaces.Box(-1.0, 1.0, env.action_space.shape, np.float32)

    def action(self, action: NDArray[Any]) -> NDArray[Any]:
        """The action in metres and radians."""
        return np.asarray(scaled_actions(np.asarray(action, np.float64), self.range))
