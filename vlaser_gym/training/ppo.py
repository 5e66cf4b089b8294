"""Proximal policy optimisation (arXiv 1707.06347) of a policy that decides in chunks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vlaser_gym.agents.trainable import TrainableAgent
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.settings.algorithms import PpoSettings
from vlaser_gym.training.advantages import generalized_advantages
from vlaser_gym.training.critic import ValueHead
from vlaser_gym.training.environments import LearningEnv
from vlaser_gym.training.job import Job
from vlaser_gym.training.on_policy import Means, OnPolicyTrainer
from vlaser_gym.training.rollout import Batch, Rollout
from vlaser_gym.training.trainer import RunOptions

#: Weight of the critic's loss, as in Stable-Baselines3.
VALUE_WEIGHT = 0.5


class PPO(OnPolicyTrainer):
    """See :class:`OnPolicyTrainer` for the arguments.

    Raises:
        InvalidConfigError: if minibatches do not fill the rollout.
    """

    def __init__(
        self,
        agent: TrainableAgent,
        env: LearningEnv,
        settings: PpoSettings,
        path: str | Path,
        options: RunOptions | None = None,
    ) -> None:
        options = options or RunOptions()
        total = settings.n_steps * env.num_envs * options.group.size
        if total % settings.batch_size:
            raise InvalidConfigError(
                f"A rollout of {total} decisions (algo.n_steps times num_envs) must be a multiple of algo.batch_size; "
                f"got {settings.batch_size}."
            )
        critic = ValueHead(agent.value_width, seed=options.seed).to(agent.device)
        super().__init__(agent, env, settings, path, options, critic)

    def estimate(self, rollout: Rollout) -> None:
        """Generalized advantages of ragged chunks, normalised over all processes."""
        raw = generalized_advantages(
            rollout.rewards,
            rollout.values,
            rollout.last_values,
            discounts=rollout.discounts,
            dones=rollout.dones,
            final_values=rollout.final_values,
            gae_lambda=self.settings.gae_lambda,
        )
        rollout.returns = raw + rollout.values
        advantages = torch.from_numpy(np.asarray(raw, np.float64))
        count = advantages.numel() * self.group.size
        mean = self.group.sum(advantages.sum(), self.device) / count
        squares = self.group.sum((advantages - mean).square().sum(), self.device)
        rollout.advantages = ((advantages - mean) / ((squares / max(count - 1, 1)).sqrt() + 1e-8)).numpy()

    def loss(self, batch: Batch) -> tuple[Tensor, Means]:
        """Clipped surrogate, the critic's squared error, entropy, and the pull towards the reference policy.

        In the critic's own iterations its error alone.
        """
        settings, agent, clip = self.settings, self.agent, self.settings.clip_range
        if self.critic is not None and not self.trains_actor:
            values = self.critic(agent.value_features(batch.encoding, batch.inputs))
            error = (batch.weight * (values - batch.returns).square()).sum()
            return error, {"value_loss": error.detach().double().cpu()}
        found = agent.log_prob(batch.encoding, batch.inputs, batch.latent, with_value=self.critic is not None)
        log_ratio = found.log_prob - batch.log_prob
        ratio, advantages = log_ratio.exp(), batch.advantages.double()
        values = pull = torch.zeros_like(batch.returns)
        if self.critic is not None:
            values = self.critic(found.value_features)
        if self.reference is not None:
            with torch.no_grad():
                before = self.reference.log_prob(batch.encoding, batch.inputs, batch.latent, with_value=False).location
            pull = (found.location - before).square().flatten(1).mean(1)
        terms = {
            "policy_loss": -torch.minimum(advantages * ratio, advantages * ratio.clamp(1 - clip, 1 + clip)),
            "value_loss": (values - batch.returns).square(),
            "entropy": found.entropy,
            "approx_kl": (ratio - 1 - log_ratio).detach(),
            "clip_fraction": ((ratio - 1).abs() > clip).double(),
            "pull": pull,
        }
        sums = {name: (batch.weight * term).sum() for name, term in terms.items()}
        loss = (
            sums["policy_loss"]
            + VALUE_WEIGHT * sums["value_loss"]
            - settings.entropy * sums["entropy"]
            + settings.pull * sums["pull"]
        )
        told = {name: value.detach().double().cpu() for name, value in sums.items()}
        return loss, {**told, "ratio_error": (ratio.detach() - 1).abs().max().cpu()}


def build(job: Job) -> PPO:
    """``algo=ppo``."""
    agent = job.agent()
    job.check_robot(agent)
    return PPO(agent, job.environments(agent), job.algo, job.path, job.options)
