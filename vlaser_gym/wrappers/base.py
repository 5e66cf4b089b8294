"""The common base of wrappers: chunks, addresses and snapshots pass through them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.vector import numbers

Observation = dict[str, Any]
Info = dict[str, Any]
Bools = NDArray[np.bool_]
Step = tuple[Observation, NDArray[np.float64], Bools, Bools, Info]


class SceneWrapper(VectorWrapper[Any, Any, Any, Any, Any]):
    """A wrapper of :class:`~vlaser_gym.envs.vector.SceneVectorEnv`, or of another wrapper of one.

    Subclasses override what they change of :meth:`on_action`, :meth:`on_reset` and :meth:`on_step`; ``step`` and
    ``step_chunk`` both go through these. A single environment is a vector environment of size one, wrapped:
    ``SingleLane(Wrapper(SceneVectorEnv(task)))``.
    """

    env: Any
    #: Names of attributes that belong to the state of the episodes; snapshots hold them.
    _saved: tuple[str, ...] = ()

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        super().__init__(env)

    def on_action(self, actions: NDArray[Any]) -> NDArray[Any]:
        """Actions ``[N, 7]`` or ``[N, H, 7]`` before they are executed."""
        return actions

    def on_reset(self, observation: Observation, info: Info, mask: Bools) -> tuple[Observation, Info]:
        """Hook: transform the result of a reset of the environments in ``mask [N]``."""
        return observation, info

    def on_step(
        self, observation: Observation, reward: NDArray[Any], terminated: Bools, truncated: Bools, info: Info
    ) -> Step:
        """Hook: transform the result of a step or chunk; ``info["chunk"]`` holds the single control steps."""
        return observation, reward, terminated, truncated, info

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Start episodes; see :meth:`SceneVectorEnv.reset`."""
        mask = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs, bool)), bool)
        observation, info = self.env.reset(seed=seed, options=options)
        return self.on_reset(observation, info, mask)

    def step(self, actions: NDArray[Any]) -> Step:
        """One action per environment."""
        return self.on_step(*self.env.step(self.on_action(numbers(actions))))

    def step_chunk(self, actions: NDArray[Any]) -> Step:
        """A chunk per environment; see :meth:`SceneVectorEnv.step_chunk`."""
        return self.on_step(*self.env.step_chunk(self.on_action(numbers(actions))))

    @property
    def addresses(self) -> list[Address]:
        """The episode that each environment runs."""
        addresses: list[Address] = self.env.addresses
        return addresses

    def get_state(self) -> dict[str, Any]:
        """Everything that the future depends on, the wrapper's own memory included."""
        return {
            "env": self.env.get_state(),
            "wrapper": {name: copy.deepcopy(getattr(self, name)) for name in self._saved},
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a snapshot of the same stack of wrappers."""
        self.env.set_state(state["env"])
        for name, value in state["wrapper"].items():
            setattr(self, name, copy.deepcopy(value))


class ObservationWrapper(SceneWrapper):
    """A wrapper that changes observations only, those that end an episode included."""

    def transform(self, observation: Observation) -> Observation:
        """A batch of any number of rows to the wrapper's form of it."""
        raise NotImplementedError

    def _declare(self, single_space: Any) -> None:
        self.single_observation_space = single_space
        self.observation_space = batch_space(single_space, self.num_envs)

    def on_reset(self, observation: Observation, info: Info, mask: Bools) -> tuple[Observation, Info]:
        """Transform the observation."""
        return self.transform(observation), info

    def on_step(
        self, observation: Observation, reward: NDArray[Any], terminated: Bools, truncated: Bools, info: Info
    ) -> Step:
        """Transform the observation and ``info["final_obs"]``."""
        if "final_obs" in info:
            info = {**info, "final_obs": info["final_obs"].copy()}
            for i, final in enumerate(info["final_obs"]):
                if final is not None:
                    info["final_obs"][i] = self._transform_one(final)
        return self.transform(observation), reward, terminated, truncated, info

    def _transform_one(self, observation: Observation) -> Observation:
        rows = {k: (v,) if isinstance(v, str) else np.asarray(v)[None] for k, v in observation.items()}
        return {name: values[0] for name, values in self.transform(rows).items()}
