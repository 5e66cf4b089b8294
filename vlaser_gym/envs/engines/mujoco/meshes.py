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


def add_surface(spec: mujoco.MjSpec, name: str, surface: Surface) -> str:
    """Add a mesh that is only looked at; returns its name. Normals are averaged except over sharp edges."""
    spec.add_mesh(
        name=name,
        uservert=surface.vertices.ravel(),
        userface=surface.faces.ravel(),
        usertexcoord=surface.uv.ravel(),
        userfacetexcoord=surface.faces.ravel(),
        inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
    )
    return name


def add_faceted(spec: mujoco.MjSpec, name: str, surface: Surface) -> str:
    """Like :func:`add_surface`, with every triangle flat."""
    corners = surface.vertices[surface.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    index = np.arange(corners.shape[0] * 3, dtype=np.int32)
    spec.add_mesh(
        name=name,
        uservert=corners.ravel(),
        usernormal=np.repeat(normals, 3, 0).ravel(),
        usertexcoord=surface.uv[surface.faces].ravel(),
        userface=index,
        userfacenormal=index,
        userfacetexcoord=index,
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


def lofted(sections: ArrayLike, along: ArrayLike | None = None, bottom: bool = True, top: bool = True) -> Surface:
    """Skin over closed sections ``[S, K, 3]``, with flat caps at the first (``bottom``) and the last one (``top``).

    The sections run counter-clockwise seen from the last one. Texture: u around, v ``along`` (by default evenly from
    section to section).
    """
    points = np.asarray(sections, np.float64)
    count, size = points.shape[:2]
    height = np.linspace(0, 1, count) if along is None else np.asarray(along, np.float64)
    # The seam's points are doubled, so that the texture does not run backwards over the last strip.
    points = np.concatenate([points, points[:, :1]], 1)
    u, v = np.meshgrid(np.linspace(0, 1, size + 1), height)
    first = (np.arange(count - 1)[:, None] * (size + 1) + np.arange(size)).ravel()
    a, b, c, d = first, first + 1, first + size + 2, first + size + 1
    sides = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)])
    skin = Surface(points.reshape(-1, 3), sides.astype(np.int32), np.stack([u.ravel(), v.ravel()], -1))
    if top:
        skin += _cap(points[-1, :-1], height[-1], flip=False)
    if bottom:
        skin += _cap(points[0, :-1], height[0], flip=True)
    return skin


def _cap(section: Floats, v: float, flip: bool) -> Surface:
    size = len(section)
    vertices = np.concatenate([section, section.mean(0, keepdims=True)])
    ring = np.arange(size)
    after = (ring + 1) % size
    triangles = np.stack([ring, after, np.full(size, size)], -1)
    uv = np.stack([np.append(ring / size, 0.5), np.full(size + 1, v)], -1)
    return Surface(vertices, (triangles[:, ::-1] if flip else triangles).astype(np.int32), uv)


def turned(profile: Iterable[Sequence[float]], count: int, closed: bool = True) -> Surface:
    """Surface of revolution about z of a profile ``(radius, height)``, outside to the right of its direction.

    ``closed`` adds caps at both ends.
    """
    angle = 2 * np.pi * np.arange(count) / count
    circle = np.stack([np.cos(angle), np.sin(angle)], -1)
    sections = [np.column_stack([max(r, 1e-6) * circle, np.full(count, z)]) for r, z in profile]
    return lofted(np.array(sections), bottom=closed, top=closed)


def ellipses(stations: Iterable[Sequence[float]], count: int) -> Floats:
    """Sections across x: per station x, centre y and z, half width y, half height z; ``[S, count, 3]``."""
    angle = 2 * np.pi * np.arange(count) / count
    sections = []
    for x, y, z, a, b in stations:
        sections.append(np.stack([np.full(count, x), y + a * np.cos(angle), z + b * np.sin(angle)], -1))
    return np.array(sections)


def oval(stations: Iterable[Sequence[float]], count: int = 20) -> Surface:
    """A rounded body along x from :func:`ellipses` in mm; texture v from 0.03 to 0.97 along x, so it never wraps."""
    rows = np.array(list(stations), np.float64)
    x = rows[:, 0]
    return lofted(ellipses(rows * MILLIMETRE, count), 0.03 + 0.94 * (x - x[0]) / (x[-1] - x[0]))


