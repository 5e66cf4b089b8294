"""The network against the numbers of the original classes at toy size, and against transformers."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from vlaser_gym.agents.vlaser.benchmark import decide_plainly, random_inputs
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.language import rotary
from vlaser_gym.agents.vlaser.policy import VlaserPolicy, visible_tokens
from vlaser_gym.agents.vlaser.vision import pixel_shuffle

PICK_COKE_CAN = (
    [151644, 8948, 198, 4064, 151645, 198, 151644, 872, 198, 151665]
    + [151667] * 256
    + [151666, 198, 29245, 83323, 646, 151645, 198, 151644, 77091, 198]
    + [151643] * 108
)

#: Our names -> the names whose checksums seed the oracle's weights.
PREFIXES = {
    "vision.": "vision_tower.vision_model.",
    "projector.": "multi_modal_projector.",
    "language.": "joint_model.mixtures.vlm.",
    "expert.": "joint_model.mixtures.proprio.",
}

VELOCITY = """
-0.000134  0.488791  0.727273  0.597488  0.167670 -0.342698 -0.674024
 0.024758  0.516453  0.743742  0.594449  0.146658 -0.371076 -0.695442
-0.014038  0.530625  0.803728  0.669966  0.199584 -0.367459 -0.742960
-0.212834  0.440169  0.867276  0.855438  0.413350 -0.233313 -0.756154
"""
ACTIONS = {
    10_000.0: """
 0.169227  0.951127  1.276217  0.990411  0.231948 -0.634646 -1.193097
 1.001295  1.024351  0.554500 -0.188144 -0.849487 -1.109510 -0.836477
 0.367521  0.000043 -0.383252 -0.604272 -0.552551 -0.239580  0.200958
-0.969946 -0.660486 -0.055661  0.551792  0.879414  0.787142  0.336944
""",
    100.0: """
 0.159109  0.930382  1.255317  0.979907  0.237142 -0.616375 -1.170974
 0.997480  0.996661  0.516914 -0.216652 -0.854526 -1.088536 -0.800077
 0.332363 -0.118943 -0.525998 -0.698718 -0.551018 -0.142842  0.344065
-0.979854 -0.759487 -0.193778  0.444284  0.856787  0.860819  0.469730
""",
}


def numbers(text: str) -> Tensor:
    return torch.tensor([[float(word) for word in line.split()] for line in text.strip().splitlines()])


def released_name(name: str) -> str:
    for ours, theirs in PREFIXES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def wave(name: str, shape: torch.Size) -> Tensor:
    """The oracle's weights: a sine whose phase comes from the name."""
    phase = zlib.crc32(name.encode()) % 1000 / 1000 * 2 * np.pi
    s = np.sin(0.37 * np.arange(1, shape.numel() + 1) + phase).reshape(shape)
    if "embed_tokens" in name or "position_embedding" in name or "class_embedding" in name:
        values = 0.5 * s
    elif len(shape) >= 2:
        values = s / np.sqrt(np.prod(shape[1:]))
    elif name.endswith("bias"):
        values = 0.02 * s
    elif name.endswith(("ls1", "ls2")):
        values = 0.1 + 0.01 * s
    else:
        values = 1 + 0.1 * s
    return torch.from_numpy(values.astype(np.float32))


def toy_policy(max_period: float) -> VlaserPolicy:
    policy = VlaserPolicy.on_meta(VlaserConfig.preset("toy", time_max_period=max_period))
    weights = {name: wave(released_name(name), value.shape) for name, value in policy.state_dict().items()}
    policy.load_state_dict(weights, assign=True)
    return policy.eval()


@pytest.fixture(scope="module")
def toy() -> Iterator[VlaserPolicy]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield toy_policy(10_000.0)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    c, y, x = np.meshgrid(np.arange(3), np.arange(448), np.arange(448), indexing="ij")
    pixels = torch.from_numpy(np.sin(0.05 * y + 0.03 * x + c).astype(np.float32))[None]
    return pixels, torch.tensor([PICK_COKE_CAN]), torch.linspace(-0.9, 0.9, 7)[None]


