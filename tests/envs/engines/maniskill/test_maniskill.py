"""SAPIEN 3 against recordings of the original: images, motion, replays; environments, snapshots, failures."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from vlaser_gym.agents.scripted import ScriptedExpert
from vlaser_gym.commands import doctor
from vlaser_gym.envs.assets import AssetPack
from vlaser_gym.envs.engines import Placement, make_engine
from vlaser_gym.envs.engines.maniskill.engine import ManiskillEngine
from vlaser_gym.envs.engines.maniskill.start import SceneKey, Start
from vlaser_gym.envs.robots import DriveTargets, get_setup
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import RenderingUnavailableError, SimulationError
from vlaser_gym.evaluation.parity import Recordings, Simulator, robot_figures, task_figures

pytest.importorskip("mani_skill", reason="needs the extra: pip install -e '.[maniskill]' -c constraints.txt")

from vlaser_gym.envs.engines.maniskill import physics, scene
from vlaser_gym.envs.engines.maniskill.pictures import Artist

pytestmark = [pytest.mark.slow, pytest.mark.golden]

CUBE, SINK = "widowx_stack_cube", "widowx_put_eggplant_in_basket"


@pytest.fixture(scope="session")
def assets(shared: Path) -> str:
    return str(shared / "assets" / "simplerenv")


@pytest.fixture(scope="module")
def engine(assets: str) -> Iterator[Any]:
    engine = make_engine("maniskill", 3, options={"processes": 2, "assets": assets})
    yield engine
    engine.close()


# ---------------------------------------------------------------------- images


def structural_similarity(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
    """Mean SSIM (Wang et al. 2004, Gaussian window of 11 pixels) over a mask and three colours."""
    x, y = a.astype(np.float64), b.astype(np.float64)

    def blur(image: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(image, (11, 11), 1.5)

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    both = blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    ratio = (2 * mean_x * mean_y + c1) * (2 * both + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return float(ratio[where].mean())


def recorded(golden: Path, folder: str, key: str) -> tuple[dict, Start, np.ndarray, np.ndarray]:
    """Metadata, state, image and mask of a recorded reset."""
    place = golden / "reset" / folder
    meta, arrays = json.loads((place / "index.json").read_text())[key], np.load(place / f"{key}.npz")
    task = get_task(meta["simpler_task"])
    cast = "+".join(meta["object_names"]) if task.layout("grid:0").cast else ""
    names = [spec.name for spec in task.objects_of(cast)]
    rows = [arrays["obj_pose"].reshape(-1, 7)[meta["object_names"].index(name)] for name in names]
    joints = meta.get("drawer_joint_names") or []
    start = Start(
        SceneKey(task.name, meta["urdf_version"] or "default", cast),
        arrays["qpos"].astype(np.float64),
        np.array(rows, np.float64).reshape(-1, 7),
        dict(zip(joints, arrays["drawer_qpos"].ravel().tolist(), strict=True)) if joints else {},
        tuple(arrays["base_pose_world"]),
    )
    picture = np.array(Image.open(place / meta["image"]).convert("RGB"))
    mask = np.array(Image.open(place / f"{key}_mask.png").convert("L")) > 127
    return meta, start, picture, mask


@pytest.mark.parametrize(
    ("folder", "key"),
    [
        ("widowx_carrot_on_plate", "000"),
        (SINK, "008"),
        ("google_robot_pick_coke_can.standing", "100"),
        ("google_robot_move_near", "018"),
        ("google_robot_close_drawer.bottom", "012"),
    ],
)
def test_pictures_are_those_of_the_original(golden: Path, assets: str, folder: str, key: str) -> None:
    meta, start, expected, mask = recorded(golden, folder, key)
    artist = Artist(start.key, AssetPack(assets))
    _, foreground = artist.layers(start)
    ours = artist.draw(start)
    assert ours.shape == expected.shape
    assert (foreground & mask).sum() / (foreground | mask).sum() > 0.99
    assert structural_similarity(ours, expected, mask) > 0.98
    # Outside the foreground the photograph alone is to be seen, to the last bit but for rounding.
    assert np.abs(ours.astype(int) - expected)[~(mask | foreground)].mean() < 0.05
    photograph = cv2.imread(f"{assets}/data/real_inpainting/{meta['overlay']}")
    bare = cv2.resize(photograph, expected.shape[1::-1])[..., ::-1]
    assert structural_similarity(bare, expected, mask) < 0.6


# ---------------------------------------------------------------------- what is simulated


def test_bodies_and_solver_are_the_originals(golden: Path, assets: str) -> None:
    meta, start, _, _ = recorded(golden, "widowx_carrot_on_plate", "000")
    built = scene.build_scene(start.key, AssetPack(assets))
    for recording, entity in zip(meta["objects"], built.objects, strict=True):
        body = scene.body_of(entity)
        assert body.mass == pytest.approx(recording["mass"], rel=1e-5)
        assert np.allclose(body.inertia, recording["inertia_principal"], rtol=1e-4)
        assert (body.linear_damping, body.angular_damping) == pytest.approx((0.1, 0.1))
        assert {shape.contact_offset for shape in body.collision_shapes} == {np.float32(0.005)}
        assert {shape.physical_material.static_friction for shape in body.collision_shapes} == {0.5}
    assert (built.robot.solver_position_iterations, built.robot.solver_velocity_iterations) == (25, 1)
    assert built.scene.timestep == pytest.approx(0.002)
    finger = scene.links_of(built.robot)["left_finger_link"].collision_shapes[0]
    assert (finger.physical_material.dynamic_friction, finger.patch_radius) == pytest.approx((2.0, 0.01))
    assert not any(entity.find_component_by_type(scene.sapien.render.RenderBodyComponent) for entity in built.objects)


def test_a_resting_object_weighs_on_the_table(assets: str) -> None:
    """The contact query's impulse is weight times substep; gravity does not move the robot."""
    task = get_task(CUBE)
    layout, setup = task.layout("grid:0"), get_setup(task.robot_setup)
    qpos = np.array(setup.qpos)
    start = Start(SceneKey(CUBE, "default"), qpos, np.array(layout.object_pose), {}, setup.base_pose)
    lane = physics.Simulation(start, AssetPack(assets))
    for _ in range(3):
        lane.step(physics.Targets(qpos[None].astype(np.float32), None))
    reading = lane.read()
    by_scene = [query.by for query in task.contacts].index("scene")
    assert reading.impulse[by_scene] == pytest.approx([0, 0, 0.027 * 9.81 * 0.002], abs=2e-5)
    assert np.abs(reading.qpos - qpos).max() < 1e-5


