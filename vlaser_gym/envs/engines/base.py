"""The engine protocols: place an episode in an environment, run a control step, report states, make images.

An engine holds ``num_lanes`` independent simulations of one robot. An environment shows one scene at a time (a task in
a variant); placing it again may change the scene. What happens on an environment never depends on the other
environments or on the environment's past.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.envs.robots import POLICY_CAMERA, DriveTargets
from vlaser_gym.envs.robots.base import Robot
from vlaser_gym.envs.tasks.base import ContactQuery, Layout, ObjectSpec, Task
from vlaser_gym.errors import InvalidConfigError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Sight(NamedTuple):
    """The visual changes of one episode against its scene; physics does not depend on them.

    Attributes:
        shift: of every camera, m, in its own axes (x right, y up, z backward).
        turn: of every camera, axis-angle, rad, in its own axes.
        zoom: factor of every focal length.
        light_turn: of all directional lights, axis-angle, rad, world axes.
        light_colour: factors of the light's red, green and blue.
        repaint: which surfaces are of another colour (``"table"`` or ``"background"``), the seed of the colours, and
            the share of those in the mixture, 0 to 1; ``None`` for none.
    """

    shift: tuple[float, ...] = (0.0, 0.0, 0.0)
    turn: tuple[float, ...] = (0.0, 0.0, 0.0)
    zoom: float = 1.0
    light_turn: tuple[float, ...] = (0.0, 0.0, 0.0)
    light_colour: tuple[float, ...] = (1.0, 1.0, 1.0)
    repaint: tuple[str, int, float] | None = None


class Physics(NamedTuple):
    """The physical changes of one episode against its scene.

    Attributes:
        friction: factor of all sliding friction.
        mass: factor of the mass and the inertia of all objects that move.
    """

    friction: float = 1.0
    mass: float = 1.0


class Body(NamedTuple):
    """The changes of an episode's object against the catalogue's.

    Attributes:
        name: of the object.
        scale: factor of its size, at the same density.
        colour: red, green and blue, 0 to 1, of all of its surface; ``None`` for its own.
    """

    name: str
    scale: float = 1.0
    colour: tuple[float, ...] | None = None


NOMINAL_SIGHT, NOMINAL_PHYSICS = Sight(), Physics()


@dataclass(frozen=True)
class Placement:
    """The initial state of one environment: a task in a variant, a layout, the robot's joint positions ``qpos [J]``.

    ``name`` is the layout's name, ``"grid:5"``; empty for states of other origin, such as recordings. ``sight``,
    ``physics`` and ``bodies`` belong to perturbed episodes, which the built-in engine alone has.
    """

    task: Task
    variant: str
    layout: Layout
    qpos: Floats
    name: str = ""
    sight: Sight = NOMINAL_SIGHT
    physics: Physics = NOMINAL_PHYSICS
    bodies: tuple[Body, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """The outcome of an episode by the rules of a simulator that has its own.

    Attributes:
        flags: all of the task's flags after the last control step.
        stage: index of the current sub-task.
        instruction: what the robot is told now.
    """

    flags: Mapping[str, bool]
    stage: int
    instruction: str


@dataclass(frozen=True)
class Reading:
    """State of one environment after a control step.

    Attributes:
        qpos, qvel: robot joints, ``[J]``.
        object_pose: ``[n_objects, 7]``, world, actor frames, order of ``Task.objects``.
        impulse: ``[n_contacts, 3]``, N s in the last physics substep, order of ``Task.contacts``.
        joints: scenery joint positions by name.
        proprio: ``[8]``, see the ``proprio`` observation, where the simulator reports it; else it follows from
            ``qpos``.
        verdict: the simulator's own, where it judges by itself; else the task judges, by poses and impulses.
        touch: ``[n_objects, n_finger_links, 3]``, N s in the last physics substep, on each finger link (order of
            ``Robot.finger_links``) by each object; ``None`` where the simulator reports no contacts.
    """

    qpos: Floats
    qvel: Floats
    object_pose: Floats
    impulse: Floats
    joints: Mapping[str, float]
    proprio: Floats | None = None
    verdict: Verdict | None = None
    touch: Floats | None = None


class Engine(Protocol):
    """See the module's docstring. What drives it is said by :class:`DrivenEngine` and :class:`ActingEngine`.

    A class with a true attribute ``policy_camera_only`` is not asked for images of other cameras. One whose
    constructor takes ``pictures`` is told whether the agent will look at any (``SceneVectorEnv(observe=...)``): one
    that will not need not prepare them, but must make one that is asked for all the same, for ``render()``. One whose
    attribute ``image_size`` is ``(width, height)`` makes its images with so many pixels, not with the cameras' own.
    One with an attribute ``told`` (task -> settings by name) says with what its simulator runs a task, once an episode
    of it has begun; runs keep that.
    """

    name: str
    version: str
    look: str

    def place(self, lanes: Sequence[int], placements: Sequence[Placement]) -> None:
        """Put environments into initial states, everything at rest."""

    def read(self, lanes: Ints) -> list[Reading]:
        """Simulator states of ``lanes``."""

    def images(self, lanes: Ints, camera: str = POLICY_CAMERA) -> NDArray[np.uint8]:
        """Images of a camera of the robot, by its name among ``RobotSetup.cameras``: ``[B, H, W, 3]``.

        Raises:
            RenderingUnavailableError: if no images can be made on this machine.
        """

    def get_state(self) -> dict[str, Any]:
        """A copy of everything that the future of any environment depends on."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Puts a copy of ``state`` back."""

    def close(self) -> None:
        """Free threads, processes and memory."""


