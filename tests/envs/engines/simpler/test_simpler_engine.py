"""The engine with the stand-in for SimplerEnv: what comes out, what goes in, and what can go wrong."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from stand_in_interpreter import STAND_IN, calls, make_interpreter

from vlaser_gym.envs.engines import check_engine
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import GymError, InvalidConfigError, SimulationError, UnknownNameError

CARROT, PICK = "widowx_carrot_on_plate", "google_robot_pick_coke_can"
CARROT_ENV = "PutCarrotOnPlateInScene-v0"
FORWARD = np.array([0.01, 0, 0, 0, 0, 0, 1])


@contextmanager
def opened(
    python: Path, task: str | tuple[str, ...] = CARROT, lanes: int = 1, **options: Any
) -> Iterator[SceneVectorEnv]:
    env_options = {key: options.pop(key) for key in ("observe",) if key in options}
    env = SceneVectorEnv(
        task, lanes, engine="simpler", autoreset_mode=AutoresetMode.DISABLED, record_states=True,
        engine_options={"python": str(python), "timeout": 30, **options}, **env_options,
    )  # fmt: skip
    try:
        yield env
    finally:
        env.close()


def chunk(lanes: int, steps: int) -> np.ndarray:
    return np.broadcast_to(FORWARD, (lanes, steps, 7))


def test_an_episode(interpreter: Path, tmp_path: Path) -> None:
    with opened(interpreter, lanes=2) as env:
        assert (env.engine.name, env.engine.look) == ("simpler", "original")
        observation, info = env.reset(options={"layout": [0, 7]})
        assert observation["instruction"] == ("put carrot on plate",) * 2
        assert not info["success"].any()
        # The TCP of the specification's start pose, openness 1.
        start = [0.29207, -0.00609, 0.13532, 0.68671, 0.00526, 0.72687, -0.00808, 1.0]
        np.testing.assert_allclose(observation["proprio"], [start] * 2, atol=1e-5)
        assert observation["image"].shape == (2, 480, 640, 3)
        # The carrot on the corners at y -0.075 and 0.075: the stand-in shows the time, and y in cm from 100 on.
        assert observation["image"][:, 0, :2, 0].tolist() == [[0, 92], [0, 108]]
        observation, reward, _, truncated, info = env.step_chunk(chunk(2, 6))
        assert observation["image"][:, 0, :2, 0].tolist() == [[6, 92], [6, 108]]
        np.testing.assert_allclose(observation["proprio"][:, 0], 0.29207 + 0.06, atol=1e-5)
        # The stand-in: grasped after the third step only; even layouts succeed from the fifth on.
        flags = info["chunk"]["flags"]
        assert flags["is_src_obj_grasped"].tolist() == [[k == 3 for k in range(1, 7)]] * 2
        assert flags["ever_grasped"].tolist() == [[k >= 3 for k in range(1, 7)]] * 2
        assert flags["success"].tolist() == [[k >= 5 for k in range(1, 7)], [False] * 6]
        assert reward.tolist() == [2.0, 0.0]
        assert set(info["states"][0]) == {
            "qpos", "action", "instruction", "stage", "object/bridge_carrot_generated_modified",
            "object/bridge_plate_objaverse_larger",
        }  # fmt: skip
        assert info["states"][0]["instruction"].tolist() == ["put carrot on plate"] * 6
        assert not truncated.any()
        assert env.step_chunk(chunk(2, 60))[3].all()
        assert env.lanes[0].elapsed == 60
    made = [entry for entry in calls(tmp_path) if "make" in entry]
    assert made == [{"make": CARROT_ENV, "kwargs": {"obs_mode": ["rgbd"], "prepackaged_config": True}}] * 2


def test_what_the_environment_is_given(interpreter: Path, tmp_path: Path) -> None:
    """Through the worker: photographs have a folder, places are arrays, every variant has an environment of its own."""
    with opened(interpreter, PICK, observe=("image",), env_kwargs={"shader_dir": "ibl"}) as env:
        observation, _ = env.reset(options={"layout": 30, "variant": "recolor_cabinet_visual_matching_1"})
        assert observation["image"].shape == (1, 512, 640, 3)
        env.reset(options={"layout": 30, "variant": "distractors_more"})
        assert len(env.lanes[0].reading.object_pose) == 7
    made, _, _, reset, closed, again, *_ = (entry for entry in calls(tmp_path) if "picture" not in entry)
    assert made["make"] == "GraspSingleOpenedCokeCanInScene-v0"
    assert made["kwargs"]["rgb_overlay_path"] == "/assets/real_inpainting/google_coke_can_real_eval_1.png"
    assert made["kwargs"]["urdf_version"] == "recolor_cabinet_visual_matching_1"
    assert made["kwargs"]["laid_vertically"] is True
    assert made["kwargs"]["shader_dir"] == "ibl"
    assert reset["seed"] is None
    assert reset["options"]["obj_init_options"] == {"init_xy": {"array": [-0.2925, -0.02]}}
    assert reset["options"]["robot_init_options"]["init_rot_quat"] == {"array": [-0.0, 0.0, 0.0, 1.0]}
    assert closed == {"close": "GraspSingleOpenedCokeCanInScene-v0"}
    assert again["make"] == "GraspSingleOpenedCokeCanDistractorInScene-v0"


SPOON = "widowx_spoon_on_towel"


def starts(python: Path, task: str, variant: str, layouts: list[int], **options: Any) -> list[np.ndarray]:
    """Where bodies lie, and the images, as episodes begin one after another on one environment."""
    found = []
    with opened(python, task, **options) as env:
        for layout in layouts:
            observation, _ = env.reset(options={"layout": layout, "variant": variant})
            found += [env.lanes[0].reading.object_pose, observation["image"]]
            env.step_chunk(chunk(1, 2))
    return found


@pytest.mark.parametrize(("task", "variant"), [(SPOON, "default"), (PICK, "distractors"), (PICK, "aggregation")])
def test_an_environment_that_is_kept_begins_as_a_new_one(
    interpreter: Path, tmp_path: Path, task: str, variant: str
) -> None:
    """To the last bit; the stand-in's physics remember resets and its distractors follow random numbers, as there."""
    layouts = [26, 30, 26] if task == PICK else [2, 7, 2]
    kept = starts(interpreter, task, variant, layouts)
    log = [entry for entry in calls(tmp_path) if "picture" not in entry]
    again = starts(interpreter, task, variant, layouts, rebuild=True)
    assert all(np.array_equal(a, b) for a, b in zip(kept, again, strict=True))
    # Every episode alone, in a process of its own.
    alone = [value for layout in layouts for value in starts(interpreter, task, variant, [layout])]
    assert all(np.array_equal(a, b) for a, b in zip(kept, alone, strict=True))
    assert sum("make" in entry for entry in log) == 1
    built = [
        (entry.get("seed"), (entry.get("options") or {}).get("reconfigure")) for entry in log if "make" not in entry
    ]
    one = [(2022, None), (2022, True), (None, None)]
    assert built[:9] == one * 3, "set_main_rng(2022), reset(seed=2022, reconfigure), then the episode's own reset"


