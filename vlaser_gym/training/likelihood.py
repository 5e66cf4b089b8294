"""Likelihood ratios of stored decisions, on the level that ``algo.likelihood`` names."""

from __future__ import annotations

import torch
from torch import Tensor

from vlaser_gym.agents.trainable import Likelihood, TrainableAgent
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.training.rollout import Batch


def log_ratios(level: str, found: Likelihood, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logarithms of the likelihood ratios of B decisions, and how much each counts.

    ``chain`` is one product over all random numbers of a decision. The other two take the mean over the flow's random
    steps, as pi_RL does (arXiv 2510.25889): ``chunk`` is one product over the actions that were executed, and
    ``action`` keeps these apart.

    Args:
        level: one of :data:`~vlaser_gym.settings.algorithms.LIKELIHOODS`.
        found: what the policy thinks of the decisions now.
        batch: the decisions.

    Returns:
        both ``[B, L]``, float64; the shares of a decision add up to 1.
    """
    if level == "chain":
        joint = (found.log_prob - batch.log_prob)[:, None]
        return joint, torch.ones_like(joint)
    assert found.actions is not None
    executed = batch.executed.double()
    change = (found.actions[:, : executed.shape[1]] - batch.action_log_prob) * executed
    if level == "chunk":
        joint = change.sum(1, keepdim=True)
        return joint, torch.ones_like(joint)
    return change, executed / executed.sum(1, keepdim=True).clamp(min=1)


def check_level(level: str, agent: TrainableAgent) -> None:
    """Raise :class:`InvalidConfigError` if a policy's likelihoods cannot be taken apart like that."""
    if level not in agent.likelihoods:
        raise InvalidConfigError(
            f"algo.likelihood={level} needs the likelihood of each action; {type(agent).__name__} tells that of whole "
            f"decisions only: take algo.likelihood={' or '.join(agent.likelihoods)}."
        )
