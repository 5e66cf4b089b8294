from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.densities import Draws, FlowNoise, FlowSde, make_density
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.settings.algorithms import DENSITIES

H, A = 2, 3
MU, S = 0.7, 0.4


def gaussian_field(x, t):
    """Exact velocity of the straight flow from N(0, 1) to N(MU, S^2), number by number."""
    t = t[..., None, None]
    variance = (1 - t) ** 2 + (t * S) ** 2
    slope = (t * S**2 - (1 - t)) / variance
    return MU + slope * (x - t * MU), torch.zeros(*x.shape[:-1], 4, dtype=x.dtype)


def linear_field(matrix, offset):
    """A velocity that couples all H * A numbers: ``(1 + t) (matrix x + offset)``."""

    def field(x, t):
        flat = x.flatten(-2) @ matrix.T + offset
        velocity = ((1 + t)[..., None] * flat).view_as(x)
        return velocity, torch.tanh(velocity.mean(-1, keepdim=True)).expand(*x.shape[:-1], 4)

    return field


def coefficients(kind, a, K, k):
    """Of ``mean = (c_x I + c_v V) x + c_v u`` for velocity ``V x + u``, worked out by hand from the equations."""
    tau, delta = k / K, 1 / K
    if kind == "noise":
        return 1.0, delta, None
    pull = a**2 / (2 * max(tau, delta)) * delta
    return 1 - pull, delta + pull * tau, a * math.sqrt((1 - tau) / max(tau, delta) * delta)


@pytest.mark.parametrize("K", [1, 4, 10])
@pytest.mark.parametrize("one_step", [False, True])
def test_sde_chain_density_of_a_linear_flow_is_the_closed_form(K, one_step):
    """The whole chain is one Gaussian vector; its joint density, less that of its first state, is the chain's."""
    rng = np.random.default_rng(K)
    D, a = H * A, 0.6
    V, u = rng.normal(size=(D, D)) * 0.5, rng.normal(size=D)
    density = FlowSde(K, a, one_step=one_step)
    draws = density.draw(5, H, A, torch.Generator().manual_seed(0))
    draws = Draws(draws.noise.double(), draws.steps.double(), draws.stochastic)
    field = linear_field(torch.from_numpy(V), torch.from_numpy(u))
    chain, log_prob = density.sample(field, draws)
    assert chain.shape == (5, K + 1, H, A)
    evaluated = density.evaluate(field, chain, draws.stochastic)
    torch.testing.assert_close(evaluated.log_prob, log_prob, rtol=0, atol=1e-9)
    for row in range(5):
        k0 = int(draws.stochastic[row, 0]) if one_step else 0
        states = chain[row].reshape(K + 1, D).numpy()[k0 : k0 + 2] if one_step else chain[row].reshape(K + 1, D).numpy()
        mean, cov = np.zeros((len(states), D)), np.zeros((len(states), D, len(states), D))
        cov[0, :, 0] = np.eye(D)
        for j in range(len(states) - 1):
            k = k0 + j
            cx, cv, std = coefficients("sde", a, K, k)
            M, b = cx * np.eye(D) + cv * (1 + k / K) * V, cv * (1 + k / K) * u
            mean[j + 1] = M @ mean[j] + b
            for i in range(j + 1):
                cov[j + 1, :, i] = M @ cov[j, :, i]
                cov[i, :, j + 1] = cov[j + 1, :, i].T
            cov[j + 1, :, j + 1] = M @ cov[j, :, j] @ M.T + std**2 * np.eye(D)
        size = states.size
        joint = multivariate_normal(mean.ravel(), cov.reshape(size, size)).logpdf(states.ravel())
        first = multivariate_normal(np.zeros(D), np.eye(D)).logpdf(states[0])
        assert float(log_prob[row]) == pytest.approx(joint - first, abs=1e-6)


def test_steps_that_are_not_random_follow_the_plain_flow():
    density = FlowSde(6, 0.5, one_step=True)
    draws = density.draw(40, H, A, torch.Generator().manual_seed(1))
    assert set(draws.stochastic.flatten().tolist()) == set(range(6))
    chain, _ = density.sample(gaussian_field, draws)
    for k in range(6):
        euler = chain[:, k] + gaussian_field(chain[:, k, None], torch.full((40, 1), k / 6))[0][:, 0] / 6
        moved = (chain[:, k + 1] - euler).abs().amax((1, 2)) > 1e-5
        assert torch.equal(moved, draws.stochastic[:, 0] == k)


@pytest.mark.parametrize("K", [1, 4, 10])
def test_flow_noise_density_is_the_closed_form(K):
    """Its noise depends on the state, so that the chain is Gaussian step by step only."""
    density = FlowNoise(K, 4, A, (0.05, 0.3), seed=1)
    generator = torch.Generator().manual_seed(2)
    density.head[2].weight.data.normal_(0, 2.0, generator=generator)
    density = density.double().requires_grad_(False)
    V, u = torch.randn(H * A, H * A + 1, dtype=torch.float64, generator=generator).mul(0.3).split([H * A, 1], dim=1)
    u = u[:, 0]
    field = linear_field(V, u)
    draws = density.draw(3, H, A, torch.Generator().manual_seed(0))
    draws = Draws(draws.noise.double(), draws.steps.double(), draws.stochastic)
    chain, log_prob = density.sample(field, draws)
    expected = np.zeros(3)
    spread = []
    for k in range(K):
        velocity, features = field(chain[:, k, None], torch.full((3, 1), k / K, dtype=torch.float64))
        logit = density.head(features)[:, 0]
        std = 0.05 * (0.3 / 0.05) ** (1 / (1 + (-logit).exp()))
        spread.append(std)
        for row in range(3):
            mean = (chain[row, k] + velocity[row, 0] / K).flatten().numpy()
            variance = std[row].flatten().numpy() ** 2
            expected[row] += multivariate_normal(mean, np.diag(variance)).logpdf(chain[row, k + 1].flatten().numpy())
    np.testing.assert_allclose(log_prob.numpy(), expected, atol=1e-6)
    assert torch.stack(spread).max() / torch.stack(spread).min() > 1.5  # the noise does depend on the state
    assert torch.stack(spread).min() >= 0.05
    assert torch.stack(spread).max() <= 0.3


