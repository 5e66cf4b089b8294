"""Checkpoints in other people's layouts, made from the published key lists and not from the package's tables."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Group = tuple[tuple[str, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Sizes:
    """Defaults: small, with few tokens."""

    vision: int = 32
    vision_layers: int = 2
    vision_mlp: int = 64
    positions: int = 17
    patch: int = 14
    width: int = 48
    layers: int = 2
    q: int = 256
    kv: int = 128
    mlp: int = 96
    vocab: int = 300
    expert: int = 32
    expert_mlp: int = 64
    proprio: int = 7


#: OpenGVLab/Vlaser-2B-VLA.
FULL = Sizes(1024, 24, 4096, 1025, 14, 1536, 28, 1536, 256, 8960, 151_930, 768, 8960, 7)

#: Settings that go with :class:`Sizes`' defaults and cannot be read off the weights.
SETTINGS = {"vision_heads": 2, "image_token_id": 298, "pad_id": 299, "max_length": 24}


def vision(s: Sizes) -> dict[str, tuple[int, ...]]:
    w = s.vision
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.class_embedding": (1, 1, w),
        "embeddings.position_embedding": (1, s.positions, w),
        "embeddings.patch_embedding.weight": (w, 3, s.patch, s.patch),
        "embeddings.patch_embedding.bias": (w,),
    }
    for i in range(s.vision_layers):
        p = f"encoder.layers.{i}."
        shapes |= {p + "ls1": (w,), p + "ls2": (w,)}
        shapes |= {p + "attn.qkv.weight": (3 * w, w), p + "attn.qkv.bias": (3 * w,)}
        shapes |= {p + "attn.proj.weight": (w, w), p + "attn.proj.bias": (w,)}
        shapes |= {p + "mlp.fc1.weight": (s.vision_mlp, w), p + "mlp.fc1.bias": (s.vision_mlp,)}
        shapes |= {p + "mlp.fc2.weight": (w, s.vision_mlp), p + "mlp.fc2.bias": (w,)}
        shapes |= {p + f"norm{n}.{kind}": (w,) for n in (1, 2) for kind in ("weight", "bias")}
    return shapes


def decoder_layers(layers: int, width: int, q: int, kv: int, mlp: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(layers):
        p = f"layers.{i}."
        shapes |= {p + "self_attn.q_proj.weight": (q, width), p + "self_attn.q_proj.bias": (q,)}
        shapes |= {p + "self_attn.k_proj.weight": (kv, width), p + "self_attn.k_proj.bias": (kv,)}
        shapes |= {p + "self_attn.v_proj.weight": (kv, width), p + "self_attn.v_proj.bias": (kv,)}
        shapes |= {p + "self_attn.o_proj.weight": (width, q)}
        shapes |= {p + "mlp.gate_proj.weight": (mlp, width), p + "mlp.up_proj.weight": (mlp, width)}
        shapes |= {p + "mlp.down_proj.weight": (width, mlp)}
        shapes |= {p + "input_layernorm.weight": (width,), p + "post_attention_layernorm.weight": (width,)}
    return shapes


def projector(s: Sizes) -> dict[str, tuple[int, ...]]:
    wide = 4 * s.vision
    return {
        "0.weight": (wide,),
        "0.bias": (wide,),
        "1.weight": (s.width, wide),
        "1.bias": (s.width,),
        "3.weight": (s.width, s.width),
        "3.bias": (s.width,),
    }


def released_groups(s: Sizes) -> list[Group]:
    """Distinct tensors of the released layout with all their names: 1713 names at full size."""
    vlm, expert, inside = "joint_model.mixtures.vlm.", "joint_model.mixtures.{}.", "internvl_model."
    groups: list[Group] = [
        (("vision_tower.vision_model." + k, inside + "vision_model." + k), v) for k, v in vision(s).items()
    ]
    table = (s.vocab, s.width)
    groups += [(("embed_tokens.weight", inside + "language_model.model.embed_tokens.weight"), table)]
    groups += [(("multi_modal_projector." + k,), v) for k, v in projector(s).items()]
    groups += [((vlm + k,), v) for k, v in decoder_layers(s.layers, s.width, s.q, s.kv, s.mlp).items()]
    groups += [((vlm + "norm.weight", inside + "language_model.model.norm.weight"), (s.width,))]
    both = [expert.format(name) for name in ("proprio", "action")]
    for k, v in decoder_layers(s.layers, s.expert, s.q, s.kv, s.expert_mlp).items():
        groups.append((tuple(p + k for p in both), v))
    norms = (*(p + "norm.weight" for p in both), inside + "action_expert.model.norm.weight")
    groups += [(norms, (s.expert,))]
    for k, v in {
        "action_encoder.linear_1": (s.expert, 7),
        "action_encoder.linear_2": (s.expert, 2 * s.expert),
        "action_encoder.linear_3": (s.expert, s.expert),
        "proprio_encoder": (s.expert, s.proprio),
        "action_decoder": (7, s.expert),
    }.items():
        groups += [((k + ".weight",), v), ((k + ".bias",), v[:1])]
    groups += [((inside + "language_model.lm_head.weight",), table)]
    groups += [((inside + "action_expert.lm_head.weight",), (s.vocab, s.expert))]
    return groups


def released(s: Sizes, dtype: torch.dtype = torch.float32, *, copies: bool = False, seed: int = 0) -> dict[str, Tensor]:
    """A state dict with random numbers; aliases share memory, or are copies."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for keys, shape in released_groups(s):
        tensor = (torch.randn(shape, generator=generator) * 0.1).to(dtype)
        state |= {key: tensor.clone() if copies else tensor for key in keys}
    return state


def vlm(s: Sizes, seed: int = 0) -> dict[str, Tensor]:
    """InternVL's chat layout."""
    shapes = {"vision_model." + k: v for k, v in vision(s).items()}
    shapes |= {"mlp1." + k: v for k, v in projector(s).items()}
    inner = "language_model.model."
    shapes |= {inner + k: v for k, v in decoder_layers(s.layers, s.width, s.q, s.kv, s.mlp).items()}
    shapes |= {inner + "norm.weight": (s.width,), inner + "embed_tokens.weight": (s.vocab, s.width)}
    shapes |= {"language_model.lm_head.weight": (s.vocab, s.width)}
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(shape, generator=generator) * 0.1 for key, shape in shapes.items()}
