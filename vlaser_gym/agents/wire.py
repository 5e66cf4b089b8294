"""The messages of the openpi WebSocket protocol: msgpack with numpy arrays.

A server sends one message with metadata when a client connects; then every observation, a mapping, is answered by a
mapping with ``actions``. A text message instead of a binary one is an error, after which the server hangs up (protocol:
openpi, ``src/openpi/serving/websocket_policy_server.py`` and ``openpi_client/msgpack_numpy.py``).

Arrays travel as mappings with the byte-string keys ``__ndarray__``, ``data``, ``dtype`` and ``shape``, numpy scalars
with ``__npgeneric__``, ``data`` and ``dtype``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgpack
import numpy as np

from vlaser_gym.envs.robots import is_image
from vlaser_gym.errors import RemoteError

#: What an entry of an observation is called in a message: openpi's names for LIBERO, and two of this gym.
KEYS: Mapping[str, str] = {
    "image": "observation/image",
    "proprio": "observation/state",
    "instruction": "prompt",
    "state": "state",
    "address": "address",
    "reset": "reset",
}
#: What further pictures are called, by the observation's name: openpi's ``observation/wrist_image``.
_OTHER_IMAGES = "observation/{}"
#: Kinds of arrays that may travel: numbers, truth values, text. Objects would have to be pickled, which runs code.
_KINDS = "biufSU"


def keys_of(observes: Iterable[str]) -> dict[str, str]:
    """:data:`KEYS`, and those of the other cameras' pictures among some observations."""
    images = {name: _OTHER_IMAGES.format(name) for name in observes if is_image(name)}
    return {**images, **KEYS}


def pack(message: Any) -> bytes:
    """A message as bytes.

    Raises:
        RemoteError: for something that the protocol cannot carry.
    """
    try:
        return bytes(msgpack.packb(message, default=_encode))
    except (TypeError, ValueError, OverflowError) as error:
        raise RemoteError(f"This cannot be sent as msgpack: {error}.") from error


def unpack(data: bytes | str) -> dict[str, Any]:
    """The mapping in a binary message; its arrays are read-only.

    Raises:
        RemoteError: for text, for anything that is no msgpack, for arrays whose data do not fill their shape, and for
            anything but a mapping.
    """
    if isinstance(data, str):
        raise RemoteError(f"Expected a binary message (msgpack); got text of {len(data)} characters.")
    try:
        message = msgpack.unpackb(data, object_hook=_decode)
    # Whatever a stranger's bytes can cause, and msgpack and numpy raise many kinds, is a malformed message.
    except Exception as error:
        raise RemoteError(
            f"Expected msgpack with openpi's numpy extension; cannot read these {len(data)} bytes "
            f"({one_line(error) or type(error).__name__})."
        ) from error
    if not isinstance(message, dict):
        raise RemoteError(f"Expected a mapping; got {type(message).__name__}.")
    return message


def one_line(text: object, most: int = 300) -> str:
    """The last line with text in it, shortened: where tracebacks say what happened."""
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    return lines[-1][:most] if lines else ""


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in _KINDS:
        raise TypeError(f"arrays of {value.dtype} have no place in the protocol")
    if isinstance(value, np.ndarray):
        entries = {"data": value.tobytes(), "dtype": value.dtype.str, "shape": value.shape}
        return {b"__ndarray__": True, **{name.encode(): entry for name, entry in entries.items()}}
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"a {type(value).__name__} has no place in the protocol")


def _decode(value: dict[Any, Any]) -> Any:
    if b"__ndarray__" in value:
        shape = tuple(value[b"shape"])
        if any(type(n) is not int or n < 0 for n in shape):
            raise ValueError(f"a shape has whole numbers from 0 on, not {shape}")
        data = value[b"data"]
        return (np.frombuffer(data, _dtype(value)) if data else np.empty(0, _dtype(value))).reshape(shape)
    if b"__npgeneric__" in value:
        return _dtype(value).type(value[b"data"])
    return value


def _dtype(value: Mapping[Any, Any]) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(value[b"dtype"])
    if dtype.kind not in _KINDS:
        raise ValueError(f"arrays of {dtype} have no place in the protocol")
    return dtype
