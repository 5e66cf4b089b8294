"""Put one object on another: the rules shared by the four WidowX tasks.

Rules and quirks are those of SimplerEnv's ``PutOnInSceneEnv`` (ManiSkill2_real2sim ef7a4d4) and are reproduced, not
corrected:

- Positions of source and target are those of their centres of mass. Whether the source moved is measured from the actor
  origin at rest to the centre of mass now, for other objects from actor origin to actor origin.
- The "world boxes" are the database sizes multiplied by the rotation matrix of the resting orientation, fixed for the
  episode. Components may be negative; the rule takes the norm of xy and the raw z.
- Success needs no release: an object held in the right place counts.
- Contacts are those of the last physics substep only.

Flags and their names in the original: ``success``, ``src_on_target``, ``is_src_obj_grasped``, ``consecutive_grasp``,
``moved_correct_obj``, ``moved_wrong_obj`` are what ``info`` returns. Its ``episode_stats`` repeats the present values
of three of them and remembers the two others: ``episode_stats["is_src_obj_grasped"]`` is ``ever_grasped`` here,
``episode_stats["consecutive_grasp"]`` is ``ever_consecutive_grasp``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vlaser_gym.conventions.rotations import matrix_from_quaternion, rotate
from vlaser_gym.envs.instructions import drawn
from vlaser_gym.envs.tasks.base import (
    Bools,
    ContactQuery,
    Flags,
    Floats,
    Layout,
    Memory,
    ObjectSpec,
    Snapshot,
    Task,
)
from vlaser_gym.envs.tasks.google_objects import catalogued
from vlaser_gym.envs.tasks.region import Region
from vlaser_gym.envs.tasks.variants import Variant
from vlaser_gym.errors import UnknownNameError

#: WidowX finger links and the sign of their y axis along which a held object presses on them.
FINGERS = (("left_finger_link", 1.0), ("right_finger_link", -1.0))
#: Least impulse of a grasp, N s, and greatest angle to the closing axis.
GRASP_IMPULSE, GRASP_COSINE = 1e-6, np.cos(np.deg2rad(60.0))
#: Control steps in a row that make a grasp firm.
GRASP_STEPS = 5
#: An object has moved when it is farther than this from its resting place in the plane, m.
MOVED_DISTANCE = 0.03
#: Slack of the horizontal rule, m.
XY_MARGIN = 0.003
#: Impulse above which the source touches something, N s.
TOUCH_IMPULSE = 1e-6
#: Scenery -> the photograph behind the foreground, and the light.
_SCENES = {"bridge_table": ("bridge_real_eval_1.png", "default"), "bridge_sink": ("bridge_sink.png", "sink")}


class PutOnTask(Task):
    """Put the first of ``objects`` on the second.

    Args:
        name: SimplerEnv's name of the task.
        instruction: what the robot is told; of several sentences each layout has one.
        objects: source, target, then everything else that is not the robot.
        region: the grid ``[n, n_objects, 7]`` and what is drawn within it.
        region2: what is drawn around it with a margin; ``None``: the task has no such layouts.
        robot_setup: see :attr:`Task.robot_setup`.
        scenery: see :attr:`Task.scenery`.
        max_steps: control steps until truncation.
        z_margin: slack of the vertical rule, m.
        completely_on: success also needs that the source touches nothing but the target and the robot.
    """

    flags = (
        "success",
        "src_on_target",
        "is_src_obj_grasped",
        "consecutive_grasp",
        "moved_correct_obj",
        "moved_wrong_obj",
        "ever_grasped",
        "ever_consecutive_grasp",
    )
    subgoals = ("ever_grasped", "ever_consecutive_grasp", "moved_correct_obj", "success")

    def __init__(
        self,
        name: str,
        instruction: str | Sequence[str],
        objects: tuple[ObjectSpec, ...],
        region: Region,
        *,
        robot_setup: str = "widowx",
        scenery: str = "bridge_table",
        max_steps: int = 60,
        z_margin: float = 0.02,
        completely_on: bool = False,
        region2: Region | None = None,
    ) -> None:
        self.name = name
        self.robot_setup = robot_setup
        self.scenery = scenery
        self.max_steps = max_steps
        self.objects = objects
        self.num_layouts = len(region.grid)
        self.z_margin = z_margin
        self.completely_on = completely_on
        self.contacts = self._queries(objects)
        self._photograph, self._light = _SCENES[scenery]
        self._instructions = (instruction,) if isinstance(instruction, str) else tuple(instruction)
        self._grid = region.grid
        self._regions = {"region": region, **({"region2": region2} if region2 else {})}
        self.layout_kinds = ("grid", *self._regions)
        self._others = [i for i, body in enumerate(objects) if i != self.source and not body.fixed]
        self._com = np.array([objects[self.source].com, objects[self.target].com])
        self._bbox = np.array([objects[self.source].bbox, objects[self.target].bbox])

    def objects_of(self, cast: str) -> tuple[ObjectSpec, ...]:
        """The task's own objects, or those of a perturbed episode: all names joined by ``+``, in the task's order."""
        own = {body.name: body for body in self.objects}
        return tuple(own.get(name) or catalogued(name) for name in cast.split("+")) if cast else self.objects

    def contacts_of(self, cast: str) -> tuple[ContactQuery, ...]:
        """The contact queries of a cast; see :meth:`objects_of`."""
        return self._queries(self.objects_of(cast)) if cast else self.contacts

    def _queries(self, objects: tuple[ObjectSpec, ...]) -> tuple[ContactQuery, ...]:
        """Source on both fingers; then, where success depends on it, all that must not touch the source."""
        source = f"object:{objects[self.source].name}"
        fingers = tuple(ContactQuery(of=f"link:{link}", by=source) for link, _ in FINGERS)
        if not self.completely_on:
            return fingers
        ignored = (self.source, self.target)
        strangers = [f"object:{body.name}" for i, body in enumerate(objects) if i not in ignored]
        return fingers + tuple(ContactQuery(of=source, by=stranger) for stranger in ("scene", *strangers))

    def like(
        self,
        name: str,
        *,
        instruction: Sequence[str] | None = None,
        grid: Floats | None = None,
        max_steps: int | None = None,
    ) -> PutOnTask:
        """This task under another name, with what is given in place of its own.

        Args:
            name: of the new task.
            instruction: sentences.
            grid: layouts, poses ``[n, n_objects, 7]`` of objects at rest; regions stay clear of them.
            max_steps: control steps until truncation.
        """
        regions = {
            kind: region if grid is None else replace(region, grid=grid) for kind, region in self._regions.items()
        }
        return type(self)(
            name,
            self._instructions if instruction is None else instruction,
            self.objects,
            regions["region"],
            robot_setup=self.robot_setup,
            scenery=self.scenery,
            max_steps=self.max_steps if max_steps is None else max_steps,
            z_margin=self.z_margin,
            completely_on=self.completely_on,
            region2=regions.get("region2"),
        )

    def region(self, kind: str = "region") -> Region:
        """The region from which layouts of a kind are drawn, for further tasks on the same table.

        Raises:
            UnknownNameError: if the task has no such layouts.
        """
        if kind not in self._regions:
            raise UnknownNameError(f"region of {self.name}", kind, self._regions)
        return self._regions[kind]

    def layout(self, layout: str, variant: str = "default") -> Layout:
        """Poses at rest, read-only, ``[n_objects, 7]``.

        ``"grid:K"`` is ``episode_id`` K of the original. ``"region:K"`` and ``"region2:K"`` depend on the task's name
        and K alone; see :mod:`vlaser_gym.envs.tasks.region`.

        Raises:
            InvalidConfigError: if K is outside the grid, or ``layout`` has no such form.
            UnknownNameError: if the task has no such variant, or no layouts of this kind.
        """
        self._check_variant(variant)
        address = self.address(layout)
        if address.layout_kind == "grid":
            return Layout(self._grid[address.layout_index], overlay=self._photograph)
        poses = self._regions[address.layout_kind].draw(address.rng("layout"))
        poses.setflags(write=False)
        return Layout(poses, overlay=self._photograph)

    def look(self, variant: str) -> Variant:
        """The one look of these tasks: a photograph behind the foreground.

        Raises:
            UnknownNameError: if the task has no such variant.
        """
        self._check_variant(variant)
        return Variant(variant, scene=self.scenery, light=self._light)

    def instruction(self, layout: str, variant: str = "default", stage: int = 0) -> str:
        """The original's sentence, the same in every layout; of several one by the layout."""
        self._check_variant(variant)
        return drawn(self._instructions, self.address(layout))

    def _check_variant(self, variant: str) -> None:
        if variant not in self.variants:
            raise UnknownNameError(f"variant of {self.name}", variant, self.variants)

    def begin(self, layouts: list[Layout]) -> Memory:
        """Resting places, world boxes and empty latches.

        Returns:
            ``rest [B, n_objects, 3]`` actor origins at rest, m; ``box [B, 2, 3]`` of source and target, m;
            ``grasp_streak [B]`` control steps of the present grasp; ``ever_grasped [B]`` and
            ``ever_consecutive_grasp [B]``, 0 or 1. With casts also ``com [B, 2, 3]``, centres of mass of source and
            target in their actor frames, m.
        """
        poses = np.stack([layout.object_pose for layout in layouts])
        latch = np.zeros(len(layouts))
        bbox, casts = self._bbox, Memory()
        if any(layout.cast for layout in layouts):
            pairs = [[self.objects_of(layout.cast)[i] for i in (self.source, self.target)] for layout in layouts]
            bbox = np.array([[body.bbox for body in pair] for pair in pairs])
            casts = {"com": np.array([[body.com for body in pair] for pair in pairs])}
        return {
            **casts,
            "rest": poses[..., :3].copy(),
            "box": rotate(matrix_from_quaternion(poses[:, [self.source, self.target], 3:]), bbox),
            "grasp_streak": latch,
            "ever_grasped": latch.copy(),
            "ever_consecutive_grasp": latch.copy(),
        }

    def evaluate(self, scene: Snapshot, memory: Memory) -> tuple[Flags, Memory]:
        """All of :attr:`flags`, each bool ``[B]``, and the memory for the next control step."""
        pair = scene.object_pose[:, [self.source, self.target]]
        com = pair[..., :3] + rotate(matrix_from_quaternion(pair[..., 3:]), memory.get("com", self._com))
        moved, moved_wrong = self._moved(com[:, 0], scene.object_pose, memory["rest"])
        grasped = _grasped(scene)
        streak = np.where(grasped, memory["grasp_streak"] + 1, 0.0)
        firm = streak >= GRASP_STEPS
        ever_grasped = grasped | (memory["ever_grasped"] > 0)
        ever_firm = firm | (memory["ever_consecutive_grasp"] > 0)
        # The source touches nothing but target and robot.
        others = np.linalg.norm(scene.impulse[:, len(FINGERS) :], axis=-1)
        on_target = self._on_target(com, memory["box"]) & (others <= TOUCH_IMPULSE).all(1)
        values = (on_target, on_target.copy(), grasped, firm, moved, moved_wrong, ever_grasped, ever_firm)
        latches = {
            "grasp_streak": streak,
            "ever_grasped": ever_grasped.astype(np.float64),
            "ever_consecutive_grasp": ever_firm.astype(np.float64),
        }
        return dict(zip(self.flags, values, strict=True)), {**memory, **latches}

    def at_goal(self, poses: Floats, layout: Layout, target: int) -> Bools:
        """See :meth:`Task.at_goal`: over the target and low enough, whatever touches the source."""
        pair = [self.source, target]
        bodies = [self.objects_of(layout.cast)[i] for i in pair]
        box = rotate(matrix_from_quaternion(layout.object_pose[pair, 3:]), np.array([body.bbox for body in bodies]))
        rotation = matrix_from_quaternion(poses[:, pair, 3:])
        com = poses[:, pair, :3] + rotate(rotation, np.array([body.com for body in bodies]))
        return self._on_target(com, box[None])

    def _moved(self, source_com: Floats, poses: Floats, rest: Floats) -> tuple[Bools, Bools]:
        """True where the source moved most, and where another object did; each ``[B]``."""
        own = np.hypot(source_com[:, 0] - rest[:, self.source, 0], source_com[:, 1] - rest[:, self.source, 1])
        # A cast's further objects come last.
        bystanders = [*self._others, *range(len(self.objects), poses.shape[1])]
        shift = poses[:, bystanders][..., :2] - rest[:, bystanders, :2]
        others: Floats = np.hypot(shift[..., 0], shift[..., 1])
        correct = (own > MOVED_DISTANCE) & (others < own[:, None]).all(1)
        wrong = (others > MOVED_DISTANCE).any(1) & (others > own[:, None]).any(1)
        return np.asarray(correct), np.asarray(wrong)

    def _on_target(self, com: Floats, box: Floats) -> Bools:
        """True where the source's centre is over the target and low enough, ``[B]``."""
        offset = com[:, 0] - com[:, 1]
        half = box / 2
        over = np.hypot(offset[:, 0], offset[:, 1]) <= np.hypot(half[:, 1, 0], half[:, 1, 1]) + XY_MARGIN
        height = offset[:, 2]
        return np.asarray(over & (height > 0) & (height - half[:, 1, 2] - half[:, 0, 2] <= self.z_margin))


def _grasped(scene: Snapshot) -> Bools:
    """True where the source presses both fingers outwards, within 60 degrees of their closing axis, ``[B]``."""
    impulse = scene.impulse[:, : len(FINGERS)]
    orientation = np.stack([scene.link_pose[link][:, 3:] for link, _ in FINGERS], axis=1)
    outwards = matrix_from_quaternion(orientation)[..., 1] * np.array([[sign] for _, sign in FINGERS])
    size = np.sqrt((impulse * impulse).sum(-1))
    pressed = (size >= GRASP_IMPULSE) & ((impulse * outwards).sum(-1) >= GRASP_COSINE * size)
    return np.asarray(pressed.all(1))
