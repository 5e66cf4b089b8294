from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from vlaser_gym.agents.vlaser.shipped import SHIPPED
from vlaser_gym.cli import load
from vlaser_gym.commands.eval import main
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.checkpoints import CheckpointScore, checkpoint_table, draw_learning_curve, find_checkpoints
from vlaser_gym.evaluation.store import read_config, read_records
from vlaser_gym.evaluation.table import make_console


def _score(name: str, successes: int, n: int = 10) -> CheckpointScore:
    from vlaser_gym.evaluation.summary import _rate

    rate = _rate(successes, n)
    row = {"task": "widowx_stack_cube", "n": n, "stopped": False, "success": rate, "success_any": rate}
    return CheckpointScore(name, Path(name), {"tasks": [row], "mean": {"success": rate, "success_any": rate}})


def test_patterns_lists_and_single_checkpoints(tmp_path):
    for step in (400, 200, 1000):
        (tmp_path / "checkpoints" / f"{step:06d}").mkdir(parents=True)
    found = find_checkpoints(f"{tmp_path}/checkpoints/*")
    assert [Path(path).name for path in found] == ["000200", "000400", "001000"]
    assert find_checkpoints("nano") == ["nano"]
    assert find_checkpoints(["a", "b", "a"]) == ["a", "b"]
    assert find_checkpoints(None) == []
    with pytest.raises(InvalidConfigError, match=r"matches nothing; expected folders such as RUN/checkpoints/\*"):
        find_checkpoints(f"{tmp_path}/nothing/*")


def test_the_table_has_a_row_per_checkpoint_with_its_interval():
    console = make_console()
    with console.capture() as capture:
        console.print(checkpoint_table([_score("000200", 2), _score("000400", 7)], plain=True))
    shown = capture.get()
    # Wilson's 95 % interval of 2 and 7 of 10, worked out by hand with z = 1.95996
    assert "20.0 [5.7, 51.0]" in shown
    assert "70.0 [39.7, 89.2]" in shown


def test_the_curve_stands_over_the_step_where_the_names_are_steps():
    assert _score("run/000400", 1).step == 400
    assert _score("best", 1).step is None


@pytest.mark.parametrize("names", [("000200", "000400"), ("a/checkpoint", "b/checkpoint")])
def test_the_curve_is_drawn(tmp_path, names):
    draw_learning_curve([_score(name, 3 * i) for i, name in enumerate(names)], tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_each_checkpoint_has_a_run_of_its_own_and_the_command_goes_on(tmp_path, capsys):
    for step in ("000200", "000400"):
        shutil.copytree(SHIPPED / "nano", tmp_path / "checkpoints" / step)
    keys = [
        "task=widowx_carrot_on_plate",
        "agent=vlaser",
        f"checkpoint={tmp_path}/checkpoints/*",
        "episodes=1",
        "video=0",
        "report=false",
        f"run={tmp_path / 'runs'}",
    ]
    main(load("eval", keys))
    shown = capsys.readouterr().out
    assert shown.count("Checkpoint 000") == 2
    records = [read_records(tmp_path / "runs" / step) for step in ("000200", "000400")]
    assert [len(of) for of in records] == [1, 1]
    assert records[0] == records[1], "the same weights, the same episode"
    assert (tmp_path / "runs" / "learning_curve.png").exists()
    config = read_config(tmp_path / "runs" / "000400")
    assert config["checkpoint"].endswith("000400")
    main(load("eval", keys))
    assert "1 of 1 episodes are there already" in capsys.readouterr().out
