from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from vlaser_gym.errors import StorageError
from vlaser_gym.training import metrics
from vlaser_gym.training.metrics import MetricLogger, read_metrics

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


def test_pictures_take_a_hundredth_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One takes 4 s here: the next is due 400 s after it, and the last one at the end."""
    now, drawn = [0.0], []

    def draw(*_: object) -> None:
        drawn.append(now[0])
        now[0] += 4.0

    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(metrics, "draw_curves", draw)
    logger = MetricLogger(tmp_path)
    for _ in range(500):
        now[0] += 2.0
        logger.draw(every=30.0)
    logger.close()
    assert drawn[0] == 30.0
    assert all(later - sooner >= 400.0 for sooner, later in pairwise(drawn[:-1]))
    assert len(drawn) == 4
