"""Looks at what agents do, and warns where it cannot be in this gym's units."""

from __future__ import annotations

import warnings

from vlaser_gym.conventions import CONVENTIONS
from vlaser_gym.conventions.units import doubted_units
from vlaser_gym.envs.tasks import by_robot, get_task
from vlaser_gym.errors import GymWarning
from vlaser_gym.evaluation.runner import EpisodeResult


class UnitsWatch:
    """Warns once, at the first episode whose actions cannot be metres and radians.

    Args:
        agent: its name, for the warning.
    """

    def __init__(self, agent: str) -> None:
        self.agent = agent
        self._warned = False

    def see(self, result: EpisodeResult) -> None:
        """Look at the actions of an episode, wherever it ran; nothing is known of robots without a convention."""
        actions = result.trajectory.get("action")
        (robot,) = by_robot([get_task(result.address.task)])
        convention = CONVENTIONS.get(robot)
        if self._warned or actions is None or convention is None:
            return
        if doubt := doubted_units(convention, actions):
            self._warned = True
            warnings.warn(
                f"Actions of {self.agent} cannot be metres and radians per control step: {doubt} The agent has to "
                "convert them (docs/conventions.md).",
                GymWarning,
                stacklevel=2,
            )
