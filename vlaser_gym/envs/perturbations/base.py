"""The interface of perturbations and the source of their random numbers.

A perturbation is chosen beside an episode's address and changes none of it: layout and the agent's noise stay what they
are without it. Its own random numbers depend on the address, on the perturbation's name and, where they are drawn anew
at every decision, on the control step; never on what runs beside the episode. They do not depend on the level: a harder
level errs further in the same direction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.engines.base import Placement
from vlaser_gym.envs.tasks.base import Task
from vlaser_gym.errors import InvalidConfigError, UnknownNameError

#: From the mildest on.
LEVELS = ("mild", "medium", "hard")
#: Of an evaluation that names none.
DEFAULT_LEVEL = "medium"
#: In the order in which tables show them.
FAMILIES = ("vision", "semantics", "execution", "control")

#: Actions of the past that a perturbation gets.
REMEMBERED = 4

Floats = NDArray[np.float64]
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Moment:
    """A control step of an episode, and the random numbers of a perturbation there.

    Attributes:
        address: of the episode.
        step: control steps that have run.
        purpose: names the perturbation's stream.
    """

    address: Address
    step: int = 0
    purpose: str = "perturb"

    def of_episode(self) -> np.random.Generator:
        """The same numbers at every step of the episode."""
        return self.address.rng(self.purpose)

    def of_step(self) -> np.random.Generator:
        """Numbers of this control step alone."""
        return self.address.rng(f"{self.purpose}/{self.step}")


@dataclass(frozen=True)
class Shift:
    """The manipulated object is displaced in the middle of an episode.

    Attributes:
        step: before the first decision from this control step on.
        offset: along x and y, world frame, m.
    """

    step: int
    offset: tuple[float, float]


class Perturbation:
    """Base of all perturbations; every method gives back what it got until a subclass changes it.

    Args:
        level: one of :data:`LEVELS`.

    Attributes:
        name: for ``perturb=NAME``.
        family: one of :data:`FAMILIES`.
        sentence: what is done, for people; ``{strength}`` stands for the level's number.
        strengths: of :data:`LEVELS`; a single one where there are no levels.
        engines: that can do it; empty for every engine.
        looks: in which it can be seen; empty for every look.
        flags: what episodes have besides the task's own: ``original_goal``, see :meth:`original_target`.
        level, strength: the level, empty where there is one only, and its number.
        label: what records and tables call it, and what :func:`get_perturbation` finds it by again.

    Raises:
        UnknownNameError: for another level.
    """

    name: str
    family: str
    sentence: str
    strengths: tuple[float, ...]
    engines: tuple[str, ...] = ()
    looks: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    def __init__(self, level: str = DEFAULT_LEVEL) -> None:
        if level not in LEVELS:
            raise UnknownNameError(f"level of perturb={self.name}", level, LEVELS)
        self.level = level if len(self.strengths) > 1 else ""
        self.strength = self.strengths[LEVELS.index(level) if self.level else 0]
        self.label = f"{self.name}:{self.level}" if self.level else self.name

    @property
    def meaning(self) -> str:
        """A description of the perturbation at this level."""
        return self.sentence.format(strength=f"{self.strength:g}")

    def applies(self, task: Task) -> bool:
        """There is something to change in episodes of a task."""
        return True

    def moment(self, address: Address, step: int = 0) -> Moment:
        """A control step of an episode, with this perturbation's random numbers."""
        return Moment(address, step, f"perturb/{self.name}")

    def place(self, placement: Placement, moment: Moment) -> Placement:
        """The initial state of an episode, its light and its cameras."""
        return placement

    def picture(self, picture: Picture, moment: Moment) -> Picture:
        """An image ``[H, W, 3]`` that the agent sees."""
        return picture

    def proprio(self, proprio: Floats, moment: Moment) -> Floats:
        """The proprioception ``[8]`` that the agent reads."""
        return proprio

    def instruction(self, text: str, moment: Moment) -> str:
        """The instruction of the episode."""
        return text

    def actions(self, chunk: Floats, previous: Floats, moment: Moment) -> Floats:
        """The executed actions ``[H, 7]`` from a control step on.

        Args:
            chunk: what the agent has decided, ``[H, 7]``.
            previous: the last actions that it decided before, ``[K, 7]`` with K = :data:`REMEMBERED`, the latest last;
                before the first one standing still with open fingers.
            moment: of the decision.
        """
        return chunk

    def shift(self, moment: Moment) -> Shift | None:
        """The displacement of the manipulated object during the episode; ``None`` without one."""
        return None

    def original_target(self, moment: Moment) -> int:
        """The index of the usual goal among the objects of an episode whose instruction names another."""
        raise InvalidConfigError(f"perturb={self.name} leaves the goal as it is.")

    @classmethod
    def changes(cls, method: str) -> bool:
        """True if a subclass overrides a method; a method that no subclass overrides is not called."""
        return getattr(cls, method) is not getattr(Perturbation, method)