def test_an_arm_that_presses_stays_where_it_is(golden: Path, assets: str) -> None:
    """Pressed against its own base the recorded forearm moves by 3 mrad per control step; it used to creep by 117."""
    place = golden / "replay_task" / "google_robot_close_drawer.top"
    meta, arrays = json.loads((place / "index.json").read_text())["006_ok"], np.load(place / "006_ok.npz")
    qpos = arrays["qpos"][20].astype(np.float64)
    targets, names = np.zeros(len(qpos)), meta["joint_names"]
    for kind in ("arm", "gripper"):
        joints = [names.index(joint) for joint in meta[f"{kind}_controller_joints"]]
        targets[joints] = arrays[f"{kind}_drive_target"][20]
    drawers = dict(zip(meta["drawer_joint_names"], arrays["drawer_qpos"][20].tolist(), strict=True))
    key = SceneKey("google_robot_close_top_drawer", "default")
    start = Start(key, qpos, np.zeros((0, 7)), drawers, tuple(meta["base_pose_world"]))
    lane = physics.Simulation(start, AssetPack(assets))
    lane.step(physics.Targets(targets[None].astype(np.float32), None))
    assert np.abs(lane.read().qpos - qpos)[:7].max() < 0.015


@pytest.mark.parametrize("robot", ["widowx", "google_robot"])
def test_motion_follows_the_original(golden: Path, assets: str, robot: str) -> None:
    row = robot_figures(Recordings(golden), robot, Simulator("maniskill", options={"processes": 1, "assets": assets}))
    assert row["response_mm"] < 0.5
    for free in row["free"]:
        assert free["rms_mm"] < 1, free


@pytest.mark.parametrize("task", [CUBE, "google_robot_pick_standing_coke_can"])
def test_recorded_successes_are_recalled_and_none_is_false(golden: Path, assets: str, task: str) -> None:
    row = task_figures(Recordings(golden), task, Simulator("maniskill", options={"assets": assets}))
    assert row["object_mm"] < 0.1
    assert row["recalled"] == row["successes"] >= 4
    assert row["false_successes"] == 0 < row["failures"]


# ---------------------------------------------------------------------- the engine's contract


def placement(task_name: str, layout: int) -> Placement:
    task = get_task(task_name)
    return Placement(task, "default", task.layout(f"grid:{layout}"), np.array(get_setup(task.robot_setup).qpos))


def targets(lanes: int, offset: float) -> DriveTargets:
    qpos = np.array(get_setup("widowx").qpos)
    return DriveTargets(np.tile(qpos + np.array([offset] * 6 + [-0.01] * 2), (lanes, 1, 1)))


