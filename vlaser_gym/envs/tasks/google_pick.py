"""Pick an object from the table (Google Robot).

Rules and quirks are those of SimplerEnv's ``GraspSingleInSceneEnv`` (ManiSkill2_real2sim ef7a4d4), reproduced, not
corrected:

- ``lifted_object`` is latched while the object is held; losing the grasp clears it. Lifted means: 1 cm above rest, and
  no contact with anything but the robot.
- ``success`` is ``lifted_object`` now, or five control steps so far with ``lifted_object_significantly`` (2 cm): a can
  held up for five steps and put down again counts.
- Contacts are those of the last physics substep only.

Flags and their names in the original: ``is_grasped``, ``consecutive_grasp``, ``lifted_object``,
``lifted_object_significantly`` and ``success`` are what ``info`` returns; ``episode_stats["grasped"]`` is
``ever_grasped`` here, ``["consec_grasp"]`` is ``ever_consecutive_grasp``, ``["n_lift_significant"]`` is in the memory.

Grid: 5 x 5 positions, x outer, for each orientation, for each model.
"""

from __future__ import annotations

import numpy as np

from vlaser_gym.conventions.rotations import heading
from vlaser_gym.envs.robots.google_robot import ALTERNATIVE_HEAD_TILTS
from vlaser_gym.envs.tasks.base import ContactQuery, Flags, Floats, Layout, Memory, Snapshot
from vlaser_gym.envs.tasks.google import (
    MARGIN,
    TABLE_AREA,
    TABLE_HEIGHT,
    TOUCH_IMPULSE,
    GoogleTask,
    grasp_queries,
    grasped,
    start_qpos,
)
from vlaser_gym.envs.tasks.google_objects import shape_of, spoken
from vlaser_gym.envs.tasks.google_settled import footprint, pick_starts, resting
from vlaser_gym.envs.tasks.region import (
    BOUNDLESS,
    YAW_MARGIN,
    Rectangle,
    Region,
    Spot,
    placed_outline,
    separation,
    widened,
)
from vlaser_gym.envs.tasks.variants import ROBOT_COLOURS, Variant

#: Orientation -> posture and turn about z (rad), and the original's name of it.
ORIENTATIONS: dict[str, tuple[str, float]] = {
    "horizontal": ("flat", np.pi),
    "vertical": ("flat", np.pi / 2),
    "standing": ("upright", 0.0),
}
#: The grid's coordinates, m.
GRID_X, GRID_Y = (-0.35, -0.2925, -0.235, -0.1775, -0.12), (-0.02, 0.09, 0.20, 0.31, 0.42)
_POSITIONS = tuple((x, y) for x in GRID_X for y in GRID_Y)
_AREA: Rectangle = (-0.35, -0.12, -0.02, 0.42)
#: Posture -> by how much ``region2`` turns an object from the grid's heading either way, rad: horizontal and vertical
#: together cover every heading of what looks alike after half a turn.
_TURNS = {"flat": np.pi / 4, "upright": np.pi}

#: Heights above rest that count, m, and control steps.
LIFTED, LIFTED_SIGNIFICANTLY, STEPS = 0.01, 0.02, 5

#: Distractors lie in this area, at least so far from the object to pick (m) where there is room.
_DISTRACTOR_AREA: Rectangle = (-0.50, -0.10, 0.05, 0.35)
_DISTRACTOR_REACH, _DISTRACTOR_DISTANCE, _DISTRACTOR_GAP, _DISTRACTOR_DRAWS = 0.3, 0.25, 0.005, 60

_SCENE = "google_pick_coke_can_1_v4"


def visual_matching_looks(scene: str = _SCENE) -> tuple[Variant, ...]:
    """The four robot colourings in front of the photograph."""
    return tuple(Variant(colour or "default", scene, robot_colour=colour) for colour in ROBOT_COLOURS)


