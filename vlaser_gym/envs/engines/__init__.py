"""Engines: who simulates a scene. Each is imported only when it is asked for."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, cast

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.engines.base import ActingEngine, DrivenEngine, Engine, Placement, Reading, Verdict
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.errors import InvalidConfigError, UnknownNameError

#: Engine name -> (class, looks); the first look is the one that is meant where none is named.
_ENGINES: dict[str, tuple[str, tuple[str, ...]]] = {
    "mujoco": ("vlaser_gym.envs.engines.mujoco.engine:MujocoEngine", ("builtin", "original")),
    "maniskill": ("vlaser_gym.envs.engines.maniskill.engine:ManiskillEngine", ("original",)),
    "simpler": ("vlaser_gym.envs.engines.simpler.engine:SimplerEngine", ("original",)),
}

#: Engines that lack some of our episodes: what raises for (task, variant, layout) of those.
_EPISODES = {"simpler": "vlaser_gym.envs.engines.simpler.episodes:episode_of"}

__all__ = [
    "ActingEngine",
    "DrivenEngine",
    "Engine",
    "Placement",
    "Reading",
    "Verdict",
    "check_counts",
    "check_engine",
    "check_episodes",
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


def check_counts(engine: Mapping[str, Any]) -> None:
    """Look whether an engine's settings name possible numbers of threads and processes.

    Engines look at them only when they build what they count, and then not kindly.

    Raises:
        InvalidConfigError: with the first that is not.
    """
    for key, least in (("threads", 0), ("render_processes", 1), ("processes", 1)):
        value = engine.get(key, least)
        unset = value is None and key != "threads"
        if not unset and (type(value) is not int or value < least):
            raise InvalidConfigError(f"engine.{key} must be a whole number from {least} on; got {value!r}.")


def check_episodes(name: str, addresses: Iterable[Address]) -> None:
    """Complain about episodes that an engine does not have before anything is built.

    Raises:
        InvalidConfigError: for the first that it lacks.
    """
    if name not in _EPISODES:
        return
    find = _find(_EPISODES[name])
    for task, variant, layout in dict.fromkeys((a.task, a.variant, a.layout) for a in addresses):
        find(get_task(task), variant, layout)


def _find(place: str) -> Any:
    module, attribute = place.split(":")
    return getattr(import_module(module), attribute)


def make_engine(name: str, num_lanes: int, look: str | None = None, options: Mapping[str, Any] | None = None) -> Engine:
    """An engine with ``num_lanes`` lanes; ``options`` are its constructor's keyword arguments.

    Raises:
        UnknownNameError: if the engine, the look or an option does not exist.
    """
    look = check_engine(name, look)
    constructor = _find(_ENGINES[name][0])
    valid = [key for key in inspect.signature(constructor).parameters if key not in ("num_lanes", "look")]
    for key in options or {}:
        if key not in valid:
            raise UnknownNameError(f"option of engine {name!r}", key, valid)
    return cast(Engine, constructor(num_lanes, look=look, **(options or {})))
