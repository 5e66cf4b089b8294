"""Does a simulator order policies as the real world does: SimplerEnv's two measures.

Definitions: SimplerEnv 4ab7178, ``simpler_env/utils/metrics.py``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def mmrv(sim: ArrayLike, real: ArrayLike) -> float:
    """Mean maximum rank violation, between 0 (best) and 1.

    A pair of policies whose strict order differs between simulation and reality weighs as much as their *real* rates
    differ; each policy counts with its worst pair. Hence the order of the arguments matters.

    Args:
        sim: ``[P]`` success rates of P policies in simulation.
        real: ``[P]`` the same policies' rates on the real robot, same order.

    Example:
        >>> mmrv([0.2, 0.8, 0.5], [0.1, 0.6, 0.7])
        0.0666...
    """
    sim, real = _vectors(sim, real)
    differs = (sim[:, None] > sim) != (real[:, None] > real)
    return float(np.mean(np.max(np.where(differs, np.abs(real[:, None] - real), 0.0), axis=1)))


def pearson(sim: ArrayLike, real: ArrayLike) -> float:
    """Pearson's correlation of success rates; 1 if both are constant, 0 if one is.

    Args:
        sim: ``[P]`` rates in simulation.
        real: ``[P]`` rates on the real robot, same order.
    """
    sim, real = _vectors(sim, real)
    x, y = sim - sim.mean(), real - real.mean()
    if np.array_equal(x, y):
        return 1.0
    # The small number is the original's: constant rates give 0 rather than a division by zero.
    return float(x @ y / (np.sqrt(x @ x) * np.sqrt(y @ y) + 1e-8))


def _vectors(sim: ArrayLike, real: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = np.asarray(sim, np.float64), np.asarray(real, np.float64)
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise ValueError(f"expected as many rates in simulation as in reality; got shapes {x.shape} and {y.shape}")
    return x, y
