"""Objects of one's own: folders that ``python -m vlaser_gym.assets object`` makes from a mesh.

::

    object.yaml      mass, inertia, box, friction, resting postures, grasps
    collision.obj    the convex pieces that touch, one group each
    visual.obj       what is seen, with its texture where it has one

Lengths in metres, masses in kilograms, all in the object's frame: the axes of the mesh, the origin in the middle of its
bounding box. Other simulators read the two meshes as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.envs.tasks.base import Floats, Grasp, ObjectShape, ObjectSpec
from vlaser_gym.errors import StorageError

OBJECT_FILE, COLLISION_FILE, VISUAL_FILE = "object.yaml", "collision.obj", "visual.obj"
#: Version of the layout of these folders.
LAYOUT = 1
_NUMBERS = ("mass", "com", "com_rotation", "inertia", "bbox", "friction")


@dataclass(frozen=True, eq=False)
class Rest:
    """A posture in which an object stays on level ground.

    Attributes:
        height: of the actor origin above the ground, m.
        rotation: quaternion wxyz with heading 0.
        footprint: what it covers of the ground: corners ``[k, 2]`` of a convex outline in order, around its actor
            origin, with the heading as x axis, m.
        share: of drops from random orientations that end so.
    """

    height: float
    rotation: tuple[float, ...]
    footprint: Floats
    share: float = 1.0

    def pose(self, ground: float) -> Floats:
        """At the origin of a ground of that height (m), heading 0, ``[7]``."""
        return np.array([0.0, 0.0, ground + self.height, *self.rotation])


@dataclass(frozen=True, eq=False)
class Thing:
    """An object and how it rests, the likeliest posture first."""

    spec: ObjectSpec
    rests: tuple[Rest, ...]


def save_object(folder: Path, thing: Thing) -> None:
    """Write what :func:`load_object` reads into a folder that exists; the meshes are written by whoever has them.

    Raises:
        OSError: if it cannot be written.
    """
    import yaml  # noqa: PLC0415  who only imports the package has no objects

    spec = thing.spec
    entry = {
        "layout": LAYOUT,
        "name": spec.name,
        **{name: _plain(getattr(spec, name)) for name in _NUMBERS},
        "colour": _plain(spec.shape.colour if spec.shape is not None else (1.0, 1.0, 1.0)),
        "rests": [
            {"share": rest.share, "height": rest.height, "rotation": _plain(rest.rotation)}
            | {"footprint": [_plain(corner) for corner in rest.footprint]}
            for rest in thing.rests
        ],
        "grasps": [{name: _plain(getattr(grasp, name)) for name in ("up", "point", "axis")} for grasp in spec.grasps],
    }
    (folder / OBJECT_FILE).write_text(yaml.safe_dump(entry, sort_keys=False), encoding="utf-8")


def load_object(folder: str | Path) -> Thing:
    """The object of a folder.

    Raises:
        StorageError: if there is none, or its files are damaged.
    """
    from vlaser_gym.settings.reading import read_yaml  # noqa: PLC0415

    file = Path(folder) / OBJECT_FILE
    if not file.is_file():
        raise StorageError(
            f"{folder} is no object: expected a folder with {OBJECT_FILE}, as python -m vlaser_gym.assets object makes."
        )
    try:
        entry = read_yaml(file.read_text(encoding="utf-8"))
        rests = tuple(_rest(row) for row in entry["rests"])
        grasps = tuple(Grasp(*(_three(row[name]) for name in ("up", "point", "axis"))) for row in entry["grasps"])
        numbers = {name: _typed(entry[name]) for name in _NUMBERS}
        spec = ObjectSpec(name=str(entry["name"]), grasps=grasps, **numbers)
        shape = _read_shape(Path(folder), _three(entry["colour"]))
    except StorageError:
        raise
    except Exception as error:  # files of whatever origin are damaged in many ways
        raise StorageError(
            f"The object {folder} cannot be read ({type(error).__name__}: {str(error).splitlines()[0]}): make it again "
            "with python -m vlaser_gym.assets object."
        ) from error
    return Thing(replace(spec, shape=shape), rests)


def digest(folder: str | Path) -> str:
    """A checksum of an object's numbers and meshes."""
    value = 0
    for name in (OBJECT_FILE, COLLISION_FILE, VISUAL_FILE):
        file = Path(folder) / name
        value = crc32(file.read_bytes() if file.is_file() else b"", value)
    return f"{value:08x}"


def _read_shape(folder: Path, colour: tuple[float, float, float]) -> ObjectShape:
    import trimesh  # noqa: PLC0415  takes half a second

    seen = trimesh.load(folder / VISUAL_FILE, force="mesh", process=False)
    hulls = _read_pieces(folder / COLLISION_FILE)
    image = getattr(getattr(seen.visual, "material", None), "image", None)
    uv = getattr(seen.visual, "uv", None)
    uv = np.zeros((len(seen.vertices), 2)) if uv is None else np.asarray(uv, np.float64) * [1, -1] + [0, 1]
    texture: NDArray[np.uint8] = np.zeros((0, 0, 3), np.uint8)
    if image is not None:
        texture = np.asarray(image.convert("RGB"), np.uint8)
    faces = np.asarray(seen.faces, np.int32)
    return ObjectShape(hulls, np.asarray(seen.vertices, np.float64), faces, uv, colour, texture)


def _read_pieces(file: Path) -> tuple[Floats, ...]:
    """The corners of each object of an OBJ file; mesh libraries would join what touches."""
    pieces: list[list[list[float]]] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("o "):
            pieces.append([])
        elif line.startswith("v "):
            pieces[-1].append([float(number) for number in line.split()[1:4]])
    return tuple(np.array(corners) for corners in pieces)


def _rest(row: Mapping[str, Any]) -> Rest:
    footprint = np.array(row["footprint"], np.float64).reshape(-1, 2)
    return Rest(float(row["height"]), tuple(map(float, row["rotation"])), footprint, float(row["share"]))


def _three(values: Sequence[Any]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _typed(value: Any) -> Any:
    return tuple(map(float, value)) if isinstance(value, list) else float(value)


def _plain(value: Any) -> Any:
    return [float(part) for part in value] if np.ndim(value) else float(value)
