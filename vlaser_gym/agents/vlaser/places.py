"""Heads that say where things are, trained beside the policy; no action depends on them.

One reads the image features (``algo.places``), one the keys and values of the language model's last layer, which have
read the instruction (``algo.named_places``). A checkpoint whose training had the first holds it in a file of its own,
so that it can be asked what the policy's eyes tell of the scene (``agent.explain=places``).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from vlaser_gym.agents.vlaser.checkpoint import CheckpointError, load_tensors, save_tensors
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.policy import VisionLanguage
from vlaser_gym.errors import InvalidConfigError

#: Name of the file in a checkpoint's folder.
FILE_NAME = "places.safetensors"
#: Numbers that the head predicts: positions of source and target, and the source's heading.
PLACES = 10
_HIDDEN = 128


def make_place_head(config: VlaserConfig) -> nn.Sequential:
    """Image features ``[B, tokens * width]`` -> standardised places ``[B, 10]``."""
    return _perceptron(config.num_image_tokens * config.width)


def make_named_place_head(config: VlaserConfig) -> nn.Sequential:
    """The result of :func:`image_keys_values` -> standardised places ``[B, 10]``."""
    return _perceptron(config.num_image_tokens * 2 * config.kv_heads * config.head_dim)


def image_keys_values(encoding: VisionLanguage, is_image: Tensor) -> Tensor:
    """The keys and values of the image tokens that the action expert's last layer reads.

    Args:
        encoding: of B rows.
        is_image: ``[B, L]``, as many tokens in every row.

    Returns:
        ``[B, tokens * 2 * kv_heads * head_dim]``.
    """
    both = torch.cat(encoding.cache[-1], dim=1).transpose(1, 2).flatten(2)
    return both[is_image].view(len(both), -1)


def _perceptron(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, PLACES))


class PlaceReader(nn.Module):
    """A trained head with the moments of what it learned from.

    Args:
        head: of :func:`make_place_head`.
        mean, std: ``[10]``, of the places in its training data.
    """

    def __init__(self, head: nn.Sequential, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.head = head
        self.mean, self.std = nn.Buffer(mean.float()), nn.Buffer(std.float())

    def forward(self, image_features: Tensor) -> Tensor:
        """Features ``[B, tokens, width]`` -> positions ``[B, 2, 3]`` of source and target, robot-base frame, m."""
        found: Tensor = self.head(image_features.float().flatten(1)) * self.std + self.mean
        return found[:, :6].view(-1, 2, 3)

    def save(self, folder: Path) -> None:
        """Write the file beside the policy's weights."""
        save_tensors(folder / FILE_NAME, self.state_dict())


def load_place_reader(folder: Path, config: VlaserConfig) -> PlaceReader:
    """The head of a checkpoint.

    Raises:
        InvalidConfigError: if its training had none.
        CheckpointError: if it is damaged, or another policy's.
    """
    file = folder / FILE_NAME
    if not file.is_file():
        raise InvalidConfigError(
            f"agent.explain=places needs a checkpoint with a head that says where things are ({FILE_NAME}); {folder} "
            "has none: train with algo=sft algo.places=1, or choose agent.explain=attention."
        )
    reader = PlaceReader(make_place_head(config), torch.zeros(PLACES), torch.ones(PLACES))
    try:
        reader.load_state_dict(load_tensors(file))
    except RuntimeError as error:
        raise CheckpointError(
            f"{file} is not the head of this policy ({str(error).splitlines()[-1].strip()}): copy the folder again."
        ) from error
    return reader.eval()
