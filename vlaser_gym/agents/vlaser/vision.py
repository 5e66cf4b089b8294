"""The eyes: InternViT and the projector, from pixels to image tokens.

Own code instead of ``transformers``' InternVL classes: the released weights pack q, k and v into one matrix, and
importing those classes takes seconds. The tests hold it against them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.kernels import attention


class VisionEmbeddings(nn.Module):
    """Patches, a class token in front, and learned positions: ``[B, 3, S, S] -> [B, 1 + grid^2, width]``."""

    def __init__(self, config: VlaserConfig) -> None:
        super().__init__()
        width, patch = config.vision_width, config.patch_size
        self.class_embedding = nn.Parameter(torch.empty(1, 1, width))
        self.position_embedding = nn.Parameter(torch.empty(1, 1 + config.grid**2, width))
        self.patch_embedding = nn.Conv2d(3, width, kernel_size=patch, stride=patch)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """See the class."""
        batch, channels, size, _ = pixel_values.shape
        patch = self.patch_embedding.kernel_size[0]
        side = size // patch
        # Patches do not overlap, so the convolution is one matrix product; the same shapes give the same bits anywhere.
        tiles = pixel_values.reshape(batch, channels, side, patch, side, patch).permute(0, 2, 4, 1, 3, 5)
        weight = self.patch_embedding.weight.flatten(1)
        patches = functional.linear(
            tiles.reshape(batch, side * side, -1).to(weight.dtype), weight, self.patch_embedding.bias
        )
        tokens = torch.cat([self.class_embedding.expand(batch, -1, -1), patches], dim=1)
        return tokens + self.position_embedding


class VisionAttention(nn.Module):
    """Full self-attention over the tokens of one image."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, width] -> [B, T, width]``."""
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = attention(q, k, v).transpose(1, 2).reshape(batch, length, width)
        out: Tensor = self.proj(attended)
        return out


class VisionMLP(nn.Module):
    """Two layers with exact GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., width] -> [..., width]``."""
        out: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return out


class VisionLayer(nn.Module):
    """Pre-norm block with layer scales and, in training, stochastic depth."""

    def __init__(self, config: VlaserConfig, drop_path: float) -> None:
        super().__init__()
        width = config.vision_width
        self.attn = VisionAttention(width, config.vision_heads)
        self.mlp = VisionMLP(width, config.vision_mlp)
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.ls1 = nn.Parameter(torch.empty(width))
        self.ls2 = nn.Parameter(torch.empty(width))
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, width] -> [B, T, width]``."""
        x = x + self._drop(self.attn(self.norm1(x)) * self.ls1)
        return x + self._drop(self.mlp(self.norm2(x)) * self.ls2)

    def _drop(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0:
            return branch
        keep = 1 - self.drop_path
        alive = torch.rand(len(branch), 1, 1, device=branch.device) < keep
        return branch * alive.to(branch.dtype) / keep


class VisionLayers(nn.Module):
    """The stack; holds ``layers`` under the name that the released weights use."""

    def __init__(self, config: VlaserConfig) -> None:
        super().__init__()
        last = max(config.vision_layers - 1, 1)
        rates = [config.drop_path * i / last for i in range(config.vision_layers)]
        self.layers = nn.ModuleList(VisionLayer(config, rate) for rate in rates)
        self.gradient_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, width] -> [B, T, width]``."""
        for layer in self.layers:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = checkpoint(layer, x, use_reentrant=False)
            else:
                x = layer(x)
        return x


class VisionEncoder(nn.Module):
    """InternViT without a final norm, class token dropped, 2x2 patches side by side."""

    def __init__(self, config: VlaserConfig) -> None:
        super().__init__()
        self.embeddings = VisionEmbeddings(config)
        self.encoder = VisionLayers(config)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Normalised pixels ``[B, 3, S, S]`` -> ``[B, image tokens, 4 * width]``."""
        hidden: Tensor = self.encoder(self.embeddings(pixel_values))
        return pixel_shuffle(hidden[:, 1:])


def pixel_shuffle(patches: Tensor) -> Tensor:
    """``[B, side^2, C] -> [B, (side / 2)^2, 4 C]``: each 2x2 square of patches becomes one token, rows first.

    The order inside a token is InternVL's ``"v2"``: upper left, upper right, lower left, lower right.
    """
    batch, count, channels = patches.shape
    half = round(count**0.5) // 2
    squares = patches.view(batch, half, 2, half, 2, channels).permute(0, 1, 3, 2, 4, 5)
    return squares.reshape(batch, half * half, 4 * channels)


def make_projector(config: VlaserConfig) -> nn.Sequential:
    """Projector of shuffled patches to the language model's width; ``[..., 4 * vision_width] -> [..., width]``."""
    return nn.Sequential(
        nn.LayerNorm(4 * config.vision_width, eps=1e-5),
        nn.Linear(4 * config.vision_width, config.width),
        nn.GELU(),
        nn.Linear(config.width, config.width),
    )
