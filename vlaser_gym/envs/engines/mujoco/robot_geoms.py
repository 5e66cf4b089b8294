"""Shapes of the WidowX 250 S: what touches and what is seen, per link and in its frame.

The fingers, the bar on which they slide and the motor housing collide as convex hulls measured from the original's
(SimplerEnv, ManiSkill2_real2sim ef7a4d4: one hull per link); the arm, which hardly ever touches anything, as boxes.
"""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np
from numpy.typing import ArrayLike

from vlaser_gym.envs.engines.mujoco import measured, meshes
from vlaser_gym.envs.engines.mujoco.meshes import Floats, Surface
from vlaser_gym.envs.engines.mujoco.objects import add_collision, add_visual
from vlaser_gym.envs.engines.mujoco.textures import add_material

_BLACK = (0.235, 0.24, 0.24, 1.0)
_MATERIAL = "robot/black"

_FINGER = meshes.mirrored(measured.FINGER_HALF, axis=2)
_RIGHT = np.array([1.0, -1.0, 1.0])
_HULLS: dict[str, Floats] = {
    "gripper_link": meshes.mirrored(measured.GRIPPER_HALF, axis=1),
    "gripper_prop_link": meshes.mirrored(measured.PROP_HALF, axis=1),
    "gripper_bar_link": meshes.mirrored(measured.BAR_HALF, axis=1),
    "left_finger_link": _FINGER,
    "right_finger_link": _FINGER * _RIGHT,
}


def add_link_geoms(spec: mujoco.MjSpec, body: mujoco.MjsBody, link: str, colour: str = "") -> None:
    """Add the collision and visual geoms of a link to its body; links without a shape get none.

    There is one colouring of this robot only.
    """
    if link in _HULLS:
        mesh = meshes.add_hull(spec, f"{link}/collision0", _HULLS[link])
        add_collision(body, mesh, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=mesh)
    for i, box in enumerate(measured.ARM_BOXES.get(link, ())):
        bounds = np.array(box).T * meshes.MILLIMETRE
        position, size = bounds.mean(0), (bounds[1] - bounds[0]) / 2
        add_collision(body, f"{link}/collision{i}", type=mujoco.mjtGeom.mjGEOM_BOX, pos=position, size=size)
    if link in _LOOKS:
        if spec.material(_MATERIAL) is None:
            add_material(spec, _MATERIAL, rgba=_BLACK, specular=0.3, shininess=0.4)
        mesh = meshes.add_faceted(spec, f"{link}/visual0", meshes.joined(_LOOKS[link]()))
        add_visual(body, mesh, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=mesh, material=_MATERIAL)


def _disc(x: tuple[float, float], radius: float, y: float = 0.0, z: float = 0.0) -> Surface:
    """A disc (mm) with its axis along x."""
    return meshes.oval([(end, y, z, radius, radius) for end in x], count=16)


def _prism(outline: ArrayLike, axis: int, ends: tuple[float, float]) -> Surface:
    """A convex outline in the two other axes (mm), drawn out along ``axis``."""
    points = np.asarray(outline, np.float64)
    return meshes.convex(np.concatenate([np.insert(points, axis, end, 1) for end in ends]))


def _base() -> list[Surface]:
    foot = _prism([(-157, -40), (-157, 40), (0, 76.5), (50, 60), (76.5, 0), (50, -60), (0, -76.5)], 2, (0, 22))
    return [foot, meshes.turned([(0.055, 0.022), (0.05, 0.071), (0, 0.0716)], 20)]


def _shoulder() -> list[Surface]:
    cheeks = [meshes.box((-24, 24), y, (5, 49.5)) for y in ((-46, -24), (24, 46))]
    return [meshes.turned([(0.051, -0.003), (0.051, 0.005)], 20), *cheeks]


def _upper_arm() -> list[Surface]:
    shoulder = _prism([(0, 212), (20, 222), (20, 268), (0, 268), (-10, 255), (-10, 222)], 1, (-52, 52))
    motors = [meshes.box((20, 61), y, (235, 268)) for y in ((-50, -16), (16, 50))]
    return [meshes.box((-11, 11), (-14, 14), (-14.4, 215)), shoulder, *motors]


