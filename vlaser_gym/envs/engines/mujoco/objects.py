"""Objects of the WidowX scenes: contact shapes as measured, looks that a person recognises.

Contact shapes are convex hulls in group 3, named ``<object>/collision<i>``; what is seen is in group 2, named
``<object>/visual<i>``, and touches nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import mujoco
from numpy.typing import ArrayLike

from vlaser_gym.envs.engines.mujoco import measured, meshes
from vlaser_gym.envs.tasks.base import ObjectSpec
from vlaser_gym.errors import UnknownNameError

COLLISION_GROUP, VISUAL_GROUP = 3, 2


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
    collide, paint = _SHAPES[obj.name]
    collide(spec, body, obj.name)
    paint(spec, body, obj.name)
    return body


def _hulls(*pieces: ArrayLike) -> Callable[[mujoco.MjSpec, mujoco.MjsBody, str], None]:
    def collide(spec: mujoco.MjSpec, body: mujoco.MjsBody, name: str) -> None:
        for i, points in enumerate(pieces):
            mesh = meshes.add_hull(spec, f"{name}/collision{i}", points)
            add_collision(body, mesh, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=mesh)

    return collide


def _box(*half_size: float) -> Callable[[mujoco.MjSpec, mujoco.MjsBody, str], None]:
    def collide(spec: mujoco.MjSpec, body: mujoco.MjsBody, name: str) -> None:
        add_collision(body, f"{name}/collision0", type=mujoco.mjtGeom.mjGEOM_BOX, size=half_size)

    return collide


def add_collision(body: mujoco.MjsBody, name: str, **shape: object) -> mujoco.MjsGeom:
    """Add a geom that touches and is not seen."""
    return body.add_geom(name=name, group=COLLISION_GROUP, contype=1, conaffinity=1, **shape)


def add_visual(body: mujoco.MjsBody, name: str, **shape: object) -> mujoco.MjsGeom:
    """Add a geom that is seen and touches nothing."""
    return body.add_geom(name=name, group=VISUAL_GROUP, contype=0, conaffinity=0, **shape)


def _plain(rgba: tuple[float, float, float, float], *pieces: ArrayLike) -> Callable[..., None]:
    def paint(spec: mujoco.MjSpec, body: mujoco.MjsBody, name: str) -> None:
        for i, _ in enumerate(pieces):
            add_visual(
                body, f"{name}/visual{i}", type=mujoco.mjtGeom.mjGEOM_MESH, meshname=f"{name}/collision{i}", rgba=rgba
            )

    return paint


def _plain_box(rgba: tuple[float, float, float, float], *half_size: float) -> Callable[..., None]:
    def paint(spec: mujoco.MjSpec, body: mujoco.MjsBody, name: str) -> None:
        add_visual(body, f"{name}/visual0", type=mujoco.mjtGeom.mjGEOM_BOX, size=half_size, rgba=rgba)

    return paint


def _unseen(spec: mujoco.MjSpec, body: mujoco.MjsBody, name: str) -> None:
    pass


_PLATE = meshes.rings(measured.PLATE, 10)
_SINK: tuple[ArrayLike, ...] = (*(meshes.slab(bottom, top) for bottom, top in measured.SINK_SLABS), *measured.SINK_WALL)
LOOKS: Iterable[str] = ("builtin",)
_SHAPES = {
    "bridge_carrot_generated_modified": (_hulls(measured.CARROT), _plain((0.9, 0.4, 0.1, 1), measured.CARROT)),
    "bridge_plate_objaverse_larger": (_hulls(_PLATE), _plain((0.9, 1, 0.7, 1), _PLATE)),
    "bridge_spoon_generated_modified": (_hulls(*measured.SPOON), _plain((0.7, 0.9, 0.3, 1), *measured.SPOON)),
    "table_cloth_generated_shorter": (_hulls(*measured.CLOTH), _plain((0.6, 0.8, 0.9, 1), *measured.CLOTH)),
    "baked_green_cube_3cm": (_box(0.015, 0.015, 0.015), _plain_box((0.3, 0.5, 0.4, 1), 0.015, 0.015, 0.015)),
    "baked_yellow_cube_3cm": (_box(0.015, 0.015, 0.015), _plain_box((1, 0.85, 0.5, 1), 0.015, 0.015, 0.015)),
    "eggplant": (_hulls(measured.EGGPLANT), _plain((0.4, 0.15, 0.5, 1), measured.EGGPLANT)),
    "dummy_sink_target_plane": (_box(0.065, 0.04, 0.001), _unseen),
    "sink": (_hulls(*_SINK), _plain((0.6, 0.8, 0.85, 1), *_SINK)),
}