def table_looks() -> tuple[Variant, ...]:
    """Variant aggregation at the table, but for its distractors."""
    return (
        Variant("aggregation", _SCENE, overlay=False),
        Variant("alt_background", f"{_SCENE}_alt_background", overlay=False),
        Variant("alt_background_2", f"{_SCENE}_alt_background_2", overlay=False),
        Variant("slightly_darker_lighting", _SCENE, overlay=False, light="slightly_darker"),
        Variant("slightly_brighter_lighting", _SCENE, overlay=False, light="slightly_brighter"),
        Variant("table_cabinet1", "Baked_sc1_staging_objaverse_cabinet1_h870", overlay=False),
        Variant("table_cabinet2", "Baked_sc1_staging_objaverse_cabinet2_h870", overlay=False),
        Variant("camera_1", _SCENE, overlay=False, head_tilt=ALTERNATIVE_HEAD_TILTS[0]),
        Variant("camera_2", _SCENE, overlay=False, head_tilt=ALTERNATIVE_HEAD_TILTS[1]),
    )


_LESS = ("opened_pepsi_can", "apple", "sponge", "orange")
_MORE = (
    "opened_7up_can",
    "opened_sprite_can",
    "sponge",
    "orange",
    "opened_fanta_can",
    "bridge_spoon_generated_modified",
)


def _distractor_looks() -> tuple[Variant, ...]:
    return (
        Variant("distractors", _SCENE, overlay=False, distractors=_LESS),
        Variant("distractors_more", _SCENE, overlay=False, distractors=_MORE),
    )


