"""Group-relative policy optimisation (arXiv 2402.03300): the other episodes from the same initial state are the critic.

The environments of a group run the same initial states, one after another, with different noise. An episode's
advantage is how much better it went than the group did, and all its decisions share it. Rollouts are whole episodes: an
environment that is through with one begins the next of its group's at once, and stands still, at no cost, when none is
left.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from vlaser_gym.agents.batch_sizes import BATCH_SIZE
from vlaser_gym.agents.trainable import TrainableAgent
from vlaser_gym.settings.algorithms import GrpoSettings
from vlaser_gym.training.advantages import group_advantages
from vlaser_gym.training.environments import GroupEnv
from vlaser_gym.training.job import Job
from vlaser_gym.training.likelihood import check_level
from vlaser_gym.training.on_policy import OnPolicyTrainer
from vlaser_gym.training.ppo import PPO
from vlaser_gym.training.rollout import Rollout
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
        tasks = cast(Any, env.env).unwrapped.tasks if decisions is None else ()
        check_level(settings.likelihood, agent)
        longest = decisions or max(-(-task.max_steps // agent.act_steps) for task in tasks)
        super().__init__(agent, env, settings, path, options, rollout_steps=env.rounds * longest)

    @property
    def usual_rollout_batch(self) -> int:
        """Few rows: towards a rollout's end most environments stand still, and a batch is as dear as a full one."""
        return min(int(self.env.num_envs), BATCH_SIZE)

    def collect(self) -> Rollout:
        """Whole episodes of fresh groups."""
        self.env.reset(seed_of(self.seed, self.done, 2))
        return super().collect()

    def continue_episodes(self, environments: Mapping[str, Any]) -> None:
        """Nothing to continue: no episode is under way between two rollouts; any number of environments will do."""

    def estimate(self, rollout: Rollout) -> None:
        """The episodes' advantages among their group, for each of their decisions."""
        successes, episode, index = episode_successes(rollout, self.env.rounds)
        grouped = group_advantages(successes.reshape(-1, self.env.size, self.env.rounds))
        advantages = grouped.reshape(successes.shape)[index, episode]
        rollout.advantages = np.where(rollout.active, advantages, 0.0)
        # Groups whose members all fared alike teach nothing: their advantages are 0.
        rollout.rows = np.flatnonzero(rollout.advantages if self.settings.filter_groups else rollout.active)

    #: PPO's, which does without a critic where there is none.
    loss = PPO.loss

    def outcomes(self, rollout: Rollout) -> dict[str, float]:
        """See :class:`OnPolicyTrainer`; and how many groups taught something."""
        successes = episode_successes(rollout, self.env.rounds)[0].reshape(-1, self.env.size, self.env.rounds)
        varied = successes.std(1) > 0
        counts = [successes.size, successes.sum(), varied.size, varied.sum(), rollout.active.sum()]
        totals = self.group.sum(torch.tensor(counts, dtype=torch.float64), self.device).tolist()
        episodes, succeeded, groups, useful, decisions = totals
        row: dict[str, Any] = {"rollout/success": succeeded / episodes, "rollout/useful_groups": useful / groups}
        return {**super().outcomes(rollout), **row, "rollout/decisions": decisions}


def episode_successes(
    rollout: Rollout, rounds: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Successes ``[N, rounds]``, and for each decision ``[T, N]`` its episode's number and its environment's."""
    episode = np.minimum(np.cumsum(rollout.dones, 0) - rollout.dones, rounds - 1)
    index = np.broadcast_to(np.arange(episode.shape[1]), episode.shape)
    successes = np.zeros((episode.shape[1], rounds))
    np.add.at(successes, (index, episode), rollout.rewards)
    return successes, episode, index


def build(job: Job) -> GRPO:
    """``algo=grpo``."""
    agent = job.agent()
    job.check_robot(agent)
    env = job.environments(agent)
    assert isinstance(env, GroupEnv)
    return GRPO(agent, env, job.algo, job.path, job.options)