@pytest.fixture(scope="module")
def noise() -> Tensor:
    h, d = np.meshgrid(np.arange(4), np.arange(7), indexing="ij")
    return torch.from_numpy(np.sin(1.3 * h + 0.7 * d + 0.2).astype(np.float32))[None]


@torch.no_grad()
def test_image_features_match_the_original(toy: VlaserPolicy, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    features = toy.image_features(inputs[0])
    assert features.shape == (1, 256, 48)
    assert features.sum().item() == pytest.approx(30.17298, abs=1e-4)
    first = torch.tensor([-0.0106587, -0.0190214, 0.0019690, 0.0351354])
    torch.testing.assert_close(features[0, 0, :4], first, atol=1e-6, rtol=0)


def test_mask_counts_match_the_original() -> None:
    counts = visible_tokens(torch.tensor([276]), length=384, horizon=4).sum(2)[0]
    assert counts[[0, 275, 276, 383]].tolist() == [276, 276, 0, 0]
    assert counts[384].item() == 277
    assert counts[385:].tolist() == [281] * 4


@torch.no_grad()
def test_velocity_at_zero_matches_the_original(
    toy: VlaserPolicy, inputs: tuple[Tensor, Tensor, Tensor], noise: Tensor
) -> None:
    velocity = toy.velocity(toy.encode(*inputs), noise, torch.zeros(1))
    torch.testing.assert_close(velocity[0], numbers(VELOCITY), atol=1e-5, rtol=0)


@pytest.mark.parametrize("max_period", [10_000.0, 100.0])
def test_ten_step_actions_match_the_original(
    toy: VlaserPolicy, inputs: tuple[Tensor, Tensor, Tensor], noise: Tensor, max_period: float
) -> None:
    policy = toy if max_period == toy.config.time_max_period else toy_policy(max_period)
    actions = policy.decide(*inputs, noise, clamp=False)
    torch.testing.assert_close(actions[0], numbers(ACTIONS[max_period]), atol=1e-5, rtol=0)
    clamped = policy.decide(*inputs, noise)
    assert torch.equal(clamped, actions.clamp(-1, 1))


@pytest.mark.parametrize(("t", "expected"), [(0.0, 0.7292312), (0.3, 0.6879550), (0.9, 0.6644815)])
@torch.no_grad()
def test_losses_match_the_original(
    toy: VlaserPolicy, inputs: tuple[Tensor, Tensor, Tensor], noise: Tensor, t: float, expected: float
) -> None:
    h, d = np.meshgrid(np.arange(4), np.arange(7), indexing="ij")
    actions = torch.from_numpy(np.cos(0.9 * h - 0.4 * d).astype(np.float32))[None]
    batch = {"pixel_values": inputs[0], "input_ids": inputs[1], "proprio": inputs[2], "actions": actions}
    loss = toy.flow_loss(batch, noise=noise, t=torch.tensor([t]))
    assert loss.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "least"),
    [({"position_start": 0}, 0.1), ({"rope_theta": 1e4}, 0.5)],
)
@torch.no_grad()
def test_positions_and_rotary_base_matter(
    toy: VlaserPolicy, inputs: tuple[Tensor, Tensor, Tensor], noise: Tensor, changes: dict[str, float], least: float
) -> None:
    """The variants that the oracle tells apart: largest change of the velocity at t = 0.5 is 0.25 and 1.30."""
    other = VlaserPolicy.on_meta(toy.config.replace(**changes))
    other.load_state_dict(toy.state_dict(), assign=True)
    t = torch.tensor([0.5])
    change = other.velocity(other.encode(*inputs), noise, t) - toy.velocity(toy.encode(*inputs), noise, t)
    assert change.abs().max() > least


