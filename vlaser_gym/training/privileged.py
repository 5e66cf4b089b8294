"""The privileged observation of a critic. It exists in training only; no policy reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.envs.tasks import get_task

#: Numbers of the ``state`` observation of :class:`~vlaser_gym.envs.vector.SceneVectorEnv`.
STATE_WIDTH = 26


class PrivilegedState:
    """Rows of numbers: the ``state`` observation, sub-goal flags, share of the time that has passed, which task it is.

    Args:
        tasks: names of all that can come.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        self.limits = {name: get_task(name).max_steps for name in dict.fromkeys(tasks)}
        self.subgoals = tuple(dict.fromkeys(flag for name in self.limits for flag in get_task(name).subgoals))
        self.width = STATE_WIDTH + len(self.subgoals) + 1 + len(self.limits)

    def progress(self, info: Mapping[str, Any]) -> NDArray[np.float64]:
        """The progress of the episodes at the end of a step, from its ``info``: sub-goals and steps, ``[N, G + 1]``."""
        elapsed = info["elapsed_steps"]
        reached = [info.get(name, np.zeros_like(elapsed)) for name in self.subgoals]
        return np.stack([*reached, elapsed], 1).astype(np.float64)

    def rows(
        self, state: NDArray[Any], tasks: NDArray[np.str_], progress: NDArray[np.float64] | None = None
    ) -> NDArray[np.float32]:
        """``[N, P]`` of N environments.

        Args:
            state: ``[N, 26]``.
            tasks: names, ``[N]``.
            progress: of :meth:`progress`; 0 at the beginning of an episode, and everywhere if it is left out.
        """
        if progress is None:
            progress = np.zeros((len(state), len(self.subgoals) + 1))
        passed = progress[:, -1] / [self.limits[task] for task in tasks]
        which = np.stack([tasks == name for name in self.limits], 1)
        return np.concatenate([state, progress[:, :-1], passed[:, None], which], 1).astype(np.float32)
