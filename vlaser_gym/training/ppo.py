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
from vlaser_gym.training.critic import StateCritic, ValueHead
from vlaser_gym.training.environments import LearningEnv
from vlaser_gym.training.job import Job
from vlaser_gym.training.likelihood import check_level, log_ratios
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
        check_level(settings.likelihood, agent)
        head = ValueHead(agent.value_width, seed=options.seed)
        critic = head if env.reader is None else StateCritic(env.reader.width, seed=options.seed)
        super().__init__(agent, env, settings, path, options, critic.to(agent.device))

    def estimate(self, rollout: Rollout) -> None:
        """Generalized advantages of ragged chunks, with mean 0 and spread 1 over all processes."""
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
        by_task = self.settings.advantages == "task"
        parts = np.broadcast_to(self.env.tasks if by_task else np.array([""]), raw.shape)
        for name in np.unique(np.concatenate(self.group.gather(np.unique(parts)))):
            mine = torch.from_numpy(raw[parts == name])
            count = float(self.group.sum(torch.tensor(mine.numel()), self.device))
            mean = self.group.sum(mine.sum(), self.device) / count
            squares = self.group.sum((mine - mean).square().sum(), self.device)
            spread = (squares / max(count - 1, 1)).sqrt() + 1e-8
            rollout.advantages[parts == name] = ((mine - mean) / spread).numpy()
        if rollout.privileged is not None:
            assert isinstance(self.critic, StateCritic)
            self.critic.take_in(torch.from_numpy(rollout.privileged).flatten(0, 1), self.group)

    def loss(self, batch: Batch) -> tuple[Tensor, Means]:
        """Clipped surrogate, the critic's squared error, entropy, and the pull towards the reference policy.

        In the critic's own iterations its error alone.
        """
        settings, agent, clip, found = self.settings, self.agent, self.settings.clip_range, None
        reads_policy = self.critic is not None and batch.privileged is None
        if self.trains_actor or self.critic is None:
            found = agent.log_prob(batch.encoding, batch.inputs, batch.latent, with_value=reads_policy)
        values = pull = torch.zeros_like(batch.returns)
        if self.critic is not None:
            read = batch.privileged if found is None or batch.privileged is not None else found.value_features
            values = self.critic(agent.value_features(batch.encoding, batch.inputs) if read is None else read)
        near = values
        if settings.value_clip is not None:
            near = batch.values + (values - batch.values).clamp(-settings.value_clip, settings.value_clip)
        errors = torch.maximum((values - batch.returns).square(), (near - batch.returns).square())
        if found is None:
            error = (batch.weight * errors).sum()
            return error, {"value_loss": error.detach().double().cpu()}
        log_ratio, share = log_ratios(settings.likelihood, found, batch)
        ratio, advantages = log_ratio.exp(), batch.advantages.double()[:, None]
        if self.reference is not None:
            with torch.no_grad():
                before = self.reference.log_prob(batch.encoding, batch.inputs, batch.latent, with_value=False).location
            pull = (found.location - before).square().flatten(1).mean(1)
        gain = torch.minimum(advantages * ratio, advantages * ratio.clamp(1 - clip, 1 + clip))
        if settings.dual_clip is not None:
            gain = torch.where(advantages < 0, torch.maximum(gain, settings.dual_clip * advantages), gain)
        terms = {
            "policy_loss": -(share * gain).sum(1),
            "value_loss": errors,
            "entropy": found.entropy,
            "approx_kl": (share * (ratio - 1 - log_ratio)).sum(1).detach(),
            "clip_fraction": (share * ((ratio - 1).abs() > clip)).sum(1),
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
        return loss, {**told, "ratio_error": ((ratio.detach() - 1).abs() * (share > 0)).max().cpu()}


def build(job: Job) -> PPO:
    """``algo=ppo``."""
    agent = job.agent()
    job.check_robot(agent)
    return PPO(agent, job.environments(agent), job.algo, job.path, job.options)
