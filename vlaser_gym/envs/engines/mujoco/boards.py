"""Flat pieces of another shade that stand for planks and grain: a textured full frame is slow to draw in software."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from vlaser_gym.envs.engines.mujoco import meshes
from vlaser_gym.envs.engines.mujoco.meshes import MILLIMETRE, Surface

Span = tuple[float, float]


def planks(top: tuple[Span, Span, float], width: float, turn: int) -> Surface:
    """Every third plank along y, from the ``turn``-th on.

    Args:
        top: spans in x and y and the height of a level surface, mm.
        width: of a plank, mm.
        turn: 0, 1 or 2.
    """
    (x0, x1), (y0, y1), z = top
    edges = np.linspace(x0, x1, round((x1 - x0) / width) + 1)
    return meshes.joined([meshes.sheet((a, b), (y0, y1), z + 0.1) for a, b in pairwise(edges)][turn::3])


def grain(top: tuple[Span, Span, float], seed: int) -> Surface:
    """Streaks along y, scattered over a level surface (mm)."""
    random = np.random.default_rng(seed)
    low, high = np.array(top[:2]).T * MILLIMETRE + np.array([[0.012, 0.07], [-0.012, -0.07]])
    count = max(8, int(120 * np.prod(high - low)))
    places = random.uniform(low, high, (count, 2))
    lengths, widths = random.uniform(0.06, 0.14, count), random.uniform(0.002, 0.006, count)
    streaks = meshes.flakes(places, lengths, widths, np.pi / 2 + random.normal(0, 0.03, count))
    return Surface(streaks.vertices + np.array([0, 0, top[2] * MILLIMETRE + 3e-4]), streaks.faces, streaks.uv)
