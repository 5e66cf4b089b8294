"""NumPy's ``.npz`` archives, written and read in a fraction of the time that NumPy's own functions take.

An episode has a dozen small arrays, for which those spend most of their time on composing and parsing headers. The
format is the same: ``numpy.load`` reads what is written here, and what ``numpy.savez`` and ``numpy.savez_compressed``
have written is read here.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Container, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray


def pack_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """An archive of named arrays; the same arrays give the same bytes.

    Numbers are not compressed: that takes longer than everything else about storing. Text is: what a robot is told is
    the same sentence at almost every step.

    Raises:
        ValueError: for arrays of Python objects.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, values in arrays.items():
            if values.dtype.hasobject:
                raise ValueError(f"{name} holds Python objects; expected numbers or text.")
            # Without a time of its own an entry is as old as the format: nothing depends on the clock.
            entry = zipfile.ZipInfo(f"{name}.npy")
            method = zipfile.ZIP_DEFLATED if values.dtype.kind == "U" else zipfile.ZIP_STORED
            archive.writestr(entry, _header(values.dtype, values.shape) + values.tobytes(), method)
    return buffer.getvalue()


def read_arrays(file: Path, names: Container[str] | None = None) -> dict[str, NDArray[Any]]:
    """The arrays of an archive, those of ``names`` that there are or all.

    Raises:
        OSError, ValueError, zipfile.BadZipFile: if the file is missing or damaged.
    """
    with zipfile.ZipFile(file) as archive:
        entries = [(entry.removesuffix(".npy"), entry) for entry in archive.namelist()]
        return {name: _array(archive.read(entry)) for name, entry in entries if names is None or name in names}


@lru_cache(maxsize=1024)
def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    described = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(buffer, described)
    return buffer.getvalue()


def _array(data: bytes) -> NDArray[Any]:
    if data[:8] != npy.magic(1, 0):
        return np.asarray(npy.read_array(io.BytesIO(data), allow_pickle=False))
    end = 10 + int.from_bytes(data[8:10], "little")
    shape, in_columns, dtype = _parsed(data[8:end])
    return np.frombuffer(data, dtype, offset=end).reshape(shape, order="F" if in_columns else "C").copy()


@lru_cache(maxsize=1024)
def _parsed(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    shape, in_columns, dtype = npy.read_array_header_1_0(io.BytesIO(header))
    return shape, in_columns, dtype
