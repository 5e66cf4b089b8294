"""Pictures of recorded states, whoever simulated them.

States are stored by name, so that any engine's can be shown. The built-in engine draws them all; callers need not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from vlaser_gym.envs.assets import AssetPack
from vlaser_gym.envs.engines import check_engine
from vlaser_gym.envs.engines.mujoco.rendering import SceneRenderer
from vlaser_gym.errors import MissingAssetError, UnknownNameError

__all__ = ["SceneRenderer", "drawn_states", "shown_look"]

T = TypeVar("T")


def drawn_states(states: Mapping[str, T]) -> dict[str, T]:
    """Those of an episode's arrays that a picture shows."""
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
