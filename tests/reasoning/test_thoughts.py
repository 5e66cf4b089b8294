"""What policies said on the way, judged and set against success."""

from __future__ import annotations

import numpy as np
import pytest

from vlaser_gym.errors import StorageError
from vlaser_gym.evaluation.statistics import wilson
from vlaser_gym.reasoning import thoughts
from vlaser_gym.reasoning.thoughts import Spoken, conditioned, read_spoken

STEPS = ["move there", "lift the can", "nothing, the task is done"]


@pytest.fixture
def run(monkeypatch):
    """One episode of five decisions, asked at every second one: right, wrong, and one that nobody can judge."""
    said = np.array(["move there", "move there", "Lift the can.", "Lift the can.", "banana"])
    states = {"decision": np.array([0, 4, 8, 12, 16]), "thought": said}
    monkeypatch.setattr(thoughts, "read_config", lambda path: {"agent": {"think": None if path == "silent" else 2}})
    monkeypatch.setattr(thoughts, "read_records", lambda path: [{"task": "t", "success": True}])
    monkeypatch.setattr(thoughts, "read_states", lambda path, record: states)
    monkeypatch.setattr(thoughts, "Episode", lambda *arguments: None)
    monkeypatch.setattr(thoughts, "subtasks", lambda episode, step: STEPS)
    monkeypatch.setattr(thoughts, "next_subtask", lambda episode, step: {0: 0, 8: 0, 16: None}[step])
    return "run"


def test_only_what_was_asked_counts_and_only_where_the_state_says(run):
    assert read_spoken(run) == [Spoken("t", True, right=1, wrong=1, unknown=1)]
    with pytest.raises(StorageError, match=r"agent\.think=4"):
        read_spoken("silent")


def test_success_is_split_by_what_most_answers_were():
    spoken = [Spoken("t", True, 3, 1, 0), Spoken("t", False, 2, 0, 0), Spoken("t", False, 1, 1, 0)]
    found = conditioned([*spoken, Spoken("t", True, 0, 0, 5)])
    right, wrong = found["mostly right"], found["mostly wrong"]
    assert (right.episodes, right.rate) == (2, 0.5)
    assert right.interval == wilson(1, 2)
    assert (wrong.episodes, wrong.rate) == (1, 0.0)
    assert conditioned([])["mostly right"].rate is None