def end_moments(density, K):
    """Mean and variance of the last state, exactly: every step is affine in x, number by number."""
    mean, variance = 0.0, 1.0
    for k in range(K):
        at = torch.tensor([0.0, 1.0], dtype=torch.float64).view(2, 1, 1, 1)
        moments = density.moments(gaussian_field, at, torch.full((2, 1), k))
        zero, one = moments.mean.flatten().tolist() if density.noise_level else moments.euler.flatten().tolist()
        std = float(moments.std.flatten()[0])
        mean, variance = zero + (one - zero) * mean, (one - zero) ** 2 * variance + std**2
    return mean, variance


@pytest.mark.parametrize(("a", "bound"), [(0.7, 0.003), (1.0, 0.001)])
def test_sde_and_ode_end_at_the_same_distribution_with_many_steps(a, bound):
    mean, variance = end_moments(FlowSde(2000, a), 2000)
    assert mean == pytest.approx(MU, abs=bound)
    assert variance == pytest.approx(S**2, rel=bound)
    x = torch.tensor([0.0, 1.0], dtype=torch.float64).view(2, 1, 1, 1)
    for k in range(2000):  # the plain flow, for comparison
        x = x + gaussian_field(x, torch.full((2, 1), k / 2000, dtype=torch.float64))[0] / 2000
    assert float(x[0]) == pytest.approx(MU, abs=2e-3)
    assert float(x[1] - x[0]) == pytest.approx(S, abs=2e-3)


def test_sampled_moments_are_those_claimed():
    """Chains drawn through the real sampler, not through its formulas."""
    density = FlowSde(50, 1.0)
    chain, _ = density.sample(gaussian_field, density.draw(4000, H, A, torch.Generator().manual_seed(3)))
    mean, variance = end_moments(density, 50)
    end = chain[:, -1].flatten()
    assert float(end.mean()) == pytest.approx(mean, abs=5 * math.sqrt(variance / len(end)))
    assert float(end.var()) == pytest.approx(variance, rel=5 * math.sqrt(2 / len(end)))


@pytest.fixture(scope="module", params=[torch.float32, torch.float64], ids=["fp32", "fp64"])
def nano(request):
    torch.set_num_threads(1)
    policy = VlaserPolicy.initialise(VlaserConfig.preset("nano"), 0, dtype=request.param)
    generator = torch.Generator().manual_seed(0)
    config = policy.config
    ids = torch.full((3, config.max_length), config.pad_id)
    ids[:, : config.num_image_tokens] = config.image_token_id
    ids[:, config.num_image_tokens : config.num_image_tokens + 9] = 65
    pixels = torch.randn(3, 3, config.image_size, config.image_size, generator=generator).to(request.param)
    with torch.no_grad():
        prefix = policy.encode(pixels, ids, torch.randn(3, config.proprio_dim, generator=generator))
    return policy, prefix


@pytest.mark.parametrize("K", [1, 4, 10])
@pytest.mark.parametrize("name", DENSITIES)
def test_likelihoods_while_sampling_and_afterwards_agree(nano, name, K):
    """Step by step, and all steps in one batch: equal but for the rounding of the weights' precision."""
    policy, prefix = nano
    config = policy.config
    density = make_density(name, K, width=config.expert_width, action_dim=config.action_dim).to(policy.dtype)

    def field(x, t):
        features = policy.features(prefix, x, t)
        return policy.decode(features), features

    with torch.no_grad():
        draws = density.draw(3, config.horizon, config.action_dim, torch.Generator().manual_seed(5))
        draws = Draws(draws.noise.to(policy.dtype), draws.steps, draws.stochastic)
        chain, old = density.sample(field, draws)
        new = density.evaluate(field, chain, draws.stochastic)
        other = density.evaluate(field, chain * 1.001, draws.stochastic)
    bound = 1e-10 if policy.dtype == torch.float64 else 1e-4
    assert (torch.exp(new.log_prob - old) - 1).abs().max() < bound
    assert (torch.exp(other.log_prob - old) - 1).abs().max() > 10 * bound  # the comparison can fail


def test_bad_settings_are_refused():
    with pytest.raises(UnknownNameError, match="flow_sde"):
        make_density("flow_sdee", 4, width=4, action_dim=7)
    with pytest.raises(InvalidConfigError, match="noise level"):
        FlowSde(4, 0.0)
    with pytest.raises(InvalidConfigError, match="bounds"):
        FlowNoise(4, 4, 7, (0.2, 0.1))
    with pytest.raises(InvalidConfigError, match="at least 1"):
        FlowSde(0)
