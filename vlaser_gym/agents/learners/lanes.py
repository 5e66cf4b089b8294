"""Environments as post-training sees them: the policy's inputs come out, chains of its flow go in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from vlaser_gym.agents.vlaser.commands import executed_actions
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.gripper import make_gripper
from vlaser_gym.agents.vlaser.processor import Processor
from vlaser_gym.wrappers.action import ChunkActions
from vlaser_gym.wrappers.base import Bools, Info, Observation, ObservationWrapper, Step
from vlaser_gym.wrappers.sb3 import StableBaselines3VecEnv

#: Bounds of the chain's space. Stable-Baselines3 wants finite ones and clips to them; no chain comes near.
_CHAIN_LIMIT = 1e6


class ChainLanes(ObservationWrapper):
    """Lanes whose actions are chains of the flow ``[N, K + 1, H, A]``, of which the last state is executed.

    Clamping, denormalisation and the gripper's memory are on this side, so that a learner keeps the chain as it was
    drawn. Observations: ``pixels`` uint8 ``[3, S, S]``, ``input_ids`` int64 ``[L]``, ``proprio`` float32 ``[P]``.
    ``info["discount"] [N]`` is ``gamma ** m`` where m control steps ran.

    Args:
        env: lanes that observe image, proprio and instruction, with autoreset; reward wrappers already around them.
        processor: the policy's.
        config: the policy's.
        num_steps: Euler steps K of the flow.
        gamma: discount per control step.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        processor: Processor,
        config: VlaserConfig,
        num_steps: int,
        gamma: float,
    ) -> None:
        self.act_steps = config.executed_steps
        super().__init__(ChunkActions(env, self.act_steps, gamma))
        self.processor, self.gripper = processor, make_gripper(processor.robot)
        shape = (num_steps + 1, config.horizon, config.action_dim)
        self.single_action_space = spaces.Box(-_CHAIN_LIMIT, _CHAIN_LIMIT, shape, np.float32)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        size = config.image_size
        self._declare(
            spaces.Dict(
                pixels=spaces.Box(0, 255, (3, size, size), np.uint8),
                input_ids=spaces.Box(0, config.vocab_size - 1, (config.max_length,), np.int64),
                proprio=spaces.Box(-np.inf, np.inf, (config.proprio_dim,), np.float32),
            )
        )

    def transform(self, observation: Observation) -> Observation:
        """See :class:`ObservationWrapper`."""
        data = self.processor.transform(observation)
        pixels = np.ascontiguousarray(np.moveaxis(data["pixels"], -1, 1))
        return {"pixels": pixels, "input_ids": data["input_ids"], "proprio": data["proprio"]}

    def on_action(self, actions: NDArray[Any]) -> NDArray[Any]:
        """The last states of chains ``[N, K + 1, H, A]`` -> chunks in environment units ``[N, act_steps, 7]``."""
        lanes = np.arange(self.num_envs)
        return executed_actions(np.asarray(actions)[:, -1], self.processor, self.gripper, lanes, self.act_steps)

    def on_reset(self, observation: Observation, info: Info, mask: Bools) -> tuple[Observation, Info]:
        """New episodes release the grippers."""
        self.gripper.reset(np.flatnonzero(mask))
        return super().on_reset(observation, info, mask)

    def on_step(
        self, observation: Observation, reward: NDArray[Any], terminated: Bools, truncated: Bools, info: Info
    ) -> Step:
        """Add the discount; lanes that ended stand in their next episode already."""
        self.gripper.reset(np.flatnonzero(terminated | truncated))
        info = {**info, "discount": info["chunk"]["discount"]}
        return super().on_step(observation, reward, terminated, truncated, info)

    def get_state(self) -> dict[str, Any]:
        """See :class:`SceneWrapper`."""
        return {"env": self.env.get_state(), "gripper": self.gripper.get_state()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """See :class:`SceneWrapper`."""
        self.env.set_state(state["env"])
        self.gripper.reset(np.arange(self.num_envs))
        self.gripper.set_state(dict(state["gripper"]))


class ChainVecEnv(StableBaselines3VecEnv):
    """:class:`ChainLanes` for Stable-Baselines3.

    A truncated episode says so under ``infos[i]["truncated"]`` and not under ``TimeLimit.truncated``: the rollout loop
    would take that as a request to add the final value with a discount of one decision, whatever its length.
    """

    def __init__(self, lanes: ChainLanes) -> None:
        self.lanes = lanes
        self._actions: NDArray[Any] | None = None
        VecEnv.__init__(self, lanes.num_envs, lanes.single_observation_space, lanes.single_action_space)

    def step_wait(self) -> tuple[dict[str, NDArray[Any]], NDArray[np.float32], NDArray[np.bool_], list[Info]]:
        """Execute the chains."""
        observation, reward, done, infos = super().step_wait()
        for info in infos:
            info["truncated"] = info.pop("TimeLimit.truncated", False)
        return observation, reward, done, infos

    def get_state(self) -> dict[str, Any]:
        """Everything that the future of the episodes depends on."""
        state: dict[str, Any] = self.lanes.get_state()
        return state

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`get_state` gave."""
        self.lanes.set_state(state)
