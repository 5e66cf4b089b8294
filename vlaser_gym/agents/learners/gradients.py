"""The last look at an update before it changes the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from vlaser_gym.errors import DivergedError


def clip_gradients(parameters: Iterable[nn.Parameter], most: float) -> Tensor:
    """Scale gradients down to a common norm of at most ``most``; returns the norm that they had, a scalar."""
    return nn.utils.clip_grad_norm_(parameters, most)


def check_finite(
    where: str, path: Path, numbers: Mapping[str, Tensor | float], rate: str = "algo.learning_rate"
) -> None:
    """Look whether an update's numbers are finite; to be asked before the optimizer steps.

    Weights that are not finite once stay so, and the next checkpoint would replace the last good one.

    Args:
        where: which update, such as ``"step 7"``.
        path: run directory.
        numbers: by name, scalars that are the same on all processes (sums or means over them): all of them stop, or
            none does.
        rate: the setting that would have to be lower.

    Raises:
        DivergedError: with the first that is not.
    """
    for name, number in numbers.items():
        value = float(number)
        if not math.isfinite(value):
            raise DivergedError(
                f"Training diverged: the {name} of {where} is {value}, and the weights stay as they were before it; "
                f"lower {rate} and resume from the last checkpoint with run={path}."
            )
