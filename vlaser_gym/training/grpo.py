"""Group-relative policy optimisation (arXiv 2402.03300): the other episodes from the same initial state are the critic.

The environments of a group run the same initial states, one after another, with different noise. An episode's
advantage is how much better it went than the group did, and all its decisions share it. Rollouts are whole episodes: an
environment that is through with one begins the next of its group's at once, and stands still, at no cost, when none is
left.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlaser_gym.agents.trainable import TrainableAgent
from vlaser_gym.settings.algorithms import GrpoSettings
from vlaser_gym.training.advantages import group_advantages
from vlaser_gym.training.environments import GroupEnv
from vlaser_gym.training.job import Job
from vlaser_gym.training.on_policy import Means, OnPolicyTrainer
from vlaser_gym.training.ppo import clipped_surrogate
from vlaser_gym.training.rollout import Batch, Rollout
from vlaser_gym.training.seeds import seed_of
from vlaser_gym.training.trainer import RunOptions


class GRPO(OnPolicyTrainer):
    """Minibatches have about ``batch_size`` decisions: an iteration's useful ones are cut into equal parts.

    Args:
        agent, path, options: see :class:`OnPolicyTrainer`.
        env: environments in groups.
        settings: see :class:`GrpoSettings`.
        decisions: the longest episode, in decisions.
    """

    env: GroupEnv
    settings: GrpoSettings

    def __init__(
        self,
        agent: TrainableAgent,
        env: GroupEnv,
        settings: GrpoSettings,
        path: str | Path,
        options: RunOptions | None = None,
        *,
        decisions: int | None = None,
    ) -> None:
        self.longest = decisions or max(
            -(-task.max_steps // agent.act_steps) for task in cast(Any, env.env).unwrapped.tasks
        )
        super().__init__(agent, env, settings, path, options)

    @property
    def rollout_steps(self) -> int:
        """As many decisions as a group's episodes can take."""
        return self.env.rounds * self.longest

    def collect(self) -> Rollout:
        """Whole episodes of fresh groups."""
        self.env.reset(seed_of(self.seed, self.done, 2))
        return super().collect()

    def estimate(self, rollout: Rollout) -> None:
        """The episodes' advantages among their group, for each of their decisions."""
        successes, episode, index = episode_successes(rollout, self.env.rounds)
        grouped = group_advantages(successes.reshape(-1, self.env.size, self.env.rounds))
        advantages = grouped.reshape(successes.shape)[index, episode]
        rollout.advantages = np.where(rollout.active, advantages, 0.0)

    def rows_to_learn(self, rollout: Rollout) -> NDArray[np.int64]:
        """Decisions of groups whose members fared differently."""
        return np.flatnonzero(rollout.advantages)

    def loss(self, batch: Batch) -> tuple[Tensor, Means]:
        """PPO's without critic."""
        return clipped_surrogate(self, batch)

    def outcomes(self, rollout: Rollout) -> dict[str, float]:
        """See :class:`OnPolicyTrainer`; and how many groups taught something."""
        successes = episode_successes(rollout, self.env.rounds)[0].reshape(-1, self.env.size, self.env.rounds)
        varied = successes.std(1) > 0
        counts = [successes.size, successes.sum(), varied.size, varied.sum(), rollout.active.sum()]
        totals = self.group.sum(torch.tensor(counts, dtype=torch.float64), self.agent.device).tolist()
        episodes, succeeded, groups, useful, decisions = totals
        row: dict[str, Any] = {"rollout/success": succeeded / episodes, "rollout/useful_groups": useful / groups}
        return {**super().outcomes(rollout), **row, "rollout/decisions": decisions}


def episode_successes(
    rollout: Rollout, rounds: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Successes ``[N, rounds]``, and for each decision ``[T, N]`` its episode's number and its environment's."""
    episode = np.minimum(np.cumsum(rollout.dones, 0) - rollout.dones, rounds - 1)
    index = np.broadcast_to(np.arange(rollout.num_envs), episode.shape)
    successes = np.zeros((rollout.num_envs, rounds))
    np.add.at(successes, (index, episode), rollout.rewards)
    return successes, episode, index


def build(job: Job) -> GRPO:
    """``algo=grpo``."""
    agent = job.agent()
    job.check_robot(agent)
    env = job.environments(agent)
    assert isinstance(env, GroupEnv)
    return GRPO(agent, env, job.algo, job.path, job.options)
