"""The GPU's environments, on a stand-in for SAPIEN's GPU system that has a CPU system for each sub-scene.

The stand-in has the surface of ``sapien.physx.PhysxGpuSystem`` (a name that it lacks is an error), and keeps to its
rules: arrays change by fetching only, the simulation by applying only, and nothing is added after ``gpu_init``.
"""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from vlaser_gym.envs.assets import AssetPack
from vlaser_gym.envs.engines import Placement, make_engine
from vlaser_gym.envs.engines.base import Reading
from vlaser_gym.envs.engines.maniskill.start import SceneKey, Start, Targets
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.evaluation.parity import Recordings, Simulator, task_figures

pytest.importorskip("mani_skill", reason="needs the extra: pip install -e '.[maniskill]' -c constraints.txt")

import sapien
from sapien import physx

from vlaser_gym.envs.engines.maniskill import cuda, engine, worker
from vlaser_gym.envs.engines.maniskill.batch import Batches
from vlaser_gym.envs.engines.maniskill.cuda import CudaSystem
from vlaser_gym.envs.engines.maniskill.physics import Simulation

pytestmark = [pytest.mark.slow, pytest.mark.golden]

CUBE, SINK = "widowx_stack_cube", "widowx_put_eggplant_in_basket"
RECORDED = ("qpos", "obj_pose", "arm_drive_target", "gripper_drive_target")
CAN, DRAWER = "google_robot_pick_standing_coke_can", "google_robot_close_top_drawer"


class GpuStandIn:
    """The calls and arrays of a GPU system."""

    made: list[GpuStandIn] = []  # noqa: RUF012  (what the code under test has made)

    def __init__(self, device: Any) -> None:
        self.device, self.timestep = sapien.Device("cpu"), 0.0
        self.scenes: list[Any] = []
        self.offsets: list[tuple[float, ...]] = []
        self.articulations: list[Any] = []
        self.bodies: list[Any] = []
        GpuStandIn.made.append(self)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"{name}: {'not in the stand-in' if hasattr(physx.PhysxGpuSystem, name) else 'not SAPIEN'}"
        )

    def scene(self) -> Any:
        assert not self.bodies, "nothing can be added after gpu_init"
        self.scenes.append(sapien.Scene([physx.PhysxCpuSystem()]))
        return self.scenes[-1]

    def set_scene_offset(self, scene: Any, offset: list[float]) -> None:
        assert scene is self.scenes[-1]
        assert not scene.entities, "offsets come before bodies"
        self.offsets.append(tuple(offset))

    def gpu_init(self) -> None:
        links = [link for scene in self.scenes for link in scene.physx_system.articulation_link_components]
        self.articulations = list(dict.fromkeys(link.articulation for link in links))
        # Rows in no order that could be guessed.
        self.bodies = [*[b for s in self.scenes for b in s.physx_system.rigid_dynamic_components], *reversed(links)]
        shape = len(self.articulations), max(a.dof for a in self.articulations)
        for name in ("qpos", "qvel", "qf", "target_qpos", "target_qvel"):
            setattr(self, f"cuda_articulation_{name}", Array(*shape))
        self.cuda_rigid_body_data = Array(len(self.bodies), 13)
        self.step()

    def step(self) -> None:
        assert self.bodies, "gpu_init comes first"
        for scene in self.scenes:
            scene.physx_system.timestep = self.timestep
            scene.physx_system.step()

    def rows(self, name: str) -> list[tuple[Any, torch.Tensor]]:
        rows = getattr(self, f"cuda_articulation_{name}").torch()
        return [(a, row[: a.dof]) for a, row in zip(self.articulations, rows, strict=True)]

    def gpu_fetch_rigid_dynamic_data(self) -> None:
        self._fetch(physx.PhysxRigidDynamicComponent)

    def gpu_fetch_articulation_link_pose(self) -> None:
        self._fetch(physx.PhysxArticulationLinkComponent)

    def gpu_fetch_articulation_link_velocity(self) -> None:
        self._fetch(physx.PhysxArticulationLinkComponent)

    def _fetch(self, kind: type) -> None:
        for body, row in zip(self.bodies, self.cuda_rigid_body_data.torch(), strict=True):
            if isinstance(body, kind):
                pose = body.entity_pose
                row[:] = torch.tensor([*pose.p, *pose.q, *body.linear_velocity, *body.angular_velocity])

    def gpu_fetch_articulation_qpos(self) -> None:
        for articulation, row in self.rows("qpos"):
            row[:] = torch.from_numpy(articulation.qpos)

    def gpu_fetch_articulation_qvel(self) -> None:
        for articulation, row in self.rows("qvel"):
            row[:] = torch.from_numpy(articulation.qvel)

    def gpu_apply_rigid_dynamic_data(self) -> None:
        for body, row in zip(self.bodies, self.cuda_rigid_body_data.torch().numpy(), strict=True):
            if isinstance(body, physx.PhysxRigidDynamicComponent):
                body.entity.set_pose(sapien.Pose(row[:3], row[3:7]))
                body.linear_velocity, body.angular_velocity = row[7:10], row[10:13]

    def gpu_apply_articulation_root_pose(self) -> None:
        for body, row in zip(self.bodies, self.cuda_rigid_body_data.torch().numpy(), strict=True):
            if isinstance(body, physx.PhysxArticulationLinkComponent) and body.is_root:
                body.articulation.set_root_pose(sapien.Pose(row[:3], row[3:7]))

    def gpu_apply_articulation_root_velocity(self) -> None:
        """All roots are fixed."""

    def gpu_update_articulation_kinematics(self) -> None:
        """CPU articulations do it by themselves."""

    def gpu_apply_articulation_qpos(self) -> None:
        for articulation, row in self.rows("qpos"):
            articulation.set_qpos(row.numpy())

    def gpu_apply_articulation_qvel(self) -> None:
        for articulation, row in self.rows("qvel"):
            articulation.set_qvel(row.numpy())

    def gpu_apply_articulation_qf(self) -> None:
        for articulation, row in self.rows("qf"):
            articulation.set_qf(row.numpy())

    def gpu_apply_articulation_target_position(self) -> None:
        for articulation, row in self.rows("target_qpos"):
            for joint, target in zip(articulation.active_joints, row.tolist(), strict=True):
                joint.set_drive_target(target)

    def gpu_apply_articulation_target_velocity(self) -> None:
        for articulation, row in self.rows("target_qvel"):
            for joint, target in zip(articulation.active_joints, row.tolist(), strict=True):
                joint.set_drive_velocity_target(target)

    def gpu_create_contact_pair_impulse_query(self, pairs: list[tuple[Any, Any]]) -> SimpleNamespace:
        assert len({frozenset(pair) for pair in pairs}) == len(pairs), "a binary search finds one of equal pairs"
        return SimpleNamespace(pairs=pairs, cuda_impulses=Array(len(pairs), 3))

    def gpu_query_contact_pair_impulses(self, query: SimpleNamespace) -> None:
        sums: dict[Any, np.ndarray] = {}
        for contact in [c for scene in self.scenes for c in scene.physx_system.get_contacts()]:
            total = np.sum([point.impulse for point in contact.points], axis=0)
            first, second = contact.bodies
            sums[first, second] = sums.get((first, second), 0) + total
            sums[second, first] = sums.get((second, first), 0) - total
        for row, pair in zip(query.cuda_impulses.torch(), query.pairs, strict=True):
            row[:] = torch.from_numpy(np.asarray(sums.get(pair, np.zeros(3)), np.float32))


