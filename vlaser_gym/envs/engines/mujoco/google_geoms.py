"""Shapes of the Google Robot: what touches and what is seen, per link and in its frame.

All links collide as the original's convex pieces (SimplerEnv, ManiSkill2_real2sim ef7a4d4), and are seen as them too,
rounded by their shading: light covers with dark joints between them, a band around the hand, yellow fingers with grey
tips and black pads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import mujoco
import numpy as np

from vlaser_gym.envs.engines.mujoco import measured_google as measured
from vlaser_gym.envs.engines.mujoco import meshes
from vlaser_gym.envs.engines.mujoco.measured import Hull
from vlaser_gym.envs.engines.mujoco.meshes import Floats, Surface
from vlaser_gym.envs.engines.mujoco.objects import add_collision, add_visual
from vlaser_gym.envs.engines.mujoco.textures import add_material

_Rgb = tuple[float, float, float]

#: Colouring of the robot -> covers, joints, fingers. The unnamed one is the original description's.
_COLOURS: dict[str, tuple[_Rgb, _Rgb, _Rgb]] = {
    "": ((0.68, 0.68, 0.7), (0.4, 0.4, 0.42), (0.75, 0.71, 0.36)),
    "recolor_tabletop_visual_matching_1": ((0.55, 0.53, 0.5), (0.33, 0.32, 0.3), (0.5, 0.47, 0.3)),
    "recolor_tabletop_visual_matching_2": ((0.46, 0.45, 0.43), (0.28, 0.27, 0.26), (0.42, 0.38, 0.22)),
    "recolor_cabinet_visual_matching_1": ((0.5, 0.48, 0.44), (0.25, 0.24, 0.22), (0.34, 0.31, 0.2)),
}
_COVER, _JOINT, _YELLOW = range(3)
#: Hulls of so few corners look rounder with a bevel, of this share of their size.
_ANGULAR, _BEVEL = 16, 0.22


def _mirror(half: Hull) -> tuple[Floats, ...]:
    return (meshes.mirrored(half, axis=0),)


def _arrays(hulls: tuple[Hull, ...]) -> tuple[Floats, ...]:
    return tuple(np.array(hull, np.float64) for hull in hulls)


_FINGER, _TIP, _NAIL = (
    _mirror(half) for half in (measured.FINGER_HALF, measured.FINGER_TIP_HALF, measured.FINGER_NAIL_HALF)
)
#: Link -> its convex pieces (mm) and its part of the colouring.
_LINKS: dict[str, tuple[tuple[Floats, ...], int]] = {
    "link_base": (_arrays(measured.BASE), _COVER),
    "link_torso": (_arrays(measured.TORSO), _COVER),
    "link_shoulder": (_arrays(measured.SHOULDER), _COVER),
    "link_bicep": (_arrays(measured.BICEP), _COVER),
    "link_elbow": (_arrays(measured.ELBOW), _COVER),
    "link_forearm": (_arrays(measured.FOREARM), _COVER),
    "link_wrist": (_arrays(measured.WRIST), _JOINT),
    "link_gripper": (_arrays(measured.GRIPPER), _COVER),
    "link_finger_right": (_FINGER, _YELLOW),
    "link_finger_left": (_FINGER, _YELLOW),
    "link_finger_tip_right": (_TIP, _JOINT),
    "link_finger_tip_left": (_TIP, _JOINT),
    "link_finger_nail_right": (_NAIL, _JOINT),
    "link_finger_nail_left": (_NAIL, _JOINT),
    "link_head_pan": (_arrays(measured.HEAD_PAN), _JOINT),
    "link_head_tilt": (_arrays(measured.HEAD_TILT), _COVER),
}


def _ring(radius: float, low: float, high: float) -> Surface:
    """A closed band around z with rounded edges (mm)."""
    profile = [(radius - 1.5, low), (radius, low + 1.5), (radius, high - 1.5), (radius - 1.5, high)]
    return meshes.turned([(r * meshes.MILLIMETRE, z * meshes.MILLIMETRE) for r, z in profile], 28)


def _pin() -> Surface:
    """The axle on which a finger turns."""
    return meshes.tube([(-29, 0, 0), (29, 0, 0)], 11, sides=14)


#: Link -> what is seen of it besides, and its part of the colouring.
_DETAILS: dict[str, tuple[tuple[Callable[[], Surface], int], ...]] = {
    "link_forearm": ((partial(_ring, 47.5, -2, 12), _JOINT),),
    "link_gripper": ((partial(_ring, 51, 38, 46), _JOINT), (partial(_ring, 45, -4, 6), _JOINT)),
    "link_finger_right": ((_pin, _JOINT),),
    "link_finger_left": ((_pin, _JOINT),),
}
#: The head carries the camera: from inside, its covers would hide the scene.
_UNSEEN = ("link_head_tilt",)


def add_link_geoms(spec: mujoco.MjSpec, body: mujoco.MjsBody, link: str, colour: str = "") -> None:
    """Add the collision and visual geoms of a link to its body; links without a shape get none."""
    if link not in _LINKS:
        return
    hulls, part = _LINKS[link]
    for i, hull in enumerate(hulls):
        mesh = meshes.add_hull(spec, f"{link}/collision{i}", hull)
        add_collision(body, mesh, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=mesh)
    if link in _UNSEEN:
        return
    cover = meshes.joined(meshes.convex(_bevelled(hull) if len(hull) <= _ANGULAR else hull) for hull in hulls)
    mesh = meshes.add_surface(spec, f"{link}/visual0", cover)
    material = _material(spec, part, colour)
    add_visual(body, mesh, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=mesh, material=material)
    for i, (detail, shade) in enumerate(_DETAILS.get(link, ()), 1):
        mesh = meshes.add_surface(spec, f"{link}/visual{i}", detail())
        add_visual(body, mesh, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=mesh, material=_material(spec, shade, colour))


def _bevelled(hull: Floats) -> Floats:
    """Corners of a hull (mm) with each cut off: three in place of one, each drawn in along one axis."""
    middle = (hull.min(0) + hull.max(0)) / 2
    return np.concatenate([middle + (hull - middle) * (1 - _BEVEL * axis) for axis in np.eye(3)])


def _material(spec: mujoco.MjSpec, part: int, colour: str) -> str:
    name = f"robot/{part}"
    if spec.material(name) is None:
        add_material(spec, name, rgba=(*_COLOURS[colour][part], 1.0), specular=0.3, shininess=0.4)
    return name
