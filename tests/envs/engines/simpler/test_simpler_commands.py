"""The commands on the engine, end to end, with the stand-in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stand_in_interpreter import calls, make_interpreter

from vlaser_gym import cli
from vlaser_gym.commands import doctor, parity
from vlaser_gym.commands import eval as eval_command
from vlaser_gym.envs.engines.simpler import memory
from vlaser_gym.evaluation.store import read_config, read_records, read_states, read_timing

CARROT_ENV = "PutCarrotOnPlateInScene-v0"
QUIET = ["agent=random", "video=0", "report=false"]


def score(folder: Path, python: Path, *overrides: str) -> list[dict[str, Any]]:
    run = folder / "run"
    settings = ["engine=simpler", f"engine.python={python}", "engine.timeout=60", f"run={run}", *QUIET, *overrides]
    cli.run("eval", eval_command.main, settings)
    return list(read_records(run))


def test_eval_with_a_worker_that_dies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One episode kills its worker once, another always: that one alone is an error, and it counts."""
    faults = {f"{CARROT_ENV}:1": "die once", f"{CARROT_ENV}:2": "die"}
    python = make_interpreter(tmp_path, faults=faults)
    records = score(tmp_path, python, "task=widowx_carrot_on_plate", "episodes=4", "num_envs=3")
    assert [record["layout"] for record in records] == [f"grid:{k}" for k in range(4)]
    assert [record["success"] for record in records] == [True, False, False, False]
    assert [record["ending"] for record in records] == ["truncated", "truncated", "error", "truncated"]
    assert records[2]["error"] == (
        "The original's worker died at control step 3 of widowx_carrot_on_plate/default/grid:2 (signal SIGSEGV; its "
        "last words: a last word)."
    )
    assert {(r["engine"], r["look"]) for r in records} == {("simpler", "original")}
    assert records[0]["engine_version"].startswith("simpler_env ")
    assert records[0]["first_success_step"] == 5
    assert records[0]["flags"]["ever_grasped"]
    said = capsys.readouterr().out
    assert "random on simpler" in said
    assert "25.0 [" in said
    # The episode that always fails was tried twice; those beside it began again.
    resets = [entry["options"] for entry in calls(tmp_path) if "reset" in entry]
    begun = [options["obj_init_options"]["episode_id"] for options in resets if "obj_init_options" in options]
    assert begun.count(2) == 2
    assert begun.count(3) == 1
    assert read_config(tmp_path / "run")["look"] == "original"


@pytest.mark.slow
def test_eval_of_the_google_robot(tmp_path: Path) -> None:
    python = make_interpreter(tmp_path)
    task = ["task=google_robot_pick_horizontal_coke_can", "variant=slightly_darker_lighting"]
    records = score(tmp_path, python, *task, "episodes=10", "num_envs=4")
    # The stand-in succeeds where x is an even number of tenths of a millimetre.
    assert [record["success"] for record in records] == [True] * 5 + [False] * 5
    made = [entry["kwargs"] for entry in calls(tmp_path) if "make" in entry]
    assert len(made) == 4, "one for each environment"
    assert all(kwargs["slightly_darker_lighting"] is True and kwargs["lr_switch"] is True for kwargs in made)


