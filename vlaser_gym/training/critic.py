"""The critic of on-policy learners."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ValueHead(nn.Module):
    """The value of an observation, from features that the policy made of it.

    The features are detached: the critic reads the actor and does not change it. Always fp32.

    Args:
        width: numbers of the features.
        hidden: width of the two layers.
        seed: of the weights; the last layer begins at 0.
    """

    def __init__(self, width: int, hidden: int = 256, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()
            )
            self.last = nn.Linear(hidden, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, features: Tensor) -> Tensor:
        """``[B, F]`` -> ``[B]``."""
        with torch.autocast(features.device.type, enabled=False):
            values: Tensor = self.last(self.layers(features.detach().float()))
        return values[:, 0]
