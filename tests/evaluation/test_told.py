from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlaser_gym.cli import load
from vlaser_gym.evaluation import video
from vlaser_gym.evaluation.evaluator import EvalSettings, evaluate
from vlaser_gym.evaluation.store import read_records, read_states
from vlaser_gym.evaluation.told import changes, instructions_told
from vlaser_gym.evaluation.video import render_videos

APPLE = "google_robot_place_apple_in_closed_top_drawer"
OPEN, PLACE = "open top drawer", "place apple into top drawer"


class Declares:
    """Stands still in chunks of four, and says in its decision after 8 steps that the drawer is open."""

    observes = ("instruction",)

    def __init__(self) -> None:
        self.heard: list[str] = []

    def reset(self, lanes: Any, addresses: Any) -> None:
        pass

    def act(self, observations: Any, lanes: Any) -> np.ndarray:
        self.heard += observations["instruction"]
        return np.zeros((len(lanes), 4, 7))

    def subtask_done(self, lanes: Any) -> np.ndarray:
        return np.full(len(lanes), len(self.heard) == 3)


class GreyRenderer:
    def __init__(self, look: str, batch: int, processes: int | None, assets: str | None = None) -> None:
        pass

    def frames(self, task: str, variant: str, states: Sequence[Any], camera: str | None = None) -> np.ndarray:
        return np.zeros((len(states), 512, 640, 3), np.uint8)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("told") / "run"
    settings = [f"task={APPLE}", "episodes=1", "num_envs=1", "engine.threads=1", f"run={path}", "agent=random"]
    agent = Declares()
    evaluate(EvalSettings.from_config(load("eval", settings)), agent=agent)
    assert agent.heard == [OPEN] * 3 + [PLACE] * 47, "what the agent was told, decision after decision"
    return path


def test_states_say_what_was_told_after_every_step(run: Path) -> None:
    """The step after the declaration is the first whose end tells the second instruction."""
    (record,) = read_records(run)
    states = read_states(run, record)
    assert states["instruction"].tolist() == [OPEN] * 9 + [PLACE] * 192
    assert states["stage"].tolist() == [0] * 9 + [1] * 192
    assert changes(instructions_told(record, states)) == [(0, OPEN), (9, PLACE)]
    # Numpy alone reads them.
    with np.load(run / record["states"]) as plain:
        assert plain["instruction"][-1] == PLACE


def test_the_sentences_take_next_to_no_room(run: Path) -> None:
    (record,) = read_records(run)
    states = read_states(run, record)
    assert states["instruction"].nbytes > 20_000
    (file,) = (run / "states").iterdir()
    numbers = sum(values.nbytes for name, values in states.items() if name != "instruction")
    assert file.stat().st_size - numbers < 5_000


def captions(run: Path, record: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the video says below its images."""
    said: list[str] = []
    real = video.draw_caption
    monkeypatch.setattr(video, "SceneRenderer", GreyRenderer)
    monkeypatch.setattr(video, "draw_caption", lambda p, c: (said.append(c["instruction"]), real(p, c))[1])
    list(render_videos(run, [record], folder))
    monkeypatch.undo()
    return said


def test_the_video_shows_the_instruction_of_the_stage(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (record,) = read_records(run)
    assert captions(run, record, tmp_path, monkeypatch) == [OPEN] * 9 + [PLACE] * 192


def test_runs_of_before_do_not_claim_what_they_do_not_know(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (record,) = read_records(run)
    monkeypatch.setattr(video, "read_states", lambda *_: {k: v for k, v in states.items() if k != "instruction"})
    states = read_states(run, record)
    said = captions(run, record, tmp_path, monkeypatch)
    assert said[0] == OPEN
    assert set(said[1:]) == {f"unknown (at the start: {OPEN})"}


def test_without_stages_the_one_instruction_holds_in_older_runs_too() -> None:
    record = {"task": "widowx_stack_cube", "variant": "default", "layout": "grid:0", "steps": 3, "instruction": "stack"}
    assert instructions_told(record, {}) == ["stack"] * 4
    assert changes(["a", "a", "b", "b", "a"]) == [(0, "a"), (2, "b"), (4, "a")]
