"""Loading and saving, on checkpoints of every published layout at toy size."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fabricate import FULL, SETTINGS, Sizes, released, released_groups, vlm
from safetensors.torch import load_file, save_file
from torch import Tensor

from vlaser_gym.agents.vlaser import layouts
from vlaser_gym.agents.vlaser.checkpoint import (
    CheckpointError,
    load_policy,
    load_pretrained,
    read_unused,
    released_state,
    save_pretrained,
    save_released,
)
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.errors import GymError, UnknownNameError

SMALL = Sizes()


def write(path: Path, state: Any) -> Path:
    torch.save(state, path)
    return path


def load(path: Path, **options: Any) -> tuple[VlaserPolicy, Any]:
    settings = {**SETTINGS, **options.pop("settings", {})}
    return load_policy(path, settings=settings, **options)


def assert_holds(policy: VlaserPolicy, state: dict[str, Tensor]) -> None:
    """Every distinct released tensor is in the policy under the name that the groups' first key suggests."""
    weights = policy.state_dict()
    for ours, theirs in {
        "vision.embeddings.position_embedding": "vision_tower.vision_model.embeddings.position_embedding",
        "vision.encoder.layers.1.attn.qkv.bias": "vision_tower.vision_model.encoder.layers.1.attn.qkv.bias",
        "projector.3.weight": "multi_modal_projector.3.weight",
        "embed_tokens.weight": "embed_tokens.weight",
        "language.layers.1.mlp.down_proj.weight": "joint_model.mixtures.vlm.layers.1.mlp.down_proj.weight",
        "expert.layers.0.self_attn.k_proj.bias": "joint_model.mixtures.proprio.layers.0.self_attn.k_proj.bias",
        "expert.norm.weight": "joint_model.mixtures.action.norm.weight",
        "action_encoder.linear_2.weight": "action_encoder.linear_2.weight",
        "proprio_encoder.bias": "proprio_encoder.bias",
    }.items():
        assert torch.equal(weights[ours], state[theirs].to(policy.dtype)), ours
    total = sum(tensor.double().sum() for tensor in weights.values())
    distinct = [keys[0] for keys, _ in released_groups(SMALL) if not keys[0].endswith("lm_head.weight")]
    expected = sum(state[key].to(policy.dtype).double().sum() for key in distinct)
    assert len(weights) == len(distinct)
    torch.testing.assert_close(total, expected)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return released(SMALL)


@pytest.fixture
def file(tmp_path: Path, state: dict[str, Tensor]) -> Path:
    return write(tmp_path / "step1.pt", {"model": state, "cnt_update": 1, "vlm_optimizer": None})


# --- names and sizes at full size, without memory


def test_released_names_at_full_size_are_the_published_ones() -> None:
    groups = released_groups(FULL)
    published = {key: shape for keys, shape in groups for key in keys}
    assert len(published) == 1713
    policy = VlaserPolicy.on_meta(VlaserConfig.preset("vlaser_2b"))
    heads = {key: shape for key, shape in published.items() if "lm_head" in key}
    written = {key: tuple(v.shape) for name, v in policy.state_dict().items() for key in layouts.released_keys(name)}
    assert written | heads == published


#: The 8B code path: the same names with these shapes.
FULL_8B = dataclasses.replace(FULL, width=3584, q=3584, kv=512, mlp=18_944, expert_mlp=5600)


@pytest.mark.parametrize(("preset", "sizes"), [("vlaser_2b", FULL), ("vlaser_8b", FULL_8B)])
def test_a_policy_grown_from_a_vlm_is_written_with_the_published_shapes(preset: str, sizes: Sizes) -> None:
    """Full size, without memory: a VLM has 151,674 tokens, the original's loader wants 151,930 and no key missing."""
    policy = VlaserPolicy.on_meta(VlaserConfig.preset(preset, vocab_size=151_674))
    head = torch.empty(151_674, policy.config.width, device="meta")
    for unused, made in (({}, 2), ({"internvl_model.language_model.lm_head.weight": head}, 1)):
        state, made_up = released_state(policy, unused)
        assert {k: tuple(v.shape) for k, v in state.items()} == {
            k: s for keys, s in released_groups(sizes) for k in keys
        }
        assert (len(state), len(made_up)) == (1713, made)
    for keys, _ in released_groups(sizes):
        assert len({id(state[key]) for key in keys}) == 1, keys
    assert layouts.fits_original(policy.config)


