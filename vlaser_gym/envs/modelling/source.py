"""A mesh file as a closed solid in metres: read, scaled, repaired or refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from vlaser_gym.envs.tasks.base import Floats
from vlaser_gym.errors import InvalidConfigError

UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}
#: Lengths (m) between which the longest side of something on a table lies; outside the unit is likely another.
_SMALLEST, _LARGEST = 0.005, 0.5


@dataclass(frozen=True)
class MassProperties:
    """Mass (kg), centre (m), and principal moments (kg m^2) with the quaternion wxyz of their axes."""

    mass: float
    com: tuple[float, float, float]
    com_rotation: tuple[float, float, float, float]
    inertia: tuple[float, float, float]


def read_solid(file: Path, unit: str) -> tuple[Any, Any, list[str]]:
    """A mesh file as one closed ``trimesh.Trimesh`` in metres, its bounding box in the middle of the frame.

    Args:
        file: OBJ, STL, PLY, GLB or whatever else trimesh reads.
        unit: one of :data:`UNITS`.

    Returns:
        The solid, the same mesh as it is seen (with its texture, not repaired), and a sentence about each repair.

    Raises:
        InvalidConfigError: for a file that holds no mesh, one that stays open, or one of an unlikely size.
    """
    seen = _load(file)
    seen.apply_scale(UNITS[unit])
    mesh = trimesh.Trimesh(seen.vertices, seen.faces)
    _check_size(file, unit, mesh.extents)
    repairs = _closed(mesh)
    if not mesh.is_watertight:
        shared = np.unique(mesh.edges_sorted, axis=0, return_counts=True)[1]
        raise InvalidConfigError(
            f"The mesh {file} is not closed: {(shared == 1).sum()} edges belong to one triangle only and "
            f"{(shared > 2).sum()} to more than two, where it should be two, so that it has no volume. Mend it in a "
            "modelling program (Blender: Mesh, Clean Up), and give what is thin a thickness."
        )
    if mesh.volume < 0:
        mesh.invert()
        repairs.append("its triangles faced inwards and were turned round")
    middle = mesh.bounds.mean(0)
    mesh.apply_translation(-middle)
    seen.apply_translation(-middle)
    return mesh, seen, repairs


def mass_properties(mesh: Any, density: float | None, mass: float | None) -> MassProperties:
    """Mass properties of a closed mesh that is filled evenly, by integrals over its surface.

    Args:
        mesh: a closed ``trimesh.Trimesh``, m.
        density: kg/m^3; read where ``mass`` is ``None``.
        mass: kg.
    """
    mesh.density = float(density) if mass is None else mass / mesh.volume  # type: ignore[arg-type]
    values, vectors = np.linalg.eigh(mesh.moment_inertia)
    if np.linalg.det(vectors) < 0:
        vectors[:, 0] *= -1
    turned = np.eye(4)
    turned[:3, :3] = vectors
    quaternion = trimesh.transformations.quaternion_from_matrix(turned)
    w, x, y, z = (float(part) for part in quaternion)
    first, second, third = (float(value) for value in values)
    return MassProperties(float(mesh.mass), _three(mesh.center_mass), (w, x, y, z), (first, second, third))


def _load(file: Path) -> Any:
    if not file.is_file():
        raise InvalidConfigError(f"source= must be a mesh file; there is no file {file}.")
    try:
        mesh = trimesh.load(file, force="mesh")
    except Exception as error:  # files of whatever origin are damaged in many ways
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidConfigError(
            f"The mesh {file} cannot be read ({said}): give an OBJ, STL, PLY or GLB file."
        ) from error
    if not isinstance(mesh, trimesh.Trimesh) or not len(mesh.faces):
        raise InvalidConfigError(f"The file {file} holds no triangles: expected a mesh, such as an OBJ or STL file.")
    return mesh


def _check_size(file: Path, unit: str, extents: Floats) -> None:
    longest = float(extents.max())
    if not _SMALLEST <= longest <= _LARGEST:
        likely = next((u for u, s in UNITS.items() if _SMALLEST <= longest / UNITS[unit] * s <= _LARGEST), None)
        remedy = f"unit={likely} would make it {longest / UNITS[unit] * UNITS[likely]:.3g} m" if likely else "scale it"
        raise InvalidConfigError(
            f"The longest side of {file} is {longest:.3g} m with unit={unit}; expected {_SMALLEST} to {_LARGEST} m for "
            f"something on a table: {remedy}."
        )


def _closed(mesh: Any) -> list[str]:
    """Close small holes and turn triangles to one side, in place; says what was done."""
    repairs = []
    if not mesh.is_watertight:
        before = len(mesh.faces)
        mesh.fill_holes()
        if len(mesh.faces) > before:
            repairs.append(f"holes were closed with {len(mesh.faces) - before} triangles")
    if not mesh.is_winding_consistent:
        trimesh.repair.fix_normals(mesh)
        repairs.append("triangles that faced different ways were turned to one side")
    return repairs


def _three(values: Any) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
