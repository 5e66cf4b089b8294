from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode

from vlaser_gym.envs import vector
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import get_task, resolve
from vlaser_gym.envs.vector import STATE_FIELDS, SceneVectorEnv
from vlaser_gym.errors import (
    ClosedError,
    GymError,
    InvalidActionError,
    InvalidConfigError,
    RenderingUnavailableError,
    UnknownNameError,
)

CUBE, SPOON, CARROT = "widowx_stack_cube", "widowx_spoon_on_towel", "widowx_carrot_on_plate"
EGGPLANT = "widowx_put_eggplant_in_basket"
DISABLED = AutoresetMode.DISABLED
REST = np.array([0, 0, 0, 0, 0, 0, 1.0])


def make(num_envs: int = 1, task: Any = CUBE, **options: Any) -> SceneVectorEnv:
    return SceneVectorEnv(task, num_envs, **{"observe": ("proprio", "instruction", "state"), **options})


def actions(seed: int, *shape: int) -> np.ndarray:
    bounds = np.array([0.02, 0.02, 0.02, 0.05, 0.05, 0.05, 1])
    return np.random.default_rng(seed).uniform(-bounds, bounds, (*shape, 7))


def rest(num_envs: int, horizon: int) -> np.ndarray:
    return np.broadcast_to(REST, (num_envs, horizon, 7))


def assert_equal(a: Any, b: Any, path: str = "") -> None:
    """Bit-equal trees."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_equal(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, list | tuple) or (isinstance(a, np.ndarray) and a.dtype == object):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{path}/{i}")
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype, path
        assert np.array_equal(a, b), path
    else:
        assert a == b, path


@pytest.fixture(scope="module")
def filmed() -> Iterator[SceneVectorEnv]:
    """One environment with images for all tests that look at them: render processes take seconds to start."""
    env = make(3, [CUBE, SPOON], observe=("image", "proprio", "instruction"), engine_options={"render_processes": 2})
    yield env
    env.close()


@pytest.fixture
def calls(filmed: SceneVectorEnv, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Environments of every call of the engine for images."""
    made: list[list[int]] = []
    images = filmed.engine.images

    def counted(lanes: Any, *camera: str) -> Any:
        made.append(np.asarray(lanes).tolist())
        return images(lanes, *camera)

    monkeypatch.setattr(filmed.engine, "images", counted)
    return made


# ---------------------------------------------------------------------- addresses and resets


def test_the_address_fixes_the_initial_state_and_the_trial_does_not_change_it() -> None:
    env = make(4)
    observation, _ = env.reset(seed=1, options={"layout": [3, "grid:3", "region:5", "region:5"], "trial": [0, 7, 0, 1]})
    state = observation["state"]
    assert np.array_equal(state[0], state[1])
    assert np.array_equal(state[2], state[3])
    assert not np.array_equal(state[0], state[2])
    assert [str(a) for a in env.addresses] == [
        f"{CUBE}/default/{end}" for end in ("grid:3/0", "grid:3/7", "region:5/0", "region:5/1")
    ]
    env.close()


@pytest.mark.parametrize("task", resolve("widowx"))
def test_objects_start_at_the_layout_s_poses(task: str) -> None:
    env = make(2, task, record_states=True)
    _, info = env.reset(options={"layout": ["grid:2", "region:9"]})
    for initial, layout in zip(info["initial_states"], ("grid:2", "region:9"), strict=True):
        poses = get_task(task).layout(layout).object_pose
        for obj, pose in zip(get_task(task).objects, poses, strict=True):
            assert np.allclose(initial[f"object/{obj.name}"], pose, atol=1e-12)
        assert np.array_equal(initial["qpos"], get_setup(get_task(task).robot_setup).qpos)
    env.close()


def test_drawn_layouts_follow_from_the_seed_and_differ_between_lanes() -> None:
    env = make(6)
    env.reset(seed=4)
    first = [a.layout for a in env.addresses]
    env.reset()
    second = [a.layout for a in env.addresses]
    env.reset(seed=4)
    assert [a.layout for a in env.addresses] == first
    assert first != second
    assert len(set(first)) > 1
    assert all(a.layout_kind == "grid" and 0 <= a.layout_index < 24 for a in env.addresses)
    env.reset(seed=[4, 4, 4, 4, 4, 4])
    assert len({a.layout for a in env.addresses}) == 1
    env.close()


