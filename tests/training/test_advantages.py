from __future__ import annotations

import numpy as np
import pytest

from vlaser_gym.training.advantages import generalized_advantages

GAMMA = 0.9


def oracle(rewards, values, last, steps, ended, final, lam):
    """Definition, episode by episode: exponentially weighted sums of the errors that follow."""
    T, N = rewards.shape
    out = np.zeros((T, N))
    for n in range(N):
        for t in range(T):
            weight, total = 1.0, 0.0
            for u in range(t, T):
                following = values[u + 1, n] if u + 1 < T else last[n]
                if ended[u, n]:
                    following = final[u, n]
                total += weight * (rewards[u, n] + GAMMA ** steps[u, n] * following - values[u, n])
                if ended[u, n]:
                    break
                weight *= lam * GAMMA ** steps[u, n]
            out[t, n] = total
    return out


@pytest.mark.parametrize("lam", [0.0, 0.7, 0.95, 1.0])
def test_ragged_chunks_truncation_and_autoreset_match_the_definition(lam):
    rng = np.random.default_rng(0)
    T, N = 14, 5
    rewards, values, last = rng.normal(size=(T, N)), rng.normal(size=(T, N)), rng.normal(size=N)
    steps = rng.integers(1, 5, (T, N))
    ended = rng.random((T, N)) < 0.3
    ended[-1, :2] = True
    truncated = ended & (rng.random((T, N)) < 0.5)
    assert (ended & ~truncated).any()
    assert truncated.any()
    final = np.where(truncated, rng.normal(size=(T, N)), 0.0)
    got = generalized_advantages(
        rewards, values, last, discounts=GAMMA**steps, dones=ended, final_values=final, gae_lambda=lam
    )
    np.testing.assert_allclose(got, oracle(rewards, values, last, steps, ended, final, lam), rtol=1e-12, atol=1e-12)


def test_by_hand():
    """Two decisions of 4 and 2 control steps: the second reaches the goal at its second step, for a reward of 1."""
    kwargs = {
        "rewards": [[0.0], [0.9]],  # 0 + 0.9 * 1
        "values": [[0.5], [0.25]],
        "last_values": [9.0],  # of the next episode: must not count
        "discounts": [[0.9**4], [0.9**2]],
        "dones": [[False], [True]],
        "gae_lambda": 0.5,
    }
    second = 0.9 - 0.25
    first = 0.9**4 * 0.25 - 0.5 + 0.5 * 0.9**4 * second
    terminated = generalized_advantages(final_values=[[7.0], [0.0]], **kwargs)
    np.testing.assert_allclose(terminated, [[first], [second]])
    truncated = generalized_advantages(final_values=[[7.0], [2.0]], **kwargs)
    np.testing.assert_allclose(truncated[1], [0.9 + 0.81 * 2.0 - 0.25])


def test_lambda_one_is_the_discounted_return_less_the_value():
    rng = np.random.default_rng(1)
    T = 6
    rewards, values, steps = rng.normal(size=(T, 1)), rng.normal(size=(T, 1)), rng.integers(1, 5, (T, 1))
    ended = np.arange(T)[:, None] == T - 1
    got = generalized_advantages(
        rewards, values, [3.0], discounts=GAMMA**steps, dones=ended, final_values=np.zeros((T, 1)), gae_lambda=1.0
    )
    elapsed = np.concatenate([[0], steps[:-1, 0].cumsum()])
    for t in range(T):
        returned = sum(GAMMA ** (elapsed[u] - elapsed[t]) * rewards[u, 0] for u in range(t, T))
        assert got[t, 0] == pytest.approx(returned - values[t, 0])
