"""Changes of training images that a policy should not mind.

Strengths: OpenGVLab/Vlaser and open-pi-zero train with random resized crops of 0.8 to 1.0 of the area (ratio 0.9 to
1.1), brightness 0.1, contrast and saturation 0.9 to 1.1, hue 0.05. A crop moves everything in the image while the
actions stay, which a small model that has to find objects to a centimetre by a fixed camera cannot afford: ``colour``
leaves it out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from vlaser_gym.errors import UnknownNameError

#: Weights of red, green and blue in the grey value (ITU-R BT.601).
_GREY = (0.299, 0.587, 0.114)
MODES = ("none", "colour", "full")


@dataclass(frozen=True)
class Augmentation:
    """Random changes of colour and, in mode ``full``, of the image's section.

    Attributes:
        mode: ``none``, ``colour`` or ``full``.
        brightness, contrast, saturation: largest relative change.
        hue: largest turn of the colour circle, in turns.
        scale: least share of the area that a crop keeps.
        ratio: largest relative change of the aspect.
    """

    mode: str = "colour"
    brightness: float = 0.1
    contrast: float = 0.1
    saturation: float = 0.1
    hue: float = 0.05
    scale: float = 0.8
    ratio: float = 0.1

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UnknownNameError("augmentation", self.mode, MODES)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Random numbers in [-1, 1) for ``count`` images, ``[count, 8]``; always the same number of draws."""
        return 2 * torch.rand(count, 8, generator=generator) - 1

    def __call__(self, pixels: Tensor, draws: Tensor) -> Tensor:
        """uint8 ``[B, S, S, 3]`` and ``draws`` -> uint8 of the same shape."""
        if self.mode == "none":
            return pixels
        images = pixels.permute(0, 3, 1, 2).float() / 255
        if self.mode == "full":
            images = self._crop(images, draws[:, :4])
        images = self._colour(images, draws[:, 4:])
        return (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def _crop(self, images: Tensor, draws: Tensor) -> Tensor:
        """A section of random area and aspect, scaled up to the whole."""
        area = self.scale + (1 - self.scale) * (draws[:, 0] + 1) / 2
        aspect = 1 + self.ratio * draws[:, 1]
        width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
        theta = images.new_zeros(len(images), 2, 3)
        theta[:, 0, 0], theta[:, 1, 1] = width, height
        theta[:, 0, 2], theta[:, 1, 2] = (1 - width) * draws[:, 2], (1 - height) * draws[:, 3]
        grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
        return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)

    def _colour(self, images: Tensor, draws: Tensor) -> Tensor:
        """Brightness and contrast on the values, saturation and hue as one matrix on the colours."""
        brightness, contrast, saturation, hue = (draws[:, i].view(-1, 1, 1) for i in range(4))
        matrix = colour_matrix(1 + self.saturation * saturation, self.hue * hue)
        mixed = torch.einsum("bij,bjhw->bihw", matrix, images)
        mean = mixed.mean((1, 2, 3), keepdim=True)
        scaled = mean + (mixed - mean) * (1 + self.contrast * contrast)[..., None]
        return scaled + (self.brightness * brightness)[..., None]


def colour_matrix(saturation: Tensor, turns: Tensor) -> Tensor:
    """Matrices ``[B, 3, 3]`` on RGB that keep grey: colourfulness scaled, and turned about the grey axis.

    Args:
        saturation: ``[B, 1, 1]``, 1 changes nothing.
        turns: ``[B, 1, 1]`` of the colour circle.
    """
    axis = torch.full((3, 3), 1 / 3)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / 3**0.5
    angle = 2 * torch.pi * turns
    turn = axis + angle.cos() * (torch.eye(3) - axis) + angle.sin() * cross
    grey = torch.tensor(_GREY).expand(3, 3)
    return grey @ turn + saturation * (turn - grey @ turn)
