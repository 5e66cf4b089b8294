"""The four WidowX tasks of SimplerEnv: their objects, grids and areas.

Layout K of a grid is ``episode_id`` K of the original (ManiSkill2_real2sim ef7a4d4). Ordered pairs of corners, source
first, run 01 02 03 10 12 13 20 21 23 30 31 32. Carrot and spoon take two yaws per pair, the cubes the pairs of a small
square and then of a large one, the eggplant three yaws at each of eight places.

``region`` ends at the outer points of a grid; ``region2`` goes on for another 4 cm on the table, to its walls in the
basin, and takes every heading.

Footprints, the basin and its floor were measured on the original's collision shapes.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np

from vlaser_gym.envs.tasks import objects, settled
from vlaser_gym.envs.tasks.base import Floats
from vlaser_gym.envs.tasks.put_on import PutOnTask
from vlaser_gym.envs.tasks.region import YAW_MARGIN, Rectangle, Region, Spot, box, oval, widened

_PAIRS = tuple(permutations(range(4), 2))

#: Bounding square of the corners of carrot and spoon, and that of the cubes' large square.
_SQUARE: Rectangle = (-0.235, -0.085, -0.075, 0.075)
_LARGE_SQUARE: Rectangle = (-0.26, -0.06, -0.1, 0.1)
#: Bounding rectangle of the eggplant's resting places, and the inside of the basin at the height of its widest part.
_EGGPLANT_AREA: Rectangle = (-0.129335, -0.089985, 0.180435, 0.238797)
_BASIN: Rectangle = (-0.2, -0.0655, 0.12, 0.28)
#: In these layouts the eggplant leans on the basin's wall; away from it the pose would not hold.
_LEANING = (2, 14)

#: By how much ``region2`` is wider than the grid's bounding squares, on every side, m.
_MARGIN = 0.04
#: Every heading; and every heading of what looks the same after a quarter turn.
_ALL_YAWS, _QUARTER_TURN = (-np.pi, np.pi), (-np.pi / 4, np.pi / 4)

_CUBE_FOOTPRINT = box(-0.015, 0.015, -0.015, 0.015)


def _yaws(*degrees: float) -> tuple[float, float]:
    """The interval that covers the grid's yaws, widened; rad."""
    yaws = np.deg2rad(degrees)
    return float(yaws.min() - YAW_MARGIN), float(yaws.max() + YAW_MARGIN)


def _freeze(grid: Floats) -> Floats:
    grid.setflags(write=False)
    return grid


def _turned_sources(source: Floats, target: Floats) -> Floats:
    """Every pair of corners with both yaws of the source: ``[8, 7], [4, 7] -> [24, 2, 7]``."""
    return _freeze(np.array([(source[2 * s + k], target[t]) for s, t in _PAIRS for k in range(2)]))


def _sink_floor(y: float) -> float:
    """Height of the basin's floor, m: level, and rising by 5 % towards low ``y``."""
    return 0.9196 + 0.05 * max(0.0, 0.208 - y)


def _table_region(grid: Floats, source: Spot, target: Spot, clearance: float) -> Region:
    return Region(grid=grid, bases=grid[:1], spots=(source, target), clearance=clearance)


def _wider(region: Region, *yaws: tuple[float, float]) -> Region:
    """The area of ``region`` with a margin, and other headings, one interval for each of its objects."""
    spots = tuple(
        Spot(widened(spot.area, _MARGIN), headings, spot.footprint)
        for spot, headings in zip(region.spots, yaws, strict=True)
    )
    return replace(region, spots=spots)


def _carrot() -> PutOnTask:
    region = _table_region(
        _turned_sources(settled.CARROT, settled.PLATE),
        Spot(_SQUARE, _yaws(180, 270), box(-0.0641, 0.0542, -0.0163, 0.0159)),
        Spot(_SQUARE, _yaws(0), oval(-0.055, 0.055, -0.055, 0.055)),
        clearance=0.03,
    )
    return PutOnTask(
        "widowx_carrot_on_plate",
        "put carrot on plate",
        (objects.CARROT, objects.PLATE),
        region,
        completely_on=True,
        region2=_wider(region, _ALL_YAWS, _ALL_YAWS),
    )


def _spoon() -> PutOnTask:
    region = _table_region(
        _turned_sources(settled.SPOON, settled.CLOTH),
        Spot(_SQUARE, _yaws(0, 90), box(-0.0732, 0.0679, -0.0178, 0.0178)),
        Spot(_SQUARE, _yaws(0), box(-0.0511, 0.0499, -0.0508, 0.0502)),
        clearance=0.025,
    )
    return PutOnTask(
        "widowx_spoon_on_towel",
        "put the spoon on the towel",
        (objects.SPOON, objects.CLOTH),
        region,
        region2=_wider(region, _ALL_YAWS, _QUARTER_TURN),
    )


def _cubes() -> PutOnTask:
    spot = Spot(_LARGE_SQUARE, _yaws(0), _CUBE_FOOTPRINT)
    cube = settled.CUBE
    grid = _freeze(np.array([(cube[base + s], cube[base + t]) for base in (0, 4) for s, t in _PAIRS]))
    region = _table_region(grid, spot, spot, clearance=0.07)
    return PutOnTask(
        "widowx_stack_cube",
        "stack the green block on the yellow block",
        (objects.GREEN_CUBE, objects.YELLOW_CUBE),
        region,
        completely_on=True,
        region2=_wider(region, _QUARTER_TURN, _QUARTER_TURN),
    )


def _eggplant() -> PutOnTask:
    sink = np.repeat(settled.SINK, len(settled.EGGPLANT), axis=0)
    grid = _freeze(np.stack([settled.EGGPLANT, settled.SINK_PLANE, sink], axis=1))
    region = Region(
        grid=grid,
        bases=_freeze(np.delete(grid, _LEANING, axis=0)),
        spots=(Spot(_EGGPLANT_AREA, _yaws(-45, 0, 45), oval(-0.0449, 0.0338, -0.0203, 0.0203)),),
        clearance=0.0,
        walls=_BASIN,
        floor=_sink_floor,
    )
    return PutOnTask(
        "widowx_put_eggplant_in_basket",
        "put eggplant into yellow basket",
        (objects.EGGPLANT, objects.SINK_PLANE, objects.SINK),
        region,
        robot_setup="widowx_sink",
        scenery="bridge_sink",
        max_steps=120,
        z_margin=0.06,
        region2=_wider(region, _ALL_YAWS),
    )


#: In the order of the preset ``widowx``.
TASKS: tuple[PutOnTask, ...] = (_carrot(), _spoon(), _cubes(), _eggplant())
