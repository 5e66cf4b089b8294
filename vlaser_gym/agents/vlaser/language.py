"""The transformer stack that both experts are made of: Qwen2's layers, split where the experts meet.

Own code instead of ``transformers``' Qwen2 classes: the experts exchange keys and values inside every layer, the
rotary tables must stay in fp32 when the weights are bf16 (Qwen2's buffer is cast along), and the import takes seconds.
The tests hold it against them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from vlaser_gym.agents.vlaser.kernels import attention

#: Keys (after rotation) and values of one layer, each ``[B, kv_heads, T, head_dim]``.
KeyValue = tuple[Tensor, Tensor]


def at_least_fp32(dtype: torch.dtype) -> torch.dtype:
    """fp32 for narrower types; fp64 stays, which makes comparisons without rounding possible."""
    return torch.promote_types(dtype, torch.float32)


class Rotary(NamedTuple):
    """Cosine and sine of the rotation angles, fp32 ``[T, head_dim / 2]``, or ``[B, 1, T, head_dim / 2]`` by row."""

    cos: Tensor
    sin: Tensor


def rotary(positions: Tensor, head_dim: int, theta: float) -> Rotary:
    """Angles ``position / theta^(2 i / head_dim)`` for positions ``[T]``, or ``[B, 1, T]``, always in fp32."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    angles = positions.float()[..., None] * (1.0 / theta**exponents)
    return Rotary(angles.cos(), angles.sin())


def rotate(x: Tensor, rope: Rotary) -> Tensor:
    """Rotate ``[B, heads, T, head_dim]``, first half against second half, at least in fp32."""
    first, second = x.to(at_least_fp32(x.dtype)).chunk(2, dim=-1)
    turned_first = torch.addcmul(first * rope.cos, second, rope.sin, value=-1)
    turned_second = torch.addcmul(second * rope.cos, first, rope.sin)
    return torch.cat([turned_first, turned_second], dim=-1).to(x.dtype)


def fold_mask(mask: Tensor, groups: int) -> Tensor:
    """Repeat an additive mask ``[B, 1, T, S]`` for the query groups of :func:`attend`; one row stays one row."""
    return mask if mask.shape[2] == 1 else mask.repeat(1, 1, groups, 1)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Grouped-query attention without copies of keys and values.

    The query heads that share a key head are laid end to end as one longer query, which every attention kernel takes.

    Args:
        q: ``[B, heads, T, head_dim]``.
        k: ``[B, kv_heads, S, head_dim]``, like ``v``.
        v: values.
        mask: additive, from :func:`fold_mask`; at least one column of each row must be open.

    Returns:
        ``[B, T, heads * head_dim]``.
    """
    batch, heads, length, head_dim = q.shape
    folded = q.reshape(batch, k.shape[1], -1, head_dim)
    # PyTorch's faster kernel shares a single token's keys out among the threads of a CPU, at places that depend on the
    # row: there it is plain products.
    eager = q.device.type == "cpu" and not torch.compiler.is_compiling()
    alone = length == 1 and eager and torch.get_num_threads() > 1
    with sdpa_kernel(SDPBackend.MATH) if alone else nullcontext():
        out = attention(folded, k, v, mask)
    return out.view(batch, heads, length, head_dim).transpose(1, 2).reshape(batch, length, heads * head_dim)


class RMSNorm(nn.Module):
    """Qwen2's norm, eps 1e-6."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., width] -> [..., width]``."""
        return functional.rms_norm(x, self.weight.shape, self.weight, 1e-6)


