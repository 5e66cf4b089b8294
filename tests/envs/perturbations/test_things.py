"""Other things on the table, measured in the compiled scene: MuJoCo's own distances are the oracle."""

from __future__ import annotations

from itertools import product

import mujoco
import numpy as np
import pytest

from vlaser_gym.conventions.rotations import heading
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.engines.base import Placement
from vlaser_gym.envs.engines.mujoco.scene import Scene, build_scene, write_qpos
from vlaser_gym.envs.perturbations import Perturbation, check_perturbation, get_perturbation
from vlaser_gym.envs.perturbations.beside import GAP, WAY
from vlaser_gym.envs.perturbations.things import COLOURS
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import get_task, task_names
from vlaser_gym.envs.tasks.base import Snapshot
from vlaser_gym.errors import InvalidConfigError

CARROT, SPOON, CUBE = "widowx_carrot_on_plate", "widowx_spoon_on_towel", "widowx_stack_cube"
NEAR, CAN, APPLE = (
    "google_robot_move_near_v0",
    "google_robot_pick_coke_can",
    "google_robot_place_apple_in_closed_top_drawer",
)


def plain(address: Address) -> Placement:
    task = get_task(address.task)
    layout = task.layout(address.layout, address.variant)
    start = np.array(layout.qpos or get_setup(task.robot_setup).qpos)
    return Placement(task, address.variant, layout, start, address.layout)


def placed(text: str, address: Address) -> Placement:
    perturbation = get_perturbation(text)
    return perturbation.place(plain(address), perturbation.moment(address))


def told(text: str, address: Address, stage: int = 0) -> str:
    perturbation = get_perturbation(text)
    sentence = get_task(address.task).instruction(address.layout, address.variant, stage)
    return perturbation.instruction(sentence, perturbation.moment(address))


def compiled(placement: Placement) -> tuple[Scene, mujoco.MjData]:
    """The scene as the engine begins it."""
    scene = build_scene(placement.task, placement.variant, cast=placement.layout.cast, bodies=placement.bodies)
    data = mujoco.MjData(scene.model)
    layout = placement.layout
    write_qpos(scene, data.qpos, placement.qpos, layout.object_pose, layout.joints)
    data.ctrl[scene.drives] = placement.qpos
    mujoco.mj_forward(scene.model, data)
    return scene, data


def geoms(model: mujoco.MjModel, body: str) -> list[int]:
    """Shapes of a body that touch."""
    return [g for g in range(model.ngeom) if model.body(model.geom_bodyid[g]).name == body and model.geom_contype[g]]


def distance(scene: Scene, data: mujoco.MjData, a: str, b: str) -> float:
    pairs = product(geoms(scene.model, a), geoms(scene.model, b))
    return min(mujoco.mj_geomDistance(scene.model, data, i, j, 0.5, np.zeros(6)) for i, j in pairs)


def names_of(placement: Placement) -> list[str]:
    return [f"object:{body.name}" for body in placement.task.objects_of(placement.layout.cast)]


# ---------------------------------------------------------------------- distractors


@pytest.mark.parametrize("address", [Address(CUBE, layout="grid:13"), Address(NEAR, layout="grid:20"), Address(CAN)])
def test_distractors_lie_clear_and_stay_at_rest(address: Address) -> None:
    own = len(plain(address).layout.object_pose)
    placement = placed("distractors:hard", address)
    layout, names = placement.layout, names_of(placement)
    np.testing.assert_array_equal(layout.object_pose[:own], plain(address).layout.object_pose)
    assert len(names) == len(set(names)) == own + 3
    scene, data = compiled(placement)
    # Outlines are boxes about the actor frames, which lie up to 1 cm beside the meshes' middles.
    assert min(distance(scene, data, a, b) for a in names[own:] for b in names if a != b) > GAP - 0.01
    source = placement.task.source if layout.source is None else layout.source
    target = placement.task.target if layout.target is None else layout.target
    begin, end = (layout.object_pose[max(i, source), :2] for i in (source, target))
    way = begin + np.linspace(0, 1, 50)[:, None] * (end - begin)
    for name in names[own:]:
        corners = np.array([data.geom_xpos[g][:2] for g in geoms(scene.model, name)])
        assert np.linalg.norm(way[:, None] - corners, axis=-1).min() > min(WAY[placement.task.scenery], 0.02)
    before = np.array([data.body(name).xpos for name in names])
    for _ in range(round(1.0 / scene.model.opt.timestep)):
        mujoco.mj_step(scene.model, data)
    moved = np.linalg.norm(np.array([data.body(name).xpos for name in names]) - before, axis=1)
    assert moved[own:].max() < 0.004


