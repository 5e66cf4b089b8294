"""Exponential moving average of the trained weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vlaser_gym.training.scaling import like, local


class WeightAverage:
    """Moving average of a module's trained weights; the others are their own average.

    Args:
        module: as training begins.
        decay: of the average.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
        self.values = {name: weight.detach().clone() for name, weight in self.weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights of now, faster in the beginning so that the first ones fade."""
        decay = min(self.decay, (1 + step) / (10 + step))
        pairs = [(local(value), local(self.weights[name].detach())) for name, value in self.values.items()]
        torch._foreach_lerp_([value for value, _ in pairs], [weight for _, weight in pairs], 1 - decay)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Inside, the module has the averaged weights; one weight is copied at a time."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, value in self.values.items():
            ours, theirs = local(value), local(self.weights[name].detach())
            kept = theirs.clone()
            theirs.copy_(ours)
            ours.copy_(kept)

    def load(self, stored: Mapping[str, Tensor]) -> None:
        """Put back stored averages; those that are absent begin with the weights of now.

        States of before held all weights of the policy, in the first edition without the agent's own prefix.
        """
        for name, value in self.values.items():
            found = stored.get(name, stored.get(name.removeprefix("policy.")))
            value.copy_(self.weights[name].detach() if found is None else like(found, value))
