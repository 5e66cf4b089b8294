"""The surroundings of the Google Robot's objects: a kitchen counter and lights.

The table's top is the box on which recordings of the original were made (its mesh could not be measured). Backgrounds,
tables and lights of the variants are plain stand-ins of the same kind.
"""

from __future__ import annotations

import mujoco
import numpy as np

from vlaser_gym.envs.engines.mujoco import boards, meshes, textures
from vlaser_gym.envs.engines.mujoco.meshes import MILLIMETRE, Surface
from vlaser_gym.envs.engines.mujoco.objects import add_collision, add_visual
from vlaser_gym.envs.tasks.google import TABLE_AREA, TABLE_HEIGHT
from vlaser_gym.envs.tasks.variants import LIGHTS, Variant

_Rgb = tuple[float, float, float]
Span = boards.Span

#: The original's scene -> colours of table top, its side, floor, wall.
_TABLE: tuple[_Rgb, _Rgb] = ((0.62, 0.53, 0.45), (0.52, 0.48, 0.45))
_PALETTES: dict[str, tuple[_Rgb, _Rgb, _Rgb, _Rgb]] = {
    "google_pick_coke_can_1_v4": (*_TABLE, (0.45, 0.36, 0.29), (0.36, 0.3, 0.26)),
    "google_pick_coke_can_1_v4_alt_background": (*_TABLE, (0.35, 0.25, 0.18), (0.35, 0.47, 0.42)),
    "google_pick_coke_can_1_v4_alt_background_2": (*_TABLE, (0.6, 0.62, 0.66), (0.45, 0.36, 0.5)),
    "Baked_sc1_staging_objaverse_cabinet1_h870": (
        (0.5, 0.36, 0.24),
        (0.34, 0.23, 0.15),
        (0.5, 0.49, 0.47),
        (0.7, 0.7, 0.7),
    ),
    "Baked_sc1_staging_objaverse_cabinet2_h870": (
        (0.86, 0.85, 0.83),
        (0.8, 0.79, 0.76),
        (0.5, 0.49, 0.47),
        (0.7, 0.7, 0.7),
    ),
}
_DEFAULT_PALETTE = "google_pick_coke_can_1_v4"
_THICKNESS = 0.04
#: The original's light strengths are for its tone mapping; the sum of its default ones maps to this one here.
_BRIGHTNESS, _AMBIENT, _MOST_AMBIENT = 0.76 / 3.6, 0.42, 0.85


def add_table(spec: mujoco.MjSpec, appearance: Variant) -> None:
    """A free-standing counter, its cupboards, floor and walls, and the variant's lights."""
    x0, x1, y0, y1 = TABLE_AREA
    centre, half = np.array([x0 + x1, y0 + y1]) / 2, np.array([x1 - x0, y1 - y0]) / 2
    add_collision(
        spec.worldbody,
        "scene/table",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=(*centre, TABLE_HEIGHT - _THICKNESS / 2),
        size=(*half, _THICKNESS / 2),
    )
    palette = _PALETTES.get(appearance.scene, _PALETTES[_DEFAULT_PALETTE])
    span_x, span_y = (x0 / MILLIMETRE, x1 / MILLIMETRE), (y0 / MILLIMETRE, y1 / MILLIMETRE)
    top = TABLE_HEIGHT / MILLIMETRE
    inner_x, inner_y = (span_x[0] + 30, span_x[1] - 30), (span_y[0] + 30, span_y[1] - 30)
    _add_top(spec, span_x, span_y, top, palette[0])
    _add(spec, "cupboard", meshes.box(inner_x, inner_y, (60, top - 40)), palette[1])
    _add_fronts(spec, inner_x[1], inner_y, top, palette[1])
    _add_kitchen(spec, palette[1], palette[3])
    add_floor(spec, ((-1850, 1200), (-1500, 2000)), ((inner_x[0], inner_x[1]), inner_y), palette[2])
    add_lights(spec, appearance.light)


def _add_top(spec: mujoco.MjSpec, x: Span, y: Span, top: float, rgb: _Rgb) -> None:
    """A worktop of glued strips with a rounded edge and some grain, and the shadow below its edge."""
    outline = [(4, -40), (0, -36), (0, -6), (2, -2), (6, 0)]
    slab = [
        meshes.rounded_rectangle((x[0] + i, x[1] - i), (y[0] + i, y[1] - i), top + z, (12,) * 4) for i, z in outline
    ]
    level = ((x[0] + 8, x[1] - 8), (y[0] + 8, y[1] - 8), top)
    _add(spec, "top_strips", boards.planks(level, 45, 0) + boards.grain(level, seed=20), shaded(rgb, 0.94))
    _add(spec, "top", meshes.lofted(np.array(slab)), rgb)
    shadow = meshes.box((x[1] - 34, x[1] - 16), (y[0] + 30, y[1] - 30), (top - 52, top - 40))
    _add(spec, "top_shadow", shadow, shaded(rgb, 0.25))


