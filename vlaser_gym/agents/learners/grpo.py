"""Group-relative policy optimisation (arXiv 2402.03300) of the flow policy: PPO with groups of episodes for a critic.

The lanes of a group run the same initial states, one after another, with different noise. An episode's advantage is how
much better it went than the group did, and all its decisions share it. Rollouts are whole episodes: a lane that is
through with one begins the next of its group's at once, and stands still, at no cost, when none is left.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlaser_gym.agents.learners.actor_critic import Decision, FlowActorCritic
from vlaser_gym.agents.learners.advantages import group_advantages
from vlaser_gym.agents.learners.buffer import ChainBuffer, Ints, Outcome
from vlaser_gym.agents.learners.lanes import ChainLanes, ChainVecEnv
from vlaser_gym.agents.learners.ppo import FlowPPO, seed_of
from vlaser_gym.agents.learners.ppo_settings import GrpoSettings
from vlaser_gym.agents.vlaser.policy import VisionLanguage, VlaserPolicy
from vlaser_gym.agents.vlaser.processor import Processor
from vlaser_gym.wrappers.base import Bools, Info


class GroupVecEnv(ChainVecEnv):
    """Lanes in groups: lane i is member ``i % size`` of group ``i // size``.

    Every member runs the group's ``rounds`` initial states in the same order, each at its own pace.

    Args:
        lanes: without autoreset; episodes end with success.
        tasks: names; rounds go through them, group after group.
        size: lanes per group; divides the number of lanes.
        rounds: initial states per group and rollout.
        decisions: the longest episode, in decisions.
        first: this process's first group among those of all processes.
    """

    def __init__(
        self, lanes: ChainLanes, tasks: Sequence[str], size: int, rounds: int, decisions: int, first: int = 0
    ) -> None:
        super().__init__(lanes)
        self.tasks, self.size, self.rounds = tuple(tasks), size, rounds
        #: Decisions that a rollout can take at most.
        self.n_steps = rounds * decisions
        #: Which of its group's initial states a lane runs; ``rounds`` when it is through.
        self.round = np.full(self.num_envs, rounds)
        self._group, self._rollout = first + np.arange(self.num_envs) // size, 0

    @property
    def active(self) -> Bools:
        """Lanes that are not through, ``[N]``."""
        return np.asarray(self.round < self.rounds)

    def start(self, rollout: int) -> dict[str, NDArray[Any]]:
        """Begin a rollout; its number fixes all initial states."""
        self._rollout = rollout
        self.round[:] = 0
        return self._place(np.ones(self.num_envs, bool))

    def reset(self) -> dict[str, NDArray[Any]]:
        """The last rollout from its beginning."""
        return self.start(self._rollout)

    def _place(self, mask: Bools) -> dict[str, NDArray[Any]]:
        """Begin the next episodes of the lanes in ``mask``: one seed, hence one layout, for a group's members."""
        states = zip(self._group.tolist(), self.round.tolist(), strict=True)
        seeds = [seed_of(self._rollout, group, turn) for group, turn in states]
        numbers = (self._group * self.rounds + self.round) % len(self.tasks)
        options = {
            "reset_mask": mask,
            "task": [self.tasks[number] for number in numbers],
            "trial": (np.arange(self.num_envs) % self.size).tolist(),
        }
        observation, _ = self.lanes.reset(seed=seeds, options=options)
        return dict(observation)

    def step_wait(self) -> tuple[dict[str, NDArray[Any]], NDArray[np.float32], NDArray[np.bool_], list[Info]]:
        """Execute the chains of the active lanes."""
        observation, reward, terminated, truncated, info = self.lanes.step(self._actions)
        done = terminated | truncated
        infos = self._lane_infos(info)
        for i, lane in enumerate(infos):
            lane["truncated"], lane["is_success"] = bool(truncated[i]), bool(info["success"][i])
        self.round[done] += 1
        again = done & self.active
        return self._place(again) if again.any() else observation, reward.astype(np.float32), done, infos

    def get_state(self) -> dict[str, Any]:
        """See :class:`ChainVecEnv`."""
        return {**super().get_state(), "round": self.round.copy(), "rollout": self._rollout}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """See :class:`ChainVecEnv`."""
        super().set_state(state)
        self.round, self._rollout = state["round"].copy(), state["rollout"]


@dataclass(frozen=True)
class GroupDecision(Decision):
    """Of the active lanes; ``stochastic`` has a row for every lane.

    Attributes:
        active: which lanes decided, ``[N]``.
    """

    active: Bools


class GroupActor(FlowActorCritic):
    """Decides for active lanes only, and has no critic."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, critic=False)
        #: Whose decision is asked for; whoever rolls out sets it.
        self.active: Bools | None = None

    def forward(self, observation: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Chains, values (0) and log-probabilities of all lanes; zeros for those that stand still."""
        assert self.active is not None
        assert self.draws is not None
        everyone, rows = self.draws, torch.from_numpy(np.flatnonzero(self.active))
        shape = (len(self.active), self.density.num_steps + 1, *everyone.noise.shape[1:])
        chain, log_prob = torch.zeros(shape), torch.zeros(len(self.active), dtype=torch.float64)
        encoded = VisionLanguage((), torch.zeros(0))
        if len(rows):
            self.draws = everyone.rows(rows)
            some, _, likelihood = super().forward({name: values[rows] for name, values in observation.items()})
            chain[rows], log_prob[rows] = some.cpu(), likelihood.cpu()
            assert self.decision is not None
            encoded = self.decision.vision_language
        self.draws, self.decision = everyone, GroupDecision(encoded, everyone.stochastic, self.active)
        return chain, torch.zeros(len(self.active)), log_prob