def test_other_scenes_are_built_anew(interpreter: Path, tmp_path: Path) -> None:
    """One environment at a time: it is kept for episodes that are built alike, and closed before another is built."""
    with opened(interpreter, (SPOON, CARROT)) as env:
        for task, layout in ((SPOON, 0), (SPOON, 5), (CARROT, 5), (SPOON, 5)):
            env.reset(options={"task": task, "layout": layout})
    told = [next(key for key in ("make", "close") if key in e) for e in calls(tmp_path) if "make" in e or "close" in e]
    assert told == ["make", "close", "make", "close", "make"]


def test_the_stand_in_notices_shortcuts() -> None:
    """A kept environment that is only reset with a new scene begins elsewhere: the comparison above can fail."""
    done = subprocess.run(
        [sys.executable, "-c", """
import simpler_env
def spoon(*resets):
    env = simpler_env.make("widowx_spoon_on_towel")
    for options in (*resets, {}):
        env.reset(options={"obj_init_options": {"episode_id": 3}, **options})
    return env.unwrapped.bodies[0].pose.p[0]
assert spoon() == spoon()
assert abs(spoon({}) - spoon() - 6e-5) < 1e-6
env = simpler_env.make("widowx_spoon_on_towel")
env.reset(options={"obj_init_options": {"episode_id": 3}, "reconfigure": True})
assert abs(env.unwrapped.bodies[0].pose.p[0] - spoon() + 6e-5) < 1e-6
"""],
        env={"PYTHONPATH": str(STAND_IN)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("task", "camera"), [(CARROT, "3rd_view_camera"), (PICK, "overhead_camera")])
def test_only_what_is_looked_at_is_rendered(interpreter: Path, tmp_path: Path, task: str, camera: str) -> None:
    """One camera, once per decision; the original renders all of its own at every control step."""
    with opened(interpreter, task) as env:
        env.reset(options={"layout": 1})
        env.step_chunk(chunk(1, 4))
        env.step_chunk(chunk(1, 4))
        env.reset(options={"layout": 3})
    log = [entry for entry in calls(tmp_path) if "picture" in entry]
    built = [{"picture": name, "step": 0} for name in ("base_camera", camera)]
    assert log == [*built, *({"picture": camera, "step": step} for step in (0, 4, 8, 0))]


def test_nothing_is_rendered_for_an_agent_that_reads_states(interpreter: Path, tmp_path: Path) -> None:
    with opened(interpreter, observe=("proprio", "instruction", "state")) as env:
        env.reset(options={"layout": 1})
        env.step_chunk(chunk(1, 4))
        env.reset(options={"layout": 2})
    pictures = [entry for entry in calls(tmp_path) if "picture" in entry]
    assert pictures == [], "not even when an environment is built"
    (made,) = [entry for entry in calls(tmp_path) if "make" in entry]
    assert made["kwargs"]["obs_mode"] == "none"


def test_a_picture_that_nobody_was_to_look_at(interpreter: Path) -> None:
    """``render()`` of an environment that observes states: what was done is done again, with images."""
    found = []
    for observe in (("image",), ("proprio",)):
        with opened(interpreter, lanes=2, observe=observe) as env:
            env.reset(options={"layout": [1, 2]})
            env.step_chunk(chunk(2, 3))
            found.append((env.engine.images(np.arange(2)), env.engine.read(np.arange(2))[1].qpos))
            *_, info = env.step_chunk(chunk(2, 3))
            found[-1] += (info["states"][1]["qpos"],)
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other)