class PickTask(GoogleTask):
    """Pick the one object, whatever lies around it.

    Args:
        name: SimplerEnv's name of the task.
        models: what is picked; each has its own part of the grid.
        orientations: keys of :data:`ORIENTATIONS`.
        extra_looks: variants beyond those of the table.
    """

    robot_setup = "google_robot_pick"
    scenery = "google_table"
    max_steps = 80
    contact_offset = 0.02
    target = -1
    flags = (
        "success",
        "is_grasped",
        "consecutive_grasp",
        "lifted_object",
        "lifted_object_significantly",
        "ever_grasped",
        "ever_consecutive_grasp",
    )
    subgoals = ("ever_grasped", "lifted_object", "success")

    def __init__(
        self,
        name: str,
        models: tuple[str, ...],
        orientations: tuple[str, ...],
        extra_looks: tuple[Variant, ...] = (),
    ) -> None:
        looks = (*visual_matching_looks(), *table_looks(), *extra_looks)
        super().__init__(name, looks, len(models) * len(orientations) * len(_POSITIONS))
        self._models, self._orientations = models, orientations
        self.objects = self.objects_of(models[0])
        self.contacts = self.contacts_of(models[0])

    def contacts_of(self, cast: str) -> tuple[ContactQuery, ...]:
        """The source on the fingers, and what else may touch it."""
        source, *distractors = cast.split("+")
        strangers = ("scene", *(f"object:{model}" for model in distractors))
        return grasp_queries(source) + tuple(ContactQuery(of=f"object:{source}", by=other) for other in strangers)

    def _placed(self, pose: Floats, model: str, orientation: str, look: Variant, rng: np.random.Generator) -> Layout:
        posture, yaw = ORIENTATIONS[orientation]
        poses = np.concatenate([pose[None], _scatter(pose, model, look.distractors, posture, yaw, rng)])
        return Layout(
            poses,
            qpos=start_qpos(look),
            cast="+".join((model, *look.distractors)),
            overlay="google_coke_can_real_eval_1.png" if look.overlay else "",
        )

    def split(self, index: int) -> tuple[str, str, int]:
        """Model, orientation and number of the position of grid layout ``index``."""
        rest, position = divmod(index, len(_POSITIONS))
        model, orientation = divmod(rest, len(self._orientations))
        return self._models[model], self._orientations[orientation], position

    def _draw(self, rng: np.random.Generator) -> tuple[str, str]:
        return str(rng.choice(self._models)), str(rng.choice(self._orientations))

    def _grid_pose(self, index: int) -> Floats:
        model, orientation, position = self.split(index)
        return _start(model, orientation, _POSITIONS[position], str(position))

    def grid_layout(self, index: int, look: Variant) -> Layout:
        """Model outer, then orientation, then position. Distractors depend on the index and the variant."""
        model, orientation, _ = self.split(index)
        return self._placed(self._grid_pose(index), model, orientation, look, np.random.default_rng(index))

    def region_layout(self, kind: str, rng: np.random.Generator, look: Variant) -> Layout:
        """A model and an orientation, anywhere in the grid's area, turned by up to 15 degrees.

        ``region2``: anywhere around it on the table, turned by up to 45 degrees; what stands, by any angle.
        """
        model, orientation = self._draw(rng)
        posture, _ = ORIENTATIONS[orientation]
        base = _start(model, orientation, (0.0, 0.0))
        middle = float(heading(base[3:]))
        grid = [self._grid_pose(k) for k in range(self.num_layouts) if self.split(k)[0] == model]
        wide = kind == "region2"
        area, turn = (widened(_AREA, MARGIN), _TURNS[posture]) if wide else (_AREA, YAW_MARGIN)
        region = Region(
            grid=np.array(grid)[:, None],
            bases=base[None, None],
            spots=(Spot(area, (middle - turn, middle + turn), footprint(model, posture)),),
            clearance=0.0,
            walls=TABLE_AREA if wide else BOUNDLESS,
        )
        return self._placed(region.draw(rng)[0], model, orientation, look, rng)

    def instruction(self, layout: str, variant: str = "default", stage: int = 0) -> str:
        """``"pick coke can"``."""
        self.look(variant)
        address = self.address(layout)
        if address.layout_kind == "grid":
            return f"pick {spoken(self.split(address.layout_index)[0])}"
        return f"pick {spoken(self._draw(address.rng('layout'))[0])}"

    def begin(self, layouts: list[Layout]) -> Memory:
        """Height at rest and empty latches.

        Returns:
            ``rest_z [B]`` (m), ``grasp_streak [B]``, ``lifted [B]``, ``lift_steps [B]`` (control steps with
            ``lifted_object_significantly``), ``ever_grasped [B]``, ``ever_consecutive_grasp [B]``.
        """
        names = ("grasp_streak", "lifted", "lift_steps", "ever_grasped", "ever_consecutive_grasp")
        memory = {name: np.zeros(len(layouts)) for name in names}
        memory["rest_z"] = np.array([layout.object_pose[0, 2] for layout in layouts])
        return memory

    def evaluate(self, scene: Snapshot, memory: Memory) -> tuple[Flags, Memory]:
        """All of :attr:`flags`, each bool ``[B]``, and the memory for the next control step."""
        held = grasped(scene)
        streak = np.where(held, memory["grasp_streak"] + 1, 0.0)
        height = scene.object_pose[:, 0, 2] - memory["rest_z"]
        strangers = np.linalg.norm(scene.impulse[:, 4:], axis=-1)
        free = (strangers <= TOUCH_IMPULSE).all(1)
        lifted = (held & (memory["lifted"] > 0)) | (free & (height > LIFTED))
        significantly = lifted & (height > LIFTED_SIGNIFICANTLY)
        lift_steps = memory["lift_steps"] + significantly
        firm = streak >= STEPS
        ever_held, ever_firm = held | (memory["ever_grasped"] > 0), firm | (memory["ever_consecutive_grasp"] > 0)
        success = lifted | (lift_steps >= STEPS)
        values = (success, held, firm, lifted, significantly, ever_held, ever_firm)
        latches = {
            "grasp_streak": streak,
            "lifted": lifted.astype(np.float64),
            "lift_steps": lift_steps,
            "ever_grasped": ever_held.astype(np.float64),
            "ever_consecutive_grasp": ever_firm.astype(np.float64),
        }
        return dict(zip(self.flags, values, strict=True)), {**memory, **latches}