def touch_queries(robot: Robot, objects: Sequence[ObjectSpec]) -> tuple[ContactQuery, ...]:
    """The contact queries of :attr:`Reading.touch`: all finger links of the first object, then of the next."""
    return tuple(ContactQuery(f"link:{link}", f"object:{body.name}") for body in objects for link in robot.finger_links)


def refuse_other_cameras(engine: str, cameras: Iterable[str]) -> None:
    """Refuse other cameras, for engines that know the policy's only.

    Raises:
        InvalidConfigError: if there is another among ``cameras``.
    """
    for camera in cameras:
        if camera != POLICY_CAMERA:
            raise InvalidConfigError(
                f"engine={engine} makes images of the policy's camera only; got camera {camera!r}: observe image, or "
                "choose engine=mujoco."
            )


_SIZE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})")


def read_image_size(text: str | None) -> tuple[int, int] | None:
    """Width and height (pixels) that ``"160x120"`` means; ``None`` for ``None``, the cameras' own.

    Raises:
        InvalidConfigError: for another text.
    """
    if text is None:
        return None
    found = _SIZE.fullmatch(str(text))
    if found is None:
        raise InvalidConfigError(f"engine.image_size is WIDTHxHEIGHT in pixels, such as 160x120; got {text!r}.")
    return int(found[1]), int(found[2])


class DrivenEngine(Engine, Protocol):
    """An engine that simulates joint drives; the robot's controller is ours."""

    def step(self, lanes: Ints, targets: DriveTargets) -> None:
        """Run one control step on ``lanes``; row ``i`` of the targets drives ``lanes[i]``.

        Raises:
            SimulationError: if a simulation diverges.
        """


@runtime_checkable
class ActingEngine(Engine, Protocol):
    """An engine with the robot's controller in it, as a simulator has that is used as a whole."""

    def execute(self, lanes: Ints, actions: Floats) -> None:
        """Run one control step on ``lanes`` with ``actions [B, 7]``.

        Raises:
            SimulationError: if a simulation fails.
        """

    def advance(self, lanes: Ints) -> None:
        """The agent declares the current sub-task done on ``lanes``; nothing changes where it is the last."""