def test_a_milder_level_has_the_first_of_them_where_they_were() -> None:
    mild, medium, hard = (placed(f"distractors:{level}", Address(CARROT)) for level in ("mild", "medium", "hard"))
    np.testing.assert_array_equal(hard.layout.object_pose[: 2 + 2], medium.layout.object_pose)
    np.testing.assert_array_equal(medium.layout.object_pose[: 2 + 1], mild.layout.object_pose)
    assert hard.layout.cast.startswith(medium.layout.cast)
    elsewhere = placed("distractors:mild", Address(CARROT, layout="grid:1"))
    assert np.abs(elsewhere.layout.object_pose[2] - mild.layout.object_pose[2]).max() > 0.01


@pytest.mark.parametrize("task", [CARROT, SPOON, CUBE, NEAR, CAN])
def test_no_distractor_is_of_the_tasks_own_kind_and_every_layout_has_room(task: str) -> None:
    kinds = ("carrot", "spoon", "cube", "can", "sponge", "eggplant")
    for k in range(get_task(task).num_layouts):
        names = [
            name.removeprefix("object:")
            for name in names_of(placed("distractors:hard", Address(task, layout=f"grid:{k}")))
        ]
        own = len(plain(Address(task, layout=f"grid:{k}")).layout.object_pose)
        others = {kind for kind in kinds if any(kind in name for name in names[own:])}
        mine = {kind for kind in kinds if kind != "can" and any(kind in name for name in names[:own])}
        assert not others & mine


def test_where_there_is_no_table_there_are_no_distractors() -> None:
    for name in ("distractors", "another_target"):
        perturbation = get_perturbation(name)
        assert not perturbation.applies(get_task("widowx_put_eggplant_in_basket"))
        assert not perturbation.applies(get_task("google_robot_open_drawer"))
    with pytest.raises(InvalidConfigError, match="perturb=distractors needs engine=mujoco; got engine=maniskill"):
        check_perturbation(get_perturbation("distractors"), {"name": "maniskill"}, "original", [get_task(CUBE)])


# ---------------------------------------------------------------------- size and colour


@pytest.mark.parametrize(
    ("address", "name"), [(Address(CUBE), "baked_green_cube_3cm"), (Address(CAN), "opened_coke_can")]
)
def test_another_size_at_the_same_density_still_stands_on_the_table(address: Address, name: str) -> None:
    nominal, nominal_data = compiled(plain(address))
    name = next(
        f"object:{b.name}" for b in plain(address).task.objects_of(plain(address).layout.cast) if name in b.name
    )
    scales = set()
    for trial in range(3):
        placement = placed("object_size:hard", Address(address.task, trial=trial))
        scale = placement.bodies[0].scale
        scales.add(round(scale, 6))
        scene, data = compiled(placement)
        was, now = (scene_.model.body(name) for scene_ in (nominal, scene))
        assert now.mass[0] == pytest.approx(was.mass[0] * scale**3)
        np.testing.assert_allclose(now.inertia, was.inertia * scale**5, rtol=1e-6)
        sizes = [
            np.ptp(np.concatenate([model.geom_aabb[g].reshape(2, 3) for g in geoms(model, name)])[1::2], 0)
            + sum(model.geom_aabb[g][3:] for g in geoms(model, name))
            for model in (nominal.model, scene.model)
        ]
        np.testing.assert_allclose(sizes[1], sizes[0] * scale, rtol=1e-5)
        gaps = [distance(*of, name, "world") for of in ((nominal, nominal_data), (scene, data))]
        assert gaps[1] == pytest.approx(gaps[0] * scale, abs=1e-4)
        np.testing.assert_array_equal(placement.layout.object_pose[0, :2], plain(address).layout.object_pose[0, :2])
    assert scales <= {1.35, round(1 / 1.35, 6)}


