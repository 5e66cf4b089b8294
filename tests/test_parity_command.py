"""The command that says how far an engine is from the original."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlaser_gym import cli
from vlaser_gym.commands import parity
from vlaser_gym.envs.tasks import get_task


def run(*overrides: str) -> int:
    try:
        cli.run("parity", parity.main, list(overrides))
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("figures=pictures",), "add look=original"),
        (("look=original", "figures=pixels"), "Unknown figures 'pixels'"),
        (("num_envs=0",), "num_envs must be at least 1"),
        (("figures=bridge",), "add engine=maniskill"),
        (("engine=maniskill", "figures=bridge", "task=google_robot_move_near"), "use task=widowx"),
    ],
)
@pytest.mark.golden
def test_bad_settings_get_one_sentence(
    golden: Path, words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(f"golden={golden}", *words) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("output=file/parity.json",), "Cannot write output=file/parity.json"),
        (("output=folder",), "Cannot write output=folder: expected a file"),
        (("beside=file",), "Cannot write beside=file"),
        (("engine.threads=x",), "engine.threads must be a whole number from 0 on; got 'x'"),
        (("engine=maniskill", "engine.processes=0"), "engine.processes must be a whole number from 1 on; got 0"),
    ],
)
def test_what_would_fail_after_all_the_work_is_refused_at_the_door(
    words: tuple[str, ...],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parity, "Recordings", lambda *_: pytest.fail("went on"))
    Path("file").touch()
    Path("folder").mkdir()
    assert run(*words) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_a_task_without_recordings_is_a_row_of_dashes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "golden" / "reset").mkdir(parents=True)
    output = tmp_path / "new" / "parity.json"
    assert run("task=google_robot_pick_object", f"golden={tmp_path / 'golden'}", f"output={output}") == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "google_robot_pick_object" in line)
    assert [cell.strip() for cell in row.strip("| ").split("|")[1:]] == ["-"] * 8
    (task,) = json.loads(output.read_text())["tasks"]
    assert (task["object_mm"], task["successes"], task["replays"]) == (None, 0, [])


def test_settled_poses_stand_in_for_resets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A cube (layout 850) recorded 3 mm and 4 mm from where it starts here, and turned by 60 instead of 90 degrees."""
    (tmp_path / "reset").mkdir()
    x, y, z, *_ = get_task("google_robot_pick_object").layout("grid:850").object_pose[0]
    turned = {"pose": [x + 0.003, y - 0.004, z, 0.8660254, 0.0, 0.0, 0.5]}
    (tmp_path / "settled_poses_google_pick_object.json").write_text(json.dumps({"layouts": {"850": turned}}))
    assert run("task=google_robot_pick_object", f"golden={tmp_path}") == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "google_robot_pick_object" in line)
    cells = [cell.strip() for cell in row.strip("| ").split("|")[1:]]
    assert cells[0] == "5.000"
    assert float(cells[1]) == pytest.approx(30.0, abs=0.01)
    assert cells[2:] == ["-"] * 6


@pytest.mark.golden
def test_pictures_need_the_pack_and_say_so(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"golden={golden}", "look=original", "figures=pictures", f"engine.assets={tmp_path}") == 2
    assert "assets fetch" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.golden
def test_the_table_holds_the_figures_and_a_pair_is_drawn(
    golden: Path, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assets = shared / "assets/simplerenv"
    words = ("task=widowx_stack_cube", "look=original", "figures=pictures", f"engine.assets={assets}")
    assert run(*words, f"golden={golden}", f"beside={tmp_path}/pairs") == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "widowx_stack_cube" in line)
    pictures, least, alone, iou, ssim, photograph, _ = (float(cell) for cell in row.strip("| ").split("|")[1:])
    assert pictures == 4
    assert least >= 0.95
    assert alone >= 0.99
    assert iou >= least
    assert ssim >= 0.7 > photograph
    assert (tmp_path / "pairs" / "widowx_stack_cube.png").is_file()
