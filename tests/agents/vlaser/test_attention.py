"""The attention that videos show, against one written by hand from the weights, and the actions that stay the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vlaser_gym.agents.vlaser.agent import VlaserAgent, load_agent, nano_processor
from vlaser_gym.agents.vlaser.attention import action_attention, picture_attention
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.places import PLACES, PlaceReader, load_place_reader, make_place_head
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.trainable import TrainableVlaser
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError, UnknownNameError

CONFIG = VlaserConfig.preset("nano")
LANES = np.arange(3)


@pytest.fixture(scope="module")
def policy() -> VlaserPolicy:
    return VlaserPolicy.initialise(CONFIG, seed=3)


def inputs(policy: VlaserPolicy, rows: int = 2) -> tuple[torch.Tensor, ...]:
    """Prompts of two lengths, with padding."""
    generator, processor = torch.Generator().manual_seed(0), nano_processor(policy.config)
    ids = torch.from_numpy(np.stack([processor.prompt.ids("put " + "carrot " * row) for row in range(rows)]))
    pixels = torch.randn(rows, 3, CONFIG.image_size, CONFIG.image_size, generator=generator)
    proprio = torch.rand(rows, CONFIG.proprio_dim, generator=generator)
    noise = torch.randn(rows, CONFIG.horizon, CONFIG.action_dim, generator=generator)
    return pixels, ids, proprio, noise


def rms(x: np.ndarray, weight: torch.Tensor) -> np.ndarray:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * weight.double().numpy()


def heads_of(linear: torch.nn.Linear, x: np.ndarray, positions: np.ndarray, *, turned: bool = True) -> np.ndarray:
    """``[heads, T, head_dim]`` of one row, rotated in complex numbers."""
    out = x @ linear.weight.double().detach().numpy().T + linear.bias.double().detach().numpy()
    out = out.reshape(len(x), -1, CONFIG.head_dim).transpose(1, 0, 2)
    half = CONFIG.head_dim // 2
    angle = positions[:, None] / CONFIG.rope_theta ** (np.arange(half) / half)
    spun = (out[..., :half] + 1j * out[..., half:]) * np.exp(1j * angle)
    return np.concatenate([spun.real, spun.imag], -1) if turned else out


def test_the_first_layer_by_hand_from_the_weights(policy: VlaserPolicy) -> None:
    pixels, ids, proprio, noise = inputs(policy)
    t = torch.tensor([0.3, 0.7])
    with torch.inference_mode():
        prefix = policy.encode(pixels, ids, proprio)
        embedded = policy.embed(pixels, ids).double().numpy()
        tokens = policy.action_encoder(noise, t).double().numpy()
        body = policy.proprio_encoder(proprio).double().numpy()
    found = action_attention(policy, prefix, noise, t)[0].double().numpy()
    words, expert = policy.language.layers[0], policy.expert.layers[0]
    length, horizon = ids.shape[1], CONFIG.horizon
    for row in range(2):
        seen = rms(embedded[row], words.input_layernorm.weight.detach())
        own = rms(np.concatenate([body[row : row + 1], tokens[row]]), expert.input_layernorm.weight.detach())
        places = np.arange(CONFIG.position_start, CONFIG.position_start + length)
        keys = np.concatenate(
            [
                heads_of(words.self_attn.k_proj, seen, places),
                heads_of(expert.self_attn.k_proj, own, np.arange(1, 2 + horizon)),
            ],
            axis=1,
        )
        queries = heads_of(expert.self_attn.q_proj, own[1:], np.arange(2, 2 + horizon))
        keys = np.repeat(keys, CONFIG.heads // CONFIG.kv_heads, axis=0)
        scores = np.einsum("htd,hsd->hts", queries, keys) / np.sqrt(CONFIG.head_dim)
        scores[..., np.flatnonzero(ids[row].numpy() == CONFIG.pad_id)] = -np.inf
        expected = np.exp(scores - scores.max(-1, keepdims=True))
        expected /= expected.sum(-1, keepdims=True)
        np.testing.assert_allclose(found[row], expected, atol=1e-6)


def test_shares_sum_to_one_and_padding_gets_nothing(policy: VlaserPolicy) -> None:
    pixels, ids, proprio, noise = inputs(policy)
    shares = action_attention(policy, policy.encode(pixels, ids, proprio), noise, torch.zeros(2))
    heads, keys = CONFIG.heads, ids.shape[1] + 1 + CONFIG.horizon
    assert shares.shape == (CONFIG.layers, 2, heads, CONFIG.horizon, keys)
    np.testing.assert_allclose(shares.sum(-1), 1.0, atol=1e-6)
    for row in range(2):
        assert (ids[row] == CONFIG.pad_id).any()
        assert shares[:, row][..., torch.nonzero(ids[row] == CONFIG.pad_id)[:, 0]].max() == 0


def test_it_is_the_attention_that_the_actions_come_from(policy: VlaserPolicy) -> None:
    """With shares that are slightly off, the deeper layers' would be those of another hidden state."""
    pixels, ids, proprio, noise = inputs(policy)
    t = torch.tensor([0.2, 0.9])
    prefix = policy.encode(pixels, ids, proprio)
    seen = []
    last = policy.expert.layers[-1]
    hook = last.input_layernorm.register_forward_hook(lambda module, given, out: seen.append(out.detach().clone()))
    with torch.inference_mode():
        policy.features(prefix, noise, t)
        action_attention(policy, prefix, noise, t)
    hook.remove()
    np.testing.assert_allclose(seen[1], seen[0], atol=1e-5)


