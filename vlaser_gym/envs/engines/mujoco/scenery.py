"""What surrounds the objects: table, walls, floor, lights. Only the table's top touches anything."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np

from vlaser_gym.envs.engines.mujoco import meshes, textures
from vlaser_gym.envs.engines.mujoco.meshes import Surface
from vlaser_gym.envs.engines.mujoco.objects import add_collision, add_visual
from vlaser_gym.errors import UnknownNameError

#: Extent of the top that carries objects (mm), x and y. It is larger than what is seen: nothing falls within reach.
_TABLE_X, _TABLE_Y = (-800.0, 400.0), (-650.0, 950.0)
_TABLE_TOP = {"bridge_table": 870.0, "bridge_sink": 850.0}
_THICKNESS = 40.0


def add_scenery(spec: mujoco.MjSpec, scenery: str, look: str = "builtin") -> None:
    """Add a table to the world with everything behind it, and the lights.

    Raises:
        UnknownNameError: if there is no such scenery.
    """
    if scenery not in _TABLE_TOP:
        raise UnknownNameError("scenery", scenery, _TABLE_TOP)
    top = _TABLE_TOP[scenery]
    corners = np.array([_TABLE_X, _TABLE_Y, (top - _THICKNESS, top)]).T * meshes.MILLIMETRE
    size = (corners[1] - corners[0]) / 2
    add_collision(spec.worldbody, "scene/table", type=mujoco.mjtGeom.mjGEOM_BOX, pos=corners.mean(0), size=size)
    (_add_office if scenery == "bridge_table" else _add_kitchen)(spec)
    _add_sky(spec)
    _add_lights(spec)


def _add(spec: mujoco.MjSpec, part: str, surface: Surface, image: Callable[[], textures.Image]) -> None:
    name = f"scene/visual_{part}"
    mesh = meshes.add_faceted(spec, name, surface)
    material = textures.add_material(spec, name, image(), specular=0.05)
    add_visual(spec.worldbody, name, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=mesh, material=material)


def _add_office(spec: mujoco.MjSpec) -> None:
    """A wooden desk in the corner of two partitions covered with cloth."""
    outline = [(6, 826), (0, 832), (0, 862), (3, 868), (8, 870)]
    desk = [meshes.rounded_rectangle((-345 + i, 30 - i), (-295 + i, 950 - i), z, (25, 25, 25, 25)) for i, z in outline]
    _add(spec, "desk", meshes.mapped(meshes.lofted(np.array(desk)), (1, 0), 0.55), _mahogany)
    back = meshes.box((-370, -350), (-320, 1500), (300, 2200))
    side = meshes.box((-350, 900), (-320, -300), (300, 2200))
    _add(spec, "partition_back", meshes.mapped(back, (1, 2), 0.25), _grey_cloth)
    _add(spec, "partition_side", meshes.mapped(side, (0, 2), 0.25), _blue_cloth)
    stand = meshes.box((60, 240), (-80, 136), (0, 869.5))
    carpet = meshes.box((-2500, 2500), (-2500, 2500), (-20, 0))
    _add(spec, "stand", meshes.mapped(stand, (1, 2), 0.5), _dark)
    _add(spec, "carpet", meshes.mapped(carpet, (0, 1), 1.0), _dark)


def _add_kitchen(spec: mujoco.MjSpec) -> None:
    """A toy kitchen: pine worktop, plinth of the sink, a navy cupboard and a tap behind it, tiled walls."""
    worktop = meshes.box((-420, 60), (-330, 700), (810, 850))
    _add(spec, "worktop", meshes.mapped(worktop, (1, 0), 0.5), _pine)
    _add(spec, "plinth", meshes.box((-285, -34), (-58, 312), (849, 895)), _black)
    _add(spec, "cupboard", meshes.box((-390, -272), (104, 204), (850, 1320)), _navy)
    _add(spec, "tap", _tap(), _steel)
    _add(spec, "wall_back", meshes.mapped(meshes.box((-470, -440), (-420, 1500), (0, 2200)), (1, 2), 0.4), _tiles)
    _add(spec, "wall_side", meshes.mapped(meshes.box((-440, 900), (-420, -400), (0, 2200)), (0, 2), 0.4), _tiles)
    _add(spec, "carpet", meshes.mapped(meshes.box((-2500, 2500), (-2500, 2500), (-20, 0)), (0, 1), 1.0), _dark)


def _tap() -> Surface:
    foot = meshes.rounded_rectangle((-315, -262), (222, 322), 970, (14, 14, 14, 14))
    plate = meshes.lofted(np.array([foot, foot + np.array([0, 0, 0.018])]))
    column = meshes.tube([(-290, 258, 985), (-290, 258, 1040), (-290, 258, 1190)], 15, sides=10)
    sleeve = meshes.tube([(-290, 258, 985), (-290, 258, 1060)], 21, sides=10)
    spout = meshes.tube([(-290, 258, 1180), (-262, 252, 1205), (-205, 240, 1200), (-190, 237, 1165)], 11, sides=8)
    lever = meshes.tube([(-290, 258, 1030), (-285, 292, 1034), (-280, 305, 1085)], 7, sides=8)
    return meshes.joined([plate, column, sleeve, spout, lever])


def _mahogany() -> textures.Image:
    return textures.wood((146, 72, 40), (214, 138, 98), seed=11)


def _pine() -> textures.Image:
    return textures.wood((176, 128, 70), (226, 180, 116), seed=12)


def _grey_cloth() -> textures.Image:
    return textures.fabric((92, 94, 100), (150, 152, 158), seed=13)


def _blue_cloth() -> textures.Image:
    return textures.fabric((104, 116, 132), (160, 174, 190), seed=14)


def _dark() -> textures.Image:
    return textures.plaster((44, 50, 60), (64, 70, 82), seed=15)


def _black() -> textures.Image:
    return textures.plaster((28, 30, 32), (38, 40, 42), seed=16)


def _navy() -> textures.Image:
    return textures.plaster((16, 26, 58), (22, 34, 70), seed=17)


def _steel() -> textures.Image:
    return textures.plaster((134, 130, 126), (158, 154, 150), seed=18)


def _tiles() -> textures.Image:
    """Two by two tiles with a joint between them."""
    tile = textures.plaster((168, 156, 144), (186, 174, 162), seed=19, size=128).astype(np.float64)
    joint = np.arange(128) % 64 < 3
    tile[joint] *= 0.75
    tile[:, joint] *= 0.75
    return np.round(tile).astype(np.uint8)


def _add_sky(spec: mujoco.MjSpec) -> None:
    spec.add_texture(
        name="scene/sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=(0.62, 0.64, 0.67),
        rgb2=(0.4, 0.42, 0.45),
        width=64,
        height=64 * 6,
    )


def _add_lights(spec: mujoco.MjSpec) -> None:
    """Light from above and from two sides, in the original's directions; no shadows, which software GL draws slowly."""
    headlight = spec.visual.headlight
    headlight.ambient, headlight.diffuse, headlight.specular = (0.42,) * 3, (0.0,) * 3, (0.0,) * 3
    for i, (direction, strength) in enumerate((((0, 0, -1), 0.42), ((-1, -0.5, -1), 0.22), ((1, 1, -1), 0.16))):
        spec.worldbody.add_light(
            name=f"scene/light{i}",
            type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
            pos=(0, 0, 3),
            dir=direction,
            diffuse=(strength,) * 3,
            specular=(0.3 * strength,) * 3,
            castshadow=False,
        )
