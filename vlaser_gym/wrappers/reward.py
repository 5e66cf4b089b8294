"""Wrappers that change rewards."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from vlaser_gym.envs.tasks import Task, get_task
from vlaser_gym.envs.vector import STATE_FIELDS
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.registry import REWARDS
from vlaser_gym.wrappers.base import Bools, Info, Observation, SceneWrapper, Step


class SubgoalReward(SceneWrapper):
    """Adds a reward for progress that leaves the best policy the best one (Ng, Harada and Russell, 1999).

    The potential of a state is ``scale`` times the share of the task's sub-goals that the episode has reached so far,
    each counted by its weight.
    Every control step, also those inside a chunk, earns ``gamma * potential_after - potential_before`` on top of its
    reward. Over an episode of T steps the discounted extras add up to ``gamma ** T * potential_T``, whatever happened
    in between.

    How an episode ends matters. After a *terminated* episode nothing is earned any more, so its last potential counts
    as 0: otherwise failing late with many sub-goals would pay. A *truncated* episode would have gone on; a learner that
    adds its own estimate of what comes next (value bootstrapping) needs the potential kept, since its estimate is lower
    by just that. A learner that takes truncation for the end of the world (returns without bootstrapping) should set
    ``zero_when_truncated``.

    Put it below :class:`ChunkActions`, so that the chunk's discounted sum includes the extras.

    Args:
        env: the environments.
        gamma: the learner's discount per control step.
        scale: potential when all sub-goals are reached.
        zero_when_truncated: take the last potential of truncated episodes for 0 too.
        weights: of sub-goals by name, 0 or more; those that are not named weigh 1.

    Raises:
        UnknownNameError: for the weight of a sub-goal that none of the tasks has.
        InvalidConfigError: for numbers outside their ranges.

    Example:
        >>> from vlaser_gym.envs.vector import SceneVectorEnv
        >>> env = SubgoalReward(SceneVectorEnv("widowx_stack_cube", observe=("proprio",)), gamma=0.99)
        >>> _ = env.reset(seed=0)
        >>> _, reward, *_ = env.step(np.zeros((1, 7)))
        >>> reward.tolist()
        [0.0]
        >>> env.close()
    """

    _saved = ("_subgoals", "_reached")

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        gamma: float = 0.99,
        scale: float = 1.0,
        zero_when_truncated: bool = False,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(env)
        if not 0 <= gamma <= 1 or not np.isfinite(scale):
            raise InvalidConfigError(
                f"SubgoalReward needs gamma in [0, 1] and a finite scale; got gamma={gamma}, scale={scale}."
            )
        self.gamma, self.scale, self.zero_when_truncated = gamma, scale, zero_when_truncated
        self.weights = dict(weights or {})
        self._check_weights()
        self._subgoals: list[tuple[str, ...]] = [()] * self.num_envs
        self._reached: list[NDArray[np.bool_]] = [np.zeros(0, bool)] * self.num_envs

    def _check_weights(self) -> None:
        tasks: tuple[Task, ...] = getattr(self.env.unwrapped, "tasks", ())
        names = {name for task in tasks for name in task.subgoals}
        for name, weight in self.weights.items():
            if tasks and name not in names:
                raise UnknownNameError("sub-goal of these tasks", name, names)
            if not 0 <= weight < np.inf:
                raise InvalidConfigError(f"The weight of sub-goal {name} must be a number from 0 on; got {weight}.")
        for task in tasks:
            if not any(self.weights.get(name, 1.0) for name in task.subgoals):
                raise InvalidConfigError(f"All sub-goals of {task.name} weigh 0: give one of them a weight above 0.")

    def _begin(self, lanes: NDArray[np.int64]) -> None:
        addresses = self.addresses
        for i in lanes.tolist():
            self._subgoals[i] = get_task(addresses[i].task).subgoals
            self._reached[i] = np.zeros(len(self._subgoals[i]), bool)

    def on_reset(self, observation: Observation, info: Info, mask: Bools) -> tuple[Observation, Info]:
        """New episodes have reached nothing."""
        self._begin(np.flatnonzero(mask))
        return observation, info

    def on_step(
        self, observation: Observation, reward: NDArray[Any], terminated: Bools, truncated: Bools, info: Info
    ) -> Step:
        """Add the extras to every control step and to the sum."""
        final = terminated | truncated if self.zero_when_truncated else terminated
        chunk = info["chunk"]
        extra = np.zeros(chunk["ran"].shape)
        for i in np.flatnonzero(chunk["ran"].any(1)):
            steps = int(chunk["ran"][i].sum())
            extra[i, :steps] = self._extras(int(i), chunk["flags"], steps, bool(final[i]))
        self._begin(np.flatnonzero(terminated | truncated))
        info = {**info, "chunk": {**chunk, "reward": chunk["reward"] + extra}}
        return observation, reward + extra.sum(1), terminated, truncated, info

    def _extras(self, lane: int, flags: Mapping[str, Bools], steps: int, final: bool) -> NDArray[np.float64]:
        """``[steps]`` extras of one environment; remembers the sub-goals reached."""
        now = np.stack([flags[name][lane, :steps] for name in self._subgoals[lane]], 1)
        reached = np.logical_or.accumulate(np.concatenate([self._reached[lane][None], now]), 0)
        self._reached[lane] = reached[-1]
        potential = self.scale * self._share(lane, reached)
        if final:
            potential[-1] = 0.0
        return np.asarray(self.gamma * potential[1:] - potential[:-1])

    def _share(self, lane: int, reached: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Weighted share of the sub-goals in ``reached [steps, sub-goals]``."""
        if not self.weights:
            return np.asarray(reached.mean(1))
        weights = np.array([self.weights.get(name, 1.0) for name in self._subgoals[lane]])
        return np.asarray(reached @ weights / weights.sum())