def test_the_picture_gets_the_mean_over_steps_layers_heads_and_executed_actions(policy: VlaserPolicy) -> None:
    pixels, ids, proprio, noise = inputs(policy)
    found = picture_attention(policy, pixels, ids, proprio, noise, num_steps=3, act_steps=2)
    prefix, x, total = policy.encode(pixels, ids, proprio), noise, 0.0
    for step in range(3):  # Euler's method again
        t = torch.full((2,), step / 3)
        total = total + action_attention(policy, prefix, x, t)[:, :, :, :2].mean((0, 2, 3)) / 3
        with torch.inference_mode():
            x = x + policy.velocity(prefix, x, t) / 3
    side = CONFIG.grid // 2
    assert found.shape == (2, side, side)
    for row in range(2):
        mine = total[row, : ids.shape[1]][ids[row] == CONFIG.image_token_id]
        np.testing.assert_allclose(found[row].flatten(), mine, atol=1e-6)
        assert 0 < found[row].sum() < 1


# ---------------------------------------------------------------------- the agent


def observations(rows: int = 3) -> dict[str, object]:
    rng = np.random.default_rng(1)
    return {
        "image": rng.integers(0, 256, (rows, 48, 64, 3), np.uint8),
        "proprio": rng.uniform(0.1, 0.5, (rows, 8)).astype(np.float32),
        "instruction": ("put carrot on plate", "stack the green block on the yellow block", "put carrot on plate"),
    }


def begun(agent: VlaserAgent) -> VlaserAgent:
    agent.reset(LANES, [Address("widowx_stack_cube", layout=f"grid:{k}") for k in range(3)])
    return agent


def test_actions_stay_the_same_to_the_last_bit() -> None:
    plain, telling = (begun(load_agent("nano", explain=explain)) for explain in (None, "attention"))
    for _ in range(2):  # the second decision draws on from the first one's noise
        np.testing.assert_array_equal(plain.act(observations(), LANES), telling.act(observations(), LANES))
    told = telling.explained(LANES)
    assert {tuple(row) for row in told} == {("attention",)}
    assert all(row["attention"].shape == (CONFIG.grid // 2,) * 2 for row in told)


def test_what_is_told_of_a_lane_does_not_depend_on_the_others() -> None:
    telling, alone = (begun(load_agent("nano", explain="attention")) for _ in range(2))
    telling.act(observations(), LANES)
    one = {name: values[1:2] for name, values in observations().items()}
    alone.act(one, LANES[1:2])
    for name, values in alone.explained(LANES[1:2])[0].items():
        np.testing.assert_array_equal(telling.explained(LANES)[1][name], values)


def test_other_explanations_do_not_exist() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown agent\.explain 'dreams'"):
        load_agent("nano", explain="dreams")


# ---------------------------------------------------------------------- places


def test_places_by_hand_from_the_heads_weights(policy: VlaserPolicy, tmp_path: Path) -> None:
    trained = TrainableVlaser(policy, nano_processor(CONFIG), places=1.0, seed=5)
    mean, std = np.arange(PLACES) / 10, 1 + np.arange(PLACES) / 5
    trained.keep_place_moments(mean, std)
    trained.save(tmp_path)
    pixels = inputs(policy)[0]
    with torch.inference_mode():
        features = policy.image_features(pixels)
        found = load_place_reader(tmp_path, CONFIG)(features).numpy()
    first, _, second = trained.places
    w1, b1, w2, b2 = (p.detach().double().numpy() for p in (*first.parameters(), *second.parameters()))
    hidden = features.double().numpy().reshape(2, -1) @ w1.T + b1
    gelu = torch.nn.functional.gelu(torch.from_numpy(hidden)).numpy()
    expected = ((gelu @ w2.T + b2) * std + mean)[:, :6].reshape(2, 2, 3)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    agent = begun(load_agent(str(tmp_path), explain="places"))
    agent.act(observations(), LANES)
    assert agent.explained(LANES)[2]["places"].shape == (2, 3)


def test_a_checkpoint_without_the_head_is_a_sentence() -> None:
    with pytest.raises(InvalidConfigError, match=r"nano has none: train with algo=sft algo\.places=1"):
        load_agent("nano", explain="places")


def test_another_policys_head_is_a_sentence(tmp_path: Path) -> None:
    other = CONFIG.replace(width=2 * CONFIG.width)
    PlaceReader(make_place_head(other), torch.zeros(PLACES), torch.ones(PLACES)).save(tmp_path)
    with pytest.raises(Exception, match="is not the head of this policy"):
        load_place_reader(tmp_path, CONFIG)
