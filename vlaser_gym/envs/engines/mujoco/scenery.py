"""The surroundings of the WidowX objects: table, walls, floor, lights. Only the table top has contacts.

Large areas have no textures: in software OpenGL a textured full frame costs as much as everything else together. Planks
and grain are flat pieces of another shade instead. Parts are added from near to far, so that hidden pixels cost little.
"""

from __future__ import annotations

import mujoco
import numpy as np

from vlaser_gym.envs.engines.mujoco import boards, google_cabinet, google_scenery, meshes, textures
from vlaser_gym.envs.engines.mujoco.boards import Span
from vlaser_gym.envs.engines.mujoco.meshes import MILLIMETRE, Surface
from vlaser_gym.envs.engines.mujoco.objects import add_collision, add_visual
from vlaser_gym.envs.tasks.variants import Variant
from vlaser_gym.errors import UnknownNameError

#: Extent of the top that carries objects (mm), x and y. It is larger than what is seen: nothing falls within reach.
_TABLE_X, _TABLE_Y = (-800.0, 400.0), (-650.0, 950.0)
_TABLE_TOP = {"bridge_table": 870.0, "bridge_sink": 850.0}
_THICKNESS = 40.0
#: Sceneries of the Google Robot.
_GOOGLE = {"google_table": google_scenery.add_table, "google_cabinet": google_cabinet.add_cabinet}
#: Those with dark spots under objects and gripper; shipped policies know the others as they are.
SHADOWED = tuple(_GOOGLE)

_Rgb = tuple[float, float, float]


def add_scenery(spec: mujoco.MjSpec, scenery: str, appearance: Variant | None = None) -> None:
    """Add a table to the world with everything behind it, and the lights; ``appearance`` as in a task's variant.

    Raises:
        UnknownNameError: if there is no such scenery.
    """
    if scenery in _GOOGLE:
        _GOOGLE[scenery](spec, appearance or Variant())
        return
    if scenery not in _TABLE_TOP:
        raise UnknownNameError("scenery", scenery, [*_TABLE_TOP, *_GOOGLE])
    top = _TABLE_TOP[scenery]
    corners = np.array([_TABLE_X, _TABLE_Y, (top - _THICKNESS, top)]).T * MILLIMETRE
    size = (corners[1] - corners[0]) / 2
    add_collision(spec.worldbody, "scene/table", type=mujoco.mjtGeom.mjGEOM_BOX, pos=corners.mean(0), size=size)
    (_add_office if scenery == "bridge_table" else _add_kitchen)(spec)
    _add(spec, "room", _room(((-340, 0), (-280, 690))), (0.55, 0.56, 0.6), emission=0.2)
    _add_lights(spec)


def _add(
    spec: mujoco.MjSpec,
    part: str,
    surface: Surface,
    rgb: _Rgb,
    *,
    emission: float = 0.0,
    image: textures.Image | None = None,
) -> None:
    name = f"scene/visual_{part}"
    mesh = meshes.add_faceted(spec, name, surface)
    material = textures.add_material(spec, name, image, rgba=(*rgb, 1.0), specular=0.05, emission=emission)
    add_visual(spec.worldbody, name, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=mesh, material=material)


def _add_office(spec: mujoco.MjSpec) -> None:
    """A wooden desk in the corner of two partitions covered with cloth."""
    x, y = (-345.0, 30.0), (-295.0, 950.0)
    outline = [(6, 826), (0, 832), (0, 862), (3, 868), (8, 870)]
    desk = [meshes.rounded_rectangle((x[0] + i, x[1] - i), (y[0] + i, y[1] - i), z, (25,) * 4) for i, z in outline]
    top = ((x[0] + 8, x[1] - 8), (y[0] + 25, y[1] - 25), 870.0)
    _add_wood(spec, "desk", meshes.lofted(np.array(desk)), top, plank=47)
    _add(spec, "drawers", meshes.box((-340, 0), (-285, 940), (0, 826)), (0.3, 0.17, 0.11))
    back = meshes.box((-370, -350), (-320, 1000), (820, 1400))
    side = meshes.box((-350, 100), (-320, -300), (300, 1400))
    cloth = textures.fabric((178, 178, 182), (255, 255, 255), seed=13)
    _add(spec, "partition_back", meshes.mapped(back, (1, 2), 0.2), (0.63, 0.635, 0.66), emission=0.2, image=cloth)
    _add(spec, "partition_side", meshes.mapped(side, (0, 2), 0.2), (0.62, 0.67, 0.73), emission=0.2, image=cloth)
    _add_stand(spec, centre_y=28, top=869.5)


