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
from vlaser_gym.storage.files import appearing

#: What readers of torch and Stable-Baselines3 raise for a file that is cut, damaged or something else.
_DAMAGED = (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile)


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


def read_state(file: Path) -> dict[str, Any]:
    """The state of a trainer; no code in the file runs.

    Raises:
        StorageError: if it is damaged.
    """
    with reading(file):
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return state


def write_state(file: Path, state: dict[str, Any]) -> None:
    """Replace the state of a trainer, atomically; the one before stays as ``NAME.previous``."""
    with appearing(file) as partial:
        torch.save(state, partial)
        if file.is_file():
            previous = file.with_name(f"{file.name}.previous")
            previous.unlink(missing_ok=True)
            os.link(file, previous)