def test_region_layouts_for_learning_are_apart_from_those_for_evaluation() -> None:
    env = make(8, layouts="region")
    env.reset(seed=0)
    assert all(a.layout_kind == "region" and a.layout_index >= vector.FIRST_TRAINING_REGION for a in env.addresses)
    env.close()


def test_reset_mask_leaves_the_other_lanes_alone() -> None:
    env, undisturbed = make(3), make(3)
    options = {"layout": [1, 2, 3]}
    env.reset(options=options)
    undisturbed.reset(options=options)
    chunk = actions(0, 3, 4)
    env.step_chunk(chunk)
    undisturbed.step_chunk(chunk)
    _, info = env.reset(options={"reset_mask": np.array([False, True, False]), "layout": [0, 9, 0]})
    assert [a.layout for a in env.addresses] == ["grid:1", "grid:9", "grid:3"]
    assert info["elapsed_steps"].tolist() == [4, 0, 4]
    chunk = actions(1, 3, 4)
    ours, theirs = env.step_chunk(chunk)[0], undisturbed.step_chunk(chunk)[0]
    for name in ("proprio", "state"):
        assert np.array_equal(ours[name][[0, 2]], theirs[name][[0, 2]])
        assert not np.array_equal(ours[name][1], theirs[name][1])
    env.close()
    undisturbed.close()


def test_lanes_take_tasks_in_turn_and_any_of_them_at_a_reset() -> None:
    env = make(5, [CUBE, CARROT])
    observation, _ = env.reset(seed=0)
    assert [a.task for a in env.addresses] == [CUBE, CARROT, CUBE, CARROT, CUBE]
    assert observation["instruction"][:2] == ("stack the green block on the yellow block", "put carrot on plate")
    observation, _ = env.reset(options={"task": CARROT})
    assert observation["instruction"] == ("put carrot on plate",) * 5
    observation, _ = env.reset(options={"task": [CUBE, CARROT, CARROT, CARROT, CUBE], "reset_mask": [True] * 5})
    assert [a.task for a in env.addresses] == [CUBE, CARROT, CARROT, CARROT, CUBE]
    env.close()


# ---------------------------------------------------------------------- observations and info


def test_proprio_is_the_tcp_in_the_base_frame() -> None:
    """The start pose's TCP: spec of SimplerEnv, ee_gripper_link at the start joint positions of the table setup."""
    env = make()
    observation, _ = env.reset(options={"layout": 0})
    proprio = observation["proprio"][0]
    assert proprio[3] >= 0
    assert np.linalg.norm(proprio[3:7]) == pytest.approx(1.0, abs=1e-6)
    assert proprio[7] == pytest.approx(1.0, abs=1e-6)
    assert np.array_equal(observation["state"][0, STATE_FIELDS["tcp"]], proprio[:7])
    assert env.observation_space.contains(observation)
    # The waist turns the arm about z: turning it shows in the TCP's azimuth, not in its height and reach.
    rotated = np.array(get_setup("widowx").qpos)[None].repeat(2, 0)
    rotated[1, 0] += 0.3
    poses = env._tree.link_poses(rotated, ["ee_gripper_link"])["ee_gripper_link"][1]
    assert np.allclose(poses[0], proprio[:3], atol=1e-6)
    assert np.arctan2(poses[1, 1], poses[1, 0]) - np.arctan2(poses[0, 1], poses[0, 0]) == pytest.approx(0.3)
    env.close()


def test_state_holds_object_poses_in_the_base_frame() -> None:
    env = make()
    observation, _ = env.reset(options={"layout": 6})
    source = observation["state"][0, STATE_FIELDS["source"]]
    base = get_setup("widowx").base_pose  # turned by 180 degrees about z
    world = get_task(CUBE).layout("grid:6").object_pose[0]
    assert np.allclose(source[:3], [base[0] - world[0], base[1] - world[1], world[2] - base[2]], atol=1e-6)
    env.close()


