"""The cabinet with three drawers, as data.

Source: ``mk_station*.urdf`` of ManiSkill2_real2sim at ef7a4d4; masses were read from the running original (boxes at
1000 kg/m^3). All parts are boxes. Handles are only seen: in the original they have no collision shape, so drawers are
opened by hooking the front's edge or by friction.

What an engine must build: the fixed body, and for each drawer a prismatic joint along +x (towards the robot) named
``<drawer>_drawer_joint``, 0 to 0.5 m, with dry friction 0.05, damping 1 and no drive. The floor of each drawer is the
part that contact queries name ``part:<drawer>_drawer_floor``.
"""

from __future__ import annotations

from dataclasses import dataclass

_Triple = tuple[float, float, float]

#: World position of the cabinet's frame (unturned), m.
ORIGIN: _Triple = (-0.295, 0.0, 0.017)
#: Height of the cabinet's top, m.
TOP = ORIGIN[2] + 0.865
#: The top: low x, high x, low y, high y, world, m.
TOP_AREA = (ORIGIN[0] - 0.315, ORIGIN[0] + 0.315, ORIGIN[1] - 0.3075, ORIGIN[1] + 0.3075)
#: Top to bottom; the order of the original's joints.
DRAWERS = ("top", "middle", "bottom")
#: Height of each drawer's frame above the cabinet's, m.
DRAWER_HEIGHTS = {"top": 0.668, "middle": 0.423, "bottom": 0.178}
DRAWER_RANGE = (0.0, 0.5)
JOINT_FRICTION, JOINT_DAMPING = 0.05, 1.0
BODY_MASS, DRAWER_MASS = 38.08, 11.38
#: Sliding friction of all parts.
FRICTION = 1.0


@dataclass(frozen=True)
class Part:
    """A box: full sizes and centre in its frame (m), key of its colour, and whether it collides."""

    name: str
    size: _Triple
    centre: _Triple
    colour: str
    collides: bool = True


BODY = (
    Part("back", (0.02, 0.615, 0.845), (-0.305, 0.0, 0.4225), "body"),
    Part("left", (0.59, 0.02, 0.845), (0.0, -0.2975, 0.4225), "body"),
    Part("right", (0.59, 0.02, 0.845), (0.0, 0.2975, 0.4225), "body"),
    Part("tabletop", (0.63, 0.615, 0.02), (0.0, 0.0, 0.855), "tabletop"),
)
#: The same for each drawer, in the drawer's frame.
DRAWER = (
    Part("front", (0.015, 0.615, 0.14), (0.305, 0.0, 0.0), "body"),
    Part("back", (0.02, 0.515, 0.10), (-0.285, 0.0, -0.02), "interior"),
    Part("floor", (0.55, 0.515, 0.02), (0.0, 0.0, -0.06), "interior"),
    Part("inner_front", (0.02, 0.515, 0.10), (0.285, 0.0, -0.02), "interior"),
    Part("left", (0.59, 0.02, 0.10), (0.0, -0.2675, -0.02), "interior"),
    Part("right", (0.59, 0.02, 0.10), (0.0, 0.2675, -0.02), "interior"),
    Part("handle_bar", (0.005, 0.10, 0.005), (0.3425, 0.0, 0.02), "handle", collides=False),
    Part("handle_left", (0.02, 0.005, 0.005), (0.3325, -0.05, 0.02), "handle", collides=False),
    Part("handle_right", (0.02, 0.005, 0.005), (0.3325, 0.05, 0.02), "handle", collides=False),
)


@dataclass(frozen=True)
class Station:
    """Colours (rgb, 0 to 1) of the cabinet; ``stone_top``: a textured stone plate lies on it (seen, not felt)."""

    body: _Triple
    tabletop: _Triple
    interior: _Triple
    handle: _Triple
    stone_top: bool = False


_GREY, _STONE, _BLACK, _WHITE = (0.388, 0.322, 0.275), (0.635, 0.529, 0.412), (0.1, 0.1, 0.1), (1.0, 1.0, 1.0)
_BROWN = (0.325, 0.187, 0.1166)

#: The original's names.
STATIONS: dict[str, Station] = {
    "mk_station_recolor": Station(_BROWN, _BROWN, _BROWN, (0.01266, 0.00226, 0.0005)),
    "mk_station": Station(_GREY, _STONE, _WHITE, _BLACK),
    "mk_station2": Station(_GREY, _STONE, _GREY, _BLACK),
    "mk_station3": Station(_GREY, _STONE, _GREY, _BLACK, stone_top=True),
}


def joint_name(drawer: str) -> str:
    """``"top" -> "top_drawer_joint"``."""
    return f"{drawer}_drawer_joint"


def handle_pose(drawer: str, opening: float) -> tuple[float, ...]:
    """World pose of the middle of a drawer's handle at a joint position (m)."""
    return _unturned(drawer, opening, DRAWER[6].centre)


def drawer_pose(drawer: str, opening: float) -> tuple[float, ...]:
    """World pose of a drawer's frame at a joint position (m)."""
    return _unturned(drawer, opening, (0.0, 0.0, 0.0))


def _unturned(drawer: str, opening: float, place: _Triple) -> tuple[float, ...]:
    """World pose of a place in a drawer's frame."""
    x, y, z = place
    return (ORIGIN[0] + x + opening, ORIGIN[1] + y, ORIGIN[2] + DRAWER_HEIGHTS[drawer] + z, 1.0, 0.0, 0.0, 0.0)
