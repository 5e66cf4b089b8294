"""Contact impulses on a GPU, between pairs of bodies that are named in advance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.envs.engines.maniskill.physics import PRESSING, Finger, fingers_of, subject_of
from vlaser_gym.envs.engines.maniskill.scene import Scene, body_of
from vlaser_gym.envs.engines.maniskill.start import SceneKey
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.errors import InvalidConfigError


class Contacts:
    """Pairs of bodies of a scene whose impulses its contact queries and its fingers need, each pair once."""

    def __init__(self, scene: Scene, cast: str) -> None:
        #: Row of a pair in the answer; SAPIEN finds only one of pairs that are equal or turned round.
        self._rows: dict[tuple[Any, Any], int] = {}
        subjects = [(subject_of(q.of, scene)[0], subject_of(q.by, scene)[0]) for q in scene.task.contacts_of(cast)]
        self._queries = [self._add([(a, b) for a in of for b in by]) for of, by in subjects]
        others = [body_of(entity) for entity in (*scene.objects, *scene.surroundings)]
        others += [] if scene.cabinet is None else scene.cabinet.links
        self._fingers = [
            (finger, self._add([(link, other) for link in finger.links for other in others]))
            for finger in fingers_of(scene)
        ]

    @property
    def pairs(self) -> list[tuple[Any, Any]]:
        """The body pairs of the contact query, in the order of its result."""
        return list(self._rows)

    def _add(self, pairs: Sequence[tuple[Any, Any]]) -> NDArray[np.int64]:
        """Row and sign of each pair, ``[n, 2]``."""
        return np.array([self._row(first, second) for first, second in pairs], int).reshape(-1, 2)

    def _row(self, first: Any, second: Any) -> tuple[int, int]:
        if (second, first) in self._rows:
            return self._rows[second, first], -1
        return self._rows.setdefault((first, second), len(self._rows)), 1

    def sums(self, impulses: NDArray[np.float32]) -> NDArray[np.float64]:
        """``[Q, 3]``, N s, of the queries, from the impulses ``[P, 3]`` of the pairs."""
        sums = [
            (impulses[rows] * sign[:, None]).sum(0, dtype=np.float64) for rows, sign in map(np.transpose, self._queries)
        ]
        return np.array(sums).reshape(-1, 3)

    def pressing(self, impulses: NDArray[np.float32]) -> list[Finger]:
        """Fingers that press on something."""
        return [f for f, rows in self._fingers if (np.linalg.norm(impulses[rows[:, 0]], axis=-1) > PRESSING).any()]


def check_contacts(key: SceneKey) -> None:
    """Complain about a task that asks for the contact of one shape of a body, which a GPU does not tell.

    Raises:
        InvalidConfigError: for such a task.
    """
    if any(
        "part:" in subject for query in get_task(key.task).contacts_of(key.cast) for subject in (query.of, query.by)
    ):
        raise InvalidConfigError(
            f"Task {key.task!r} asks which part of a drawer is touched, which a GPU does not tell: use "
            "engine.sim_backend=cpu for it."
        )
