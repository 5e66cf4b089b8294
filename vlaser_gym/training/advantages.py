"""Advantages: of decisions that last for different numbers of control steps, and of whole episodes in groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def generalized_advantages(
    rewards: ArrayLike,
    values: ArrayLike,
    last_values: ArrayLike,
    *,
    discounts: ArrayLike,
    dones: ArrayLike,
    final_values: ArrayLike,
    gae_lambda: float,
) -> Floats:
    """Generalized advantage estimates ``[T, N]`` (arXiv 1506.02438) over T decisions of N environments.

    A decision that ran m control steps earns their discounted sum and discounts what comes after by ``gamma ** m``;
    lambda counts decisions.

    Args:
        rewards: ``[T, N]``, of the decisions.
        values: ``[T, N]``, estimated before each decision.
        last_values: ``[N]``, of the observation after the last decision.
        discounts: ``[T, N]``, ``gamma ** m``.
        dones: ``[T, N]``, whether the episode ended with the decision. The environment's next row is another episode.
        final_values: ``[T, N]``, value of the observation that a *truncated* episode ended with; 0 where it was
            terminated. Read where ``dones`` only.
        gae_lambda: 0 (one decision) to 1 (the whole return).
    """
    rewards, values, discounts = (np.asarray(a, np.float64) for a in (rewards, values, discounts))
    ended, final = np.asarray(dones, bool), np.asarray(final_values, np.float64)
    after = np.concatenate([values[1:], np.asarray(last_values, np.float64)[None]])
    errors = rewards + discounts * np.where(ended, final, after) - values
    carried = np.where(ended, 0.0, discounts * gae_lambda)
    advantages = np.zeros_like(errors)
    running = np.zeros(errors.shape[1])
    for t in reversed(range(len(errors))):
        running = errors[t] + carried[t] * running
        advantages[t] = running
    return advantages


def group_advantages(returns: ArrayLike) -> Floats:
    """Advantages of episodes that began alike, ``[groups, size, ...]``: returns less the group's mean, over its spread.

    The spread is the standard deviation over the group (dividing by ``size``; GRPO, arXiv 2402.03300). A group whose
    returns are all equal teaches nothing and gets zeros.

    Args:
        returns: ``[groups, size, ...]``.

    Example:
        >>> group_advantages([[1, 0, 0, 1], [1, 1, 1, 1]]).tolist()
        [[1.0, -1.0, -1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    """
    returns = np.asarray(returns, np.float64)
    centred = returns - returns.mean(1, keepdims=True)
    spread = returns.std(1, keepdims=True)
    return np.asarray(np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 1e-8))
