from __future__ import annotations

import io
import re

from rich.console import Console

from vlaser_gym.training.progress import TrainingProgress


def test_a_pipe_gets_a_line_now_and_then_success_first(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("vlaser_gym.training.progress.time.monotonic", lambda: now[0])
    out = io.StringIO()
    with TrainingProgress(Console(file=out, width=80), "iteration", 100) as progress:
        for done in range(1, 101):
            now[0] += 10
            progress.report({"step": 1.0, "train/approx_kl": 0.0123, "rollout/success_rate": 0.5, "other": 3.0})
            progress.advance(done)
    lines = out.getvalue().splitlines()
    assert len(lines) == 15, "one a minute, and the last"
    assert lines[0] == "iteration 7/100  rollouts 50 %  approx kl 0.0123, 11.7 s each, 18 min left"
    assert lines[-1] == "iteration 100/100  rollouts 50 %  approx kl 0.0123, 10.1 s each"


def test_a_terminal_gets_a_bar_that_fits_80_columns(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("vlaser_gym.training.progress.time.monotonic", lambda: now[0])
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None)
    with TrainingProgress(console, "iteration", 200) as progress:
        progress.report({"success/mean": 0.75, "rollout/success_rate": 0.5, "train/approx_kl": 0.01})
        now[0] += 3
        progress.advance(50)
        now[0] += 6
        progress.advance(74)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue()).replace("\r", "\n").splitlines()
    assert any("74/200" in line and "success 75 %" in line for line in shown), shown
    assert any("74/200" in line and "2.67 a second" in line for line in shown), "9 s for 24 after the first 50"
    assert max(len(line) for line in shown if "200" in line) <= 80
