"""An on-policy algorithm of one's own in one file: reward-weighted regression (Peters and Schaal, 2007).

    python -m vlaser_gym.train algo=examples.reward_weighted_regression:RWR init=nano task=widowx_stack_cube

Every iteration imitates its own rollout, decisions by how much came after them: the weight of a decision is
``exp(advantage / temperature)``, where the advantage is its discounted return, normalised over the rollout. There is no
critic and no likelihood ratio. Collecting, minibatches, checkpoints and metrics are :class:`OnPolicyTrainer`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.settings.algorithms import PpoSettings
from vlaser_gym.training.advantages import generalized_advantages
from vlaser_gym.training.algorithms import Algorithm
from vlaser_gym.training.job import Job
from vlaser_gym.training.on_policy import Means, OnPolicyTrainer
from vlaser_gym.training.rollout import Batch, Rollout


@dataclass(kw_only=True)
class RwrSettings(PpoSettings):
    """PPO's settings, of which those about critic and ratio mean nothing here, and the temperature."""

    #: How much better than the mean a return must be, in standard deviations, to count e times as much.
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise InvalidConfigError(f"algo.temperature must be above 0; got {self.temperature}.")


class RewardWeightedRegression(OnPolicyTrainer):
    """See :class:`OnPolicyTrainer`; the log has the weighted imitation error as ``policy_loss``."""

    settings: RwrSettings

    def estimate(self, rollout: Rollout) -> None:
        """Returns to the end of episode or rollout, and how far they are from their mean."""
        rollout.returns = generalized_advantages(
            rollout.rewards,
            rollout.values,
            rollout.last_values,
            discounts=rollout.discounts,
            dones=rollout.dones,
            final_values=rollout.final_values,
            gae_lambda=1.0,
        )
        rollout.advantages = (rollout.returns - rollout.returns.mean()) / (rollout.returns.std() + 1e-8)

    def loss(self, batch: Batch) -> tuple[Tensor, Means]:
        """Negative log-likelihood per random number, by weight."""
        found = self.agent.log_prob(batch.encoding, batch.inputs, batch.latent, with_value=False)
        weights = (batch.advantages.double() / self.settings.temperature).exp() * batch.weight
        loss = -(weights * found.log_prob / found.numbers).sum()
        sums = {"policy_loss": loss, "entropy": (batch.weight * found.entropy).sum()}
        return loss, {name: value.detach().double().cpu() for name, value in sums.items()}


def build(job: Job) -> RewardWeightedRegression:
    """What the command calls."""
    agent = job.agent()
    job.check_robot(agent)
    return RewardWeightedRegression(agent, job.environments(agent), job.algo, job.path, job.options)


RWR = Algorithm(RwrSettings, build)
