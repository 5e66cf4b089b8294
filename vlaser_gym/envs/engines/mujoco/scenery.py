"""What surrounds the objects: table, wall, floor, lights."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco

from vlaser_gym.envs.engines.mujoco.objects import add_collision, add_visual
from vlaser_gym.errors import UnknownNameError

#: Extent of the table top that carries objects (m), x and y: larger than what the robot reaches.
_TABLE_X, _TABLE_Y = (-0.8, 0.4), (-0.65, 0.95)
_TABLE_THICKNESS = 0.06


@dataclass(frozen=True)
class _Table:
    top: float


_SCENERIES = {"bridge_table": _Table(0.87), "bridge_sink": _Table(0.85)}


def add_scenery(spec: mujoco.MjSpec, scenery: str, look: str = "builtin") -> None:
    """Add a table to the world with everything behind it, and the lights.

    Raises:
        UnknownNameError: if there is no such scenery.
    """
    if scenery not in _SCENERIES:
        raise UnknownNameError("scenery", scenery, _SCENERIES)
    table = _SCENERIES[scenery]
    (x0, x1), (y0, y1) = _TABLE_X, _TABLE_Y
    box = {
        "type": mujoco.mjtGeom.mjGEOM_BOX,
        "pos": ((x0 + x1) / 2, (y0 + y1) / 2, table.top - _TABLE_THICKNESS / 2),
        "size": ((x1 - x0) / 2, (y1 - y0) / 2, _TABLE_THICKNESS / 2),
    }
    add_collision(spec.worldbody, "scene/table", **box)
    add_visual(spec.worldbody, "scene/visual_table", **box, rgba=(0.5, 0.25, 0.15, 1))
    _add_lights(spec)


def _add_lights(spec: mujoco.MjSpec) -> None:
    spec.visual.headlight.ambient = (0.4, 0.4, 0.4)
    spec.visual.headlight.diffuse = (0.2, 0.2, 0.2)
    spec.visual.headlight.specular = (0.0, 0.0, 0.0)
    spec.worldbody.add_light(
        name="scene/light",
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        pos=(0, 0, 3),
        dir=(0.2, -0.3, -1),
        diffuse=(0.6, 0.6, 0.6),
        specular=(0.1, 0.1, 0.1),
        castshadow=False,
    )
