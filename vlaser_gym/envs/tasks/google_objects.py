"""The objects of the Google Robot scenes, as numbers.

Several models share a collision shape, and with it centre of mass and inertia; a body's mass is its shape's volume
times a density. The numbers are those that the original's physics (SAPIEN 2.2.2) gives the collision shapes of
ManiSkill2_real2sim (ef7a4d4); for all shapes of which a body was recorded in the running original, they are the same.
Boxes and densities are those of the databases ``info_pick_custom_v0.json`` and
``info_pick_custom_baked_tex_v{0,1}.json``; success rules use these boxes even where the mesh has another size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from vlaser_gym.envs.tasks import objects
from vlaser_gym.envs.tasks.base import ObjectSpec
from vlaser_gym.errors import UnknownNameError

_Triple = tuple[float, float, float]


@dataclass(frozen=True)
class _Shape:
    """A body of some density: kg/m^3, kg, and the frame and values of its principal moments (m, kg m^2)."""

    density: float
    mass: float
    com: _Triple
    com_rotation: tuple[float, float, float, float]
    inertia: _Triple


_SHAPES = {
    "coke": _Shape(
        50, 0.0199575033, (7.77053647e-05, -0.00783845875, 0.000634123571),
        (0.952065825, 0.00240403647, 0.305874109, -0.00243954221),
        (2.82453093e-05, 1.04576911e-05, 2.836766e-05)),
    "pepsi": _Shape(
        50, 0.0203709397, (0.00021062087, -0.00266431877, 0.000302669825),
        (0.999925852, -0.000143080353, -0.0121787684, 0.000139597672),
        (2.90836142e-05, 1.08723989e-05, 2.90713251e-05)),
    "seven_up": _Shape(
        50, 0.0196457915, (5.43525057e-05, -0.0025213561, -0.000434962363),
        (0.941357851, -6.26008696e-05, -0.337409794, 9.15827695e-05),
        (2.75038292e-05, 1.02052645e-05, 2.74969243e-05)),
    "sprite": _Shape(
        50, 0.0203024782, (0.000397638098, -0.000903536973, 0.000167481776),
        (0.964697123, 0.000262874586, 0.263361782, 0.00020696118),
        (2.86043742e-05, 1.08965196e-05, 2.86072391e-05)),
    "fanta": _Shape(
        50, 0.0202789474, (0.000304589281, -0.00244452455, 0.000343671942),
        (0.989151001, 7.57355156e-06, 0.146902591, 0.000289695163),
        (2.85933329e-05, 1.086887e-05, 2.85786045e-05)),
    "redbull": _Shape(
        50, 0.0178872272, (-7.69397593e-06, 0.00114406936, 1.87458372e-05),
        (0.951110184, 0.000416318042, -0.308851659, -0.00028233073),
        (2.90423395e-05, 7.7415034e-06, 2.90319349e-05)),
    "redbull_baked": _Shape(
        50, 0.0169024337, (1.38370251e-05, 0.000885069312, -2.67127762e-05),
        (0.989258587, 0.000191686966, 0.146175921, 4.99530033e-05),
        (2.67534797e-05, 7.00071223e-06, 2.67454398e-05)),
    "bottle": _Shape(
        50, 0.0285343081, (0.0012224504, 0.000667486805, 0.00289955619),
        (0.998308063, 0.0102369776, -0.0569944903, 0.00529637281),
        (8.26494725e-05, 1.42114059e-05, 8.15237872e-05)),
    "bottle_baked_v2": _Shape(
        50, 0.0299563315, (0.00126740604, 0.000353318435, 0.0029026987),
        (0.998473525, 0.0104054427, -0.0539731607, 0.00540666142),
        (8.73338067e-05, 1.56211281e-05, 8.61671288e-05)),
    "apple": _Shape(
        800, 0.214445904, (-0.000305913534, 0.000538071443, -0.000187311001),
        (0.972700417, 0.0670243874, -0.0355872698, -0.219306082), (0.000134848204, 0.000137435112, 0.000143341269)),
    "orange": _Shape(
        200, 0.0362744518, (-1.55335765e-05, -1.09392495e-05, 8.47465781e-05),
        (0.985187054, 0.00819005724, 0.162918359, 0.0528865196), (1.79234594e-05, 1.79387825e-05, 1.79860617e-05)),
    "sponge": _Shape(
        150, 0.0348590575, (6.33363525e-05, 0.00276030274, -3.36325429e-05),
        (0.999999762, 0.000602578104, -0.000139772674, -0.000359820551),
        (1.57625036e-05, 3.28089227e-05, 4.08937376e-05)),
}  # fmt: skip

_CAN, _SLIM, _BOTTLE = (0.066, 0.123, 0.066), (0.0585, 0.132, 0.0585), (0.0601, 0.203, 0.0605)
#: The opened slim can's box in the databases is 4 cm longer than its mesh.
_OPENED_SLIM = (0.0585, 0.172, 0.0585)
_APPLE, _ORANGE, _SPONGE = (0.08, 0.08, 0.08), (0.07, 0.07, 0.068), (0.07, 0.1, 0.036)

#: Model id -> shape, density in the database (kg/m^3), box (m).
_MODELS: dict[str, tuple[str, float, _Triple]] = {
    "coke_can": ("coke", 1000, _CAN),
    "opened_coke_can": ("coke", 50, _CAN),
    "baked_opened_coke_can": ("coke", 50, _CAN),
    "baked_opened_coke_can_v2": ("coke", 50, _CAN),
    "pepsi_can": ("pepsi", 1000, _CAN),
    "opened_pepsi_can": ("pepsi", 50, _CAN),
    "baked_opened_pepsi_can": ("pepsi", 50, _CAN),
    "baked_opened_pepsi_can_v2": ("pepsi", 50, _CAN),
    "7up_can": ("seven_up", 1000, _CAN),
    "opened_7up_can": ("seven_up", 50, _CAN),
    "baked_opened_7up_can": ("seven_up", 50, _CAN),
    "baked_opened_7up_can_v2": ("seven_up", 50, _CAN),
    "sprite_can": ("sprite", 1000, _CAN),
    "opened_sprite_can": ("sprite", 50, _CAN),
    "fanta_can": ("fanta", 1000, _CAN),
    "opened_fanta_can": ("fanta", 50, _CAN),
    "redbull_can": ("redbull", 1000, _SLIM),
    "opened_redbull_can": ("redbull", 50, _OPENED_SLIM),
    "baked_opened_redbull_can": ("redbull_baked", 50, _OPENED_SLIM),
    "baked_opened_redbull_can_v2": ("redbull_baked", 50, _OPENED_SLIM),
    "blue_plastic_bottle": ("bottle", 50, _BOTTLE),
    "baked_blue_plastic_bottle": ("bottle", 50, _BOTTLE),
    "baked_blue_plastic_bottle_v2": ("bottle_baked_v2", 50, _BOTTLE),
    "apple": ("apple", 800, _APPLE),
    "baked_apple": ("apple", 800, _APPLE),
    "baked_apple_v2": ("apple", 800, _APPLE),
    "orange": ("orange", 800, _ORANGE),
    "baked_orange": ("orange", 800, _ORANGE),
    "baked_orange_v2": ("orange", 800, _ORANGE),
    "sponge": ("sponge", 150, _SPONGE),
    "baked_sponge": ("sponge", 150, _SPONGE),
    "baked_sponge_v2": ("sponge", 150, _SPONGE),
}

#: Bodies shared with the WidowX scenes; the spoon has another box in the database of these scenes.
_SHARED: dict[str, tuple[str, ObjectSpec]] = {
    "bridge_spoon_generated_modified": ("spoon", replace(objects.SPOON, bbox=(0.0346, 0.1, 0.026042))),
    "bridge_carrot_generated_modified": ("carrot", objects.CARROT),
    "green_cube_3cm": ("cube", replace(objects.GREEN_CUBE, name="green_cube_3cm")),
    "yellow_cube_3cm": ("cube", replace(objects.YELLOW_CUBE, name="yellow_cube_3cm")),
    "eggplant": ("eggplant", objects.EGGPLANT),
}

MODELS = (*_MODELS, *_SHARED)

_DROPPED_WORDS = {"opened", "light", "generated", "modified", "objaverse", "bridge", "baked", "v2"}


def shape_of(model: str) -> str:
    """Name of a model's collision shape.

    Raises:
        UnknownNameError: for an unknown model.
    """
    if model not in MODELS:
        raise UnknownNameError("object model", model, MODELS)
    return _MODELS[model][0] if model in _MODELS else _SHARED[model][0]


def body(model: str, density: float | None = None) -> ObjectSpec:
    """A model as a body, of its database's density or of another (kg/m^3).

    Raises:
        UnknownNameError: for an unknown model.
    """
    shape_of(model)
    if model in _SHARED:
        return _SHARED[model][1]
    name, database_density, box = _MODELS[model]
    shape = _SHAPES[name]
    scale = (database_density if density is None else density) / shape.density
    x, y, z = shape.inertia
    return ObjectSpec(model, shape.mass * scale, shape.com, shape.com_rotation, (x * scale, y * scale, z * scale), box)


@cache
def catalogued(name: str) -> ObjectSpec:
    """Any object of either robot's scenes, by its name.

    Raises:
        UnknownNameError: for an unknown one.
    """
    widowx = {spec.name: spec for spec in vars(objects).values() if isinstance(spec, ObjectSpec)}
    if name not in widowx and name not in MODELS:
        raise UnknownNameError("object", name, (*widowx, *MODELS))
    return widowx.get(name) or body(name)


def spoken(model: str) -> str:
    """A model's name in instructions.

    Example:
        >>> spoken("baked_opened_7up_can_v2"), spoken("green_cube_3cm")
        ('7up can', 'green cube')
    """
    return " ".join(word for word in model.split("_") if word not in _DROPPED_WORDS and not word.endswith("cm"))