def _start(model: str, orientation: str, xy: tuple[float, float], position: str = "*") -> Floats:
    """Pose ``[7]`` in which an object dropped at ``xy`` (m) begins: as recorded there, or as it usually rests.

    Args:
        position: number of the grid position that ``xy`` is; ``"*"`` for a place off the grid.
    """
    shape, starts = shape_of(model), pick_starts()
    start = starts.get((shape, orientation, position), starts.get((shape, orientation, "*")))
    if start is None:
        return resting(model, *ORIENTATIONS[orientation], xy, TABLE_HEIGHT)
    # To the micrometre again, as recorded.
    return np.array([*np.round(start[:3] + (*xy, TABLE_HEIGHT), 6), *start[3:]])


def _scatter(
    target: Floats, model: str, distractors: tuple[str, ...], posture: str, yaw: float, rng: np.random.Generator
) -> Floats:
    """Resting poses ``[n, 7]`` of distractors, in the target's orientation.

    As in the original they are drawn within 0.3 m of the target (per axis), clipped to an area, and 0.25 m away from
    it. There they may fall on each other; here each is drawn until it lies apart from the others, and where the area
    has no room for that, its distance to the target shrinks by steps of 2 cm.
    """
    outlines = [placed_outline(target, footprint(model, posture))]
    poses: list[Floats] = []
    distance = _DISTRACTOR_DISTANCE
    while len(poses) < len(distractors):
        name = distractors[len(poses)]
        found = _apart(target, name, posture, yaw, distance, outlines, rng)
        if found is not None:
            poses.append(found)
            outlines.append(placed_outline(found, footprint(name, posture)))
            distance = _DISTRACTOR_DISTANCE
        elif distance > _DISTRACTOR_GAP:
            distance -= 0.02
        else:
            # The last ones lie so that no room is left: start again.
            del poses[:], outlines[1:]
            distance = _DISTRACTOR_DISTANCE
    return np.array(poses).reshape(-1, 7)


def _apart(
    target: Floats,
    name: str,
    posture: str,
    yaw: float,
    distance: float,
    outlines: list[Floats],
    rng: np.random.Generator,
) -> Floats | None:
    """A pose farther than ``distance`` from the target and clear of all outlines, or None after some draws."""
    low_x, high_x, low_y, high_y = _DISTRACTOR_AREA
    shifts = rng.uniform(-_DISTRACTOR_REACH, _DISTRACTOR_REACH, (_DISTRACTOR_DRAWS, 2))
    places = np.clip(target[:2] + shifts, (low_x, low_y), (high_x, high_y))
    for x, y in places[np.hypot(*(places - target[:2]).T) > distance]:
        pose = resting(name, posture, yaw, (float(x), float(y)), TABLE_HEIGHT)
        outline = placed_outline(pose, footprint(name, posture))
        if all(separation(outline, other) >= _DISTRACTOR_GAP for other in outlines):
            return pose
    return None


#: What ``google_robot_pick_object`` picks.
PICK_OBJECTS = (
    "opened_pepsi_can",
    "opened_coke_can",
    "opened_sprite_can",
    "opened_fanta_can",
    "opened_redbull_can",
    "blue_plastic_bottle",
    "apple",
    "orange",
    "sponge",
    "bridge_spoon_generated_modified",
    "bridge_carrot_generated_modified",
    "green_cube_3cm",
    "yellow_cube_3cm",
    "eggplant",
)

_CAN = ("opened_coke_can",)

TASKS: tuple[PickTask, ...] = (
    PickTask("google_robot_pick_coke_can", _CAN, tuple(ORIENTATIONS), _distractor_looks()),
    *(PickTask(f"google_robot_pick_{name}_coke_can", _CAN, (name,), _distractor_looks()) for name in ORIENTATIONS),
    PickTask("google_robot_pick_object", PICK_OBJECTS, tuple(ORIENTATIONS)),
)