@pytest.mark.parametrize(
    "change",
    [{"vocab_size": 151_931}, {"image_size": 224}, {"expert_mlp": 4000}, {"layers": 27}, {"head_dim": 64}],
    ids=str,
)
def test_other_sizes_are_known_to_be_none_of_the_originals(change: dict[str, int]) -> None:
    assert not layouts.fits_original(VlaserConfig.preset("vlaser_2b", **change))
    assert layouts.fits_original(VlaserConfig.preset("vlaser_2b", "google_robot", expert_mlp=4096))
    assert not layouts.fits_original(VlaserConfig.preset("nano"))


@pytest.mark.parametrize(
    ("preset", "robot", "changes", "expected"),
    [
        ("vlaser_2b", "widowx", {}, {"vision": 304_012_288, "projector": 8_662_016, "language": 1_310_340_608}),
        ("vlaser_2b", "widowx", {}, {"embed_tokens": 233_364_480, "action_encoder": 1_777_152}),
        ("vlaser_2b", "widowx", {}, {"expert": 655_198_976, "proprio_encoder": 6_144, "action_decoder": 5_383}),
        ("vlaser_2b", "google_robot", {"expert_mlp": 4096}, {"expert": 341_412_608, "proprio_encoder": 6_912}),
        ("vlaser_8b", "widowx", {}, {"expert": 537_600_768}),
    ],
)
def test_parameter_counts_are_the_published_ones(
    preset: str, robot: str, changes: dict[str, int], expected: dict[str, int]
) -> None:
    policy = VlaserPolicy.on_meta(VlaserConfig.preset(preset, robot, **changes))
    for module, count in expected.items():
        assert sum(p.numel() for p in policy.get_submodule(module).parameters()) == count, module


@pytest.mark.parametrize(
    ("preset", "robot", "total"),
    [
        ("vlaser_2b", "widowx", 2_863_413_767),
        ("vlaser_2b", "google_robot", 2_863_414_535),
        ("vlaser_8b", "widowx", 8_602_280_455),
    ],
)
def test_total_with_the_unused_text_heads_is_the_published_one(preset: str, robot: str, total: int) -> None:
    config = VlaserConfig.preset(preset, robot)
    heads = config.vocab_size * (config.width + config.expert_width)
    assert sum(p.numel() for p in VlaserPolicy.on_meta(config).parameters()) + heads == total


# --- the released layout in its variations


@pytest.mark.parametrize("wrapper", ["bare", "model", "state_dict", "both"])
@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module.", "module._orig_mod."])
def test_wrappers_and_prefixes(tmp_path: Path, state: dict[str, Tensor], wrapper: str, prefix: str) -> None:
    inner: Any = {prefix + key: value for key, value in state.items()}
    wrapped = {
        "bare": inner,
        "model": {"model": inner, "cnt_update": 3, "wandb_id": "x"},
        "state_dict": {"state_dict": inner},
        "both": {"model": {"state_dict": inner}},
    }[wrapper]
    policy, report = load(write(tmp_path / "a.pt", wrapped))
    assert_holds(policy, state)
    assert report.found == len(state)
    assert not report.missing


def test_report_is_exact(file: Path, state: dict[str, Tensor]) -> None:
    policy, report = load(file)
    groups = released_groups(SMALL)
    assert sorted(report.ignored) == [
        "internvl_model.action_expert.lm_head.weight",
        "internvl_model.language_model.lm_head.weight",
    ]
    assert sorted(report.mapped) == sorted(policy.state_dict())
    used = {keys for keys, _ in groups if not keys[0].endswith("lm_head.weight")}
    taken = {(report.mapped[name], *report.aliases.get(name, [])) for name in report.mapped}
    assert taken == used
    assert report.dtypes == {"float32": len(state)}
    assert report.inferred == {
        "image_size": 56,
        "patch_size": 14,
        "vision_width": 32,
        "vision_layers": 2,
        "vision_mlp": 64,
        "width": 48,
        "vocab_size": 300,
        "layers": 2,
        "heads": 2,
        "kv_heads": 1,
        "mlp_width": 96,
        "expert_width": 32,
        "expert_mlp": 64,
        "proprio_dim": 7,
        "action_dim": 7,
    }
    assert report.assumed["time_max_period"] == 10_000.0
    text = "\n".join(report.lines())
    assert f"found    {len(state)} tensors" in text
    assert "the action expert's text head" in text


