"""The meshes of an object's shape as files, for simulators that read nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import trimesh
from numpy.typing import NDArray
from PIL import Image

from vlaser_gym.envs.assets import default_directory
from vlaser_gym.envs.tasks.base import ObjectShape
from vlaser_gym.envs.tasks.own_objects import COLLISION_FILE, VISUAL_FILE
from vlaser_gym.storage.files import appearing_folder, storage_errors


def shape_files(shape: ObjectShape, cache: Path | None = None) -> tuple[Path, Path]:
    """Files of the convex pieces and of what is seen, written once, under a name made of their content.

    Args:
        shape: of an object.
        cache: folder of all such files; ``None`` for one in the user's cache.

    Raises:
        StorageError: if they cannot be written.
    """
    root = default_directory().parent / "objects" if cache is None else cache
    folder = root / _content(shape)
    with storage_errors(f"Cannot write the meshes {folder}", "set XDG_CACHE_HOME to a writable folder"):
        if not folder.is_dir():
            root.mkdir(parents=True, exist_ok=True)
            with appearing_folder(folder) as partial:
                write_pieces(partial / COLLISION_FILE, shape)
                _write_surface(partial / VISUAL_FILE, shape)
    return folder / COLLISION_FILE, folder / VISUAL_FILE


def write_pieces(file: Path, shape: ObjectShape) -> None:
    """Write the convex pieces as an OBJ file with a group for each."""
    lines, first = [], 1
    for number, points in enumerate(shape.hulls):
        hull = trimesh.convex.convex_hull(points)
        lines.append(f"o piece{number}")
        lines += [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in hull.vertices]
        lines += [f"f {a + first} {b + first} {c + first}" for a, b, c in hull.faces]
        first += len(hull.vertices)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_surface(file: Path, shape: ObjectShape) -> None:
    colour = [round(255 * part) for part in shape.colour]
    image = Image.fromarray(shape.image) if shape.image.size else Image.new("RGB", (1, 1), tuple(colour))
    material = trimesh.visual.material.SimpleMaterial(image=image, diffuse=[*colour, 255])
    visual = trimesh.visual.TextureVisuals(uv=shape.uv * [1, -1] + [0, 1], material=material)
    mesh = trimesh.Trimesh(shape.vertices, shape.faces, visual=visual, process=False)
    mesh.export(file)


def _content(shape: ObjectShape) -> str:
    digest = hashlib.sha256(repr(shape.colour).encode())
    arrays: tuple[NDArray[Any], ...] = (*shape.hulls, shape.vertices, shape.faces, shape.uv, shape.image)
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()[:32]
