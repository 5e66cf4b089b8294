"""Scaled dot-product attention by the kernel that is fastest where it runs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention of queries ``[B, heads, T, D]`` to keys and values ``[B, heads, S, D]``: ``[B, heads, T, D]``.

    PyTorch's fused kernel takes most of a training step in bf16 on a CPU, where its backward pass is four times slower
    than in fp32 (measured with 2.13); plain products are the faster way there (docs/scaling.md). Also without
    gradients: a likelihood that is computed with them has to be the one that was computed without.

    Args:
        q, k, v: of one dtype.
        mask: additive, ``[B or 1, 1, T or 1, S]``.
    """
    is_slow = q.device.type == "cpu" and q.dtype == torch.bfloat16
    if not is_slow or torch.compiler.is_compiling():
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = torch.bmm((q * q.shape[-1] ** -0.5).flatten(0, 1), k.flatten(0, 1).transpose(1, 2))
    scores = scores.view(*q.shape[:-1], k.shape[-2]).float()
    shares = torch.softmax(scores if mask is None else scores + mask, dim=-1).to(v.dtype)
    return torch.bmm(shares.flatten(0, 1), v.flatten(0, 1)).view(q.shape)
