"""Small checkpoints made on the spot: a Qwen2 tokenizer's files, and a VLM folder in InternVL's layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

LETTERS = [*"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;?!<>/[]()_-'\"|", "Ġ", "Ċ", "ca"]
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>")
SPECIAL_IDS = {token: len(LETTERS) + i for i, token in enumerate(SPECIALS)}
VOCAB_SIZE = len(LETTERS) + len(SPECIALS)


def write_tokenizer(folder: Path) -> None:
    """``vocab.json`` (characters and one merge), ``merges.txt`` and ``added_tokens.json``."""
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(LETTERS)}))
    (folder / "merges.txt").write_text("#version: 0.2\nc a\n")
    (folder / "added_tokens.json").write_text(json.dumps(SPECIAL_IDS))


def vlm_config(**changes: Any) -> dict[str, Any]:
    """An InternVL chat configuration with 56-pixel tiles of 4 tokens."""
    return {
        "model_type": "internvl_chat",
        "force_image_size": 56,
        "downsample_ratio": 0.5,
        "ps_version": "v2",
        "select_layer": -1,
        "use_thumbnail": True,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": 12,
        "system_message": None,
        "vision_config": {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "patch_size": 14,
            "image_size": 56,
            "norm_type": "layer_norm",
            "qk_normalization": False,
            "qkv_bias": True,
        },
        "llm_config": {
            "architectures": ["Qwen2ForCausalLM"],
            "_attn_implementation_autoset": True,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "hidden_act": "silu",
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-06,
            "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"},
            "rope_theta": 1000000.0,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "vocab_size": VOCAB_SIZE,
        },
    } | changes


def vlm_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random bf16 weights for :func:`vlm_config`, by the names and shapes of the released layout."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (torch.randn(shape, generator=generator) * 0.3 + float(name.endswith("norm.weight"))).bfloat16()
        for name, shape in _shapes().items()
    }


def _shapes() -> dict[str, tuple[int, ...]]:
    vision, width, mlp, kv = 16, 32, 48, 16
    shapes: dict[str, tuple[int, ...]] = {
        "vision_model.embeddings.class_embedding": (1, 1, vision),
        "vision_model.embeddings.position_embedding": (1, 17, vision),
        "vision_model.embeddings.patch_embedding.weight": (vision, 3, 14, 14),
        "vision_model.embeddings.patch_embedding.bias": (vision,),
        "mlp1.0.weight": (4 * vision,),
        "mlp1.0.bias": (4 * vision,),
        "mlp1.1.weight": (width, 4 * vision),
        "mlp1.1.bias": (width,),
        "mlp1.3.weight": (width, width),
        "mlp1.3.bias": (width,),
        "language_model.model.embed_tokens.weight": (VOCAB_SIZE, width),
        "language_model.model.norm.weight": (width,),
        "language_model.lm_head.weight": (VOCAB_SIZE, width),
    }
    for i in range(2):
        layer = f"vision_model.encoder.layers.{i}."
        for name, shape in {
            "ls1": (vision,),
            "ls2": (vision,),
            "attn.qkv.weight": (3 * vision, vision),
            "attn.qkv.bias": (3 * vision,),
            "attn.proj.weight": (vision, vision),
            "attn.proj.bias": (vision,),
            "mlp.fc1.weight": (2 * vision, vision),
            "mlp.fc1.bias": (2 * vision,),
            "mlp.fc2.weight": (vision, 2 * vision),
            "mlp.fc2.bias": (vision,),
            **{f"norm{k}.{part}": (vision,) for k in (1, 2) for part in ("weight", "bias")},
        }.items():
            shapes[layer + name] = shape
        layer = f"language_model.model.layers.{i}."
        for name, shape in {
            "self_attn.q_proj.weight": (width, width),
            "self_attn.q_proj.bias": (width,),
            **{f"self_attn.{x}_proj.weight": (kv, width) for x in "kv"},
            **{f"self_attn.{x}_proj.bias": (kv,) for x in "kv"},
            "self_attn.o_proj.weight": (width, width),
            "mlp.gate_proj.weight": (mlp, width),
            "mlp.up_proj.weight": (mlp, width),
            "mlp.down_proj.weight": (width, mlp),
            "input_layernorm.weight": (width,),
            "post_attention_layernorm.weight": (width,),
        }.items():
            shapes[layer + name] = shape
    return shapes


def write_vlm(folder: Path, *, shards: int = 1, seed: int = 0, **changes: Any) -> Path:
    """A whole VLM folder, its weights in one file or in several with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(vlm_config(**changes)))
    weights = vlm_weights(seed)
    if shards == 1:
        save_file(weights, folder / "model.safetensors")
        return folder
    names, weight_map = sorted(weights), {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: weights[name] for name in names[i::shards]}
        save_file(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder
