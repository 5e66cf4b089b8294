"""TF examples from TFRecord files, without TensorFlow: only lists of bytes are read.

A record is its length (8 bytes, little endian), a checksum of that (4), the message, a checksum of that (4). A message
is a ``tf.train.Example``: field 1 features, in it entries of field 1 with key (1) and feature (2), in it bytes (1).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

_LENGTH_DELIMITED = 2


def read_examples(file: Path) -> Iterator[dict[str, list[bytes]]]:
    """The examples of a file: names of features to their bytes; features of numbers are left out.

    Raises:
        ValueError: if the file is cut or of another kind.
    """
    data = file.read_bytes()
    at = 0
    while at < len(data):
        if at + 12 > len(data):
            raise ValueError(f"{file.name} ends within a record")
        (length,) = struct.unpack_from("<Q", data, at)
        message = data[at + 12 : at + 12 + length]
        if len(message) != length:
            raise ValueError(f"{file.name} ends within a record, or is no TFRecord file")
        yield _example(message)
        at += 16 + length


def _example(message: bytes) -> dict[str, list[bytes]]:
    found = {}
    for features in _fields(message, 1):
        for entry in _fields(features, 1):
            name = next(_fields(entry, 1)).decode()
            for feature in _fields(entry, 2):
                for values in _fields(feature, 1):
                    found[name] = list(_fields(values, 1))
    return found


def _fields(message: bytes, wanted: int) -> Iterator[bytes]:
    """The contents of all length-delimited fields of one number in a protobuf message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == _LENGTH_DELIMITED:
            length, at = _varint(message, at)
            if number == wanted:
                yield message[at : at + length]
            at += length
        elif kind == 0:
            _, at = _varint(message, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError(f"unknown wire type {kind}")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
