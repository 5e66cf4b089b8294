"""InternVL in the layout of ``transformers``' own classes (``InternVLForConditionalGeneration``), read as ours.

The numbers are those of OpenGVLab's layout under other names; q, k and v of the vision encoder are three matrices.
Folders written by different versions of ``transformers`` differ in the prefixes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlaser_gym.errors import InvalidConfigError

#: Beginnings of names, theirs -> ours, after the prefixes of versions are gone.
_PREFIXES = {
    "vision_tower.embeddings.cls_token": "vision_model.embeddings.class_embedding",
    "vision_tower.embeddings.position_embeddings": "vision_model.embeddings.position_embedding",
    "vision_tower.embeddings.patch_embeddings.projection.": "vision_model.embeddings.patch_embedding.",
    "multi_modal_projector.layer_norm.": "mlp1.0.",
    "multi_modal_projector.linear_1.": "mlp1.1.",
    "multi_modal_projector.linear_2.": "mlp1.3.",
}
_LAYER = re.compile(r"vision_tower\.encoder\.layer\.(\d+)\.(.+)")
_IN_LAYER = {
    "attention.projection_layer.": "attn.proj.",
    "layernorm_before.": "norm1.",
    "layernorm_after.": "norm2.",
    "lambda_1": "ls1",
    "lambda_2": "ls2",
    "mlp.": "mlp.",
}
_QKV = re.compile(r"attention\.([qkv])_proj\.(weight|bias)")


def is_transformers_layout(data: Mapping[str, Any]) -> bool:
    """True if a folder's ``config.json`` has this layout."""
    return data.get("model_type") == "internvl"


def as_chat_config(data: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The same configuration as OpenGVLab's layout has it.

    Raises:
        InvalidConfigError: for a model that is built differently.
    """
    vision, language = data["vision_config"], data["text_config"]
    expected = [
        ("text_config.model_type", "qwen2", language.get("model_type")),
        ("vision_config.use_mean_pooling", True, vision.get("use_mean_pooling", True)),
        ("vision_config.attention_bias", True, vision.get("attention_bias", False)),
        ("vision_feature_layer", -1, data.get("vision_feature_layer", -1)),
    ]
    for name, want, got in expected:
        if got != want:
            raise InvalidConfigError(f"{file}: {name} should be {want!r}, as in InternVL3; got {got!r}.")
    side = _side(vision["image_size"])
    tied = data.get("tie_word_embeddings", language.get("tie_word_embeddings", False))
    return {
        "model_type": "internvl_chat",
        "downsample_ratio": data.get("downsample_ratio", 0.5),
        "vision_config": {
            **{name: vision[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")},
            "intermediate_size": vision["intermediate_size"],
            "patch_size": _side(vision["patch_size"]),
            "image_size": side,
            "norm_type": vision.get("norm_type", "layer_norm"),
            "qk_normalization": vision.get("use_qk_norm", False),
        },
        "llm_config": {**language, "architectures": ["Qwen2ForCausalLM"], "tie_word_embeddings": tied},
    }


def _side(size: Any) -> int:
    return int(size[0]) if isinstance(size, list | tuple) else int(size)


def as_chat_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights by the names of OpenGVLab's layout; names that are not InternVL's stay as they are."""
    parts: dict[str, dict[str, Tensor]] = {}
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        plain = _plain(name)
        layer = _LAYER.fullmatch(plain)
        packed = _QKV.fullmatch(layer[2]) if layer else None
        if layer and packed:
            target = f"vision_model.encoder.layers.{layer[1]}.attn.qkv.{packed[2]}"
            parts.setdefault(target, {})[packed[1]] = tensor
        elif layer:
            found[f"vision_model.encoder.layers.{layer[1]}.{_renamed(layer[2], _IN_LAYER)}"] = tensor
        else:
            found[_renamed(plain, _PREFIXES)] = tensor
    whole = {name: part for name, part in parts.items() if len(part) == 3}
    return found | {name: torch.cat([part[x] for x in "qkv"]) for name, part in whole.items()}


def _plain(name: str) -> str:
    """A name without what versions put before it; the language model as ``Qwen2ForCausalLM`` calls it."""
    name = name.removeprefix("model.")
    if name == "lm_head.weight":
        return "language_model.lm_head.weight"
    if name.startswith("language_model.") and not name.startswith(("language_model.model.", "language_model.lm_head.")):
        return f"language_model.model.{name.removeprefix('language_model.')}"
    return name


def _renamed(name: str, table: Mapping[str, str]) -> str:
    for theirs, ours in table.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
