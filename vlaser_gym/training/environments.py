"""The environments of reinforcement learning, as a learner sees them: a policy's inputs in, its chunks out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from vlaser_gym.agents.trainable import TrainableAgent
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.settings.algorithms import GrpoSettings, PpoSettings
from vlaser_gym.training.distributed import ProcessGroup
from vlaser_gym.training.privileged import PrivilegedState
from vlaser_gym.training.seeds import seed_of
from vlaser_gym.wrappers.action import ChunkActions
from vlaser_gym.wrappers.reward import Reward

Bools = NDArray[np.bool_]
Inputs = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Outcome:
    """The outcome of one decision in each of N environments.

    Attributes:
        rewards: discounted sum over a decision's control steps, fp32 ``[N]``.
        discounts: ``gamma ** m`` for the m control steps that ran, ``[N]``.
        dones: whether the episode ended, ``[N]``.
        truncated: environments whose episode was cut off by the time limit.
        final_inputs: what a policy reads of the observations that those ended with, one row each.
        successes: of the episodes that ended.
        executed: which actions of the chunks ran, ``[N, act_steps]``.
        final_privileged: what a critic reads of the simulator in what those ended with, one row each, if it does.
    """

    rewards: NDArray[np.float32]
    discounts: NDArray[np.float64]
    dones: Bools
    truncated: NDArray[np.int64]
    final_inputs: Inputs
    successes: list[bool]
    executed: Bools
    final_privileged: NDArray[np.float32] | None = None


class LearningEnv:
    """Environments whose observations are a policy's inputs and whose actions are its chunks, not clamped.

    Clamping, denormalisation and the gripper's memory are on this side, so that a learner keeps decisions as they were
    drawn.

    Args:
        env: a vector environment with autoreset SAME_STEP; reward wrappers already around it.
        agent: says what it reads and what its chunks mean.
        gamma: discount per control step.
        tasks: names of those that the environments run, where something depends on it.
        reader: what a critic reads of the simulator; the environments then observe ``state``.
    """

    def __init__(
        self,
        env: Any,
        agent: TrainableAgent,
        gamma: float,
        tasks: Sequence[str] = (),
        reader: PrivilegedState | None = None,
    ) -> None:
        self.env = ChunkActions(env, agent.act_steps, gamma)
        self.agent, self.decoder, self.num_envs = agent, agent.make_decoder(), env.num_envs
        self.tasks, self.reader = np.array(tasks or [""] * self.num_envs), reader
        #: What the policy reads now, a row per environment.
        self.inputs: Inputs = {}
        #: What a critic reads of the simulator now, ``[N, P]``, if it does.
        self.privileged: NDArray[np.float32] | None = None
        #: Environments that wait for a decision, ``[N]``.
        self.active: Bools = np.ones(self.num_envs, bool)

    @property
    def simulator(self) -> str:
        """Name and version of the engine."""
        return str(cast(Any, self.env).unwrapped.simulator)

    def reset(self, seed: int) -> None:
        """Begin; environment i draws its layouts from ``seed + i``."""
        observation, _ = self.env.reset(seed=[seed + i for i in range(self.num_envs)])
        self.decoder.reset(np.arange(self.num_envs))
        self.inputs = self.agent.transform(observation)
        if self.reader is not None:
            self.privileged = self.reader.rows(observation["state"], self.tasks)

    def step(self, chunk: NDArray[Any]) -> Outcome:
        """Execute chunks ``[N, H, A]``."""
        actions = self.decoder(chunk, np.arange(self.num_envs))
        observation, rewards, terminated, truncated, info = self.env.step(actions)
        dones = terminated | truncated
        self.decoder.reset(np.flatnonzero(dones))
        self.inputs = self.agent.transform(observation)
        cut = np.flatnonzero(truncated & ~terminated) if "final_obs" in info else np.zeros(0, np.int64)
        last = [info["final_obs"][i] for i in cut]
        # Sentences stay a tuple; arrays are stacked.
        rows = {name: tuple(observation[name] for observation in last) for name in (last[0] if last else ())}
        final: dict[str, Any] = {k: v if k == "instruction" else np.stack(v) for k, v in rows.items()}
        final_privileged = None
        if self.reader is not None:
            progress = self.reader.progress(info)
            self.privileged = self.reader.rows(observation["state"], self.tasks, progress * ~dones[:, None])
            final_privileged = self.reader.rows(final["state"], self.tasks[cut], progress[cut]) if final else None
        return Outcome(
            rewards=rewards.astype(np.float32),
            discounts=info["chunk"]["discount"],
            dones=dones,
            truncated=cut,
            final_inputs=self.agent.transform(final) if final else {},
            successes=np.asarray(info["success"])[dones].tolist(),
            executed=info["chunk"]["ran"],
            final_privileged=final_privileged,
        )

    def get_state(self) -> dict[str, Any]:
        """Everything that the future of the episodes depends on."""
        return {
            "snapshot": {"env": self.env.get_state(), "gripper": self.decoder.get_state()},
            "observation": self.inputs,
            "privileged": self.privileged,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`get_state` gave."""
        self.env.set_state(state["snapshot"]["env"])
        self.decoder.reset(np.arange(self.num_envs))
        self.decoder.set_state(dict(state["snapshot"]["gripper"]))
        self.inputs = {name: np.asarray(values) for name, values in state["observation"].items()}
        self.privileged = state.get("privileged")
        pixels = self.inputs.get("pixels")
        if pixels is not None and pixels.shape[1] == 3 != pixels.shape[3]:
            # Runs of the first edition kept images with their channels first.
            self.inputs["pixels"] = np.ascontiguousarray(np.moveaxis(pixels, 1, -1))

    def close(self) -> None:
        """Stop the engine."""
        self.env.close()


class GroupEnv(LearningEnv):
    """Environments in groups: environment i is member ``i % size`` of group ``i // size``.

    Every member runs the group's ``rounds`` initial states in the same order, each at its own pace, and stands still
    when it is through.

    Args:
        env: without autoreset; episodes end with success.
        agent, gamma: see :class:`LearningEnv`.
        tasks: names; rounds go through them, group after group.
        size: environments per group; divides their number.
        rounds: initial states per group and rollout.
        first: this process's first group among those of all processes.
    """

    def __init__(
        self,
        env: Any,
        agent: TrainableAgent,
        gamma: float,
        *,
        tasks: Sequence[str],
        size: int,
        rounds: int,
        first: int = 0,
    ) -> None:
        super().__init__(env, agent, gamma)
        self.in_turn, self.size, self.rounds = tuple(tasks), size, rounds
        #: Which of its group's initial states an environment runs; ``rounds`` when it is through.
        self.round = np.full(self.num_envs, rounds)
        self.active = np.zeros(self.num_envs, bool)
        self._group, self._rollout = first + np.arange(self.num_envs) // size, 0

    def reset(self, seed: int) -> None:
        """Begin a rollout; the seed fixes all initial states."""
        self._rollout = seed
        self.round[:], self.active[:] = 0, True
        self._place(self.active.copy())

    def _place(self, mask: Bools) -> None:
        """Begin the next episodes in ``mask``: one seed, hence one layout, for a group's members."""
        states = zip(self._group.tolist(), self.round.tolist(), strict=True)
        seeds = [seed_of(self._rollout, group, turn) for group, turn in states]
        numbers = (self._group * self.rounds + self.round) % len(self.in_turn)
        options = {
            "reset_mask": mask,
            "task": [self.in_turn[number] for number in numbers],
            "trial": (np.arange(self.num_envs) % self.size).tolist(),
        }
        observation, _ = self.env.reset(seed=seeds, options=options)
        self.decoder.reset(np.flatnonzero(mask))
        self.inputs = self.agent.transform(observation)

    def step(self, chunk: NDArray[Any]) -> Outcome:
        """See :class:`LearningEnv`."""
        outcome = super().step(chunk)
        self.round[outcome.dones] += 1
        self.active = np.asarray(self.round < self.rounds)
        again = outcome.dones & self.active
        if again.any():
            self._place(again)
        return outcome

    def get_state(self) -> dict[str, Any]:
        """See :class:`LearningEnv`."""
        state = super().get_state()
        state["snapshot"] |= {"round": self.round.copy(), "rollout": self._rollout}
        return state

    def set_state(self, state: Mapping[str, Any]) -> None:
        """See :class:`LearningEnv`."""
        super().set_state(state)
        self.round, self._rollout = state["snapshot"]["round"].copy(), state["snapshot"]["rollout"]
        self.active = np.asarray(self.round < self.rounds)


