"""Seeds: everything random in training is a function of the run's seed and of where the run stands."""

from __future__ import annotations

import numpy as np


def seed_of(*numbers: int) -> int:
    """A seed below 2**63.

    Example:
        >>> seed_of(0, 1) != seed_of(1, 0)
        True
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
