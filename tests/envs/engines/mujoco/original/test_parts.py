"""Meshes of the asset pack: read, merged, kept."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from vlaser_gym.envs.assets import AssetPack, Entry, Manifest
from vlaser_gym.envs.engines.mujoco.original import parts as module
from vlaser_gym.envs.engines.mujoco.original.parts import Part, load_parts, plain_parts
from vlaser_gym.errors import MissingAssetError

FOLDER = "data/custom/models/thing"
OBJ = b"""mtllib thing.mtl
v 0 0 0
v 1 0 0
v 0 2 0
v 0 0 3
vt 0 0
vt 1 0
vt 0 1
usemtl painted
f 1/1 2/2 3/3
usemtl red
f 1 2 4
usemtl red_too
f 2 3 4
"""
MTL = b"""newmtl painted
map_Kd paint.png
newmtl red
Kd 0.25 0 0
newmtl red_too
Kd 0.25 0 0
"""


def png() -> bytes:
    """2 x 2: blue and white above, black and green below."""
    pixels = np.array([[(0, 0, 255), (255, 255, 255)], [(0, 0, 0), (0, 255, 0)]], np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def pack(tmp_path: Path) -> AssetPack:
    files = {"thing.obj": OBJ, "thing.mtl": MTL, "paint.png": png()}
    for name, data in files.items():
        (tmp_path / FOLDER).mkdir(parents=True, exist_ok=True)
        (tmp_path / FOLDER / name).write_bytes(data)
    entries = {f"{FOLDER}/{n}": Entry(len(d), hashlib.sha256(d).hexdigest()) for n, d in files.items()}
    return AssetPack(tmp_path, Manifest("o/n", "0" * 40, entries, {}, ()))


def test_parts_have_geometry_colour_and_texture(pack: AssetPack, tmp_path: Path) -> None:
    found = load_parts(pack, tmp_path / FOLDER / "thing.obj", tmp_path / "cache")
    painted = next(part for part in found if part.image.size)
    red = [part for part in found if not part.image.size]
    assert len(red) == 1, "parts of one colour are one"
    assert len(red[0].faces) == 2
    corners = red[0].vertices[red[0].faces].reshape(-1, 3)
    assert {tuple(c) for c in corners.tolist()} == {(0, 0, 0), (1, 0, 0), (0, 2, 0), (0, 0, 3)}
    np.testing.assert_allclose(red[0].colour, [0.25 ** (1 / 2.2), 0, 0], atol=0.005)
    assert painted.image.tolist() == [[[0, 0, 255], [255, 255, 255]], [[0, 0, 0], [0, 255, 0]]]
    # vt counts from below, uv from above: the corner at the origin shows the lower left pixel.
    origin = painted.uv[np.abs(painted.vertices).sum(1) == 0][0]
    np.testing.assert_allclose(origin, [0, 1])
    np.testing.assert_allclose(np.abs(painted.normals), [[0, 0, 1]] * len(painted.normals), atol=1e-6)
    assert not painted.glows


def test_a_kept_conversion_is_the_same_and_read_without_the_mesh_library(
    pack: AssetPack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, cache = tmp_path / FOLDER / "thing.obj", tmp_path / "cache"
    first = load_parts(pack, file, cache)
    monkeypatch.setattr(module.trimesh, "load", None)
    again = load_parts(pack, file, cache)
    for a, b in zip(first, again, strict=True):
        for name in ("vertices", "normals", "faces", "uv", "colour", "image"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert a.glows == b.glows


def test_other_content_is_converted_anew_and_a_cut_file_is_replaced(pack: AssetPack, tmp_path: Path) -> None:
    file, cache = tmp_path / FOLDER / "thing.obj", tmp_path / "cache"
    load_parts(pack, file, cache)
    (kept,) = cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    assert len(load_parts(pack, file, cache)) == 2
    file.write_bytes(OBJ.replace(b"v 0 0 3", b"v 0 0 4"))
    assert max(part.vertices.max() for part in load_parts(pack, file, cache)) == 4
    assert len(list(cache.iterdir())) == 2


def test_without_a_writable_cache_it_still_works(pack: AssetPack, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert len(load_parts(pack, tmp_path / FOLDER / "thing.obj", tmp_path / "file")) == 2


@pytest.mark.parametrize("change", ["missing", "damaged"])
def test_a_bad_texture_is_named(pack: AssetPack, tmp_path: Path, change: str) -> None:
    texture = tmp_path / FOLDER / "paint.png"
    if change == "missing":
        texture.unlink()
    else:
        texture.write_bytes(b"x" + texture.read_bytes())
    with pytest.raises(MissingAssetError, match=rf"paint\.png.*{change}|{change}.*paint\.png"):
        load_parts(pack, tmp_path / FOLDER / "thing.obj", tmp_path / "cache")


def test_a_mesh_that_cannot_be_read_is_named(pack: AssetPack, tmp_path: Path) -> None:
    broken = tmp_path / FOLDER / "thing.glb"
    broken.write_bytes(b"glTF but not really")
    with pytest.raises(MissingAssetError, match=r"thing\.glb cannot be read"):
        load_parts(pack, broken, tmp_path / "cache")


def test_one_colour(tmp_path: Path) -> None:
    file = tmp_path / "box.obj"
    trimesh.creation.box((1, 1, 1)).export(file)
    (part,) = plain_parts(file, (0.1, 0.2, 0.3))
    assert len(part.faces) == 12
    np.testing.assert_allclose(part.colour, [0.1, 0.2, 0.3])


def test_what_the_original_models_hold(shared: Path, tmp_path: Path) -> None:
    """DAE and GLB; baked models glow; sizes of the specification's table (9)."""
    pack = AssetPack(shared / "assets/simplerenv")
    cube = load_parts(pack, pack.model_look("baked_green_cube_3cm"), tmp_path)
    assert all(part.glows for part in cube)
    size = np.ptp(np.concatenate([part.vertices for part in cube]), axis=0)
    np.testing.assert_allclose(size, 0.03, atol=1e-6)
    pepsi = load_parts(pack, pack.model_look("baked_opened_pepsi_can_v2"), tmp_path)
    assert [part.glows for part in pepsi] == [True]
    assert pepsi[0].image.shape[2] == 3
    np.testing.assert_allclose(np.ptp(pepsi[0].vertices, axis=0), [0.066, 0.123, 0.066], atol=2e-3)
    carrot = load_parts(pack, pack.model_look("bridge_carrot_generated_modified"), tmp_path)
    assert [(part.glows, max(part.image.shape)) for part in carrot] == [(False, 512)]


