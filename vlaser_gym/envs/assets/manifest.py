"""The original's files: path, size and SHA-256 of each, measured by this project."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

#: First bytes of files whose checksum is not known, by ending.
_BEGINNINGS = {".glb": (b"glTF",), ".dae": (b"<?xml", b"\xef\xbb\xbf<?xml", b"<COLLADA")}


@dataclass(frozen=True)
class Entry:
    """The expected content of a file: its size in bytes and its SHA-256 in hexadecimal."""

    size: int
    sha256: str

    def matches(self, data: bytes) -> bool:
        """True if ``data`` has the expected size and hash."""
        return len(data) == self.size and hashlib.sha256(data).hexdigest() == self.sha256


@dataclass(frozen=True)
class Manifest:
    """The list of a pack's files.

    Attributes:
        source: GitHub repository, ``owner/name``.
        commit: at which the files were listed.
        files: path in the repository -> what it must be.
        stand_ins: files that the source does not have and that packs for development may hold: plain shapes in place
            of meshes that could not be obtained. They are never fetched.
        unknown: files of the source whose checksum this project does not know. Only their kind can be checked, so they
            are taken when the user asks for them, and everything works without them.
    """

    source: str
    commit: str
    files: Mapping[str, Entry]
    stand_ins: Mapping[str, Entry]
    unknown: Collection[str]

    @classmethod
    def read(cls, text: str) -> Manifest:
        """Read from JSON."""
        data = json.loads(text)
        files, stand_ins = (
            {path: Entry(*numbers) for path, numbers in data[key].items()} for key in ("files", "stand_ins")
        )
        return cls(data["source"], data["commit"], files, stand_ins, dict.fromkeys(data["unknown"]))

    @property
    def address(self) -> str:
        """URL below which the repository's files lie at the commit."""
        return f"https://raw.githubusercontent.com/{self.source}/{self.commit}"

    @property
    def size(self) -> int:
        """Bytes of all files whose size is known and that can be fetched."""
        return sum(entry.size for entry in self.files.values())

    def __contains__(self, path: str) -> bool:
        return path in self.files or path in self.stand_ins or path in self.unknown

    def is_intact(self, path: str, file: Path) -> bool:
        """True if ``file`` has the content expected at ``path``; of an unlisted file, if its format is right."""
        entry = self.files.get(path) or self.stand_ins.get(path)
        if entry is not None:
            return file.stat().st_size == entry.size and entry.matches(file.read_bytes())
        with file.open("rb") as opened:
            return opened.read(16).startswith(_BEGINNINGS[Path(path).suffix])


MANIFEST = Manifest.read(files("vlaser_gym.envs.assets").joinpath("manifest.json").read_text())