def test_a_new_colour_is_seen_and_said() -> None:
    said = set()
    for k in range(6):
        address = Address(CUBE, layout=f"grid:{k}")
        (body,) = placed("object_colour", address).bodies
        colour = next(word for word, rgb in COLOURS.items() if rgb == body.colour)
        assert body.name == "baked_green_cube_3cm"
        assert told("object_colour", address) == f"stack the {colour} block on the yellow block"
        said.add(colour)
    assert said == set(COLOURS)
    address = Address(CARROT)
    assert told("object_colour", address) == "put carrot on plate"
    scene, _ = compiled(placed("object_colour", address))
    shown, unseen = set(), set()
    for g in range(scene.model.ngeom):
        material = scene.model.geom_matid[g]
        if (
            material >= 0
            and scene.model.body(scene.model.geom_bodyid[g]).name == "object:bridge_carrot_generated_modified"
        ):
            shown.add(tuple(round(float(value), 3) for value in scene.model.mat_rgba[material, :3]))
            unseen.add(int(scene.model.mat_texid[material].max()))
    assert shown <= {tuple(rgb) for rgb in COLOURS.values()}
    assert len(shown) == 1
    assert unseen == {-1}


# ---------------------------------------------------------------------- another object, another target


def test_another_object_lies_where_the_usual_one_did_and_is_named() -> None:
    said = set()
    for k in range(8):
        address = Address(CARROT, layout=f"grid:{k}")
        placement, before = placed("unseen_object", address), plain(address).layout.object_pose
        pose = placement.layout.object_pose[0]
        assert np.linalg.norm(pose[:2] - before[0, :2]) < 0.006
        turn = heading(pose[3:]) - heading(before[0, 3:])
        assert abs((turn + np.pi) % (2 * np.pi) - np.pi) < 0.1
        np.testing.assert_array_equal(placement.layout.object_pose[1], before[1])
        said.add((names_of(placement)[0], told("unseen_object", address)))
    assert said == {
        ("object:eggplant", "put eggplant on plate"),
        ("object:bridge_spoon_generated_modified", "put spoon on plate"),
    }
    assert told("unseen_object", Address(SPOON)).startswith("put the ")
    assert told("unseen_object", Address(CAN)) in ("pick sprite can", "pick sponge")
    assert told("unseen_object", Address(APPLE)) == "open top drawer"
    assert told("unseen_object", Address(APPLE), 1) in (
        "place sprite can into top drawer",
        "place sponge into top drawer",
    )
    assert not get_perturbation("unseen_object").applies(get_task(CUBE))


def test_another_object_is_scored_by_its_own_numbers() -> None:
    """The eggplant in the middle of the plate, by the rule with the eggplant's centre and box."""
    address = next(
        a for a in (Address(CARROT, layout=f"grid:{k}") for k in range(8)) if "eggplant" in told("unseen_object", a)
    )
    placement = placed("unseen_object", address)
    task, layout = placement.task, placement.layout
    memory = task.begin([layout])
    np.testing.assert_allclose(np.abs(memory["com"][0, 0]), np.abs([0.000196495559, 4.59781149e-05, -8.7534776e-05]))
    poses = layout.object_pose[None].copy()
    poses[0, 0, :3] = poses[0, 1, :3] + [0, 0, 0.025]
    links = {f"{side}_finger_link": np.array([[0, 0, 1.0, 1, 0, 0, 0]]) for side in ("left", "right")}
    impulses = np.zeros((1, len(task.contacts_of(layout.cast)), 3))
    flags, _ = task.evaluate(Snapshot(poses, links, impulses), memory)
    assert flags["success"].tolist() == [True]
    assert task.at_goal(poses, layout, 1).tolist() == [True]
    assert task.contacts_of(layout.cast)[0].by == "object:eggplant"


