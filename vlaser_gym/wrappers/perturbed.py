"""The wrapper that perturbs images, instructions and actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.conventions import get_convention
from vlaser_gym.envs.perturbations import Perturbation
from vlaser_gym.envs.perturbations.base import REMEMBERED
from vlaser_gym.envs.robots import is_image
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.wrappers.base import Bools, Info, Observation, SceneWrapper, Step

#: How far an object may have been lifted and is still displaced, m.
_ON_THE_TABLE = 0.01
#: Distance of an object from the TCP within which fingers may touch it, m.
_GRIPPER_NEAR = 0.06


class Perturbed(SceneWrapper):
    """Applies a perturbation to images, words, proprioception and actions of every environment.

    What it does to an environment depends on the environment's address and control step alone: observations may be
    asked for twice, and environments may share a batch with any others. Initial states, light and cameras are the
    environment's own business (``SceneVectorEnv(perturbation=...)``). Recorded actions are those that were executed,
    recorded instructions those that were told.

    Args:
        env: environments with autoreset mode DISABLED, of an environment that was made with the same perturbation.
        perturbation: what to apply.

    Raises:
        InvalidConfigError: if the environment was made without it.
    """

    _saved = ("_previous", "_heights", "_shifted")

    def __init__(self, env: SceneVectorEnv, perturbation: Perturbation) -> None:
        super().__init__(env)
        if env.perturbation is not perturbation:
            raise InvalidConfigError("Perturbed needs SceneVectorEnv(perturbation=...) with the same perturbation.")
        self.perturbation = perturbation
        convention = get_convention(env.robot)
        opens = 1.0 if convention.action_part("gripper").positive == "opens" else -1.0
        self._idle = np.array([0, 0, 0, 0, 0, 0, opens])
        self._previous = np.tile(self._idle, (env.num_envs, REMEMBERED, 1))
        self._heights = np.zeros(env.num_envs)
        self._shifted = np.zeros(env.num_envs, bool)

    @property
    def engine(self) -> Any:
        """The engine."""
        return self.env.engine

    def advance_to_next_subtask(self, lanes: NDArray[np.int64]) -> None:
        """See :meth:`SceneVectorEnv.advance_to_next_subtask`."""
        self.env.advance_to_next_subtask(lanes)

    def on_reset(self, observation: Observation, info: Info, mask: Bools) -> tuple[Observation, Info]:
        """Reset the memory of the environments."""
        self._previous[mask] = self._idle
        self._shifted[mask] = False
        self._heights[mask] = [lane.source_pose[2] for lane, fresh in zip(self.env.lanes, mask, strict=True) if fresh]
        if "initial_states" in info:
            info = {**info, "initial_states": [self._recorded(i, of) for i, of in enumerate(info["initial_states"])]}
        return self._observed(observation), info

    def on_action(self, actions: NDArray[Any]) -> NDArray[Any]:
        """Displace objects whose time has come; what is executed in place of what was decided."""
        if self.perturbation.changes("shift"):
            for i, lane in enumerate(self.env.lanes):
                shift = self.perturbation.shift(self.perturbation.moment(lane.address))
                if shift is None or lane.ended or self._shifted[i] or lane.elapsed < shift.step:
                    continue
                if lane.source_pose[2] > self._heights[i] + _ON_THE_TABLE:
                    self._shifted[i] = True  # it was lifted
                else:
                    self._displace(i, np.array(shift.offset))
        if not self.perturbation.changes("actions"):
            return actions
        chunks = np.array(actions if actions.ndim == 3 else actions[:, None], np.float64)
        for i, lane in enumerate(self.env.lanes):
            if not lane.ended:
                moment = self.perturbation.moment(lane.address, lane.elapsed)
                decided, previous = chunks[i].copy(), self._previous[i]
                chunks[i] = self.perturbation.actions(decided, previous, moment)
                self._previous[i] = np.concatenate([previous, decided])[-REMEMBERED:]
        return chunks if actions.ndim == 3 else chunks[:, 0]

    def on_step(
        self, observation: Observation, reward: NDArray[Any], terminated: Bools, truncated: Bools, info: Info
    ) -> Step:
        """Perturb the observation of a step."""
        if "states" in info:
            info = {**info, "states": [self._recorded(i, of) for i, of in enumerate(info["states"])]}
            for name in self.perturbation.flags:
                info = self._with_goal(info, name)
        return self._observed(observation), reward, terminated, truncated, info

    def _with_goal(self, info: Info, name: str) -> Info:
        """Tell by a flag whether the source is where it usually belongs; only where states are recorded."""
        ran = np.asarray(info["chunk"]["ran"], bool)
        reached = np.zeros(ran.shape, bool)
        for i, lane in enumerate(self.env.lanes):
            if ran[i].any():
                states = info["states"][i]
                poses = np.stack([states[f"object/{body.name}"] for body in lane.objects], 1)
                usual = self.perturbation.original_target(self.perturbation.moment(lane.address))
                reached[i, ran[i]] = lane.task.at_goal(poses, lane.layout, usual)
        last = reached[np.arange(len(ran)), np.maximum(ran.sum(1) - 1, 0)]
        flags = {**info["chunk"]["flags"], name: reached}
        return {**info, "chunk": {**info["chunk"], "flags": flags}, name: last, f"_{name}": ran.any(1)}

    def _observed(self, observation: Observation) -> Observation:
        """An observation of all environments as the agent gets it."""
        told: Observation = {}
        seen = self.perturbation
        moments = [seen.moment(lane.address, lane.elapsed) for lane in self.env.lanes]
        for name, values in observation.items():
            if is_image(name) and seen.changes("picture"):
                told[name] = np.stack([seen.picture(*row) for row in zip(values, moments, strict=True)])
            elif name == "proprio" and seen.changes("proprio"):
                rows = [seen.proprio(np.asarray(row, np.float64), at) for row, at in zip(values, moments, strict=True)]
                told[name] = np.array(rows, values.dtype)
            elif name == "instruction" and seen.changes("instruction"):
                told[name] = tuple(seen.instruction(*row) for row in zip(values, moments, strict=True))
        return {**observation, **told}

    def _recorded(self, index: int, states: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """An environment's recorded states with the sentences that were told."""
        if not states or "instruction" not in states or not self.perturbation.changes("instruction"):
            return states
        moment = self.perturbation.moment(self.env.lanes[index].address)
        true = np.asarray(states["instruction"])
        said = {text: self.perturbation.instruction(text, moment) for text in np.unique(true).tolist()}
        told = np.array([said[text] for text in true.ravel().tolist()]).reshape(true.shape)
        return {**states, "instruction": told}

    def _displace(self, index: int, offset: NDArray[np.float64]) -> None:
        """Displace an environment's object, if need be in another direction; where none is free wait for the next
        decision.

        A place is free if the way there does not lead towards the nearest neighbour and the gripper is not near.
        """
        lane = self.env.lanes[index]
        source = lane.task.source if lane.layout.source is None else lane.layout.source
        places, gripper = lane.reading.object_pose[:, :3], self.env.tcp_position(index)
        away = places[source, :2] - np.delete(places[:, :2], source, 0)
        nearest = away[np.argmin((away**2).sum(1))] if len(away) else np.zeros(2)
        if np.linalg.norm(places[source] - gripper) < _GRIPPER_NEAR:
            return
        for way in (offset, -offset, offset[::-1] * [-1, 1], offset[::-1] * [1, -1]):
            there = places[source] + [*way, 0.0]
            if way @ nearest >= 0 and np.linalg.norm(there - gripper) >= _GRIPPER_NEAR:
                self._shifted[index] = True
                self.env.displace(index, source, (float(way[0]), float(way[1])))
                return