class GroupBuffer(ChainBuffer):
    """One rollout of whole episodes; rows of lanes that stood still are left out of the update.

    Attributes:
        group_size: lanes per group.
        active: which rows are decisions, ``[T, N]``.
        successes: of the episodes, ``[groups, size, rounds]``, after the rollout.
    """

    group_size = 1
    active: Bools
    successes: NDArray[np.float64]

    def reset(self) -> None:
        """See :class:`ChainBuffer`."""
        super().reset()
        self.active = np.zeros((self.buffer_size, self.n_envs), bool)

    @property
    def learnt_from(self) -> Ints:
        """Decisions of groups whose members fared differently."""
        return np.flatnonzero(self.advantages)

    def note(self, decision: Decision, outcome: Outcome) -> None:
        """See :class:`ChainBuffer`."""
        assert isinstance(decision, GroupDecision)
        self.active[self.pos] = decision.active
        super().note(decision, outcome)

    def compute_returns_and_advantage(self, last_values: Tensor, dones: NDArray[Any]) -> None:
        """The episodes' advantages, for each of their decisions; see :func:`group_advantages`."""
        rounds = int(self.dones.sum(0).max())
        episode = np.minimum(np.cumsum(self.dones, 0) - self.dones, rounds - 1)
        lane = np.broadcast_to(np.arange(self.n_envs), episode.shape)
        successes = np.zeros((self.n_envs, rounds))
        np.add.at(successes, (lane, episode), self.rewards)
        self.successes = successes.reshape(-1, self.group_size, rounds)
        advantages = group_advantages(self.successes).reshape(self.n_envs, rounds)
        self.advantages = np.where(self.active, advantages[lane, episode], 0.0)
        # Prefixes of active rows only were kept.
        self.slots = np.cumsum(self.active) - 1


class FlowGRPO(FlowPPO):
    """:class:`FlowPPO` without critic; see there for the arguments.

    Minibatches have about ``batch_size`` decisions: an iteration's useful decisions are cut into equal parts.

    Raises:
        InvalidConfigError: if groups do not fill the lanes.
    """

    networks = GroupActor
    buffer = GroupBuffer
    policy: GroupActor
    rollout_buffer: GroupBuffer
    settings: GrpoSettings
    env: GroupVecEnv

    def __init__(
        self,
        policy: VlaserPolicy,
        processor: Processor,
        env: GroupVecEnv,
        settings: GrpoSettings,
        path: str | Path,
        **options: Any,
    ) -> None:
        super().__init__(policy, processor, env, dataclasses.replace(settings, n_steps=env.n_steps), path, **options)
        self.rollout_buffer.group_size = env.size

    def _check_sizes(self, num_envs: int) -> None:
        self.settings.check(num_envs)

    def collect_rollouts(self, *args: Any, **kwargs: Any) -> bool:
        """Whole episodes of fresh groups."""
        self._last_obs = self.env.start(seed_of(self.run_seed, self.iteration, 2))
        return super().collect_rollouts(*args, **kwargs)

    def _draw(self) -> None:
        super()._draw()
        self.policy.active = self.env.active

    def _final_values(self, infos: list[dict[str, Any]], dones: Bools) -> NDArray[np.float64]:
        return np.zeros(len(infos))

    def _normalize_advantages(self) -> None:
        """They are, within each group."""

    def _update_learning_rate(self, optimizers: Any) -> None:
        super()._update_learning_rate(self.actor_optimizer)

    def _minibatches(self) -> Iterator[Ints]:
        """Parts of the useful decisions of all processes; each process gets its own of them."""
        lanes, rank = self.rollout_buffer.n_envs, self.workers.rank
        everyone = lanes * self.workers.size
        step, lane = np.divmod(self.rollout_buffer.learnt_from, lanes)
        rows = np.sort(np.concatenate(self._gather(step * everyone + rank * lanes + lane)))
        parts = max(1, round(len(rows) / self.settings.batch_size))
        for epoch in range(self.n_epochs if len(rows) else 0):
            order = np.random.default_rng(seed_of(self.run_seed, self.iteration, epoch, 1)).permutation(rows)
            for part in np.array_split(order, parts):
                step, lane = np.divmod(part, everyone)
                mine = lane // lanes == rank
                yield step[mine] * lanes + lane[mine] % lanes

    def _log(self, means: Tensor, updates: int, first_error: float) -> None:
        super()._log(means, updates, first_error)
        buffer = self.rollout_buffer
        varied = buffer.successes.std(1) > 0
        counts = [buffer.successes.size, buffer.successes.sum(), varied.size, varied.sum(), buffer.active.sum()]
        episodes, successes, groups, useful, decisions = self._total(torch.tensor(counts, dtype=torch.float64)).tolist()
        self.logger.record("rollout/success", successes / episodes)
        self.logger.record("rollout/useful_groups", useful / groups)
        self.logger.record("rollout/decisions", decisions)
