from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.fft import dct
from scipy.stats import multivariate_normal

from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.densities import (
    ChunkGaussian,
    Draws,
    FlowCps,
    FlowNoise,
    FlowSde,
    cosine_basis,
    make_density,
)
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
    if kind == "cps":  # next = t' (x + (1 - t) v) + (1 - t') (cos (x - t v) + sin e)
        after, angle = tau + delta, a * math.pi / 2
        renewed = (1 - after) * math.cos(angle)
        return after + renewed, after * (1 - tau) - renewed * tau, (1 - after) * math.sin(angle)
    pull = a**2 / (2 * max(tau, delta)) * delta
    return 1 - pull, delta + pull * tau, a * math.sqrt((1 - tau) / max(tau, delta) * delta)


KINDS = {
    "sde": lambda K: FlowSde(K, 0.6),
    "one_step": lambda K: FlowSde(K, 0.6, one_step=True),
    "cps": lambda K: FlowCps(K, 0.6),
}


@pytest.mark.parametrize(("kind", "K"), [(kind, K) for kind in KINDS for K in (1, 4, 10) if (kind, K) != ("cps", 1)])
def test_chain_density_of_a_linear_flow_is_the_closed_form(kind, K):
    """The whole chain is one Gaussian vector; its joint density, less that of its first state, is the chain's."""
    rng = np.random.default_rng(K)
    D, a, one_step = H * A, 0.6, kind == "one_step"
    V, u = rng.normal(size=(D, D)) * 0.5, rng.normal(size=D)
    density = KINDS[kind](K)
    draws = density.draw(5, H, A, torch.Generator().manual_seed(0))
    draws = Draws(draws.noise.double(), draws.steps.double(), draws.stochastic)
    field = linear_field(torch.from_numpy(V), torch.from_numpy(u))
    chain, log_prob = density.sample(field, draws)
    assert chain.shape == (5, K + 1, H, A)
    evaluated = density.evaluate(field, chain, draws.stochastic)
    torch.testing.assert_close(evaluated.log_prob, log_prob, rtol=0, atol=1e-9)
    for row in range(5):
        k0 = int(draws.stochastic[row, 0]) if one_step else 0
        states = chain[row].reshape(K + 1, D).numpy()
        # The last step of Flow-CPS has no noise and no density.
        states = states[k0 : k0 + 2] if one_step else states[:K] if kind == "cps" else states
        mean, cov = np.zeros((len(states), D)), np.zeros((len(states), D, len(states), D))
        cov[0, :, 0] = np.eye(D)
        for j in range(len(states) - 1):
            k = k0 + j
            cx, cv, std = coefficients("cps" if kind == "cps" else "sde", a, K, k)
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


@pytest.mark.parametrize(("name", "K"), [(n, K) for n in DENSITIES for K in (1, 4, 10) if (n, K) != ("flow_cps", 1)])
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
    assert new.actions.shape == (3, config.horizon)
    steps = draws.stochastic.shape[1]
    torch.testing.assert_close(new.actions.sum(1) * steps, new.log_prob, rtol=1e-12, atol=1e-9)
    assert (torch.exp(new.log_prob - old) - 1).abs().max() < bound
    assert (torch.exp(other.log_prob - old) - 1).abs().max() > 10 * bound  # the comparison can fail


def test_cps_stays_on_the_path_from_noise_to_actions():
    """Where the velocity is the path's own, every state is: the same actions and noise of the same variance."""
    torch.manual_seed(0)
    action, density = torch.randn(1, 1, H, A), FlowCps(5, 0.7)

    def field(x, t):
        # The noise that x holds: x = t action + (1 - t) noise.
        t = t[..., None, None]
        return action - (x - t * action) / (1 - t), torch.zeros(*x.shape[:-1], 4)

    chain, _ = density.sample(field, density.draw(20_000, H, A, torch.Generator().manual_seed(1)))
    for k in range(6):
        rest = chain[:, k] - k / 5 * action[0]
        assert float(rest.std()) == pytest.approx(1 - k / 5, abs=0.01), k
        assert float(rest.mean()) == pytest.approx(0, abs=0.01), k


# ---------------------------------------------------------------------- noise on the finished chunk


def test_the_cosine_basis_is_scipys_and_orthonormal():
    for size in (1, 2, 4, 7):
        basis = cosine_basis(size).numpy()
        np.testing.assert_allclose(basis, dct(np.eye(size), norm="ortho", axis=0), atol=1e-12)
        np.testing.assert_allclose(basis @ basis.T, np.eye(size), atol=1e-12)


