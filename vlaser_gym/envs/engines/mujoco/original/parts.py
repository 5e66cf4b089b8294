"""Meshes of the asset pack (DAE, GLB, OBJ) as triangle parts of one material each, converted once and kept.

Reading the original's files takes seconds, so the result is written to the user's cache, under a name made of the
file's content.
"""

from __future__ import annotations

import hashlib
import io
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from trimesh.resolvers import Resolver

from vlaser_gym.envs.assets import AssetPack, default_directory
from vlaser_gym.errors import MissingAssetError
from vlaser_gym.storage.files import write_whole

#: Changes whenever the conversion does.
_VERSION = "8"
#: Larger textures are scaled down: the cameras have 640 pixels.
_TEXTURE_SIZE = 512
#: Meshes with more triangles than this are thinned out: to corners this far apart (m). A pixel of the robots' cameras
#: covers 1 to 2 mm of a table.
_MANY_FACES, _CELL = 12000, 0.005
#: Corners nearer than this (m, and in texture units) are the same.
_SAME = 1e-5
#: The original's renderer takes colours as linear, textures as sRGB, and shows sRGB.
GAMMA = 2.2


@dataclass(frozen=True)
class Part:
    """Triangles of one material.

    Attributes:
        vertices, normals: ``[V, 3]``, m.
        faces: ``[F, 3]``.
        uv: ``[V, 2]``, origin at the texture's upper left.
        colour: sRGB in 0..1, ``[3]``; multiplies the texture.
        image: ``[H, W, 3]``; ``[0, 0, 3]`` where there is no texture.
        glows: the colour is light that the surface emits (baked textures), the same under any lamp.
    """

    vertices: NDArray[np.float32]
    normals: NDArray[np.float32]
    faces: NDArray[np.int32]
    uv: NDArray[np.float32]
    colour: NDArray[np.float32]
    image: NDArray[np.uint8]
    glows: bool


def load_parts(pack: AssetPack, file: Path, cache: Path | None = None) -> list[Part]:
    """The parts of a mesh file of the pack, in the file's frame; ``cache`` is the folder of converted meshes.

    Raises:
        MissingAssetError: if a texture is missing or damaged, or the mesh cannot be read.
    """
    folder = default_directory().parent / "converted" if cache is None else cache
    path = file.relative_to(pack.directory).as_posix()
    key = hashlib.sha256(f"{_VERSION} {path} ".encode() + file.read_bytes()).hexdigest()
    kept = folder / f"{key}.npz"
    if kept.is_file():
        try:
            return _read(kept)
        except (OSError, ValueError, KeyError, BadZipFile):  # cut off by a full disk: it is made again
            kept.unlink(missing_ok=True)
    parts = _merged(list(_convert(pack, file, path)))
    _keep(kept, parts)
    return parts


def plain_parts(file: Path, colour: tuple[float, float, float]) -> list[Part]:
    """A mesh file in one colour (sRGB, 0..1), its own materials left aside."""
    mesh = trimesh.load(file, force="mesh", process=False, skip_materials=True)
    return [_part(mesh, colour, None, glows=False)]


class _FromPack(Resolver):  # type: ignore[misc]
    """Gives trimesh the files that a mesh refers to, checked."""

    def __init__(self, pack: AssetPack, folder: str) -> None:
        self._pack, self._folder = pack, folder
        self.failed: MissingAssetError | None = None

    def get(self, name: str) -> bytes:
        """A file, named relative to the mesh.

        Raises:
            KeyError: if the manifest does not list it.
            MissingAssetError: if it is absent or damaged; kept in ``failed``, as trimesh may swallow it.
        """
        path = posixpath.normpath(posixpath.join(self._folder, name.strip()))
        if path not in self._pack.manifest:
            raise KeyError(path)  # trimesh goes on without it, like the original
        try:
            return self._pack.file(path).read_bytes()
        except MissingAssetError as error:
            self.failed = error
            raise

    def keys(self) -> list[str]:
        """No names: files are asked for one by one."""
        return []

    def write(self, name: str, data: bytes) -> None:
        """Refuse to write.

        Raises:
            MissingAssetError: always; the asset pack is only read.
        """
        raise MissingAssetError(f"Nothing is written into the asset pack; {name} was to be.")

    def namespaced(self, namespace: str) -> _FromPack:
        """The resolver of a folder below this one."""
        return _FromPack(self._pack, posixpath.join(self._folder, namespace))


def _convert(pack: AssetPack, file: Path, path: str) -> Iterator[Part]:
    resolver = _FromPack(pack, posixpath.dirname(path))
    try:
        with file.open("rb") as opened:
            scene = trimesh.load(opened, file_type=file.suffix[1:], resolver=resolver, force="scene", process=False)
        for mesh in scene.dump(concatenate=False):
            yield _part(mesh, *_material(getattr(mesh.visual, "material", None)))
    except MissingAssetError:
        raise
    except Exception as error:  # broken meshes break in many ways, with many types
        raise MissingAssetError(
            f"The asset {path} cannot be read ({type(error).__name__}: {error}): fetch it again with "
            "`python -m vlaser_gym.assets fetch`, or use look=builtin."
        ) from error
    if resolver.failed is not None:
        raise resolver.failed


