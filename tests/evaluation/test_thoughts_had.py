"""What an agent said stands in every state until it says something else."""

from __future__ import annotations

import numpy as np

from vlaser_gym.evaluation.told import changes, thoughts_had
from vlaser_gym.evaluation.video import _with_thought


def test_a_thought_holds_from_its_decision_to_the_next():
    states = {"decision": np.array([0, 4, 8]), "thought": np.array(["a", "a", "bcd"])}
    found = thoughts_had(states, 10)
    assert found == ["a"] * 8 + ["bcd"] * 3
    assert changes(found) == [(0, "a"), (8, "bcd")]
    assert thoughts_had({"decision": np.array([0])}, 3) == []


def test_a_caption_has_both_its_note_and_the_thought():
    assert _with_thought("", []) == ""
    assert _with_thought("shown: x", ["lift it"]) == "shown: x   says: lift it"
