"""Episodes with a perturbation: what the agent gets, what is executed, what is recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from vlaser_gym.envs.engines.base import Physics
from vlaser_gym.envs.perturbations import get_perturbation
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.wrappers.perturbed import Perturbed

CUBE, CAN = "widowx_stack_cube", "google_robot_pick_coke_can"


def perturbed(text: str, num_envs: int = 1, task: Any = CUBE, observe: Any = ("proprio", "instruction")) -> Perturbed:
    perturbation = get_perturbation(text)
    env = SceneVectorEnv(
        task,
        num_envs,
        observe=observe,
        autoreset_mode=AutoresetMode.DISABLED,
        record_states=True,
        perturbation=perturbation,
    )
    return Perturbed(env, perturbation)


def chunks(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.01, 0.01, (*shape, 7))


def test_the_environment_must_know_the_perturbation() -> None:
    env = SceneVectorEnv(CUBE, observe=("proprio",))
    with pytest.raises(InvalidConfigError, match="the same perturbation"):
        Perturbed(env, get_perturbation("delay"))
    env.close()


@pytest.mark.parametrize(("task", "opens"), [(CUBE, 1.0), (CAN, -1.0)])
def test_delayed_actions_are_those_of_before_across_chunks(task: str, opens: float) -> None:
    env = perturbed("delay:mild", task=task)
    env.reset(options={"layout": [0]})
    decided = [chunks(k, 1, size) for k, size in enumerate((3, 1, 2))]
    executed = [np.asarray(env.step_chunk(chunk)[4]["states"][0]["action"]) for chunk in decided]
    flat = np.concatenate([chunk[0] for chunk in decided])
    np.testing.assert_array_equal(np.concatenate(executed), [[0, 0, 0, 0, 0, 0, opens], *flat[:-1]])
    # A new episode has no past.
    env.reset(options={"layout": [1]})
    *_, info = env.step_chunk(chunks(9, 1, 1))
    np.testing.assert_array_equal(info["states"][0]["action"], [[0, 0, 0, 0, 0, 0, opens]])
    env.close()


@pytest.mark.parametrize("text", ["action_noise:hard", "proprio_noise", "typos", "start_pose", "object_moved"])
def test_a_lane_does_not_depend_on_the_others(text: str) -> None:
    many, one = perturbed(text, 3), perturbed(text)
    seen_many, _ = many.reset(options={"layout": [5, 2, 7]})
    seen_one, _ = one.reset(options={"layout": [2]})
    for k in range(5):
        chunk = chunks(k, 3, 3)
        for name in seen_one:
            assert np.asarray(seen_many[name][1] == seen_one[name][0]).all()
        seen_many, *_, told_many = many.step_chunk(chunk)
        if k == 2:  # another environment begins anew: this one is observed twice, with the same noise
            mask = np.array([True, False, False])
            seen_many, _ = many.reset(options={"reset_mask": mask, "layout": [9, 2, 7]})
        seen_one, *_, told_one = one.step_chunk(chunk[1:2])
        for name, values in told_one["states"][0].items():
            np.testing.assert_array_equal(told_many["states"][1][name], values)
    many.close()
    one.close()


def test_what_is_told_is_what_is_recorded() -> None:
    env = perturbed("paraphrase:hard")
    seen, info = env.reset(options={"layout": [3]})
    assert seen["instruction"][0] != env.env.lanes[0].instruction
    assert info["initial_states"][0]["instruction"] == seen["instruction"][0]
    seen, *_, info = env.step_chunk(chunks(0, 1, 4))
    assert set(info["states"][0]["instruction"].tolist()) == set(seen["instruction"])
    env.close()


def test_noise_is_on_what_the_agent_reads_and_not_on_the_state() -> None:
    env = perturbed("proprio_noise:hard", observe=("proprio", "state"))
    seen, _ = env.reset(options={"layout": [0]})
    true = env.env._proprio(env.env.lanes)
    assert np.abs(seen["proprio"] - true).max() > 1e-3
    np.testing.assert_array_equal(seen["state"][:, :8], true)
    assert seen["proprio"].dtype == np.float32
    env.close()


def test_the_object_is_displaced_once_and_away_from_its_neighbour() -> None:
    rest = np.array([0, 0, 0, 0, 0, 0, 1.0])
    for layout in range(4):
        env = perturbed("object_moved:medium")
        env.reset(options={"layout": [layout]})
        poses = []
        for _ in range(7):  # chunks of 2 control steps; the displacement comes before the first from step 3 on
            *_, info = env.step_chunk(np.broadcast_to(rest, (1, 2, 7)))
            poses.append(info["states"][0]["object/baked_green_cube_3cm"][:, :2])
        path = np.concatenate(poses)
        moved = np.linalg.norm(np.diff(path, axis=0), axis=1)
        assert np.argmax(moved) == 3  # between the states after steps 4 and 5
        assert moved[3] == pytest.approx(0.03, abs=0.002)
        assert np.delete(moved, 3).max() < 0.002
        other = info["states"][0]["object/baked_yellow_cube_3cm"][-1, :2]
        assert np.linalg.norm(path[-1] - other) >= np.linalg.norm(path[0] - other) - 1e-3
        env.close()


def test_an_object_between_the_fingers_is_left_alone_until_they_are_gone() -> None:
    env = perturbed("object_moved:mild")
    env.reset(options={"layout": [0]})
    lane = env.env.lanes[0]
    lane.elapsed = 20
    place = lane.source_pose[:3]
    for distance, moves in ((0.03, False), (0.2, True)):
        env.env.tcp_position = lambda index, at=place + [0, 0, distance]: at
        before = env.env.engine.read(np.array([0]))[0].object_pose[:, :2].copy()
        env.on_action(np.zeros((1, 1, 7)))
        moved = np.linalg.norm(env.env.engine.read(np.array([0]))[0].object_pose[:, :2] - before, axis=1)
        assert moved[lane.task.source] == pytest.approx(0.015 if moves else 0, abs=1e-6)
        assert np.delete(moved, lane.task.source).max() == 0
    env.close()


def test_the_tool_is_where_the_kinematics_say() -> None:
    env = perturbed("delay")
    env.reset(options={"layout": [0]})
    local = env.env._proprio(env.env.lanes)[0, :3].astype(float)
    # The WidowX stands at (0.147, 0.028, 0.870), turned by half a turn.
    np.testing.assert_allclose(
        env.env.tcp_position(0), [0.147 - local[0], 0.028 - local[1], 0.87 + local[2]], atol=1e-6
    )
    env.close()


@pytest.mark.parametrize(("text", "physics"), [("friction:hard", Physics(0.25, 1.0)), ("mass:mild", Physics(1.0, 2.0))])
def test_physics_reaches_the_engine(text: str, physics: Physics) -> None:
    env = perturbed(text)
    env.reset(options={"layout": [0]})
    assert [key.physics for key in env.env.engine._keys] == [physics]
    env.close()


def test_a_lifted_object_is_left_alone() -> None:
    env = perturbed("object_moved:hard")
    env.reset(options={"layout": [0]})
    lane = env.env.lanes[0]
    lane.elapsed = 20
    lane.reading.object_pose[lane.task.source, 2] += 0.05
    before = env.env.engine.read(np.array([0]))[0].object_pose.copy()
    env.on_action(np.zeros((1, 1, 7)))
    np.testing.assert_array_equal(env.env.engine.read(np.array([0]))[0].object_pose, before)
    env.close()


@pytest.mark.parametrize("text", ["delay:hard", "friction", "start_pose:hard"])
def test_a_snapshot_continues_bit_by_bit(text: str) -> None:
    env = perturbed(text)
    env.reset(options={"layout": [2]})
    env.step_chunk(chunks(0, 1, 5))
    snapshot = env.get_state()
    first = env.step_chunk(chunks(1, 1, 4))
    env.step_chunk(chunks(2, 1, 4))
    env.set_state(snapshot)
    again = env.step_chunk(chunks(1, 1, 4))
    for name, values in first[4]["states"][0].items():
        np.testing.assert_array_equal(again[4]["states"][0][name], values)
    env.close()


def test_pictures_go_through_the_perturbation() -> None:
    env = perturbed("blank_image", observe=("image", "wrist_image"))
    seen, _ = env.reset(options={"layout": [0]})
    assert {np.ptp(seen[name]) for name in ("image", "wrist_image")} == {0}
    env.close()
