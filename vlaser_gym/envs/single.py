"""One episode at a time: the Gymnasium environment, a vector environment with one lane."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import ArrayLike, NDArray

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.vector import Info, SceneVectorEnv
from vlaser_gym.errors import InvalidActionError


class SceneEnv(gymnasium.Env[dict[str, Any], NDArray[Any]]):
    """A single scene; takes the keyword arguments of :class:`SceneVectorEnv` (without ``num_envs``).

    Example:
        >>> import gymnasium
        >>> env = gymnasium.make("vlaser_gym/widowx_carrot_on_plate", observe=("proprio", "instruction"))
        >>> observation, info = env.reset(options={"layout": 3})
        >>> observation["instruction"]
        'put carrot on plate'
        >>> observation, reward, terminated, truncated, info = env.step(np.zeros(7, np.float32))
        >>> bool(info["success"]), int(info["elapsed_steps"])
        (False, 1)
        >>> env.close()
    """

    def __init__(self, task: str, **options: Any) -> None:
        options.setdefault("autoreset_mode", AutoresetMode.DISABLED)
        self._lanes = SceneVectorEnv(task, num_envs=1, **options)
        self.observation_space = self._lanes.single_observation_space
        self.action_space = self._lanes.single_action_space
        self.render_mode = self._lanes.render_mode
        self.metadata = {key: self._lanes.metadata[key] for key in ("render_modes", "render_fps")}

    @property
    def address(self) -> Address:
        """The episode being run."""
        return self._lanes.addresses[0]

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], Info]:
        """Start an episode; ``options`` as for the vector environment, one value each."""
        super().reset(seed=seed)
        observation, info = self._lanes.reset(seed=seed, options=options)
        return _row(observation), _row(info)

    def step(self, action: ArrayLike) -> tuple[dict[str, Any], float, bool, bool, Info]:
        """One control step with 7 numbers."""
        array = np.asarray(action)
        if array.shape != (7,):
            raise InvalidActionError(f"Expected an action of shape (7,); got {array.shape}.")
        observation, reward, terminated, truncated, info = self._lanes.step(array[None])
        return _row(observation), float(reward[0]), bool(terminated[0]), bool(truncated[0]), _row(info)

    def render(self) -> Any:
        """The picture of the robot's camera, ``uint8 [H, W, 3]``."""
        return self._lanes.render()[0]

    def get_state(self) -> dict[str, Any]:
        """See :meth:`SceneVectorEnv.get_state`."""
        return self._lanes.get_state()

    def set_state(self, state: Mapping[str, Any]) -> None:
        """See :meth:`SceneVectorEnv.set_state`."""
        self._lanes.set_state(state)

    def close(self) -> None:
        """Stop the engine."""
        self._lanes.close()


def _row(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The only lane's values; Gymnasium's ``_name`` masks and chunk details have no single-lane meaning."""
    return {name: values[0] for name, values in batch.items() if not name.startswith("_") and name != "chunk"}
