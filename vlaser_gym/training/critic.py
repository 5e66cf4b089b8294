"""The critic of on-policy learners."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlaser_gym.training.distributed import ProcessGroup


class StateCritic(nn.Module):
    """The value of a state of the simulator, from :class:`~vlaser_gym.training.privileged.PrivilegedState`.

    Numbers are brought to mean 0 and spread 1 by all that :meth:`take_in` saw. Always fp32.

    Args:
        width: numbers of a row.
        hidden: width of the two layers.
        seed: of the weights; the last layer begins at 0.
    """

    sums: Tensor

    def __init__(self, width: int, hidden: int = 256, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layers = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
            self.last = nn.Linear(hidden, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        # Count, sum and sum of squares of every number.
        self.register_buffer("sums", torch.zeros(3, width, dtype=torch.float64))

    def take_in(self, rows: Tensor, group: ProcessGroup) -> None:
        """Learn mean and spread from rows ``[N, P]`` of every process."""
        x = rows.to(self.sums)
        self.sums += group.sum(torch.stack([torch.ones_like(x), x, x.square()]).sum(1), self.sums.device).to(x)

    def forward(self, rows: Tensor) -> Tensor:
        """``[B, P]`` -> ``[B]``."""
        count = self.sums[0].clamp(min=1)
        mean = self.sums[1] / count
        # Flags that were never reached have no spread yet.
        spread = (self.sums[2] / count - mean.square()).clamp(min=1e-4).sqrt()
        with torch.autocast(rows.device.type, enabled=False):
            values: Tensor = self.last(self.layers(((rows - mean) / spread).clamp(-10, 10).float()))
        return values[:, 0]


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
