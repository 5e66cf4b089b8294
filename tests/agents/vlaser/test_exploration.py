from __future__ import annotations

import numpy as np
import pytest
import torch
from demonstrations import tiny_config

from vlaser_gym.agents import make_agent
from vlaser_gym.agents.vlaser.agent import VlaserAgent, nano_processor
from vlaser_gym.agents.vlaser.densities import FlowField
from vlaser_gym.agents.vlaser.exploration import ExploringAgent, load_exploring_agent, make_exploration
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import normalize_pixels
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import UnknownNameError
from vlaser_gym.settings.algorithms import EXPLORATIONS

CONFIG = tiny_config()
LANES = [Address("widowx_stack_cube", layout=f"grid:{k}") for k in range(5)]


def make(density: str | None = "flow_sde", **options):
    policy, processor = VlaserPolicy.initialise(CONFIG, 1), nano_processor(CONFIG)
    if density is None:
        return VlaserAgent(policy, processor, micro_batch=4)
    return ExploringAgent(policy, processor, make_exploration(density, policy, **options), micro_batch=4)


def observations(lanes) -> dict:
    rows = [np.random.default_rng(int(lane)) for lane in lanes]
    pose = np.array([0.3, 0, 0.1, 1, 0, 0, 0, 0.5])
    return {
        "image": np.stack([rng.integers(0, 256, (24, 24, 3), np.uint8) for rng in rows]),
        "proprio": np.stack([pose + 0.01 * rng.normal(size=8) * (pose == pose[2]) for rng in rows]),
        "instruction": ["stack the cubes"] * len(rows),
    }


def decide(agent, lanes=range(5)):
    lanes = np.array(lanes)
    agent.reset(lanes, [LANES[lane] for lane in lanes])
    agent.act(observations(lanes), lanes)  # the second decision shows that streams go on
    actions = agent.act(observations(lanes), lanes)
    return actions, agent.decided(lanes)


@pytest.mark.parametrize("density", [None, *EXPLORATIONS])
def test_a_lane_does_not_depend_on_the_others(density):
    actions, rows = decide(make(density))
    some, of_some = decide(make(density), [3, 1])
    np.testing.assert_array_equal(some, actions[[3, 1]])
    for name, values in rows[3].items():
        np.testing.assert_array_equal(of_some[0][name], values)


def test_the_plain_agent_tells_what_it_saw_and_drew():
    agent = make(None)
    actions, rows = decide(agent)
    row = rows[2]
    generator = LANES[2].rng()
    generator.standard_normal((4, 7), dtype=np.float32)
    np.testing.assert_array_equal(row["noise"], generator.standard_normal((4, 7), dtype=np.float32))
    np.testing.assert_array_equal(row["pixels"], observations([2])["image"][0])
    batch = [np.stack([r[name] for r in rows[:4]]) for name in ("pixels", "input_ids", "proprio", "noise")]
    pixels, ids, proprio, noise = map(torch.from_numpy, batch)
    chunk = agent.policy.decide(normalize_pixels(pixels), ids, proprio, noise, clamp=False)
    np.testing.assert_array_equal(chunk[2].numpy(), row["chunk"])
    expected = agent.processor.arm_actions(np.clip(row["chunk"], -1, 1))
    np.testing.assert_array_equal(actions[2, :, :6], expected[:, :6])


@pytest.mark.parametrize("density", EXPLORATIONS[:3])
def test_chains_are_those_of_the_density(density):
    """Standardised by the density's own moments, the random steps are the numbers drawn from the address."""
    agent = make(density)
    actions, rows = decide(agent)
    for lane in (0, 4):
        row, steps = rows[lane], CONFIG.num_flow_steps
        generator = LANES[lane].rng()
        for _ in range(2):
            drawn = generator.standard_normal((steps + 1, 4, 7), dtype=np.float32)
            random = np.arange(steps - 1 if density == "flow_cps" else steps)
            stochastic = generator.integers(steps, size=1) if density == EXPLORATIONS[1] else random
        np.testing.assert_array_equal(row["stochastic"], stochastic)
        np.testing.assert_array_equal(row["chain"][0], drawn[0])
        np.testing.assert_array_equal(row["chain"][-1], row["chunk"])
        np.testing.assert_array_equal(
            actions[lane, :, :6], agent.processor.arm_actions(np.clip(row["chunk"], -1, 1))[:, :6]
        )
        pixels, ids, proprio, chain = (
            torch.from_numpy(row[name][None]) for name in ("pixels", "input_ids", "proprio", "chain")
        )
        prefix = agent.policy.encode(normalize_pixels(pixels), ids, proprio)
        moments = agent.density.moments(FlowField(agent.policy, prefix), chain[:, :-1], torch.arange(steps)[None])
        z = ((chain[:, 1:] - moments.mean) / moments.std)[0].detach().numpy()
        np.testing.assert_allclose(z[stochastic], drawn[1:][stochastic], atol=1e-4)
        rest = np.setdiff1d(np.arange(steps), stochastic)
        np.testing.assert_allclose(row["chain"][1:][rest], moments.euler[0, rest].detach(), atol=1e-5)


def test_noise_on_the_chunk_is_that_of_the_address_on_the_plain_flow():
    agent = make("chunk_gaussian", initial_noise=0.5, chunk_noise=(0.2, 0.1), rotation_noise=0.5)
    _, rows = decide(agent)
    row, generator = rows[3], LANES[3].rng()
    for _ in range(2):
        drawn = generator.standard_normal((2, 4, 7), dtype=np.float32)
    assert row["chain"].shape == (2, 4, 7)
    np.testing.assert_array_equal(row["chain"][0], 0.5 * drawn[0])
    np.testing.assert_array_equal(row["noise"], row["chain"][0])
    batch = [torch.from_numpy(row[name][None]) for name in ("pixels", "input_ids", "proprio", "noise")]
    plain = agent.policy.decide(normalize_pixels(batch[0]), *batch[1:], clamp=False)[0].numpy()
    added = np.einsum("aij,ja->ia", agent.density.factor.numpy(), drawn[1])
    np.testing.assert_allclose(row["chain"][1], plain + added, atol=1e-5)
    told = agent.describe()
    assert (told["density"], told["initial_noise"], told["chunk_noise"]) == ("chunk_gaussian", 0.5, [0.2, 0.1])


def test_it_loads_and_says_how_it_explores():
    agent = load_exploring_agent(density="flow_sde_one_step", noise_level=0.3, device="cpu")
    told = agent.describe()
    assert (told["density"], told["noise_level"], told["checkpoint"]) == ("flow_sde_one_step", 0.3, "nano")
    with pytest.raises(UnknownNameError, match="flow_sde"):
        load_exploring_agent(density="flow_noise", device="cpu")


def test_runs_of_the_first_edition_name_it_by_its_old_place():
    stored = {"_target_": "vlaser_gym.agents.learners.exploration.load_exploring_agent", "device": "cpu"}
    assert isinstance(make_agent(stored), ExploringAgent)