def test_any_one_alias_is_enough(tmp_path: Path, state: dict[str, Tensor]) -> None:
    last = {keys[-1]: state[keys[-1]] for keys, _ in released_groups(SMALL)}
    policy, report = load(write(tmp_path / "a.pt", last))
    assert_holds(policy, state)
    assert not report.aliases


def test_aliases_stored_as_copies_must_agree(tmp_path: Path) -> None:
    state = released(SMALL, copies=True)
    policy, report = load(write(tmp_path / "a.pt", state))
    assert_holds(policy, state)
    assert sum(map(len, report.aliases.values())) == len(state) - len(released_groups(SMALL))
    state["joint_model.mixtures.action.layers.1.mlp.up_proj.weight"][0, 0] += 1
    with pytest.raises(CheckpointError, match=r"mixtures\.action\.layers\.1\.mlp\.up_proj\.weight .* they differ"):
        load(write(tmp_path / "b.pt", state))


def test_dtypes(tmp_path: Path) -> None:
    state = released(SMALL, torch.bfloat16)
    path = write(tmp_path / "a.pt", {"model": state})
    policy, report = load(path)
    assert policy.dtype == torch.bfloat16
    assert report.dtypes == {"bfloat16": len(state)}
    wide, _ = load(path, dtype="float32")
    assert {p.dtype for p in wide.parameters()} == {torch.float32}
    assert_holds(wide, state)
    with pytest.raises(UnknownNameError, match="dtype"):
        load(path, dtype="int3")


@pytest.mark.parametrize(
    ("sizes", "field", "value"),
    [
        (Sizes(vocab=310), "vocab_size", 310),
        (Sizes(expert_mlp=56), "expert_mlp", 56),
        (Sizes(expert=40), "expert_width", 40),
        (Sizes(width=64), "width", 64),
        (Sizes(proprio=8), "proprio_dim", 8),
        (Sizes(positions=1025), "image_size", 448),
        (Sizes(positions=257), "image_size", 224),
    ],
)
def test_sizes_are_read_off_the_tensors(tmp_path: Path, sizes: Sizes, field: str, value: int) -> None:
    policy, report = load(write(tmp_path / "a.pt", released(sizes)), settings={"max_length": 300})
    assert getattr(policy.config, field) == value
    assert report.inferred[field] == value
    assert policy.config.num_image_tokens == {"448": 256, "224": 64}.get(str(policy.config.image_size), 4)


@pytest.mark.parametrize("vocab", [151_930, 151_674])
def test_published_vocabularies_need_no_settings(tmp_path: Path, vocab: int) -> None:
    sizes = Sizes(vocab=vocab, width=8, expert=4, positions=1025)
    policy, _ = load_policy(write(tmp_path / "a.pt", released(sizes, torch.bfloat16)), settings={"vision_heads": 2})
    assert (policy.config.vocab_size, policy.config.image_token_id, policy.config.max_length) == (vocab, 151_667, 384)


def test_extra_keys_of_debug_variants_are_ignored(tmp_path: Path, state: dict[str, Tensor]) -> None:
    extra = {"lm_head.weight": torch.zeros(300, 48), "internvl_model.mlp1.1.weight": torch.zeros(48, 128)}
    inside = "internvl_model.language_model.model.layers.0.mlp.up_proj.weight"
    alias = {inside: state["joint_model.mixtures.vlm.layers.0.mlp.up_proj.weight"]}
    policy, report = load(write(tmp_path / "a.pt", {**state, **extra, **alias, "surprise": torch.zeros(1)}))
    assert_holds(policy, state)
    assert set(extra) | {"surprise"} <= set(report.ignored)
    assert report.ignored["surprise"] == "unknown key"
    assert report.aliases["language.layers.0.mlp.up_proj.weight"] == [inside]