def vision_name_in_transformers(name: str) -> str:
    for ours, theirs in {
        "embeddings.class_embedding": "embeddings.cls_token",
        "embeddings.position_embedding": "embeddings.position_embeddings",
        "embeddings.patch_embedding": "embeddings.patch_embeddings.projection",
        "encoder.layers": "encoder.layer",
        "attn.proj": "attention.projection_layer",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "ls1": "lambda_1",
        "ls2": "lambda_2",
    }.items():
        name = name.replace(ours, theirs)
    return name


@torch.no_grad()
def test_vision_encoder_equals_that_of_transformers(toy: VlaserPolicy) -> None:
    from transformers.models.internvl import InternVLVisionConfig, InternVLVisionModel

    config = InternVLVisionConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=[448, 448],
        patch_size=[14, 14],
        attention_bias=True,
        use_qk_norm=False,
        norm_type="layer_norm",
        layer_norm_eps=1e-6,
        hidden_act="gelu",
        use_mean_pooling=True,
    )
    theirs = InternVLVisionModel(config).eval()
    weights = {}
    for ours, value in toy.vision.state_dict().items():
        name = vision_name_in_transformers(ours)
        if "attn.qkv" in name:
            for part, piece in zip("qkv", value.chunk(3), strict=True):
                weights[name.replace("attn.qkv", f"attention.{part}_proj")] = piece
        else:
            weights[name] = value
    theirs.load_state_dict(weights, strict=True)
    pixels = torch.randn(2, 3, 448, 448, generator=torch.Generator().manual_seed(0))
    expected = theirs(pixels).last_hidden_state
    ours = toy.vision.encoder(toy.vision.embeddings(pixels))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_language_layers_equal_those_of_transformers(toy: VlaserPolicy) -> None:
    """Qwen2's own model with full attention over the whole sequence, from positions 5 on."""
    from transformers import Qwen2Config, Qwen2Model

    config = Qwen2Config(
        vocab_size=10,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=128,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        attn_implementation="eager",
    )
    theirs = Qwen2Model(config).eval()
    missing = theirs.load_state_dict(toy.language.state_dict(), strict=False)
    assert missing.missing_keys == ["embed_tokens.weight"]
    assert not missing.unexpected_keys
    x = torch.randn(2, 9, 48, generator=torch.Generator().manual_seed(0))
    visible = torch.zeros(2, 1, 9, 9)
    visible[1, ..., 6:] = torch.finfo(torch.float32).min
    positions = torch.arange(5, 14)
    expected = theirs(inputs_embeds=x, attention_mask=visible, position_ids=positions[None]).last_hidden_state
    hidden, _ = toy.language(x, rotary(positions, 128, 1_000_000.0), visible[:, :, :1])
    torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_cached_and_uncached_inference_agree(
    toy: VlaserPolicy, inputs: tuple[Tensor, Tensor, Tensor], noise: Tensor
) -> None:
    plain = decide_plainly(toy, (*inputs, noise), 10)
    torch.testing.assert_close(toy.decide(*inputs, noise, clamp=False), plain, atol=1e-6, rtol=1e-6)


def test_pixel_shuffle_puts_squares_together() -> None:
    patches = torch.arange(16.0).view(1, 16, 1) * torch.tensor([1.0, 100.0])
    tokens = pixel_shuffle(patches)
    assert tokens.shape == (1, 4, 8)
    assert tokens[0, :, ::2].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert torch.equal(tokens[0, :, 1::2], 100 * tokens[0, :, ::2])


@pytest.mark.long
def test_a_full_size_policy_decides_on_a_cpu() -> None:
    """Random weights, bf16 (5 GB); needs minutes at worst."""
    config = VlaserConfig.preset("vlaser_2b")
    policy = VlaserPolicy.initialise(config, dtype=torch.bfloat16)
    actions = policy.decide(*random_inputs(config, 1))
    assert actions.shape == (1, 4, 7)
    assert torch.isfinite(actions).all()
    assert actions.abs().max() <= 1
