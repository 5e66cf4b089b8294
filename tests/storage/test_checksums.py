from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np

from vlaser_gym.storage.checksums import damaged_member, digest_of


def test_a_digest_by_hand() -> None:
    data = {"b": np.arange(3, dtype=np.uint8), "a": np.zeros(2, np.uint8)}
    lines = [f"{name} u8 {hashlib.sha256(data[name].tobytes()).hexdigest()}\n" for name in ("a", "b")]
    wanted = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert digest_of({name: lambda name=name: ("u8", data[name]) for name in data}) == wanted  # type: ignore[misc]


def test_an_archive_with_a_flipped_bit_names_its_part(tmp_path: Path) -> None:
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("one", b"1" * 100)
    assert damaged_member(file) is None
    file.write_bytes(file.read_bytes().replace(b"1111", b"1011", 1))
    assert damaged_member(file) == "one"
    file.write_bytes(b"no archive")
    assert damaged_member(file) is None