@pytest.mark.parametrize("initial_noise", [0.0, 0.4, 1.0])
def test_a_chunks_density_is_torchs_normal_in_the_cosine_basis(initial_noise):
    K, horizon, size = 5, 4, 7
    density = make_density("chunk_gaussian", K, width=4, action_dim=size, initial_noise=initial_noise)
    field = linear_field(torch.randn(28, 28, dtype=torch.float64) * 0.2, torch.randn(28, dtype=torch.float64))
    draws = density.draw(6, horizon, size, torch.Generator().manual_seed(0))
    draws = Draws(draws.noise.double(), draws.steps.double(), draws.stochastic)
    chain, log_prob = density.sample(field, draws)
    assert chain.shape == (6, 2, horizon, size)
    torch.testing.assert_close(chain[:, 0], draws.noise * initial_noise)
    x = chain[:, 0]
    for k in range(K):  # the plain flow
        x = x + field(x[:, None], torch.full((6, 1), k / K, dtype=torch.float64))[0][:, 0] / K
    std = torch.full((horizon, size), 0.04, dtype=torch.float64)
    std[0] = 0.12
    std[:, 3:6] *= 0.3
    coefficients = torch.from_numpy(dct((chain[:, 1] - x).numpy(), norm="ortho", axis=1))
    expected = torch.distributions.Normal(0.0, std).log_prob(coefficients).sum((1, 2))
    torch.testing.assert_close(log_prob, expected, rtol=0, atol=1e-8)
    found = density.evaluate(field, chain, draws.stochastic)
    torch.testing.assert_close(found.log_prob, expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.location, x)
    entropy = torch.distributions.Normal(0.0, std).entropy().mean()
    torch.testing.assert_close(found.entropy, entropy.expand(6))


def test_the_first_actions_of_a_chunk_have_their_marginal_density():
    """What was executed of a chunk has the likelihood that its own Gaussian gives it, whatever the rest would be."""
    density = ChunkGaussian(1, 4, 7, (0.2, 0.05), 0.5)
    still = lambda x, t: (torch.zeros_like(x), torch.zeros(*x.shape[:-1], 4))  # noqa: E731
    draws = density.draw(3, 4, 7, torch.Generator().manual_seed(0))
    chain, _ = density.sample(still, draws)
    noise = (chain[:, 1] - chain[:, 0]).double().numpy()
    actions = density.evaluate(still, chain, draws.stochastic).actions
    basis = dct(np.eye(4), norm="ortho", axis=0)
    covariance = basis.T @ np.diag([0.2**2, *[0.05**2] * 3]) @ basis
    for m in (1, 2, 4):
        for row in range(3):
            expected = sum(
                multivariate_normal(np.zeros(m), covariance[:m, :m] * (0.25 if 3 <= a < 6 else 1)).logpdf(
                    noise[row, :m, a]
                )
                for a in range(7)
            )
            assert float(actions[row, :m].sum()) == pytest.approx(expected, abs=1e-5)


def test_noise_on_chunks_has_the_spread_that_was_asked_for():
    density = ChunkGaussian(1)
    still = lambda x, t: (torch.zeros_like(x), torch.zeros(*x.shape[:-1], 4))  # noqa: E731
    chain, _ = density.sample(still, density.draw(20_000, 4, 7, torch.Generator().manual_seed(2)))
    spread = dct((chain[:, 1] - chain[:, 0]).numpy(), norm="ortho", axis=1).std(0)
    expected = np.array([0.12, 0.04, 0.04, 0.04])[:, None] * np.array([1, 1, 1, 0.3, 0.3, 0.3, 1])
    np.testing.assert_allclose(spread, expected, rtol=0.03)


def test_the_gradient_through_the_flow_is_that_of_finite_differences(nano):
    policy, prefix = nano
    if policy.dtype != torch.float64:
        pytest.skip("differences need fp64")
    config, density = policy.config, ChunkGaussian(3)

    def field(x, t):
        features = policy.features(prefix, x, t)
        return policy.decode(features), features

    draws = density.draw(3, config.horizon, config.action_dim, torch.Generator().manual_seed(5))
    draws = Draws(draws.noise.double() * 0, draws.steps, draws.stochastic)
    bias = policy.action_decoder.bias
    with torch.no_grad():
        chain, _ = density.sample(field, draws)

    def value(step=0.0):
        with torch.no_grad():
            bias[2] += step
        found = density.evaluate(field, chain, draws.stochastic).log_prob.sum()
        with torch.no_grad():
            bias[2] -= step
        return found

    (gradient,) = torch.autograd.grad(value(), bias)
    numeric = (value(1e-6) - value(-1e-6)).detach() / 2e-6
    assert abs(float(gradient[2])) > 1
    assert float(numeric) == pytest.approx(float(gradient[2]), rel=1e-5)


def test_bad_settings_are_refused():
    with pytest.raises(UnknownNameError, match="flow_sde"):
        make_density("flow_sdee", 4, width=4, action_dim=7)
    with pytest.raises(InvalidConfigError, match="noise level"):
        FlowSde(4, 0.0)
    with pytest.raises(InvalidConfigError, match="bounds"):
        FlowNoise(4, 4, 7, (0.2, 0.1))
    with pytest.raises(InvalidConfigError, match="at least 1"):
        FlowSde(0)
    with pytest.raises(InvalidConfigError, match="at least 2 flow steps"):
        FlowCps(1)
    with pytest.raises(InvalidConfigError, match="at most 1"):
        FlowCps(4, 1.5)
    with pytest.raises(InvalidConfigError, match="above 0"):
        ChunkGaussian(4, noise=(0.1, 0.0))
