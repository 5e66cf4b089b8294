"""How the objects of the Google Robot scenes lie and stand.

The original drops its objects and lets them settle inside ``reset``; here they are placed where they come to rest. An
object lies *flat* (the model unturned) or stands *upright* (turned by +90 degrees about x), and is then turned about
world z. Rows marked recorded were measured right after ``reset`` of the original (SimplerEnv, ManiSkill2_real2sim
ef7a4d4, SAPIEN 2.2.2, flat table top at 0.87 m) and rounded to a micrometre. The others were computed: the original's
collision shape, started 0.02 mm above a plane, was let down with strong damping (MuJoCo 4.0). For the nine postures
known from both, the two agree within 0.1 mm in height, 0.5 mm sideways and 0.8 degrees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlaser_gym.envs.tasks.base import Floats
from vlaser_gym.envs.tasks.geometry import turned
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
        recorded: see the module's docstring.
    """

    offset: tuple[float, float, float]
    rotation: tuple[float, float, float, float]
    extent: tuple[float, float, float, float]
    recorded: bool


#: (shape, posture) -> how it rests.
RESTS: dict[tuple[str, str], Rest] = {
    ("pepsi", "flat"): Rest(
        (-0.000945, 0.0, 0.033066), (0.999898, 0.0, -0.014271, 0.0),
        (-0.0332, 0.0336, -0.0643, 0.0599), False),
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
        (-0.003806, 0.0, 0.033279), (0.998375, 2e-06, -0.056979, 4.9e-05),
        (-0.0331, 0.0339, -0.062, 0.0611), False),
    ("sprite", "upright"): Rest(
        (0.0, 0.0, 0.06201), (0.707106, 0.707107, 0.0, -1e-06),
        (-0.0333, 0.0341, -0.0338, 0.0335), False),
    ("fanta", "flat"): Rest(
        (0.001619, 0.0, 0.033311), (0.999705, -1e-06, 0.024274, -1e-06),
        (-0.0334, 0.0339, -0.0636, 0.0596), False),
    ("fanta", "upright"): Rest(
        (-1.4e-05, -1.2e-05, 0.063579), (0.707039, 0.707175, -7.6e-05, 7.6e-05),
        (-0.0334, 0.0339, -0.034, 0.0333), False),
    ("seven_up", "flat"): Rest(
        (9e-06, 0.0, 0.033522), (1.0, 8e-06, 0.000129, 1e-06),
        (-0.033, 0.0332, -0.063, 0.059), False),
    ("seven_up", "upright"): Rest(
        (-3.9e-05, 0.0, 0.062957), (0.707107, 0.707106, -0.000219, 0.000218),
        (-0.0331, 0.0332, -0.0327, 0.0335), True),
    ("seven_up_baked", "upright"): Rest(
        (0.0, 0.0, 0.062971), (0.707107, 0.707107, 0.0, 0.0),
        (-0.033, 0.0332, -0.0327, 0.0335), False),
    ("redbull", "flat"): Rest(
        (0.000138, 0.0, 0.029921), (0.999997, 1e-06, 0.002295, -9e-06),
        (-0.0299, 0.0299, -0.0658, 0.0675), False),
    ("redbull", "upright"): Rest(
        (0.0, 0.0, 0.06582), (0.707107, 0.707107, 0.0, 0.0),
        (-0.0299, 0.0299, -0.0299, 0.0299), False),
    ("redbull_baked", "flat"): Rest(
        (0.000783, 0.0, 0.029202), (0.99991, 1e-06, 0.013414, 0.0),
        (-0.0292, 0.0292, -0.0652, 0.0669), False),
    ("redbull_baked", "upright"): Rest(
        (0.000135, 6.4e-05, 0.065147), (0.707426, 0.706787, 0.000739, -0.00066),
        (-0.0293, 0.0293, -0.0293, 0.0293), True),
    ("bottle", "flat"): Rest(
        (0.000348, 0.000458, 0.029799), (0.999954, -0.007502, 0.005892, 0.000499),
        (-0.0296, 0.0325, -0.0883, 0.1156), False),
    ("bottle", "upright"): Rest(
        (0.004682, 0.001391, 0.087296), (0.712528, 0.701134, 0.018131, -0.019661),
        (-0.032, 0.0333, -0.0355, 0.0298), True),
    ("bottle_baked_v2", "flat"): Rest(
        (0.000486, 0.000479, 0.030483), (0.999938, -0.007677, 0.008037, 0.000207),
        (-0.0303, 0.0332, -0.0889, 0.1162), False),
    ("apple", "flat"): Rest(
        (0.000318, 0.000937, 0.035875), (0.999905, -0.013266, 0.001775, -0.003324),
        (-0.0409, 0.0399, -0.0403, 0.0404), True),
    ("apple", "upright"): Rest(
        (-0.003952, 0.003032, 0.039859), (0.732384, 0.679105, -0.035565, 0.034137),
        (-0.0409, 0.0398, -0.0439, 0.0367), False),
    ("orange", "flat"): Rest(
        (0.000114, -5.7e-05, 0.035878), (0.999998, 0.0008, 0.001587, 4e-06),
        (-0.0354, 0.0353, -0.0354, 0.0354), True),
    ("orange", "upright"): Rest(
        (0.00034, -0.000182, 0.035346), (0.705271, 0.708922, 0.003381, -0.003418),
        (-0.0354, 0.0353, -0.0329, 0.0359), False),
    ("sponge", "flat"): Rest(
        (2.9e-05, 3.1e-05, 0.018549), (0.999999, -0.000836, 0.000781, 1e-06),
        (-0.0506, 0.0506, -0.032, 0.0392), True),
    ("sponge", "upright"): Rest(
        (0.0, 0.0, 0.031965), (0.707107, 0.707107, 0.0, 0.0),
        (-0.0505, 0.0505, -0.0186, 0.0186), False),
    ("spoon", "flat"): Rest(
        (-0.000535, 0.000308, 0.010695), (0.99961, -0.014454, -0.023893, 0.000386),
        (-0.0738, 0.0676, -0.0177, 0.0178), False),
    ("spoon", "upright"): Rest(
        (0.001135, -0.000322, 0.014612), (0.699031, 0.714249, 0.024781, -0.024287),
        (-0.073, 0.0678, -0.0153, 0.0117), False),
    ("carrot", "flat"): Rest(
        (0.001548, 0.0, 0.017996), (0.999066, 0.0, 0.043212, 0.0),
        (-0.0645, 0.056, -0.0163, 0.0159), False),
    ("carrot", "upright"): Rest(
        (0.000709, 0.0, 0.016399), (0.706938, 0.706941, 0.015363, -0.015363),
        (-0.0642, 0.0545, -0.0234, 0.0178), False),
    ("cube", "flat"): Rest(
        (0.0, 0.0, 0.015), (1.0, 0.0, 0.0, 0.0),
        (-0.015, 0.015, -0.015, 0.015), False),
    ("cube", "upright"): Rest(
        (0.0, 0.0, 0.015), (0.707107, 0.707107, 0.0, 0.0),
        (-0.015, 0.015, -0.015, 0.015), False),
    ("eggplant", "flat"): Rest(
        (-0.004552, -1.4e-05, 0.018808), (0.993195, 0.00051, -0.116458, -0.000413),
        (-0.0465, 0.0337, -0.0189, 0.0185), False),
    ("eggplant", "upright"): Rest(
        (-0.002634, -0.002826, 0.017432), (0.647067, 0.759054, -0.054602, 0.046476),
        (-0.0442, 0.0337, -0.0176, 0.0204), False),
}  # fmt: skip


def rest_of(model: str, posture: str) -> Rest:
    """How a model rests ``"flat"`` or ``"upright"``.

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
    return np.array([*at, *turned(rotation, yaw)])


def footprint(model: str, posture: str) -> Floats:
    """Outline ``[4, 2]`` of what a resting model covers, around its actor origin with its heading as x axis, m."""
    return box(*rest_of(model, posture).extent)
