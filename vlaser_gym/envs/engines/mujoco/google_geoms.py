"""Shapes of the Google Robot: what touches and what is seen, per link and in its frame.

All links collide as the original's convex pieces (SimplerEnv, ManiSkill2_real2sim ef7a4d4), and are seen as them too:
light covers, yellow fingers with grey tips.
"""

from __future__ import annotations

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
    mesh = meshes.add_faceted(spec, f"{link}/visual0", _cover(hulls))
    material = _material(spec, part, colour)
    add_visual(body, mesh, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=mesh, material=material)


def _cover(hulls: tuple[Floats, ...]) -> Surface:
    return meshes.joined(meshes.convex(hull) for hull in hulls)


def _material(spec: mujoco.MjSpec, part: int, colour: str) -> str:
    name = f"robot/{part}"
    if spec.material(name) is None:
        add_material(spec, name, rgba=(*_COLOURS[colour][part], 1.0), specular=0.3, shininess=0.4)
    return name