def rounded_rectangle(x: Sequence[float], y: Sequence[float], z: float, radii: Sequence[float], arc: int = 6) -> Floats:
    """A rectangle (mm) with rounded corners at height z, ``[4 * arc, 3]`` in metres, counter-clockwise.

    ``radii`` of the corners (x1, y1), (x0, y1), (x0, y0), (x1, y0).
    """
    corners = []
    for i, (cx, cy) in enumerate(((x[1], y[1]), (x[0], y[1]), (x[0], y[0]), (x[1], y[0]))):
        angle = np.linspace(i, i + 1, arc) * np.pi / 2
        inward = np.array([-1 if cx == x[1] else 1, -1 if cy == y[1] else 1]) * radii[i]
        points = np.array([cx, cy]) + inward + radii[i] * np.stack([np.cos(angle), np.sin(angle)], -1)
        corners.append(np.column_stack([points, np.full(arc, z)]))
    return np.concatenate(corners) * MILLIMETRE


def box(x: Sequence[float], y: Sequence[float], z: Sequence[float]) -> Surface:
    """A box (mm) as a surface."""
    return lofted(np.array([rounded_rectangle(x, y, height, (0, 0, 0, 0), arc=1) for height in z]))


def sheet(x: Sequence[float], y: Sequence[float], z: float) -> Surface:
    """A level rectangle (mm), seen from above."""
    corners = np.array([(x[0], y[0], z), (x[1], y[0], z), (x[1], y[1], z), (x[0], y[1], z)]) * MILLIMETRE
    uv = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float64)
    return Surface(corners, np.array([[0, 1, 2], [0, 2, 3]], np.int32), uv)


def convex(points: ArrayLike) -> Surface:
    """The convex hull of points (mm) as a surface; texture coordinates are all zero."""
    # Loading it takes half of the time that a render process needs to start, and many scenes do without.
    from scipy.spatial import ConvexHull  # noqa: PLC0415

    vertices = np.asarray(points, np.float64) * MILLIMETRE
    hull = ConvexHull(vertices)
    faces = hull.simplices.copy()
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    inside_out = (normals * hull.equations[:, :3]).sum(-1) < 0
    faces[inside_out] = faces[inside_out][:, ::-1]
    return Surface(vertices, faces.astype(np.int32), np.zeros((len(vertices), 2)))


def tube(path: ArrayLike, radius: float, sides: int = 6) -> Surface:
    """A round bar (mm) along a path ``[N, 3]`` of points."""
    points = np.asarray(path, np.float64)
    direction = np.gradient(points, axis=0)
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    # Any vector that is nowhere parallel to the path will do to start the cross-section.
    reference = np.eye(3)[np.argmin(np.abs(direction).max(0))]
    normal = np.cross(direction, reference)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    binormal = np.cross(direction, normal)
    angle = 2 * np.pi * np.arange(sides) / sides
    ring = np.cos(angle)[None, :, None] * normal[:, None] + np.sin(angle)[None, :, None] * binormal[:, None]
    return lofted((points[:, None] + radius * ring) * MILLIMETRE)


def joined(surfaces: Iterable[Surface]) -> Surface:
    """Several surfaces as one mesh."""
    first, *rest = surfaces
    for surface in rest:
        first += surface
    return first


def mapped(surface: Surface, axes: tuple[int, int], size: float) -> Surface:
    """The surface with its texture laid on along two axes, one repeat per ``size`` metres."""
    return Surface(surface.vertices, surface.faces, surface.vertices[:, list(axes)] / size)


def without_wall(surface: Surface, axis: int, place: float) -> Surface:
    """The surface less the triangles that lie in the plane ``axis = place`` (mm)."""
    inside = np.abs(surface.vertices[surface.faces][:, :, axis] - place * MILLIMETRE) < 1e-6
    return Surface(surface.vertices, surface.faces[~inside.all(1)], surface.uv)


def flakes(places: Floats, lengths: Floats, widths: Floats, tilt: Floats) -> Surface:
    """Flat lenses in the plane z = 0 seen from above: centres ``[N, 2]``, sizes and turns (rad) ``[N]``; metres."""
    outline = np.array([[-0.5, 0.0], [-0.2, -0.5], [0.2, -0.4], [0.5, 0.0], [0.2, 0.5], [-0.2, 0.4]])
    shape = outline * np.stack([lengths, widths], -1)[:, None]
    cos, sin = np.cos(tilt)[:, None], np.sin(tilt)[:, None]
    x = cos * shape[..., 0] - sin * shape[..., 1] + places[:, :1]
    y = sin * shape[..., 0] + cos * shape[..., 1] + places[:, 1:]
    fan = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 5]])
    faces = (np.arange(len(places))[:, None, None] * 6 + fan).reshape(-1, 3)
    vertices = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], -1)
    return Surface(vertices, faces.astype(np.int32), np.zeros((len(vertices), 2)))