@pytest.mark.parametrize("key", ["vision_tower1.vision_model.x", "multi_modal_projector1.3.weight"])
def test_the_second_vision_encoder_variant_is_refused(tmp_path: Path, state: dict[str, Tensor], key: str) -> None:
    with pytest.raises(CheckpointError, match="DEBUG_IMGFEAT"):
        load(write(tmp_path / "a.pt", {**state, key: torch.zeros(1)}))


def test_optimizer_blobs_are_skipped(tmp_path: Path, state: dict[str, Tensor]) -> None:
    blob = {"state": {0: {"state1": torch.zeros(64, dtype=torch.uint8), "step": 3}}, "param_groups": [{"lr": 5e-5}]}
    content = {"model": state, "action_optimizer": blob, "vlm_optimizer": None, "n_averaged": None}
    policy, report = load(write(tmp_path / "a.pt", content))
    assert_holds(policy, state)
    assert report.found == len(state)


def test_a_folder_with_one_released_file_and_safetensors(tmp_path: Path, state: dict[str, Tensor]) -> None:
    write(tmp_path / "step1.pt", {"model": state})
    assert_holds(load(tmp_path)[0], state)
    write(tmp_path / "step2.pt", {"model": state})
    with pytest.raises(CheckpointError, match=r"holds 2 \.pt files"):
        load(tmp_path)
    first = {keys[0]: state[keys[0]] for keys, _ in released_groups(SMALL)}
    save_file(first, tmp_path / "weights.safetensors")
    assert_holds(load(tmp_path)[0], state)
    assert_holds(load(tmp_path / "weights.safetensors")[0], state)


@pytest.mark.parametrize(("proprio", "robot", "period"), [(7, "widowx", 10_000.0), (8, "google_robot", 100.0)])
def test_robot_and_period(tmp_path: Path, proprio: int, robot: str, period: float) -> None:
    path = write(tmp_path / "a.pt", released(Sizes(proprio=proprio)))
    policy, _ = load(path, robot=robot)
    assert (policy.config.robot, policy.config.time_max_period) == (robot, period)
    assert load(path, settings={"time_max_period": 100.0})[0].config.time_max_period == 100.0
    other = "google_robot" if robot == "widowx" else "widowx"
    with pytest.raises(CheckpointError, match=f"so it is for {robot}. Use the checkpoint that was trained for {other}"):
        load(path, robot=other)


def test_a_third_robot_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="reads 9 proprioceptive numbers"):
        load(write(tmp_path / "a.pt", released(Sizes(proprio=9))))


# --- damage


class _Code:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch pwned",)


