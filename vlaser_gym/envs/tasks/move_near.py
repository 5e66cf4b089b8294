"""Move one object near another (Google Robot).

Rules and quirks are those of SimplerEnv's ``MoveNearInSceneEnv`` (ManiSkill2_real2sim ef7a4d4), reproduced, not
corrected: success needs neither a grasp nor a release; the "world boxes" are the database sizes multiplied by the
rotation matrix of the resting orientation (components may be negative); distances between source and target are those
of their centres of mass, in the plane.

Grid: layout K is ``episode_id`` K of the original. Three objects of one of five triplets lie at the corners of one of
two triangles; six ordered pairs of source and target.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.conventions.rotations import matrix_from_quaternion, rotate
from vlaser_gym.envs.tasks.base import Bools, Flags, Floats, Layout, Memory, ObjectSpec, Snapshot
from vlaser_gym.envs.tasks.google import MARGIN, TABLE_HEIGHT, GoogleTask, start_qpos
from vlaser_gym.envs.tasks.google_objects import body, shape_of, spoken
from vlaser_gym.envs.tasks.google_pick import table_looks, visual_matching_looks
from vlaser_gym.envs.tasks.google_settled import footprint, resting
from vlaser_gym.envs.tasks.region import YAW_MARGIN, Rectangle, near_grid, placed_outline, separation, widened
from vlaser_gym.envs.tasks.variants import Variant
from vlaser_gym.errors import InvalidConfigError

TRIPLETS = (
    ("blue_plastic_bottle", "opened_pepsi_can", "orange"),
    ("opened_7up_can", "apple", "sponge"),
    ("opened_coke_can", "opened_redbull_can", "apple"),
    ("sponge", "blue_plastic_bottle", "opened_7up_can"),
    ("orange", "opened_pepsi_can", "opened_redbull_can"),
)
#: Where the objects of a triplet are dropped, m.
TRIANGLES = (
    ((-0.33, 0.04), (-0.33, 0.34), (-0.13, 0.19)),
    ((-0.13, 0.04), (-0.33, 0.19), (-0.13, 0.34)),
)
PAIRS = tuple(permutations(range(3), 2))
_AREA: Rectangle = (-0.33, -0.13, 0.04, 0.34)
#: Least gap between two objects of a drawn layout, m: fingers fit between them, and no goal is reached at the start.
_GAP = 0.08
#: Draws with origins nearer than the gap and this (the slim can's width) need not be looked at, m.
_SMALLEST = 0.05
_ATTEMPTS = 10_000
#: These two have no textures with baked light.
_PLAIN = ("blue_plastic_bottle", "orange")

#: Density of apples and oranges, kg/m^3.
_LIGHT = 200.0
#: Largest drop below rest of bystanders and of source and target; least shift of the source; slack around the boxes;
#: slack of the nearest object, m.
_BYSTANDER_DROP, _PAIR_DROP, _MOVED, _NEAR, _CLOSEST = 0.02, 0.15, 0.03, 0.10, 0.01

#: Poses of objects that still rocked when the episode began, (triplet, triangle, object) -> pose, recorded with the
#: models of ``google_robot_move_near`` in front of its photograph. They hold for all models of the same shape.
_ROCKING = {
    (0, 0, 0): (-0.331748, 0.044298, 0.957169, 0.517665, 0.483115, 0.506462, 0.492056),
    (0, 1, 0): (-0.131298, 0.044753, 0.957335, 0.51753, 0.482957, 0.509139, 0.489584),
    (2, 0, 1): (-0.329858, 0.3402, 0.935107, 0.708152, 0.706059, 0.000757, -0.000748),
    (2, 1, 0): (-0.130413, 0.039838, 0.938945, 0.705649, 0.708554, -0.002204, 0.002193),
    (2, 1, 1): (-0.329245, 0.190251, 0.935217, 0.708434, 0.705754, 0.004113, -0.004077),
    (3, 0, 1): (-0.331391, 0.344682, 0.957296, 0.517736, 0.482956, 0.508597, 0.489931),
    (3, 1, 1): (-0.331706, 0.194212, 0.957172, 0.517372, 0.483493, 0.506296, 0.492164),
    (4, 0, 2): (-0.129865, 0.190064, 0.935147, 0.707426, 0.706787, 0.000739, -0.00066),
    (4, 1, 2): (-0.130063, 0.340322, 0.935183, 0.708835, 0.705374, -0.000345, 0.000366),
}


def _baked(name: str, suffix: str) -> str:
    """The model with baked light, where there is one."""
    return name if name in _PLAIN else f"baked_{name}{suffix}"


def _posture(name: str) -> tuple[str, float]:
    """Posture and turn about z (rad) of an object: cans stand, the bottle stands turned, apples are not turned."""
    if name.endswith("can"):
        return "upright", 0.0
    if name == "blue_plastic_bottle":
        return "upright", np.pi / 2
    return "flat", 0.0 if name == "apple" else np.pi / 2


class MoveNearTask(GoogleTask):
    """Move the source near the target, nearer than to anything else.

    Args:
        name: SimplerEnv's name of the task.
        suffix: of the models with baked light in visual matching, ``""`` or ``"_v2"``. Variant aggregation takes the
            plain models.
    """

    robot_setup = "google_robot_move_near"
    scenery = "google_table"
    max_steps = 80
    contacts = ()
    flags = (
        "success",
        "all_obj_keep_height",
        "moved_correct_obj",
        "moved_wrong_obj",
        "near_tgt_obj",
        "is_closest_to_tgt",
    )
    subgoals = ("moved_correct_obj", "near_tgt_obj", "success")

    def __init__(self, name: str, suffix: str) -> None:
        alone = Variant("no_distractor", table_looks()[0].scene, overlay=False)
        super().__init__(name, (*visual_matching_looks(), *table_looks(), alone), 60)
        self._suffix = suffix
        self.objects = self.objects_of(self.layout("grid:0").cast)

    def objects_of(self, cast: str) -> tuple[ObjectSpec, ...]:
        """Bodies of a cast: model ids joined by ``+``. Apples and oranges weigh a quarter of what they do elsewhere."""
        return tuple(body(model, _LIGHT if spoken(model) in ("apple", "orange") else None) for model in cast.split("+"))

    def _model(self, name: str, look: Variant) -> str:
        return _baked(name, self._suffix) if look.overlay else name

    def _state(self, triplet: int, pair: tuple[int, int], poses: Floats, look: Variant) -> Layout:
        """A layout of all three objects, or of source and target alone where the variant has no distractor."""
        alone = look.name == "no_distractor"
        shown = sorted(pair) if alone else [0, 1, 2]
        return Layout(
            poses[shown],
            qpos=start_qpos(look),
            cast="+".join(self._model(TRIPLETS[triplet][i], look) for i in shown),
            source=shown.index(pair[0]),
            target=shown.index(pair[1]),
            overlay="google_move_near_real_eval_1.png" if look.overlay else "",
        )

    def grid_layout(self, index: int, look: Variant) -> Layout:
        """``episode_id`` of the original."""
        triplet, triangle, pair = _split(index)
        return self._state(triplet, pair, self._grid_poses(triplet, triangle, look), look)

    def _grid_poses(self, triplet: int, triangle: int, look: Variant) -> Floats:
        poses = []
        for i, (name, xy) in enumerate(zip(TRIPLETS[triplet], TRIANGLES[triangle], strict=True)):
            model, (posture, yaw) = self._model(name, look), _posture(name)
            pose = resting(model, posture, yaw, xy, TABLE_HEIGHT)
            recorded = _ROCKING.get((triplet, triangle, i))
            if recorded is not None and shape_of(model) == shape_of(_baked(name, "_v2")):
                pose = np.array(recorded)
                pose[3:] /= np.linalg.norm(pose[3:])
            poses.append(pose)
        return np.array(poses)

    def region_layout(self, kind: str, rng: np.random.Generator, look: Variant) -> Layout:
        """A triplet, a pair, and three places in the grid's area, each object turned by up to 15 degrees.

        ``region2``: three places around it too, each object turned by any angle.
        """
        area, turn = (widened(_AREA, MARGIN), np.pi) if kind == "region2" else (_AREA, YAW_MARGIN)
        triplet, pair = _draw(rng)
        source = TRIPLETS[triplet][pair[0]]
        grid = np.array(
            [
                self._grid_poses(t, triangle, look)[names.index(source)]
                for t, names in enumerate(TRIPLETS)
                for triangle in range(len(TRIANGLES))
                if source in names
            ]
        )
        for _ in range(_ATTEMPTS):
            places = rng.uniform(area[::2], area[1::2], (3, 2))
            if min(np.hypot(*(a - b)) for a, b in combinations(places, 2)) < _GAP + _SMALLEST:
                continue
            poses, outlines = self._place(triplet, places, turn, look, rng)
            apart = all(separation(a, b) >= _GAP for a, b in combinations(outlines, 2))
            if apart and not near_grid(poses[pair[0]], grid) and not self._solved(triplet, pair, poses, look):
                return self._state(triplet, pair, poses, look)
        raise InvalidConfigError(f"{self.name} found no room for three objects in {_ATTEMPTS} draws.")

    def _place(
        self, triplet: int, places: Floats, turn: float, look: Variant, rng: np.random.Generator
    ) -> tuple[Floats, list[Floats]]:
        poses, outlines = [], []
        for name, (x, y) in zip(TRIPLETS[triplet], places.tolist(), strict=True):
            model, (posture, yaw) = self._model(name, look), _posture(name)
            pose = resting(model, posture, yaw + float(rng.uniform(-turn, turn)), (x, y), TABLE_HEIGHT)
            poses.append(pose)
            outlines.append(placed_outline(pose, footprint(model, posture)))
        return np.array(poses), outlines

    def _solved(self, triplet: int, pair: tuple[int, int], poses: Floats, look: Variant) -> bool:
        """True if the source begins near its target."""
        layout = self._state(triplet, pair, poses, look)
        scene = Snapshot(layout.object_pose[None], {}, np.zeros((1, 0, 3)))
        return bool(self.evaluate(scene, self.begin([layout]))[0]["near_tgt_obj"][0])

    def instruction(self, layout: str, variant: str = "default", stage: int = 0) -> str:
        """``"move coke can near apple"``."""
        self.look(variant)
        address = self.address(layout)
        if address.layout_kind == "grid":
            triplet, _, pair = _split(address.layout_index)
        else:
            triplet, pair = _draw(address.rng("layout"))
        source, target = (spoken(TRIPLETS[triplet][i]) for i in pair)
        return f"move {source} near {target}"

    def begin(self, layouts: list[Layout]) -> Memory:
        """Resting poses and bounding boxes of the objects.

        Returns:
            ``rest [B, n, 3]`` actor origins at rest (m), ``com [B, n, 3]`` centres of mass in actor frames (m),
            ``box [B, 2, 3]`` of source and target (m), ``pair [B, 2]`` their indices.
        """
        casts = [self.objects_of(layout.cast) for layout in layouts]
        pairs = np.array([(layout.source, layout.target) for layout in layouts], np.int64)
        poses = np.stack([layout.object_pose for layout in layouts])
        sizes = np.array([[bodies[i].bbox for i in pair] for bodies, pair in zip(casts, pairs, strict=True)])
        quaternion = np.take_along_axis(poses[..., 3:], pairs[..., None], axis=1)
        return {
            "rest": poses[..., :3].copy(),
            "com": np.array([[item.com for item in bodies] for bodies in casts]),
            "box": rotate(matrix_from_quaternion(quaternion), sizes),
            "pair": pairs.astype(np.float64),
        }

    def evaluate(self, scene: Snapshot, memory: Memory) -> tuple[Flags, Memory]:
        """All of :attr:`flags`, each bool ``[B]``; nothing is remembered between control steps."""
        pair, poses = memory["pair"].astype(np.int64), scene.object_pose
        com = poses[..., :3] + rotate(matrix_from_quaternion(poses[..., 3:]), memory["com"])
        source, target = _rows(com, pair[:, 0]), _rows(com, pair[:, 1])
        height = _keeps_height(com, poses, memory["rest"], pair)
        moved, moved_wrong = _moved(poses, memory["rest"], pair[:, 0])
        reach = np.linalg.norm(memory["box"][..., :2], axis=-1).sum(-1) / 2
        near = np.linalg.norm((source - target)[:, :2], axis=-1) < reach + _NEAR
        closest = _is_closest(source, target, poses, pair[:, 0])
        values = (height & moved & near & closest, height, moved, moved_wrong, near, closest)
        return dict(zip(self.flags, values, strict=True)), memory

    def at_goal(self, poses: Floats, layout: Layout, target: int) -> Bools:
        """See :meth:`Task.at_goal`; the rule of success."""
        memory = {
            name: np.repeat(rows, len(poses), 0) for name, rows in self.begin([replace(layout, target=target)]).items()
        }
        flags, _ = self.evaluate(Snapshot(poses, {}, np.zeros((len(poses), 0, 3))), memory)
        return flags["success"]


def _split(index: int) -> tuple[int, int, tuple[int, int]]:
    """Triplet, triangle, pair of an ``episode_id``."""
    return index // 12, index % 12 // 6, PAIRS[index % 6]


def _draw(rng: np.random.Generator) -> tuple[int, tuple[int, int]]:
    return int(rng.integers(len(TRIPLETS))), PAIRS[rng.integers(len(PAIRS))]


def _rows(values: Floats, index: NDArray[np.int64]) -> Floats:
    """``values [B, n, 3]`` at ``index [B]``."""
    return np.asarray(values[np.arange(len(values)), index])


def _others(count: int, index: NDArray[np.int64]) -> Bools:
    """``[B, count]``: False at ``index [B]``."""
    return np.asarray(np.arange(count) != index[:, None])


def _keeps_height(com: Floats, poses: Floats, rest: Floats, pair: NDArray[np.int64]) -> Bools:
    """True where no object fell, ``[B]``: bystanders by their origins, source and target by their centres of mass."""
    bystander = _others(rest.shape[1], pair[:, 0]) & _others(rest.shape[1], pair[:, 1])
    fallen = np.where(
        bystander, poses[..., 2] < rest[..., 2] - _BYSTANDER_DROP, com[..., 2] < rest[..., 2] - _PAIR_DROP
    )
    return np.asarray(~fallen.any(1))


def _moved(poses: Floats, rest: Floats, index: NDArray[np.int64]) -> tuple[Bools, Bools]:
    """True where the source moved most, and where another object did, by their origins; each ``[B]``."""
    shift = np.linalg.norm((poses[..., :3] - rest)[..., :2], axis=-1)
    own = shift[np.arange(len(shift)), index]
    most = np.where(_others(rest.shape[1], index), shift, 0.0).max(1)
    return np.asarray((own > _MOVED) & (most < own)), np.asarray((most > _MOVED) & (most > own))


def _is_closest(source: Floats, target: Floats, poses: Floats, index: NDArray[np.int64]) -> Bools:
    """True where the target is the object nearest to the source in the plane, with some slack, ``[B]``."""
    distance = np.linalg.norm((source - target)[:, :2], axis=-1)
    others = np.linalg.norm(poses[..., :2] - source[:, None, :2], axis=-1)
    others = np.where(_others(poses.shape[1], index), others, np.inf)
    return np.asarray((distance[:, None] < others + _CLOSEST).all(1))


#: In the order of SimplerEnv's registry; the name without a version is version 1.
TASKS: tuple[MoveNearTask, ...] = (
    MoveNearTask("google_robot_move_near", "_v2"),
    MoveNearTask("google_robot_move_near_v0", ""),
    MoveNearTask("google_robot_move_near_v1", "_v2"),
)