class LastStepReward(SceneWrapper):
    """Replaces the reward by 1 for success at an episode's last step, as the benchmark counts it.

    Who is rewarded for a first success learns nothing about what comes after it, and may well undo it. Here the time
    limit belongs to the task: an episode that reaches it is *terminated*, and nothing is worth anything beyond. Put it
    over environments that do not end at success, below :class:`ChunkActions`.

    Args:
        env: the environments.

    Example:
        >>> from vlaser_gym.envs.vector import SceneVectorEnv
        >>> env = LastStepReward(SceneVectorEnv("widowx_stack_cube", observe=("proprio",)))
        >>> _ = env.reset(seed=0)
        >>> ends = [env.step(np.zeros((1, 7)))[1:4] for _ in range(60)][-1]
        >>> [end.tolist() for end in ends]
        [[0.0], [True], [False]]
        >>> env.close()
    """

    ends_at_success: ClassVar[bool] = False

    def on_step(
        self, observation: Observation, reward: NDArray[Any], terminated: Bools, truncated: Bools, info: Info
    ) -> Step:
        """Reward the last control step of episodes that end in success."""
        chunk, done = info["chunk"], terminated | truncated
        lanes = np.flatnonzero(done)
        last = chunk["ran"][lanes].sum(1) - 1
        rewards = np.zeros_like(chunk["reward"])
        rewards[lanes, last] = chunk["flags"]["success"][lanes, last]
        info = {**info, "chunk": {**chunk, "reward": rewards}}
        return observation, rewards.sum(1), done, np.zeros_like(truncated), info


