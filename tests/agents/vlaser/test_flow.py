"""The flow against closed forms and published numbers."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import kstest

from vlaser_gym.agents.vlaser import flow


@pytest.mark.parametrize(
    ("max_period", "expected"),
    [
        (100.0, [0.4794255, 0.4741726, 0.4689658, 0.0050000, 0.8775826, 0.8804319, 0.8832163, 0.9999875]),
        (10_000.0, [0.4794255, 0.4689658, 0.4586908, 0.0000500, 0.8775826, 0.8832163, 0.8885959, 1.0]),
    ],
)
def test_time_embedding_matches_the_original(max_period: float, expected: list[float]) -> None:
    embedding = flow.time_embedding(torch.tensor([0.5]), 768, max_period)[0]
    picked = embedding[[0, 1, 2, 383, 384, 385, 386, 767]]
    torch.testing.assert_close(picked, torch.tensor(expected), atol=1e-6, rtol=0)


def test_time_embedding_is_fp32_for_any_input() -> None:
    t = torch.tensor([0.3], dtype=torch.bfloat16)
    assert torch.equal(flow.time_embedding(t, 8, 100.0), flow.time_embedding(t.float(), 8, 100.0))


def test_path_runs_from_noise_to_actions_at_its_velocity() -> None:
    generator = torch.Generator().manual_seed(0)
    noise, actions = (torch.randn(5, 4, 7, generator=generator, dtype=torch.float64) for _ in range(2))

    def at(t: float) -> torch.Tensor:
        return flow.interpolate(noise, actions, torch.full((5,), t, dtype=torch.float64), 0.001)

    assert torch.equal(at(0.0), noise)
    torch.testing.assert_close(at(1.0), actions + 0.001 * noise)
    slope = (at(0.6) - at(0.2)) / 0.4
    torch.testing.assert_close(slope, flow.target_velocity(noise, actions, 0.001))


def test_integration_is_euler() -> None:
    """dx/dt = a x gives (1 + a / K)^K, and times run 0, 1/K, ..."""
    seen = []

    def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(t.tolist())
        return 0.7 * x

    noise = torch.randn(2, 4, 7, generator=torch.Generator().manual_seed(1))
    chain = flow.integrate(velocity, noise, 5)
    assert chain.shape == (6, 2, 4, 7)
    assert torch.equal(chain[0], noise)
    torch.testing.assert_close(chain[-1], noise * (1 + 0.7 / 5) ** 5)
    torch.testing.assert_close(torch.tensor(seen), torch.arange(5)[:, None].expand(5, 2) / 5)


def test_beta_times_follow_their_distribution() -> None:
    t = flow.sample_times(20_000, "beta", torch.Generator().manual_seed(0))
    assert t.min() >= 0
    assert t.max() <= 0.999
    # P(t <= s) = P(z >= 1 - s / 0.999) for z ~ Beta(1.5, 1), whose distribution function is z^1.5
    result = kstest(t.numpy(), lambda s: 1 - (1 - s / 0.999) ** 1.5)
    assert result.pvalue > 0.01
    assert t.mean().item() == pytest.approx(0.999 * (1 - 1.5 / 2.5), abs=0.01)


def test_uniform_times_cover_the_range_evenly() -> None:
    t = flow.sample_times(8, "uniform", torch.Generator().manual_seed(0)).sort().values
    gaps = torch.diff(t)
    torch.testing.assert_close(gaps, torch.full((7,), 1 / 8), atol=2e-5, rtol=0)
    assert 0 <= t[0] < 1 / 8


def test_times_repeat_with_their_generator() -> None:
    for kind in ("beta", "uniform"):
        first, second = (flow.sample_times(4, kind, torch.Generator().manual_seed(5)) for _ in range(2))
        assert torch.equal(first, second)