@pytest.mark.parametrize("observe", [(), ("proprio",), ("state", "instruction")])
def test_only_what_is_observed_is_computed(observe: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("nobody asked for this")

    monkeypatch.setattr("vlaser_gym.envs.engines.mujoco.engine.RenderPool", refuse)
    for name, maker in (("state", "_state"), ("image", "_images")):
        if name not in observe:
            monkeypatch.setattr(SceneVectorEnv, maker, refuse)
    env = make(2, observe=observe)
    observation, _ = env.reset(seed=0)
    assert tuple(observation) == observe
    assert tuple(env.step(rest(2, 1)[:, 0])[0]) == observe
    assert env.observation_space.contains(observation)
    env.close()


def test_info_has_every_flag_with_its_mask(script: Callable[..., None]) -> None:
    script({"success": (2,), "ever_grasped": (1, 2)})
    env = make(2)
    env.reset(seed=0)
    *_, info = env.step_chunk(rest(2, 3))
    for name in get_task(CUBE).flags:
        assert info[name].shape == (2,)
        assert info[f"_{name}"].all()
    assert info["success"].tolist() == [False, False]  # at the last step
    assert info["success_any"].tolist() == [True, True]
    assert info["elapsed_steps"].tolist() == info["steps"].tolist() == [3, 3]
    assert info["chunk"]["flags"]["success"].tolist() == [[False, True, False]] * 2
    assert info["chunk"]["reward"].tolist() == [[0.0, 1.0, 0.0]] * 2
    assert info["chunk"]["ran"].all()
    env.close()


# ---------------------------------------------------------------------- endings and autoreset


def test_the_benchmark_runs_to_the_limit_in_spite_of_successes(script: Callable[..., None]) -> None:
    script({"success": (5, 60)})
    env = make(1, autoreset_mode=DISABLED)
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step_chunk(rest(1, 59))
    assert (terminated.tolist(), truncated.tolist(), info["success"].tolist()) == ([False], [False], [False])
    _, reward, terminated, truncated, info = env.step_chunk(rest(1, 5))
    assert (terminated.tolist(), truncated.tolist(), info["success"].tolist()) == ([False], [True], [True])
    assert info["steps"].tolist() == [1]
    assert reward.tolist() == [1.0]
    env.close()


@pytest.mark.parametrize("task", resolve("widowx"))
def test_step_limit_of_every_task(task: str) -> None:
    env = make(1, task, autoreset_mode=DISABLED, observe=())
    env.reset(options={"layout": 0})
    *_, info = env.step_chunk(rest(1, 130))
    assert info["steps"].tolist() == [120 if task == EGGPLANT else 60]
    env.close()


def test_a_lane_stops_inside_the_chunk_at_its_first_success(script: Callable[..., None]) -> None:
    script({"success": (6,)})
    env = make(2, terminate_on_success=True, autoreset_mode=DISABLED)
    env.reset(options={"layout": 0})
    env.step_chunk(rest(2, 4))
    env.reset(options={"layout": 0, "reset_mask": [False, True]})
    *_, terminated, truncated, info = env.step_chunk(rest(2, 4))
    assert terminated.tolist() == [True, False]
    assert truncated.tolist() == [False, False]
    assert info["steps"].tolist() == [2, 4]
    assert info["chunk"]["ran"].tolist() == [[True, True, False, False], [True] * 4]
    assert info["elapsed_steps"].tolist() == [6, 4]
    env.close()


def test_disabled_lanes_stand_still_after_their_end(script: Callable[..., None]) -> None:
    script({"success": (3,)})
    env = make(1, terminate_on_success=True, autoreset_mode=DISABLED)
    env.reset(options={"layout": 0})
    last, _, terminated, *_ = env.step_chunk(actions(0, 1, 5))
    assert terminated.all()
    assert env.ended.all()
    poison = np.full((1, 2, 7), np.nan)  # nobody looks at the actions of environments that ended
    observation, reward, terminated, truncated, info = env.step_chunk(poison)
    assert_equal(observation, last)
    assert (reward.tolist(), terminated.tolist(), truncated.tolist()) == ([0.0], [False], [False])
    assert info["steps"].tolist() == [0]
    assert info["elapsed_steps"].tolist() == [3]
    assert "final_obs" not in info
    env.reset(options={"layout": 1})
    assert not env.ended.any()
    env.close()


def test_same_step_hands_over_the_ended_episode_and_begins_the_next(script: Callable[..., None]) -> None:
    script({"success": (6,), "ever_grasped": (6,)})
    options = {"terminate_on_success": True, "record_states": True}
    env, still = make(2, [CUBE, SPOON], **options), make(2, [CUBE, SPOON], autoreset_mode=DISABLED, **options)
    for one in (env, still):
        one.reset(seed=3, options={"layout": [5, 6]})
        one.step_chunk(rest(2, 3))
        one.reset(options={"layout": 7, "reset_mask": [False, True]})
    chunk = actions(2, 2, 4)
    fresh, _, terminated, _, info = env.step_chunk(chunk)
    last, _, _, _, plain = still.step_chunk(chunk)
    assert terminated.tolist() == info["_final_obs"].tolist() == info["_final_info"].tolist() == [True, False]
    assert info["final_obs"][1] is None
    assert_equal(info["final_obs"][0], {name: values[0] for name, values in last.items()})
    assert info["final_info"]["success"].tolist() == [True, False]
    assert info["final_info"]["elapsed_steps"].tolist() == plain["elapsed_steps"].tolist() == [6, 4]
    assert info["final_info"]["ever_grasped"][0]
    # Environment 0 shows the first observation of its next episode, of the same task; environment 1 goes on.
    assert env.addresses[0].task == CUBE
    expected, _ = still.reset(options={"reset_mask": [True, False], "layout": env.addresses[0].layout})
    assert_equal(fresh, expected)
    assert info["initial_states"][1] is None
    assert np.array_equal(info["initial_states"][0]["qpos"], get_setup("widowx").qpos)
    assert len(info["states"][0]["qpos"]) == 3
    env.close()
    still.close()


def test_same_step_keeps_the_final_picture(filmed: SceneVectorEnv) -> None:
    filmed.reset(options={"layout": 0})
    filmed.step_chunk(actions(0, 3, 56))
    before = filmed.get_state()
    stepped = filmed.step_chunk(actions(1, 3, 3))[0]["image"]
    filmed.set_state(before)
    observation, *_, truncated, info = filmed.step_chunk(np.concatenate([actions(1, 3, 3), rest(3, 1)], 1))
    assert truncated.all()
    final = info["final_obs"][0]["image"]
    assert np.abs(final.astype(int) - stepped[0]).mean() < 2  # one control step later
    assert np.abs(final.astype(int) - observation["image"][0]).mean() > np.abs(final.astype(int) - stepped[0]).mean()
    assert not np.shares_memory(final, observation["image"])


# ---------------------------------------------------------------------- chunks


def test_a_chunk_equals_its_steps(filmed: SceneVectorEnv, calls: list[list[int]]) -> None:
    commands = actions(5, 3, 4)
    filmed.reset(options={"layout": [1, 2, 3]})
    rewards, flags = [], []
    for h in range(4):
        stepped, reward, terminated, truncated, info = filmed.step(commands[:, h])
        rewards.append(reward)
        flags.append({name: info[name] for name in get_task(CUBE).flags})
    filmed.reset(options={"layout": [1, 2, 3]})
    calls.clear()
    whole = filmed.step_chunk(commands)
    assert calls == [[0, 1, 2]]  # one call, whatever the length
    assert_equal(whole[0], stepped)
    assert np.array_equal(whole[1], np.sum(rewards, 0))
    assert np.array_equal(whole[2], terminated)
    assert np.array_equal(whole[3], truncated)
    for name in get_task(CUBE).flags:
        assert np.array_equal(whole[4]["chunk"]["flags"][name], np.stack([f[name] for f in flags], 1)), name
        assert np.array_equal(whole[4][name], info[name])
    assert whole[4]["elapsed_steps"].tolist() == info["elapsed_steps"].tolist()


def test_only_lanes_that_moved_are_rendered_again(filmed: SceneVectorEnv, calls: list[list[int]]) -> None:
    first, _ = filmed.reset(options={"layout": 0})
    calls.clear()
    second, _ = filmed.reset(options={"layout": 4, "reset_mask": [False, True, False]})
    assert calls == [[1]]
    assert np.array_equal(first["image"][[0, 2]], second["image"][[0, 2]])
    assert not np.array_equal(first["image"][1], second["image"][1])
    assert np.array_equal(filmed.render(), second["image"])
    second["image"][:] = 0  # the caller may do with it what he likes
    assert np.array_equal(filmed.render()[0], first["image"][0])
    assert calls == [[1]]


# ---------------------------------------------------------------------- independence


def trajectory(num_envs: int, lane: int, reused: bool, task: str) -> list[np.ndarray]:
    """States of the episode (task, grid:4) on an environment among others that do something else."""
    env = make(num_envs, [task, CARROT] if task != CARROT else [task], record_states=True, observe=("proprio",))
    others = actions(100 + num_envs, num_envs, 30)
    others[..., :3] *= 4  # far, beyond reach too
    options: dict[str, Any] = {"task": [CARROT] * num_envs, "layout": list(range(num_envs))}
    options["task"][lane], options["layout"][lane] = task, 4
    if reused:
        env.reset(seed=0)
        env.step_chunk(others[:, :10])
    env.reset(options=options)
    others[lane] = actions(7, 30)
    others[lane, 15:, 0] = 0.06  # leaves the reachable space on the way
    found, failed = [], False
    for h in range(0, 30, 5):
        observation, *_, info = env.step_chunk(others[:, h : h + 5])
        failed |= not env.controller.ik_success[lane]
        found += [*info["states"][lane].values(), observation["proprio"][lane]]
    assert failed  # the slow branch of inverse kinematics takes part
    env.close()
    return found


@pytest.mark.parametrize("task", [CUBE, EGGPLANT])
def test_a_lane_does_not_depend_on_the_others_or_on_its_past(task: str) -> None:
    alone = trajectory(1, 0, False, task)
    for case in ((3, 1, False), (8, 6, False), (3, 2, True)):
        assert_equal(trajectory(*case, task), alone)


def test_pictures_do_not_depend_on_the_other_lanes(filmed: SceneVectorEnv) -> None:
    alone, _ = filmed.reset(options={"layout": [9, 2, 3]})
    other, _ = filmed.reset(options={"task": SPOON, "layout": [1, 2, 9]})
    again, _ = filmed.reset(options={"task": CUBE, "layout": [1, 9, 9]})
    assert np.array_equal(again["image"][1], alone["image"][0])
    assert np.array_equal(again["image"][1], again["image"][2])
    assert not np.array_equal(other["image"][2], alone["image"][0])


# ---------------------------------------------------------------------- snapshots


def follow(env: SceneVectorEnv, seed: int) -> list[Any]:
    """Everything that the next ten control steps tell, a reset in between that draws layouts included."""
    told: list[Any] = []
    for k in range(5):
        told.append(env.step_chunk(actions(seed + k, env.num_envs, 2)))
    told.append(env.reset(options={"reset_mask": [True, *[False] * (env.num_envs - 1)]}))
    told.append(env.step(actions(seed, env.num_envs)))
    return [*told, env.addresses]


@pytest.mark.parametrize("elapsed", [5, 55])
def test_snapshot_round_trip_is_bit_equal_also_in_a_fresh_environment(elapsed: int) -> None:
    """From step 55 on, episodes end and begin on the way."""
    options: dict[str, Any] = {"num_envs": 3, "task": [CUBE, EGGPLANT], "record_states": True}
    env = make(**options)
    env.reset(seed=9)
    env.step_chunk(actions(0, 3, elapsed))
    snapshot = env.get_state()
    first = follow(env, 20)
    env.set_state(snapshot)
    assert_equal(follow(env, 20), first)
    fresh = make(**options)
    fresh.set_state(snapshot)
    assert_equal(follow(fresh, 20), first)
    env.set_state(snapshot)
    assert_equal(follow(env, 20), first)  # the snapshot itself has not changed
    env.close()
    fresh.close()


def test_snapshot_brings_the_picture_back(filmed: SceneVectorEnv) -> None:
    observation, _ = filmed.reset(options={"layout": 0})
    snapshot = filmed.get_state()
    filmed.step_chunk(actions(0, 3, 5))
    filmed.set_state(snapshot)
    assert np.array_equal(filmed.render(), observation["image"])


def test_snapshot_of_another_environment_is_refused_before_anything_changes() -> None:
    env, wider, other = make(1), make(2), make(1, SPOON)
    for one in (env, wider, other):
        one.reset(options={"layout": 1})
    before = env.get_state()
    with pytest.raises(InvalidConfigError, match="has 2 environments; this vector environment 1"):
        env.set_state(wider.get_state())
    with pytest.raises(UnknownNameError, match=SPOON):
        env.set_state(other.get_state())
    with pytest.raises(InvalidConfigError, match="is of mujoco 3, physics 1, which moves on otherwise"):
        env.set_state(before | {"simulator": "mujoco 3, physics 1"})
    with pytest.raises(InvalidConfigError, match="is of an earlier version"):
        env.set_state({key: value for key, value in before.items() if key != "simulator"})
    for strange in ({}, {"engine": 1}):
        with pytest.raises(InvalidConfigError, match="Expected a snapshot that get_state"):
            env.set_state(strange)
    assert_equal(env.get_state()["engine"], before["engine"])
    for one in (env, wider, other):
        one.close()


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"num_envs": 0}, "num_envs must be at least 1, a whole number; got 0"),
        ({"num_envs": -3}, "num_envs must be at least 1, a whole number; got -3"),
        ({"task": "widowx_carrot_on_plat"}, f"nearest: {CARROT}"),
        ({"task": [CUBE, "nothing"]}, "Unknown task 'nothing'"),
        ({"engine": "mojoco"}, "Unknown engine 'mojoco'.*nearest: mujoco"),
        ({"look": "bultin"}, "Unknown look.*'bultin'.*builtin"),
        ({"observe": ("images",)}, "Unknown observation 'images'.*nearest: image"),
        ({"variant": "defualt"}, "Unknown variant.*'defualt'.*default"),
        ({"layouts": "girds"}, "Unknown kind of layouts 'girds'"),
        ({"autoreset_mode": "Sideways"}, "Unknown autoreset_mode 'Sideways'"),
        ({"task": []}, "at least one task"),
        ({"render_mode": "human"}, "Unknown render_mode 'human'.*rgb_array"),
        ({"observe": "images"}, "Unknown observation 'images'.*nearest: image"),
        ({"num_envs": 2.5}, "num_envs must be at least 1, a whole number; got 2.5"),
        ({"engine_options": {"thread": 2}}, "Unknown option of engine 'mujoco' 'thread'.*nearest: threads"),
    ],
)
def test_settings_that_make_no_environment(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(GymError, match=sentence) as caught:
        make(**settings)
    assert "\n" not in str(caught.value)


def test_robots_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(name: str) -> Any:
        setup = get_setup(name)
        if name != "widowx_sink":
            return setup
        return dataclasses.replace(setup, robot=dataclasses.replace(setup.robot, name="another robot"))

    monkeypatch.setattr(vector, "get_setup", fake)
    with pytest.raises(InvalidConfigError, match=f"share a robot; got {CUBE} .widowx., {EGGPLANT} .another robot."):
        make(2, [CUBE, EGGPLANT])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"layout": 24}, "grid layouts 0 to 23; got 'grid:24'"),
        ({"layout": "gird:3"}, "'grid:K', 'region:K' or 'region2:K'; got 'gird:3'"),
        ({"layout": [1, 2, 3]}, "'layout' needs one value or 2; got 3"),
        ({"task": [CUBE]}, "'task' needs one value or 2; got 1"),
        ({"trial": [1, 2, 3]}, "'trial' needs one value or 2; got 3"),
        ({"task": SPOON}, f"Unknown task of this environment '{SPOON}'"),
        ({"variant": "noon"}, "Unknown variant"),
        ({"lay_out": 3}, "Unknown reset option 'lay_out'.*layout"),
        ({"reset_mask": [True]}, "reset_mask needs 2 booleans"),
        ({"layout": 1.5}, "'grid:K', 'region:K' or 'region2:K'; got 1.5"),
        ({"layout": True}, "'grid:K', 'region:K' or 'region2:K'; got True"),
        ({"layout": np.array(1.5)}, "'grid:K', 'region:K' or 'region2:K'; got"),
        ({"trial": "x"}, "'trial' must be a whole number from 0 on; got 'x'"),
        ({"trial": [0, -1]}, "'trial' must be a whole number from 0 on; got -1"),
        ({"trial": 1.5}, "'trial' must be a whole number from 0 on; got 1.5"),
        ({"task": 5}, "Unknown task of this environment 5"),
    ],
)
def test_reset_options_that_mean_nothing(options: dict[str, Any], sentence: str) -> None:
    env = make(2)
    env.reset(options={"layout": 0})
    before = env.addresses
    with pytest.raises(GymError, match=sentence):
        env.reset(options=options)
    assert env.addresses == before
    env.step(rest(2, 1)[:, 0])  # and the episodes go on
    env.close()


