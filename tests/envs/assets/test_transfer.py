"""Fetching and importing: only right files get their name, cut ones go on, wrong ones are refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from http_folder import Served, serving

from vlaser_gym.envs.assets.manifest import Entry, Manifest
from vlaser_gym.envs.assets.transfer import PARTIAL, from_directory, importable, over_http, transfer
from vlaser_gym.errors import MissingAssetError, StorageError

BIG = np.random.default_rng(0).bytes(300_000)
FILES = {"data/a b.png": b"picture", "data/deep/er/mesh.obj": BIG, "data/empty.mtl": b""}
#: Sums from hashlib directly, not through the code under test.
MANIFEST = Manifest(
    "owner/name",
    "0" * 40,
    {path: Entry(len(data), hashlib.sha256(data).hexdigest()) for path, data in FILES.items()},
    {"data/plain.glb": Entry(4, hashlib.sha256(b"glTF").hexdigest())},
    ("data/stage.glb",),
)
PATHS = list(MANIFEST.files)


def outcomes(target: Path, served: Served, paths: list[str] = PATHS) -> dict[str, tuple[str, str]]:
    results = transfer(target, over_http(served.address), paths, MANIFEST)
    return {outcome.path: (outcome.state, outcome.reason) for outcome in results}


def states(target: Path, served: Served) -> list[str]:
    return [state for state, _ in outcomes(target, served).values()]


@pytest.fixture
def server():
    with serving({path.replace(" ", "%20"): data for path, data in FILES.items()}) as served:
        yield served


def test_everything_arrives_and_is_kept_the_second_time(tmp_path: Path, server: Served) -> None:
    assert states(tmp_path, server) == ["new"] * 3
    assert {path: (tmp_path / path).read_bytes() for path in PATHS} == FILES
    server.requests.clear()
    assert states(tmp_path, server) == ["kept"] * 3
    assert server.requests == []


def test_a_cut_download_goes_on_where_it_stopped(tmp_path: Path, server: Served) -> None:
    path = "data/deep/er/mesh.obj"
    server.cut[path] = 100_000
    state, reason = outcomes(tmp_path, server)[path]
    assert state == "failed"
    assert "200000 of 300000 bytes" in reason
    assert not (tmp_path / path).exists()
    assert (tmp_path / (path + PARTIAL)).read_bytes() == BIG[:100_000]
    assert outcomes(tmp_path, server)[path] == ("new", "")
    assert server.requests[-1] == (path, "bytes=100000-")
    assert (tmp_path / path).read_bytes() == BIG
    assert not list(tmp_path.rglob("*" + PARTIAL))


def test_a_server_without_ranges_sends_the_file_again(tmp_path: Path, server: Served) -> None:
    path = "data/deep/er/mesh.obj"
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / (path + PARTIAL)).write_bytes(BIG[:5])
    server.ranges = False
    assert outcomes(tmp_path, server)[path] == ("new", "")
    assert (tmp_path / path).read_bytes() == BIG


@pytest.mark.parametrize("rest", [BIG + b"more", b"x" * len(BIG)])
def test_a_beginning_as_long_as_the_file_is_thrown_away(tmp_path: Path, server: Served, rest: bytes) -> None:
    path = "data/deep/er/mesh.obj"
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / (path + PARTIAL)).write_bytes(rest)
    assert outcomes(tmp_path, server)[path] == ("new", "")


@pytest.mark.parametrize("content", [b"PICTURE", b"picture and more", b"pic"])
def test_wrong_content_is_refused_named_and_leaves_nothing(tmp_path: Path, server: Served, content: bytes) -> None:
    server.files["data/a%20b.png"] = content
    result = outcomes(tmp_path, server)
    assert result["data/a b.png"][0] == "failed"
    assert "checksum" in result["data/a b.png"][1]
    assert result["data/deep/er/mesh.obj"][0] == "new"  # the others are not held up
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == ["deep", "empty.mtl"]


def test_a_beginning_of_another_file_is_refused_and_the_next_try_works(tmp_path: Path, server: Served) -> None:
    path = "data/deep/er/mesh.obj"
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / (path + PARTIAL)).write_bytes(b"another")
    assert outcomes(tmp_path, server)[path][0] == "failed"
    assert outcomes(tmp_path, server)[path] == ("new", "")


def test_a_damaged_file_is_replaced(tmp_path: Path, server: Served) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a b.png").write_bytes(b"picturE")
    assert outcomes(tmp_path, server)["data/a b.png"] == ("new", "")
    assert (tmp_path / "data/a b.png").read_bytes() == b"picture"


def test_what_the_server_lacks_is_named(tmp_path: Path, server: Served) -> None:
    del server.files["data/empty.mtl"]
    state, reason = outcomes(tmp_path, server)["data/empty.mtl"]
    assert state == "failed"
    assert "404" in reason


def test_nobody_listening_is_a_failure_of_each_file(tmp_path: Path) -> None:
    results = list(transfer(tmp_path, over_http("http://127.0.0.1:9"), PATHS, MANIFEST))
    assert [result.state for result in results] == ["failed"] * 3


def test_unknown_files_are_taken_if_they_are_of_their_kind(tmp_path: Path, server: Served) -> None:
    server.files["data/stage.glb"] = b"version https://git-lfs.github.com/spec/v1"
    assert outcomes(tmp_path, server, ["data/stage.glb"])["data/stage.glb"][0] == "failed"
    server.files["data/stage.glb"] = b"glTF....and so on"
    assert outcomes(tmp_path, server, ["data/stage.glb"])["data/stage.glb"] == ("new", "")


def test_a_folder_is_imported_with_its_stand_ins(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for path, data in {**FILES, "data/plain.glb": b"glTF", "data/stage.glb": b"glTF", "data/other": b""}.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(data)
    paths = importable(source, MANIFEST)
    assert paths == [*PATHS, "data/plain.glb"]
    assert importable(source, MANIFEST, unverified=True) == [*PATHS, "data/plain.glb", "data/stage.glb"]
    (source / "data/empty.mtl").unlink()
    result = list(transfer(target, from_directory(source), paths, MANIFEST))
    assert [outcome.state for outcome in result] == ["new", "new", "failed", "new"]
    assert "No such file" in result[2].reason
    assert (target / "data/deep/er/mesh.obj").read_bytes() == BIG


def test_a_folder_without_assets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingAssetError, match="holds none of the original's files"):
        importable(tmp_path, MANIFEST)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose another directory"):
        list(transfer(tmp_path / "file" / "below", from_directory(tmp_path), PATHS, MANIFEST))