def _add_kitchen(spec: mujoco.MjSpec, furniture: _Rgb, wall: _Rgb) -> None:
    """A row of cupboards along the wall, and its skirting."""
    _add(spec, "cupboard_row", meshes.box((-1850, -1400), (-1300, -350), (80, 820)), shaded(furniture, 0.9))
    doors = [meshes.box((-1400, -1388), (y, y + 300), (100, 800)) for y in (-1290, -975, -660)]
    _add(spec, "cupboard_doors", meshes.joined(doors), furniture)
    _add(spec, "cupboard_top", meshes.box((-1850, -1380), (-1320, -330), (820, 850)), shaded(furniture, 0.6))
    _add(spec, "wall_skirting", meshes.box((-1850, -1835), (-1500, 2000), (0, 110)), shaded(wall, 1.25))
    _add(spec, "wall", meshes.box((-1900, -1850), (-2500, 2500), (0, 2600)), wall)


def add_floor(spec: mujoco.MjSpec, seen: tuple[Span, Span], furniture: tuple[Span, Span], rgb: _Rgb) -> None:
    """A floor of boards, and a soft shadow around what stands on it (mm), the uppermost sheet first."""
    (x0, x1), (y0, y1) = furniture
    for i, (margin, shade) in enumerate(((40, 0.7), (90, 0.86))):
        around = meshes.sheet((x0 - margin, x1 + margin), (y0 - margin, y1 + margin), 5.0 - i)
        _add(spec, f"floor_shadow{i}", around, shaded(rgb, shade))
    _add(spec, "floor_boards", boards.planks((*seen, 0.5), 140, 0), shaded(rgb, 0.93))
    _add(spec, "floor", meshes.sheet((-3000, 2500), (-2500, 2500), 0), rgb)


def shaded(rgb: _Rgb, shade: float) -> _Rgb:
    """A colour made darker or lighter."""
    red, green, blue = (min(1.0, shade * value) for value in rgb)
    return red, green, blue


def _add_fronts(spec: mujoco.MjSpec, x: float, y: tuple[float, float], top: float, rgb: _Rgb) -> None:
    """Three drawer fronts with a panel each and black handles on the side of the robot; only seen."""
    middle = sum(y) / 2
    fronts, panels, handles = [], [], []
    for row in range(3):
        z = top - 75 - 200 * row
        fronts.append(meshes.box((x, x + 12), (y[0] + 8, y[1] - 8), (z - 180, z)))
        panels.append(meshes.box((x + 12, x + 13), (y[0] + 38, y[1] - 38), (z - 155, z - 25)))
        path = [(x + 10, middle - 45, z - 60), (x + 38, middle - 45, z - 60)]
        path += [(x + 38, middle + 45, z - 60), (x + 10, middle + 45, z - 60)]
        handles.append(meshes.joined(meshes.tube(part, 4.5) for part in (path[:2], path[1:3], path[2:])))
    _add(spec, "fronts_panels", meshes.joined(panels), shaded(rgb, 1.05))
    _add(spec, "fronts", meshes.joined(fronts), shaded(rgb, 1.15))
    _add(spec, "handles", meshes.joined(handles), (0.08, 0.08, 0.08))


def _add(spec: mujoco.MjSpec, part: str, surface: Surface, rgb: _Rgb) -> None:
    name = f"scene/visual_{part}"
    mesh = meshes.add_faceted(spec, name, surface)
    material = textures.add_material(spec, name, rgba=(*rgb, 1.0), specular=0.05)
    add_visual(spec.worldbody, name, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=mesh, material=material)


def add_lights(spec: mujoco.MjSpec, light: str) -> None:
    """The directional lights of :data:`LIGHTS`, without shadows, which software GL draws slowly."""
    lighting = LIGHTS[light]
    headlight = spec.visual.headlight
    ambient = min(_AMBIENT * lighting.ambient / LIGHTS["default"].ambient, _MOST_AMBIENT)
    headlight.ambient, headlight.diffuse, headlight.specular = (ambient,) * 3, (0.0,) * 3, (0.0,) * 3
    for i, lamp in enumerate(lighting.lights):
        strength = _BRIGHTNESS * lamp.strength
        spec.worldbody.add_light(
            name=f"scene/light{i}",
            type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
            pos=(0, 0, 3),
            dir=lamp.direction,
            diffuse=(strength,) * 3,
            specular=(0.3 * strength,) * 3,
            castshadow=False,
        )
