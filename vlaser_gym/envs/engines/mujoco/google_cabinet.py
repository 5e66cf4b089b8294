"""The cabinet with three drawers that the Google Robot opens and fills, and a plain room around it.

All sizes are those of :mod:`vlaser_gym.envs.tasks.cabinet`. The fixed body belongs to the world (contact queries call
it ``scene``), each drawer is a body ``cabinet:<drawer>`` on a slide joint, and its boxes are geoms
``part:<drawer>_drawer_<part>``.
"""

from __future__ import annotations

import mujoco
import numpy as np

from vlaser_gym.envs.engines.mujoco import boards, meshes, textures
from vlaser_gym.envs.engines.mujoco.google_scenery import add_floor, add_lights, shaded
from vlaser_gym.envs.engines.mujoco.meshes import Surface
from vlaser_gym.envs.engines.mujoco.objects import add_collision, add_visual
from vlaser_gym.envs.tasks import cabinet
from vlaser_gym.envs.tasks.cabinet import Part, Station
from vlaser_gym.envs.tasks.variants import Variant

_Rgb = tuple[float, float, float]

#: The original's scene -> colours of floor, wall behind, wall at the side, furniture.
_ROOMS: dict[str, tuple[_Rgb, _Rgb, _Rgb, _Rgb]] = {
    "dummy_drawer": ((0.5, 0.44, 0.38), (0.33, 0.29, 0.26), (0.3, 0.26, 0.24), (0.16, 0.15, 0.15)),
    "frl_apartment_stage_simple": ((0.62, 0.6, 0.57), (0.82, 0.81, 0.78), (0.76, 0.75, 0.73), (0.45, 0.3, 0.2)),
    "modern_bedroom_no_roof": ((0.6, 0.45, 0.31), (0.55, 0.6, 0.68), (0.5, 0.55, 0.63), (0.85, 0.83, 0.8)),
    "modern_office_no_roof": ((0.36, 0.38, 0.42), (0.7, 0.66, 0.56), (0.62, 0.6, 0.52), (0.2, 0.24, 0.34)),
}
_BOX = mujoco.mjtGeom.mjGEOM_BOX
#: Half outline of a mug on the desk's corner, m.
_MUG = ((0.04, 0.73), (0.042, 0.74), (0.042, 0.83), (0.038, 0.83), (0.036, 0.75))
#: Thickness of the stone plate of one of the stations, m. It is only seen.
_STONE = 0.004


def add_cabinet(spec: mujoco.MjSpec, appearance: Variant) -> None:
    """Cabinet, room and lights of a variant. There is no floor to touch: what falls beside the cabinet is gone."""
    station = cabinet.STATIONS[appearance.station]
    origin = np.array(cabinet.ORIGIN)
    for part in cabinet.BODY:
        name = f"scene/cabinet_{part.name}"
        _add_part(spec, spec.worldbody, part, station, name, origin, part.collides)
    for drawer in cabinet.DRAWERS:
        _add_drawer(spec, drawer, station, appearance.solid_handles)
    (_add_stone if station.stone_top else _add_grain)(spec, station)
    _add_room(spec, appearance.scene)
    add_lights(spec, appearance.light)


def _add_drawer(spec: mujoco.MjSpec, drawer: str, station: Station, solid_handles: bool) -> None:
    origin = np.array(cabinet.ORIGIN) + [0.0, 0.0, cabinet.DRAWER_HEIGHTS[drawer]]
    body = spec.worldbody.add_body(name=f"cabinet:{drawer}", pos=origin)
    # The joint leaves one motion: of mass and inertia only the mass plays a part.
    body.explicitinertial, body.mass, body.inertia = True, cabinet.DRAWER_MASS, (1.0, 1.0, 1.0)
    # The original's drawers do not touch the cabinet: links of an articulation that a joint connects never do.
    spec.add_exclude(bodyname1="world", bodyname2=body.name)
    joint = body.add_joint(name=cabinet.joint_name(drawer), type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(1, 0, 0))
    joint.limited, joint.range = True, cabinet.DRAWER_RANGE
    joint.solref_limit, joint.solimp_limit = (2 * spec.option.timestep, 1.0), (0.999, 0.9999, 1e-4, 0.5, 2.0)
    # PhysX takes the friction as a share of the joint's load: a drawer that nothing pushes stops at once.
    joint.frictionloss = cabinet.JOINT_FRICTION * cabinet.DRAWER_MASS * -spec.option.gravity[2]
    joint.damping = (cabinet.JOINT_DAMPING, 0.0, 0.0)
    for part in cabinet.DRAWER:
        collides = part.collides or solid_handles
        _add_part(spec, body, part, station, f"part:{drawer}_drawer_{part.name}", np.zeros(3), collides)
    # A field in another shade on the front, only seen.
    front = next(part for part in cabinet.DRAWER if part.name == "front")
    place = (front.centre[0] + front.size[0] / 2, front.centre[1], front.centre[2])
    half = (5e-4, front.size[1] / 2 - 0.03, front.size[2] / 2 - 0.022)
    material = _material(spec, "cabinet/panel", shaded(station.body, 0.78))
    add_visual(body, f"part:{drawer}_drawer_front_panel", type=_BOX, pos=place, size=half, material=material)


