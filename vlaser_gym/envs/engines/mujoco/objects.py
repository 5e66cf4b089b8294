"""Objects of the WidowX scenes: contact shapes as measured, looks that a person recognises.

Contact shapes are convex hulls in group 3, named ``<object>/collision<i>``; what is seen is in group 2, named
``<object>/visual<i>``, and touches nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np
from numpy.typing import ArrayLike

from vlaser_gym.envs.engines.mujoco import measured, meshes, textures
from vlaser_gym.envs.engines.mujoco.meshes import Floats, Surface
from vlaser_gym.envs.tasks.base import ObjectSpec
from vlaser_gym.errors import UnknownNameError

COLLISION_GROUP, VISUAL_GROUP = 3, 2
LOOKS = ("builtin",)

Builder = Callable[[mujoco.MjSpec, mujoco.MjsBody, str], None]


def add_object(spec: mujoco.MjSpec, obj: ObjectSpec, look: str = "builtin") -> mujoco.MjsBody:
    """Add the body ``object:<name>`` to the world: free joint unless fixed, inertia, contact shapes, looks.

    The body's frame is the original's actor frame.

    Raises:
        UnknownNameError: if there is no shape for the object, or no such look.
    """
    if obj.name not in _SHAPES:
        raise UnknownNameError("object", obj.name, _SHAPES)
    if look not in LOOKS:
        raise UnknownNameError("look", look, LOOKS)
    body = spec.worldbody.add_body(name=f"object:{obj.name}")
    if not obj.fixed:
        body.add_freejoint(name=f"object:{obj.name}")
    body.explicitinertial, body.mass = True, obj.mass
    body.ipos, body.iquat, body.inertia = obj.com, obj.com_rotation, obj.inertia
    for build in _SHAPES[obj.name]:
        build(spec, body, obj.name)
    return body


def add_collision(body: mujoco.MjsBody, name: str, **shape: object) -> mujoco.MjsGeom:
    """Add a geom that touches and is not seen."""
    return body.add_geom(name=name, group=COLLISION_GROUP, contype=1, conaffinity=1, **shape)


def add_visual(body: mujoco.MjsBody, name: str, **shape: object) -> mujoco.MjsGeom:
    """Add a geom that is seen and touches nothing."""
    return body.add_geom(name=name, group=VISUAL_GROUP, contype=0, conaffinity=0, **shape)


def _hulls(*pieces: ArrayLike) -> Builder:
    def build(spec: mujoco.MjSpec, body: mujoco.MjsBody, name: str) -> None:
        for i, points in enumerate(pieces):
            mesh = meshes.add_hull(spec, f"{name}/collision{i}", points)
            add_collision(body, mesh, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=mesh)

    return build


def _box(*half_size: float) -> Builder:
    def build(spec: mujoco.MjSpec, body: mujoco.MjsBody, name: str) -> None:
        add_collision(body, f"{name}/collision0", type=mujoco.mjtGeom.mjGEOM_BOX, size=half_size)

    return build


def _cube(rgba: ArrayLike) -> tuple[Builder, ...]:
    size = (0.015, 0.015, 0.015)

    def paint(spec: mujoco.MjSpec, body: mujoco.MjsBody, name: str) -> None:
        material = textures.add_material(spec, name, rgba=rgba)
        add_visual(body, f"{name}/visual0", type=mujoco.mjtGeom.mjGEOM_BOX, size=size, material=material)

    return _box(*size), paint


def _painted(surface: Callable[[], Surface], image: Callable[[], textures.Image]) -> Builder:
    """A textured surface. Surface and texture are made when the object is, not at import."""

    def build(spec: mujoco.MjSpec, body: mujoco.MjsBody, name: str) -> None:
        _show(spec, body, f"{name}/visual_painted", surface(), image())

    return build


def _coloured(surface: Callable[[], Surface], rgb: tuple[float, float, float], part: str = "") -> Builder:
    """A surface of one colour: textures on large areas are slow to draw in software."""

    def build(spec: mujoco.MjSpec, body: mujoco.MjsBody, name: str) -> None:
        _show(spec, body, f"{name}/visual{part}", surface(), rgb=rgb)

    return build


def _show(
    spec: mujoco.MjSpec,
    body: mujoco.MjsBody,
    name: str,
    surface: Surface,
    image: textures.Image | None = None,
    rgb: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> None:
    mesh = meshes.add_surface(spec, name, surface)
    material = textures.add_material(spec, name, image, rgba=(*rgb, 1.0))
    add_visual(body, mesh, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=mesh, material=material)


def _carrot_root() -> Surface:
    """Stations along x: x, centre y and z, half width and height (mm)."""
    stations = [(-62, -0.3, -4, 1.5, 1.5), (-60.5, -0.3, -4.3, 4, 3.5), (-55, 0, -4.2, 6, 5.2), (-46, 0, -4.2, 7.6, 7)]
    stations += [(-36, 0, -4.4, 10, 9.3), (-24, 0.2, -3.6, 12.2, 12), (-12, 0.2, -2.8, 13.8, 13.8)]
    stations += [(0, 0, -2.2, 15.4, 15), (10, 0, -1.6, 16, 15.3), (18, 0.2, -1, 15, 14.3), (23, 0.2, 0, 12, 11)]
    return meshes.oval([*stations, (26, 0.2, 2, 7, 6.5), (27, 0.2, 4, 3, 3)])


def _carrot_skin() -> textures.Image:
    light, dark = (255, 140, 48), (226, 104, 26)
    rings = [(0.0, dark), (0.12, light), (0.2, light), (0.23, dark), (0.26, light), (0.44, light), (0.47, dark)]
    return textures.banded(
        [*rings, (0.5, light), (0.7, light), (0.73, dark), (0.76, light), (0.93, light), (1.0, dark)]
    )


def _carrot_leaves() -> Surface:
    stations = [(22, 0.2, 5, 4, 4), (28, 0, 8.6, 6.5, 7.5), (37, -0.5, 9.8, 7.5, 9), (46, -1, 10.4, 9.2, 10)]
    return meshes.oval([*stations, (53, -1.2, 11, 9.6, 9.6), (54, -1.2, 11, 4, 4)], count=12)


def _plate() -> Surface:
    profile = [(0, 0.9), (23, 0.9), (27, 0), (33.1, 0), (41.8, 4.6), (54.3, 4.6), (55, 5.2), (55, 5.5), (54.3, 6)]
    profile += [(42.8, 6), (41, 5.7), (39.5, 5), (32.7, 1.6), (30, 1.4), (0, 1.4)]
    return meshes.turned([(r * meshes.MILLIMETRE, z * meshes.MILLIMETRE) for r, z in profile], 40)


def _spoon_handle() -> Surface:
    stations = [(-25, 0, 0.2, 4.4, 2.2), (-18, 0, 1.3, 4.9, 5), (-8, 0, 0.9, 6.6, 8.7), (2, 0, 0.5, 8, 10.3)]
    stations += [(12, 0, 0.35, 9.2, 11.1), (22, 0.1, 0.65, 10, 11.6), (32, 0.2, 0.8, 10.5, 11.7)]
    stations += [(42, 0.3, 0.9, 10.9, 11.6), (52, 0.4, 1.1, 10.9, 11.1), (60, 0.8, 2, 9.2, 8.6)]
    return meshes.oval([*stations, (65, 0.8, 3, 5.5, 5.5), (67.3, 0.8, 4, 1.5, 1.5)])


def _handle_green() -> textures.Image:
    deep, pale = (150, 186, 62), (206, 232, 134)
    return textures.banded([(0.0, pale), (0.3, (190, 220, 108)), (0.7, pale), (0.95, (188, 218, 96)), (1.0, deep)])


def _spoon_bowl() -> Surface:
    """A sheet bent upwards at its edges. Stations: x, half width, height of the edge, height of the middle (mm)."""
    stations = [(-72.6, 3, 14.5, 12.5), (-70, 8, 12.5, 8.5), (-66, 11.3, 9.5, 4), (-60, 14.6, 6.2, -2)]
    stations += [(-53, 17, 3.8, -6), (-46, 17.6, 2.2, -7.6), (-40, 17.2, 1.6, -7.6), (-34, 15, 1.5, -6.6)]
    stations += [(-28, 10, 1.8, -4), (-23, 4.5, 2.2, -1.8)]
    across = np.linspace(-1, 1, 9)
    sections = []
    for x, half, edge, middle in stations:
        depth = middle + (edge - middle) * across**2
        below = np.stack([np.full(9, x), half * across, depth], -1)
        above = below[::-1] + np.array([0, 0, 1.4])
        sections.append(np.concatenate([below, above]))
    return meshes.lofted(np.array(sections) * meshes.MILLIMETRE)


def _towel() -> Surface:
    """Folded once: rounded edges, the top a little higher in the middle."""
    profile = [(4, -4.9), (1, -4.4), (0, -2.5), (0, -0.5), (0.8, 1.6), (2.4, 3), (6, 4), (14, 4.6), (30, 5)]
    layers = []
    for inset, z in profile:
        side = (-50.5 + inset, 49.5 - inset)
        layers.append(meshes.rounded_rectangle(side, (-50 + inset, 49.7 - inset), z, (6, 6, 6, 6)))
    return meshes.mapped(meshes.lofted(np.array(layers)), (0, 1), 0.1)


def _terry() -> textures.Image:
    cloth = textures.fabric((150, 196, 216), (186, 226, 242), seed=5).astype(np.float64)
    across = (np.arange(len(cloth)) / len(cloth) + 0.5) % 1.0
    stripe = (np.abs(across - 0.14) < 0.045) | (np.abs(across - 0.86) < 0.045)
    cloth[:, stripe] *= np.array([0.72, 0.84, 0.93])
    return np.round(cloth).astype(np.uint8)


def _eggplant() -> Surface:
    stations = [(-44.8, 0.5, 12.2, 1.2, 1.2), (-43.6, 0.5, 11.8, 2.4, 2.6), (-41, 0.5, 10.2, 4.4, 4.8)]
    stations += [(-36, 0.5, 6.5, 8.5, 9.4), (-31, 0.6, 5, 10.6, 11.4), (-26, 0.65, 3.9, 12.2, 13.1)]
    stations += [(-20, 0.5, 2.3, 14, 15), (-14, 0.3, 1, 15.6, 16.4), (-8, 0.2, 0.1, 16.8, 17.5)]
    stations += [(-2, 0, -0.6, 17.8, 18.3), (4, -0.1, -1, 18.4, 18.8), (10, -0.15, -1.3, 18.8, 19)]
    stations += [(16, -0.3, -1.5, 18.2, 18.5), (21, -0.4, -1.7, 17, 17.4), (26, -0.5, -1.9, 14.4, 14.9)]
    return meshes.oval([*stations, (30, -0.5, -2, 10.4, 10.8), (32.6, -0.4, -2, 6, 6.2), (33.7, -0.3, -1.9, 2, 2)], 24)


def _eggplant_skin() -> textures.Image:
    """Purple with a green calyx whose tips run down the fruit."""
    size = 128
    purple = textures.banded([(0.0, (96, 48, 122)), (0.5, (112, 58, 138)), (1.0, (84, 40, 108))], size).astype(float)
    v, u = (np.mgrid[:size, :size] + 0.5) / size
    calyx = v < 0.1 + 0.07 * np.abs(np.cos(2.5 * 2 * np.pi * u))
    purple[calyx] = (86, 128, 62)
    return np.round(purple).astype(np.uint8)


def _sink_half(
    y: tuple[float, float], ridge: str, rings: list[tuple[float, float, float, float, float, float]]
) -> Surface:
    """A basin with its part of the rim. Rings inside: x from, to, y from, to, height, corner radius (mm)."""
    x, near, far = (-137.0, 138.0), (y[0], y[1]), ridge
    layers = []
    for inset, z, radius in ((0, 10, 14), (0, 88, 14), (3, 95, 14), (9, 98, 14)):
        low = near[0] if far == "low" else near[0] + inset
        high = near[1] if far == "high" else near[1] - inset
        turn = (0.01, 0.01, radius, radius) if far == "high" else (radius, radius, 0.01, 0.01)
        layers.append(meshes.rounded_rectangle((x[0] + inset, x[1] - inset), (low, high), z, turn))
    for x0, x1, y0, y1, z, r in rings:
        layers.append(meshes.rounded_rectangle((x0, x1), (y0, y1), z, (r,) * 4))
    # Where the halves meet there is no wall, and none may bend the rim's normals.
    return meshes.without_wall(meshes.lofted(np.array(layers), bottom=False), 1, near[0] if far == "low" else near[1])


def _sink_body() -> Surface:
    basin = [(-56, 108, -34, 171, 98, 28), (-53, 104, -31, 169, 95, 28), (-49, 99, -25, 167, 66, 26)]
    basin += [(-45, 97, -20, 164, 50, 24), (-39, 94, -14, 160, 43, 22), (-30, 86, -6, 152, 40.5, 20)]
    basin += [(0, 56, 45, 105, 39.2, 20)]
    drainer = [(-62, 107, -158, -42, 98, 24), (-60, 104, -156, -45, 94, 22), (-56, 98, -153, -48, 64, 20)]
    drainer += [(-48, 94, -148, -52, 50, 16), (-26, 90, -142, -56, 45, 14), (10, 50, -110, -80, 45, 8)]
    block = [meshes.rounded_rectangle((-121 + i, -82 - i), (-166 + i, -27 - i), z, (8, 8, 8, 8)) for i, z in
             ((0, 90), (0, 110), (2, 115), (6, 117))]  # fmt: skip
    halves = [_sink_half((-38, 196), "low", basin), _sink_half((-203, -38), "high", drainer)]
    return meshes.joined([*halves, meshes.lofted(np.array(block), bottom=False)])


def _basket() -> Surface:
    """A wire basket: a frame on the rim of the smaller basin, ribs across and along its bottom."""
    frame = [(0, 98.5, 30), (4, 102.5, 28), (10, 104, 24), (16, 102.5, 20), (18, 98.5, 20), (17.5, 94, 20)]
    outer = [meshes.rounded_rectangle((-73 + i, 115 - i), (-169 + i, -32 - i), z, (r,) * 4, arc=5) for i, z, r in frame]
    edge = meshes.lofted(np.array(outer), bottom=False, top=False)
    ribs = [_rib([(x, -154, 100), (x, -148, 68), (x, -138, 51), (x, -62, 51), (x, -53, 68), (x, -47, 100)])
            for x in (-36, -12, 12, 36, 60, 84)]  # fmt: skip
    along = [_rib([(-58, y, 100), (-50, y, 66), (-28, y, 53), (90, y, 53), (94, y, 66), (100, y, 100)])
             for y in (-130, -104, -78)]  # fmt: skip
    return meshes.joined([edge, *ribs, *along])


def _rib(path: list[tuple[float, float, float]]) -> Surface:
    return meshes.tube(path, 2.4, sides=5)


def _drain(spec: mujoco.MjSpec, body: mujoco.MjsBody, name: str) -> None:
    cylinder = mujoco.mjtGeom.mjGEOM_CYLINDER
    rings = (
        (0.021, 0.0, (0.42, 0.5, 0.52, 1)),
        (0.018, 0.0004, (0.66, 0.74, 0.76, 1)),
        (0.006, 0.0008, (0.05, 0.06, 0.07, 1)),
    )
    for i, (radius, lift, rgba) in enumerate(rings):
        place = (0.03, 0.078, 0.0386 + lift)
        add_visual(body, f"{name}/visual_drain{i}", type=cylinder, size=(radius, 0.001, 0), pos=place, rgba=rgba)


_PLATE: Floats = meshes.rings(measured.PLATE, 10)
_SINK: tuple[ArrayLike, ...] = (*(meshes.slab(bottom, top) for bottom, top in measured.SINK_SLABS), *measured.SINK_WALL)
_SHAPES: dict[str, tuple[Builder, ...]] = {
    "bridge_carrot_generated_modified": (
        _hulls(measured.CARROT),
        _painted(_carrot_root, _carrot_skin),
        _coloured(_carrot_leaves, (0.25, 0.42, 0.18), "_leaves"),
    ),
    "bridge_plate_objaverse_larger": (_hulls(_PLATE), _coloured(_plate, (0.89, 0.95, 0.64))),
    "bridge_spoon_generated_modified": (
        _hulls(*measured.SPOON),
        _painted(_spoon_handle, _handle_green),
        _coloured(_spoon_bowl, (0.9, 0.9, 0.89), "_bowl"),
    ),
    "table_cloth_generated_shorter": (_hulls(*measured.CLOTH), _painted(_towel, _terry)),
    "baked_green_cube_3cm": _cube((0.42, 0.6, 0.5, 1)),
    "baked_yellow_cube_3cm": _cube((1, 0.86, 0.52, 1)),
    "eggplant": (_hulls(measured.EGGPLANT), _painted(_eggplant, _eggplant_skin)),
    "dummy_sink_target_plane": (_box(0.065, 0.04, 0.001),),
    "sink": (
        _hulls(*_SINK),
        _coloured(_sink_body, (0.64, 0.75, 0.78)),
        _coloured(_basket, (0.93, 0.81, 0.46), "_basket"),
        _drain,
    ),
}
