"""Objects of the WidowX scenes: contact shapes as measured, looks that a person recognises.

Contact shapes are convex hulls in group 3, named ``<object>/collision<i>``; what is seen is in group 2, named
``<object>/visual<i>``, and touches nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import mujoco
from numpy.typing import ArrayLike

from vlaser_gym.envs.engines.mujoco import measured, meshes, object_looks, textures
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
        _show(spec, body, f"{name}/visual0", surface(), image=image())

    return build


def _coloured(surface: Callable[[], Surface], rgb: tuple[float, float, float], part: int = 0) -> Builder:
    """A surface of one colour: textures on large areas are slow to draw in software."""

    def build(spec: mujoco.MjSpec, body: mujoco.MjsBody, name: str) -> None:
        _show(spec, body, f"{name}/visual{part}", surface(), rgb=rgb)

    return build


def _show(
    spec: mujoco.MjSpec,
    body: mujoco.MjsBody,
    name: str,
    surface: Surface,
    *,
    image: textures.Image | None = None,
    rgb: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> None:
    mesh = meshes.add_surface(spec, name, surface)
    material = textures.add_material(spec, name, image, rgba=(*rgb, 1.0))
    add_visual(body, mesh, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=mesh, material=material)


_PLATE: Floats = meshes.rings(measured.PLATE, 10)
_SINK: tuple[ArrayLike, ...] = (*(meshes.slab(bottom, top) for bottom, top in measured.SINK_SLABS), *measured.SINK_WALL)
_SHAPES: dict[str, tuple[Builder, ...]] = {
    "bridge_carrot_generated_modified": (
        _hulls(measured.CARROT),
        _painted(object_looks.carrot_root, object_looks.carrot_skin),
        _coloured(object_looks.carrot_leaves, (0.25, 0.42, 0.18), part=1),
    ),
    "bridge_plate_objaverse_larger": (_hulls(_PLATE), _coloured(object_looks.plate, (0.89, 0.95, 0.64))),
    "bridge_spoon_generated_modified": (
        _hulls(*measured.SPOON),
        _painted(object_looks.spoon_handle, object_looks.handle_green),
        _coloured(object_looks.spoon_bowl, (0.9, 0.9, 0.89), part=1),
    ),
    "table_cloth_generated_shorter": (_hulls(*measured.CLOTH), _painted(object_looks.towel, object_looks.terry)),
    "baked_green_cube_3cm": _cube((0.36, 0.61, 0.47, 1)),
    "baked_yellow_cube_3cm": _cube((1, 0.86, 0.52, 1)),
    "eggplant": (_hulls(measured.EGGPLANT), _painted(object_looks.eggplant, object_looks.eggplant_skin)),
    "dummy_sink_target_plane": (_box(0.065, 0.04, 0.001),),
    "sink": (
        _hulls(*_SINK),
        _coloured(object_looks.sink_body, (0.64, 0.75, 0.78)),
        _coloured(object_looks.basket, (0.93, 0.81, 0.46), part=1),
        _coloured(object_looks.drain, (0.2, 0.24, 0.26), part=2),
    ),
}
