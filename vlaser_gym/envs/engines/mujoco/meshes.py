"""Generated meshes: convex hulls for contacts, lofted and turned surfaces for the eye."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]

MILLIMETRE = 1e-3


@dataclass(frozen=True)
class Surface:
    """A triangle mesh: ``vertices [V, 3]`` (m), ``faces [F, 3]`` counter-clockwise from outside, ``uv [V, 2]``."""

    vertices: Floats
    faces: Ints
    uv: Floats

    def __add__(self, other: Surface) -> Surface:
        """Both surfaces in one mesh."""
        return Surface(
            np.concatenate([self.vertices, other.vertices]),
            np.concatenate([self.faces, other.faces + len(self.vertices)]),
            np.concatenate([self.uv, other.uv]),
        )


def add_hull(spec: mujoco.MjSpec, name: str, points: ArrayLike) -> str:
    """Add the convex hull of ``points [N, 3]`` (mm) as a mesh; returns its name."""
    vertices = np.asarray(points, np.float64) * MILLIMETRE
    spec.add_mesh(name=name, uservert=vertices.ravel(), inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX)
    return name


def add_surface(spec: mujoco.MjSpec, name: str, surface: Surface, smooth: bool = True) -> str:
    """Add a mesh that is only looked at; returns its name. ``smooth`` averages normals over sharp edges too."""
    spec.add_mesh(
        name=name,
        uservert=surface.vertices.ravel(),
        userface=surface.faces.ravel(),
        usertexcoord=surface.uv.ravel(),
        userfacetexcoord=surface.faces.ravel(),
        smoothnormal=smooth,
        inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
    )
    return name


def mirrored(half: Iterable[Sequence[float]], axis: int) -> Floats:
    """Points and their mirror images, ``[2N, 3]``; ``axis`` is the one that changes sign."""
    points = np.array(list(half), np.float64)
    image = points.copy()
    image[:, axis] *= -1
    return np.concatenate([points, image])


def rings(radii_heights_phases: Iterable[Sequence[float]], count: int) -> Floats:
    """Corners of regular polygons about z: per ring radius, height and turn (degrees), ``[rings * count, 3]``."""
    corners = []
    for radius, height, phase in radii_heights_phases:
        angle = 2 * np.pi * np.arange(count) / count + np.radians(phase)
        corners.append(np.stack([radius * np.cos(angle), radius * np.sin(angle), np.full(count, height)], -1))
    return np.concatenate(corners)


def slab(bottom: float, top: Iterable[Sequence[float]]) -> Floats:
    """Corners of an upper side and the same ones lowered to ``bottom``, ``[2N, 3]``."""
    upper = np.array(list(top), np.float64)
    lower = upper.copy()
    lower[:, 2] = bottom
    return np.concatenate([upper, lower])


def lofted(sections: ArrayLike) -> Surface:
    """Skin over closed sections ``[S, K, 3]``, with flat caps.

    The sections run counter-clockwise seen from the last one. Texture: u around, v along.
    """
    points = np.asarray(sections, np.float64)
    count, size = points.shape[:2]
    # The seam's points are doubled, so that the texture does not run backwards over the last strip.
    points = np.concatenate([points, points[:, :1]], 1)
    u, v = np.meshgrid(np.linspace(0, 1, size + 1), np.linspace(0, 1, count))
    first = (np.arange(count - 1)[:, None] * (size + 1) + np.arange(size)).ravel()
    a, b, c, d = first, first + 1, first + size + 2, first + size + 1
    sides = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)])
    skin = Surface(points.reshape(-1, 3), sides.astype(np.int32), np.stack([u.ravel(), v.ravel()], -1))
    return skin + _cap(points[0, :-1], 0.0, flip=True) + _cap(points[-1, :-1], 1.0, flip=False)


def _cap(section: Floats, v: float, flip: bool) -> Surface:
    size = len(section)
    vertices = np.concatenate([section, section.mean(0, keepdims=True)])
    ring = np.arange(size)
    after = (ring + 1) % size
    triangles = np.stack([ring, after, np.full(size, size)], -1)
    uv = np.stack([np.append(ring / size, 0.5), np.full(size + 1, v)], -1)
    return Surface(vertices, (triangles[:, ::-1] if flip else triangles).astype(np.int32), uv)


def turned(profile: Iterable[Sequence[float]], count: int) -> Surface:
    """Surface of revolution about z of a profile ``(radius, height)``, outside to the right of its direction."""
    angle = 2 * np.pi * np.arange(count) / count
    circle = np.stack([np.cos(angle), np.sin(angle)], -1)
    sections = [np.column_stack([max(r, 1e-6) * circle, np.full(count, z)]) for r, z in profile]
    return lofted(np.array(sections))


def ellipses(stations: Iterable[Sequence[float]], count: int) -> Floats:
    """Sections across x: per station x, centre y and z, half width y, half height z; ``[S, count, 3]``."""
    angle = 2 * np.pi * np.arange(count) / count
    sections = []
    for x, y, z, a, b in stations:
        sections.append(np.stack([np.full(count, x), y + a * np.cos(angle), z + b * np.sin(angle)], -1))
    return np.array(sections)