def test_another_target_is_told_and_the_usual_one_is_still_there() -> None:
    for task, sentence, target in (
        (CARROT, "put carrot on towel", "table_cloth_generated_shorter"),
        (SPOON, "put the spoon on the plate", "bridge_plate_objaverse_larger"),
        (CUBE, "put the green block on the plate", "bridge_plate_objaverse_larger"),
    ):
        address = Address(task, layout="grid:5")
        placement, before = placed("another_target", address), plain(address).layout.object_pose
        assert told("another_target", address) == sentence
        assert names_of(placement)[1] == f"object:{target}"
        np.testing.assert_array_equal(placement.layout.object_pose[[0, 2]], before)
        scene, data = compiled(placement)
        names = names_of(placement)
        assert min(distance(scene, data, names[1], other) for other in (names[0], names[2])) > GAP - 0.01


def test_move_near_another_target_is_the_third_object() -> None:
    address = Address(NEAR, layout="grid:20")
    placement, usual = placed("another_target", address), plain(address).layout
    assert {placement.layout.source, placement.layout.target, usual.target} == {0, 1, 2}
    assert placement.layout.source == usual.source
    source, target = (names_of(placement)[i] for i in (placement.layout.source, placement.layout.target))
    words = told("another_target", address).removeprefix("move ").split(" near ")
    assert all(word.split(" ")[0] in name for word, name in zip(words, (source, target), strict=True))
    with pytest.raises(InvalidConfigError, match="needs a third object"):
        placed("another_target", Address(NEAR, "no_distractor"))


@pytest.mark.parametrize("task", [CARROT, NEAR])
def test_both_goals_by_poses_alone(task: str) -> None:
    """The source is put beside or onto each of the objects in turn: each time one goal is reached."""
    address = Address(task, layout="grid:5")
    placement = placed("another_target", address)
    perturbation, layout = get_perturbation("another_target"), placement.layout
    usual = perturbation.original_target(perturbation.moment(address))
    source = placement.task.source if layout.source is None else layout.source
    target = placement.task.target if layout.target is None else layout.target
    assert len({usual, source, target}) == 3
    poses = np.repeat(layout.object_pose[None], 3, 0)
    for row, goal in ((1, target), (2, usual)):
        beside = (
            [0.0, 0.0, 0.02] if task == CARROT else [0.0, 0.09 if layout.object_pose[goal, 1] < 0.2 else -0.09, 0.0]
        )
        poses[row, source, :3] = [
            *(layout.object_pose[goal, :2] + beside[:2]),
            layout.object_pose[source, 2] + beside[2],
        ]
    assert placement.task.at_goal(poses, layout, target).tolist() == [False, True, False]
    assert placement.task.at_goal(poses, layout, usual).tolist() == [False, False, True]


def test_tasks_without_a_goal_object_say_so() -> None:
    with pytest.raises(InvalidConfigError, match="has no object as its goal"):
        get_task(CAN).at_goal(np.zeros((1, 1, 7)), get_task(CAN).layout("grid:0"), 0)
    with pytest.raises(InvalidConfigError, match="leaves the goal as it is"):
        get_perturbation("blur").original_target(get_perturbation("blur").moment(Address(CAN)))


def test_whatever_applies_can_be_placed() -> None:
    for name in task_names():
        task = get_task(name)
        for text in ("distractors:hard", "object_size", "object_colour", "unseen_object", "another_target"):
            perturbation: Perturbation = get_perturbation(text)
            if perturbation.applies(task):
                for k in range(0, task.num_layouts, max(1, task.num_layouts // 4)):
                    address = Address(name, layout=f"grid:{k}")
                    layout = placed(text, address).layout
                    assert len(layout.object_pose) == len(task.objects_of(layout.cast))
                    assert told(text, address)
