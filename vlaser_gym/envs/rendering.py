"""Pictures of recorded states, whoever simulated them.

States are stored by name, so that any engine's can be shown. The built-in engine draws them all; callers need not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from vlaser_gym.envs.engines.mujoco.rendering import SceneRenderer

__all__ = ["SceneRenderer", "drawn_states"]

T = TypeVar("T")


def drawn_states(states: Mapping[str, T]) -> dict[str, T]:
    """Those of an episode's arrays that a picture shows."""
    prefixes = ("object/", "joint/")
    return {name: v for name, v in states.items() if name in ("qpos", "base_pose") or name.startswith(prefixes)}