@pytest.mark.parametrize(
    ("seed", "sentence"),
    [
        ([1, 2, 3], "seed needs one number or 2; got 3"),
        (1.5, "seed must be a whole number from 0 on; got 1.5"),
        (-1, "seed must be a whole number from 0 on; got -1"),
        ("12", "seed must be a whole number from 0 on; got '12'"),
        ([3, -4], "seed must be a whole number from 0 on; got -4"),
    ],
)
def test_seeds_that_are_none(seed: Any, sentence: str) -> None:
    env = make(2)
    with pytest.raises(InvalidConfigError, match=sentence):
        env.reset(seed=seed)
    env.close()


def test_a_lone_observation_is_one_name() -> None:
    env = make(1, observe="proprio")
    assert list(env.reset(seed=0)[0]) == ["proprio"]
    env.close()


def test_nothing_happens_after_the_end() -> None:
    env = make(2)
    env.reset(seed=0)
    state = env.get_state()
    env.close()
    for call in (
        lambda: env.step(rest(2, 1)[:, 0]),
        env.reset,
        env.render,
        env.get_state,
        lambda: env.set_state(state),
    ):
        with pytest.raises(ClosedError, match="was closed: make a new one"):
            call()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_actions_that_are_not_finite(value: float) -> None:
    env = make(2)
    env.reset(options={"layout": [0, 1]})
    chunk = np.array(rest(2, 3))
    chunk[1, 2, 4] = value
    before = env.get_state()
    with pytest.raises(InvalidActionError, match=rf"environment 1 \({CUBE}/default/grid:1/0\) got \[0.0"):
        env.step_chunk(chunk)
    assert_equal(env.get_state()["engine"], before["engine"])
    env.close()


