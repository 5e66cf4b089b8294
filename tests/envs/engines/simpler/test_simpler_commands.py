"""The commands on the engine, end to end, with the stand-in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stand_in_interpreter import calls, make_interpreter

from vlaser_gym import cli, doctor, parity
from vlaser_gym import eval as eval_command
from vlaser_gym.evaluation.store import read_config, read_records

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
    begun = [entry["options"]["obj_init_options"]["episode_id"] for entry in calls(tmp_path) if "reset" in entry]
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
    assert len(made) == 10
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


def test_doctor(tmp_path: Path, interpreter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctor.examine_simpler(str(interpreter))
    assert found.works
    assert not found.needed
    assert found.text.startswith("simpler_env ")
    assert "640 x 480" in found.text
    silent = doctor.examine_simpler(None)
    assert not silent.works
    assert "doctor simpler=" in silent.remedy
    monkeypatch.delenv("PYTHONPATH", raising=False)
    missing = doctor.examine_simpler(sys.executable)
    assert not missing.works
    assert "No module named 'simpler_env'" in missing.text
