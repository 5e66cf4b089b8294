"""The common part of the Google Robot tasks: variants, choice of layouts, the grasp test.

Layouts. ``"grid:K"`` is the K-th initial state of the benchmark's lists; which they are depends on the task, and for
robot poses on the variant's kind. ``"region:K"`` and ``"region2:K"`` depend on the task's name and K alone and keep
1 cm (and, for objects, 10 degrees) away from every grid state. ``region`` lies within the grid; ``region2`` goes on for
:data:`MARGIN` around it, as far as table or cabinet carry the object, and turns objects further.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

import numpy as np

from vlaser_gym.conventions.rotations import matrix_from_quaternion
from vlaser_gym.envs.robots.google_robot import HEAD_TILT, START_QPOS
from vlaser_gym.envs.tasks.base import Bools, ContactQuery, Floats, Layout, ObjectSpec, Snapshot, Task
from vlaser_gym.envs.tasks.google_objects import body
from vlaser_gym.envs.tasks.variants import Variant
from vlaser_gym.errors import UnknownNameError

#: Height of the table top of pick and move near, m, and the box under it: low x, high x, low y, high y. The original's
#: table mesh could not be measured; recordings were made on this box.
TABLE_HEIGHT, TABLE_AREA = 0.87, (-0.61, 0.02, -0.0975, 0.5175)

#: Links of each finger, tip last. A held object presses on them along their +y axes.
FINGERS = (
    ("link_finger_right", "link_finger_tip_right"),
    ("link_finger_left", "link_finger_tip_left"),
)
_FINGER_LINKS = tuple(link for finger in FINGERS for link in finger)
#: Least impulse of a grasp, N s, and greatest angle to the closing axis.
GRASP_IMPULSE, GRASP_COSINE = 1e-6, float(np.cos(np.deg2rad(80.0)))
#: Impulse above which things touch, N s.
TOUCH_IMPULSE = 1e-6
#: By how much ``region2`` is wider than the grid on every side, m.
MARGIN = 0.04


class GoogleTask(Task):
    """Base of the Google Robot tasks; subclasses give :meth:`grid_layout` and :meth:`region_layout`.

    Args:
        name: SimplerEnv's name of the task.
        looks: the variants, ``"default"`` first.
        num_layouts: size of the grid.
    """

    density: float | None = None
    layout_kinds = ("grid", "region", "region2")

    def __init__(self, name: str, looks: Iterable[Variant], num_layouts: int) -> None:
        self.name = name
        self.num_layouts = num_layouts
        self._looks = {look.name: look for look in looks}
        self.variants = tuple(self._looks)

    def look(self, variant: str) -> Variant:
        """The appearance of the scene in a variant.

        Raises:
            UnknownNameError: if the task has no such variant.
        """
        if variant not in self._looks:
            raise UnknownNameError(f"variant of {self.name}", variant, self._looks)
        return self._looks[variant]

    def objects_of(self, cast: str) -> tuple[ObjectSpec, ...]:
        """Bodies of a cast: model ids joined by ``+``."""
        return tuple(body(model, self.density) for model in cast.split("+") if model)

    def layout(self, layout: str, variant: str = "default") -> Layout:
        """The initial state of ``"grid:K"``, ``"region:K"`` or ``"region2:K"``; arrays are read-only.

        Raises:
            InvalidConfigError: if K is outside the grid, or ``layout`` has no such form.
            UnknownNameError: if the task has no such variant.
        """
        look, address = self.look(variant), self.address(layout)
        if address.layout_kind == "grid":
            state = self.grid_layout(address.layout_index, look)
        else:
            state = self.region_layout(address.layout_kind, address.rng("layout"), look)
        state.object_pose.setflags(write=False)
        return state

    @abstractmethod
    def grid_layout(self, index: int, look: Variant) -> Layout:
        """Layout ``grid:index``; the index is in range."""

    @abstractmethod
    def region_layout(self, kind: str, rng: np.random.Generator, look: Variant) -> Layout:
        """A draw that keeps away from the grid; ``kind`` is ``"region"`` or ``"region2"``."""


def start_qpos(look: Variant) -> tuple[float, ...] | None:
    """Start joint positions in a variant; None for the setup's."""
    if look.head_tilt is None:
        return None
    return (*START_QPOS[:HEAD_TILT], look.head_tilt)


def grasp_queries(source: str) -> tuple[ContactQuery, ...]:
    """The four contact queries of :func:`grasped`: fingers and tips, right before left."""
    return tuple(ContactQuery(of=f"link:{link}", by=f"object:{source}") for link in _FINGER_LINKS)


def grasped(scene: Snapshot) -> Bools:
    """True where the source presses both fingers outwards, ``[B]``. The grasp queries come first in the scene.

    Per side the larger of the impulses on finger and tip counts, and the smaller of their angles to the +y axes, which
    may be the other link's. An impulse of nothing counts as square to the axis.
    """
    impulse = scene.impulse[:, : len(_FINGER_LINKS)]
    orientation = np.stack([scene.link_pose[link][:, 3:] for link in _FINGER_LINKS], axis=1)
    size = np.linalg.norm(impulse, axis=-1)
    along = (impulse * matrix_from_quaternion(orientation)[..., 1]).sum(-1)
    cosine = np.where(size < GRASP_IMPULSE, 0.0, along / np.maximum(size, GRASP_IMPULSE))
    sides = (len(impulse), len(FINGERS), -1)
    pressed = (size.reshape(sides).max(2) >= GRASP_IMPULSE) & (cosine.reshape(sides).max(2) >= GRASP_COSINE)
    return np.asarray(pressed.all(1))


def freeze(poses: Floats) -> Floats:
    """The same array, read-only."""
    poses.setflags(write=False)
    return poses