class Array:
    """A ``CudaArray``: memory of the simulator that a tensor looks into."""

    def __init__(self, *shape: int) -> None:
        self._tensor = torch.zeros(shape)

    def torch(self) -> torch.Tensor:
        return self._tensor


@pytest.fixture
def batches(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Batches:
    GpuStandIn.made.clear()
    monkeypatch.setattr(cuda, "enable", lambda: None)
    monkeypatch.setattr(cuda.physx, "PhysxGpuSystem", GpuStandIn)
    cpu, scene = sapien.Device("cpu"), sapien.Scene
    monkeypatch.setattr(cuda.sapien, "Device", lambda name: cpu)
    monkeypatch.setattr(
        cuda.sapien, "Scene", lambda systems: systems[0].scene() if systems[0] in GpuStandIn.made else scene(systems)
    )
    # CPU bodies have no rows on a GPU.
    monkeypatch.setattr(CudaSystem, "body_row", lambda self, body: self._px.bodies.index(body))
    monkeypatch.setattr(CudaSystem, "articulation_row", lambda self, a: self._px.articulations.index(a))
    return Batches(AssetPack(shared / "assets" / "simplerenv"), CudaSystem)


def begin(name: str, layout: int) -> Start:
    task = get_task(name)
    placed, setup = task.layout(f"grid:{layout}"), get_setup(task.robot_setup)
    return Start(
        SceneKey(name, "default", placed.cast),
        np.array(setup.qpos),
        np.array(placed.object_pose, np.float64).reshape(-1, 7),
        dict(placed.joints),
        tuple(placed.base_pose or setup.base_pose),
    )


def close_fingers(name: str, step: int) -> Targets:
    """The arm swings a little while the fingers close; two targets in a control step."""
    setup = get_setup(get_task(name).robot_setup)
    qpos = np.array(setup.qpos, np.float32)
    swing = np.where([j.name in setup.robot.gripper_joints for j in setup.robot.moving_joints], 0, 0.02 * (step + 1))
    return Targets(np.array([qpos + swing / 2, qpos + swing], np.float32), None)


def alone(start: Start, steps: int, pack: AssetPack) -> Reading:
    simulation = Simulation(start, pack)
    for step in range(steps):
        simulation.step(close_fingers(start.key.task, step))
    return simulation.read()


def assert_close(ours: Reading, expected: Reading, tolerance: float = 1e-4) -> None:
    """Equal but for what gravity's compensation leaves: centrifugal forces on the arm."""
    assert np.abs(ours.qpos - expected.qpos).max() < tolerance
    assert np.abs(ours.qvel - expected.qvel).max() < 20 * tolerance
    assert np.abs(ours.object_pose - expected.object_pose).max(initial=0) < tolerance
    assert np.abs(ours.impulse - expected.impulse).max(initial=0) < tolerance
    assert ours.joints == pytest.approx(expected.joints, abs=tolerance)


def test_lanes_move_as_they_do_one_by_one(batches: Batches, shared: Path) -> None:
    starts = [begin(CUBE, 3), begin(SINK, 1), begin(CAN, 2), begin(DRAWER, 0), begin(CUBE, 9)]
    batches.run([(lane, start, ()) for lane, start in enumerate(starts)])
    for step in range(3):
        readings = batches.step([(lane, close_fingers(s.key.task, step)) for lane, s in enumerate(starts)])
    for reading, start in zip(readings, starts, strict=True):
        assert_close(reading, alone(start, 3, AssetPack(shared / "assets" / "simplerenv")))
    # One system per robot, sub-scenes apart from each other.
    assert [len(system.scenes) for system in GpuStandIn.made] == [3, 2]
    assert [round(1 / system.timestep) for system in GpuStandIn.made] == [500, 513]
    assert len(set(GpuStandIn.made[0].offsets)) == 3


def test_lanes_that_do_not_move_stay_where_they_are(batches: Batches, shared: Path) -> None:
    """Environment 1 stands still for two steps in mid-motion, then goes on as if nothing had been."""
    start = begin(CAN, 4)
    batches.run([(0, begin(CAN, 2), ()), (1, start, [close_fingers(CAN, 0)])])
    for step in range(2):
        batches.step([(0, close_fingers(CAN, step))])
    for step in range(1, 3):
        reading = batches.step([(1, close_fingers(CAN, step))])[0]
    assert_close(reading, alone(start, 3, AssetPack(shared / "assets" / "simplerenv")), 2e-3)


def test_a_system_is_built_anew_only_for_what_it_lacks(batches: Batches, shared: Path) -> None:
    batches.run([(0, begin(CUBE, 0), ()), (1, begin(CUBE, 1), ())])
    batches.step([(0, close_fingers(CUBE, 0)), (1, close_fingers(CUBE, 0))])
    batches.run([(1, begin(CUBE, 5), ())])
    assert len(GpuStandIn.made) == 1
    batches.run([(1, begin(SINK, 2), ())])
    assert [len(system.scenes) for system in GpuStandIn.made] == [2, 3]
    # A spare sub-scene for cubes is left over from environment 1's last episode: it is borrowed instead of building
    # again.
    batches.run([(1, begin(CUBE, 7), [close_fingers(CUBE, 0)])])
    batches.run([(2, begin(SINK, 4), ())])
    assert len(GpuStandIn.made) == 2
    pack = AssetPack(shared / "assets" / "simplerenv")
    # Environment 0 was carried over and stood still all the while.
    for lane, layout in ((0, 0), (1, 7)):
        for step in (1, 2):
            reading = batches.step([(lane, close_fingers(CUBE, step))])[0]
        assert_close(reading, alone(begin(CUBE, layout), 3, pack), 2e-3)


def test_a_system_is_gone_before_the_next_is_made(batches: Batches) -> None:
    """Its memory is needed."""
    batches.run([(0, begin(CUBE, 0), ())])
    batch = batches._of_lane[0]
    parts = [weakref.ref(part) for part in (batch._system, *batch._slots, batch._slots[0]._contacts)]
    alive: list[Any] = []
    make = batch._make_system

    def watch(substep: float) -> Any:
        alive.extend(part() for part in parts if part() is not None)
        return make(substep)

    batch._make_system = watch
    batches.run([(0, begin(SINK, 0), ())])
    assert len(GpuStandIn.made) == 2
    assert alive == []


def test_histories_are_repeated(batches: Batches, shared: Path) -> None:
    starts = {0: (begin(CUBE, 3), 3), 1: (begin(SINK, 1), 0), 2: (begin(CAN, 2), 1)}
    readings = batches.run(
        [(lane, s, [close_fingers(s.key.task, k) for k in range(n)]) for lane, (s, n) in starts.items()]
    )
    for reading, (start, steps) in zip(readings, starts.values(), strict=True):
        assert_close(reading, alone(start, steps, AssetPack(shared / "assets" / "simplerenv")), 2e-3)


def test_pressing_fingers_report_the_originals_speed(batches: Batches, golden: Path, shared: Path) -> None:
    """From a recorded moment in which the can is held: both fingers press, and report the same speed as on CPUs."""
    place = golden / "replay_task" / "google_robot_pick_coke_can.standing"
    meta, arrays = json.loads((place / "index.json").read_text())["000_ok"], np.load(place / "000_ok.npz")
    targets, state = np.zeros(11, np.float32), {name: arrays[name][30].astype(float) for name in RECORDED}
    for kind in ("arm", "gripper"):
        joints = [meta["joint_names"].index(joint) for joint in meta[f"{kind}_controller_joints"]]
        targets[joints] = state[f"{kind}_drive_target"]
    start = begin(CAN, 0)._replace(qpos=state["qpos"], object_pose=state["obj_pose"])
    batches.run([(0, start, ())])
    reading = batches.step([(0, Targets(targets[None], None))])[0]
    simulation = Simulation(start, AssetPack(shared / "assets" / "simplerenv"))
    simulation.step(Targets(targets[None], None))
    expected = simulation.read()
    # An impulse of a few tenths of a newton second on each finger moves none, yet speed is reported.
    assert np.sort(np.linalg.norm(expected.impulse, axis=-1))[-2] > 0.1
    assert np.abs(expected.qvel[joints]).min() > 0.1
    assert_close(reading, expected, 2e-3)


class InProcess:
    """A worker without a process of its own."""

    def __init__(self) -> None:
        self._answer, self._answers = worker._Worker().answer, []

    def send(self, message: tuple[Any, ...]) -> None:
        self._answers.append(self._answer(*message))

    def receive(self) -> Any:
        return self._answers.pop(0)

    def close(self) -> None:
        """Nothing to end."""


@pytest.mark.parametrize("task", [CUBE, CAN])
def test_recorded_episodes_end_as_they_did(
    batches: Batches, golden: Path, shared: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """Through the engine, its messages and the GPU's environments."""
    monkeypatch.setattr(engine, "start_worker", InProcess)
    options = {"assets": str(shared / "assets" / "simplerenv"), "sim_backend": "gpu"}
    row = task_figures(Recordings(golden), task, Simulator("maniskill", options=options))
    assert GpuStandIn.made
    assert row["recalled"] == row["successes"] >= 4
    assert row["false_successes"] == 0 < row["failures"]


def test_parts_of_bodies_are_refused(batches: Batches) -> None:
    batches.run([(0, begin(CAN, 0), ())])
    with pytest.raises(InvalidConfigError, match=r"which part of a drawer.*sim_backend=cpu"):
        batches.run([(0, begin("google_robot_place_apple_in_closed_top_drawer", 0), ())])
    batches.step([(0, close_fingers(CAN, 0))])


def test_without_a_gpu_the_remedy_is_told(shared: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    task, options = get_task(CUBE), {"assets": str(shared / "assets" / "simplerenv"), "sim_backend": "gpu"}
    lanes: Any = make_engine("maniskill", 2, options=options)
    with pytest.raises(InvalidConfigError, match=r"needs an NVIDIA GPU.*sim_backend=cpu"):
        lanes.place([0], [Placement(task, "default", task.layout("grid:0"), np.array(get_setup("widowx").qpos))])
    lanes.close()
    with pytest.raises(UnknownNameError, match=r"engine\.sim_backend 'cuda': expected one of 2 names"):
        make_engine("maniskill", 2, options=options | {"sim_backend": "cuda"})


def test_a_failed_download_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(cuda, "to_tensor", lambda array, device: array)
    monkeypatch.setattr(physx, "enable_gpu", fail)
    with pytest.raises(InvalidConfigError, match=r"downloads on first use \(no route\).*\.sapien/physx"):
        cuda.enable()
