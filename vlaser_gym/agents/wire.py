"""The messages of the openpi WebSocket protocol: msgpack with numpy arrays.

A server sends one message with metadata when a client connects; then every observation, a mapping, is answered by a
mapping with ``actions``. A text message instead of a binary one is an error, after which the server hangs up (protocol:
openpi, ``src/openpi/serving/websocket_policy_server.py`` and ``openpi_client/msgpack_numpy.py``).

Arrays travel as mappings with the byte-string keys ``__ndarray__``, ``data``, ``dtype`` and ``shape``, numpy scalars
with ``__npgeneric__``, ``data`` and ``dtype``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

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
#: What further images are called, by the observation's name: openpi's ``observation/wrist_image``.
_OTHER_IMAGES = "observation/{}"
#: Numbers and truth values that may travel, by the names that numpy gives them in either byte order.
_NUMBERS: Mapping[str, np.dtype[Any]] = {
    name: dtype
    for code in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
    for dtype in (np.dtype(f"<{code}"), np.dtype(f">{code}"))
    for name in (dtype.str, dtype.name, code)
    if np.dtype(name) == dtype
}
#: Text of a fixed length may travel too. Objects would have to be pickled, which runs code.
_TEXT = re.compile(r"[<>|]?[SU]([0-9]{1,5})")
#: Bounds of a message: entries in all, containers within containers, bytes of a text, dimensions of an array.
MOST_ITEMS, DEEPEST, LONGEST_TEXT, MOST_DIMENSIONS = 16_384, 16, 65_536, 8


def keys_of(observes: Iterable[str]) -> dict[str, str]:
    """:data:`KEYS`, and those of the other cameras' images among some observations."""
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


def unpack(
    data: bytes | str,
    decode: Callable[[dict[Any, Any]], Any] | None = None,
    what: str = "msgpack with openpi's numpy extension",
) -> dict[str, Any]:
    """The mapping in a binary message; its arrays are read-only.

    Args:
        data: the message.
        decode: makes arrays of mappings; by default as openpi has them.
        what: is expected, for errors.

    Raises:
        RemoteError: for text, for anything that is no msgpack, for arrays whose data do not fill their shape, and for
            anything but a mapping.
    """
    if isinstance(data, str):
        raise RemoteError(f"Expected a binary message (msgpack); got text of {len(data)} characters.")
    try:
        _check_bounds(data)
        message = msgpack.unpackb(data, object_hook=decode or _decode)
    # Whatever a stranger's bytes can cause, and msgpack and numpy raise many kinds, is a malformed message.
    except Exception as error:
        raise RemoteError(
            f"Expected {what}; cannot read these {len(data)} bytes ({one_line(error) or type(error).__name__})."
        ) from error
    if not isinstance(message, dict):
        raise RemoteError(f"Expected a mapping; got {type(message).__name__}.")
    return message


def _headers() -> Iterator[tuple[str, int, int]]:
    """Each byte that an entry can begin with: its kind, how many bytes of length follow, and a length given in it.

    As msgpack's specification has them; extensions have no place in openpi's protocol.
    """
    yield from [("value", 0, 0)] * 0x80  # whole numbers from 0 on
    yield from (("map", 0, length) for length in range(16))
    yield from (("list", 0, length) for length in range(16))
    yield from (("text", 0, length) for length in range(32))
    yield from [("value", 0, 0), ("none", 0, 0), ("value", 0, 0), ("value", 0, 0)]  # nil, never used, truth values
    yield from [("bytes", 1, 0), ("bytes", 2, 0), ("bytes", 4, 0)]
    yield from [("none", 0, 0)] * 3
    yield from (("value", 0, length) for length in (4, 8, 1, 2, 4, 8, 1, 2, 4, 8))  # floats, unsigned, signed
    yield from [("none", 0, 0)] * 5
    yield from [("text", 1, 0), ("text", 2, 0), ("text", 4, 0), ("list", 2, 0), ("list", 4, 0), ("map", 2, 0)]
    yield from [("map", 4, 0)]
    yield from [("value", 0, 0)] * 0x20  # whole numbers below 0


_HEADERS = tuple(_headers())


def _short_length(kind: str, width: int, length: int) -> int:
    """The size of an entry by its first byte alone: its bytes; for a container, ``~`` its entries.

    0 where more has to be read.
    """
    if width or kind == "none":
        return 0
    return {"map": ~(2 * length), "list": ~length}.get(kind, 1 + length)


_SHORT_LENGTHS = tuple(_short_length(*header) for header in _HEADERS)
_SHORT_BYTES = _HEADERS.index(("bytes", 1, 0))