@pytest.mark.slow
def test_eval_as_a_command_with_a_hanging_worker_and_a_report(tmp_path: Path) -> None:
    python = make_interpreter(tmp_path, faults={f"{CARROT_ENV}:1": "hang"})
    settings = ["engine=simpler", f"engine.python={python}", "engine.timeout=8", "task=widowx_carrot_on_plate"]
    done = subprocess.run(
        [sys.executable, "-m", "vlaser_gym.eval", *settings, "episodes=2", "video=0", "agent=random",
         f"run={tmp_path}/run"],
        capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    errors = [record["error"] for record in read_records(tmp_path / "run")]
    assert errors[0] is None
    assert "took more than 8 s at control step 3" in errors[1]
    assert (tmp_path / "run" / "report.html").is_file()


def test_wrong_interpreters_leave_nothing_but_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    for python, said in (("/no/such/python", "which cannot be run"), (sys.executable, "cannot import simpler_env")):
        with pytest.raises(SystemExit) as stopped:
            score(tmp_path, Path(python), "task=widowx_carrot_on_plate")
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error
        assert not (tmp_path / "run").exists()


@pytest.mark.golden
@pytest.mark.slow
def test_parity_of_recordings_played_back(golden: Path, tmp_path: Path) -> None:
    """Where the original is its own recordings, nothing departs from them."""
    python = make_interpreter(tmp_path, STAND_IN_GOLDEN=golden)
    output = tmp_path / "figures.json"
    engine = ["engine=simpler", f"engine.python={python}", "engine.timeout=60", "num_envs=4"]
    tasks = ["task=widowx_stack_cube,widowx_put_eggplant_in_basket", f"golden={golden}", f"output={output}"]
    cli.run("parity", parity.main, [*engine, *tasks])
    figures = json.loads(output.read_text())
    assert (figures["engine"], figures["look"]) == ("simpler", "original")
    for row in figures["tasks"]:
        assert row["object_mm"] < 0.001
        assert row["object_deg"] < 0.1
        assert row["projection_px"] < 0.05
        assert row["tcp_mm"] < 0.01
        assert (row["recalled"], row["successes"]) == (4, 4)
        assert (row["false_successes"], row["failures"]) == (0, 3)
        assert max(replay["source_max_mm"] for replay in row["replays"]) < 0.001
    (robot,) = figures["robots"]
    assert [free["sequence"] for free in robot["free"]] == ["00", "01", "02", "06", "08"]
    for free in robot["free"]:
        assert free["max_mm"] < 0.01
        assert free["max_deg"] < 0.01


@pytest.mark.golden
@pytest.mark.slow
@pytest.mark.parametrize("task", ["widowx_stack_cube", "google_robot_open_top_drawer"])
def test_parity_of_pictures_played_back(golden: Path, tmp_path: Path, task: str) -> None:
    """Also of drawers that were opened: the stand-in shows a recorded image only where all stands as recorded."""
    python, output = make_interpreter(tmp_path, STAND_IN_GOLDEN=golden), tmp_path / "figures.json"
    engine = ["engine=simpler", f"engine.python={python}", "engine.timeout=60", "figures=pictures"]
    cli.run("parity", parity.main, [*engine, f"task={task}", f"golden={golden}", f"output={output}"])
    (row,) = json.loads(output.read_text())["pictures"]
    assert len(row["pictures"]) > 2
    assert (row["least_iou"], row["ssim"], row["whole_ssim"]) == (1, pytest.approx(1), pytest.approx(1))


def test_episodes_that_were_tried_again_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two of four: one fails once and then goes through, one fails again. Innocent neighbours do not count."""
    python = make_interpreter(tmp_path, faults={f"{CARROT_ENV}:1": "die once", f"{CARROT_ENV}:2": "die"})
    score(tmp_path, python, "task=widowx_carrot_on_plate", "episodes=4", "num_envs=3", "report=true")
    said = capsys.readouterr().out
    assert "2 episodes were tried again (widowx_carrot_on_plate 2); errors that remain: 1." in said
    assert "<span>2 tried again after a simulator failure</span>" in (tmp_path / "run" / "report.html").read_text()
    again = [entry for entry in read_timing(tmp_path / "run") if entry["event"] == "retry"]
    assert sorted(entry["layout"] for entry in again) == ["grid:1", "grid:2"]
    assert all("signal SIGSEGV" in entry["error"] for entry in again)


def incomplete(folder: Path, *meshes: str, **variables: Any) -> Path:
    """An interpreter whose data folder holds these stage meshes only."""
    stages = folder / "data" / "hab2_bench_assets" / "stages"
    stages.mkdir(parents=True)
    for mesh in meshes:
        (stages / mesh).touch()
    return make_interpreter(folder, MS2_REAL2SIM_ASSET_DIR=folder / "data", **variables)


def test_eval_refuses_an_installation_without_a_mesh(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    python = incomplete(tmp_path, "bridge_table_1_v2.glb")
    with pytest.raises(SystemExit) as stopped:
        score(tmp_path, python, "task=widowx_stack_cube", "episodes=2", "num_envs=2")
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "widowx_stack_cube/default/grid:0 does not begin as the original does: baked_" in error
    assert "_cube_3cm is 19 m from its place, and 1 more (1 cm and 20 degrees are allowed)" in error
    assert (
        f"[SAPIEN] [error] Failed to load the mesh {tmp_path}/data/hab2_bench_assets/stages/bridge_table_1_v1" in error
    )
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists(), "nothing is stored of it"
    # The scene whose mesh is there can be scored.
    records = score(tmp_path, python, "task=widowx_put_eggplant_in_basket", "episodes=2", "num_envs=2")
    assert [record["success"] for record in records] == [True, False]


def doctor_says(
    python: Path | str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[int, dict[str, str]]:
    """Exit status, and what is said of each part of SimplerEnv; nothing else is examined."""
    monkeypatch.setattr(doctor, "examine", lambda output, simpler: doctor.examine_simpler(simpler))
    with pytest.raises(SystemExit) as stopped:
        cli.run("doctor", doctor.main, [f"simpler={python}"])
    lines = [line.split(": ", 1) for line in capsys.readouterr().out.splitlines() if line[9:].startswith("SimplerEnv")]
    return int(stopped.value.code or 0), {
        name[9:].removeprefix("SimplerEnv, "): name[:9] + text for name, text in lines
    }


BEGUN = [
    "widowx_spoon_on_towel", "widowx_put_eggplant_in_basket", "google_robot_pick_horizontal_coke_can",
    "google_robot_move_near_v0", "google_robot_open_top_drawer", "google_robot_place_apple_in_closed_top_drawer",
]  # fmt: skip


def failing(found: dict[str, str]) -> list[str]:
    return [name for name, text in found.items() if not text.startswith("works")]


@pytest.mark.golden
@pytest.mark.slow
def test_doctor_plays_recorded_episodes_of_every_kind_of_scene(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in plays the whole recordings back; the package's few kilobytes must agree with them."""
    status, found = doctor_says(make_interpreter(tmp_path, STAND_IN_GOLDEN=golden), capsys, monkeypatch)
    assert failing(found) == []
    assert status == 0
    begun = [name for name in found if name in BEGUN]
    assert begun == BEGUN
    for name in begun:
        assert found[name].startswith("works    begins as the original does; 640 x ")
        assert found[name].endswith("12 settings as asked for")
    played = [text for name, text in found.items() if name.startswith("recorded")]
    assert len(played) == 11
    assert all("goes and ends as it did (TCP within" in text for text in played)
    assert "sapien 2.2.2" in found["SimplerEnv's versions"]


@pytest.mark.golden
@pytest.mark.slow
def test_doctor_finds_a_wrong_control_frequency_and_an_old_version(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    python = make_interpreter(tmp_path, says={"control_freq": 10}, sapien="2.2.1", STAND_IN_GOLDEN=golden)
    status, found = doctor_says(python, capsys, monkeypatch)
    assert status == 1
    assert failing(found) == ["SimplerEnv's versions", *BEGUN[:2], *BEGUN[2:]]
    assert "sapien 2.2.1, not 2.2.2" in found["SimplerEnv's versions"]
    assert "it says of itself: control freq 10 where 5 was asked for" in found[BEGUN[0]]
    assert "it says of itself: control freq 10 where 3 was asked for" in found[BEGUN[2]]


@pytest.mark.golden
@pytest.mark.slow
def test_doctor_finds_the_one_mesh_that_is_missing(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that stands on it fails, and nothing else."""
    python = incomplete(
        tmp_path, "bridge_table_1_v1.glb", "google_pick_coke_can_1_v4.glb", STAND_IN_GOLDEN=golden
    )  # fmt: skip
    status, found = doctor_says(python, capsys, monkeypatch)
    assert status == 1
    eggplant = [name for name in found if "eggplant" in name]
    assert failing(found) == eggplant
    assert len(eggplant) == 3
    assert "stages/bridge_table_1_v2.glb" in found[BEGUN[1]]


def only(families: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: families[name] for name in names}


def test_doctor_finds_a_missing_mesh_and_episodes_that_go_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plain stand-in has no physics: whatever is played in it goes otherwise than in the original."""
    families, recorded = doctor._scene_families(), doctor.recorded_episodes()
    monkeypatch.setattr(doctor, "_scene_families", lambda: only(families, *BEGUN[:2]))
    monkeypatch.setattr(doctor, "recorded_episodes", lambda: [recorded[0], recorded[3]])
    status, found = doctor_says(incomplete(tmp_path, "bridge_table_1_v1.glb"), capsys, monkeypatch)
    assert status == 1
    spoon, eggplant = "recorded widowx_spoon_on_towel/grid:0", "recorded widowx_put_eggplant_in_basket/grid:4"
    assert [name.partition(" (")[0] for name in failing(found)] == [BEGUN[1], spoon, eggplant]
    assert "stages/bridge_table_1_v2.glb" in found[BEGUN[1]]
    assert "sink is 19 m from its place" in found[BEGUN[1]]
    said = {name.partition(" (")[0]: text for name, text in found.items()}
    assert "the TCP is" in said[spoon]
    assert "mm off its path; the manipulated thing is" in said[spoon]
    assert "does not begin as the original does" in said[eggplant]


@pytest.mark.slow
def test_doctor_where_simpler_env_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (silent,) = doctor.examine_simpler(None)
    assert not silent.works
    assert not silent.needed
    assert "doctor simpler=" in silent.remedy
    monkeypatch.delenv("PYTHONPATH", raising=False)
    status, found = doctor_says(sys.executable, capsys, monkeypatch)
    assert status == 1
    assert "No module named 'simpler_env'" in found["SimplerEnv"]


def test_what_the_original_would_ignore_is_refused_before_it_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """WidowX environments are prepackaged: they set what they are given of these. The step limit is the protocol's."""
    python = make_interpreter(tmp_path)
    for given, said in {
        "control_freq=10": "sets control_freq itself to 5",
        "scene_name=other": "sets scene_name itself",
        "robot=widowx_bridge_dataset_camera_setup": "sets robot itself",
        "max_episode_steps=99": "ends after the protocol's 60 control steps",
        "prepackaged_config=false": "the engine decides by the task",
    }.items():
        with pytest.raises(SystemExit) as stopped:
            score(tmp_path, python, "task=widowx_stack_cube", f"+engine.env_kwargs.{given}")
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert f"engine.env_kwargs.{given.split('=')[0]}=" in error
        assert "would be ignored" in error
        assert said in error
        assert "Traceback" not in error
    with pytest.raises(SystemExit):
        score(tmp_path, python, "task=widowx_stack_cube", "engine.env_kwargs=5")
    assert "must be names and values" in capsys.readouterr().err
    assert calls(tmp_path) == []
    assert not (tmp_path / "run").exists()


def test_a_run_keeps_what_it_was_run_with_and_says_what_departs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In its settings, in the terminal and in the report."""
    python = make_interpreter(tmp_path)
    given = "engine.env_kwargs={shader_dir: rt}"
    score(tmp_path, python, "task=widowx_stack_cube", "episodes=1", "report=true", given)
    stored = read_config(tmp_path / "run")["environment_settings"]["widowx_stack_cube"]
    assert (stored["control_freq"], stored["sim_freq"], stored["shader_dir"], stored["max_steps"]) == (5, 500, "rt", 60)
    (made,) = [entry["kwargs"] for entry in calls(tmp_path) if "make" in entry]
    assert made["shader_dir"] == "rt", "as the original was told"
    said = "Not the same protocol: shader dir rt here, ibl there; episodes per task 1 here, 240 there."
    assert said in capsys.readouterr().out
    assert said in (tmp_path / "run" / "report.html").read_text()


def test_what_the_original_says_of_itself_is_kept_and_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was asked for 5 Hz and says 10: the run's settings tell what it says, and the table that it is otherwise."""
    python = make_interpreter(tmp_path, says={"control_freq": 10, "rgb_overlay_mode": "debug"})
    score(tmp_path, python, "task=widowx_stack_cube", "episodes=1")
    stored = read_config(tmp_path / "run")["environment_settings"]["widowx_stack_cube"]
    assert (stored["control_freq"], stored["rgb_overlay_mode"], stored["sim_freq"]) == (10, "debug", 500)
    assert (stored["step_limit"], stored["max_steps"], stored["camera"]) == (60, 60, "3rd_view_camera 640x480")
    said = capsys.readouterr().out
    assert "control freq 10 here, 5 there" in said
    assert "rgb overlay mode debug here, background there" in said
    # The same command goes on with that run: nothing of it is another evaluation.
    score(tmp_path, python, "task=widowx_stack_cube", "episodes=1")


@pytest.mark.parametrize(("task", "variant"), [
    ("widowx_spoon_on_towel", "default"),
    pytest.param("google_robot_pick_coke_can", "distractors", marks=pytest.mark.slow),
])  # fmt: skip
def test_records_are_the_same_both_ways(tmp_path: Path, task: str, variant: str) -> None:
    """Built once and brought back, or built anew for each episode: records and states are equal to the byte."""
    found = []
    for rebuild in ("false", "true"):
        folder = tmp_path / rebuild
        python = make_interpreter(folder)
        settings = [f"task={task}", f"variant={variant}", "episodes=3", "num_envs=1"]
        records = score(folder, python, *settings, f"engine.rebuild={rebuild}")
        states = [read_states(folder / "run", record) for record in records]
        found.append((records, states, sum("make" in entry for entry in calls(folder))))
    (kept, kept_states, once), (built, built_states, each) = found
    assert kept == built
    for a, b in zip(kept_states, built_states, strict=True):
        assert a.keys() == b.keys()
        assert all(np.array_equal(a[name], b[name]) for name in a)
    assert (once, each) == (1, 3)


def test_only_so_many_workers_as_the_memory_has_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda *_: 2.2e9)
    python = make_interpreter(tmp_path)
    score(tmp_path, python, "task=widowx_stack_cube", "episodes=8", "num_envs=8")
    said = "room for 5 of 8 environments of engine=simpler: 5 episodes run at the same time"
    assert said in capsys.readouterr().err
    assert len(list((tmp_path / "log").glob("*.jsonl"))) == 5
