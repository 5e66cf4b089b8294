"""One episode at a time: Gymnasium environments over vector environments of size one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import ArrayLike, NDArray

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.tasks import Task
from vlaser_gym.envs.vector import Info, SceneVectorEnv, numbers
from vlaser_gym.errors import InvalidActionError, InvalidConfigError


class SingleLane(gymnasium.Env[Any, NDArray[Any]]):
    """The only environment of a :class:`SceneVectorEnv`, bare or wrapped, without the leading dimension.

    This is how every wrapper of :mod:`vlaser_gym.wrappers` serves single environments too.

    Args:
        lanes: a vector environment with ``num_envs=1``.

    Raises:
        InvalidConfigError: if it has more environments.

    Example:
        >>> from vlaser_gym.wrappers import ChunkActions
        >>> lanes = SceneVectorEnv("widowx_stack_cube", observe=("proprio",), autoreset_mode=AutoresetMode.DISABLED)
        >>> env = SingleLane(ChunkActions(lanes, horizon=4))
        >>> _ = env.reset(options={"layout": 7})
        >>> observation, reward, terminated, truncated, info = env.step(env.action_space.sample() * 0)
        >>> observation["proprio"].shape, int(info["steps"]), str(env.address)
        ((8,), 4, 'widowx_stack_cube/default/grid:7/0')
        >>> env.close()
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5.0}  # noqa: RUF012  (Gymnasium reads it off the class)

    def __init__(self, lanes: VectorEnv[Any, Any, Any]) -> None:
        if lanes.num_envs != 1:
            raise InvalidConfigError(
                f"A single environment wraps one environment; got {lanes.num_envs}: use num_envs=1."
            )
        self.lanes: Any = lanes
        self.observation_space = lanes.single_observation_space
        self.action_space = lanes.single_action_space
        self.render_mode = lanes.render_mode
        self.metadata = {key: lanes.metadata[key] for key in ("render_modes", "render_fps")}

    @property
    def address(self) -> Address:
        """The episode being run."""
        address: Address = self.lanes.unwrapped.addresses[0]
        return address

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Any, Info]:
        """Start an episode; ``options`` as for the vector environment, one value each."""
        # The environments first: they say in the project's words what is wrong with a seed.
        observation, info = self.lanes.reset(seed=seed, options=options)
        super().reset(seed=seed)
        return _row(observation), _row(info)

    def step(self, action: ArrayLike) -> tuple[Any, float, bool, bool, Info]:
        """One action: 7 numbers, or what the wrappers below make of it.

        Raises:
            InvalidActionError: for an action of another shape, or with numbers that are not finite.
            gymnasium.error.ResetNeeded: past an episode's end, where a step would do nothing.
        """
        array = self._checked(action)
        scene = self.lanes.unwrapped
        waits = self.lanes.metadata.get("autoreset_mode") is AutoresetMode.DISABLED
        if waits and isinstance(scene, SceneVectorEnv) and scene.lanes[0].started and scene.lanes[0].ended:
            lane = scene.lanes[0]
            raise ResetNeeded(
                f"The episode {lane.address} ended after {lane.elapsed} control steps; call reset() before stepping."
            )
        observation, reward, terminated, truncated, info = self.lanes.step(array[None])
        return _row(observation), float(reward[0]), bool(terminated[0]), bool(truncated[0]), _row(info)

    def _checked(self, action: ArrayLike) -> NDArray[Any]:
        array = numbers(action)
        if array.shape != self.action_space.shape:
            raise InvalidActionError(f"Expected an action of shape {self.action_space.shape}; got {array.shape}.")
        return array

    def render(self) -> Any:
        """The image of the robot's camera, ``uint8 [H, W, 3]``."""
        return self.lanes.render()[0]

    def get_state(self) -> dict[str, Any]:
        """See :meth:`SceneVectorEnv.get_state`."""
        state: dict[str, Any] = self.lanes.get_state()
        return state

    def set_state(self, state: Mapping[str, Any]) -> None:
        """See :meth:`SceneVectorEnv.set_state`."""
        self.lanes.set_state(state)

    def close(self) -> None:
        """Stop the engine."""
        self.lanes.close()


class SceneEnv(SingleLane):
    """A single scene; takes the keyword arguments of :class:`SceneVectorEnv` (without ``num_envs``).

    It does not start the next episode by itself: the autoreset mode is DISABLED unless it is given.

    Example:
        >>> import gymnasium
        >>> import numpy as np
        >>> env = gymnasium.make("vlaser_gym/widowx_carrot_on_plate", observe=("proprio", "instruction"))
        >>> observation, info = env.reset(options={"layout": 3})
        >>> observation["instruction"]
        'put carrot on plate'
        >>> observation, reward, terminated, truncated, info = env.step(np.zeros(7, np.float32))
        >>> bool(info["success"]), int(info["elapsed_steps"])
        (False, 1)
        >>> env.close()
    """

    def __init__(self, task: str | Task, **options: Any) -> None:
        options.setdefault("autoreset_mode", AutoresetMode.DISABLED)
        super().__init__(SceneVectorEnv(task, num_envs=1, **options))


def _row(batch: Any) -> Any:
    """The only environment's values as plain Python and numpy types; Gymnasium's ``_name`` masks say nothing here.

    Numpy's truth values would make arrays of objects of them where Gymnasium stacks infos of several environments.
    """
    if isinstance(batch, Mapping):
        return {
            name: _row(values) if isinstance(values, Mapping) else _plain(values[0])
            for name, values in batch.items()
            if not name.startswith("_")
        }
    return _plain(batch[0])


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
