"""Environment snapshots as plain values that ``torch.load(..., weights_only=True)`` reads: no code in the file runs."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from vlaser_gym.errors import StorageError

_KIND = "__kind__"


def pack(value: Any) -> Any:  # noqa: PLR0911  (one per kind)
    """Nested containers, arrays, generators and this package's records -> dicts, lists, numbers and tensors.

    Raises:
        TypeError: for anything else.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return pack(value.item())
    if isinstance(value, np.ndarray):
        data = torch.frombuffer(bytearray(value.tobytes()), dtype=torch.uint8) if value.size else torch.empty(0)
        return {_KIND: "array", "data": data, "dtype": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, np.random.Generator):
        return {_KIND: "generator", "state": json.dumps(value.bit_generator.state)}
    if isinstance(value, Mapping):
        return {_KIND: "dict", "keys": [pack(k) for k in value], "values": [pack(v) for v in value.values()]}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _record(value, value._asdict())
    if isinstance(value, list | tuple | deque):
        return {_KIND: "tuple" if isinstance(value, tuple) else "list", "values": [pack(entry) for entry in value]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _record(value, {field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    raise TypeError(f"A snapshot cannot hold {type(value).__name__}.")


def _record(value: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    kind = f"{type(value).__module__}:{type(value).__qualname__}"
    return {_KIND: "record", "type": kind, "fields": {name: pack(field) for name, field in fields.items()}}


def unpack(value: Any) -> Any:
    """The inverse of :func:`pack`.

    Raises:
        StorageError: for a record that is not of this package.
    """
    if not isinstance(value, dict):
        return value
    kind = value[_KIND]
    if kind == "array":
        raw = bytes(value["data"].to(torch.uint8).numpy())
        return np.frombuffer(raw, np.dtype(value["dtype"])).reshape(value["shape"]).copy()
    if kind == "generator":
        state = json.loads(value["state"])
        bits = getattr(np.random, state["bit_generator"])()
        bits.state = state
        return np.random.Generator(bits)
    if kind == "dict":
        return {unpack(k): unpack(v) for k, v in zip(value["keys"], value["values"], strict=True)}
    if kind == "record":
        return _type(value["type"])(**{name: unpack(field) for name, field in value["fields"].items()})
    entries = [unpack(entry) for entry in value["values"]]
    return tuple(entries) if kind == "tuple" else entries


def _type(name: str) -> Any:
    module, _, qualified = name.partition(":")
    found: Any = None
    if module.startswith("vlaser_gym."):
        found = getattr(importlib.import_module(module), qualified, None)
    if not (isinstance(found, type) and (dataclasses.is_dataclass(found) or hasattr(found, "_asdict"))):
        raise StorageError(f"A snapshot holds records of this gym only; got {name}. The file is damaged.")
    return found
