"""The engine: environments independent of each other and of their past, schedules, snapshots, failures."""

from __future__ import annotations

import numpy as np
import pytest

from vlaser_gym.envs.engines import Placement, make_engine
from vlaser_gym.envs.engines.mujoco.engine import MujocoEngine
from vlaser_gym.envs.robots import DriveTargets, get_setup
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.errors import SimulationError, UnknownNameError

CARROT, CUBE = "widowx_carrot_on_plate", "widowx_stack_cube"
EGGPLANT = "widowx_put_eggplant_in_basket"


def placement(task_name: str, layout: int) -> Placement:
    task = get_task(task_name)
    return Placement(task, "default", task.layout(f"grid:{layout}"), np.array(get_setup(task.robot_setup).qpos))


def targets(lanes: int, offset: float, schedule: int = 1) -> DriveTargets:
    qpos = np.array(get_setup("widowx").qpos)
    return DriveTargets(np.tile(qpos + np.array([offset] * 6 + [-0.01] * 2), (lanes, schedule, 1)))


def run(engine: MujocoEngine, lane: int, steps: int = 4) -> np.ndarray:
    for k in range(steps):
        engine.step(np.array([lane]), targets(1, 0.05 * k))
    reading = engine.read(np.array([lane]))[0]
    return np.concatenate([reading.qpos, reading.object_pose.ravel(), reading.impulse.ravel()])


def test_a_lane_depends_on_its_placement_only() -> None:
    alone, many = MujocoEngine(1), MujocoEngine(3)
    alone.place([0], [placement(CARROT, 7)])
    expected = run(alone, 0)
    many.place([0, 1, 2], [placement(EGGPLANT, 2), placement(CARROT, 3), placement(CARROT, 9)])
    many.step(np.arange(3), targets(3, 0.2))
    many.place([1], [placement(CARROT, 7)])
    assert np.array_equal(run(many, 1), expected)


def test_a_schedule_of_equal_targets_is_one_target() -> None:
    engine = MujocoEngine(2)
    engine.place([0, 1], [placement(CARROT, 0)] * 2)
    engine.step(np.array([0]), targets(1, 0.1))
    engine.step(np.array([1]), targets(1, 0.1, schedule=25))
    a, b = engine.read(np.arange(2))
    assert np.array_equal(a.qpos, b.qpos)


def test_objects_at_rest_stay_where_they_are_and_are_still_felt() -> None:
    engine = MujocoEngine(1)
    engine.place([0], [placement(CARROT, 0)])
    lane, pool = np.array([0]), next(iter(engine._pools.values()))
    for _ in range(3):
        engine.step(lane, targets(1, 0.0))
    rested = engine.read(lane)[0]
    for _ in range(10):
        engine.step(lane, targets(1, 0.0))
    assert (pool.batch.bind("tree_asleep")[0] >= 0).any(), "it sleeps"
    reading, carrot = engine.read(lane)[0], pool.scene.model.body("object:bridge_carrot_generated_modified")
    np.testing.assert_allclose(reading.object_pose, rested.object_pose, rtol=0, atol=1e-8)
    weight = float(carrot.mass[0]) * 9.81 * pool.scene.model.opt.timestep
    (by_table,) = (i for i, query in enumerate(get_task(CARROT).contacts_of("")) if query.by == "scene")
    np.testing.assert_allclose(reading.impulse[by_table], [0, 0, weight], atol=1e-6 * weight)


def test_a_snapshot_of_what_falls_and_comes_to_rest_goes_on_bit_for_bit() -> None:
    engine = MujocoEngine(1)
    engine.place([0], [placement(CUBE, 3)])
    lane = np.array([0])
    pool = next(iter(engine._pools.values()))
    height = pool.scene.object_qpos[0] + 2
    pool.batch.qpos[0, height] += 0.01
    heights = [pool.batch.qpos[0, height]]
    for step in range(6):
        other = MujocoEngine(1)
        other.set_state(engine.get_state())
        for one in (engine, other):
            one.step(lane, targets(1, 0.02 * step))
        ours, theirs = engine.get_state()["rows"][0], other.get_state()["rows"][0]
        assert np.array_equal(ours, theirs), step
        heights.append(engine.read(lane)[0].object_pose[0, 2])
    assert heights[0] - heights[-1] > 0.009
    assert heights[-2] == pytest.approx(heights[-1], abs=1e-9)


def test_snapshot_puts_another_engine_in_the_same_place() -> None:
    engine, other = MujocoEngine(2), MujocoEngine(2)
    engine.place([0, 1], [placement(CARROT, 0), placement(EGGPLANT, 1)])
    engine.step(np.arange(2), targets(2, 0.1))
    other.set_state(engine.get_state())
    for lane in (0, 1):
        assert np.array_equal(run(engine, lane), run(other, lane))


def test_a_diverging_simulation_is_reported() -> None:
    engine = MujocoEngine(1)
    engine.place([0], [placement(CARROT, 0)])
    pool = next(iter(engine._pools.values()))
    pool.batch.qvel[0, 8] = np.nan
    with pytest.raises(SimulationError, match="environments \\[0\\]"):
        engine.step(np.array([0]), targets(1, 0.0))


def test_stepping_a_lane_that_was_never_placed_is_refused() -> None:
    with pytest.raises(SimulationError, match="reset it"):
        MujocoEngine(1).step(np.array([0]), targets(1, 0.0))


def test_unknown_engine_and_look_name_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="mujoco"):
        make_engine("mujocco", 1, "builtin")
    with pytest.raises(UnknownNameError, match="builtin"):
        make_engine("mujoco", 1, "build-in")