class ReachReward(SceneWrapper):
    """Replaces the reward by one for bringing the tool to the object that the task is about.

    A first goal for learners that begin with nothing, before they grasp. Every step, or chunk, earns
    ``1 - tanh(distance / scale)``, where the distance is between TCP and object at its end; ``info["reached"] [N]``
    says whether it is below ``radius``. Episodes end as they did.

    Args:
        env: environments that observe ``state``.
        scale: distance (m) at which the reward is 0.24.
        radius: of the goal (m).

    Example:
        >>> from vlaser_gym.envs.vector import SceneVectorEnv
        >>> env = ReachReward(SceneVectorEnv("widowx_stack_cube", observe=("state",)))
        >>> observation, _ = env.reset(options={"layout": 0})
        >>> _, reward, _, _, info = env.step(np.zeros((1, 7)))
        >>> bool(0 < reward[0] < 0.5), info["reached"].tolist()
        (True, [False])
        >>> env.close()
    """

    observes: ClassVar[tuple[str, ...]] = ("state",)

    def __init__(self, env: VectorEnv[Any, Any, Any], scale: float = 0.25, radius: float = 0.04) -> None:
        super().__init__(env)
        space = env.single_observation_space
        if not isinstance(space, spaces.Dict) or "state" not in space.spaces:
            raise InvalidConfigError("ReachReward measures distances in the state: observe it too (observe='state').")
        if not (scale > 0 and radius > 0):
            raise InvalidConfigError(f"ReachReward needs scale and radius above 0; got {scale} and {radius}.")
        self.scale, self.radius = scale, radius

    def on_step(
        self, observation: Observation, reward: NDArray[Any], terminated: Bools, truncated: Bools, info: Info
    ) -> Step:
        """Measure where every environment's step ended, for an environment that begins anew at the end of its last
        episode.
        """
        state = observation["state"].copy()
        for i in np.flatnonzero(info.get("_final_obs", np.zeros(self.num_envs, bool))):
            state[i] = info["final_obs"][i]["state"]
        tcp, source = state[:, STATE_FIELDS["tcp"]][:, :3], state[:, STATE_FIELDS["source"]][:, :3]
        distance = np.linalg.norm(tcp - source, axis=1).astype(np.float64)
        info = {**info, "reached": distance < self.radius, "_reached": np.ones(self.num_envs, bool)}
        return observation, 1 - np.tanh(distance / self.scale), terminated, truncated, info


def sparse(env: Any) -> Any:
    """The environment's own reward, 1 at success."""
    return env


_OWN: dict[str, Callable[..., Any]] = {
    "sparse": sparse,
    "subgoals": SubgoalReward,
    "last": LastStepReward,
    "reach": ReachReward,
}


class Reward:
    """The reward that ``algo.reward`` names: built in, registered, or ``module:Class``.

    Args:
        name: of it.
        gamma: the learner's discount per control step.
        weights: of sub-goals.

    Attributes:
        observes: what it reads of the observations, whatever the learner reads.
        ends_at_success: whether episodes end at their first success.

    Raises:
        UnknownNameError: for a name of nothing.
        InvalidConfigError: for an import string that does not import.
    """

    def __init__(self, name: str, gamma: float, weights: Mapping[str, float] | None = None) -> None:
        self.name, self._settings = name, {"gamma": gamma, "weights": weights}
        self._wrapper: Callable[..., Any] = _OWN[name] if name in _OWN else REWARDS.find(name)
        self.observes = tuple(getattr(self._wrapper, "observes", ()))
        self.ends_at_success = bool(getattr(self._wrapper, "ends_at_success", True))

    def __call__(self, env: Any) -> Any:
        """Wrap environments.

        Raises:
            InvalidConfigError: for weights that it does not read, or if what it gives is no environment.
        """
        names = inspect.signature(self._wrapper).parameters
        if self._settings["weights"] and "weights" not in names:
            raise InvalidConfigError(f"algo.reward={self.name} reads no algo.subgoal_weights; leave them out.")
        wrapped = self._wrapper(env, **{key: value for key, value in self._settings.items() if key in names})
        if not hasattr(wrapped, "step_chunk"):
            raise InvalidConfigError(
                f"algo.reward={self.name} should wrap the environment, as a subclass of SceneWrapper does; got "
                f"{type(wrapped).__name__}."
            )
        return wrapped
