"""Other projects' names of the weights, and the policy's config from the shapes of weights.

Key lists: OpenGVLab/Vlaser 40d7821 (released policy, 1713 keys of which many are aliases of one tensor) and InternVL3's
chat models (plain VLM).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from vlaser_gym.agents.vlaser.config import TIME_MAX_PERIODS, VlaserConfig

Shape = tuple[int, ...]

#: Prefix in a released policy -> ours. Where several prefixes have one target, they are aliases of the same tensors.
RELEASED = {
    "vision_tower.vision_model.": "vision.",
    "internvl_model.vision_model.": "vision.",
    "multi_modal_projector.": "projector.",
    "embed_tokens.": "embed_tokens.",
    "internvl_model.language_model.model.embed_tokens.": "embed_tokens.",
    "joint_model.mixtures.vlm.": "language.",
    "internvl_model.language_model.model.": "language.",
    "joint_model.mixtures.proprio.": "expert.",
    "joint_model.mixtures.action.": "expert.",
    "internvl_model.action_expert.model.": "expert.",
    "action_encoder.": "action_encoder.",
    "proprio_encoder.": "proprio_encoder.",
    "action_decoder.": "action_decoder.",
}

#: Weights of a released policy that no action depends on.
RELEASED_UNUSED = {
    "internvl_model.language_model.lm_head.": "the language model's text head",
    "internvl_model.action_expert.lm_head.": "the action expert's text head",
    "lm_head.": "a text head of the DEBUG_VLM and DEBUG_JOINT variants",
    "internvl_model.mlp1.": "a projector of the DEBUG_VLM and DEBUG_JOINT variants",
}

#: Weights of a variant that computes something else: a second vision encoder in front of the action expert.
RELEASED_REFUSED = ("vision_tower1.", "multi_modal_projector1.")

#: The language model's text head in a plain VLM; in a released policy ``internvl_model.`` stands before it.
HEAD = "language_model.lm_head."

#: Prefix in a plain VLM -> ours.
VLM = {
    "vision_model.": "vision.",
    "mlp1.": "projector.",
    "language_model.model.embed_tokens.": "embed_tokens.",
    "language_model.model.": "language.",
}
VLM_UNUSED = {"language_model.lm_head.": "the language model's text head"}

#: Prefixes of InternVL in transformers' own layout, of which nothing is read: it names and splits tensors differently.
TRANSFORMERS = ("model.vision_tower.", "model.multi_modal_projector.", "model.language_model.", "vision_tower.encoder.")

#: Tokens of the original's text model: InternVL3's 151,674 and 256 for actions, which no prompt of the policy holds.
#: Its loader refuses a table with other rows, so that a policy grown from a plain VLM gets the missing ones appended.
RELEASED_ROWS = 151_930

#: Settings that no tensor shows; a checkpoint in a foreign layout gets them from the defaults or from the user.
NOT_IN_WEIGHTS = (
    *("head_dim", "vision_heads", "rope_theta", "max_length", "image_token_id", "pad_id", "position_start"),
    *("horizon", "num_flow_steps", "initial_noise", "time_max_period", "sigma_min"),
)


def plain_key(key: str) -> str:
    """Without the marks that compilation and data parallelism leave."""
    key = key.replace("_orig_mod.", "")
    while key.startswith("module."):
        key = key.removeprefix("module.")
    return key


def translate(key: str, table: Mapping[str, str]) -> str | None:
    """Our name of a key, by the longest prefix that fits; ``None`` if none does."""
    fitting = [prefix for prefix in table if key.startswith(prefix)]
    if not fitting:
        return None
    prefix = max(fitting, key=len)
    return table[prefix] + key.removeprefix(prefix)


def released_keys(name: str) -> list[str]:
    """All names that the released layout has for one of our parameters, the first one first."""
    keys = [theirs + name.removeprefix(ours) for theirs, ours in RELEASED.items() if name.startswith(ours)]
    # The copies inside internvl_model keep the norms and the embedding only.
    return [
        key for key in keys if not re.match(r"internvl_model\.(language_model|action_expert)\.model\.layers\.", key)
    ]


def released_rows(config: VlaserConfig) -> int:
    """Rows of the embedding and of both text heads in the released layout.

    A policy whose prompts hold other tokens than InternVL3's keeps its own: the original could not use it anyway.
    """
    reads_internvl = config.image_token_id == VlaserConfig().image_token_id
    return max(config.vocab_size, RELEASED_ROWS) if reads_internvl else config.vocab_size


def infer_vision(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """Settings of the vision encoder from the shapes of our parameters."""
    patch = shapes["vision.embeddings.patch_embedding.weight"][-1]
    patches = shapes["vision.embeddings.position_embedding"][1] - 1
    width = shapes["vision.embeddings.class_embedding"][-1]
    return {
        "image_size": round(patches**0.5) * patch,
        "patch_size": patch,
        "vision_width": width,
        "vision_layers": count_layers(shapes, "vision.encoder.layers."),
        "vision_mlp": shapes["vision.encoder.layers.0.mlp.fc1.weight"][0],
        "vision_heads": max(width // 64, 1),  # InternViT's heads have 64 numbers
    }


def infer_language(shapes: Mapping[str, Shape], head_dim: int) -> dict[str, Any]:
    """Settings of embedding and language model from the shapes of our parameters."""
    vocab_size, width = shapes["embed_tokens.weight"]
    return {
        "width": width,
        "vocab_size": vocab_size,
        "layers": count_layers(shapes, "language.layers."),
        "heads": shapes["language.layers.0.self_attn.q_proj.weight"][0] // head_dim,
        "kv_heads": shapes["language.layers.0.self_attn.k_proj.weight"][0] // head_dim,
        "mlp_width": shapes["language.layers.0.mlp.gate_proj.weight"][0],
    }


def infer_expert(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """Settings of the action expert from the shapes of our parameters."""
    mlp, width = shapes["expert.layers.0.mlp.gate_proj.weight"]
    return {
        "expert_width": width,
        "expert_mlp": mlp,
        "proprio_dim": shapes["proprio_encoder.weight"][1],
        "action_dim": shapes["action_decoder.weight"][0],
    }


def count_layers(names: Iterable[str], prefix: str) -> int:
    """Number of layers below a prefix, by the highest index."""
    numbers = [int(name.removeprefix(prefix).split(".")[0]) for name in names if name.startswith(prefix)]
    return max(numbers, default=-1) + 1


def name_of(config: VlaserConfig) -> str:
    """The preset whose network has these sizes, else ``"custom"``."""
    sizes = ("vision_width", "width", "layers", "heads", "kv_heads", "expert_width")
    return next((name for name in _RELEASED_SIZES if _agrees(config, name, sizes)), "custom")


def fits_original(config: VlaserConfig) -> bool:
    """True if the original's loader takes a ``.pt`` of this policy: it checks the shape of every tensor."""
    sizes = (
        *("image_size", "patch_size", "vision_width", "vision_layers", "vision_mlp", "width", "layers", "heads"),
        *("kv_heads", "head_dim", "mlp_width", "expert_width", "action_dim"),
    )
    return released_rows(config) == RELEASED_ROWS and any(
        _agrees(config, name, sizes) and config.expert_mlp in mlps for name, mlps in _RELEASED_SIZES.items()
    )


def _agrees(config: VlaserConfig, preset: str, sizes: Iterable[str]) -> bool:
    return all(getattr(VlaserConfig.preset(preset), size) == getattr(config, size) for size in sizes)


#: The original's two sizes, and the widths of the action expert's MLP that it can be built with (4096: DEBUG_1536).
_RELEASED_SIZES = {"vlaser_2b": (8960, 4096), "vlaser_8b": (5600,)}


def default_period(robot: str | None) -> float:
    """The time embedding's period that the evaluation configs of a robot name."""
    return TIME_MAX_PERIODS.get(robot or "", VlaserConfig().time_max_period)
