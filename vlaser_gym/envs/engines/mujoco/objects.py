"""Objects of the scenes: contact shapes as measured, looks that a person recognises.

Contact shapes are convex hulls in group 3, named ``<object>/collision<i>``; what is seen is in group 2, named
``<object>/visual<i>``, and touches nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import mujoco
import numpy as np
from numpy.typing import ArrayLike

from vlaser_gym.envs.engines.base import Body
from vlaser_gym.envs.engines.mujoco import google_looks, measured, measured_google, meshes, object_looks, textures
from vlaser_gym.envs.engines.mujoco.meshes import Floats, Surface
from vlaser_gym.envs.tasks.base import ObjectShape, ObjectSpec
from vlaser_gym.envs.tasks.google_objects import MODELS, shape_of
from vlaser_gym.errors import UnknownNameError

COLLISION_GROUP, VISUAL_GROUP = 3, 2

Builder = Callable[[mujoco.MjSpec, mujoco.MjsBody, str], None]


def add_object(spec: mujoco.MjSpec, obj: ObjectSpec, changed: Body | None = None) -> mujoco.MjsBody:
    """Add the body ``object:<name>`` to the world: free joint unless fixed, inertia, contact shapes, looks.

    The body's frame is the original's actor frame.

    Args:
        spec: the scene.
        obj: the object, of the size that it is to have.
        changed: how its shapes and looks differ from the catalogue's.

    Raises:
        UnknownNameError: if there is no shape for the object.
    """
    builders = _SHAPES[_shape_key(obj.name)] if obj.shape is None else _own_shape(obj.shape)
    body = spec.worldbody.add_body(name=f"object:{obj.name}")
    if not obj.fixed:
        body.add_freejoint(name=f"object:{obj.name}")
    body.explicitinertial, body.mass = True, obj.mass
    body.ipos, body.iquat, body.inertia = obj.com, obj.com_rotation, obj.inertia
    for build in builders:
        build(spec, body, obj.name)
    if changed is not None:
        _scale_shapes(spec, body, changed.scale)
        for geom in body.geoms:
            if changed.colour is not None and geom.group == VISUAL_GROUP:
                material = spec.material(geom.material)
                material.textures = [""] * len(material.textures)
                material.rgba = (*changed.colour, 1.0)
    return body


def resized(obj: ObjectSpec, scale: float) -> ObjectSpec:
    """An object of another size and the same density.

    Example:
        >>> from vlaser_gym.envs.tasks.objects import GREEN_CUBE
        >>> resized(GREEN_CUBE, 2.0).bbox, round(resized(GREEN_CUBE, 2.0).mass, 3)
        ((0.06, 0.06, 0.06), 0.216)
    """
    x, y, z = obj.com
    a, b, c = obj.bbox
    i, j, k = obj.inertia
    inertia = (i * scale**5, j * scale**5, k * scale**5)
    com, bbox = (x * scale, y * scale, z * scale), (a * scale, b * scale, c * scale)
    return replace(obj, mass=obj.mass * scale**3, com=com, bbox=bbox, inertia=inertia)


def _scale_shapes(spec: mujoco.MjSpec, body: mujoco.MjsBody, scale: float) -> None:
    """Scale what is seen and what touches about the body's origin."""
    for geom in body.geoms:
        geom.pos = np.array(geom.pos) * scale
        if geom.type == mujoco.mjtGeom.mjGEOM_MESH:
            spec.mesh(geom.meshname).scale = np.full(3, scale)
        else:
            geom.size = np.array(geom.size) * scale


def _shape_key(name: str) -> str:
    """Key in the tables below: models of the Google scenes share shapes."""
    if name in _SHAPES:
        return name
    if name not in MODELS:
        raise UnknownNameError("object", name, [*_SHAPES, *MODELS])
    return shape_of(name)


def add_collision(body: mujoco.MjsBody, name: str, **shape: object) -> mujoco.MjsGeom:
    """Add a geom that touches and is not seen."""
    return body.add_geom(name=name, group=COLLISION_GROUP, contype=1, conaffinity=1, **shape)


def add_visual(body: mujoco.MjsBody, name: str, **shape: object) -> mujoco.MjsGeom:
    """Add a geom that is seen and touches nothing."""
    return body.add_geom(name=name, group=VISUAL_GROUP, contype=0, conaffinity=0, **shape)


def _hulls(*pieces: ArrayLike) -> Builder:
    def build(spec: mujoco.MjSpec, body: mujoco.MjsBody, name: str) -> None:
        """Add a convex mesh for each piece."""
        for i, points in enumerate(pieces):
            mesh = meshes.add_hull(spec, f"{name}/collision{i}", points)
            add_collision(body, mesh, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=mesh)

    return build


def _box(*half_size: float) -> Builder:
    def build(spec: mujoco.MjSpec, body: mujoco.MjsBody, name: str) -> None:
        """Add a box around the body's origin."""
        add_collision(body, f"{name}/collision0", type=mujoco.mjtGeom.mjGEOM_BOX, size=half_size)

    return build