def patched_ball(n: int = 40) -> Part:
    """A unit cube's six sides of ``n x n`` squares blown up to a ball of 5 cm: six charts that share only places."""
    steps = np.linspace(-1, 1, n + 1)
    u, v = (axis.ravel() for axis in np.meshgrid(steps, steps, indexing="ij"))
    i, j = (axis.ravel() for axis in np.meshgrid(range(n), range(n), indexing="ij"))
    a, b = i * (n + 1) + j, (i + 1) * (n + 1) + j
    square = np.concatenate([np.stack([a, b, b + 1], -1), np.stack([a, b + 1, a + 1], -1)])
    points, faces, uv = [], [], []
    for side in range(6):
        axis, sign = side // 2, 1 - 2 * (side % 2)
        corners = np.empty((len(u), 3))
        corners[:, axis], corners[:, (axis + 1) % 3], corners[:, (axis + 2) % 3] = sign, sign * u, v
        points.append(corners / np.linalg.norm(corners, axis=1, keepdims=True))
        faces.append(square + side * len(u))
        # A column of the atlas each, with a gap of 1 % between them.
        uv.append(np.stack([(side + 0.03 + 0.47 * (u + 1)) / 6, (v + 1) / 2], -1))
    normals = np.concatenate(points).astype(np.float32)
    image = np.zeros((1, 1, 3), np.uint8)
    return Part(
        0.05 * normals, normals, np.concatenate(faces).astype(np.int32), np.concatenate(uv).astype(np.float32),
        np.ones(3, np.float32), image, False,
    )  # fmt: skip


def test_thinning_keeps_seams_closed_the_outline_and_the_charts() -> None:
    ball = patched_ball()
    assert len(ball.faces) > module._MANY_FACES
    thin = module._thinned(ball)
    assert len(thin.faces) < len(ball.faces) / 2
    _, place = np.unique(np.round(thin.vertices * 1e6).astype(np.int64), axis=0, return_inverse=True)
    faces = place.ravel()[thin.faces]
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] > 1).all(), "an edge of one triangle alone is a crack"
    np.testing.assert_allclose(np.linalg.norm(thin.vertices, axis=1), 0.05, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(thin.normals, axis=1), 1.0, rtol=1e-5)
    # No triangle reaches from one column of the atlas into another.
    columns = np.floor(thin.uv[thin.faces][..., 0] * 6)
    assert (columns == columns[:, :1]).all()
