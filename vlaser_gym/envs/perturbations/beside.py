"""Free places on a table: clear of what is there, and of the way from the source to its goal."""

from __future__ import annotations

import numpy as np

from vlaser_gym.conventions.rotations import heading, matrix_from_quaternion, turned_about_z
from vlaser_gym.envs.engines.base import Placement
from vlaser_gym.envs.perturbations.base import Floats
from vlaser_gym.envs.tasks.base import ObjectSpec
from vlaser_gym.envs.tasks.google_objects import catalogued
from vlaser_gym.envs.tasks.region import Rectangle, box, placed_outline, separation
from vlaser_gym.errors import InvalidConfigError

#: Sceneries with a free table, and the part of it that the policy's camera sees and the robot reaches, m.
TABLES: dict[str, Rectangle] = {
    "bridge_table": (-0.32, -0.03, -0.17, 0.17),
    "google_table": (-0.42, -0.08, -0.06, 0.44),
}
#: Least gap to any object, and to the way from the source to its goal, m: open fingers and what they carry pass.
GAP = 0.03
WAY: dict[str, float] = {"bridge_table": 0.05, "google_table": 0.07}
_DRAWS, _LEAST_WAY = 200, 0.02


class Table:
    """The table of an episode, which fills up.

    Args:
        placement: of the episode, on one of :data:`TABLES`.
    """

    def __init__(self, placement: Placement) -> None:
        task, layout = placement.task, placement.layout
        objects, poses = task.objects_of(layout.cast), layout.object_pose
        self._scenery = task.scenery
        self._outlines = [covered(body, pose) for body, pose in zip(objects, poses, strict=True)]
        source = task.source if layout.source is None else layout.source
        target = task.target if layout.target is None else layout.target
        self._way = strip(poses[source, :2], poses[target if target >= 0 else source, :2])

    def place(self, pose: Floats, name: str, rng: np.random.Generator) -> Floats:
        """A resting pose ``[7]``, moved and turned to a free place that it then takes.

        Where there is none as far from the way as it should be, it lies nearer, by steps of a centimetre.

        Raises:
            InvalidConfigError: if there is no free place at all.
        """
        low_x, high_x, low_y, high_y = TABLES[self._scenery]
        way = WAY[self._scenery]
        while way >= _LEAST_WAY:
            places = rng.uniform((low_x, low_y, -np.pi), (high_x, high_y, np.pi), (_DRAWS, 3))
            for x, y, yaw in places:
                placed = np.array([x, y, pose[2], *turned_about_z(pose[3:], yaw)])
                outline = covered(catalogued(name), placed)
                clear = all(separation(outline, other) >= GAP for other in self._outlines)
                if clear and separation(outline, self._way) >= way:
                    self._outlines.append(outline)
                    return placed
            way -= 0.01
        raise InvalidConfigError(f"There is no free place on the table for {name}: choose a milder level.")


def covered(body: ObjectSpec, pose: Floats) -> Floats:
    """Outline ``[4, 2]`` of what an object covers that lies or stands as in ``pose [7]``, by its box, m."""
    unturned = turned_about_z(pose[3:], -float(heading(pose[3:])))
    x, y, _ = np.abs(matrix_from_quaternion(unturned)) @ np.abs(body.bbox) / 2
    return placed_outline(pose, box(-x, x, -y, y))


def strip(begin: Floats, end: Floats) -> Floats:
    """Outline ``[4, 2]`` of a straight way 2 mm wide."""
    along = end - begin
    length = float(np.linalg.norm(along))
    along = along / length if length > 0 else np.array([1.0, 0.0])
    across = np.array([-along[1], along[0]]) * 1e-3
    return np.array([begin - across, end - across + along * 1e-3, end + across + along * 1e-3, begin + across])
