"""Continuous layouts: the area of a benchmark's grid without the neighbourhoods of its points.

Learning draws its episodes here and scores are taken on the grid, so no draw may come close to a grid layout. A layout
counts as close if its source object alone is: within 1 cm (in the plane) and within 10 degrees of where it lies in any
grid layout, wherever the other objects are. For the angle the smaller of two readings counts, the whole rotation
between the poses and the difference of the headings, so that rolling a body over does not let it back in.

Objects keep a recorded resting pose, moved and turned about world z: height and tilt stay those of a body at rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from vlaser_gym.envs.tasks.base import Floats
from vlaser_gym.envs.tasks.geometry import angle_difference, heading, rotation_angle, turned
from vlaser_gym.errors import InvalidConfigError

#: A draw within both of a grid layout is thrown away: metres, radians.
NEAR_DISTANCE, NEAR_ANGLE = 0.01, np.deg2rad(10.0)
#: The yaws of a grid are widened by this much on both sides, rad, so that the grid's own lie inside, not on the edge.
YAW_MARGIN = np.deg2rad(15.0)
_MAX_ATTEMPTS = 10_000

#: ``(lowest x, highest x, lowest y, highest y)``, m.
Rectangle = tuple[float, float, float, float]


@dataclass(frozen=True)
class Spot:
    """How one object may be placed.

    Attributes:
        area: where its actor origin may be, world.
        yaws: least and greatest heading of its x axis, rad.
        footprint: what it covers of the ground, around its actor origin, with the heading as x axis.
    """

    area: Rectangle
    yaws: tuple[float, float]
    footprint: Rectangle


@dataclass(frozen=True)
class Region:
    """Draws layouts of one task.

    Attributes:
        grid: the benchmark's layouts, ``[n, n_objects, 7]``; the source object comes first.
        bases: resting poses to start from, ``[m, n_objects, 7]``; one is drawn per layout.
        spots: for the first objects, one each; the others stay where the base has them.
        clearance: least distance between the footprints of two placed objects, m.
        walls: rectangle that no placed footprint leaves, world.
        floor: height of the ground at world ``y``, where it is not flat, m.
    """

    grid: Floats
    bases: Floats
    spots: tuple[Spot, ...]
    clearance: float
    walls: Rectangle = (-np.inf, np.inf, -np.inf, np.inf)
    floor: Callable[[float], float] = lambda _y: 0.0

    def draw(self, rng: np.random.Generator) -> Floats:
        """One layout ``[n_objects, 7]``.

        Raises:
            InvalidConfigError: if the region leaves no room.
        """
        for _ in range(_MAX_ATTEMPTS):
            poses: Floats = self.bases[rng.integers(len(self.bases))].copy()
            for i, spot in enumerate(self.spots):
                poses[i] = self._place(poses[i], spot, rng)
            if self._fits(poses) and not near_grid(poses[0], self.grid[:, 0]):
                return poses
        raise InvalidConfigError(
            f"A region must leave room for its objects; {_MAX_ATTEMPTS} draws found none: widen its areas."
        )

    def _place(self, base: Floats, spot: Spot, rng: np.random.Generator) -> Floats:
        x, y = rng.uniform(*spot.area[:2]), rng.uniform(*spot.area[2:])
        turn = rng.uniform(*spot.yaws) - heading(base[3:])
        z = base[2] + self.floor(y) - self.floor(base[1])
        pose: Floats = np.array([x, y, z, *turned(base[3:], float(turn))])
        return pose

    def _fits(self, poses: Floats) -> bool:
        corners = [footprint_corners(pose, spot.footprint) for pose, spot in zip(poses, self.spots, strict=False)]
        low_x, high_x, low_y, high_y = self.walls
        inside = all(
            low_x <= c[:, 0].min() and c[:, 0].max() <= high_x and low_y <= c[:, 1].min() and c[:, 1].max() <= high_y
            for c in corners
        )
        return inside and all(separation(a, b) >= self.clearance for a, b in combinations(corners, 2))


def near_grid(pose: Floats, grid: Floats) -> bool:
    """Whether ``pose [7]`` is within 1 cm and 10 degrees of one of ``grid [n, 7]``."""
    distance = np.hypot(*(grid[:, :2] - pose[:2]).T)
    turn = angle_difference(heading(grid[:, 3:]), heading(pose[3:]))
    angle = np.minimum(turn, rotation_angle(grid[:, 3:], pose[3:]))
    return bool(((distance <= NEAR_DISTANCE) & (angle <= NEAR_ANGLE)).any())


def footprint_corners(pose: Floats, footprint: Rectangle) -> Floats:
    """Corners of a footprint in the world's plane, in order around it: ``[4, 2]``."""
    low_x, high_x, low_y, high_y = footprint
    local = np.array([(low_x, low_y), (high_x, low_y), (high_x, high_y), (low_x, high_y)])
    yaw = heading(pose[3:])
    c, s = np.cos(yaw), np.sin(yaw)
    return np.asarray(pose[:2] + local @ np.array([(c, s), (-s, c)]))


def separation(a: Floats, b: Floats) -> float:
    """Widest gap between two rectangles ``[4, 2]`` along a direction of their sides, m; negative where they overlap.

    It never exceeds their distance (only for two corners that face each other is it less).
    """
    sides = np.stack([a[1] - a[0], a[2] - a[1], b[1] - b[0], b[2] - b[1]])
    axes = sides / np.linalg.norm(sides, axis=1, keepdims=True)
    p, q = a @ axes.T, b @ axes.T
    return float(np.maximum(p.min(0) - q.max(0), q.min(0) - p.max(0)).max())
