"""Finding and checking assets."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from vlaser_gym.envs.assets import MANIFEST, AssetPack, Entry, Manifest, default_directory
from vlaser_gym.envs.assets.pack import examine
from vlaser_gym.errors import MissingAssetError

M = "data/custom/models"


def entry(data: bytes) -> Entry:
    return Entry(len(data), hashlib.sha256(data).hexdigest())


SMALL = Manifest(
    "owner/name",
    "a" * 40,
    {f"{M}/cube/textured.dae": entry(b"cube"), f"{M}/cube/collision.obj": entry(b"hull")},
    {f"{M}/egg/textured.glb": entry(b"glTF plain")},
    (f"{M}/egg/textured.dae", "data/hab2_bench_assets/stages/room.glb"),
)


def write(root: Path, path: str, data: bytes) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(data)


def test_a_file_is_found_and_checked(tmp_path: Path) -> None:
    write(tmp_path, f"{M}/cube/collision.obj", b"hull")
    pack = AssetPack(tmp_path, SMALL)
    assert pack.model_collision("cube") == tmp_path / f"{M}/cube/collision.obj"


@pytest.mark.parametrize("content", [b"HULL", b"hull ", b""])
def test_a_damaged_file_is_named_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, f"{M}/cube/collision.obj", content)
    with pytest.raises(MissingAssetError, match=r"cube/collision\.obj.*damaged.*assets fetch.*look=builtin"):
        AssetPack(tmp_path, SMALL).model_collision("cube")


def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    write(tmp_path, f"{M}/cube/collision.obj", b"hull")
    with pytest.raises(MissingAssetError, match=r"cube/textured\.dae is missing.*assets fetch.*look=builtin"):
        AssetPack(tmp_path, SMALL).model_look("cube")


def test_no_directory_no_pack(tmp_path: Path) -> None:
    with pytest.raises(MissingAssetError, match=r"not in .*nowhere.*assets fetch.*look=builtin"):
        AssetPack(tmp_path / "nowhere", SMALL)
    with pytest.raises(MissingAssetError):
        AssetPack(tmp_path, SMALL)


def test_a_real_mesh_wins_over_a_stand_in_and_neither_is_none(tmp_path: Path) -> None:
    write(tmp_path, f"{M}/cube/collision.obj", b"hull")
    assert AssetPack(tmp_path, SMALL).model_look("egg") is None
    write(tmp_path, f"{M}/egg/textured.glb", b"glTF plain")
    assert AssetPack(tmp_path, SMALL).model_look("egg") == tmp_path / f"{M}/egg/textured.glb"
    write(tmp_path, f"{M}/egg/textured.dae", b"<?xml version='1.0'?>")
    assert AssetPack(tmp_path, SMALL).model_look("egg") == tmp_path / f"{M}/egg/textured.dae"
    write(tmp_path, f"{M}/egg/textured.dae", b"not a mesh")
    with pytest.raises(MissingAssetError, match="damaged"):
        AssetPack(tmp_path, SMALL).model_look("egg")


def test_a_stage_is_optional(tmp_path: Path) -> None:
    write(tmp_path, f"{M}/cube/collision.obj", b"hull")
    assert AssetPack(tmp_path, SMALL).stage("room") is None
    write(tmp_path, "data/hab2_bench_assets/stages/room.glb", b"glTF")
    assert AssetPack(tmp_path, SMALL).stage("room") is not None


def test_a_path_that_no_list_has_is_refused(tmp_path: Path) -> None:
    write(tmp_path, f"{M}/cube/other.obj", b"x")
    with pytest.raises(MissingAssetError, match="not among"):
        AssetPack(tmp_path, SMALL).file(f"{M}/cube/other.obj")


def test_status_tells_right_missing_damaged_and_optional_files(tmp_path: Path) -> None:
    write(tmp_path, f"{M}/cube/collision.obj", b"HULL")
    write(tmp_path, f"{M}/egg/textured.dae", b"<?xml?>")
    status = examine(tmp_path, SMALL)
    assert status.intact == (f"{M}/egg/textured.dae",)
    assert status.missing == (f"{M}/cube/textured.dae",)
    assert status.damaged == (f"{M}/cube/collision.obj",)
    assert status.optional == ("data/hab2_bench_assets/stages/room.glb",)
    assert not status.complete


def test_the_cache_is_the_users_and_named_after_the_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_directory() == tmp_path / "vlaser_gym" / "simplerenv-ef7a4d4fdf4b"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_directory() == tmp_path / ".cache" / "vlaser_gym" / "simplerenv-ef7a4d4fdf4b"


def test_the_list_agrees_with_the_shared_packs_own(shared: Path) -> None:
    theirs = json.loads((shared / "assets/simplerenv/manifest.json").read_text())
    assert theirs["commit"] == MANIFEST.commit
    for ours, key in ((MANIFEST.files, "files"), (MANIFEST.stand_ins, "stand_ins")):
        assert {p: (e.size, e.sha256) for p, e in ours.items()} == {
            p: (e["bytes"], e["sha256"]) for p, e in theirs[key].items()
        }


@pytest.mark.slow
def test_the_shared_pack_is_whole(shared: Path) -> None:
    status = AssetPack(shared / "assets/simplerenv").status()
    assert status.complete
    assert set(status.optional) == set(MANIFEST.unknown)
