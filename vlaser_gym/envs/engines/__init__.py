"""Engines: who simulates a scene. Each is imported only when it is asked for."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

from vlaser_gym.envs.engines.base import ActingEngine, DrivenEngine, Engine, Placement, Reading, Verdict
from vlaser_gym.errors import UnknownNameError

#: Engine name -> (class, looks); the first look is the one that is meant where none is named.
_ENGINES: dict[str, tuple[str, tuple[str, ...]]] = {
    "mujoco": ("vlaser_gym.envs.engines.mujoco.engine:MujocoEngine", ("builtin", "original")),
    "maniskill": ("vlaser_gym.envs.engines.maniskill.engine:ManiskillEngine", ("original",)),
    "simpler": ("vlaser_gym.envs.engines.simpler.engine:SimplerEngine", ("original",)),
}

__all__ = [
    "ActingEngine",
    "DrivenEngine",
    "Engine",
    "Placement",
    "Reading",
    "Verdict",
    "check_engine",
    "engine_names",
    "make_engine",
]


def engine_names() -> tuple[str, ...]:
    """Names that :func:`make_engine` takes."""
    return tuple(_ENGINES)


def check_engine(name: str, look: str | None = None) -> str:
    """Complain about an unknown engine or look before anything is built.

    Returns:
        The look; the engine's first where none is named.

    Raises:
        UnknownNameError: if the engine, or the look for that engine, does not exist.
    """
    if name not in _ENGINES:
        raise UnknownNameError("engine", name, _ENGINES)
    looks = _ENGINES[name][1]
    if look is not None and look not in looks:
        raise UnknownNameError(f"look of engine {name!r}", look, looks)
    return looks[0] if look is None else look


def make_engine(name: str, num_lanes: int, look: str | None = None, options: Mapping[str, Any] | None = None) -> Engine:
    """An engine with ``num_lanes`` lanes; ``options`` are its constructor's keyword arguments.

    Raises:
        UnknownNameError: if the engine, the look or an option does not exist.
    """
    look = check_engine(name, look)
    module, attribute = _ENGINES[name][0].split(":")
    constructor = getattr(import_module(module), attribute)
    valid = [key for key in inspect.signature(constructor).parameters if key not in ("num_lanes", "look")]
    for key in options or {}:
        if key not in valid:
            raise UnknownNameError(f"option of engine {name!r}", key, valid)
    return cast(Engine, constructor(num_lanes, look=look, **(options or {})))
