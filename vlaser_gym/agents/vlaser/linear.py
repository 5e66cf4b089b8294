"""A linear map of few inputs whose rows do not disturb each other."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

#: Inputs are filled up to a multiple of this.
_MULTIPLE = 8


class PaddedLinear(nn.Linear):
    """A linear layer as ``nn.Linear``, with zeros behind the inputs ``[..., K]``, up to a multiple of 8.

    On some CPUs the matrix product adds up the last ``K % 4`` terms in an order that depends on where in the batch a
    row stands. An environment's actions would then depend, in the last bit, on its place among the environments.
    Multiples of 8 are free of that.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``[..., K]`` -> ``[..., N]``."""
        gap = (0, -self.in_features % _MULTIPLE)
        return functional.linear(functional.pad(x, gap), functional.pad(self.weight, gap), self.bias)