def _material(material: Any) -> tuple[tuple[float, float, float], Image.Image | None, bool]:
    """Colour (sRGB), texture, and whether it glows."""
    if material is None:
        return (0.8, 0.8, 0.8), None, False
    if not hasattr(material, "baseColorFactor"):  # OBJ
        colour = np.asarray(material.diffuse, np.float64)[:3] / 255
        return _shown(colour if material.image is None else np.ones(3)), material.image, False
    if material.emissiveTexture is not None:
        return (1.0, 1.0, 1.0), material.emissiveTexture, True
    emitted = np.zeros(3) if material.emissiveFactor is None else np.asarray(material.emissiveFactor, np.float64)[:3]
    if emitted.any():
        return _shown(emitted), None, True
    factor = material.baseColorFactor
    colour = np.ones(3) if factor is None else np.asarray(factor, np.float64)[:3] / 255
    return _shown(colour), material.baseColorTexture, False


def _shown(linear: NDArray[np.float64]) -> tuple[float, float, float]:
    red, green, blue = np.clip(linear, 0, 1) ** (1 / GAMMA)
    return float(red), float(green), float(blue)


def _part(mesh: Any, colour: tuple[float, float, float], image: Image.Image | None, glows: bool) -> Part:
    uv = getattr(mesh.visual, "uv", None)
    uv = np.zeros((len(mesh.vertices), 2)) if uv is None or image is None else np.asarray(uv)
    texture: NDArray[np.uint8] = np.zeros((0, 0, 3), np.uint8)
    if image is not None:
        small = image.convert("RGB")
        small.thumbnail((_TEXTURE_SIZE, _TEXTURE_SIZE), Image.Resampling.BOX)
        texture = np.asarray(small, np.uint8)
    return Part(
        np.asarray(mesh.vertices, np.float32),
        np.asarray(mesh.vertex_normals, np.float32),
        np.asarray(mesh.faces, np.int32),
        np.stack([uv[:, 0], 1 - uv[:, 1]], -1).astype(np.float32),
        np.asarray(colour, np.float32),
        texture,
        glows,
    )


def _merged(parts: list[Part]) -> list[Part]:
    """Parts of the same material as one."""
    groups: dict[tuple[bytes, bytes, bool], list[Part]] = {}
    for part in parts:
        groups.setdefault((part.colour.tobytes(), part.image.tobytes(), part.glows), []).append(part)
    return [_thinned(_joined(group)) for group in groups.values()]


def _thinned(part: Part) -> Part:
    """The part with fewer triangles where it has very many: corners that nearly coincide become one.

    Where corners lie alone decides which of them become one place, so that the surface stays as closed as it was; the
    outermost stands for them, so that outlines do not shrink. A place has a vertex for each chart of the texture and
    each cell of the normals that meet there: the texture is not smeared over its seams, and edges stay sharp.
    """
    if len(part.faces) <= _MANY_FACES:
        return part
    place = _groups(part.vertices / _CELL)
    places = part.vertices[_greatest(_distance(part.vertices, part.vertices.mean(0)), place)]
    vertex = _groups(np.column_stack([place, _charts(part), 0.5 * part.normals]))
    nearest = _greatest(-_distance(part.vertices, places[place]), vertex)
    normals = np.stack([np.bincount(vertex, column) for column in part.normals.T], -1).astype(np.float32)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)
    a, b, c = place[part.faces].T
    kept = vertex[part.faces[(a != b) & (b != c) & (c != a)]].astype(np.int32)
    return Part(places[place[nearest]], normals, kept, part.uv[nearest], part.colour, part.image, part.glows)


def _distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.linalg.norm(a - b, axis=-1))


def _charts(part: Part) -> NDArray[np.int64]:
    """The index of the connected texture chart of each vertex, ``[V]``."""
    corner = _groups(np.column_stack([part.vertices / _SAME, part.uv / _SAME]))
    a, b, c = corner[part.faces].T
    edges = np.concatenate([a, b]), np.concatenate([b, c])
    graph = coo_array((np.ones(len(edges[0])), edges), shape=(corner.max() + 1,) * 2)
    return np.asarray(connected_components(graph, directed=False)[1][corner], np.int64)


def _groups(cells: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """The group index ``[n]`` of rows of ``cells [n, k]`` that round to the same whole numbers."""
    return np.unique(np.round(cells).astype(np.int64), axis=0, return_inverse=True)[1].ravel()


def _greatest(values: NDArray[np.floating[Any]], group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of the greatest of ``values [n]`` in each group."""
    order = np.lexsort((values, group))
    return order[np.flatnonzero(np.diff(group[order], append=-1))]


def _joined(group: list[Part]) -> Part:
    starts = np.cumsum([0, *(len(part.vertices) for part in group)])
    return Part(
        np.concatenate([part.vertices for part in group]),
        np.concatenate([part.normals for part in group]),
        np.concatenate([part.faces + start for part, start in zip(group, starts, strict=False)]).astype(np.int32),
        np.concatenate([part.uv for part in group]),
        group[0].colour,
        group[0].image,
        group[0].glows,
    )


_FIELDS = ("vertices", "normals", "faces", "uv", "colour", "image")


def _keep(place: Path, parts: list[Part]) -> None:
    """Write the parts, atomically; where the cache cannot be written they are made again next time."""
    arrays: dict[str, Any] = {"count": len(parts)}
    for i, part in enumerate(parts):
        arrays |= {f"{name}{i}": getattr(part, name) for name in _FIELDS} | {f"glows{i}": part.glows}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, buffer.getvalue(), sync=False)
    except OSError:
        return


def _read(place: Path) -> list[Part]:
    with np.load(place) as arrays:
        return [
            Part(**{name: arrays[f"{name}{i}"] for name in _FIELDS}, glows=bool(arrays[f"glows{i}"]))
            for i in range(int(arrays["count"]))
        ]
