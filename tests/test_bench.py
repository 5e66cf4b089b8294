from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from vlaser_gym import cli
from vlaser_gym.commands import bench
from vlaser_gym.envs.vector import SceneVectorEnv

CUBE, CARROT = "widowx_stack_cube", "widowx_carrot_on_plate"


def run(*overrides: str) -> None:
    cli.run("bench", bench.main, list(overrides))


@pytest.mark.slow
def test_table_and_json_tell_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "bench.json"
    run(f"task={CUBE},{CARROT}", "num_envs=2", "chunk=3", "seconds=0.05", "engine.render_processes=1", f"output={path}")
    report = json.loads(path.read_text())
    assert (report["num_envs"], report["chunk"], report["engine"], report["look"]) == (2, 3, "mujoco", "builtin")
    assert report["machine"]["cores"] >= 1
    rows = report["measurements"]
    kinds = ["none", "every step", "every replan"]
    assert [(tuple(row["tasks"]), row["pictures"]) for row in rows] == [
        (tasks, kind) for tasks in ((CUBE,), (CARROT,), (CUBE, CARROT)) for kind in kinds
    ]
    said = capsys.readouterr().out
    assert "2 mixed" in said
    for row in rows:
        assert row["control_steps_per_second"] == pytest.approx(row["control_steps"] / row["seconds"])
        assert row["seconds"] >= 0.05
        shares = [row[f"share_{name}"] for name in ("physics", "images", "other")]
        assert sum(shares) == pytest.approx(1.0)
        assert all(0 <= share <= 1 for share in shares)
        assert (row["share_images"] == 0) == (row["pictures"] == "none")
        assert f"{row['control_steps_per_second']:.0f}" in said


def test_shares_are_those_of_an_engine_of_known_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """10 ms of physics per control step and 20 ms per call for images, beside which the rest is small or known."""
    env = SceneVectorEnv(CUBE, 2, observe=("image",), engine_options={"render_processes": 1})
    picture = np.zeros((2, 480, 640, 3), np.uint8)
    slept = {"step": 0.0, "images": 0.0}

    def sleep(name: str, seconds: float) -> None:
        begun = time.perf_counter()
        time.sleep(seconds)
        slept[name] += time.perf_counter() - begun  # on a busy machine a sleep is longer than asked for

    monkeypatch.setattr(env.engine, "step", lambda *_: sleep("step", 0.01))
    monkeypatch.setattr(env.engine, "images", lambda lanes, *_: sleep("images", 0.02) or picture[: len(lanes)])
    env.reset(seed=0)
    slept["step"] = slept["images"] = 0.0
    result = bench.measure(env, (CUBE,), "every replan", 4, 0.5)
    env.close()
    chunks = result.control_steps / 8
    assert chunks == int(chunks)
    # Before it starts its watches, measure makes an image at the reset and runs one chunk.
    assert 0.04 * chunks <= result.physics * result.seconds <= slept["step"] + 0.05
    assert 0.02 * chunks <= result.images * result.seconds <= slept["images"] + 0.05
    assert result.physics + result.images <= 1
    assert result.rate == pytest.approx(8 * chunks / result.seconds)


def test_episodes_are_refilled_and_only_executed_steps_count() -> None:
    env = SceneVectorEnv(CUBE, 1, observe=())
    calls = []
    step_chunk = env.step_chunk

    def counted(actions: np.ndarray) -> tuple:
        result = step_chunk(actions)
        calls.append(int(result[-1]["steps"].sum()))
        return result

    env.step_chunk = counted  # type: ignore[method-assign]
    result = bench.measure(env, (CUBE,), "none", 25, 0.5)
    env.close()
    assert result.control_steps == sum(calls[1:])  # the first one warms up
    assert {25, 10} >= set(calls)
    assert calls[2] == 10  # 60 steps are two chunks and ten steps


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["num_envs=0"], "num_envs must be at least 1; got 0."),
        (["chunk=0"], "chunk must be at least 1; got 0."),
        (["seconds=0"], "seconds must be above 0; got 0.0."),
        (["seconds=nan"], "seconds must be above 0; got nan."),
        (["task=widowx_carrot"], CARROT),
        (["look=bultin"], "builtin"),
        (["num_env=3"], "num_envs"),
        (["num_envs=many"], "num_envs has a wrong value"),
        (["engine.threads=x"], "engine.threads must be a whole number from 0 on; got 'x'"),
        (["engine.threads=-1"], "engine.threads must be a whole number from 0 on; got -1"),
        (["engine.render_processes=0"], "engine.render_processes must be a whole number from 1 on; got 0"),
        (["engine=maniskill", "engine.processes=x"], "engine.processes must be a whole number from 1 on; got 'x'"),
        (["engine.thread=1"], "Unknown option of engine 'mujoco' 'thread'"),
    ],
)
def test_bad_settings_are_one_sentence(
    overrides: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(*overrides, f"output={tmp_path / 'bench.json'}")
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.err.count("\n") == 1
    assert not said.out
    assert not (tmp_path / "bench.json").exists()


@pytest.mark.parametrize("output", ["file/bench.json", "folder"])
def test_what_cannot_be_written_is_refused_before_anything_is_measured(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(bench, "measure_tasks", lambda *_: pytest.fail("measured"))
    with pytest.raises(SystemExit) as stopped:
        run(f"output={tmp_path}/{output}")
    assert stopped.value.code == 2
    assert f"Cannot write output={tmp_path}/{output}" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_tasks_of_several_robots_are_mixed_robot_by_robot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pick, near = "google_robot_pick_coke_can", "google_robot_move_near"

    def measured(settings: bench.BenchSettings, tasks: Sequence[str]) -> list[bench.Measurement]:
        SceneVectorEnv(tasks, len(tasks), observe=()).close()  # a batch that the environments take
        return [bench.Measurement(tuple(tasks), "none", 10, 1.0, 1.0, 0.5, 0.0)]

    monkeypatch.setattr(bench, "measure_tasks", measured)
    run(f"task={CUBE},{pick},{CARROT},{near}", f"output={tmp_path / 'bench.json'}")
    rows = json.loads((tmp_path / "bench.json").read_text())["measurements"]
    assert [row["tasks"] for row in rows[:4]] == [[CUBE], [pick], [CARROT], [near]]
    assert [row["tasks"] for row in rows[4:]] == [[CUBE, CARROT], [pick, near]]
    said = capsys.readouterr().out
    assert "2 mixed (widowx)" in said
    assert "2 mixed (google_robot)" in said


def test_the_ratio_of_two_looks_is_that_of_their_times(monkeypatch: pytest.MonkeyPatch) -> None:
    class FakeEnv:
        def __init__(self, task: str, num_envs: int, *, look: str, **_: object) -> None:
            self.engine, self.pause = self, {"builtin": 0.004, "original": 0.012}[look]

        def reset(self, seed: int) -> None:
            pass

        def images(self, lanes: np.ndarray) -> None:
            assert len(lanes) == 3
            time.sleep(self.pause)

        def close(self) -> None:
            pass

    monkeypatch.setattr(bench, "SceneVectorEnv", FakeEnv)
    settings = bench.BenchSettings(task=CUBE, look="original", num_envs=3)
    assert 1.5 < bench.picture_time_ratio(settings, CUBE) < 4
