"""Continuous layouts: an area within or around a benchmark's grid without the neighbourhoods of its points.

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

from vlaser_gym.conventions.rotations import angle_difference, heading, rotation_angle, turned_about_z
from vlaser_gym.envs.tasks.base import Floats
from vlaser_gym.errors import InvalidConfigError

#: A draw within both of a grid layout is thrown away: metres, radians.
NEAR_DISTANCE, NEAR_ANGLE = 0.01, np.deg2rad(10.0)
#: The yaws of a grid are widened by this much on both sides, rad, so that the grid's own lie inside, not on the edge.
YAW_MARGIN = np.deg2rad(15.0)
_MAX_ATTEMPTS = 10_000

#: ``(lowest x, highest x, lowest y, highest y)``, m.
Rectangle = tuple[float, float, float, float]
#: Walls that leave room everywhere.
BOUNDLESS: Rectangle = (-np.inf, np.inf, -np.inf, np.inf)


@dataclass(frozen=True)
class Spot:
    """The allowed positions and yaws of one object.

    Attributes:
        area: where its actor origin may be, world.
        yaws: least and greatest heading of its x axis, rad.
        footprint: what it covers of the ground: corners ``[k, 2]`` of a convex outline in order, around its actor
            origin, with the heading as x axis, m.
    """

    area: Rectangle
    yaws: tuple[float, float]
    footprint: Floats


@dataclass(frozen=True)
class Level:
    """A ground that is flat; a plain object, as functions without a name cannot be pickled.

    Attributes:
        height: m.
    """

    height: float = 0.0

    def __call__(self, y: float) -> float:
        """Height at world ``y``, m."""
        return self.height


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
    walls: Rectangle = BOUNDLESS
    floor: Callable[[float], float] = Level()

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
        pose: Floats = np.array([x, y, z, *turned_about_z(base[3:], turn)])
        return pose

    def _fits(self, poses: Floats) -> bool:
        outlines = [placed_outline(pose, spot.footprint) for pose, spot in zip(poses, self.spots, strict=False)]
        low_x, high_x, low_y, high_y = self.walls
        x, y = np.concatenate(outlines).T
        inside = bool(low_x <= x.min() and x.max() <= high_x and low_y <= y.min() and y.max() <= high_y)
        return inside and all(separation(a, b) >= self.clearance for a, b in combinations(outlines, 2))


def widened(area: Rectangle, margin: float) -> Rectangle:
    """The rectangle with a margin on every side, m."""
    low_x, high_x, low_y, high_y = area
    return low_x - margin, high_x + margin, low_y - margin, high_y + margin


def near_grid(pose: Floats, grid: Floats) -> bool:
    """True if ``pose [7]`` is within 1 cm and 10 degrees of one of ``grid [n, 7]``."""
    distance = np.hypot(*(grid[:, :2] - pose[:2]).T)
    turn = angle_difference(heading(grid[:, 3:]), heading(pose[3:]))
    angle = np.minimum(turn, rotation_angle(grid[:, 3:], pose[3:]))
    return bool(((distance <= NEAR_DISTANCE) & (angle <= NEAR_ANGLE)).any())


def box(low_x: float, high_x: float, low_y: float, high_y: float) -> Floats:
    """Outline of a rectangle, ``[4, 2]``."""
    return np.array([(low_x, low_y), (high_x, low_y), (high_x, high_y), (low_x, high_y)])


def oval(low_x: float, high_x: float, low_y: float, high_y: float) -> Floats:
    """Outline of 16 sides around the ellipse inside a rectangle, ``[16, 2]``; it touches the rectangle's sides."""
    angle = (np.arange(16) + 0.5) * np.pi / 8
    x = (low_x + high_x + (high_x - low_x) * np.cos(angle) / np.cos(np.pi / 16)) / 2
    y = (low_y + high_y + (high_y - low_y) * np.sin(angle) / np.cos(np.pi / 16)) / 2
    return np.stack([x, y], axis=1)


def placed_outline(pose: Floats, footprint: Floats) -> Floats:
    """A footprint in the world's plane, ``[k, 2]``."""
    yaw = heading(pose[3:])
    c, s = np.cos(yaw), np.sin(yaw)
    return np.asarray(pose[:2] + footprint @ np.array([(c, s), (-s, c)]))


def separation(a: Floats, b: Floats) -> float:
    """Widest gap between two convex outlines square to one of their sides, m; negative where they overlap.

    It never exceeds their distance (only where two corners face each other is it less).
    """
    sides = np.concatenate([np.roll(a, -1, axis=0) - a, np.roll(b, -1, axis=0) - b])
    axes = np.stack([-sides[:, 1], sides[:, 0]], axis=1) / np.linalg.norm(sides, axis=1, keepdims=True)
    p, q = a @ axes.T, b @ axes.T
    return float(np.maximum(p.min(0) - q.max(0), q.min(0) - p.max(0)).max())
