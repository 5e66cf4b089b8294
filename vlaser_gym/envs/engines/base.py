"""What the vector environment asks of an engine: place lanes, run a control step, report, make pictures.

An engine holds ``num_lanes`` independent simulations of one robot. A lane shows one scene at a time (a task in a
variant); placing it again may change the scene. What happens on a lane never depends on the other lanes or on the
lane's past.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.envs.robots import DriveTargets
from vlaser_gym.envs.tasks.base import Layout, Task

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Placement:
    """What a lane is to show: a task in a variant, at a layout, the robot at joint positions ``qpos [J]``."""

    task: Task
    variant: str
    layout: Layout
    qpos: Floats


@dataclass(frozen=True)
class Reading:
    """State of one lane after a control step.

    Attributes:
        qpos, qvel: robot joints, ``[J]``.
        object_pose: ``[n_objects, 7]``, world, actor frames, order of ``Task.objects``.
        impulse: ``[n_contacts, 3]``, N s in the last physics substep, order of ``Task.contacts``.
        joints: scenery joint positions by name.
    """

    qpos: Floats
    qvel: Floats
    object_pose: Floats
    impulse: Floats
    joints: Mapping[str, float]


class Engine(Protocol):
    """See the module's docstring."""

    name: str
    version: str
    look: str

    def place(self, lanes: Sequence[int], placements: Sequence[Placement]) -> None:
        """Put lanes into initial states, everything at rest."""

    def step(self, lanes: Ints, targets: DriveTargets) -> None:
        """Run one control step on ``lanes``; row ``i`` of the targets drives ``lanes[i]``.

        Raises:
            SimulationError: if a simulation diverges.
        """

    def read(self, lanes: Ints) -> list[Reading]:
        """States of ``lanes``."""

    def images(self, lanes: Ints) -> NDArray[np.uint8]:
        """Pictures of the robot's camera, ``[B, H, W, 3]``.

        Raises:
            RenderingUnavailableError: if no pictures can be made on this machine.
        """

    def get_state(self) -> dict[str, Any]:
        """A copy of everything that the future of any lane depends on."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Puts a copy of ``state`` back."""

    def close(self) -> None:
        """Free threads, processes and memory."""
