"""Textures made with numpy: the same bytes on every run, none larger than 512 x 512."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Image = NDArray[np.uint8]
Colour = tuple[float, float, float]


def add_material(
    spec: mujoco.MjSpec,
    name: str,
    image: Image | None = None,
    *,
    rgba: ArrayLike = (1.0, 1.0, 1.0, 1.0),
    specular: float = 0.1,
    shininess: float = 0.3,
    emission: float = 0.0,
) -> str:
    """Add a material, textured by ``image [H, W, 3]`` if there is one; returns its name."""
    material = spec.add_material(name=name, rgba=rgba, specular=specular, shininess=shininess, emission=emission)
    if image is not None:
        height, width = image.shape[:2]
        kind = mujoco.mjtTexture.mjTEXTURE_2D
        texture = spec.add_texture(name=name, type=kind, width=width, height=height, nchannel=3)
        texture.data = image.tobytes()
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
    return name


def noise(size: int, cells: tuple[int, int], seed: int) -> Floats:
    """Smooth noise in [0, 1], ``[size, size]``, that repeats without a seam; ``cells`` lumps down and across."""
    lattice = np.random.default_rng(seed).random(cells)
    weights = [_interpolation(size, count) for count in cells]
    smooth = weights[0] @ lattice @ weights[1].T
    return np.asarray((smooth - smooth.min()) / (smooth.max() - smooth.min()))


def _interpolation(size: int, cells: int) -> Floats:
    position = np.arange(size) * cells / size
    left = position.astype(int)
    blend = position - left
    blend = blend * blend * (3 - 2 * blend)
    weights = np.zeros((size, cells))
    weights[np.arange(size), left % cells] += 1 - blend
    weights[np.arange(size), (left + 1) % cells] += blend
    return weights


def mix(amount: Floats, first: Colour, second: Colour) -> Image:
    """Colours between ``first`` (amount 0) and ``second`` (amount 1), given as 0..255, ``[H, W, 3]``."""
    blend = np.clip(amount, 0.0, 1.0)[..., None]
    colours = (1 - blend) * np.array(first) + blend * np.array(second)
    return _bytes(colours)


def fabric(dark: Colour, light: Colour, seed: int = 0, size: int = 256) -> Image:
    """Coarse cloth: short threads in both directions, uneven."""
    across = noise(size, (size // 3, size // 12), seed)
    down = noise(size, (size // 12, size // 3), seed + 1)
    uneven = noise(size, (7, 7), seed + 2)
    return mix(0.4 * across + 0.4 * down + 0.2 * uneven, dark, light)


def banded(stops: list[tuple[float, Colour]], size: int = 128, mottle: float = 0.06, seed: int = 0) -> Image:
    """Colours along v, given as ``(v, colour)`` with rising v, slightly mottled."""
    v = (np.arange(size) + 0.5) / size
    places, colours = [place for place, _ in stops], np.array([colour for _, colour in stops])
    row = np.stack([np.interp(v, places, colours[:, c]) for c in range(3)], -1)
    shade = 1 + mottle * (2 * noise(size, (16, 12), seed) - 1)
    return _bytes(row[:, None, :] * shade[..., None])


def _bytes(colours: Floats) -> Image:
    return np.asarray(np.clip(np.round(colours), 0, 255), np.uint8)
