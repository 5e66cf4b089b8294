"""Decisions and chains through the engine, against the policy and the density called directly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vlaser_gym.agents.batch_sizes import SERVING_SIZES
from vlaser_gym.agents.vlaser.benchmark import random_inputs
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.densities import Density, Draws, FlowField, FlowSde
from vlaser_gym.agents.vlaser.inference import PolicyEngine
from vlaser_gym.agents.vlaser.policy import VlaserPolicy

CONFIG = VlaserConfig.preset("nano", layers=2, vision_layers=1)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def density() -> Density:
    return FlowSde(CONFIG.num_flow_steps)


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def policy(request) -> VlaserPolicy:
    return VlaserPolicy.initialise(CONFIG, 1, dtype=request.param)


def made(count: int, density: Density, config: VlaserConfig = CONFIG) -> tuple[tuple[Tensor, ...], Draws]:
    """Inputs with prompts of several lengths, and random numbers."""
    pixels, ids, proprio, noise = random_inputs(config, count)
    for row in range(count):
        ids[row, config.num_image_tokens + 1 + 3 * row % 15 :] = config.pad_id
    draws = density.draw(count, config.horizon, config.action_dim, torch.Generator().manual_seed(3))
    return (pixels, ids, proprio, noise), draws


@torch.no_grad()
def test_chains_and_likelihoods_are_the_densitys_own_to_the_last_bit(policy: VlaserPolicy, density: Density) -> None:
    inputs, draws = made(4, density)
    found = PolicyEngine(policy, (4,), density=density).chains(*inputs[:3], draws)
    prefix = policy.encode(*inputs[:3])
    chain, log_prob = density.sample(FlowField(policy, prefix), draws)
    assert torch.equal(found["chain"], chain)
    assert torch.equal(found["log_prob"], log_prob)
    assert found["log_prob"].dtype == torch.float64


def test_a_row_is_the_same_among_any_others(policy: VlaserPolicy, density: Density) -> None:
    inputs, draws = made(7, density)
    engine = PolicyEngine(policy, (4,), density=density)
    actions, chains = engine(*inputs, clamp=False), engine.chains(*inputs[:3], draws)
    for rows in ([6], [2, 5], [4, 1, 0, 3, 6]):
        some = tuple(tensor[rows] for tensor in inputs)
        assert torch.equal(engine(*some, clamp=False), actions[rows])
        again = engine.chains(*some[:3], draws.rows(torch.tensor(rows)))
        for name, values in again.items():
            assert torch.equal(values, chains[name][rows]), name


def test_buckets_of_prompt_lengths_change_no_chain(density: Density) -> None:
    """Rows of several buckets come back in their order; padding is invisible."""
    whole = VlaserPolicy.initialise(CONFIG, 1)
    cut = VlaserPolicy.initialise(CONFIG.replace(length_bucket=4), 1)
    inputs, draws = made(6, density)
    expected = PolicyEngine(whole, density=density).chains(*inputs[:3], draws)
    found = PolicyEngine(cut, density=density).chains(*inputs[:3], draws)
    torch.testing.assert_close(found["chain"], expected["chain"], atol=1e-5, rtol=0)


def test_sizes_that_adapt_differ_by_rounding_alone(density: Density) -> None:
    policy = VlaserPolicy.initialise(CONFIG, 1)
    inputs, _ = made(7, density)
    engine = PolicyEngine(policy)
    fixed = engine(*inputs)
    engine.sizes = SERVING_SIZES
    assert engine.sizes == SERVING_SIZES
    for count in (1, 2, 3, 7):
        some = tuple(tensor[:count] for tensor in inputs)
        torch.testing.assert_close(engine(*some), fixed[:count], atol=1e-5, rtol=0)