def test_code_is_refused_and_not_run(tmp_path: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="code"):
        load(write(tmp_path / "a.pt", {"model": state, "extra": _Code()}))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_refused(file: Path, part: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(CheckpointError, match="cut off"):
        load(file)


def test_a_missing_tensor_is_named(tmp_path: Path, state: dict[str, Tensor]) -> None:
    for key in ("action_decoder.bias", "embed_tokens.weight", "joint_model.mixtures.vlm.layers.1.mlp.up_proj.weight"):
        group = next(keys for keys, _ in released_groups(SMALL) if key in keys)
        rest = {name: value for name, value in state.items() if name not in group}
        with pytest.raises(CheckpointError, match="lacks"):
            load(write(tmp_path / "a.pt", rest))


def test_a_wrong_shape_is_named(tmp_path: Path, state: dict[str, Tensor]) -> None:
    wrong = {**state, "action_encoder.linear_2.weight": torch.zeros(32, 65)}
    with pytest.raises(CheckpointError, match=r"linear_2\.weight .* \[32, 64\]; it has \[32, 65\]"):
        load(write(tmp_path / "a.pt", wrong))


@pytest.mark.parametrize("content", [{}, {"model": {"a": 1}}, [1, 2], 3])
def test_a_file_without_weights(tmp_path: Path, content: Any) -> None:
    with pytest.raises(CheckpointError, match="holds no tensors"):
        load(write(tmp_path / "a.pt", content))


def test_other_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        load(tmp_path / "nothing.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(CheckpointError, match="cut off, damaged or of another kind"):
        load(tmp_path / "text.pt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"holds 0 \.pt files"):
        load(tmp_path / "empty")
    with pytest.raises(CheckpointError, match="lacks"):
        load(write(tmp_path / "alien.pt", {"conv.weight": torch.zeros(3)}))
    with pytest.raises(UnknownNameError, match="robot"):
        load(tmp_path / "text.pt", robot="panda")
    assert issubclass(CheckpointError, GymError)


# --- plain VLM


def vlm_folder(path: Path, sizes: Sizes = SMALL, shards: int = 2) -> dict[str, Tensor]:
    state = vlm(sizes)
    names = sorted(state)
    index = {}
    for i in range(shards):
        part = names[i::shards]
        name = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        save_file({key: state[key] for key in part}, path / name)
        index |= dict.fromkeys(part, name)
    if shards > 1:
        (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    config = {
        "model_type": "internvl_chat",
        "vision_config": {"num_attention_heads": 2},
        "llm_config": {"num_attention_heads": 2, "rope_theta": 5e5},
    }
    (path / "config.json").write_text(json.dumps(config))
    return state


@pytest.mark.parametrize("shards", [1, 3])
def test_a_vlm_becomes_a_policy_with_a_new_expert(tmp_path: Path, shards: int) -> None:
    state = vlm_folder(tmp_path, shards=shards)
    options = {"image_token_id": 298, "pad_id": 299, "max_length": 24, "expert_width": 32, "expert_mlp": 40}
    policy, report = load_policy(tmp_path, robot="google_robot", settings=options)
    weights = policy.state_dict()
    for ours, theirs in {
        "vision.encoder.layers.0.ls2": "vision_model.encoder.layers.0.ls2",
        "projector.1.weight": "mlp1.1.weight",
        "embed_tokens.weight": "language_model.model.embed_tokens.weight",
        "language.layers.1.self_attn.v_proj.weight": "language_model.model.layers.1.self_attn.v_proj.weight",
        "language.norm.weight": "language_model.model.norm.weight",
    }.items():
        assert torch.equal(weights[ours], state[theirs]), ours
    assert list(report.ignored) == ["language_model.lm_head.weight"]
    assert {name.split(".")[0] for name in report.missing} == {
        *("expert", "action_encoder", "proprio_encoder", "action_decoder")
    }
    assert len(report.mapped) == len(state) - 1
    assert len(report.mapped) + len(report.missing) == len(weights)
    config = policy.config
    assert (config.heads, config.kv_heads, config.head_dim, config.vision_heads) == (2, 1, 128, 2)
    assert (config.rope_theta, config.robot, config.expert_mlp) == (5e5, "google_robot", 40)
    assert weights["expert.layers.0.mlp.up_proj.weight"].std().item() == pytest.approx(0.02, rel=0.2)
    again, _ = load_policy(tmp_path, robot="google_robot", settings=options)
    assert torch.equal(again.expert.layers[1].mlp.up_proj.weight, policy.expert.layers[1].mlp.up_proj.weight)
    assert torch.isfinite(torch.cat([p.flatten() for p in policy.parameters()])).all()


def test_a_vlm_with_a_missing_or_damaged_shard(tmp_path: Path) -> None:
    vlm_folder(tmp_path, shards=2)
    shard = tmp_path / "model-00002-of-00002.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="cut off"):
        load_policy(tmp_path)
    shard.unlink()
    with pytest.raises(CheckpointError, match="does not exist"):
        load_policy(tmp_path)


# --- our folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_our_folder_round_trip(tmp_path: Path, dtype: torch.dtype) -> None:
    config = VlaserConfig.preset("nano", "google_robot", horizon=6)
    policy = VlaserPolicy.initialise(config, seed=3, dtype=dtype)
    (tmp_path / "statistics.json").write_text("{}")
    save_pretrained(policy, tmp_path)
    again = load_pretrained(tmp_path)
    assert again.config == config
    assert not again.training
    for name, tensor in policy.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert sorted(f.name for f in tmp_path.iterdir()) == ["config.json", "model.safetensors", "statistics.json"]
    assert load_pretrained(tmp_path, settings={"num_flow_steps": 3}).config.num_flow_steps == 3
    with pytest.raises(CheckpointError, match="so it is for google_robot"):
        load_pretrained(tmp_path, robot="widowx")


def _decide(policy: VlaserPolicy) -> Tensor:
    """Two decisions on random inputs, from zero noise."""
    config, generator = policy.config, torch.Generator().manual_seed(0)
    ids = torch.full((2, 40), 65)
    ids[:, : config.num_image_tokens] = config.image_token_id
    pixels = torch.randn(2, 3, config.image_size, config.image_size, generator=generator)
    proprio = torch.randn(2, config.proprio_dim, generator=generator)
    return policy.decide(pixels, ids, proprio, torch.zeros(2, config.horizon, config.action_dim), clamp=False)


def test_more_layers_than_are_stored_change_nothing_until_they_are_trained(tmp_path: Path) -> None:
    before = VlaserPolicy.initialise(VlaserConfig.preset("nano"), seed=1)
    save_pretrained(before, tmp_path)
    deeper = load_pretrained(tmp_path, settings={"layers": 5})
    assert deeper.config.layers == 5
    assert torch.equal(_decide(deeper), _decide(before))
    assert torch.equal(_decide(load_pretrained(tmp_path, settings={"layers": 3})), _decide(before))
    # Every new layer of the action expert learns from the first step on; the language model's last gives keys alone.
    ids = torch.full((2, 40), 65)
    ids[:, : deeper.config.num_image_tokens] = deeper.config.image_token_id
    noise = torch.randn(2, 4, 7, generator=torch.Generator().manual_seed(0))
    vision_language = deeper.encode_vision_language(torch.ones(2, 3, 120, 120), ids)
    features = deeper.joint_features(vision_language, torch.ones(2, 7), noise, torch.full((2,), 0.5))
    deeper.decode(features).square().sum().backward()
    for index in (3, 4):
        gradient = deeper.get_submodule(f"expert.layers.{index}.self_attn.o_proj").weight.grad
        assert gradient is not None
        assert gradient.abs().max() > 0


def test_layers_that_nobody_asked_for_are_missing_tensors(tmp_path: Path) -> None:
    save_pretrained(VlaserPolicy.initialise(VlaserConfig.preset("nano"), seed=1), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["policy"]["layers"] = 5
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="it is incomplete or of another model"):
        load_pretrained(tmp_path)


def test_a_folder_may_be_overwritten_by_the_policy_that_was_loaded_from_it(tmp_path: Path) -> None:
    save_pretrained(VlaserPolicy.initialise(VlaserConfig.preset("nano"), seed=1), tmp_path)
    policy = load_pretrained(tmp_path)
    with torch.no_grad():
        policy.action_decoder.bias += 1
    expected = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    save_pretrained(policy, tmp_path)
    for name, tensor in load_pretrained(tmp_path).state_dict().items():
        assert torch.equal(tensor, expected[name]), name
        assert torch.equal(policy.state_dict()[name], expected[name]), name


def test_a_damaged_folder_of_ours(tmp_path: Path) -> None:
    save_pretrained(VlaserPolicy.initialise(VlaserConfig.preset("nano")), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change in ({"horizon": "four"}, {"horizons": 4}, {"image_size": 121}):
        (tmp_path / "config.json").write_text(json.dumps({**config, "policy": {**config["policy"], **change}}))
        with pytest.raises(CheckpointError, match="does not describe a policy"):
            load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "policy": {**config["policy"], "mlp_width": 400}}))
    with pytest.raises(CheckpointError, match=r"should have shape \[.*400.*256"):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="should be JSON"):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = load_file(tmp_path / "model.safetensors")
    del weights["expert.norm.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks 1 of \d+ tensors, first expert\.norm\.weight"):
        load_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="does not exist"):
        load_pretrained(tmp_path)