def run(engine: ManiskillEngine, lane: int, steps: int = 4) -> np.ndarray:
    for k in range(steps):
        engine.step(np.array([lane]), targets(1, 0.05 * k))
    reading = engine.read(np.array([lane]))[0]
    return np.concatenate([reading.qpos, reading.object_pose.ravel(), reading.impulse.ravel()])


def test_a_lane_depends_on_its_placement_only(engine: ManiskillEngine) -> None:
    engine.place([0], [placement(CUBE, 7)])
    expected = run(engine, 0)
    engine.place([0, 1, 2], [placement(SINK, 2), placement(CUBE, 3), placement(CUBE, 9)])
    engine.step(np.arange(3), targets(3, 0.2))
    engine.place([1], [placement(CUBE, 7)])
    assert np.array_equal(run(engine, 1), expected)


def test_snapshots_are_put_back_bit_for_bit(engine: ManiskillEngine) -> None:
    engine.place([0, 1, 2], [placement(CUBE, 0), placement(SINK, 1), placement(CUBE, 2)])
    engine.step(np.arange(3), targets(3, 0.1))
    state = engine.get_state()
    after = [run(engine, lane) for lane in range(3)]
    engine.place([0, 1, 2], [placement(SINK, 5)] * 3)
    engine.set_state(state)
    for lane in range(3):
        assert np.array_equal(run(engine, lane), after[lane])


def test_pictures_come_once_per_chunk(assets: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    original = ManiskillEngine.images

    def counted(self: ManiskillEngine, lanes: np.ndarray, *cameras: str) -> np.ndarray:
        asked.append(len(lanes))
        return original(self, lanes, *cameras)

    monkeypatch.setattr(ManiskillEngine, "images", counted)
    env = SceneVectorEnv(CUBE, engine="maniskill", observe=("image",), engine_options={"assets": assets})
    first, _ = env.reset(options={"layout": 3})
    second, *_ = env.step_chunk(np.tile([0.02, 0, 0, 0, 0, 0, 1.0], (1, 4, 1)))
    env.close()
    assert asked == [1, 1]
    assert first["image"].shape == (1, 480, 640, 3)
    assert (first["image"] != second["image"]).any(-1).mean() > 0.01


def test_a_dead_worker_is_a_simulation_error(assets: str) -> None:
    engine: Any = make_engine("maniskill", 1, options={"assets": assets})
    engine.place([0], [placement(CUBE, 0)])
    engine._workers[0]._process.kill()
    with pytest.raises(SimulationError, match="ended unexpectedly"):
        run(engine, 0, 1)
    engine.close()
    with pytest.raises(SimulationError, match="reset it"):
        make_engine("maniskill", 1, options={"assets": assets}).step(np.array([0]), targets(1, 0.0))


def test_without_vulkan_the_remedy_is_told(assets: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VK_ICD_FILENAMES", "VK_DRIVER_FILES"):
        monkeypatch.setitem(os.environ, name, "/nowhere/driver.json")
    engine: Any = make_engine("maniskill", 1, options={"assets": assets})
    engine.place([0], [placement(CUBE, 0)])
    assert np.isfinite(run(engine, 0, 1)).all()
    with pytest.raises(RenderingUnavailableError, match="mesa-vulkan-drivers"):
        engine.images(np.array([0]))
    engine.close()
    finding = doctor._sapien_pictures()
    assert not finding.works
    assert "mesa-vulkan-drivers" in finding.remedy


def test_doctor_names_the_device_that_draws() -> None:
    finding = doctor._sapien_pictures()
    assert finding.works, finding
    assert finding.text.startswith("drawn by ")


def test_touches_of_a_grasp_oppose_each_other(assets: str) -> None:
    """Both fingers press on the cube exactly while the task's own rule says that it is grasped."""
    env = SceneVectorEnv(CUBE, 1, engine="maniskill", observe=("state",), engine_options={"assets": assets})
    expert, lane = ScriptedExpert(), np.arange(1)
    observation, _ = env.reset(options={"layout": 0})
    expert.reset(lane, env.addresses)
    grasped = 0
    for _ in range(14):
        observation, *_, info = env.step_chunk(expert.act(observation, lane))
        touch = env.lanes[0].reading.touch
        assert touch.shape == (2, 2, 3)
        left, right = touch[0]
        assert bool(info["is_src_obj_grasped"][0]) == (left @ right < 0)
        assert not touch[1].any()
        grasped += bool(info["is_src_obj_grasped"][0])
    assert grasped > 2
    env.close()
