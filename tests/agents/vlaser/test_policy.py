"""The policy's contract: cached against uncached, batches against single rows, training switches."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from vlaser_gym.agents.vlaser import benchmark, flow
from vlaser_gym.agents.vlaser.adapters import adapters_off, add_lora, has_adapters, merge_lora, merged_state_dict
from vlaser_gym.agents.vlaser.checkpoint import load_pretrained, save_pretrained
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.inference import PolicyEngine, bucketed_lengths, compile_layers
from vlaser_gym.agents.vlaser.policy import VisionLanguage, VlaserPolicy
from vlaser_gym.errors import InvalidConfigError, UnknownNameError

NANO = VlaserConfig.preset("nano")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def policy() -> VlaserPolicy:
    return VlaserPolicy.initialise(NANO, seed=1)


def make_inputs(config: VlaserConfig, batch: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows with different images, instructions and prompt lengths; the image tokens stand in the middle."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(batch, 3, config.image_size, config.image_size, generator=generator)
    ids = torch.full((batch, config.max_length), config.pad_id)
    for row in range(batch):
        text = 10 + (7 * row) % 30
        ids[row, : text + config.num_image_tokens] = config.image_token_id
        ids[row, :3] = torch.tensor([1, 2, 3])
        words = torch.randint(0, 250, (text - 3,), generator=generator)
        ids[row, 3 + config.num_image_tokens : text + config.num_image_tokens] = words
    proprio = torch.rand(batch, config.proprio_dim, generator=generator) * 2 - 1
    return pixels, ids, proprio, torch.randn(batch, config.horizon, config.action_dim, generator=generator)


def make_batch(config: VlaserConfig, rows: int) -> dict[str, Tensor]:
    pixels, ids, proprio, actions = make_inputs(config, rows, seed=5)
    return {"pixel_values": pixels, "input_ids": ids, "proprio": proprio, "actions": actions.tanh()}


# --- cached against uncached


@pytest.mark.parametrize("t", [0.0, 0.5, 0.9])
@torch.no_grad()
def test_cached_and_uncached_velocity_agree(policy: VlaserPolicy, t: float) -> None:
    """In fp64, where rounding hides nothing, and in fp32."""
    pixels, ids, proprio, x = make_inputs(NANO, 5)
    times = torch.full((5,), t)
    cached = policy.velocity(policy.encode(pixels, ids, proprio), x, times)
    plain = policy.velocity_uncached(pixels, ids, proprio, x, times)
    torch.testing.assert_close(cached, plain, atol=1e-6, rtol=1e-6)
    exact = VlaserPolicy(NANO).double().eval()
    exact.load_state_dict(policy.state_dict())
    pixels, proprio, x = pixels.double(), proprio.double(), x.double()
    cached = exact.velocity(exact.encode(pixels, ids, proprio), x, times)
    assert cached.dtype == torch.float64
    plain = exact.velocity_uncached(pixels, ids, proprio, x, times)
    torch.testing.assert_close(cached, plain, atol=1e-12, rtol=0)


@pytest.mark.parametrize("seed", range(3))
@torch.no_grad()
def test_cached_and_uncached_actions_agree(policy: VlaserPolicy, seed: int) -> None:
    inputs = make_inputs(NANO, 3, seed)
    plain = benchmark.decide_plainly(policy, inputs, 5)
    torch.testing.assert_close(policy.decide(*inputs, num_steps=5, clamp=False), plain, atol=1e-6, rtol=0)


@torch.no_grad()
def test_one_pass_over_proprio_and_actions_agrees(policy: VlaserPolicy) -> None:
    pixels, ids, proprio, x = make_inputs(NANO, 4)
    prefix = policy.encode(pixels, ids, proprio)
    t = torch.tensor([0.1, 0.2, 0.3, 0.4])
    joint = policy.joint_features(prefix.vision_language, proprio, x, t)
    torch.testing.assert_close(joint, policy.features(prefix, x, t), atol=1e-5, rtol=0)


@torch.no_grad()
def test_many_states_per_row_are_evaluated_independently(policy: VlaserPolicy) -> None:
    """K states of a chain in one call give what K calls give, in both ways through the expert."""
    pixels, ids, proprio, noise = make_inputs(NANO, 3)
    prefix = policy.encode(pixels, ids, proprio)
    chain = policy.sample_chain(prefix, noise, 4)[:-1]
    x, t = chain.transpose(0, 1), torch.arange(4).expand(3, 4) / 4
    together = policy.velocity(prefix, x, t)
    one_by_one = torch.stack([policy.velocity(prefix, x[:, k], t[:, k]) for k in range(4)], dim=1)
    torch.testing.assert_close(together, one_by_one, atol=2e-6, rtol=0)
    joint = policy.decode(policy.joint_features(prefix.vision_language, proprio, x, t))
    torch.testing.assert_close(joint, one_by_one, atol=2e-6, rtol=0)


@torch.no_grad()
def test_chain_and_sample_belong_together(policy: VlaserPolicy) -> None:
    pixels, ids, proprio, noise = make_inputs(NANO, 2)
    prefix = policy.encode(pixels, ids, proprio)
    chain = policy.sample_chain(prefix, 3 * noise)
    assert chain.shape == (NANO.num_flow_steps + 1, 2, NANO.horizon, 7)
    assert torch.equal(chain[0], 3 * noise)
    assert chain[-1].abs().max() > 1
    assert torch.equal(policy.sample(prefix, 3 * noise), chain[-1].clamp(-1, 1))
    step = policy.velocity(prefix, chain[0], torch.zeros(2)) / NANO.num_flow_steps
    assert torch.equal(chain[1], chain[0] + step)


@torch.no_grad()
def test_parts_of_a_prefix_can_be_kept_cut_and_joined(policy: VlaserPolicy) -> None:
    pixels, ids, proprio, x = make_inputs(NANO, 4)
    whole = policy.encode_vision_language(pixels, ids)
    t = torch.full((4,), 0.3)
    index = torch.tensor([3, 0, 1, 2])
    joined = VisionLanguage.cat([whole.rows(index[:1]), whole.rows(index[1:])])
    again = policy.velocity(policy.encode_proprio(joined, proprio[index]), x[index], t)
    expected = policy.velocity(policy.encode(pixels, ids, proprio), x, t)
    torch.testing.assert_close(again, expected[index], atol=1e-6, rtol=0)
    layers, heads, dim = NANO.layers, NANO.kv_heads, NANO.head_dim
    assert whole.nbytes == 2 * 4 * layers * 4 * heads * NANO.max_length * dim
    moved = policy.encode_proprio(whole, proprio).rows(slice(1, 3)).detach()
    assert torch.equal(moved.vision_language.lengths, (ids != NANO.pad_id).sum(1)[1:3])


@torch.no_grad()
def test_padding_image_text_and_proprio_matter_as_they_should(policy: VlaserPolicy) -> None:
    pixels, ids, proprio, noise = make_inputs(NANO, 1)
    base = policy.decide(pixels, ids, proprio, noise, clamp=False)
    n = int((ids != NANO.pad_id).sum())
    shorter = policy.decide(pixels, ids[:, : n + 3], proprio, noise, clamp=False)
    torch.testing.assert_close(shorter, base, atol=1e-6, rtol=0)
    changed = ids.clone()
    changed[0, n - 1] = (changed[0, n - 1] + 1) % 250
    assert not torch.allclose(policy.decide(pixels, changed, proprio, noise, clamp=False), base, atol=1e-5)
    assert not torch.allclose(policy.decide(pixels + 0.1, ids, proprio, noise, clamp=False), base, atol=1e-5)
    assert not torch.allclose(policy.decide(pixels, ids, proprio + 0.1, noise, clamp=False), base, atol=1e-5)


# --- micro-batches


@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_lane_acts_bit_equal_among_any_others(policy: VlaserPolicy, threads: int) -> None:
    torch.set_num_threads(threads)
    inputs = make_inputs(NANO, 11)
    decide = PolicyEngine(policy)
    alone = torch.cat([decide(*(tensor[i : i + 1] for tensor in inputs)) for i in range(11)])
    generator = torch.Generator().manual_seed(0)
    for count in (1, 3, 8, 11):
        for _ in range(4):
            rows = torch.randperm(11, generator=generator)[:count]
            assert torch.equal(decide(*(tensor[rows] for tensor in inputs)), alone[rows])
    torch.set_num_threads(1)


def test_buckets_keep_bit_equality_and_change_nothing_else(policy: VlaserPolicy) -> None:
    inputs = make_inputs(NANO, 6)
    bucketed = VlaserPolicy(NANO.replace(length_bucket=8)).eval()
    bucketed.load_state_dict(policy.state_dict())
    lengths = bucketed_lengths(bucketed.config, inputs[1])
    assert len(set(lengths.tolist())) > 2
    assert (lengths >= (inputs[1] != NANO.pad_id).sum(1)).all()
    decide = PolicyEngine(bucketed)
    together = decide(*inputs)
    alone = torch.cat([decide(*(tensor[i : i + 1] for tensor in inputs)) for i in range(6)])
    assert torch.equal(together, alone)
    torch.testing.assert_close(together, PolicyEngine(policy)(*inputs), atol=1e-6, rtol=0)


def test_mixed_prompts_equal_single_runs(policy: VlaserPolicy) -> None:
    inputs = make_inputs(NANO, 8)
    assert len(set((inputs[1] != NANO.pad_id).sum(1).tolist())) == 8
    together = policy.decide(*inputs)
    single = torch.cat([policy.decide(*(tensor[i : i + 1] for tensor in inputs)) for i in range(8)])
    torch.testing.assert_close(together, single, atol=1e-5, rtol=0)


def test_micro_batches_refuse_what_does_not_fit(policy: VlaserPolicy) -> None:
    pixels, ids, proprio, noise = make_inputs(NANO, 2)
    decide = PolicyEngine(policy)
    few, middle = ids.clone(), ids.clone()
    few[0, 5] = 7
    middle[1, 1] = NANO.pad_id
    with pytest.raises(InvalidConfigError, match="image tokens"):
        decide(pixels, few, proprio, noise)
    with pytest.raises(InvalidConfigError, match="on the right only"):
        decide(pixels, middle, proprio, noise)
    with pytest.raises(InvalidConfigError, match="input_ids should have shape"):
        decide(pixels, torch.cat([ids, ids], 1), proprio, noise)
    with pytest.raises(InvalidConfigError, match=r"proprio should have shape \[8, 7\]"):
        decide(pixels, ids, proprio[:, :6], noise)
    with pytest.raises(InvalidConfigError, match="pixel_values should have shape"):
        decide(pixels[..., :60], ids, proprio, noise)
    with pytest.raises(InvalidConfigError, match="noise should have shape"):
        decide(pixels, ids, proprio, noise[:, :3])
    for wrong in ({"sizes": (0,)}, {"sizes": ()}, {"num_steps": 0}):
        with pytest.raises(InvalidConfigError, match="at least 1"):
            PolicyEngine(policy, **wrong)


@pytest.mark.slow
def test_layers_of_a_kind_share_one_compilation_and_compute_the_same() -> None:
    """Traced without gaps and run uncompiled: four graphs for vision, image and text, proprioception, and actions."""
    config = NANO.replace(layers=6, vision_layers=6)
    policy, inputs = VlaserPolicy.initialise(config), make_inputs(config, 2)
    expected = policy.decide(*inputs)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compile_layers(policy, backend="aot_eager")
    torch.testing.assert_close(policy.decide(*inputs), expected, atol=1e-6, rtol=0)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 4
    torch._dynamo.reset()


# --- dtypes


@torch.no_grad()
def test_bf16_acts_close_to_fp32_with_fp32_state(policy: VlaserPolicy) -> None:
    half = VlaserPolicy(NANO).bfloat16().eval()
    half.load_state_dict(policy.state_dict())
    inputs = make_inputs(NANO, 4)
    actions = half.decide(*inputs, clamp=False)
    assert actions.dtype == torch.float32
    exact = policy.decide(*inputs, clamp=False)
    assert 0 < (actions - exact).abs().max() < 0.05


@torch.no_grad()
def test_rotary_angles_stay_exact_in_bf16() -> None:
    """At position 280 a bf16 angle would be off by up to 0.3 rad; keys of zero-position content must turn exactly."""
    half = VlaserPolicy.on_meta(NANO.replace(max_length=384))
    half.load_state_dict(
        {k: torch.zeros(v.shape, dtype=torch.bfloat16) for k, v in half.state_dict().items()}, assign=True
    )
    rope = half._rope(1, 384)
    inverse = 10_000.0 ** (-torch.arange(0, 32, 2, dtype=torch.float64) / 32)
    exact = torch.arange(1, 385, dtype=torch.float64)[:, None] * inverse
    torch.testing.assert_close(rope.cos.double(), exact.cos(), atol=1e-4, rtol=0)
    assert rope.cos.dtype == torch.float32


# --- training


def test_flow_loss_equals_the_definition(policy: VlaserPolicy) -> None:
    batch = make_batch(NANO, 6)
    generator = torch.Generator().manual_seed(2)
    loss = policy.flow_loss(batch, generator=generator, reduction="none")
    assert loss.shape == (6,)
    generator.manual_seed(2)
    noise = torch.randn(6, NANO.horizon, 7, generator=generator)
    t = flow.sample_times(6, "beta", generator)
    x = (1 - 0.999 * t[:, None, None]) * noise + t[:, None, None] * batch["actions"]
    velocity = policy.velocity_uncached(batch["pixel_values"], batch["input_ids"], batch["proprio"], x, t)
    expected = (velocity - (batch["actions"] - 0.999 * noise)).square().mean((1, 2))
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(policy.flow_loss(batch, noise, t), expected.mean(), atol=1e-5, rtol=1e-5)
    cached = {**batch, "vision_language": policy.encode_vision_language(batch["pixel_values"], batch["input_ids"])}
    torch.testing.assert_close(policy.flow_loss(cached, noise, t), expected.mean(), atol=1e-5, rtol=1e-5)


def gradients(policy: VlaserPolicy) -> dict[str, Tensor]:
    batch = make_batch(policy.config, 3)
    policy.zero_grad()
    noise = torch.randn(batch["actions"].shape, generator=torch.Generator().manual_seed(0))
    policy.flow_loss(batch, noise, torch.tensor([0.2, 0.5, 0.8])).backward()
    return {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


def test_every_trainable_parameter_gets_a_gradient_and_no_other() -> None:
    policy = VlaserPolicy.initialise(NANO)
    trainable = {name for name, p in policy.named_parameters() if p.requires_grad}
    grads = gradients(policy)
    assert set(grads) == trainable
    assert [name for name, grad in grads.items() if grad.abs().max() == 0] == []
    unused = {name for name, _ in policy.named_parameters()} - trainable
    last = f"language.layers.{NANO.layers - 1}."
    assert unused == {
        "language.norm.weight",
        last + "post_attention_layernorm.weight",
        last + "self_attn.o_proj.weight",
        last + "self_attn.q_proj.weight",
        last + "self_attn.q_proj.bias",
        *(last + f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")),
    }


def test_gradients_match_finite_differences() -> None:
    policy = VlaserPolicy.initialise(NANO.replace(vision_layers=1, layers=2)).double()
    batch = {k: v.double() if v.is_floating_point() else v for k, v in make_batch(policy.config, 2).items()}
    noise = torch.randn(batch["actions"].shape, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.3, 0.7])
    policy.flow_loss(batch, noise, t).backward()
    for name in (
        "vision.encoder.layers.0.attn.qkv.weight",
        "language.layers.0.self_attn.k_proj.weight",
        "expert.layers.1.self_attn.v_proj.weight",
        "proprio_encoder.weight",
        "embed_tokens.weight",
    ):
        parameter = policy.get_parameter(name)
        assert parameter.grad is not None
        flat = int(parameter.grad.abs().argmax())
        index = torch.unravel_index(torch.tensor(flat), parameter.shape)
        losses = []
        for shift in (1e-2, -2e-2):
            with torch.no_grad():
                parameter[index] += shift
                losses.append(policy.flow_loss(batch, noise, t).item())
        slope = (losses[0] - losses[1]) / 2e-2
        assert parameter.grad[index].item() == pytest.approx(slope, rel=0.05, abs=1e-6), name
        with torch.no_grad():
            parameter[index] += 1e-2


def test_gradient_checkpointing_changes_no_gradient() -> None:
    policy = VlaserPolicy.initialise(NANO)
    plain = gradients(policy)
    policy.set_gradient_checkpointing("vision", "language", "expert")
    for name, grad in gradients(policy).items():
        torch.testing.assert_close(grad, plain[name], atol=1e-7, rtol=1e-5)
    policy.set_gradient_checkpointing()
    assert not policy.expert.gradient_checkpointing
    with pytest.raises(UnknownNameError):
        policy.set_gradient_checkpointing("wheels")


@pytest.mark.parametrize(
    ("frozen", "modules"),
    [
        (("vision",), {"vision", "projector"}),
        (("embedding", "language"), {"embed_tokens", "language"}),
        (("expert",), {"expert", "action_encoder", "proprio_encoder", "action_decoder"}),
        ((), set()),
    ],
)
def test_frozen_parts_get_no_gradient_and_the_others_do(frozen: tuple[str, ...], modules: set[str]) -> None:
    policy = VlaserPolicy.initialise(NANO)
    policy.freeze(*frozen)
    touched = {name.split(".")[0] for name in gradients(policy)}
    assert touched == {name for name, _ in policy.named_children()} - modules
    with pytest.raises(UnknownNameError, match="part of the policy 'wheels'"):
        policy.freeze("wheels")


def test_drop_path_acts_in_training_only() -> None:
    policy = VlaserPolicy.initialise(NANO.replace(drop_path=0.5))
    pixels = make_inputs(NANO, 4)[0]
    with torch.no_grad():
        still = policy.image_features(pixels)
        assert torch.equal(policy.image_features(pixels), still)
        policy.train()
        assert not torch.equal(policy.image_features(pixels), still)
        torch.manual_seed(0)
        mean = torch.stack([policy.vision.encoder.layers[3]._drop(torch.ones(8, 1, 1)) for _ in range(500)]).mean()
    assert mean.item() == pytest.approx(1.0, abs=0.06)


# --- adapters


def test_lora_starts_as_the_policy_and_trains_adapters_only() -> None:
    policy = VlaserPolicy.initialise(NANO)
    inputs = make_inputs(NANO, 2)
    before = policy.decide(*inputs, clamp=False)
    policy.freeze("vision", "embedding")
    policy.get_parameter("projector.0.weight").requires_grad_(True)
    add_lora(policy, ("language", "expert"), rank=4)
    assert has_adapters(policy)
    assert torch.equal(policy.decide(*inputs, clamp=False), before)
    trained = {name for name, p in policy.named_parameters() if p.requires_grad}
    assert {name for name in trained if "lora_" not in name} == {"projector.0.weight"}
    assert {name.split(".")[0] for name in trained} == {
        *("language", "expert", "action_encoder", "proprio_encoder", "action_decoder", "projector")
    }
    policy.get_parameter("projector.0.weight").requires_grad_(False)
    assert set(gradients(policy)) == trained - {"projector.0.weight"}
    optimizer = torch.optim.SGD([p for p in policy.parameters() if p.requires_grad], lr=1.0)
    for _ in range(3):
        gradients(policy)
        optimizer.step()
    after = policy.decide(*inputs, clamp=False)
    assert not torch.allclose(after, before, atol=1e-3)
    with adapters_off(policy):
        assert torch.equal(policy.decide(*inputs, clamp=False), before)
    assert torch.equal(policy.decide(*inputs, clamp=False), after)
    with pytest.raises(InvalidConfigError, match="adapters already"):
        add_lora(policy)


def test_lora_merges_and_saves_under_plain_names(tmp_path: object) -> None:
    policy = VlaserPolicy.initialise(NANO)
    names = set(policy.state_dict())
    add_lora(policy, ("vision", "expert"), rank=2)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.05, generator=torch.Generator().manual_seed(0))
    inputs = make_inputs(NANO, 2)
    adapted = policy.decide(*inputs, clamp=False)
    assert set(merged_state_dict(policy)) == names
    save_pretrained(policy, str(tmp_path))
    loaded = load_pretrained(str(tmp_path))
    torch.testing.assert_close(loaded.decide(*inputs, clamp=False), adapted, atol=1e-5, rtol=0)
    assert torch.equal(policy.decide(*inputs, clamp=False), adapted)
    merge_lora(policy)
    assert not has_adapters(policy)
    assert set(policy.state_dict()) == names
    torch.testing.assert_close(policy.decide(*inputs, clamp=False), adapted, atol=1e-5, rtol=0)
    with pytest.raises(UnknownNameError, match="part for adapters"):
        add_lora(policy, ("embedding",))


# --- configuration


def test_config_survives_json(tmp_path: object) -> None:
    for name in ("vlaser_2b", "vlaser_8b", "nano", "toy"):
        config = VlaserConfig.preset(name, "google_robot", sigma_min=0.002)
        config.save(f"{tmp_path}/{name}.json")
        assert VlaserConfig.load(f"{tmp_path}/{name}.json") == config


def test_config_refuses_what_cannot_be() -> None:
    for changes in (
        {"image_size": 450},
        {"image_size": 14 * 31},
        {"heads": 5},
        {"head_dim": 127},
        {"max_length": 256},
        {"pad_id": 200_000},
        {"horizon": 0},
        {"horizon": 4.5},
        {"time_distribution": "normal"},
        {"sigma_min": 1.0},
    ):
        with pytest.raises(InvalidConfigError):
            VlaserConfig(**changes)
    for call in (
        lambda: VlaserConfig.preset("giant"),
        lambda: VlaserConfig.preset("nano", "panda"),
        lambda: VlaserConfig().replace(hight=3),
    ):
        with pytest.raises(UnknownNameError):
            call()


@pytest.mark.parametrize("horizon", [1, 6, 8])
def test_nano_has_any_horizon_and_either_robot(horizon: int) -> None:
    config = VlaserConfig.preset("nano", "google_robot", horizon=horizon)
    actions = VlaserPolicy.initialise(config).decide(*make_inputs(config, 2))
    assert actions.shape == (2, horizon, 7)
    assert actions.abs().max() <= 1


def test_weights_follow_from_the_seed() -> None:
    torch.manual_seed(0)
    first, state = VlaserPolicy.initialise(NANO, seed=4), torch.get_rng_state()
    second, other = VlaserPolicy.initialise(NANO, seed=4), VlaserPolicy.initialise(NANO, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    for (name, a), b, c in zip(first.named_parameters(), second.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert torch.isfinite(a).all(), name
        if a.ndim == 2:
            assert not torch.equal(a, c), name


# --- speed


@pytest.mark.slow
def test_nano_is_made_at_once_and_decides_for_eight_in_four_matrix_products() -> None:
    """Of 1024 x 1024 numbers, in the same minute: a ratio holds on a busy machine too."""
    torch.set_num_threads(1)
    start = time.process_time()
    policy = VlaserPolicy.initialise(NANO)
    assert time.process_time() - start < 0.5
    decide, inputs, square = PolicyEngine(policy), make_inputs(NANO, 8), torch.rand(1024, 1024)
    deciding, multiplying = [], []
    for _ in range(60):
        start = time.perf_counter()
        decide(*inputs)
        decided = time.perf_counter()
        square @ square
        multiplying.append(time.perf_counter() - decided)
        deciding.append(decided - start)
    assert min(deciding) < 4 * min(multiplying)


def test_benchmark_runs_on_a_cpu_and_asks_for_a_gpu() -> None:
    rows = benchmark.measure(NANO, [1, 2], ways=["cached", "plain"], device="cpu", dtype=torch.float32, repeats=1)
    assert [(row.way, row.batch) for row in rows] == [("plain", 1), ("plain", 2), ("cached", 1), ("cached", 2)]
    assert all(row.rate == row.batch / row.latency for row in rows)
    assert benchmark.table(rows, "nano").row_count == 4
    if not torch.cuda.is_available():
        with pytest.raises(InvalidConfigError, match="needs a CUDA GPU"):
            benchmark.measure(NANO)
    with pytest.raises(UnknownNameError, match="way to run"):
        benchmark.measure(NANO, ways=["fast"])