def test_back_to_the_released_layout(tmp_path: Path, file: Path, state: dict[str, Tensor]) -> None:
    policy, _ = load(file)
    assert save_released(policy, tmp_path / "b.pt", read_unused(file)) == []
    content = torch.load(tmp_path / "b.pt", weights_only=True)
    assert set(content["model"]) == set(state)
    for key, tensor in state.items():
        assert torch.equal(content["model"][key], tensor), key
    assert (tmp_path / "b.pt").stat().st_size < 1.02 * file.stat().st_size  # aliases are stored once
    made = save_released(policy, tmp_path / "c.pt")
    assert sorted(made) == sorted(key for key in state if key.endswith("lm_head.weight"))
    assert set(torch.load(tmp_path / "c.pt", weights_only=True)["model"]) == set(state)


def test_our_file_holds_what_the_released_layout_cannot(tmp_path: Path) -> None:
    config = VlaserConfig.preset("nano", horizon=6, num_flow_steps=3, position_start=0, time_max_period=77.0)
    policy = VlaserPolicy.initialise(config, seed=3)
    save_released(policy, tmp_path / "a.pt")
    for source in (tmp_path / "a.pt", tmp_path):
        again, report = load_policy(source)
        assert (again.config, report.layout, report.assumed) == (config, "file", {})
        for name, tensor in policy.state_dict().items():
            assert torch.equal(again.state_dict()[name], tensor), name
    assert read_unused(tmp_path / "a.pt") == {}
    assert load_policy(tmp_path / "a.pt", settings={"num_flow_steps": 9})[0].config.num_flow_steps == 9
    with pytest.raises(CheckpointError, match="so it is for widowx"):
        load_policy(tmp_path / "a.pt", robot="google_robot")
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    for damage, match in (([], "damaged or of a newer version"), ({"policy": {"widths": 3}}, "widths")):
        told = {**content["vlaser_gym"], **damage} if damage else damage
        with pytest.raises(CheckpointError, match=match):
            load_policy(write(tmp_path / "b.pt", {**content, "vlaser_gym": told}))


