"""Open and close drawers of the cabinet (Google Robot).

Rules of SimplerEnv's ``OpenDrawerInSceneEnv`` and ``CloseDrawerInSceneEnv`` (ManiSkill2_real2sim ef7a4d4): a drawer is
open at 0.15 m and closed at 0.05 m; only the drawer of the instruction counts.

Grid: nine robot poses per drawer, drawer outer (top, middle, bottom) where the name leaves it open. In visual matching
they are a0 to c2, one photograph each; in variant aggregation a 3 x 3 lattice, x outer. The original draws drawer and
pose from the episode's random numbers; here every combination has its own layout.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from vlaser_gym.envs.robots.google_robot import base_pose
from vlaser_gym.envs.tasks.base import Flags, Floats, Layout, Memory, Snapshot
from vlaser_gym.envs.tasks.cabinet import DRAWERS, joint_name
from vlaser_gym.envs.tasks.google import MARGIN, GoogleTask
from vlaser_gym.envs.tasks.variants import ROBOT_COLOURS, Variant

#: Robot poses of visual matching: x, y (m), extra yaw (rad). Photographs are called after them.
ROBOT_POSES: dict[str, tuple[float, float, float]] = {
    "a0": (0.644, -0.179, -0.03),
    "a1": (0.765, -0.182, -0.02),
    "a2": (0.889, -0.203, -0.06),
    "b0": (0.652, 0.009, 0.0),
    "b1": (0.752, 0.009, 0.0),
    "b2": (0.851, 0.035, 0.0),
    "c0": (0.665, 0.224, 0.0),
    "c1": (0.765, 0.222, -0.025),
    "c2": (0.865, 0.222, -0.025),
}
#: Robot positions of variant aggregation, m; no extra yaw.
AGGREGATION_POSITIONS = tuple((x, y) for x in (0.65, 0.75, 0.85) for y in (-0.2, 0.0, 0.2))

#: Joint positions that count as open and closed, and of a drawer to be closed at the start, m.
OPEN, CLOSED, LEFT_OPEN = 0.15, 0.05, 0.2
#: Continuous robot poses keep this far from all grid poses, m.
_NEAR = 0.01
#: Kind of layouts -> by how much the robot may stand outside the grid's poses: x, y (m), extra yaw (rad).
_ROBOT_MARGINS = {"region": (0.0, 0.0, 0.0), "region2": (MARGIN, MARGIN, 0.03)}

#: A robot's ``(x, y, extra yaw)``, m and rad.
_Stand = tuple[float, float, float]


def cabinet_looks() -> tuple[Variant, ...]:
    """All variants of the scene with the cabinet."""
    matching = Variant("", "dummy_drawer", True, "drawer_simple", shiny_robot=False, station="mk_station_recolor")
    room = "frl_apartment_stage_simple"
    return (
        *(replace(matching, name=colour or "default", robot_colour=colour) for colour in ROBOT_COLOURS),
        Variant("aggregation", room, False, "drawer", station="mk_station"),
        Variant("modern_bedroom", "modern_bedroom_no_roof", False, "drawer", station="mk_station"),
        Variant("modern_office", "modern_office_no_roof", False, "drawer", station="mk_station"),
        Variant("brighter_lighting", room, False, "drawer_brighter", station="mk_station"),
        Variant("darker_lighting", room, False, "drawer_darker", station="mk_station"),
        Variant("station2", room, False, "drawer", station="mk_station2"),
        Variant("station3", room, False, "drawer", station="mk_station3"),
        replace(matching, name="solid_handles", solid_handles=True),
    )


def robot_pose(index: int, look: Variant) -> tuple[tuple[float, ...], str]:
    """World pose of the base link and the photograph of the ``index``-th of nine robot poses."""
    if look.overlay:
        name = tuple(ROBOT_POSES)[index]
        return base_pose(*ROBOT_POSES[name]), f"open_drawer_{name}.png"
    return base_pose(*AGGREGATION_POSITIONS[index]), ""


def draw_robot_pose(kind: str, rng: np.random.Generator, low: _Stand, high: _Stand) -> tuple[float, ...]:
    """A base pose between two bounds, at least 1 cm from every grid position.

    Args:
        kind: of layouts; ``"region2"`` goes on for 4 cm and 0.03 rad outside the bounds.
        rng: of the layout.
        low, high: the bounds of the grid's poses.
    """
    taken = np.array([*(pose[:2] for pose in ROBOT_POSES.values()), *AGGREGATION_POSITIONS])
    margin = np.array(_ROBOT_MARGINS[kind])
    while True:
        x, y, yaw = (float(value) for value in rng.uniform(np.array(low) - margin, np.array(high) + margin))
        if np.hypot(*(taken - (x, y)).T).min() > _NEAR:
            return base_pose(x, y, yaw)


def nearest_photograph(pose: tuple[float, ...]) -> str:
    """The photograph taken nearest to a base pose; a stand-in for drawn poses, of which there are none."""
    name = min(ROBOT_POSES, key=lambda key: np.hypot(ROBOT_POSES[key][0] - pose[0], ROBOT_POSES[key][1] - pose[1]))
    return f"open_drawer_{name}.png"


def photograph_behind(look: Variant, base_pose: ArrayLike | None) -> str:
    """The photograph of a variant with the cabinet, for a robot standing at ``base_pose`` (None: at the first)."""
    if not look.overlay:
        return ""
    return nearest_photograph(robot_pose(0, look)[0] if base_pose is None else tuple(np.asarray(base_pose)))


def stacked_joints(scene: Snapshot) -> Floats:
    """Positions of all drawers, ``[B, 3]``, top to bottom, m."""
    return np.stack([scene.joints[joint_name(drawer)] for drawer in DRAWERS], axis=1)


def goal_drawers(layouts: list[Layout]) -> Floats:
    """Index of the drawer that each layout is about, ``[B]``."""
    names = [joint_name(drawer) for drawer in DRAWERS]
    return np.array([names.index(layout.goal_joint) for layout in layouts], np.float64)


def chosen(joints: Floats, drawer: Floats) -> Floats:
    """``joints [B, 3]`` at ``drawer [B]``."""
    return np.asarray(joints[np.arange(len(joints)), drawer.astype(np.int64)])


class DrawerTask(GoogleTask):
    """Open or close a drawer.

    Args:
        name: SimplerEnv's name of the task.
        verb: ``"open"`` or ``"close"``.
        drawers: those that its layouts are about.
    """

    robot_setup = "google_robot_drawer"
    scenery = "google_cabinet"
    max_steps = 113
    contact_offset = 0.02
    objects = ()
    contacts = ()
    source = target = -1
    flags = ("success",)
    subgoals = ("success",)

    def __init__(self, name: str, verb: str, drawers: tuple[str, ...]) -> None:
        super().__init__(name, cabinet_looks(), len(drawers) * len(ROBOT_POSES))
        self._verb, self._drawers = verb, drawers

    def _state(self, drawer: str, pose: tuple[float, ...], overlay: str) -> Layout:
        start = {joint_name(name): 0.0 for name in DRAWERS}
        if self._verb == "close":
            start[joint_name(drawer)] = LEFT_OPEN
        return Layout(np.zeros((0, 7)), start, base_pose=pose, goal_joint=joint_name(drawer), overlay=overlay)

    def grid_layout(self, index: int, look: Variant) -> Layout:
        """Drawer outer, robot pose inner."""
        drawer, pose = divmod(index, len(ROBOT_POSES))
        return self._state(self._drawers[drawer], *robot_pose(pose, look))

    def region_layout(self, kind: str, rng: np.random.Generator, look: Variant) -> Layout:
        """A drawer, and a robot pose in the area of all grid poses; ``region2``: or around it."""
        drawer = self._draw(rng)
        pose = draw_robot_pose(kind, rng, (0.644, -0.203, -0.06), (0.889, 0.224, 0.0))
        return self._state(drawer, pose, nearest_photograph(pose) if look.overlay else "")

    def photograph(self, variant: str = "default", base_pose: ArrayLike | None = None) -> str:
        """File name of the photograph that belongs to a base pose."""
        return photograph_behind(self.look(variant), base_pose)

    def _draw(self, rng: np.random.Generator) -> str:
        return str(rng.choice(self._drawers))

    def instruction(self, layout: str, variant: str = "default", stage: int = 0) -> str:
        """``"open top drawer"``."""
        self.look(variant)
        address = self.address(layout)
        if address.layout_kind == "grid":
            return f"{self._verb} {self._drawers[address.layout_index // len(ROBOT_POSES)]} drawer"
        return f"{self._verb} {self._draw(address.rng('layout'))} drawer"

    def begin(self, layouts: list[Layout]) -> Memory:
        """``drawer [B]``: index of the one that counts."""
        return {"drawer": goal_drawers(layouts)}

    def evaluate(self, scene: Snapshot, memory: Memory) -> tuple[Flags, Memory]:
        """``success [B]``; nothing is remembered between control steps."""
        position = chosen(stacked_joints(scene), memory["drawer"])
        return {"success": position >= OPEN if self._verb == "open" else position <= CLOSED}, memory


TASKS: tuple[DrawerTask, ...] = tuple(
    DrawerTask(f"google_robot_{verb}_{which}drawer", verb, drawers)
    for verb in ("open", "close")
    for which, drawers in (("", DRAWERS), *((f"{name}_", (name,)) for name in DRAWERS))
)
