"""Open a drawer, then put an object into it (Google Robot): one episode, two instructions.

Rules and quirks are those of SimplerEnv's ``PlaceObjectInClosedDrawerInSceneEnv`` (ManiSkill2_real2sim ef7a4d4):

- The second sub-task begins when the agent declares the first one done, or by itself with the 101st control step; that
  step is still chosen by the first instruction, and the next observation has the second.
- ``success``: in the second sub-task, the drawer at 5 cm or more, and the object has touched the drawer's floor (in
  either sub-task) in the last physics substep of at least one control step.

Flags and their names in the original: ``is_drawer_open`` is ``episode_stats["is_drawer_open"]`` (remembered),
``has_contact`` says whether ``episode_stats["has_contact"]`` is above zero; that count is in the memory.

Grid: drawer outer, then object, then robot pose, then nine positions of the object (x outer). Visual matching has the
robot poses a0, b0 and c0, variant aggregation x 0.65 m with y -0.2, 0 and 0.2 m.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlaser_gym.conventions.rotations import heading
from vlaser_gym.envs.tasks.base import ContactQuery, Flags, Floats, Layout, Memory, Snapshot
from vlaser_gym.envs.tasks.cabinet import DRAWERS, TOP, TOP_AREA, joint_name
from vlaser_gym.envs.tasks.drawers import (
    OPEN,
    cabinet_looks,
    chosen,
    draw_robot_pose,
    goal_drawers,
    nearest_photograph,
    photograph_behind,
    robot_pose,
    stacked_joints,
)
from vlaser_gym.envs.tasks.google import MARGIN, TOUCH_IMPULSE, GoogleTask
from vlaser_gym.envs.tasks.google_objects import spoken
from vlaser_gym.envs.tasks.google_settled import footprint, resting
from vlaser_gym.envs.tasks.region import BOUNDLESS, YAW_MARGIN, Rectangle, Region, Spot, widened
from vlaser_gym.envs.tasks.variants import Variant

#: The drawer counts as usable from here on, m.
AJAR = 0.05
#: Control steps after which the second sub-task begins by itself.
FORCED_STEP = 100
#: The grid's coordinates on the cabinet, m, and the area around them.
_POSITIONS = tuple((x, y) for x in (-0.08, -0.05, -0.02) for y in (-0.02, 0.03, 0.08))
_AREA: Rectangle = (-0.10, -0.02, -0.02, 0.10)
#: Indices of the robot poses among the nine of the drawer tasks.
_MATCHING_POSES, _AGGREGATION_POSES = (0, 3, 6), (0, 1, 2)

#: All models of the original's database; variant aggregation takes the plain apple for the one with baked light.
MODELS = (
    "pepsi_can",
    "baked_opened_pepsi_can_v2",
    "coke_can",
    "opened_coke_can",
    "baked_opened_coke_can_v2",
    "sprite_can",
    "opened_sprite_can",
    "7up_can",
    "baked_opened_7up_can_v2",
    "fanta_can",
    "opened_fanta_can",
    "redbull_can",
    "baked_opened_redbull_can_v2",
    "blue_plastic_bottle",
    "baked_blue_plastic_bottle_v2",
    "apple",
    "baked_apple_v2",
    "orange",
    "baked_orange_v2",
    "sponge",
    "baked_sponge_v2",
)
_PLAIN = {"baked_apple_v2": "apple"}


class PlaceInDrawerTask(GoogleTask):
    """Put an object that lies on the cabinet into one of its drawers, all closed at first.

    Args:
        name: SimplerEnv's name of the task.
        drawers: those that its layouts are about.
        models: objects that its layouts are about.
    """

    robot_setup = "google_robot_drawer"
    scenery = "google_cabinet"
    max_steps = 200
    target = -1
    flags = ("success", "is_drawer_open", "has_contact")
    subgoals = ("is_drawer_open", "has_contact", "success")

    def __init__(self, name: str, drawers: tuple[str, ...], models: tuple[str, ...]) -> None:
        super().__init__(name, cabinet_looks(), len(drawers) * len(models) * len(_MATCHING_POSES) * len(_POSITIONS))
        self._drawers, self._models = drawers, models
        self.objects = self.objects_of(models[0])
        self.contacts = self.contacts_of(models[0])

    def contacts_of(self, cast: str) -> tuple[ContactQuery, ...]:
        """The object on the floor of every drawer, top to bottom."""
        return tuple(ContactQuery(of=f"object:{cast}", by=f"part:{drawer}_drawer_floor") for drawer in DRAWERS)

    def _state(self, drawer: str, model: str, pose: Floats, base: tuple[float, ...], overlay: str) -> Layout:
        return Layout(
            pose[None],
            {joint_name(name): 0.0 for name in DRAWERS},
            base_pose=base,
            cast=model,
            goal_joint=joint_name(drawer),
            overlay=overlay,
        )

    def _split(self, index: int) -> tuple[str, str, int, int]:
        rest, position = divmod(index, len(_POSITIONS))
        rest, robot = divmod(rest, len(_MATCHING_POSES))
        drawer, model = divmod(rest, len(self._models))
        return self._drawers[drawer], self._models[model], robot, position

    def grid_layout(self, index: int, look: Variant) -> Layout:
        """Drawer outer, then object, robot pose and position."""
        drawer, name, robot, position = self._split(index)
        model = _model(name, look)
        poses = _MATCHING_POSES if look.overlay else _AGGREGATION_POSES
        pose = resting(model, "flat", 0.0, _POSITIONS[position], TOP)
        return self._state(drawer, model, pose, *robot_pose(poses[robot], look))

    def region_layout(self, kind: str, rng: np.random.Generator, look: Variant) -> Layout:
        """A drawer, an object anywhere in the grid's area turned by up to 15 degrees, and a robot pose near by.

        ``region2``: an object around it on the cabinet too, turned by any angle, and a robot pose farther off.
        """
        drawer, name = self._draw(rng)
        model = _model(name, look)
        grid = np.array([resting(model, "flat", 0.0, xy, TOP) for xy in _POSITIONS])[:, None]
        middle = float(heading(grid[0, 0, 3:]))
        wide = kind == "region2"
        area, turn = (widened(_AREA, MARGIN), np.pi) if wide else (_AREA, YAW_MARGIN)
        spot = Spot(area, (middle - turn, middle + turn), footprint(model, "flat"))
        walls = TOP_AREA if wide else BOUNDLESS
        pose = Region(grid=grid, bases=grid[:1], spots=(spot,), clearance=0.0, walls=walls).draw(rng)[0]
        base = draw_robot_pose(kind, rng, (0.644, -0.2, -0.03), (0.665, 0.224, 0.0))
        return self._state(drawer, model, pose, base, nearest_photograph(base) if look.overlay else "")

    def photograph(self, variant: str = "default", base_pose: ArrayLike | None = None) -> str:
        """File name of the photograph that belongs to a base pose."""
        return photograph_behind(self.look(variant), base_pose)

    def _draw(self, rng: np.random.Generator) -> tuple[str, str]:
        return str(rng.choice(self._drawers)), str(rng.choice(self._models))

    def instruction(self, layout: str, variant: str = "default", stage: int = 0) -> str:
        """``"open top drawer"``, then ``"place apple into top drawer"``."""
        self.look(variant)
        address = self.address(layout)
        if address.layout_kind == "grid":
            drawer, model, *_ = self._split(address.layout_index)
        else:
            drawer, model = self._draw(address.rng("layout"))
        return f"place {spoken(model)} into {drawer} drawer" if stage else f"open {drawer} drawer"

    def begin(self, layouts: list[Layout]) -> Memory:
        """``drawer [B]`` (index), ``subtask [B]`` (0 or 1), ``drawer_opened [B]``, ``contact_steps [B]``."""
        memory = {name: np.zeros(len(layouts)) for name in ("subtask", "drawer_opened", "contact_steps")}
        return {"drawer": goal_drawers(layouts), **memory}

    def evaluate(self, scene: Snapshot, memory: Memory) -> tuple[Flags, Memory]:
        """All of :attr:`flags`, each bool ``[B]``, and the memory for the next control step."""
        subtask = np.maximum(memory["subtask"], scene.elapsed > FORCED_STEP)
        position = chosen(stacked_joints(scene), memory["drawer"])
        touching = chosen(np.linalg.norm(scene.impulse, axis=-1), memory["drawer"]) > TOUCH_IMPULSE
        contact_steps = memory["contact_steps"] + touching
        opened = np.maximum(memory["drawer_opened"], position >= OPEN)
        success = (subtask > 0) & (position >= AJAR) & (contact_steps > 0)
        flags = {"success": success, "is_drawer_open": opened > 0, "has_contact": contact_steps > 0}
        latches = {"subtask": subtask, "drawer_opened": opened, "contact_steps": contact_steps}
        return flags, {**memory, **latches}

    def stage(self, memory: Memory) -> NDArray[np.int64]:
        """0 while the drawer is to be opened, then 1."""
        return memory["subtask"].astype(np.int64)

    def advance(self, memory: Memory) -> Memory:
        """The second sub-task begins; there it changes nothing."""
        return {**memory, "subtask": np.ones_like(memory["subtask"])}


def _model(name: str, look: Variant) -> str:
    return name if look.overlay else _PLAIN.get(name, name)


TASKS: tuple[PlaceInDrawerTask, ...] = (
    PlaceInDrawerTask("google_robot_place_in_closed_drawer", DRAWERS, MODELS),
    *(PlaceInDrawerTask(f"google_robot_place_in_closed_{name}_drawer", (name,), MODELS) for name in DRAWERS),
    PlaceInDrawerTask("google_robot_place_apple_in_closed_top_drawer", ("top",), ("baked_apple_v2",)),
)
