"""Checksums that a reader compares, so that a flipped bit is an error and no number."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

#: Key of the checksum in a safetensors file's metadata.
CHECKSUM_KEY = "sha256"


def digest_of(parts: Mapping[str, Callable[[], tuple[str, Any]]]) -> str:
    """SHA-256 over named arrays, whatever their order; of several at a time, one per core.

    Args:
        parts: by name, what gives a description (dtype and shape) and the bytes.
    """

    def line(name: str) -> str:
        description, data = parts[name]()
        return f"{name} {description} {hashlib.sha256(data).hexdigest()}\n"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        lines = pool.map(line, sorted(parts))
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def digest_of_files(files: Mapping[str, Path]) -> str:
    """SHA-256 over the names and contents of files; one that is absent counts as that."""

    def line(name: str) -> str:
        try:
            with files[name].open("rb") as opened:
                return f"{name} {hashlib.file_digest(opened, 'sha256').hexdigest()}\n"
        except FileNotFoundError:
            return f"{name} absent\n"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return hashlib.sha256("".join(pool.map(line, sorted(files))).encode()).hexdigest()


def damaged_member(archive: Path) -> str | None:
    """The first part of an archive that is not as it was written; ``None`` if all are, or the file is no zip archive.

    torch writes zip archives with checksums and does not compare them when it reads.
    """
    if not zipfile.is_zipfile(archive):
        return None
    with zipfile.ZipFile(archive) as opened:
        return opened.testzip()
