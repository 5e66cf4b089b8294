from __future__ import annotations

from pathlib import Path

import pytest

from vlaser_gym.errors import StorageError
from vlaser_gym.training.metrics import read_metrics

ROWS = [{"step": 0, "loss": 2.0}, {"step": 5, "loss": 1.5}]
LINES = '{"step": 0, "loss": 2.0}\n{"step": 5, "loss": 1.5}\n'


@pytest.mark.parametrize("tail", ["", '{"step": 7, "lo', '{"step": 7, "lo\n'])
def test_a_cut_last_line_is_left_out(tmp_path: Path, tail: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(LINES + tail)
    assert read_metrics(tmp_path / "metrics.jsonl") == ROWS
    assert read_metrics(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("line", ["", "{}", '{"step": "5"}', '{"step": 5, "step": 6}', '{"a":' * 100_000])
def test_damage_further_up_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    """It used to cut off all rows after it, which the next start then deleted from the file."""
    (tmp_path / "metrics.jsonl").write_text(f"{line}\n{LINES}")
    with pytest.raises(StorageError, match=r"Line 1 of .*metrics\.jsonl is damaged: expected"):
        read_metrics(tmp_path / "metrics.jsonl")