def test_pictures_are_those_of_the_original_loop(interpreter: Path) -> None:
    """Beside the original's own way: an environment of its own, stepped through its wrappers."""
    with opened(interpreter) as env:
        ours = [env.reset(options={"layout": 3})[0]["image"][0]]
        ours += [env.step_chunk(chunk(1, 1))[0]["image"][0] for _ in range(3)]
    script = """
import sys
import numpy as np, simpler_env
from simpler_env.utils.env.observation_utils import get_image_from_maniskill2_obs_dict as picture
env = simpler_env.make("widowx_carrot_on_plate")
found = [env.reset(options={"obj_init_options": {"episode_id": 3}})[0]]
found += [env.step(np.array([0.01, 0, 0, 0, 0, 0, 1]))[0] for _ in range(3)]
np.save(sys.argv[1], [picture(env.unwrapped, observation) for observation in found])
"""
    file = interpreter.with_name("pictures.npy")
    subprocess.run([interpreter, "-c", script, file], check=True)
    assert np.array_equal(np.array(ours), np.load(file))


@pytest.mark.slow
@pytest.mark.parametrize(("task", "variant", "flag", "steps"), [
    ("google_robot_pick_standing_coke_can", "aggregation", "ever_grasped", 1),
    ("google_robot_move_near_v0", "no_distractor", "near_tgt_obj", 5),
    ("widowx_put_eggplant_in_basket", "default", "ever_grasped", 3),
    ("google_robot_open_middle_drawer", "default", "success", 5),
    ("google_robot_place_apple_in_closed_top_drawer", "station2", "has_contact", 4),
])  # fmt: skip
def test_flags_of_every_family(interpreter: Path, task: str, variant: str, flag: str, steps: int) -> None:
    with opened(interpreter, task, observe=("instruction",)) as env:
        observation, _ = env.reset(options={"layout": 2, "variant": variant})
        assert observation["instruction"][0] == env.tasks[0].instruction("grid:2", variant)
        *_, info = env.step_chunk(chunk(1, steps + 1))
        assert info["chunk"]["flags"][flag][0].tolist() == [k >= steps for k in range(1, steps + 2)]


