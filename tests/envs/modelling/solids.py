"""Meshes of simple solids, each with its volume, centre of mass and inertia in closed form (mm, unit density)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import trimesh

#: Sides of a turned body's polygon; its area is 0.16 % below the circle's.
SECTIONS = 64


@dataclass(frozen=True)
class Block:
    """A solid box from corner to corner, mm; ``sign`` -1 takes it away."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    sign: float = 1.0

    def parts(self) -> tuple[float, np.ndarray, np.ndarray]:
        """Volume, centre, inertia about the centre."""
        size = np.subtract(self.high, self.low)
        volume = float(size.prod())
        squares = size**2
        return volume, np.add(self.low, self.high) / 2, np.diag(volume / 12 * (squares.sum() - squares))


@dataclass(frozen=True)
class Frustum:
    """A cone's slice about z between two heights, mm; a cylinder where both radii are the same."""

    bottom: float
    top: float
    low: float
    high: float
    sign: float = 1.0

    def parts(self) -> tuple[float, np.ndarray, np.ndarray]:
        """By Gauss' quadrature of discs, which is exact for these polynomials."""
        nodes, weights = np.polynomial.legendre.leggauss(6)
        z = (self.low + self.high) / 2 + nodes * (self.high - self.low) / 2
        weights = weights * (self.high - self.low) / 2
        radius = self.bottom + (self.top - self.bottom) * (z - self.low) / (self.high - self.low)
        area = np.pi * radius**2
        volume = float(weights @ area)
        height = float(weights @ (area * z)) / volume
        about_z = float(weights @ (area * radius**2 / 2))
        across = about_z / 2 + float(weights @ (area * (z - height) ** 2))
        return volume, np.array([0, 0, height]), np.diag([across, across, about_z])


def properties(pieces: list[Block | Frustum]) -> tuple[float, np.ndarray, np.ndarray]:
    """Volume, centre and inertia about the centre of pieces together (parallel axes)."""
    found = [(piece.sign, *piece.parts()) for piece in pieces]
    volume = sum(sign * v for sign, v, _, _ in found)
    centre = sum(sign * v * c for sign, v, c, _ in found) / volume
    inertia = np.zeros((3, 3))
    for sign, v, c, own in found:
        d = c - centre
        inertia += sign * (own + v * (d @ d * np.eye(3) - np.outer(d, d)))
    return volume, centre, inertia


def turned(profile: list[tuple[float, float]]) -> Any:
    """A body of revolution of a closed profile ``(radius, height)``."""
    return trimesh.creation.revolve(np.array(profile, float), sections=SECTIONS)


def built(x: list[float], y: list[float], z: list[float], filled: Any) -> Any:
    """The surface of the cells of a grid for which ``filled(i, j, k)`` is true."""
    size = (len(x) - 1, len(y) - 1, len(z) - 1)
    solid = np.zeros(np.add(size, 2), bool)
    for cell in np.ndindex(size):
        solid[tuple(np.add(cell, 1))] = filled(*cell)
    lines, triangles = (np.array(x), np.array(y), np.array(z)), []
    for cell in np.argwhere(solid):
        for axis in range(3):
            for side in (0, 1):
                neighbour = cell.copy()
                neighbour[axis] += 2 * side - 1
                if not solid[tuple(neighbour)]:
                    triangles += _face(cell - 1, axis, side, lines)
    mesh = trimesh.Trimesh(*trimesh.triangles.to_kwargs(np.array(triangles)).values())
    mesh.merge_vertices()
    return mesh


def _face(cell: np.ndarray, axis: int, side: int, lines: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    b, c = (axis + 1) % 3, (axis + 2) % 3
    corners = []
    for db, dc in ((0, 0), (1, 0), (1, 1), (0, 1)):
        index = cell.copy()
        index[axis], index[b], index[c] = cell[axis] + side, cell[b] + db, cell[c] + dc
        corners.append([lines[n][index[n]] for n in range(3)])
    square = np.array(corners if side else corners[::-1])
    return [square[[0, 1, 2]], square[[0, 2, 3]]]


def mug() -> tuple[Any, list[Block | Frustum]]:
    """42 mm wide, 50 mm high, walls of 3 mm, a square handle that reaches 16 mm out; it enters the wall by 0.2 mm."""
    cup = turned([(0, 0), (21, 0), (21, 50), (18, 50), (18, 4), (0, 4)])
    inside = np.sqrt(21**2 - 3**2) - 0.2
    handle = built([inside, 31, 37], [-3, 3], [10, 16, 34, 40], lambda i, j, k: i == 1 or k != 1)
    pieces: list[Block | Frustum] = [Frustum(21, 21, 0, 50), Frustum(18, 18, 4, 50, -1)]
    pieces += [Block((inside, -3, 10), (37, 3, 40)), Block((inside, -3, 16), (31, 3, 34), -1)]
    return trimesh.util.concatenate([cup, handle]), pieces


def box_with_hole() -> tuple[Any, list[Block | Frustum]]:
    """40 x 40 x 45 mm with a square hole of 20 mm from top to bottom."""
    mesh = built([-20, -10, 10, 20], [-20, -10, 10, 20], [0, 45], lambda i, j, k: (i, j) != (1, 1))
    return mesh, [Block((-20, -20, 0), (20, 20, 45)), Block((-10, -10, 0), (10, 10, 45), -1)]


def l_piece() -> tuple[Any, list[Block | Frustum]]:
    """Legs of 60 and 45 mm, 18 mm wide, 24 mm thick."""
    mesh = built([0, 18, 60], [0, 18, 45], [0, 24], lambda i, j, k: i == 0 or j == 0)
    return mesh, [Block((0, 0, 0), (60, 18, 24)), Block((0, 18, 0), (18, 45, 24))]


def bottle() -> tuple[Any, list[Block | Frustum]]:
    """36 mm wide and 70 mm high, with a neck of 18 mm."""
    mesh = turned([(0, 0), (18, 0), (18, 45), (9, 55), (9, 70), (0, 70)])
    return mesh, [Frustum(18, 18, 0, 45), Frustum(18, 9, 45, 55), Frustum(9, 9, 55, 70)]


def plate() -> tuple[Any, list[Block | Frustum]]:
    """90 x 45 x 8 mm."""
    return built([-45, 45], [-22.5, 22.5], [0, 8], lambda i, j, k: True), [Block((-45, -22.5, 0), (45, 22.5, 8))]


SOLIDS = {kind.__name__: kind for kind in (mug, box_with_hole, l_piece, bottle, plate)}