def _add_kitchen(spec: mujoco.MjSpec) -> None:
    """A toy kitchen: pine worktop, the sink's plinth, a navy cupboard and a tap behind it, walls."""
    around = [meshes.rounded_rectangle(x, y, z, (0.01,) * 4, arc=1) for x, y, z in (
        ((-420, 60), (-330, 700), 810), ((-420, 60), (-330, 700), 850), ((-280, -40), (-52, 306), 850))]  # fmt: skip
    _add_wood(spec, "worktop", meshes.lofted(np.array(around), top=False), ((-420, 60), (-330, -52), 850), plank=80)
    sides = [meshes.rounded_rectangle((-285, -34), (-58, 312), z, (10,) * 4) for z in (850, 895)]
    _add_stand(spec, centre_y=60, top=849.5)
    _add(spec, "doors", meshes.box((-410, 50), (-320, 690), (0, 810)), (0.85, 0.84, 0.8))
    _add(spec, "plinth", meshes.lofted(np.array(sides), bottom=False, top=False), (0.12, 0.13, 0.14))
    _add(spec, "cupboard", meshes.box((-390, -290), (104, 204), (940, 1320)), (0.07, 0.11, 0.24))
    _add_tap(spec)
    _add(spec, "wall_back", meshes.box((-470, -440), (-420, 800), (700, 1400)), (0.66, 0.62, 0.58), emission=0.1)
    _add(spec, "wall_side", meshes.box((-440, 100), (-450, -420), (700, 1400)), (0.58, 0.53, 0.49), emission=0.1)


_MAHOGANY = ((0.64, 0.34, 0.2), (0.595, 0.305, 0.175), (0.69, 0.385, 0.24))
_PINE = ((0.74, 0.56, 0.34), (0.68, 0.5, 0.29), (0.79, 0.62, 0.4))


def _add_wood(spec: mujoco.MjSpec, part: str, surface: Surface, top: tuple[Span, Span, float], plank: float) -> None:
    """A wooden part whose upper side shows planks along y, ``plank`` mm wide, in three shades, with some grain."""
    shades = _MAHOGANY if part == "desk" else _PINE
    for i, shade in enumerate(shades):
        grain = boards.grain(top, seed=10 + i)
        # Planks of the first shade are the surface itself.
        _add(spec, f"{part}_planks{i}", boards.planks(top, plank, i) + grain if i else grain, shade)
    _add(spec, part, surface, shades[0])


def _add_stand(spec: mujoco.MjSpec, centre_y: float, top: float) -> None:
    """Add the stand of the robot, beside the table."""
    _add(spec, "stand", meshes.box((62, 240), (centre_y - 105, centre_y + 105), (0, top)), (0.2, 0.21, 0.23))


def _add_tap(spec: mujoco.MjSpec) -> None:
    foot = meshes.rounded_rectangle((-315, -262), (222, 322), 970, (14,) * 4)
    plate = meshes.lofted(np.array([foot, foot + np.array([0, 0, 0.018])]))
    column = meshes.tube([(-290, 258, 985), (-290, 258, 1040), (-290, 258, 1190)], 15, sides=12)
    sleeve = meshes.tube([(-290, 258, 985), (-290, 258, 1060)], 21, sides=12)
    spout = meshes.tube([(-290, 258, 1180), (-262, 252, 1205), (-205, 240, 1200), (-190, 237, 1165)], 11, sides=8)
    lever = meshes.tube([(-290, 258, 1030), (-285, 292, 1034), (-280, 305, 1085)], 7, sides=8)
    name = "scene/visual_tap"
    mesh = meshes.add_surface(spec, name, meshes.joined([plate, column, sleeve, spout, lever]))
    material = textures.add_material(spec, name, rgba=(0.58, 0.565, 0.55, 1), specular=0.3)
    add_visual(spec.worldbody, name, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=mesh, material=material)


def _room(hole: tuple[Span, Span]) -> Surface:
    """Floor, walls and ceiling, seen from inside; no floor under the furniture, where it would be drawn for nothing."""
    size = (-2500.0, 2500.0)
    inner = meshes.rounded_rectangle(*hole, 0, (0.01,) * 4, arc=1)
    outer = [meshes.rounded_rectangle(size, size, z, (0.01,) * 4, arc=1) for z in (0, 2600)]
    outside = meshes.lofted(np.array([inner, *outer]), bottom=False)
    return Surface(outside.vertices, outside.faces[:, ::-1], outside.uv)


def _add_lights(spec: mujoco.MjSpec) -> None:
    """Light from above and from two sides, in the original's directions; no shadows, which software GL draws slowly."""
    headlight = spec.visual.headlight
    headlight.ambient, headlight.diffuse, headlight.specular = (0.42,) * 3, (0.0,) * 3, (0.0,) * 3
    for i, (direction, strength) in enumerate((((0, 0, -1), 0.38), ((-1, -0.5, -1), 0.22), ((1, 1, -1), 0.16))):
        spec.worldbody.add_light(
            name=f"scene/light{i}",
            type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
            pos=(0, 0, 3),
            dir=direction,
            diffuse=(strength,) * 3,
            specular=(0.3 * strength,) * 3,
            castshadow=False,
        )