# --- memory


@pytest.mark.slow
def test_nothing_of_full_size_is_allocated_for_a_wrong_checkpoint(tmp_path: Path) -> None:
    """A full-size state dict of tensors without memory passes every reader; the robot is checked before any use."""
    state = {keys[0]: torch.zeros(1, dtype=torch.bfloat16).expand(shape) for keys, shape in released_groups(FULL)}
    path = write(tmp_path / "a.pt", state)
    assert path.stat().st_size < 2e6
    with pytest.raises(CheckpointError, match="so it is for widowx"):
        load_policy(path, robot="google_robot")
    del state["joint_model.mixtures.vlm.layers.7.mlp.up_proj.weight"]
    write(path, state)
    script = (
        "import sys, torch\n"
        "from vlaser_gym.agents.vlaser.checkpoint import load_policy, CheckpointError\n"
        "torch.zeros(1)\n"
        "read = lambda: int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
        "before = read()\n"
        "try:\n    load_policy(sys.argv[1], dtype='float32')\n"
        "except CheckpointError as error:\n    print(error)\n"
        "print((read() - before) // 1024)\n"
    )
    out = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True).stdout
    message, megabytes = out.strip().splitlines()
    assert "lacks 1 of" in message
    assert int(megabytes) < 100


@pytest.mark.long
def test_loading_full_size_needs_little_more_memory_than_the_file(tmp_path: Path) -> None:
    path = tmp_path / "step1.pt"
    script = (
        "import sys, torch\n"
        "from vlaser_gym.agents.vlaser.checkpoint import load_policy\n"
        "policy, report = load_policy(sys.argv[1])\n"
        "total = sum(parameter.float().sum().item() for parameter in policy.parameters())\n"
        "assert total == sum(p.numel() for p in policy.parameters()) / 4, total\n"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
    )
    try:
        state: dict[str, Tensor] = {}
        for keys, shape in released_groups(FULL):
            state |= dict.fromkeys(keys, torch.full(shape, 0.25, dtype=torch.bfloat16))
        write(path, {"model": state})
        del state
        size = path.stat().st_size
        assert size > 5.7e9
        out = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
        assert int(out.stdout) * 1024 < 1.3 * size
    finally:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_of_a_diverged_training_are_refused(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    policy = VlaserPolicy.initialise(VlaserConfig.preset("nano")).to(dtype)
    with torch.no_grad():
        policy.get_parameter("action_decoder.weight").view(-1)[5] = value
    save_pretrained(policy, tmp_path)
    with pytest.raises(CheckpointError, match=r"action_decoder\.weight in .* not finite.*Take an earlier checkpoint"):
        load_policy(tmp_path)


def test_internvl_in_transformers_layout_is_told_apart(tmp_path: Path) -> None:
    """The names of OpenGVLab/InternVL3-2B-hf, of transformers before 4.52 and since."""
    new = ("model.vision_tower.embeddings.cls_token", "model.multi_modal_projector.linear_1.weight", "lm_head.weight")
    old = ("vision_tower.encoder.layer.0.attention.q_proj.weight", "multi_modal_projector.linear_1.weight")
    for names in (new, old):
        save_file({name: torch.zeros(2, 2) for name in names}, tmp_path / "model.safetensors")
        with pytest.raises(CheckpointError, match=r"transformers' own layout .*without -hf, such as OpenGVLab/Intern"):
            load(tmp_path)


@pytest.mark.parametrize(
    "content",
    [{}, {"weight_map": []}, {"weight_map": {}}, {"weight_map": {"a": 3}}, {"weight_map": {"a": "../x"}}, [1]],
)
def test_an_index_of_another_shape(tmp_path: Path, content: Any) -> None:
    vlm_folder(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"should map names of tensors to files beside it \(weight_map\)"):
        load(tmp_path)


def test_a_file_in_the_old_format_of_torch_is_not_called_damaged(tmp_path: Path, state: dict[str, Tensor]) -> None:
    file = tmp_path / "old.pt"
    torch.save({"model": state}, file, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"before 1\.6.*torch\.save\(torch\.load") as caught:
        load(file)
    assert "damaged" not in str(caught.value)
    # What it advises works.
    torch.save(torch.load(file, map_location="cpu", weights_only=True), tmp_path / "new.pt")
    load(tmp_path / "new.pt")


# --- checksums


def flipped(path: Path, place: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    config = VlaserConfig.preset("nano", vision_layers=1, layers=1, width=16, heads=2, kv_heads=1, head_dim=8)
    save_pretrained(VlaserPolicy.initialise(config.replace(mlp_width=32, expert_width=16, expert_mlp=32)), tmp_path)
    return tmp_path


def test_a_flipped_bit_in_the_weights_is_refused_or_accepted_on_demand(stored: Path) -> None:
    before = {name: tensor.clone() for name, tensor in load_pretrained(stored).state_dict().items()}  # not mapped
    for place in (0.5, 0.8, 0.999):
        whole = (stored / "model.safetensors").read_bytes()
        flipped(stored / "model.safetensors", place)
        with pytest.raises(CheckpointError, match="another checksum than the one that was written with them"):
            load_policy(stored)
        after = load_policy(stored, check=False)[0].state_dict()
        assert sum(not torch.equal(before[name], after[name]) for name in before) == 1
        (stored / "model.safetensors").write_bytes(whole)


def test_equal_weights_are_equal_files_that_others_may_read(stored: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    for _ in range(3):
        save_pretrained(load_pretrained(stored), again)
        assert (again / "model.safetensors").read_bytes() == (stored / "model.safetensors").read_bytes()
    modes = {path.name: path.stat().st_mode & 0o777 for path in again.iterdir()}
    (tmp_path / "plain").touch()
    assert set(modes.values()) == {(tmp_path / "plain").stat().st_mode & 0o777}
    assert set(load_file(again / "model.safetensors")) == set(load_pretrained(stored).state_dict())


def test_weights_without_a_checksum_are_loaded_as_before(stored: Path) -> None:
    weights = load_file(stored / "model.safetensors")
    save_file(weights, stored / "model.safetensors", {"format": "pt"})
    flipped(stored / "model.safetensors", 0.9)
    load_policy(stored)


def test_a_flipped_bit_in_an_original_file_is_refused_or_accepted_on_demand(file: Path) -> None:
    flipped(file, 0.5)
    with pytest.raises(CheckpointError, match="it is not as it was written"):
        load(file)
    load(file, check=False)