class Attention(nn.Module):
    """The projections; who attends to whom is decided outside."""

    def __init__(self, width: int, heads: int, kv_heads: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.q_proj = nn.Linear(width, heads * head_dim)
        self.k_proj = nn.Linear(width, kv_heads * head_dim)
        self.v_proj = nn.Linear(width, kv_heads * head_dim)
        self.o_proj = nn.Linear(heads * head_dim, width, bias=False)

    def project(self, x: Tensor, rope: Rotary) -> tuple[Tensor, Tensor, Tensor]:
        """``[B, T, width]`` -> rotated queries, rotated keys, values."""
        q, k, v = self._heads(self.q_proj(x)), self._heads(self.k_proj(x)), self._heads(self.v_proj(x))
        q, k = rotate(torch.cat([q, k], dim=1), rope).split_with_sizes([q.shape[1], k.shape[1]], dim=1)
        return q, k, v

    def key_value(self, x: Tensor, rope: Rotary) -> KeyValue:
        """:meth:`project` without the queries."""
        return rotate(self._heads(self.k_proj(x)), rope), self._heads(self.v_proj(x))

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], -1, self.head_dim).transpose(1, 2)


class MLP(nn.Module):
    """The feed-forward network of a layer, SiLU-gated."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., width] -> [..., width]``."""
        out: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class DecoderLayer(nn.Module):
    """One layer, in two halves: before and after the attention that may span both experts."""

    def __init__(self, width: int, heads: int, kv_heads: int, head_dim: int, mlp_width: int) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads, kv_heads, head_dim)
        self.mlp = MLP(width, mlp_width)
        self.input_layernorm = RMSNorm(width)
        self.post_attention_layernorm = RMSNorm(width)

    def project(self, x: Tensor, rope: Rotary) -> tuple[Tensor, Tensor, Tensor]:
        """First half: ``[B, T, width]`` -> queries, keys, values."""
        return self.self_attn.project(self.input_layernorm(x), rope)

    def key_value(self, x: Tensor, rope: Rotary) -> KeyValue:
        """:meth:`project` without the queries."""
        return self.self_attn.key_value(self.input_layernorm(x), rope)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Second half: the layer's output from its input and ``attended`` ``[B, T, heads * head_dim]``."""
        x = x + self.self_attn.o_proj(attended)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out

    def forward(
        self, x: Tensor, rope: Rotary, mask: Tensor | None, past: KeyValue | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens ``x`` attend to ``past`` (if any), then to each other: ``(output, own keys, own values)``."""
        q, k, v = self.project(x, rope)
        keys, values = (k, v) if past is None else (torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2))
        return self.finish(x, attend(q, keys, values, mask)), k, v


class DecoderStack(nn.Module):
    """Layers and a final norm: the language model (without embedding and head), and the action expert."""

    def __init__(self, layers: int, width: int, heads: int, *, kv_heads: int, head_dim: int, mlp_width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(width, heads, kv_heads, head_dim, mlp_width) for _ in range(layers))
        self.norm = RMSNorm(width)
        self.gradient_checkpointing = False

    def key_values(
        self, x: Tensor, rope: Rotary, mask: Tensor | None, past: Sequence[KeyValue] | None = None
    ) -> list[KeyValue]:
        """Keys and values of ``x`` in every layer; the rest of the last layer is not computed."""
        cache: list[KeyValue] = []
        for index, layer in enumerate(self.layers[:-1]):
            x, k, v = self._run(layer, x, rope, mask, past[index] if past else None)
            cache.append((k, v))
        last = self.layers[-1]
        assert isinstance(last, DecoderLayer)
        return [*cache, last.key_value(x, rope)]

    def forward(
        self, x: Tensor, rope: Rotary, mask: Tensor | None, past: Sequence[KeyValue] | None = None
    ) -> tuple[Tensor, list[KeyValue]]:
        """Hidden states after the final norm ``[B, T, width]``, and the keys and values of every layer."""
        cache: list[KeyValue] = []
        for index, layer in enumerate(self.layers):
            x, k, v = self._run(layer, x, rope, mask, past[index] if past else None)
            cache.append((k, v))
        return self.norm(x), cache

    def _run(
        self, layer: nn.Module, x: Tensor, rope: Rotary, mask: Tensor | None, past: KeyValue | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            out: tuple[Tensor, Tensor, Tensor] = checkpoint(layer, x, rope, mask, past, use_reentrant=False)
        else:
            out = layer(x, rope, mask, past)
        return out