@pytest.mark.parametrize("shape", [(7,), (2, 6), (1, 7), (3, 7), (2, 1, 7), ()])
def test_actions_of_the_wrong_shape(shape: tuple[int, ...]) -> None:
    env = make(2)
    env.reset(seed=0)
    with pytest.raises(InvalidActionError, match=r"Expected actions of shape \(2, 7\); got"):
        env.step(np.zeros(shape))
    env.close()


@pytest.mark.parametrize("shape", [(2, 7), (2, 4, 6), (3, 4, 7), (2, 0, 7)])
def test_chunks_of_the_wrong_shape(shape: tuple[int, ...]) -> None:
    env = make(2)
    env.reset(seed=0)
    with pytest.raises(InvalidActionError, match=r"Expected a chunk of shape \(2, H, 7\); got"):
        env.step_chunk(np.zeros(shape))
    env.close()


def test_nothing_happens_before_the_first_reset_of_every_lane() -> None:
    env = make(2)
    with pytest.raises(ResetNeeded, match="reset"):
        env.step(np.zeros((2, 7)))
    with pytest.raises(ResetNeeded, match="reset"):
        env.render()
    with pytest.raises(InvalidConfigError, match=r"leaves out environments \[0\]"):
        env.reset(options={"reset_mask": [False, True]})
    env.close()


