"""Training runs that tell a tracker their numbers: exactly those of metrics.jsonl, whatever happens to the run."""

from __future__ import annotations

import dataclasses
import sys

import pytest
from demonstrations import TINY, write_set
from stand_in_trackers import install
from test_ppo import make, no_pictures  # noqa: F401  (a fixture)

from vlaser_gym.cli import load
from vlaser_gym.commands.train import main
from vlaser_gym.errors import DivergedError, InvalidConfigError
from vlaser_gym.evaluation.tracker import Tracker
from vlaser_gym.settings.training import TRACKERS, TrainSettings
from vlaser_gym.training.metrics import read_metrics

SMALL = ("device=cpu", "threads=1", "num_envs=2", "task=widowx_stack_cube", "tracker_project=mine")


def tracked(path, said=None, **changes):
    trainer = make(path, **changes)
    say = (said if said is not None else []).append
    trainer.options = dataclasses.replace(trainer.options, tracker=Tracker("wandb", "mine", path, {}, say), say=say)
    return trainer


def test_a_killed_run_has_each_row_once_and_as_it_is_in_the_end(tmp_path, monkeypatch):
    """Two iterations after the last checkpoint are lost and come again, with another learning rate."""
    package = install("wandb", monkeypatch)
    scores = iter([0.25, 0.5, 0.75])
    options = {"iterations": 6, "save_every": 3, "evaluate": lambda _: {"success/mean": next(scores)}, "every": 3}
    first = tracked(tmp_path, **options)
    step = first.step

    def killed():
        if first.done == 5:
            raise KeyboardInterrupt
        return step()

    first.step = killed
    with pytest.raises(KeyboardInterrupt):
        first.run()
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 6, "five iterations and an evaluation"
    assert len(package.rows) == 4
    assert tracked(tmp_path, **options, learning_rate=1e-4).run()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert package.rows == rows
    assert [row["step"] for row in rows] == [24, 48, 72, 72, 96, 120, 144, 144]
    assert [begun["resume"] for begun in package.begun] == [None, "allow"]
    assert package.ends == [1, 0]


@pytest.mark.parametrize("call", ["init", "log", "finish"])
def test_a_tracker_that_fails_costs_one_warning(tmp_path, monkeypatch, call):
    package = install("wandb", monkeypatch)
    package.broken = {call}
    said: list[str] = []
    assert tracked(tmp_path / "with", said).run()
    assert len([text for text in said if text.startswith("Warning: tracker=wandb failed (no network")]) == 1
    assert make(tmp_path / "without").run()
    rows = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("with", "without")]
    assert rows[0] == rows[1]


def test_a_run_that_ran_away_is_no_success(tmp_path, monkeypatch):
    """Case of a rate of 1: it ended as if all were well. What an evaluation says afterwards does not make it good."""
    package = install("wandb", monkeypatch)
    said: list[str] = []
    options = {"learning_rate": 1.0, "evaluate": lambda _: {"success/mean": 0.5}}
    for _ in range(2):
        with pytest.raises(
            DivergedError, match=r"^Training diverged: its last iteration .*lower algo\.learning_rate\.$"
        ):
            tracked(tmp_path, said, **options).run()
    assert "nat away from its rollout" in said[0]
    assert package.ends == [1]
    assert package.rows == read_metrics(tmp_path / "metrics.jsonl")
    assert (tmp_path / "checkpoint" / "model.safetensors").is_file()
    assert (tmp_path / "checkpoints" / "best" / "model.safetensors").is_file()


@pytest.mark.parametrize("name", TRACKERS)
def test_the_command_tells_what_it_stores(tmp_path, monkeypatch, name):
    package = install(name, monkeypatch)
    run = tmp_path / "run"
    tiny = [f"settings.{key}={value}" for key, value in TINY.items()]
    given = [f"tracker={name}", f"run={run}", f"data={write_set(tmp_path / 'set', 3)}", *tiny, "evaluate_episodes=0"]
    for steps in (4, 6):
        main(load("train", [*SMALL, *given, "algo.batch_size=4", "log_every=2", f"algo.steps={steps}"]))
    rows = read_metrics(run / "metrics.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert package.rows == rows
    assert package.begun[0]["config"]["algo"]["steps"] == 4
    assert package.begun[0]["project"] == "mine"
    assert "tracker" not in package.begun[0]["config"], "a run may go on without it"


def test_a_stock_algorithm_is_tracked_too(tmp_path, monkeypatch):
    package = install("wandb", monkeypatch)
    small = ["algo.timesteps=60", "algo.options.n_steps=30", "algo.options.batch_size=30", "evaluate_episodes=2"]
    main(load("train", [*SMALL, "algo=sb3_ppo", "tracker=wandb", f"run={tmp_path}/run", *small]))
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert package.rows == rows
    assert "evaluation/success" in rows[-1]


def test_an_absent_package_is_said_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(InvalidConfigError, match="pip install trackio"):
        main(load("train", ["tracker=trackio", f"run={tmp_path}/run"]))
    assert not (tmp_path / "run").exists()
    with pytest.raises(InvalidConfigError, match="tracker"):
        TrainSettings(tracker="mlflow")


def test_runs_of_before_the_keys_and_with_another_tracker_go_on():
    stored = TrainSettings().stored("nano")
    assert stored == TrainSettings(tracker="wandb", tracker_project="p", num_envs=3).stored("nano")
