"""The messages between the main process and its workers; neither SAPIEN nor ManiSkill is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.envs.engines.base import Floats


class SceneKey(NamedTuple):
    """The inputs from which a scene is built."""

    task: str
    variant: str
    cast: str = ""


class Start(NamedTuple):
    """A state at rest, in which an episode begins or of which an image is made.

    Attributes:
        qpos: robot joints, ``[J]``, order of ``Robot.moving_joints``.
        object_pose: ``[n, 7]``, world, order of the cast.
        joints: scenery joints by name.
        base_pose: world pose of the robot's root link.
    """

    key: SceneKey
    qpos: Floats
    object_pose: Floats
    joints: Mapping[str, float]
    base_pose: tuple[float, ...]


class Targets(NamedTuple):
    """Drive targets of one control step, ``[S, J]``, each held for an equal share of it; no velocity means zero."""

    position: NDArray[np.float32]
    velocity: NDArray[np.float32] | None