def _own_shape(shape: ObjectShape) -> tuple[Builder, ...]:
    surface = Surface(shape.vertices, shape.faces, shape.uv)
    image = shape.image if shape.image.size else None

    def show(spec: mujoco.MjSpec, body: mujoco.MjsBody, name: str) -> None:
        """Add what is seen of the object: its surface under its texture, or in its colour."""
        _show(spec, body, f"{name}/visual0", surface, image=image, rgb=shape.colour)

    return _hulls(*(points / meshes.MILLIMETRE for points in shape.hulls)), show


def _cube(rgba: ArrayLike) -> tuple[Builder, ...]:
    size = (0.015, 0.015, 0.015)

    def paint(spec: mujoco.MjSpec, body: mujoco.MjsBody, name: str) -> None:
        """Add a cube of 3 cm in its colour."""
        material = textures.add_material(spec, name, rgba=rgba)
        add_visual(body, f"{name}/visual0", type=mujoco.mjtGeom.mjGEOM_BOX, size=size, material=material)

    return _box(*size), paint


def _painted(surface: Callable[[], Surface], image: Callable[[], textures.Image]) -> Builder:
    """A textured surface. Surface and texture are made when the object is, not at import."""

    def build(spec: mujoco.MjSpec, body: mujoco.MjsBody, name: str) -> None:
        """Add the surface under its texture."""
        _show(spec, body, f"{name}/visual0", surface(), image=image())

    return build


def _coloured(surface: Callable[[], Surface], rgb: tuple[float, float, float], part: int = 0) -> Builder:
    """A surface of one colour: textures on large areas are slow to draw in software."""

    def build(spec: mujoco.MjSpec, body: mujoco.MjsBody, name: str) -> None:
        """Add the surface in its colour."""
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

_WHITE: textures.Colour = (245.0, 245.0, 245.0)


def _can(
    hulls: tuple[measured.Hull, ...],
    profile: google_looks.Profile,
    ground: textures.Colour,
    wave: textures.Colour,
    mark: textures.Colour,
) -> tuple[Builder, ...]:
    return _hulls(*hulls), _painted(
        lambda: google_looks.turned(profile), lambda: google_looks.label(ground, wave, mark)
    )


def _bottle(hulls: tuple[measured.Hull, ...]) -> tuple[Builder, ...]:
    blue, paper = (40.0, 95.0, 190.0), (230.0, 235.0, 240.0)
    bands = [(0.0, blue), (0.25, blue), (0.26, paper), (0.5, paper), (0.51, blue), (0.9, blue), (0.91, paper)]
    return _hulls(*hulls), _painted(lambda: google_looks.turned(google_looks.BOTTLE), lambda: google_looks.plain(bands))


_SPONGE_CORNERS = np.array(measured_google.SPONGE[0])
_SHAPES.update(
    {
        "coke": _can(measured_google.COKE, google_looks.WIDE, (200, 16, 28), _WHITE, _WHITE),
        "pepsi": _can(measured_google.PEPSI, google_looks.WIDE, (24, 60, 150), _WHITE, (205, 30, 45)),
        "seven_up": _can(measured_google.SEVEN_UP, google_looks.WIDE, (20, 130, 60), _WHITE, (215, 40, 40)),
        "sprite": _can(measured_google.SPRITE, google_looks.WIDE, (60, 165, 70), (250, 225, 60), _WHITE),
        "fanta": _can(measured_google.FANTA, google_looks.WIDE, (240, 125, 20), _WHITE, (40, 70, 150)),
        "redbull": _can(measured_google.REDBULL, google_looks.SLIM, (30, 50, 125), (190, 195, 205), (205, 30, 40)),
        "redbull_baked": _can(
            measured_google.REDBULL_BAKED, google_looks.SLIM, (30, 50, 125), (190, 195, 205), (205, 30, 40)
        ),
        "bottle": _bottle(measured_google.BOTTLE),
        "bottle_baked_v2": _bottle(measured_google.BOTTLE_BAKED),
        "apple": (
            _hulls(*measured_google.APPLE),
            _painted(
                google_looks.apple,
                lambda: google_looks.plain([(0.0, (150, 20, 25)), (0.6, (190, 30, 35)), (1.0, (215, 160, 70))], seed=5),
            ),
        ),
        "orange": (
            _hulls(*measured_google.ORANGE),
            _painted(google_looks.orange, lambda: google_looks.plain([(0.0, (240, 130, 20)), (1, (230, 120, 15))])),
        ),
        "sponge": (
            _hulls(*measured_google.SPONGE),
            _painted(
                lambda: google_looks.sponge(_SPONGE_CORNERS.min(0), _SPONGE_CORNERS.max(0)),
                lambda: textures.fabric((190, 165, 45), (235, 215, 95), seed=3),
            ),
        ),
    }
)
#: The shared models keep their looks.
_SHAPES.update(
    {
        "spoon": _SHAPES["bridge_spoon_generated_modified"],
        "carrot": _SHAPES["bridge_carrot_generated_modified"],
        "green_cube_3cm": _SHAPES["baked_green_cube_3cm"],
        "yellow_cube_3cm": _SHAPES["baked_yellow_cube_3cm"],
    }
)
