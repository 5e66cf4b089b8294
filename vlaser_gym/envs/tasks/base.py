"""The task interface: objects, layouts, instruction and success, independent of engines.

A :class:`Task` is data plus pure functions of poses and contacts. Engines read its objects, cameras' scenery name and
contact queries to build a scene; the vector environment calls :meth:`Task.evaluate` after every control step. All
evaluation is batched over environments: arrays have a leading dimension ``B``.

Lengths in metres, masses in kilograms, impulses in newton seconds; a pose is ``x y z qw qx qy qz`` of the actor frame
in world coordinates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.tasks.variants import Variant
from vlaser_gym.errors import InvalidConfigError, UnknownNameError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Flags = dict[str, NDArray[np.bool_]]
#: What an evaluation remembers between control steps of an episode: arrays with leading dimension ``B``.
Memory = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class ObjectSpec:
    """One body of a scene that is not part of the robot.

    Attributes:
        name: SimplerEnv's model id; looks and collision shapes are found by it.
        mass: kg.
        com: centre of mass in the actor frame, m.
        com_rotation: quaternion wxyz of the principal axes in the actor frame.
        inertia: principal moments, kg m^2.
        bbox: the database box used by success rules, m (not always the mesh's).
        fixed: the body does not move (sink).
        friction: sliding friction coefficient of the body alone (pairs average it with the partner's).
    """

    name: str
    mass: float
    com: tuple[float, float, float]
    com_rotation: tuple[float, float, float, float]
    inertia: tuple[float, float, float]
    bbox: tuple[float, float, float]
    fixed: bool = False
    friction: float = 0.5


@dataclass(frozen=True)
class ContactQuery:
    """A question to the engine: the impulse that ``by`` exerted on ``of`` in the last physics substep.

    ``of`` and ``by`` are ``"object:<name>"``, ``"link:<robot link>"``, ``"part:<name>"`` (one named shape of the
    scenery, such as a drawer's floor) or ``"scene"`` (everything static that is neither robot nor listed object, such
    as the table). The answer is the vector sum over contact points, world frame, N s.
    """

    of: str
    by: str


@dataclass(frozen=True)
class Snapshot:
    """The state of ``B`` environments of one task after a control step, as an engine reports it.

    Attributes:
        object_pose: ``[B, n_objects, 7]``, world, actor frames, order of :attr:`Task.objects`.
        link_pose: robot link name -> ``[B, 7]``, world, for the links named by the task's contact queries.
        impulse: ``[B, n_queries, 3]``, order of :attr:`Task.contacts`.
        joints: scenery joint name -> ``[B]`` (drawers); empty where there is none.
        elapsed: ``[B]`` control steps so far in the episode, this one included.
    """

    object_pose: Floats
    link_pose: Mapping[str, Floats]
    impulse: Floats
    joints: Mapping[str, Floats] = field(default_factory=dict)
    elapsed: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True)
class Layout:
    """An initial state.

    Attributes:
        object_pose: ``[n_objects, 7]``, settled, world, order of :meth:`Task.objects_of` the cast.
        joints: scenery joints by name (rad or m).
        base_pose: world pose of the robot's root link, where it is not the setup's.
        qpos: start joint positions of the robot, where they are not the setup's.
        cast: which objects play; see :meth:`Task.objects_of`.
        source, target: indices of the manipulated object and of its goal among them, where not the task's own.
        goal_joint: the scenery joint that the task is about (the drawer to open).
        overlay: file name of the photograph that stands behind the foreground; empty where there is none.
    """

    object_pose: Floats
    joints: Mapping[str, float] = field(default_factory=dict)
    base_pose: tuple[float, ...] | None = None
    qpos: tuple[float, ...] | None = None
    cast: str = ""
    source: int | None = None
    target: int | None = None
    goal_joint: str = ""
    overlay: str = ""


class Task(ABC):
    """One task of the benchmark. Subclasses are stateless; an instance is shared by all environments."""

    #: SimplerEnv's own name of the task.
    name: str
    #: Key of the robot setup in :mod:`vlaser_gym.envs.robots`.
    robot_setup: str
    #: Key of the scenery (table, sink, cabinet) that engines build around the objects.
    scenery: str
    #: Control steps after which an episode is truncated.
    max_steps: int
    objects: tuple[ObjectSpec, ...]
    contacts: tuple[ContactQuery, ...]
    #: Indices of the manipulated object and of its goal in :attr:`objects`; the goal is -1 where there is none.
    source: int = 0
    target: int = 1
    #: Names of the flags that :meth:`evaluate` returns, ``success`` first.
    flags: tuple[str, ...]
    #: The flags that mark progress, in the order in which an episode passes them; the last is success itself.
    subgoals: tuple[str, ...]
    #: Number of layouts ``grid:0 .. grid:n-1``.
    num_layouts: int
    #: The kinds of layouts that the task has; see :data:`~vlaser_gym.envs.address.LAYOUT_KINDS`.
    layout_kinds: tuple[str, ...] = ("grid", "region")
    variants: tuple[str, ...] = ("default",)
    #: Distance at which the original's physics begins to look for contacts, m.
    contact_offset: float = 0.005

    def objects_of(self, cast: str) -> tuple[ObjectSpec, ...]:
        """The objects of a layout's cast. Layouts of one variant have equally many, and equally many contact queries.

        A scene is fixed by task, variant and cast. Most tasks have one cast, ``""``: :attr:`objects`.
        """
        return self.objects

    def contacts_of(self, cast: str) -> tuple[ContactQuery, ...]:
        """The contact queries of a cast, in an order that does not depend on it."""
        return self.contacts

    def look(self, variant: str) -> Variant:
        """The appearance of the scene in a variant.

        Raises:
            UnknownNameError: if the task has no such variant.
        """
        if variant not in self.variants:
            raise UnknownNameError(f"variant of {self.name}", variant, self.variants)
        return Variant(variant, scene=self.scenery)

    def photograph(self, variant: str = "default", base_pose: ArrayLike | None = None) -> str:
        """File name of the photograph behind the foreground; empty where the variant shows none.

        Args:
            variant: of the task.
            base_pose: world pose of the robot's root link where layouts bring their own.
        """
        return self.layout("grid:0", variant).overlay

    def address(self, layout: str) -> Address:
        """The address of a layout, for its kind, its number and its random numbers.

        Raises:
            InvalidConfigError: if ``layout`` is no kind of layouts with a number, or K is outside the grid.
            UnknownNameError: if the task has no layouts of this kind.
        """
        address = Address(self.name, layout=layout)
        self.check_layout_kind(address.layout_kind)
        if address.layout_kind == "grid" and address.layout_index >= self.num_layouts:
            regions = " or ".join(f"'{kind}:K'" for kind in self.layout_kinds if kind != "grid")
            raise InvalidConfigError(
                f"{self.name} has grid layouts 0 to {self.num_layouts - 1}; got {address.layout!r}: "
                f"choose one of them or {regions}."
            )
        return address

    @abstractmethod
    def layout(self, layout: str, variant: str = "default") -> Layout:
        """The initial state of ``"grid:K"``, ``"region:K"`` or ``"region2:K"``.

        Raises:
            InvalidConfigError: if K is outside the grid.
            UnknownNameError: if the task has no layouts of this kind.
        """

    def check_layout_kind(self, kind: str) -> None:
        """Raise :class:`UnknownNameError` if the task has no layouts of this kind."""
        if kind not in self.layout_kinds:
            raise UnknownNameError(f"kind of layouts of {self.name}", kind, self.layout_kinds)

    @abstractmethod
    def instruction(self, layout: str, variant: str = "default", stage: int = 0) -> str:
        """The instruction of the episode. ``stage`` counts the sub-tasks of long tasks.

        Raises:
            InvalidConfigError: if K is outside the grid.
        """

    @abstractmethod
    def begin(self, layouts: list[Layout]) -> Memory:
        """Memory at the start of ``B = len(layouts)`` episodes; stack of per-lane rows."""

    @abstractmethod
    def evaluate(self, scene: Snapshot, memory: Memory) -> tuple[Flags, Memory]:
        """Flags ``name -> bool [B]`` after a control step, and the memory for the next one. Pure."""

    def at_goal(self, poses: Floats, layout: Layout, target: int) -> Bools:
        """True where the source's pose fulfils the task with an object as its goal, ``[T]``.

        Args:
            poses: of the layout's objects, ``[T, n_objects, 7]``.
            layout: the initial state.
            target: the object's index.

        Raises:
            InvalidConfigError: for tasks that have no objects as goals.
        """
        raise InvalidConfigError(f"{self.name} has no object as its goal.")

    def stage(self, memory: Memory) -> NDArray[np.int64]:
        """Index of the current sub-task per environment, ``[B]``; 0 for one-stage tasks."""
        return np.zeros(len(next(iter(memory.values()))), np.int64)

    def advance(self, memory: Memory) -> Memory:
        """Memory of environments whose agent has declared the current sub-task done; nothing changes in one-stage
        tasks.

        To be called between control steps; :meth:`stage` of the answer tells what the robot is told next.
        """
        return memory