def test_a_snapshot_goes_on_as_the_episode_did(interpreter: Path) -> None:
    with opened(interpreter, lanes=2) as env:
        env.reset(options={"layout": [4, 5]})
        env.step_chunk(chunk(2, 3))
        snapshot = env.get_state()
        first = env.step_chunk(chunk(2, 3))
        env.reset(options={"layout": 9})
        env.set_state(snapshot)
        second = env.step_chunk(chunk(2, 3))
        for name in ("image", "proprio"):
            assert np.array_equal(first[0][name], second[0][name])
        for name in ("qpos", "object/bridge_carrot_generated_modified"):
            assert np.array_equal(first[4]["states"][1][name], second[4]["states"][1][name])
        assert first[4]["success"].tolist() == second[4]["success"].tolist() == [True, False]


@pytest.mark.parametrize("how", ["declared", pytest.param("by itself", marks=pytest.mark.slow)])
def test_the_second_sub_task(interpreter: Path, how: str) -> None:
    with opened(interpreter, "google_robot_place_apple_in_closed_top_drawer", observe=("instruction", "state")) as env:
        observation, _ = env.reset(options={"layout": 4})
        assert observation["instruction"] == ("open top drawer",)
        if how == "declared":
            env.step_chunk(chunk(1, 2))
            env.advance_to_next_subtask(np.array([0]))
            snapshot = env.get_state()
            observation, *_ = env.step_chunk(chunk(1, 1))
            env.set_state(snapshot)
            assert env.step_chunk(chunk(1, 1))[0]["instruction"] == observation["instruction"]
        else:
            assert env.step_chunk(chunk(1, 99))[0]["instruction"] == ("open top drawer",)
            observation, *_ = env.step_chunk(chunk(1, 1))
        assert observation["instruction"] == ("place apple into top drawer",)
        assert observation["state"][0, 25] == 1


@pytest.mark.slow
def test_a_drawer_that_is_left_open(interpreter: Path) -> None:
    with opened(interpreter, "google_robot_close_bottom_drawer", observe=("state",)) as env:
        observation, _ = env.reset(options={"layout": 8})
        np.testing.assert_allclose(observation["state"][0, 22:25], [0.0, 0.0, 0.2])


# What goes wrong


def refused(python: str | None, **options: Any) -> str:
    with pytest.raises(InvalidConfigError) as caught:
        SceneVectorEnv(CARROT, 2, engine="simpler", engine_options={"python": python, **options})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_wrong_interpreters(tmp_path: Path) -> None:
    assert "needs the interpreter in which SimplerEnv is installed (docs/simpler.md); got none" in refused(None)
    assert "got '/no/such/python', which cannot be run" in refused("/no/such/python")
    assert "which cannot be run" in refused(str(tmp_path))
    text = tmp_path / "text"
    text.write_text("not a program\n")
    text.chmod(text.stat().st_mode | stat.S_IXUSR)
    assert "which cannot be run (Exec format error)" in refused(str(text))
    assert "does not work. The original's worker died at its start (status 0)" in refused("/bin/true")
    sleeper = tmp_path / "sleeper"
    sleeper.write_text("#!/bin/sh\nexec sleep 60\n")
    sleeper.chmod(0o755)
    assert "took more than 0.5 s at its start" in refused(str(sleeper), timeout=0.5)
    assert "above 0; got 0" in refused(sys.executable, timeout=0)


