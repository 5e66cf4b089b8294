"""Reading and writing what a trainer stores."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from vlaser_gym.errors import StorageError
from vlaser_gym.storage.checksums import damaged_member
from vlaser_gym.storage.files import appearing, temporary_for

#: What readers of torch and Stable-Baselines3 raise for a file that is cut, damaged or something else.
_DAMAGED = (
    *(OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError),
    *(OverflowError, MemoryError, ImportError, pickle.UnpicklingError, zipfile.BadZipFile),
)


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Inside, a damaged file is one sentence.

    Raises:
        StorageError: in place of what a reader raises for it.
    """
    try:
        yield
    except _DAMAGED as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise StorageError(
            f"{file} should hold the state of a training run, but cannot be read ({said}); put back a whole copy, such "
            f"as {file.name}.previous, or choose another run=."
        ) from error


def read_state(file: Path, check: bool = True) -> dict[str, Any]:
    """The state of a trainer; no code in the file runs.

    Args:
        file: that :func:`write_state` wrote.
        check: compare the checksums in it.

    Raises:
        StorageError: if it is damaged.
    """
    with reading(file):
        if check and (part := damaged_member(file)) is not None:
            raise ValueError(f"the checksum of {part} is another one")
        state = torch.load(file, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise ValueError(f"it holds a {type(state).__name__}")
    return state


def write_state(file: Path, state: dict[str, Any]) -> None:
    """Replace the state of a trainer, atomically; the one before stays as ``NAME.previous``."""
    # To a path, torch would write that path's own name into the file, and equal states would be unequal files.
    with appearing(file) as partial, partial.open("wb") as opened:
        torch.save(state, opened)
        if file.is_file():
            previous = file.with_name(f"{file.name}.previous")
            link = temporary_for(previous)
            os.link(file, link)
            link.replace(previous)
            # Where a death left both names to one file, renaming a third onto it does nothing (POSIX), and that stays.
            link.unlink(missing_ok=True)
