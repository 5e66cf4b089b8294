"""Bringing assets onto this machine: over HTTP or from a directory, checked, resumable, each file atomically."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

from vlaser_gym.envs.assets.manifest import MANIFEST, Manifest
from vlaser_gym.errors import InvalidConfigError, MissingAssetError, StorageError

_BLOCK, _CONNECTIONS, _PATIENCE = 1 << 16, 8, 60.0
#: A file on its way has this ending, and its own name only when it is whole and right.
PARTIAL = ".part"

#: Writes a file's content to a path, which may hold the beginning of it from an earlier try.
Source = Callable[[str, Path], None]


@dataclass(frozen=True)
class Outcome:
    """The result for one file: ``"kept"`` (present and intact before), ``"new"``, or ``"failed"`` with the reason."""

    path: str
    state: str
    reason: str = ""


def over_http(address: str) -> Source:
    """Files below a URL. A broken download goes on where it stopped, if the server lets it.

    Raises:
        InvalidConfigError: if ``address`` is no URL of a web server.
    """
    if not is_web_address(address):
        raise InvalidConfigError(f"source must be a URL such as https://host/folder; got {address!r}.")

    def get(path: str, partial: Path) -> None:
        """Write a file of the server into ``partial``, after what that holds already.

        Raises:
            OSError, http.client.HTTPException: if it does not arrive whole.
        """
        begun = partial.stat().st_size if partial.exists() else 0
        request = Request(f"{address.rstrip('/')}/{quote(path)}")
        if begun:
            request.add_header("Range", f"bytes={begun}-")
        with urlopen(request, timeout=_PATIENCE) as answer:
            # A server that does not know ranges answers 200 with the whole file.
            with partial.open("ab" if answer.status == 206 else "wb") as out:
                shutil.copyfileobj(answer, out, _BLOCK)
            # A connection that is cut early is an end of file to the reader.
            expected = answer.headers.get("Content-Length")
            if expected is not None and answer.length:
                raise ConnectionError(f"{answer.length} of {expected} bytes did not arrive")

    return get


def is_web_address(address: str) -> bool:
    """True for ``http`` and ``https`` with a host: ``file:`` and others would read what is no server's."""
    try:
        parts = urlsplit(address)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets or a port that make no sense
        return False


def from_directory(directory: Path) -> Source:
    """Files below a directory."""

    def get(path: str, partial: Path) -> None:
        """Copy a file of the directory to ``partial``.

        Raises:
            OSError: if it is not there, or cannot be copied.
        """
        shutil.copyfile(directory / path, partial)

    return get


def transfer(target: Path, source: Source, paths: list[str], manifest: Manifest = MANIFEST) -> Iterator[Outcome]:
    """Bring ``paths`` into ``target``; files that are there and right are kept. Yields as files are done.

    Raises:
        StorageError: if ``target`` cannot be written.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"Cannot write to {target} ({error.strerror}); choose another directory=DIR.") from error
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        yield from pool.map(lambda path: _bring(target, source, path, manifest), paths)


def _bring(target: Path, source: Source, path: str, manifest: Manifest) -> Outcome:
    place = target / path
    if place.is_file() and manifest.is_intact(path, place):
        return Outcome(path, "kept")
    partial = place.with_name(place.name + PARTIAL)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        # A beginning that is as long as the file or longer cannot be continued.
        entry = manifest.files.get(path)
        if entry is not None and partial.exists() and partial.stat().st_size >= entry.size:
            partial.unlink()
        source(path, partial)
    except (OSError, HTTPException) as error:
        if isinstance(error, HTTPError) and error.code == 416:  # the beginning is longer than the file
            partial.unlink(missing_ok=True)
        return Outcome(path, "failed", f"{type(error).__name__}: {error}")
    if not manifest.is_intact(path, partial):
        partial.unlink()
        return Outcome(path, "failed", "its content is not what the list of checksums says; it was thrown away")
    os.replace(partial, place)
    return Outcome(path, "new")


def importable(directory: Path, manifest: Manifest = MANIFEST, unverified: bool = False) -> list[str]:
    """Paths to import from a directory: all known files, stand-ins where present, unknown files if asked for.

    Raises:
        MissingAssetError: if the directory holds none of them.
    """
    present = [path for path in manifest.stand_ins if (directory / path).is_file()]
    extra = [path for path in manifest.unknown if unverified and (directory / path).is_file()]
    if not any((directory / path).is_file() for path in manifest.files):
        raise MissingAssetError(
            f"{directory} holds none of the original's files: give the root of a ManiSkill2_real2sim copy, the folder "
            "that has data/ and mani_skill2_real2sim/ in it."
        )
    return [*manifest.files, *present, *extra]