def test_a_missing_simpler_env(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    said = refused(sys.executable)
    assert "cannot import simpler_env (ModuleNotFoundError: No module named 'simpler_env')" in said
    assert sys.executable in said


def test_unknown_options_and_looks(interpreter: Path) -> None:
    with pytest.raises(UnknownNameError, match="option of engine 'simpler' 'pyhton'"):
        SceneVectorEnv(CARROT, 1, engine="simpler", engine_options={"pyhton": str(interpreter)})
    with pytest.raises(UnknownNameError, match="look of engine 'simpler'"):
        check_engine("simpler", "builtin")
    assert check_engine("simpler") == "original"


@pytest.mark.slow
def test_an_environment_that_cannot_be_built(interpreter: Path) -> None:
    with (
        opened(interpreter, PICK, env_kwargs={"scene_name": "no_such_scene"}) as env,
        pytest.raises(
            GymError, match=r"cannot build .*coke_can.*grid:0: FileNotFoundError: .*no_such_scene\.glb"
        ) as caught,
    ):
        env.reset(options={"layout": 0})
    assert not isinstance(caught.value, SimulationError)
    with opened(interpreter, env_kwargs={"colour": 3}) as env, pytest.raises(GymError, match="unexpected keyword"):
        env.reset(options={"layout": 0})


def fail(env: SceneVectorEnv) -> None:
    env.reset(options={"layout": [0, 1, 2]})
    env.step_chunk(chunk(3, 4))


@pytest.mark.parametrize(("fault", "said"), [
    ("die", r"worker died at control step 3 of .*grid:1 \(signal SIGSEGV; its last words: a last word\)"),
    pytest.param("raise", r"failed at control step 3 of .*grid:1: ValueError: contact lost", marks=pytest.mark.slow),
    pytest.param("hang", r"took more than 2 s at control step 3 of .*grid:1 and was ended; engine\.timeout= waits",
                 marks=pytest.mark.slow),
    pytest.param("fail to reset", r"failed at the beginning of .*grid:1: RuntimeError: no room for the object",
                 marks=pytest.mark.slow),
])  # fmt: skip
def test_a_lane_that_fails(tmp_path: Path, fault: str, said: str) -> None:
    python = make_interpreter(tmp_path, faults={f"{CARROT_ENV}:1": fault})
    with opened(python, lanes=3, observe=("proprio",)) as env:
        if fault == "hang":
            env.engine._workers[1].greet()
            env.engine._workers[1].timeout = 2
        with pytest.raises(SimulationError, match=said) as caught:
            fail(env)
        assert caught.value.lanes == (1,)
        assert "\n" not in str(caught.value)
        # The others are not out of step, and the lost one is replaced.
        observation, _ = env.reset(options={"layout": [6, 7, 8]})
        np.testing.assert_allclose(observation["proprio"][:, 0], 0.29207, atol=1e-5)
        *_, info = env.step_chunk(chunk(3, 5))
        assert info["success"].tolist() == [True, False, True]


@pytest.mark.slow
def test_a_worker_killed_from_outside(interpreter: Path) -> None:
    with opened(interpreter, lanes=2, observe=("proprio",)) as env:
        env.reset(options={"layout": [0, 1]})
        processes = [worker.process for worker in env.engine._workers]
        os.kill(processes[1].pid, signal.SIGKILL)
        with pytest.raises(SimulationError, match=r"died at control step 1 of .*grid:1 \(signal SIGKILL; its"):
            env.step_chunk(chunk(2, 1))
        with pytest.raises(SimulationError, match="not placed"):
            env.step_chunk(chunk(2, 1))
    assert all(process.poll() is not None for process in processes)


def test_nothing_is_left_behind(interpreter: Path) -> None:
    before = set(os.listdir("/proc/self/fd")), set(os.listdir("/dev/shm"))
    with opened(interpreter, lanes=2) as env:
        env.reset(options={"layout": 0})
        pids = [worker.process.pid for worker in env.engine._workers]
    time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert (set(os.listdir("/proc/self/fd")), set(os.listdir("/dev/shm"))) == before