def _lower_forearm() -> list[Surface]:
    motors = [meshes.box((2, 36), (-11, 35), (-14.3, 14.3)), meshes.box((40, 86.3), (-17, 17), (-14.3, 14.3))]
    cheeks = [meshes.box((8, 75), (-16, 24), z) for z in ((-17.4, -14.2), (14.2, 17.4))]
    return [_disc((-4, 6), 24.5), *motors, *cheeks]


def _wrist() -> list[Surface]:
    fork = [(-3, -11), (30, -11), (55, 2), (55, 31), (40, 31), (0, 11)]
    sides = [_prism(fork, 1, y) for y in ((-22, -19), (19, 22))]
    return [meshes.box((29, 65), (-14.25, 14.25), (-11.2, 35.25)), *sides, _disc((62, 65), 20)]


def _gripper() -> list[Surface]:
    section = [(-12.2, -11.2), (12.2, -11.2), (14.25, -9.2), (14.25, 33.2), (12.2, 35.25), (-12.2, 35.25)]
    section += [(-14.25, 33.2), (-14.25, -9.2)]
    return [_prism(section, 0, (0, 43)), _disc((0, 3), 20)]


def _bar() -> list[Surface]:
    """A plate under the motor, two posts, and the rail that carries the fingers."""
    half = [(0, -14.5), (44, -6.8), (49.7, -5), (51.8, -1.5), (51.8, 1.5), (49.4, 5.2), (24, 17.5), (-24, 17.5)]
    lower = half[:-1] + [(-y, z) for y, z in half[1:-1]]
    upper = [(24, 17.5), (-24, 17.5), (12, 35.5), (-12, 35.5)]
    posts = [_disc((3, 18), 4.4, y) for y in (-46, 46)]
    rail = meshes.box((18, 28.3), (-50.3, 50.3), (-5.3, 5.3))
    return [_prism(lower, 0, (0, 3)), _prism(upper, 0, (0, 3)), *posts, rail]


def _finger(side: float) -> Callable[[], list[Surface]]:
    def build() -> list[Surface]:
        """Convex pieces of the finger, mm."""
        outline = [(x, y, z) for x, z in ((-6, 14.5), (12, 14.5), (42.3, 12.8)) for y in (-8.95, -4)]
        block = [(x, y, 14.5) for x in (-6, 12) for y in (-8.95, 3)] + [(-6, 5, 12.5), (12, 5, 12.5)]
        column = [(x, y, 5.6) for x in (-12.2, -6) for y in (-4.9, 5)]
        pad, carriage, neck = (meshes.mirrored(corners, axis=2) for corners in (outline, block, column))
        pieces = [pad, carriage, neck, _leg(1), _leg(-1)]
        return [meshes.convex(piece * np.array([1.0, side, 1.0])) for piece in pieces]

    return build


def _leg(side: int) -> Floats:
    """One of the two ribs behind the pad, between which the finger is open."""
    root = [(12, 5, 12), (12, 2.5, 14.5), (12, 5, 9.5), (12, -4, 9.5), (12, -4, 14.5)]
    middle = [(37, -2.4, 13.1), (38, 0, 10.5), (38, 0, 8.5)]
    tip = [(43.1, -6, 10.2), (43.1, -6, 7), (43.1, -8.9, 12.1), (43.1, -8.9, 7)]
    return np.asarray(np.array([*root, *middle, *tip], np.float64) * np.array([1.0, 1.0, side]))


_LOOKS: dict[str, Callable[[], list[Surface]]] = {
    "base_link": _base,
    "shoulder_link": _shoulder,
    "upper_arm_link": _upper_arm,
    "upper_forearm_link": lambda: [
        meshes.box((-14.4, 30), (-20, 20), (-14, 14)),
        _disc((0, 172), 14),
        _disc((165, 175), 21.2),
    ],
    "lower_forearm_link": _lower_forearm,
    "wrist_link": _wrist,
    "gripper_link": _gripper,
    "gripper_prop_link": lambda: [_disc((-2.5, 9), 6)],
    "gripper_bar_link": _bar,
    "left_finger_link": _finger(1.0),
    "right_finger_link": _finger(-1.0),
}
