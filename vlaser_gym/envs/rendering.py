"""Images of recorded states, whoever simulated them.

States are stored by name, so that any engine's can be shown. The built-in engine draws them all; callers need not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlaser_gym.envs.assets import AssetPack
from vlaser_gym.envs.engines import check_engine
from vlaser_gym.envs.engines.maniskill.rendering import SapienRenderer
from vlaser_gym.envs.engines.mujoco.rendering import SceneRenderer
from vlaser_gym.envs.engines.mujoco.views import find_view, free_view, view_names
from vlaser_gym.envs.engines.simpler.rendering import SimplerRenderer
from vlaser_gym.errors import MissingAssetError, UnknownNameError

__all__ = [
    "PICTURE_ENGINES",
    "SceneRenderer",
    "StateRenderer",
    "drawn_states",
    "find_view",
    "free_view",
    "original_renderer",
    "shown_look",
    "view_names",
]

T = TypeVar("T")


class StateRenderer(Protocol):
    """Draws a task's states in the look ``original``."""

    def frame(self, task: str, variant: str, state: Mapping[str, ArrayLike]) -> NDArray[np.uint8]:
        """``[H, W, 3]`` image."""

    def foreground(self, task: str, variant: str, state: Mapping[str, ArrayLike]) -> NDArray[np.bool_]:
        """``[H, W]``: where the image shows robot, objects or cabinet, not the photograph."""

    def close(self) -> None:
        """Terminate the render processes."""


#: Engines whose look ``original`` can be compared with recorded images.
PICTURE_ENGINES = ("mujoco", "maniskill", "simpler")


def original_renderer(engine: str, options: Mapping[str, Any] | None = None) -> StateRenderer:
    """Draws as one of :data:`PICTURE_ENGINES` does in the look ``original``.

    Args:
        engine: its name.
        options: the engine's; of ``mujoco`` and ``maniskill`` only ``assets`` counts.

    Raises:
        MissingAssetError: if the asset pack is missing.
        UnknownNameError: for another engine.
    """
    if engine not in PICTURE_ENGINES:
        raise UnknownNameError("engine with images to compare", engine, PICTURE_ENGINES)
    options = options or {}
    if engine == "simpler":
        return SimplerRenderer(options)
    assets = options.get("assets")
    return SapienRenderer(assets) if engine == "maniskill" else SceneRenderer("original", processes=1, assets=assets)


def drawn_states(states: Mapping[str, T]) -> dict[str, T]:
    """Names of the episode's arrays that an image shows."""
    prefixes = ("object/", "joint/")
    return {name: v for name, v in states.items() if name in ("qpos", "base_pose") or name.startswith(prefixes)}


def shown_look(look: str, assets: str | None = None) -> str:
    """The look in which a state simulated in ``look`` can be shown here: itself, or the built-in one.

    ``assets`` is the directory of the asset pack; None for the user's cache.
    """
    try:
        if check_engine("mujoco", look) != "builtin":
            AssetPack(assets)
    except (UnknownNameError, MissingAssetError):
        return "builtin"
    return look