def _check_bounds(data: bytes) -> None:
    """Walk over the headers of a message's entries: what it makes of memory and time is known before it is read.

    Msgpack's own limits are on each container, and containers within containers multiply. Every message is walked:
    what good ones are made of, numbers, short texts, short bytes and small containers, goes first.

    Raises:
        ValueError: for a message beyond its bounds, cut short, or with something after its end.
    """
    left, outer, items, place = 1, list[int](), 0, 0  # entries to come of this container, and of those around it
    try:
        while True:
            while left:
                left -= 1
                first = data[place]
                length = _SHORT_LENGTHS[first]
                if length > 0:
                    place += length
                    continue
                if first == _SHORT_BYTES:
                    place += 2 + data[place + 1]
                    continue
                place, entries = _long_entry(data, place) if not length else (place + 1, ~length)
                if entries < 0:
                    continue
                outer.append(left)
                left, items = entries, items + entries
                if items > MOST_ITEMS or len(outer) > DEEPEST:
                    raise ValueError(f"more than {MOST_ITEMS} entries, or more than {DEEPEST} containers in each other")
            if not outer:
                break
            left = outer.pop()
    except IndexError:
        place = len(data) + 1
    if place != len(data):
        raise ValueError("it is cut short" if place > len(data) else f"the entries end at byte {place} of {len(data)}")


def _long_entry(data: bytes, place: int) -> tuple[int, int]:
    """The start of a container's entries and their number, or the end of another entry and -1."""
    kind, width, length = _HEADERS[data[place]]
    place += 1
    if width:
        length = int.from_bytes(data[place : place + width])
        place += width
    if kind in {"map", "list"}:
        return place, 2 * length if kind == "map" else length
    if kind == "none":
        raise ValueError(f"no entry can begin at byte {place - 1}")
    if kind == "text" and length > LONGEST_TEXT:
        raise ValueError(f"a text of more than {LONGEST_TEXT} bytes")
    return place + length, -1


def one_line(text: object, most: int = 300) -> str:
    """The last line with text in it, shortened: where tracebacks say what happened.

    What would steer a terminal, or turn the direction of writing, is escaped: the text may be a stranger's.
    """
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    return printable(lines[-1][:most])[:most] if lines else ""


def printable(text: str) -> str:
    r"""A text with every character that is not for print escaped.

    Example:
        >>> printable("no GPU\x1b[2J")
        'no GPU\\x1b[2J'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        _dtype(value.dtype.str)
    if isinstance(value, np.ndarray):
        entries = {"data": value.tobytes(), "dtype": value.dtype.str, "shape": value.shape}
        return {b"__ndarray__": True, **{name.encode(): entry for name, entry in entries.items()}}
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"a {type(value).__name__} has no place in the protocol")


def _decode(value: dict[Any, Any]) -> Any:
    if b"__ndarray__" in value:
        return array_of(value)
    if b"__npgeneric__" not in value:
        return value
    dtype, data = _dtype(value[b"dtype"]), value[b"data"]
    kinds: dict[str, tuple[type, ...]] = {"b": (bool,), "f": (int, float), "U": (str,), "S": (bytes,)}
    # From a number numpy would make a text of that many zeros.
    if not isinstance(data, kinds.get(dtype.kind, (int,))) or (isinstance(data, bool) and dtype.kind != "b"):
        raise ValueError(f"a {type(data).__name__} is no scalar of {dtype}")
    return dtype.type(data)


def array_of(value: Mapping[Any, Any]) -> NDArray[Any]:
    """The array that a mapping with ``dtype``, ``shape`` and ``data`` describes, checked.

    Raises:
        ValueError: for objects, and for data that do not fill the shape.
    """
    dtype, shape, data = _dtype(value[b"dtype"]), value[b"shape"], value[b"data"]
    if not isinstance(shape, list) or len(shape) > MOST_DIMENSIONS or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"a shape is a list of up to {MOST_DIMENSIONS} whole numbers from 0 on")
    if not isinstance(data, bytes) or len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"the bytes of an array do not fill {dtype} {shape!r:.99}")
    return (np.frombuffer(data, dtype) if data else np.empty(0, dtype)).reshape(shape)


def _dtype(name: Any) -> np.dtype[Any]:
    """The type of that name, looked up: numpy's own reading of long and structured names takes minutes and memory."""
    if not isinstance(name, str):
        raise ValueError(f"the name of a type is text; got a {type(name).__name__}")
    if (known := _NUMBERS.get(name)) is not None:
        return known
    if not _TEXT.fullmatch(name):
        raise ValueError(f"arrays of {name[:40] or 'no type'} have no place in the protocol")
    return np.dtype(name)