def _add_grain(spec: mujoco.MjSpec, station: Station) -> None:
    """Strips and streaks on the top, only seen."""
    (x0, x1, y0, y1), z = np.array(cabinet.TOP_AREA) / meshes.MILLIMETRE, cabinet.TOP / meshes.MILLIMETRE
    level = ((float(x0) + 4, float(x1) - 4), (float(y0) + 4, float(y1) - 4), z)
    linear = np.array(station.tabletop) ** (1 / 2.2)
    _show(spec, "top_strips", boards.planks(level, 60, 0) + boards.grain(level, 30), shaded(tuple(linear), 0.94))


def _add_part(
    spec: mujoco.MjSpec,
    body: mujoco.MjsBody,
    part: Part,
    station: Station,
    name: str,
    origin: meshes.Floats,
    collides: bool,
) -> None:
    """One box, felt and seen."""
    half, place = np.array(part.size) / 2, origin + part.centre
    if collides:
        add_collision(body, name, type=_BOX, pos=place, size=half)
    material = _material(spec, f"cabinet/{part.colour}", getattr(station, part.colour))
    add_visual(body, f"{name}/visual", type=_BOX, pos=place, size=half, material=material)


def _material(spec: mujoco.MjSpec, name: str, linear: _Rgb) -> str:
    """A material of a colour of the original, whose renderer takes colours as linear and shows them as sRGB."""
    if spec.material(name) is None:
        shown = np.array(linear) ** (1 / 2.2)
        textures.add_material(spec, name, rgba=(*shown, 1.0), specular=0.05)
    return name


def _add_stone(spec: mujoco.MjSpec, station: Station) -> None:
    """A speckled plate on the top, only seen."""
    x, y, z = cabinet.BODY[-1].size
    top = np.array(cabinet.ORIGIN) + cabinet.BODY[-1].centre + [0, 0, z / 2]
    plate = textures.add_material(spec, "cabinet/stone", rgba=(0.6, 0.57, 0.55, 1.0), specular=0.2)
    half = (x / 2, y / 2, _STONE / 2)
    add_visual(spec.worldbody, "scene/visual_stone", type=_BOX, pos=top, size=half, material=plate)
    random = np.random.default_rng(3)
    count = 260
    places = random.uniform((-x / 2 + 0.01, -y / 2 + 0.01), (x / 2 - 0.01, y / 2 - 0.01), (count, 2))
    sizes = random.uniform(0.004, 0.016, (2, count))
    flakes = meshes.flakes(places, sizes[0], sizes[1], random.uniform(0, np.pi, count))
    speckles = Surface(flakes.vertices + top + [0, 0, _STONE / 2 + 3e-4], flakes.faces, flakes.uv)
    _show(spec, "speckles", speckles, (0.4, 0.37, 0.36))


def _add_room(spec: mujoco.MjSpec, scene: str) -> None:
    """Floor, two walls with skirting, an image, a low piece of furniture with something on it, and a bin."""
    floor, behind, side, furniture = _ROOMS[scene]
    add_floor(spec, ((-1250, 900), (-1500, 1700)), ((-590, 0), (-308, 308)), floor)
    _show(spec, "wall_skirting", meshes.box((-1250, -1236), (-2500, 1700), (0, 120)), shaded(behind, 1.2))
    _show(spec, "wall_picture", meshes.box((-1250, -1235), (250, 850), (700, 1200)), shaded(furniture, 1.4))
    _show(spec, "wall_back", meshes.box((-1300, -1250), (-2500, 2500), (0, 2600)), behind)
    _show(spec, "wall_side", meshes.box((-1250, 2500), (1700, 1750), (0, 2600)), side)
    desk = [meshes.box((-1100, -450), (-1500, -550), (690, 730)), meshes.box((-1080, -1020), (-1480, -1420), (0, 690))]
    desk += [meshes.box((-520, -470), (-620, -570), (0, 690)), meshes.box((-520, -470), (-1480, -1430), (0, 690))]
    _show(spec, "desk", meshes.joined(desk), furniture)
    _show(spec, "keyboard", meshes.box((-880, -720), (-1200, -780), (730, 742)), (0.14, 0.14, 0.15))
    mug = meshes.turned(_MUG, 16)
    _show(spec, "mug", Surface(mug.vertices + [-0.6, -0.68, 0.0], mug.faces, mug.uv), (0.75, 0.3, 0.2))
    _show(spec, "screen", meshes.box((-960, -930), (-1250, -850), (760, 1010)), (0.08, 0.09, 0.11))
    profile = [(110.0, 0.0), (140.0, 300.0), (128.0, 300.0), (105.0, 20.0)]
    bin_ = meshes.turned([(r * meshes.MILLIMETRE, z * meshes.MILLIMETRE) for r, z in profile], 16)
    _show(spec, "bin", Surface(bin_.vertices + [-0.35, 0.62, 0.0], bin_.faces, bin_.uv), (0.55, 0.56, 0.58))


def _show(spec: mujoco.MjSpec, part: str, surface: Surface, rgb: _Rgb) -> None:
    name = f"scene/visual_{part}"
    mesh = meshes.add_faceted(spec, name, surface)
    material = textures.add_material(spec, name, rgba=(*rgb, 1.0), specular=0.05)
    add_visual(spec.worldbody, name, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=mesh, material=material)
