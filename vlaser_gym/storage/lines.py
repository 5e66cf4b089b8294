"""Files of JSON lines: they grow by whole lines, and a line that was cut is forgotten."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vlaser_gym.errors import StorageError

#: What helps against a line that is not as it was written.
_REMEDY = "restore the line, or take it out and let the command that wrote it repeat what is missing"


def line_of(entry: Mapping[str, Any]) -> bytes:
    """An entry as a line of JSON."""
    return (json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n").encode()


def append_line(file: io.FileIO, entry: Mapping[str, Any]) -> None:
    """Append one line, in as few writes as the system allows."""
    data = line_of(entry)
    while data:
        data = data[os.write(file.fileno(), data) :]


def drop_cut_line(file: Path) -> None:
    """Forget a last line that was not written to its end."""
    if not file.exists():
        return
    data = file.read_bytes()
    end = data.rfind(b"\n") + 1
    if end and parse_object(data[data.rfind(b"\n", 0, end - 1) + 1 : end]) is None:
        end = data.rfind(b"\n", 0, end - 1) + 1
    if end < len(data):
        os.truncate(file, end)


def parse_object(data: bytes) -> dict[str, Any] | None:
    """A JSON object; ``None`` for anything else, and for one in which a name stands twice."""
    try:
        entry = json.loads(data.decode(), object_pairs_hook=_once)
    except (ValueError, RecursionError):  # nested so deeply that nobody has written it
        return None
    return entry if isinstance(entry, dict) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, whose names must differ: of two equal ones the second would silently win."""
    entry = dict(pairs)
    if len(entry) < len(pairs):
        raise ValueError("a name stands twice")
    return entry


def read_lines(file: Path, check: Callable[[dict[str, Any]], None]) -> list[dict[str, Any]]:
    """Entries of a file of JSON lines; a last line that was not written to its end is left out.

    Args:
        file: an absent one holds nothing.
        check: raises a :class:`ValueError` with a phrase for an entry that is not what it should be.

    Raises:
        StorageError: for any other line that is damaged, with its number.
    """
    if not file.exists():
        return []
    complete = file.read_bytes().split(b"\n")[:-1]
    entries = [parse_object(line) for line in complete]
    if entries and entries[-1] is None:
        entries.pop()
    found = []
    for number, entry in enumerate(entries, 1):
        try:
            if entry is None:
                raise ValueError("expected a JSON object whose names differ")
            check(entry)
        except ValueError as error:
            raise StorageError(f"Line {number} of {file} is damaged: {error}; {_REMEDY}.") from error
        found.append(entry)
    return found
