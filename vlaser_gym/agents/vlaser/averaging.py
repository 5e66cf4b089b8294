"""Model soups: the mean of the weights of policies that were trained on from one start (arXiv 2203.05482)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vlaser_gym.agents.vlaser.checkpoint import CheckpointError, load_policy
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import stored_files


def average_into(
    policy: VlaserPolicy,
    source: str | Path,
    others: Sequence[str | Path],
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Replace a policy's weights by the mean of its own and those of other checkpoints, each counting alike.

    One checkpoint at a time is in memory beside the policy and the sum, which has twice the precision of the policy's
    own type, to which the mean is rounded.

    Args:
        policy: the network of ``source``.
        source: the checkpoint that it was loaded from.
        others: checkpoints of the same network, tokenizer, prompt and statistics.
        settings: what ``source`` was loaded with that its file does not say.

    Raises:
        CheckpointError: if one of them differs in more than its weights; the policy is then as it was.
    """
    totals = {name: _wide(tensor) for name, tensor in policy.state_dict().items()}
    for other in others:
        another, report = load_policy(other, settings=settings)
        if report.missing or another.config != policy.config or stored_files(other) != stored_files(source):
            raise CheckpointError(
                f"Averaged policies should differ in their weights alone; {other} has another network, tokenizer, "
                f"prompt or statistics than {source} (config.json, processor.json, statistics.json). Average "
                "checkpoints that were trained on from one start with the same settings."
            )
        for name, tensor in another.state_dict().items():
            totals[name] += _wide(tensor)
    policy.load_state_dict({name: total / (len(others) + 1) for name, total in totals.items()})


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of a tensor in the next wider type, so that sums lose nothing to rounding."""
    wide = torch.float32 if tensor.dtype in (torch.bfloat16, torch.float16) else torch.float64
    return tensor.detach().to(wide, copy=True)
