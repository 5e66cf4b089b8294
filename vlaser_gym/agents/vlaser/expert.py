"""Vlaser's own parts around the action expert: noisy actions and the flow time become tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.flow import time_embedding
from vlaser_gym.agents.vlaser.language import DecoderStack
from vlaser_gym.agents.vlaser.linear import PaddedLinear


class ActionEncoder(nn.Module):
    """Noisy actions and their flow time -> tokens of the action expert."""

    def __init__(self, config: VlaserConfig) -> None:
        super().__init__()
        width = config.expert_width
        self.max_period = config.time_max_period
        self.linear_1 = PaddedLinear(config.action_dim, width)
        self.linear_2 = nn.Linear(2 * width, width)
        self.linear_3 = nn.Linear(width, width)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Actions ``[..., H, A]`` and times ``[...]`` -> ``[..., H, width]``."""
        embedded: Tensor = self.linear_1(x.to(self.linear_1.weight.dtype))
        time = time_embedding(t, embedded.shape[-1], self.max_period).to(embedded.dtype)
        both = torch.cat([time[..., None, :].expand_as(embedded), embedded], dim=-1)
        out: Tensor = self.linear_3(functional.silu(self.linear_2(both)))
        return out


def make_language(config: VlaserConfig) -> DecoderStack:
    """The language model's layers."""
    return _make_stack(config, config.width, config.mlp_width)


def make_expert(config: VlaserConfig) -> DecoderStack:
    """The action expert's layers: as deep and with the same heads as the language model, but narrower."""
    return _make_stack(config, config.expert_width, config.expert_mlp)


def _make_stack(config: VlaserConfig, width: int, mlp_width: int) -> DecoderStack:
    heads, kv_heads, head_dim = config.heads, config.kv_heads, config.head_dim
    return DecoderStack(config.layers, width, heads, kv_heads=kv_heads, head_dim=head_dim, mlp_width=mlp_width)