def make_learning_env(
    tasks: Sequence[str],
    num_envs: int,
    agent: TrainableAgent,
    settings: PpoSettings,
    *,
    group: ProcessGroup | None = None,
    layouts: str = "region",
    make: Callable[..., Any] = SceneVectorEnv,
    **engine: Any,
) -> LearningEnv:
    """This process's ``num_envs`` environments, ended by success unless the reward is for the last step. Of a
    region they draw layouts that evaluation never draws.

    Args:
        tasks: of one robot; environment i runs ``tasks[i % len(tasks)]``, counted over all processes. A name may come
            more than once.
        num_envs: environments of each process.
        agent: acts in them.
        settings: discount, reward and groups.
        group: the processes that train together.
        layouts: their kind.
        make: builds the vector environment.
        engine: ``engine``, ``look`` and ``engine_options`` of the environment.

    Raises:
        InvalidConfigError: if there are fewer environments than tasks, or groups do not fill the environments.
    """
    group = group or ProcessGroup()
    in_groups = isinstance(settings, GrpoSettings)
    check_shares(tasks, task_slots(num_envs, settings, group))
    first = group.rank * num_envs
    reward = Reward(settings.reward, settings.gamma, settings.subgoal_weights)
    reader = PrivilegedState(tasks) if settings.critic == "state" else None
    privileged = () if reader is None else ("state",)
    turns = [tasks[(first + i) % len(tasks)] for i in range(max(num_envs, len(tasks)))]
    env: Any = make(
        list(tasks) if in_groups else turns,
        num_envs,
        layouts=layouts,
        observe=tuple(dict.fromkeys((*agent.observes, *reward.observes, *privileged))),
        terminate_on_success=reward.ends_at_success,
        autoreset_mode=AutoresetMode.DISABLED if in_groups else AutoresetMode.SAME_STEP,
        **engine,
    )
    env = reward(env)
    if isinstance(settings, GrpoSettings):
        size = settings.group_size
        return GroupEnv(env, agent, settings.gamma, tasks=tasks, size=size, rounds=settings.rounds, first=first // size)
    return LearningEnv(env, agent, settings.gamma, turns[:num_envs], reader)


def task_slots(num_envs: int, settings: PpoSettings, group: ProcessGroup) -> int:
    """Places in which tasks take turns: environments of all processes, or, for GRPO, initial states in a rollout.

    Raises:
        InvalidConfigError: if groups do not fill the environments.
    """
    if not isinstance(settings, GrpoSettings):
        return group.size * num_envs
    if num_envs % settings.group_size:
        raise InvalidConfigError(
            f"num_envs must be a multiple of algo.group_size={settings.group_size}, as environments of a group run "
            f"together; got {num_envs}."
        )
    return group.size * (num_envs // settings.group_size) * settings.rounds


def check_shares(tasks: Sequence[str], slots: int) -> None:
    """Raise :class:`InvalidConfigError` if tasks take turns in fewer slots: some would never be trained."""
    if slots < len(tasks):
        raise InvalidConfigError(
            f"{len(tasks)} tasks need as many environments, or initial states of a GRPO rollout, over all processes; "
            f"got {slots}: raise num_envs to a multiple of {len(tasks)}, or name fewer tasks with task=."
        )
