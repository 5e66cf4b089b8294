"""The Google Robot tasks against the written layout rules, and their rules on hand-made scenes."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import GOOGLE_TASKS, Snapshot, task_names
from vlaser_gym.envs.tasks.cabinet import BODY, DRAWER, DRAWERS, STATIONS, TOP, handle_pose, joint_name
from vlaser_gym.envs.tasks.google_objects import MODELS, body, shape_of, spoken
from vlaser_gym.envs.tasks.google_pick import PICK_OBJECTS
from vlaser_gym.envs.tasks.google_settled import RESTS, rest_of, resting
from vlaser_gym.envs.tasks.variants import LIGHTS
from vlaser_gym.errors import InvalidConfigError, UnknownNameError

TASKS = {task.name: task for task in GOOGLE_TASKS}
PICK = TASKS["google_robot_pick_coke_can"]
NEAR = TASKS["google_robot_move_near"]
OPEN, CLOSE = TASKS["google_robot_open_drawer"], TASKS["google_robot_close_drawer"]
PLACE = TASKS["google_robot_place_apple_in_closed_top_drawer"]
#: ``region:7`` of picking and placing: the object's pose and the robot's.
REGION_PICK = (
    (-0.347840807168, 0.166075506132, 0.938941, 0.703220894747, 0.705845950775, -0.062143480523, -0.05830998881),
    None,
)
REGION_PLACE = (
    (-0.037514149863, -0.01215505391, 0.917875, 0.999355375265, -0.013322123573, 0.001287776958, 0.033312108665),
    (0.652197173237, 0.054398301799, 0.07905, 0.007212705348, 0.0, 0.0, 0.999973988102),
)

#: Name -> step limit, size of the grid, setup.
WRITTEN = {
    "google_robot_pick_coke_can": (80, 75, "google_robot_pick"),
    "google_robot_pick_horizontal_coke_can": (80, 25, "google_robot_pick"),
    "google_robot_pick_vertical_coke_can": (80, 25, "google_robot_pick"),
    "google_robot_pick_standing_coke_can": (80, 25, "google_robot_pick"),
    "google_robot_pick_object": (80, 14 * 75, "google_robot_pick"),
    "google_robot_move_near": (80, 60, "google_robot_move_near"),
    "google_robot_move_near_v0": (80, 60, "google_robot_move_near"),
    "google_robot_move_near_v1": (80, 60, "google_robot_move_near"),
    "google_robot_open_drawer": (113, 27, "google_robot_drawer"),
    "google_robot_open_top_drawer": (113, 9, "google_robot_drawer"),
    "google_robot_open_middle_drawer": (113, 9, "google_robot_drawer"),
    "google_robot_open_bottom_drawer": (113, 9, "google_robot_drawer"),
    "google_robot_close_drawer": (113, 27, "google_robot_drawer"),
    "google_robot_close_top_drawer": (113, 9, "google_robot_drawer"),
    "google_robot_close_middle_drawer": (113, 9, "google_robot_drawer"),
    "google_robot_close_bottom_drawer": (113, 9, "google_robot_drawer"),
    "google_robot_place_in_closed_drawer": (200, 3 * 21 * 27, "google_robot_drawer"),
    "google_robot_place_in_closed_top_drawer": (200, 21 * 27, "google_robot_drawer"),
    "google_robot_place_in_closed_middle_drawer": (200, 21 * 27, "google_robot_drawer"),
    "google_robot_place_in_closed_bottom_drawer": (200, 21 * 27, "google_robot_drawer"),
    "google_robot_place_apple_in_closed_top_drawer": (200, 27, "google_robot_drawer"),
}


def test_the_registry_of_the_benchmark_is_complete() -> None:
    assert len(WRITTEN) == 21
    assert {task.name: (task.max_steps, task.num_layouts, task.robot_setup) for task in GOOGLE_TASKS} == WRITTEN
    widowx = [name for name in task_names() if name.startswith("widowx_")]
    assert len(widowx) + len(WRITTEN) == 25


@pytest.mark.parametrize("task", GOOGLE_TASKS, ids=lambda task: task.name)
def test_every_layout_of_every_variant_makes_a_scene(task) -> None:
    """Unit quaternions, consistent casts, flags of the right shape, nothing solved at the start."""
    layouts = [f"grid:{k}" for k in range(0, task.num_layouts, max(1, task.num_layouts // 6))]
    for variant in task.variants:
        names = [*layouts, "region:0"]
        states = [task.layout(name, variant) for name in names]
        counts = {(len(task.objects_of(s.cast)), len(task.contacts_of(s.cast))) for s in states}
        assert len(counts) == 1
        scene = still(task, states)
        flags, memory = task.evaluate(scene, task.begin(states))
        assert set(flags) == set(task.flags)
        assert task.subgoals[-1] == task.flags[0] == "success"
        assert set(task.subgoals) <= set(task.flags)
        for name, value in flags.items():
            assert value.shape == (len(states),), name
            assert value.dtype == bool, name
        assert not flags["success"].any()
        assert all(len(values) == len(states) for values in memory.values())
        for name, state in zip(names, states, strict=True):
            assert state.object_pose.shape == (len(task.objects_of(state.cast)), 7)
            np.testing.assert_allclose(np.linalg.norm(state.object_pose[:, 3:], axis=1), 1, atol=1e-9)
            assert not state.object_pose.flags.writeable
            assert bool(state.overlay) == task.look(variant).overlay
            assert task.instruction(name, variant)


def still(task, states, elapsed=1, impulse=None) -> Snapshot:
    """Everything where the layouts have it; no contacts unless given."""
    queries = task.contacts_of(states[0].cast)
    links = {q.of.removeprefix("link:") for q in queries if q.of.startswith("link:")}
    joints = {name: np.array([s.joints[name] for s in states]) for name in states[0].joints}
    return Snapshot(
        np.array([s.object_pose for s in states]),
        {link: np.tile([0.0, 0, 0, 1, 0, 0, 0], (len(states), 1)) for link in links},
        np.zeros((len(states), len(queries), 3)) if impulse is None else impulse,
        joints,
        np.full(len(states), elapsed),
    )


@pytest.mark.parametrize("task", GOOGLE_TASKS, ids=lambda task: task.name)
def test_layouts_and_variants_that_do_not_exist(task) -> None:
    with pytest.raises(InvalidConfigError, match="grid layouts"):
        task.layout(f"grid:{task.num_layouts}")
    for call in (task.layout, task.instruction):
        with pytest.raises(UnknownNameError, match="variant"):
            call("grid:0", "nonsense")


# ------------------------------------------------------------------------------------------------- written layouts


def test_coke_can_grid() -> None:
    """25 positions, x outer, per orientation; the can's axis (its y) tells the orientation."""
    xs, ys = np.linspace(-0.35, -0.12, 5), np.linspace(-0.02, 0.42, 5)
    axis = {"horizontal": (0, -1, 0), "vertical": (-1, 0, 0), "standing": (0, 0, 1)}
    for o, (name, direction) in enumerate(axis.items()):
        own = TASKS[f"google_robot_pick_{name}_coke_can"]
        for k in range(25):
            layout = PICK.layout(f"grid:{25 * o + k}")
            np.testing.assert_array_equal(layout.object_pose, own.layout(f"grid:{k}").object_pose)
            pose = layout.object_pose[0]
            np.testing.assert_allclose(pose[:2], (xs[k // 5], ys[k % 5]), atol=1e-3)
            along = Rotation.from_quat(pose[3:], scalar_first=True).apply([0, 1, 0])
            assert along @ direction > np.cos(np.deg2rad(1.0))
            assert pose[2] == pytest.approx(0.939 if name == "standing" else 0.9021, abs=3e-4)
            assert layout.overlay == "google_coke_can_real_eval_1.png"
    assert PICK.instruction("grid:0") == "pick coke can"


def test_pick_object_grid() -> None:
    task = TASKS["google_robot_pick_object"]
    said = [task.instruction(f"grid:{75 * i}") for i in range(14)]
    assert said == [f"pick {spoken(model)}" for model in PICK_OBJECTS]
    assert {"pick 7up can", "pick opened coke can"}.isdisjoint(said)
    assert {"pick redbull can", "pick blue plastic bottle", "pick green cube", "pick spoon", "pick eggplant"} <= set(
        said
    )
    assert task.layout("grid:75").cast == task.layout("grid:149").cast == "opened_coke_can"


def test_move_near_grid() -> None:
    """``episode_id``: triplet, then triangle, then pair."""
    triplets = [
        ["blue_plastic_bottle", "opened_pepsi_can", "orange"],
        ["opened_7up_can", "apple", "sponge"],
        ["opened_coke_can", "opened_redbull_can", "apple"],
        ["sponge", "blue_plastic_bottle", "opened_7up_can"],
        ["orange", "opened_pepsi_can", "opened_redbull_can"],
    ]
    triangles = [
        [(-0.33, 0.04), (-0.33, 0.34), (-0.13, 0.19)],
        [(-0.13, 0.04), (-0.33, 0.19), (-0.13, 0.34)],
    ]
    pairs = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    for e in range(60):
        layout, names = NEAR.layout(f"grid:{e}"), triplets[e // 12]
        assert (layout.source, layout.target) == pairs[e % 6]
        offset = np.linalg.norm(layout.object_pose[:, :2] - triangles[e % 12 // 6], axis=1)
        assert offset.max() < 0.006
        plain = NEAR.layout(f"grid:{e}", "aggregation").cast.split("+")
        assert plain == names
        for variant, suffix in (("google_robot_move_near_v0", ""), ("google_robot_move_near_v1", "_v2")):
            baked = [n if n in ("blue_plastic_bottle", "orange") else f"baked_{n}{suffix}" for n in names]
            assert TASKS[variant].layout(f"grid:{e}").cast.split("+") == baked
        source, target = (spoken(names[i]) for i in pairs[e % 6])
        assert NEAR.instruction(f"grid:{e}") == f"move {source} near {target}"
        alone = NEAR.layout(f"grid:{e}", "no_distractor")
        assert {alone.cast.split("+")[alone.source], alone.cast.split("+")[alone.target]} == {
            names[i] for i in pairs[e % 6]
        }
        assert alone.cast.split("+")[alone.source] == names[pairs[e % 6][0]]
        np.testing.assert_allclose(
            alone.object_pose[alone.source], NEAR.layout(f"grid:{e}", "aggregation").object_pose[pairs[e % 6][0]]
        )
    assert NEAR.instruction("grid:0") == "move blue plastic bottle near pepsi can"


def test_apples_and_oranges_are_light_in_move_near_only() -> None:
    assert NEAR.objects_of("apple+orange+sponge")[0].mass == pytest.approx(0.0536, abs=1e-4)
    assert NEAR.objects_of("apple+orange+sponge")[1].mass == pytest.approx(0.0363, abs=1e-4)
    assert body("apple").mass == pytest.approx(0.21445, abs=1e-4)
    assert body("orange").mass == pytest.approx(0.1451, abs=1e-4)


def yaw_of(pose) -> float:
    """Extra yaw of a base pose: a robot without it looks along -x."""
    x_axis = Rotation.from_quat(pose[3:], scalar_first=True).apply([-1, 0, 0])
    return float(np.arctan2(x_axis[1], x_axis[0]))


def test_drawer_grid() -> None:
    written = {
        "a0": (0.644, -0.179, -0.03), "a1": (0.765, -0.182, -0.02), "a2": (0.889, -0.203, -0.06),
        "b0": (0.652, 0.009, 0), "b1": (0.752, 0.009, 0), "b2": (0.851, 0.035, 0),
        "c0": (0.665, 0.224, 0), "c1": (0.765, 0.222, -0.025), "c2": (0.865, 0.222, -0.025),
    }  # fmt: skip
    lattice = list(itertools.product((0.65, 0.75, 0.85), (-0.2, 0.0, 0.2)))
    for k in range(27):
        drawer = DRAWERS[k // 9]
        name, (x, y, yaw) = list(written.items())[k % 9]
        for task, verb, start in ((OPEN, "open", 0.0), (CLOSE, "close", 0.2)):
            layout = task.layout(f"grid:{k}")
            assert layout.overlay == f"open_drawer_{name}.png"
            np.testing.assert_allclose(
                [*layout.base_pose[:3], yaw_of(layout.base_pose)], (x, y, 0.07905, yaw), atol=1e-12
            )
            assert layout.joints == {joint_name(d): start if d == drawer else 0.0 for d in DRAWERS}
            assert layout.goal_joint == joint_name(drawer)
            assert task.instruction(f"grid:{k}") == f"{verb} {drawer} drawer"
            assert TASKS[f"google_robot_{verb}_{drawer}_drawer"].layout(f"grid:{k % 9}").joints == layout.joints
        other = OPEN.layout(f"grid:{k}", "station2")
        np.testing.assert_allclose([*other.base_pose[:2], yaw_of(other.base_pose)], [*lattice[k % 9], 0], atol=1e-12)
        assert other.overlay == ""


def test_place_grid() -> None:
    positions = list(itertools.product((-0.08, -0.05, -0.02), (-0.02, 0.03, 0.08)))
    for k in range(27):
        layout, other = PLACE.layout(f"grid:{k}"), PLACE.layout(f"grid:{k}", "modern_office")
        np.testing.assert_allclose(layout.object_pose[0, :2], positions[k % 9], atol=1.5e-3)
        assert layout.object_pose[0, 2] == pytest.approx(TOP + 0.0359, abs=1e-4)
        assert layout.overlay == f"open_drawer_{'abc'[k // 9]}0.png"
        assert (layout.cast, other.cast) == ("baked_apple_v2", "apple")
        np.testing.assert_allclose(other.base_pose[:2], (0.65, (-0.2, 0.0, 0.2)[k // 9]))
        assert set(layout.joints.values()) == {0.0}
    task = TASKS["google_robot_place_in_closed_drawer"]
    said = {task.instruction(f"grid:{k}", stage=1) for k in range(0, task.num_layouts, 27)}
    assert len({text.split(" into ")[1] for text in said}) == 3
    assert "place 7up can into bottom drawer" in said


# --------------------------------------------------------------------------------------------------------- regions


def drawn(task, variant="default", count=150):
    return [task.layout(f"region:{k}", variant) for k in range(count)]


def test_drawn_cans_keep_to_the_area_and_away_from_the_grid() -> None:
    grid = np.array([PICK.layout(f"grid:{k}").object_pose[0] for k in range(75)])
    poses = np.array([layout.object_pose[0] for layout in drawn(PICK)])
    assert len(np.unique(poses[:, 0])) == len(poses)
    assert (poses[:, :2] >= (-0.35, -0.02)).all()
    assert (poses[:, :2] <= (-0.12, 0.42)).all()
    assert np.ptp(poses[:, 0]) > 0.2
    assert np.ptp(poses[:, 1]) > 0.4
    for pose in poses:
        close = np.linalg.norm(grid[:, :2] - pose[:2], axis=1) < 0.01
        turn = [
            (Rotation.from_quat(g[3:], scalar_first=True).inv() * Rotation.from_quat(pose[3:], scalar_first=True))
            for g in grid[close]
        ]
        assert all(r.magnitude() > np.deg2rad(10) for r in turn)


def test_drawn_layouts_depend_on_task_and_number_alone() -> None:
    for task in (PICK, NEAR, OPEN, PLACE):
        first, again, other = (task.layout(f"region:{k}") for k in (5, 5, 6))
        np.testing.assert_array_equal(first.object_pose, again.object_pose)
        assert first.base_pose == again.base_pose
        assert (first.base_pose, first.object_pose.tolist()) != (other.base_pose, other.object_pose.tolist())
        recoloured = task.layout("region:5", "recolor_tabletop_visual_matching_1")
        np.testing.assert_array_equal(first.object_pose, recoloured.object_pose)
        assert first.base_pose == recoloured.base_pose


def test_drawn_instructions_are_those_of_the_layout() -> None:
    task = TASKS["google_robot_pick_object"]
    for k in range(20):
        assert task.instruction(f"region:{k}") == f"pick {spoken(task.layout(f'region:{k}').cast)}"
        layout = NEAR.layout(f"region:{k}")
        names = [spoken(model) for model in layout.cast.split("+")]
        assert NEAR.instruction(f"region:{k}") == f"move {names[layout.source]} near {names[layout.target]}"
        drawer = OPEN.layout(f"region:{k}").goal_joint.removesuffix("_drawer_joint")
        assert OPEN.instruction(f"region:{k}") == f"open {drawer} drawer"
        place = TASKS["google_robot_place_in_closed_drawer"]
        layout = place.layout(f"region:{k}")
        drawer = layout.goal_joint.removesuffix("_drawer_joint")
        assert place.instruction(f"region:{k}", stage=1) == f"place {spoken(layout.cast)} into {drawer} drawer"


def test_drawn_objects_of_move_near_lie_apart() -> None:
    layouts = drawn(NEAR, count=40)
    for layout in layouts:
        for a, b in itertools.combinations(layout.object_pose, 2):
            assert np.linalg.norm(a[:2] - b[:2]) > 0.08 + 0.06
        assert (layout.object_pose[:, :2] >= (-0.34, 0.03)).all()
        assert (layout.object_pose[:, :2] <= (-0.12, 0.35)).all()
    assert len({layout.cast for layout in layouts}) == 5


def wide(task, count=120):
    return [task.layout(f"region2:{k}") for k in range(count)]


def test_wide_cans_lie_around_the_grid_on_the_table_and_away_from_it() -> None:
    grid = np.array([PICK.layout(f"grid:{k}").object_pose[0] for k in range(75)])
    poses = np.array([layout.object_pose[0] for layout in wide(PICK, 300)])
    assert (poses[:, :2] >= (-0.39, -0.06)).all()
    assert (poses[:, :2] <= (-0.08, 0.46)).all()
    assert (poses[:, :2].min(0) < (-0.375, -0.045)).all()
    assert (poses[:, :2].max(0) > (-0.095, 0.445)).all()
    assert (poses[:, 1] > -0.0975 + 0.03).all()  # a can's radius from the table's edge
    for pose in poses:
        close = np.linalg.norm(grid[:, :2] - pose[:2], axis=1) < 0.01
        turned = Rotation.from_quat(pose[3:], scalar_first=True)
        assert all(
            (Rotation.from_quat(g[3:], scalar_first=True).inv() * turned).magnitude() > np.deg2rad(10)
            for g in grid[close]
        )


def test_wide_lying_cans_point_everywhere() -> None:
    lying = [TASKS[f"google_robot_pick_{name}_coke_can"] for name in ("horizontal", "vertical")]
    poses = np.array([layout.object_pose[0] for task in lying for layout in wide(task)])
    axes = Rotation.from_quat(poses[:, 3:], scalar_first=True).apply([0, 1, 0])
    headings = np.rad2deg(np.arctan2(axes[:, 1], axes[:, 0])) % 180
    assert np.histogram(headings, bins=9, range=(0, 180))[0].min() > 240 / 9 / 3


def test_wide_objects_of_move_near_lie_apart_around_the_grid() -> None:
    poses = np.array([layout.object_pose[:, :2] for layout in wide(NEAR, 60)])
    assert (poses.reshape(-1, 2) >= (-0.38, -0.01)).all()
    assert (poses.reshape(-1, 2) <= (-0.08, 0.39)).all()
    assert poses[..., 0].min() < -0.35
    assert poses[..., 1].max() > 0.36
    for a, b in itertools.combinations(range(3), 2):
        assert np.linalg.norm(poses[:, a] - poses[:, b], axis=-1).min() > 0.08 + 0.06


def test_wide_robot_poses_lie_around_the_grid_and_away_from_it() -> None:
    grid = [OPEN.layout(f"grid:{k}", v).base_pose[:2] for k in range(9) for v in ("default", "aggregation")]
    for task, low, high in ((OPEN, (0.604, -0.243), (0.929, 0.264)), (PLACE, (0.604, -0.24), (0.705, 0.264))):
        poses = np.array([layout.base_pose[:2] for layout in wide(task)])
        assert np.linalg.norm(poses[:, None] - np.array(grid), axis=-1).min() > 0.01
        assert (poses >= low).all()
        assert (poses <= high).all()
        assert (poses.min(0) < np.array(low) + 0.02).all()
        assert (poses.max(0) > np.array(high) - 0.02).all()


def test_wide_apples_lie_whole_on_the_cabinet() -> None:
    apples = np.array([layout.object_pose[0] for layout in wide(PLACE)])
    assert (apples[:, 0] <= -0.295 + 0.315 - 0.039).all()
    assert (apples[:, :2] >= (-0.14, -0.06)).all()
    assert apples[:, 1].max() > 0.12


def test_wide_instructions_are_those_of_the_layout() -> None:
    for k in range(12):
        layout = NEAR.layout(f"region2:{k}")
        names = [spoken(model) for model in layout.cast.split("+")]
        assert NEAR.instruction(f"region2:{k}") == f"move {names[layout.source]} near {names[layout.target]}"
        drawer = OPEN.layout(f"region2:{k}").goal_joint.removesuffix("_drawer_joint")
        assert OPEN.instruction(f"region2:{k}") == f"open {drawer} drawer"


def test_regions_of_stored_runs_are_unchanged() -> None:
    """As the first edition drew them."""
    drawn_before = {PICK: REGION_PICK, PLACE: REGION_PLACE}
    for task, (pose, base) in drawn_before.items():
        layout = task.layout("region:7")
        np.testing.assert_allclose(layout.object_pose[0], pose, atol=1e-9)
        assert layout.base_pose is None if base is None else np.allclose(layout.base_pose, base, atol=1e-9)


def test_drawn_robot_poses_keep_away_from_all_grid_poses() -> None:
    grid = [OPEN.layout(f"grid:{k}", v).base_pose[:2] for k in range(9) for v in ("default", "aggregation")]
    for task, low, high in ((OPEN, (0.644, -0.203), (0.889, 0.224)), (PLACE, (0.644, -0.2), (0.665, 0.224))):
        poses = np.array([layout.base_pose for layout in drawn(task)])
        assert np.linalg.norm(poses[:, None, :2] - np.array(grid), axis=-1).min() > 0.01
        assert (poses[:, :2] >= low).all()
        assert (poses[:, :2] <= high).all()
        assert np.ptp(poses[:, 1]) > 0.38


# ----------------------------------------------------------------------------------------------------- distractors


@pytest.mark.parametrize(("variant", "count"), [("distractors", 4), ("distractors_more", 6)])
def test_distractors_lie_apart_from_each_other_and_from_the_can(variant: str, count: int) -> None:
    distances = []
    for k in range(0, 75, 2):
        layout = PICK.layout(f"grid:{k}", variant)
        np.testing.assert_array_equal(layout.object_pose[0], PICK.layout(f"grid:{k}").object_pose[0])
        others = layout.object_pose[1:]
        assert len(others) == count
        # Dropped inside the area; a standing orange or apple rolls on from there.
        posture = ("flat", "flat", "upright")[k // 25], (np.pi, np.pi / 2, 0.0)[k // 25]
        rolled = [resting(name, *posture, (0.0, 0.0), 0.0)[:2] for name in layout.cast.split("+")[1:]]
        assert (others[:, :2] - rolled > (-0.500001, 0.049999)).all()
        assert (others[:, :2] - rolled < (-0.099999, 0.350001)).all()
        distances.append(np.linalg.norm(others[:, :2] - layout.object_pose[0, :2], axis=1).min())
        for a, b in itertools.combinations(others, 2):
            assert np.linalg.norm(a[:2] - b[:2]) > 0.04
        again = PICK.layout(f"grid:{k}", variant)
        np.testing.assert_array_equal(layout.object_pose, again.object_pose)
    # Where the can lies in the middle of the table there is no room at 25 cm for objects that do not overlap.
    assert np.median(distances) > 0.2
    assert min(distances) > 0.08


# ------------------------------------------------------------------------------------------------------- the rules

UP, DOWN = np.array([0, 1e-3, 0]), np.array([0, -1e-3, 0])


def pick_flags(task, height: float, impulse: dict[int, np.ndarray], memory=None):
    state = task.layout("grid:0")
    impulses = np.zeros((1, len(task.contacts_of(state.cast)), 3))
    for query, vector in impulse.items():
        impulses[0, query] = vector
    scene = still(task, [state], impulse=impulses)
    scene.object_pose[0, 0, 2] += height
    flags, memory = task.evaluate(scene, task.begin([state]) if memory is None else memory)
    return {name: bool(value[0]) for name, value in flags.items()}, memory


HELD, TABLE = {0: UP, 2: UP}, {4: UP}


@pytest.mark.parametrize(
    ("impulse", "expected"),
    [
        ({0: UP, 2: UP}, True),
        ({1: UP, 3: UP}, True),
        ({1: UP, 2: UP}, True),
        ({0: UP}, False),
        ({0: DOWN, 2: UP}, False),
        ({0: DOWN, 1: UP * 0.01, 2: UP}, True),
        ({0: UP * 0.9e-3, 2: UP}, False),
        ({0: [np.sin(np.deg2rad(79.9)), np.cos(np.deg2rad(79.9)), 0], 2: UP}, True),
        ({0: [np.sin(np.deg2rad(80.1)), np.cos(np.deg2rad(80.1)), 0], 2: UP}, False),
    ],
)
def test_grasp_test(impulse, expected) -> None:
    flags, _ = pick_flags(PICK, 0.0, {**impulse, **TABLE})
    assert flags["is_grasped"] == flags["ever_grasped"] == expected


@pytest.mark.parametrize(
    ("height", "table", "lifted", "significantly"),
    [(0.0099, {}, False, False), (0.0101, {}, True, False), (0.0201, {}, True, True), (0.03, TABLE, False, False)],
)
def test_lifting_thresholds(height, table, lifted, significantly) -> None:
    flags, _ = pick_flags(PICK, height, {**HELD, **table})
    assert (flags["lifted_object"], flags["lifted_object_significantly"]) == (lifted, significantly)
    assert flags["success"] == lifted


def test_lifted_stays_while_held_and_goes_with_the_grasp() -> None:
    _, memory = pick_flags(PICK, 0.015, HELD)
    flags, memory = pick_flags(PICK, 0.0, {**HELD, **TABLE}, memory)
    assert flags["lifted_object"]
    flags, memory = pick_flags(PICK, 0.0, TABLE, memory)
    assert not flags["lifted_object"]
    assert not flags["success"]


@pytest.mark.parametrize(("steps", "expected"), [(4, False), (5, True)])
def test_five_high_steps_count_even_after_the_can_is_put_down(steps: int, expected: bool) -> None:
    memory = None
    for _ in range(steps):
        _, memory = pick_flags(PICK, 0.03, HELD, memory)
    flags, _ = pick_flags(PICK, 0.0, TABLE, memory)
    assert flags["success"] == expected
    assert flags["ever_consecutive_grasp"] == expected


def test_distractors_count_as_contact() -> None:
    task, state = PICK, PICK.layout("grid:0", "distractors")
    impulse = np.zeros((1, len(task.contacts_of(state.cast)), 3))
    impulse[0, [0, 2]] = UP
    for touched, expected in ((None, True), (5, False), (8, False)):
        scene = still(task, [state], impulse=impulse.copy())
        scene.object_pose[0, 0, 2] += 0.05
        if touched is not None:
            scene.impulse[0, touched] = UP
        flags, _ = task.evaluate(scene, task.begin([state]))
        assert flags["success"][0] == expected


def near_flags(move, layout=0):
    state = NEAR.layout(f"grid:{layout}")
    scene = still(NEAR, [state])
    move(scene.object_pose[0], state)
    flags, _ = NEAR.evaluate(scene, NEAR.begin([state]))
    return {name: bool(value[0]) for name, value in flags.items()}


def beside(distance: float, angle: float = 0.0):
    """Move the source's centre of mass to a distance from the target's, away from the third object."""

    def move(poses, state) -> None:
        bodies = NEAR.objects_of(state.cast)
        com = [Rotation.from_quat(p[3:], scalar_first=True).apply(b.com) for p, b in zip(poses, bodies, strict=True)]
        (third,) = {0, 1, 2} - {state.source, state.target}
        away = poses[state.target, :2] - poses[third, :2]
        away = Rotation.from_rotvec([0, 0, angle]).apply([*away / np.linalg.norm(away), 0])[:2]
        target = poses[state.target, :2] + com[state.target][:2]
        poses[state.source, :2] = target + distance * away - com[state.source][:2]

    return move


@pytest.mark.parametrize("layout", [0, 8, 25, 47])
def test_nearness_ends_10_cm_beyond_the_boxes(layout: int) -> None:
    state = NEAR.layout(f"grid:{layout}")
    box = NEAR.begin([state])["box"][0]
    reach = np.linalg.norm(box[:, :2], axis=1).sum() / 2 + 0.10
    for excess, expected in ((-1e-5, True), (1e-5, False)):
        flags = near_flags(beside(reach + excess), layout)
        assert flags["near_tgt_obj"] == expected
        assert flags["moved_correct_obj"]
        assert not flags["moved_wrong_obj"]
        assert flags["success"] == expected


def test_success_needs_all_four() -> None:
    def fallen(index: int, drop: float):
        def move(poses, state) -> None:
            beside(0.1)(poses, state)
            poses[index, 2] -= drop

        return move

    assert near_flags(beside(0.1))["success"]
    # grid:0 moves the bottle (0) near the can (1); the orange (2) stands by.
    assert near_flags(fallen(2, 0.019))["all_obj_keep_height"]
    assert not near_flags(fallen(2, 0.021))["all_obj_keep_height"]
    assert near_flags(fallen(0, 0.12))["all_obj_keep_height"]
    assert not near_flags(fallen(0, 0.17))["success"]

    def shove(poses, state) -> None:
        beside(0.1)(poses, state)
        poses[2, 0] -= 1.0

    flags = near_flags(shove)
    assert flags["moved_wrong_obj"]
    assert not flags["moved_correct_obj"]
    assert not flags["success"]


def test_the_target_must_be_the_nearest_but_for_a_centimetre() -> None:
    state = NEAR.layout("grid:0")
    for gap, expected in ((0.009, True), (0.011, False)):

        def between(poses, state, gap=gap) -> None:
            beside(0.12)(poses, state)
            bottle = NEAR.objects_of(state.cast)[0]
            com = poses[0, :3] + Rotation.from_quat(poses[0, 3:], scalar_first=True).apply(bottle.com)
            poses[2, :2] = com[:2] + (0.0, 0.12 - gap)

        assert near_flags(between)["is_closest_to_tgt"] == expected
    assert state.cast.split("+")[2] == "orange"


def test_lanes_of_different_casts_are_evaluated_together() -> None:
    states = [NEAR.layout(f"grid:{k}") for k in (0, 17, 30, 59)]
    scene = still(NEAR, states)
    for poses, state in zip(scene.object_pose, states, strict=True):
        beside(0.1)(poses, state)
    together, _ = NEAR.evaluate(scene, NEAR.begin(states))
    for b, state in enumerate(states):
        own = Snapshot(scene.object_pose[b : b + 1], {}, scene.impulse[b : b + 1])
        alone, _ = NEAR.evaluate(own, NEAR.begin([state]))
        assert {name: bool(v[b]) for name, v in together.items()} == {name: bool(v[0]) for name, v in alone.items()}


@pytest.mark.parametrize(
    ("task", "position", "expected"),
    [(OPEN, 0.1499, False), (OPEN, 0.15, True), (CLOSE, 0.05, True), (CLOSE, 0.0501, False)],
)
def test_drawer_thresholds(task, position: float, expected: bool) -> None:
    states = [task.layout(f"grid:{k}") for k in (0, 9, 18)]
    scene = still(task, states)
    for b, drawer in enumerate(DRAWERS):
        scene.joints[joint_name(drawer)][b] = position
    flags, _ = task.evaluate(scene, task.begin(states))
    assert flags["success"].tolist() == [expected] * 3


def test_the_wrong_drawer_does_not_count() -> None:
    state = OPEN.layout("grid:0")
    scene = still(OPEN, [state])
    scene.joints["middle_drawer_joint"][0] = 0.4
    assert not OPEN.evaluate(scene, OPEN.begin([state]))[0]["success"][0]


def place_step(memory, elapsed=1, opening=0.2, floor=(0.0, 0.0, 0.0)):
    state = PLACE.layout("grid:0")
    impulse = np.zeros((1, 3, 3))
    impulse[0, :, 2] = floor
    scene = still(PLACE, [state], elapsed, impulse)
    scene.joints["top_drawer_joint"][0] = opening
    flags, memory = PLACE.evaluate(scene, PLACE.begin([state]) if memory is None else memory)
    return {name: bool(value[0]) for name, value in flags.items()}, memory


TOUCH = (1e-3, 0.0, 0.0)


def test_the_second_subtask_begins_with_the_101st_step() -> None:
    flags, memory = place_step(None, 100, floor=TOUCH)
    assert PLACE.stage(memory).tolist() == [0]
    assert not flags["success"]
    flags, memory = place_step(memory, 101)
    assert PLACE.stage(memory).tolist() == [1]
    assert flags["success"]


def test_an_agent_may_begin_the_second_subtask() -> None:
    _, memory = place_step(None, 20, floor=TOUCH)
    advanced = PLACE.advance(memory)
    assert PLACE.stage(memory).tolist() == [0]
    assert PLACE.stage(advanced).tolist() == [1]
    assert place_step(advanced, 21)[0]["success"]
    assert not place_step(memory, 21)[0]["success"]
    again = PLACE.advance(advanced)
    assert PLACE.stage(again).tolist() == [1]
    kept = OPEN.begin([OPEN.layout("grid:0")])
    assert OPEN.advance(kept) is kept


@pytest.mark.parametrize(
    ("opening", "floor", "success"),
    [(0.05, TOUCH, True), (0.0499, TOUCH, False), (0.2, (0.9e-6, 0, 0), False), (0.2, (0, 1e-3, 1e-3), False)],
)
def test_place_thresholds(opening: float, floor, success: bool) -> None:
    """Only the floor of the drawer in question counts."""
    assert place_step(None, 101, opening, floor)[0]["success"] == success


def test_contacts_and_openness_are_remembered() -> None:
    flags, memory = place_step(None, 5, 0.15, TOUCH)
    assert flags == {"success": False, "is_drawer_open": True, "has_contact": True}
    flags, memory = place_step(memory, 150, 0.06)
    assert flags == {"success": True, "is_drawer_open": True, "has_contact": True}
    assert memory["contact_steps"].tolist() == [1.0]


def test_instructions_of_the_two_subtasks() -> None:
    assert PLACE.instruction("grid:3") == "open top drawer"
    assert PLACE.instruction("grid:3", stage=1) == "place apple into top drawer"


# ---------------------------------------------------------------------------------------------------------- the data


def test_variants_name_lights_stations_and_objects_that_exist() -> None:
    for task in GOOGLE_TASKS:
        assert task.variants[0] == "default"
        for name in task.variants:
            look = task.look(name)
            assert look.light in LIGHTS
            assert bool(look.station) == (task.scenery == "google_cabinet")
            assert not look.station or look.station in STATIONS
            assert set(look.distractors) <= set(MODELS)
            assert look.overlay == (name in ("default", "solid_handles") or name.startswith("recolor"))
            moved = task.layout("grid:0", name).qpos
            assert (moved is not None) == name.startswith("camera")
    setup = get_setup(PICK.robot_setup)
    tilted = PICK.layout("grid:0", "camera_2").qpos
    assert tilted[:10] == setup.qpos[:10]
    assert tilted[10] == pytest.approx(0.6651361)


def test_objects_and_rests() -> None:
    for model in MODELS:
        item = body(model)
        assert item.name == model
        assert 0.01 < item.mass < 1.0
        assert min(item.inertia) > 0
        assert sum(item.inertia) > 2 * max(item.inertia)
        np.testing.assert_allclose(np.linalg.norm(item.com_rotation), 1, atol=1e-5)
    computed = {key for key, rest in RESTS.items() if not rest.recorded}
    assert computed == {("seven_up", "flat"), ("redbull_baked", "flat"), ("bottle_baked_v2", "flat")}
    heavy, light = body("apple"), body("apple", 200)
    np.testing.assert_allclose(np.array(heavy.inertia), 4 * np.array(light.inertia))
    assert replace(heavy, mass=light.mass, inertia=light.inertia) == light
    with pytest.raises(UnknownNameError, match="model"):
        body("banana")


def test_masses_are_the_published_ones() -> None:
    """Grams, of the opened cans, the bottle, and the rest at their databases' densities."""
    published = {
        "opened_coke_can": 19.96, "opened_pepsi_can": 20.37, "opened_7up_can": 19.65, "opened_sprite_can": 20.30,
        "opened_fanta_can": 20.28, "opened_redbull_can": 17.89, "baked_opened_redbull_can_v2": 16.90,
        "blue_plastic_bottle": 28.53, "apple": 214.45, "orange": 145.10, "sponge": 34.86,
    }  # fmt: skip
    assert {model: round(body(model).mass * 1000, 2) for model in published} == published


def hulls(path) -> list[np.ndarray]:
    """Vertices of every group of a Wavefront file."""
    vertices, groups = [], [[]]
    for line in path.read_text().splitlines():
        kind, *values = line.split() or [""]
        if kind == "v":
            vertices.append([float(value) for value in values[:3]])
        elif kind in ("o", "g"):
            groups.append([])
        elif kind == "f":
            groups[-1] += [int(value.split("/")[0]) - 1 for value in values]
    return [np.array(vertices)[sorted(set(group))] for group in groups if group]


@pytest.mark.golden
@pytest.mark.parametrize("model", sorted({shape_of(model): model for model in MODELS}.values()))
def test_shapes_rest_on_the_ground_and_inside_their_outlines(shared, model: str) -> None:
    """Against the original's collision shapes: lowest point, outline, and mass.

    PhysX trims the hulls by up to 3 %: corners of the mesh lie below the ground where the trimmed hull rests on it.
    """
    points = hulls(shared / "assets" / "simplerenv" / "data" / "custom" / "models" / model / "collision.obj")
    every, seen = np.concatenate(points), 0
    for posture in ("flat", "upright"):
        if (shape_of(model), posture) not in RESTS:
            continue
        pose = resting(model, posture, 0.7, (0.0, 0.0), 1.0)
        placed = pose[:3] + Rotation.from_quat(pose[3:], scalar_first=True).apply(every)
        assert -0.00075 < placed[:, 2].min() - 1.0 < 0.00001
        x_axis = Rotation.from_quat(pose[3:], scalar_first=True).apply([1, 0, 0])[:2]
        x_axis /= np.linalg.norm(x_axis)
        flat = placed[:, :2] - pose[:2]
        along, across = flat @ x_axis, flat @ [-x_axis[1], x_axis[0]]
        extent = rest_of(model, posture).extent
        np.testing.assert_allclose(extent, [along.min(), along.max(), across.min(), across.max()], atol=1e-4)
        assert rest_of(model, posture).recorded or np.linalg.norm(pose[:2]) < 0.005
        seen += 1
    assert seen
    density = {"apple": 800, "orange": 800, "sponge": 150}.get(shape_of(model), 50)
    if body(model, density).mass != body(model, 2 * density).mass:
        volume = sum(ConvexHull(group).volume for group in points)
        assert 0.96 < body(model, density).mass / (volume * density) < 1.0005


@pytest.mark.golden
def test_models_are_those_of_the_databases(shared) -> None:
    folder, found = shared / "assets" / "simplerenv" / "data" / "custom", set()
    for version in ("v0", "baked_tex_v0", "baked_tex_v1"):
        for name, entry in json.loads((folder / f"info_pick_custom_{version}.json").read_text()).items():
            box = np.subtract(entry["bbox"]["max"], entry["bbox"]["min"])
            np.testing.assert_allclose(body(name).bbox, box, atol=1e-9, err_msg=name)
            found.add(name)
            if name.startswith("opened"):
                assert body(name, entry["density"]).mass == body(name).mass
    assert found == set(MODELS)
    names = list(json.loads((folder / "info_pick_custom_baked_tex_v1.json").read_text()))
    task = TASKS["google_robot_place_in_closed_top_drawer"]
    assert [task.layout(f"grid:{27 * i}").cast for i in range(len(names))] == names


@pytest.mark.golden
@pytest.mark.parametrize("station", list(STATIONS))
def test_cabinet_is_that_of_the_description(shared, station: str) -> None:
    root = ElementTree.parse(shared / "assets" / "simplerenv" / "data" / "custom" / f"{station}.urdf").getroot()
    colours = {m.get("name"): m.find("color").get("rgba").split()[:3] for m in root.findall("material")}
    ours = STATIONS[station]
    for key, material in (("body", "gray_wooden"), ("interior", "white_wooden"), ("handle", "black")):
        np.testing.assert_allclose(getattr(ours, key), np.array(colours[material], float), atol=1e-3)
    if not ours.stone_top:
        np.testing.assert_allclose(ours.tabletop, np.array(colours["stone"], float), atol=1e-3)
    for link, parts in (("body", BODY), ("top_drawer", DRAWER), ("bottom_drawer", DRAWER)):
        element = next(item for item in root.findall("link") if item.get("name") == link)
        for kind, wanted in (("collision", [p for p in parts if p.collides]), ("visual", list(parts))):
            boxes = {box_of(item) for item in element.findall(kind) if item.find("geometry/box") is not None}
            assert boxes >= {(*part.size, *part.centre) for part in wanted if not (ours.stone_top and kind == "visual")}
            assert len(boxes) >= len(wanted) - ours.stone_top
    heights = {j.get("name"): j.find("origin").get("xyz").split() for j in root.findall("joint")}
    for drawer in DRAWERS:
        x, y, z = (float(value) for value in heights[joint_name(drawer)])
        handle = handle_pose(drawer, 0.1)
        np.testing.assert_allclose(handle[:3], (x - 0.295 + 0.3425 + 0.1, y, z + 0.017 + 0.02), atol=1e-9)


def box_of(element) -> tuple[float, ...]:
    size = element.find("geometry/box").get("size").split()
    return tuple(float(value) for value in (*size, *element.find("origin").get("xyz").split()))
