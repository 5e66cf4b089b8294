"""The appearance of the Google Robot's objects: generated surfaces in the actor frame, and labels.

Cans and the bottle have the model's y axis as their own. Sizes follow the original's models (ManiSkill2_real2sim,
ef7a4d4); labels are stripes and waves in the drinks' colours, not images of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from vlaser_gym.envs.engines.mujoco import meshes, textures
from vlaser_gym.envs.engines.mujoco.meshes import Surface
from vlaser_gym.envs.engines.mujoco.textures import Colour, Image

Profile = Sequence[tuple[float, float]]

#: Half outline of the cans (radius, place along the axis), mm: the wide and the slim one.
WIDE: Profile = ((25, -61.3), (26.5, -60), (33.1, -53), (33.1, 48), (27.5, 58), (27.3, 61.3), (25.5, 61.3), (25, 59))
SLIM: Profile = ((22, -66), (23.5, -65), (29, -58), (29, 55), (25, 63), (24.5, 66), (22.7, 66), (22, 64))
#: The bottle: body, shoulder, neck, cap.
BOTTLE: Profile = ((25, -101), (30, -97), (30.5, 30), (28, 45), (15, 75), (13, 84), (15, 85), (15, 101), (1, 101.5))


def turned(profile: Profile) -> Surface:
    """A body about y, texture v along it."""
    heights = np.array([y for _, y in profile])
    upright = meshes.turned([(r * meshes.MILLIMETRE, y * meshes.MILLIMETRE) for r, y in profile], 28)
    # z becomes y: (x, y, z) -> (x, z, -y).
    vertices = upright.vertices[:, [0, 2, 1]] * np.array([1.0, 1.0, -1.0])
    v = (upright.vertices[:, 2] / meshes.MILLIMETRE - heights.min()) / (heights.max() - heights.min())
    return Surface(vertices, upright.faces, np.stack([upright.uv[:, 0], v], -1))


def label(ground: Colour, wave: Colour, mark: Colour, size: int = 128) -> Image:
    """Metal ends, a coloured side, a wave around it and a round mark on two sides."""
    v, u = np.meshgrid((np.arange(size) + 0.5) / size, (np.arange(size) + 0.5) / size, indexing="ij")
    picture = np.broadcast_to(np.array(ground, np.float64), (size, size, 3)).copy()
    picture[np.abs(v - 0.42 - 0.1 * np.sin(4 * np.pi * u)) < 0.05] = wave
    for centre in (0.25, 0.75):
        picture[np.hypot((u - centre) * 2.0, v - 0.62) < 0.11] = mark
    picture[(v < 0.09) | (v > 0.9)] = (190, 192, 196)
    picture[v > 0.985] = (70, 72, 75)
    return np.asarray(picture, np.uint8)


def plain(stops: list[tuple[float, Colour]], seed: int = 0) -> Image:
    """A mottled texture whose colour changes along v."""
    return textures.banded(stops, mottle=0.08, seed=seed)


def round_fruit(radius: float, height: float, dimple: float) -> Surface:
    """About z, hollow at both poles by ``dimple`` (mm); half height ``height``."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, 14)
    sink = dimple * np.exp(-((np.abs(angle) - np.pi / 2) ** 2) / 0.09)
    rows = np.stack([radius * np.cos(angle), height * np.sin(angle) - np.sign(angle) * sink], -1)
    return meshes.turned([(r * meshes.MILLIMETRE, z * meshes.MILLIMETRE) for r, z in rows], 24)


def apple() -> Surface:
    """Look of the apple, with a short stalk."""
    stalk = meshes.tube([(0, 0, 28), (1, 1, 36), (3, 2, 42)], 1.6)
    return round_fruit(40.5, 39.5, 8.0) + stalk


def orange() -> Surface:
    """The orange: a sphere, slightly flattened."""
    return round_fruit(35.3, 34.3, 1.0)


def sponge(low: Iterable[float], high: Iterable[float]) -> Surface:
    """A block between two corners (mm)."""
    corners = np.array([list(low), list(high)]).T
    return meshes.mapped(meshes.box(*corners), (0, 1), 0.1)
