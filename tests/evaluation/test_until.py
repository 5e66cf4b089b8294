"""Evaluations that stop as soon as they know whether the agent is better than a baseline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_env import make_fake_env
from test_evaluator import files, score, settings

from vlaser_gym import cli
from vlaser_gym.commands import eval as eval_command
from vlaser_gym.errors import InvalidConfigError, StorageError
from vlaser_gym.evaluation import evaluator
from vlaser_gym.evaluation.comparison import tango
from vlaser_gym.evaluation.evaluator import evaluate
from vlaser_gym.evaluation.sequential import UntilDecided
from vlaser_gym.evaluation.store import address_of, read_records

LONG = ("episodes=24", "trials=3")
UNTIL = (*LONG, "until=decided", "baseline=5%")


def summary(run: Path) -> dict[str, Any]:
    return json.loads((run / "summary.json").read_text())


def test_it_stops_when_the_question_is_answered(tmp_path: Path) -> None:
    """Recompute the verdict from the records, in the order that does not depend on the environments."""
    assert score(tmp_path / "run", *UNTIL, "num_envs=4").complete
    records = {address_of(r): r["success"] for r in read_records(tmp_path / "run")}
    assert len(records) < 144 / 2
    said = summary(tmp_path / "run")["sequential"]
    test = UntilDecided([address_of(r) for r in full_run(tmp_path)], 0.05)
    for end in range(said["episodes"]):
        assert test({address: records[address] for address in test.plan[:end]}) is None
    test(records)
    assert test.verdict == said["verdict"] == "better"
    assert (said["wins"], said["losses"]) == (test.wins, test.losses)
    assert (said["errors"], said["interval_of"]) == (0, "rate")
    assert said["low"] > 0.05
    assert said["reason"] == f"better than 5.0 % after {test.n} episodes (error level 5 %)"
    assert said["episodes"] <= len(records) < said["episodes"] + 4, "what ran is stored, nothing else was begun"


def full_run(folder: Path) -> list[Any]:
    score(folder / "full", *LONG)
    return read_records(folder / "full")


def test_the_verdict_does_not_depend_on_lanes_or_interruptions(tmp_path: Path) -> None:
    verdicts = []
    for lanes in (1, 8):
        score(tmp_path / str(lanes), *UNTIL, f"num_envs={lanes}")
        verdicts.append(summary(tmp_path / str(lanes))["sequential"])

    def interrupt(record: Any) -> None:
        raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            score(tmp_path / "run", *UNTIL, "num_envs=1", on_episode=interrupt)
    assert len(read_records(tmp_path / "run")) == 3
    score(tmp_path / "run", *UNTIL, "num_envs=1")
    assert verdicts[0] == verdicts[1] == summary(tmp_path / "run")["sequential"]
    assert files(tmp_path / "run") == files(tmp_path / "1")


def test_a_decided_run_is_not_run_again(tmp_path: Path) -> None:
    score(tmp_path / "run", *UNTIL)
    before = files(tmp_path / "run")
    assert score(tmp_path / "run", *UNTIL, on_episode=lambda record: pytest.fail("ran again")).complete
    assert files(tmp_path / "run") == before


def test_against_a_run_and_undecided(tmp_path: Path) -> None:
    """The same agent again: every pair is alike, so nothing can be decided and every episode is run."""
    score(tmp_path / "first", *LONG)
    score(tmp_path / "second", *LONG, "until=decided", f"baseline={tmp_path / 'first'}")
    said = summary(tmp_path / "second")["sequential"]
    assert said["verdict"] is None
    assert said["reason"] == "undecided after all 144 episodes (error level 5 %)"
    assert (said["wins"], said["losses"]) == (0, 0)
    low, high = tango(0, 0, 48, 0.95)
    assert (said["low"], said["high"]) == pytest.approx((low, high)), "48 layouts that agree count as 48 pairs"
    assert said["interval_of"] == "difference"


def test_a_crash_of_the_simulator_holds_nothing_up(tmp_path: Path) -> None:
    """The crashed episode counts as a failure at its place in the order."""
    score(tmp_path / "run", *UNTIL, "num_envs=4")
    plan = UntilDecided([address_of(r) for r in full_run(tmp_path)], 0.05).plan
    crash = f"engine.crash_on=[{plan[1]}]"
    score(tmp_path / "crash", *UNTIL, "num_envs=4", crash)
    (failed,) = [r for r in read_records(tmp_path / "crash") if r["error"]]
    assert address_of(failed) == plan[1]
    assert len(read_records(tmp_path / "crash")) < 144 / 2


def test_pairs_with_a_crash_are_left_out(tmp_path: Path) -> None:
    """The same agent again, with crashes in either run: what crashed is no loss and no win."""
    every = [address_of(r) for r in full_run(tmp_path)]
    here, there = (f"engine.crash_on=[{every[k]},{every[k + 50]}]" for k in (3, 7))
    score(tmp_path / "first", *LONG, there)
    score(tmp_path / "second", *LONG, here, "until=decided", f"baseline={tmp_path / 'first'}")
    said = summary(tmp_path / "second")["sequential"]
    assert (said["wins"], said["losses"], said["errors"]) == (0, 0, 4)
    assert said["reason"].startswith("undecided after all 144 episodes, 4 left out for simulator errors")


def test_a_run_of_the_order_before_goes_on(tmp_path: Path) -> None:
    """Until this version episodes ran in one random order: what such a run holds is used, the rest is run."""
    score(tmp_path / "whole", *UNTIL, "num_envs=1")
    every = [address_of(r) for r in full_run(tmp_path)]
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.yaml").write_bytes((tmp_path / "whole" / "config.yaml").read_bytes())
    lines = {address_of(r): r for r in read_records(tmp_path / "full")}
    held = [every[k] for k in np.random.default_rng(20250131).permutation(len(every))[:20]]
    (tmp_path / "old" / "episodes.jsonl").write_text("".join(json.dumps(lines[x]) + "\n" for x in held))
    shutil.copytree(tmp_path / "full" / "states", tmp_path / "old" / "states")
    score(tmp_path / "old", *UNTIL, "num_envs=1")
    assert summary(tmp_path / "old")["sequential"] == summary(tmp_path / "whole")["sequential"]
    assert set(held) <= {address_of(r) for r in read_records(tmp_path / "old")}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("until=decided",), "go together"),
        (("baseline=0.5",), "go together"),
        (("until=bored", "baseline=0.5"), "until must be decided or null; got 'bored'"),
        (("until=decided", "baseline=nothing"), "run directory or a success rate"),
        (("until=decided", "baseline=0"), "strictly between 0 and 1"),
        (("until=decided", "baseline=0.5", "level=1.5"), "level must be above 0 and below 1; got 1.5"),
    ],
)
def test_bad_questions_are_one_sentence_and_leave_nothing(
    tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InvalidConfigError, match=message) as caught:
        score(tmp_path / "run", *overrides)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_baseline_without_the_episodes_or_another_question_is_refused(tmp_path: Path) -> None:
    score(tmp_path / "short", "episodes=2")
    with pytest.raises(InvalidConfigError, match="lacks 136 of 144 episodes"):
        score(tmp_path / "run", *LONG, "until=decided", f"baseline={tmp_path / 'short'}")
    score(tmp_path / "run", *UNTIL)
    with pytest.raises(StorageError, match=r"baseline was '5%', now 0\.1"):
        score(tmp_path / "run", *LONG, "until=decided", "baseline=0.1")


def test_tasks_of_several_robots_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluator, "by_robot", lambda tasks: {"a": [], "b": []})
    with pytest.raises(InvalidConfigError, match="one robot"):
        settings(tmp_path / "run", "task=widowx", *UNTIL).until_decided([])


def test_the_command_says_it_and_leaves_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        eval_command,
        "evaluate",
        lambda settings, *hooks, **more: evaluate(settings, *hooks, **more, make_env=make_fake_env),
    )
    base = ["agent._target_=fake_env.Reacher", "task=widowx", "video=0", f"run={tmp_path / 'run'}"]
    cli.run("eval", eval_command.main, [*base, "until=decided", "baseline=5%"])
    printed = capsys.readouterr().out
    assert "Better than 5.0 % after" in printed
    assert "The interval that holds whenever one stops: success" in printed
    assert "mean over 4 tasks: yours" in printed
    assert "Vlaser-QA (paper) 62.6" in printed, "published: Vlaser, table of the four WidowX tasks"
    assert "Not the same protocol" in printed
    assert f"Report: {tmp_path / 'run' / 'report.html'}" in printed
    assert "<html" in (tmp_path / "run" / "report.html").read_text()
    cli.run("eval", eval_command.main, [*base[:-1], "episodes=1", f"run={tmp_path / 'none'}", "report=false"])
    assert "Report" not in capsys.readouterr().out
    assert not (tmp_path / "none" / "report.html").exists()


def test_a_baseline_made_otherwise_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        eval_command,
        "evaluate",
        lambda settings, *hooks, **more: evaluate(settings, *hooks, **more, make_env=make_fake_env),
    )
    base = ["agent._target_=fake_env.Reacher", "video=0", "episodes=2", "report=false"]
    cli.run("eval", eval_command.main, [*base, "terminate_on_success=true", f"run={tmp_path / 'first'}"])
    capsys.readouterr()
    until = ["until=decided", f"baseline={tmp_path / 'first'}", f"run={tmp_path / 'second'}"]
    cli.run("eval", eval_command.main, [*base, *until])
    assert "Warning: terminate_on_success differs: True in first, False in second." in capsys.readouterr().out


def test_a_report_that_fails_leaves_the_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(
        eval_command,
        "evaluate",
        lambda settings, *hooks, **more: evaluate(settings, *hooks, **more, make_env=make_fake_env),
    )
    monkeypatch.setattr(eval_command, "write_report", fail)
    base = ["agent._target_=fake_env.Reacher", "task=widowx_stack_cube", "video=0", "episodes=2"]
    cli.run("eval", eval_command.main, [*base, f"run={tmp_path / 'run'}"])
    printed = capsys.readouterr().out
    assert "No report: the disk is full" in printed
    assert "widowx_stack_cube" in printed
