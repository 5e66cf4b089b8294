"""Making of an object that tasks can name from a mesh: pieces, mass, postures, grasps, looks; checked and written."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from vlaser_gym.envs.modelling.files import write_pieces
from vlaser_gym.envs.modelling.grasping import find_grasps
from vlaser_gym.envs.modelling.pieces import convex_pieces
from vlaser_gym.envs.modelling.settling import resting_postures, up_of
from vlaser_gym.envs.modelling.source import mass_properties, read_solid
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks.base import ObjectShape, ObjectSpec
from vlaser_gym.envs.tasks.google_objects import MODELS
from vlaser_gym.envs.tasks.own_objects import (
    COLLISION_FILE,
    OBJECT_FILE,
    VISUAL_FILE,
    Rest,
    Thing,
    load_object,
    save_object,
)
from vlaser_gym.errors import InvalidConfigError, StorageError
from vlaser_gym.storage.files import appearing_folder, storage_errors

#: Colour of meshes that have neither texture nor colour, sRGB.
_GREY = (0.7, 0.7, 0.72)


@dataclass(frozen=True)
class Recipe:
    """The choices in making an object.

    Attributes:
        unit: of the mesh's numbers: m, cm or mm.
        density: kg/m^3; read where ``mass`` is ``None``.
        mass: kg.
        friction: sliding friction coefficient of the body alone.
        colour: sRGB, 0 to 1; ``None`` for the mesh's own.
        concavity, pieces: see :func:`~vlaser_gym.envs.modelling.pieces.convex_pieces`.
        drops: see :func:`~vlaser_gym.envs.modelling.settling.resting_postures`.
    """

    unit: str = "m"
    density: float = 600.0
    mass: float | None = None
    friction: float = 0.5
    colour: tuple[float, float, float] | None = None
    concavity: float = 0.05
    pieces: int = 32
    drops: int = 48


@dataclass(frozen=True)
class Made:
    """An object and the facts that tell whether it was made well.

    Attributes:
        volume: of the mesh, m^3.
        pieces_volume: of the convex pieces together, m^3.
        repairs: what was mended on the mesh.
    """

    folder: Path
    thing: Thing
    volume: float
    pieces_volume: float
    repairs: list[str] = field(default_factory=list)


def make_object(source: Path, folder: Path, recipe: Recipe = Recipe()) -> Made:
    """Make the object of a mesh file in a folder that takes its name.

    Mass, centre and inertia are the closed mesh's; contacts are its convex pieces'. Resting postures come from drops in
    the built-in engine with the WidowX's contacts, grasps fit its fingers.

    Raises:
        InvalidConfigError: for a mesh that is open, of an unlikely size, or that stays nowhere.
        StorageError: if the folder holds something else or cannot be written.
    """
    _check_folder(folder)
    mesh, seen, repairs = read_solid(source, recipe.unit)
    shape = _shape(mesh, seen, recipe)
    numbers = mass_properties(mesh, recipe.density, recipe.mass)
    x, y, z = (float(side) for side in mesh.extents)
    spec = ObjectSpec(
        name=folder.name,
        mass=numbers.mass,
        com=numbers.com,
        com_rotation=numbers.com_rotation,
        inertia=numbers.inertia,
        bbox=(x, y, z),
        friction=recipe.friction,
        shape=shape,
    )
    rests = resting_postures(spec, get_setup("widowx"), recipe.drops)
    if not rests:
        raise InvalidConfigError(
            f"{source} comes to rest in no posture: it rolls or rocks. Flatten a side of it, or give it a lower centre "
            "of mass."
        )
    thing = Thing(replace(spec, grasps=tuple(find_grasps(mesh, numbers.com, rests))), rests)
    _write(folder, thing, seen)
    pieces_volume = float(sum(trimesh.convex.convex_hull(points).volume for points in shape.hulls))
    return Made(folder, load_object(folder), float(mesh.volume), pieces_volume, repairs)


def _shape(mesh: Any, seen: Any, recipe: Recipe) -> ObjectShape:
    """The pieces of a solid, and what is seen without its texture, which is read again from the written mesh."""
    hulls = convex_pieces(mesh, recipe.concavity, recipe.pieces)
    uv, none = np.zeros((len(seen.vertices), 2)), np.zeros((0, 0, 3), np.uint8)
    colour = recipe.colour or _colour_of(seen)
    return ObjectShape(hulls, np.asarray(seen.vertices, np.float64), np.asarray(seen.faces, np.int32), uv, colour, none)


def _colour_of(mesh: Any) -> tuple[float, float, float]:
    """The mesh's main colour; white under a texture, grey where it has none."""
    if getattr(getattr(mesh.visual, "material", None), "image", None) is not None:
        return 1.0, 1.0, 1.0
    if not mesh.visual.defined:
        return _GREY
    red, green, blue = (float(part) / 255 for part in mesh.visual.to_color().main_color[:3])
    return red, green, blue


def _check_folder(folder: Path) -> None:
    name = folder.name
    if not name.replace("-", "_").isidentifier() or name in MODELS:
        raise InvalidConfigError(
            "An object's folder gives it its name: letters, digits, hyphens and underscores, none of the gym's own "
            f"objects; got {name!r}."
        )
    if folder.exists() and not (folder / OBJECT_FILE).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise StorageError(f"{folder} holds something else than an object: choose another output=.")


def _write(folder: Path, thing: Thing, seen: Any) -> None:
    """The whole folder or nothing of it."""
    assert thing.spec.shape is not None
    with storage_errors(f"Cannot write the object {folder}", "choose a writable place by output=DIR"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with appearing_folder(folder) as partial:
            write_pieces(partial / COLLISION_FILE, thing.spec.shape)
            seen.export(partial / VISUAL_FILE)
            save_object(partial, thing)


def describe(made: Made) -> list[str]:
    """Facts about an object, a line each."""
    spec, rests = made.thing.spec, made.thing.rests
    assert spec.shape is not None
    sides = " x ".join(f"{1000 * side:.0f}" for side in spec.bbox)
    excess = 100 * (made.pieces_volume / made.volume - 1)
    return [
        *(f"Repaired: {sentence}." for sentence in made.repairs),
        f"{spec.name}: {sides} mm, {1e6 * made.volume:.1f} cm^3, {1000 * spec.mass:.1f} g",
        f"{len(spec.shape.hulls)} convex pieces, {excess:+.1f} % of the mesh's volume; mass and inertia are the mesh's",
        *(_posture_line(number, rest, spec) for number, rest in enumerate(rests)),
    ]


def _posture_line(number: int, rest: Rest, spec: ObjectSpec) -> str:
    up = up_of(np.array(rest.rotation))
    holds = any(np.dot(grasp.up, up) > np.cos(np.deg2rad(10)) for grasp in spec.grasps)
    where = ", ".join(f"{part:+.2f}" for part in up)
    grasp = "a grasp from above" if holds else "no grasp from above fits the fingers"
    height = f"{1000 * rest.height:.1f} mm above the ground"
    return f"rest {number}: {100 * rest.share:.0f} % of drops, mesh's ({where}) up, its middle {height}; {grasp}"
