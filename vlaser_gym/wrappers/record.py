"""Wrappers that keep what happened."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.wrappers.base import Bools, Info, Observation, SceneWrapper, Step

States = dict[str, NDArray[Any]]


class RecordStates(SceneWrapper):
    """Hands over the states of an episode when it ends.

    ``info["episode_states"]`` has one entry per environment: None, or for an environment whose episode ended in this
    call a dict with ``qpos [T + 1, J]``, ``object/<name> [T + 1, 7]`` (world poses), ``joint/<name> [T + 1]``,
    ``instruction [T + 1]`` (text) and ``stage [T + 1]``, row 0 being the initial state, and ``action [T, 7]``.
    ``info["episode_addresses"]`` tells which episode it was.

    Args:
        env: environments made with ``record_states=True``.

    Raises:
        InvalidConfigError: if they were not.

    Example:
        >>> from vlaser_gym.envs.vector import SceneVectorEnv
        >>> env = SceneVectorEnv("widowx_stack_cube", observe=("proprio",), record_states=True)
        >>> env = RecordStates(env)
        >>> _ = env.reset(options={"layout": 5})
        >>> *_, info = env.step_chunk(np.zeros((1, 60, 7)))
        >>> episode = info["episode_states"][0]
        >>> str(info["episode_addresses"][0]), episode["qpos"].shape, episode["action"].shape
        ('widowx_stack_cube/default/grid:5/0', (61, 8), (60, 7))
        >>> env.close()
    """

    _saved = ("_running", "_parts")

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        super().__init__(env)
        if not getattr(self.unwrapped, "record_states", False):
            raise InvalidConfigError("RecordStates needs an environment that records: make it with record_states=True.")
        self._running: list[Address | None] = [None] * self.num_envs
        self._parts: list[list[States]] = [[] for _ in range(self.num_envs)]

    def _begin(self, initial: list[States | None]) -> None:
        addresses = self.addresses
        for i, state in enumerate(initial):
            if state is not None:
                self._running[i] = addresses[i]
                self._parts[i] = [{name: np.asarray(value)[None] for name, value in state.items()}]

    def on_reset(self, observation: Observation, info: Info, mask: Bools) -> tuple[Observation, Info]:
        """Row 0 of the new episodes."""
        self._begin(info["initial_states"])
        return observation, info

    def on_step(
        self, observation: Observation, reward: NDArray[Any], terminated: Bools, truncated: Bools, info: Info
    ) -> Step:
        """Collect; hand over what ended; begin what was reset in the same step."""
        for parts, states in zip(self._parts, info["states"], strict=True):
            if states:
                parts.append(states)
        done = terminated | truncated
        info = {
            **info,
            "episode_states": [_joined(self._parts[i]) if done[i] else None for i in range(self.num_envs)],
            "episode_addresses": [self._running[i] if done[i] else None for i in range(self.num_envs)],
        }
        for i in np.flatnonzero(done):
            self._parts[i] = []
        if "initial_states" in info:
            self._begin(info["initial_states"])
        return observation, reward, terminated, truncated, info


def _joined(parts: list[States]) -> States:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: np.concatenate([part[name] for part in parts if name in part]) for name in names}
