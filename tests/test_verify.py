from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlaser_gym import cli
from vlaser_gym.agents.vlaser.checkpoint import load_pretrained, save_pretrained
from vlaser_gym.agents.vlaser.shipped import SHIPPED
from vlaser_gym.commands.verify import main
from vlaser_gym.evaluation.store import RunStore, read_records, read_summary
from vlaser_gym.training.trainer_state import write_state

CONFIG = {"task": "widowx_stack_cube", "episodes": 2, "engine": {"name": "mujoco"}, "agent": {"name": "random"}}


def verify(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        cli.run("verify", main, cli.named(words, "path"))
    captured = capsys.readouterr()
    return int(str(ended.value.code)), captured.out + captured.err


def record(layout: int) -> dict[str, object]:
    flags = {"moved_correct_obj": True, "is_src_obj_grasped": True, "consecutive_grasp": True, "success": True}
    flags |= {"src_on_target": True}
    where = {"task": "widowx_stack_cube", "variant": "default", "layout": f"grid:{layout}", "trial": 0}
    who = {"instruction": "x", "agent": "random", "engine": "mujoco", "engine_version": "1", "look": "builtin"}
    outcome = {"success": True, "success_any": True, "first_success_step": 1, "steps": 3, "reward": 1.0}
    return {**where, **who, **outcome, "ending": "truncated", "flags": flags, "flags_any": flags, "error": None}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with RunStore(tmp_path / "run", CONFIG) as store:
        for layout in range(2):
            store.add(record(layout), None)
    return tmp_path / "run"


def test_a_run_is_whole_or_its_line_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = verify(capsys, str(run))
    assert (code, "2 episodes" in said, "Everything is as it was written." in said) == (0, True, True), said
    lines = (run / "episodes.jsonl").read_bytes()
    (run / "episodes.jsonl").write_bytes(lines.replace(b'"steps": 3', b'"steps": 4', 1))
    code, said = verify(capsys, str(run))
    assert code == 1
    assert "wrong    Line 1 of" in said
    assert "1 things are wrong" in said


def test_a_summary_is_made_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read_summary(run) is None
    before = read_records(run)
    code, said = verify(capsys, str(run), "rebuild=true")
    assert code == 0, said
    summary = read_summary(run)
    assert summary is not None
    assert summary["tasks"][0]["n"] == 2
    assert (run / "report.html").is_file()
    assert read_records(run) == before


def test_a_policy_with_a_flipped_bit_is_not_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_pretrained(load_pretrained(SHIPPED / "nano"), tmp_path)
    assert verify(capsys, str(tmp_path))[0] == 0
    file = tmp_path / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 4
    file.write_bytes(data)
    code, said = verify(capsys, str(tmp_path))
    assert (code, "another checksum" in said) == (1, True)


def test_a_training_run_is_read_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_state(tmp_path / "trainer.pt", {"step": 1})
    (tmp_path / "settings.json").write_text(json.dumps({"algo": {"name": "sft"}}))
    assert verify(capsys, str(tmp_path))[0] == 0
    (tmp_path / "settings.json").write_text("{")
    (tmp_path / "trainer.pt").write_bytes((tmp_path / "trainer.pt").read_bytes()[:-30])
    code, said = verify(capsys, str(tmp_path))
    assert (code, "2 things are wrong" in said) == (1, True), said
    assert verify(capsys, str(tmp_path), "rebuild=true")[0] == 2


def test_a_folder_of_something_else_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = verify(capsys, str(tmp_path))
    assert (code, "it is none of them" in said) == (2, True)
