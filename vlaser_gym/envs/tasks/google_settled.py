"""Resting poses of the objects in the Google Robot scenes.

The original drops its objects and lets them settle inside ``reset``; here they are placed where they come to rest. An
object lies *flat* (the model unturned) or stands *upright* (turned by +90 degrees about x), and is then turned about
world z. Rows marked recorded were measured right after ``reset`` of the original (SimplerEnv, ManiSkill2_real2sim
ef7a4d4, SAPIEN 2.2.2, flat table top at 0.87 m) and rounded to a micrometre; the original trims the hulls of its
meshes, so that the corners of a mesh lie up to 0.7 mm below the ground. The three others were dropped and settled as
the original does it, in its physics (SAPIEN 2.2.2) and with its collision shapes and settings, but without the rest of
it: the most usual of 50 drops. Recorded rests come out so again: within 0.05 mm for things that stand or lie firmly,
0.8 mm for cans and bottles that lie, and millimetres off for those that rock or can roll on (bottle upright, fanta,
apple, orange, eggplant).

:data:`RESTS` has one row for each posture, whatever the place and the turn. Some objects rest a little otherwise, or
roll, wherever they are dropped: ``google_pick_starts.csv`` has what was recorded at single positions of the pick tasks'
grid.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from vlaser_gym.conventions.rotations import turned_about_z
from vlaser_gym.envs.tasks.base import Floats
from vlaser_gym.envs.tasks.google_objects import shape_of
from vlaser_gym.envs.tasks.region import box


@dataclass(frozen=True)
class Rest:
    """One posture of one shape.

    Attributes:
        offset: actor origin, relative to where it is dropped (x, y) and to the ground (z), m.
        rotation: quaternion wxyz.
        extent: what it covers of the ground, ``(low x, high x, low y, high y)`` around the actor origin with its
            heading as x axis, m.
        recorded: in the original itself; see the module's docstring.
    """

    offset: tuple[float, float, float]
    rotation: tuple[float, float, float, float]
    extent: tuple[float, float, float, float]
    recorded: bool


#: (shape, posture) -> how it rests.
RESTS: dict[tuple[str, str], Rest] = {
    ("pepsi", "flat"): Rest(
        (-0.00101, -0.000052, 0.033008), (0.999884, 0.000865, -0.015211, 0.000028),
        (-0.0332, 0.0336, -0.0643, 0.0599), True),
    ("pepsi", "upright"): Rest(
        (1e-06, 0.0, 0.064289), (0.707107, 0.707107, 3e-06, 0.0),
        (-0.0332, 0.0337, -0.0338, 0.0331), True),
    ("coke", "flat"): Rest(
        (-0.000879, -0.000157, 0.032094), (0.999899, 0.002473, -0.013941, -0.001024),
        (-0.0332, 0.0337, -0.0692, 0.0539), True),
    ("coke", "upright"): Rest(
        (-0.000336, -0.000166, 0.068941), (0.705632, 0.708574, -0.001804, 0.001792),
        (-0.0332, 0.0337, -0.0343, 0.0322), True),
    ("sprite", "flat"): Rest(
        (-0.003163, 0.000069, 0.033204), (0.998873, -0.000935, -0.047453, -0.000087),
        (-0.0332, 0.0339, -0.0621, 0.0612), True),
    ("sprite", "upright"): Rest(
        (0.000003, 0.000003, 0.06201), (0.707106, 0.707107, -0.000007, -0.000008),
        (-0.0333, 0.0341, -0.0338, 0.0335), True),
    ("fanta", "flat"): Rest(
        (0.004531, 0.001719, 0.033053), (0.997646, -0.000147, 0.068575, 0.000268),
        (-0.0332, 0.0338, -0.0636, 0.0596), True),
    ("fanta", "upright"): Rest(
        (-0.000026, -0.000072, 0.063578), (0.706693, 0.707521, -0.000166, 0.000132),
        (-0.0334, 0.034, -0.0341, 0.0334), True),
    ("seven_up", "flat"): Rest(
        (-0.004439, -1e-06, 0.033218), (0.997783, 1.8e-05, -0.066546, 0.000265),
        (-0.0327, 0.0329, -0.063, 0.059), False),
    ("seven_up", "upright"): Rest(
        (-3.9e-05, 0.0, 0.062957), (0.707107, 0.707106, -0.000219, 0.000218),
        (-0.0331, 0.0332, -0.0327, 0.0335), True),
    ("redbull", "flat"): Rest(
        (-0.002161, -0.000047, 0.029285), (0.999324, 0.00072, -0.036762, -0.000048),
        (-0.0299, 0.0299, -0.0658, 0.0676), True),
    ("redbull", "upright"): Rest(
        (0.00099, 0.001032, 0.065552), (0.712631, 0.701498, 0.005335, -0.00538),
        (-0.0306, 0.0308, -0.0307, 0.0308), True),
    ("redbull_baked", "flat"): Rest(
        (-0.002064, 7.9e-05, 0.029062), (0.99936, -0.001273, -0.035748, -0.000122),
        (-0.0292, 0.0292, -0.0652, 0.0669), False),
    ("redbull_baked", "upright"): Rest(
        (0.000135, 6.4e-05, 0.065147), (0.707426, 0.706787, 0.000739, -0.00066),
        (-0.0293, 0.0293, -0.0293, 0.0293), True),
    ("bottle", "flat"): Rest(
        (0.000746, 0.00051, 0.029405), (0.999842, -0.009066, 0.015233, 0.001063),
        (-0.0295, 0.0325, -0.0883, 0.1156), True),
    ("bottle", "upright"): Rest(
        (0.004682, 0.001391, 0.087296), (0.712528, 0.701134, 0.018131, -0.019661),
        (-0.032, 0.0333, -0.0355, 0.0298), True),
    ("bottle_baked_v2", "flat"): Rest(
        (0.0021, 0.000564, 0.030139), (0.999237, -0.009682, 0.036792, 0.008868),
        (-0.03, 0.0334, -0.0889, 0.1162), False),
    ("apple", "flat"): Rest(
        (0.000318, 0.000937, 0.035875), (0.999905, -0.013266, 0.001775, -0.003324),
        (-0.0409, 0.0399, -0.0403, 0.0404), True),
    ("apple", "upright"): Rest(
        (-0.018673, 0.007079, 0.039024), (0.727021, 0.644311, -0.173006, 0.162398),
        (-0.0417, 0.0398, -0.0433, 0.0373), True),
    ("orange", "flat"): Rest(
        (0.000114, -5.7e-05, 0.035878), (0.999998, 0.0008, 0.001587, 4e-06),
        (-0.0354, 0.0353, -0.0354, 0.0354), True),
    ("orange", "upright"): Rest(
        (0.017145, 0.003315, 0.034695), (0.718366, 0.651566, 0.180686, -0.163599),
        (-0.0354, 0.0354, -0.0337, 0.0358), True),
    ("sponge", "flat"): Rest(
        (2.9e-05, 3.1e-05, 0.018549), (0.999999, -0.000836, 0.000781, 1e-06),
        (-0.0506, 0.0506, -0.032, 0.0392), True),
    ("sponge", "upright"): Rest(
        (0.0, -0.000008, 0.031962), (0.707026, 0.707188, 0.000003, 0.000003),
        (-0.0505, 0.0505, -0.0186, 0.0186), True),
    ("spoon", "flat"): Rest(
        (-0.000453, -0.000184, 0.010406), (0.999742, 0.00624, -0.021835, -0.000624),
        (-0.0737, 0.0677, -0.0178, 0.0178), True),
    ("spoon", "upright"): Rest(
        (0.001159, -0.000044, 0.014255), (0.706038, 0.707184, 0.026363, -0.026574),
        (-0.073, 0.0678, -0.0153, 0.0117), True),
    ("carrot", "flat"): Rest(
        (0.00154, 0.000003, 0.017997), (0.999065, 0.000013, 0.043223, -0.000293),
        (-0.0645, 0.056, -0.0163, 0.0159), True),
    ("carrot", "upright"): Rest(
        (0.000707, -0.000019, 0.0164), (0.706946, 0.706934, 0.015675, -0.015069),
        (-0.0642, 0.0545, -0.0234, 0.0178), True),
    ("cube", "flat"): Rest(
        (-0.000029, 0.000029, 0.015), (1.0, 0.0, 0.0, 0.000012),
        (-0.015, 0.015, -0.015, 0.015), True),
    ("cube", "upright"): Rest(
        (0.000029, -0.000028, 0.015), (0.707107, 0.707106, 0.000009, 0.000009),
        (-0.015, 0.015, -0.015, 0.015), True),
    ("eggplant", "flat"): Rest(
        (-0.00447, 0.002151, 0.018386), (0.991537, -0.056574, -0.116094, 0.013273),
        (-0.0464, 0.0337, -0.0192, 0.0185), True),
    ("eggplant", "upright"): Rest(
        (-0.002291, -0.018549, 0.016879), (0.238334, 0.969064, -0.063314, 0.01017),
        (-0.0443, 0.0337, -0.0182, 0.0194), True),
}  # fmt: skip


def rest_of(model: str, posture: str) -> Rest:
    """The resting pose of a model, ``"flat"`` or ``"upright"``.

    Raises:
        KeyError: if that posture of the model is not known.
    """
    return RESTS[shape_of(model), posture]


def resting(model: str, posture: str, yaw: float, xy: tuple[float, float], ground: float) -> Floats:
    """Pose ``[7]`` of a model dropped at ``xy`` (m), turned by ``yaw`` (rad), on a ground of that height (m)."""
    rest = rest_of(model, posture)
    dx, dy, height = rest.offset
    c, s = np.cos(yaw), np.sin(yaw)
    rotation = np.array(rest.rotation) / np.linalg.norm(rest.rotation)
    at = (xy[0] + c * dx - s * dy, xy[1] + s * dx + c * dy, ground + height)
    return np.array([*at, *turned_about_z(rotation, yaw)])


def footprint(model: str, posture: str) -> Floats:
    """Outline ``[4, 2]`` of what a resting model covers, around its actor origin with its heading as x axis, m."""
    return box(*rest_of(model, posture).extent)


@cache
def pick_starts() -> dict[tuple[str, str, str], Floats]:
    """``google_pick_starts.csv``: shape, orientation, position (``"0"``.. or ``"*"``) -> pose ``[7]``.

    Poses are relative to the grid position (x, y) and to the table (z), in world axes, m and unit quaternions.
    """
    text = files(__package__).joinpath("google_pick_starts.csv").read_text(encoding="utf-8")
    starts = {}
    for *key, x, y, z, qw, qx, qy, qz in list(csv.reader(line for line in text.splitlines() if line[0] != "#"))[1:]:
        pose = np.array((x, y, z, qw, qx, qy, qz), np.float64)
        pose[3:] /= np.linalg.norm(pose[3:])
        pose.setflags(write=False)
        starts[key[0], key[1], key[2]] = pose
    return starts