def test_without_a_driver_only_pictures_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo is loaded here already; MUJOCO_GL reaches the render processes."""
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    env = make(1, observe=("state",))
    env.reset(seed=0)
    assert np.isfinite(env.step(rest(1, 1)[:, 0])[0]["state"]).all()
    with pytest.raises(RenderingUnavailableError, match=r"vlaser_gym\.doctor") as caught:
        env.render()
    assert "\n" not in str(caught.value)
    assert np.isfinite(env.step(rest(1, 1)[:, 0])[0]["state"]).all()
    env.close()
    blind = make(1, observe=("image",))
    with pytest.raises(RenderingUnavailableError):
        blind.reset(seed=0)
    blind.close()


LOADED_WITHOUT_A_DRIVER = """
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import RenderingUnavailableError
env = SceneVectorEnv("widowx_stack_cube", observe=("state",))
observation, _ = env.reset(seed=0)
assert observation["state"].shape == (1, 26)
try:
    env.render()
except RenderingUnavailableError as error:
    print(error)
"""


def test_a_driver_that_does_not_load_does_not_keep_physics_from_loading() -> None:
    environment = {**os.environ, "MUJOCO_GL": "nonsense"}
    command = [sys.executable, "-c", LOADED_WITHOUT_A_DRIVER]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "backend 'nonsense'" in done.stdout
