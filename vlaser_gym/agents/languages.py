"""Protocols between policy servers and their clients: openpi's (:mod:`.wire`) and vla-eval's.

vla-eval's messages are mappings ``type``, ``payload``, ``seq`` and ``timestamp`` in msgpack. The asking side greets
first (``hello``) and is told what the server gives and reads; ``episode_start`` and ``episode_end`` have no answer; an
``observation`` is answered by one ``action`` or by an ``error`` with the same number (protocol: vla-eval 0.8.0,
``vla_eval/protocol``, ``vla_eval/model_servers/serve.py`` and ``vla_eval/connection.py``).
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from PIL import Image

from vlaser_gym import __version__
from vlaser_gym.agents.wire import array_of, keys_of, one_line, pack, unpack
from vlaser_gym.conventions.vla_eval import convention_of
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.robots import is_image
from vlaser_gym.errors import RemoteError, UnknownNameError

#: vla-eval's number for the version of its protocol.
PROTOCOL_VERSION = 1
#: Pixels of all images of a message that are decoded.
_MOST_PIXELS = 4096 * 4096
_MESSAGE = ("type", "payload", "seq")
#: Entries of vla-eval's observations, images below ``images``; as SimplerEnv has them there. ``privileged`` is ours.
VLA_EVAL_KEYS: Mapping[str, str] = {
    "image": "images/primary",
    "proprio": "states",
    "instruction": "task_description",
    "state": "privileged",
    "address": "address",
    "reset": "reset",
}


class ServerError(RemoteError):
    """An error that a server reports."""


class Language(Protocol):
    """The client side of a protocol.

    Attributes:
        name: what ``protocol=`` calls it.
        title: whose it is, in sentences.
        greeting: what the asking side says first, if it is the one who begins.
    """

    name: str
    title: str
    greeting: bytes | None

    def keys(self, observes: tuple[str, ...]) -> dict[str, str]:
        """The names of observations in messages."""

    def metadata(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """A server's first message, in openpi's and our words: ``agent``, ``observes``, ``convention`` ..."""

    def convention(self, metadata: Mapping[str, Any]) -> Any:
        """The convention that a server declares; ``None`` without one.

        Raises:
            InvalidConfigError: if what it says is not enough to execute them.
        """

    def questions(self, seen: Mapping[str, Any], keys: Mapping[str, str], address: Address | None) -> list[bytes]:
        """The messages of one decision.

        Args:
            seen: observations by their own names.
            keys: what they are called in messages.
            address: of the episode that begins with this decision; ``None`` if none does.
        """

    def read(self, data: bytes) -> dict[str, Any]:
        """A message of a server.

        Raises:
            RemoteError: for what is none, and for what the server says went wrong.
        """


class Openpi:
    """openpi's protocol; see :class:`Language`."""

    name, title = "openpi", "openpi's"
    greeting: bytes | None = None

    def keys(self, observes: tuple[str, ...]) -> dict[str, str]:
        """See :class:`Language`; an address is sent only where it is given a name."""
        return {name: key for name, key in keys_of(observes).items() if name not in ("address", "reset")}

    def metadata(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """See :class:`Language`."""
        return dict(message)

    def convention(self, metadata: Mapping[str, Any]) -> Any:
        """See :class:`Language`."""
        return metadata.get("convention")

    def questions(self, seen: Mapping[str, Any], keys: Mapping[str, str], address: Address | None) -> list[bytes]:
        """See :class:`Language`."""
        message = {keys[name]: value for name, value in seen.items()}
        if address is not None and "address" in keys:
            message[keys["address"]] = str(address)
        return [pack(message)]

    def read(self, data: bytes) -> dict[str, Any]:
        """See :class:`Language`."""
        return unpack(data)


class VlaEval:
    """vla-eval's protocol; see :class:`Language`."""

    name, title = "vla_eval", "vla-eval's"
    greeting: bytes | None

    def __init__(self) -> None:
        self._number = 1
        self.greeting = write("hello", hello(), 1)

    def keys(self, observes: tuple[str, ...]) -> dict[str, str]:
        """See :class:`Language`."""
        return vla_eval_keys(observes)

    def metadata(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """See :class:`Language`."""
        agent, reads = str(message.get("model_server", "")), message.get("observation_spec")
        told = {key: message[key] for key in ("vlaser_gym", "agent_settings", "convention") if key in message}
        if "observes" in message:
            told["observes"] = message["observes"]
        elif isinstance(reads, Mapping) and reads:
            wants_state = "state" in reads or _mapping(message.get("observation_params")).get("send_state")
            wanted = {"proprio": wants_state, "instruction": "language" in reads, "state": "privileged" in reads}
            told["observes"] = ["image", *(name for name, is_wanted in wanted.items() if is_wanted)]
        return {"agent": agent, "agent_settings": {}, "action_spec": _mapping(message.get("action_spec")), **told}

    def convention(self, metadata: Mapping[str, Any]) -> Any:
        """See :class:`Language`; of a server of this gym it is exact."""
        if "vlaser_gym" in metadata:
            return metadata.get("convention")
        return convention_of(metadata["action_spec"], metadata["agent"] or "the server")

    def questions(self, seen: Mapping[str, Any], keys: Mapping[str, str], address: Address | None) -> list[bytes]:
        """See :class:`Language`."""
        said = []
        if address is not None:
            said.append(write("episode_start", {"task": task_of(address)}, self._next()))
        return [*said, write("observation", nested(seen, keys), self._next())]

    def read(self, data: bytes) -> dict[str, Any]:
        """See :class:`Language`; one action counts as a chunk of one."""
        kind, payload, _ = read(data)
        if kind == "error":
            raise ServerError(one_line(payload.get("error", payload)))
        if kind not in ("action", "hello"):
            raise RemoteError(f"Expected an action; got a message {one_line(kind)!r}.")
        return {key: _chunk(value) if key.startswith("action") else value for key, value in payload.items()}

    def _next(self) -> int:
        self._number += 1
        return self._number


def language(name: str) -> Language:
    """Language of a protocol, by the name that ``protocol=`` has.

    Raises:
        UnknownNameError: for another name.
    """
    known = {kind.name: kind for kind in (Openpi, VlaEval)}
    if name not in known:
        raise UnknownNameError("protocol", name, known)
    return known[name]()


# ---------------------------------------------------------------------- vla-eval's messages


def vla_eval_keys(observes: tuple[str, ...]) -> dict[str, str]:
    """:data:`VLA_EVAL_KEYS`, and those of the other cameras' images among some observations."""
    cameras = {name: f"images/{name.removesuffix('_image')}" for name in observes if is_image(name)}
    return {**cameras, **VLA_EVAL_KEYS}


def hello(**told: Any) -> dict[str, Any]:
    """The first message of both sides."""
    return {"harness_version": f"vlaser-gym {__version__}", "protocol_version": PROTOCOL_VERSION, **told}


def task_of(address: Address) -> dict[str, Any]:
    """An episode as vla-eval describes tasks; ``episode_idx`` is SimplerEnv's number of the layout."""
    return {"name": address.task, "episode_idx": address.layout_index, "address": str(address)}


def write(kind: str, payload: Mapping[str, Any], number: int) -> bytes:
    """Encode a message as bytes."""
    return pack({"type": kind, "payload": _written(payload), "seq": number, "timestamp": time.time()})


def read(data: bytes | str) -> tuple[str, dict[str, Any], int]:
    """Type, payload and number of a message.

    Raises:
        RemoteError: for anything else.
    """
    message = unpack(data, _Decoder(), "vla-eval's messages")
    kind, payload, number = (message.get(key) for key in _MESSAGE)
    if not isinstance(kind, str) or not isinstance(payload, dict) or not isinstance(number, int):
        raise RemoteError(
            f"Expected a message of vla-eval ({', '.join(_MESSAGE)}); got {', '.join(map(str, message))[:200]}."
        )
    return kind, payload, number


def nested(seen: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
    """An observation of vla-eval: images are entries of ``images``."""
    message: dict[str, Any] = {}
    for name, value in seen.items():
        outer, _, inner = keys[name].partition("/")
        if inner:
            message.setdefault(outer, {})[inner] = value
        else:
            message[outer] = value
    return message


def flat(payload: Mapping[str, Any], main: str) -> dict[str, Any]:
    """The inverse of :func:`nested`; ``main`` is the only image, whatever it is called there."""
    images = _mapping(payload.get("images"))
    message = {**payload, **{f"images/{name}": image for name, image in images.items()}}
    if main not in message and images:
        message[main] = next(iter(images.values()))
    return message


def _chunk(value: Any) -> Any:
    """One action as a chunk of one; whatever else it is, as it is."""
    return value[None] if isinstance(value, np.ndarray) and value.ndim == 1 else value


def _written(value: Any) -> Any:
    """Arrays as vla-eval has them, whose names are text where openpi's are bytes."""
    if isinstance(value, Mapping):
        return {key: _written(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return {"__ndarray__": True, "data": value.tobytes(), "dtype": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, list | tuple):
        return [_written(entry) for entry in value]
    return value.item() if isinstance(value, np.generic) else value


class _Decoder:
    """Makes arrays of a message's mappings; all its images together have so many pixels at most."""

    def __init__(self) -> None:
        self._pixels = _MOST_PIXELS

    def __call__(self, value: dict[Any, Any]) -> Any:
        if "__image__" in value and value.get("format") != "raw":
            # A small file may hold a large image: its header is looked at before it is decoded.
            with Image.open(io.BytesIO(value["data"]), formats=("PNG", "JPEG")) as image:
                self._pixels -= image.width * image.height
                if self._pixels < 0:
                    raise ValueError(f"images of more than {_MOST_PIXELS} pixels")
                return np.array(image)
        if "__ndarray__" in value or "__image__" in value:
            return array_of({key.encode(): entry for key, entry in value.items() if isinstance(key, str)})
        return value


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
