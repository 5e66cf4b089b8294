"""Rules on courses that are written down by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from vlaser_gym.evaluation.diagnosis import rules
from vlaser_gym.evaluation.diagnosis.events import Event

STEPS = 10


def late_opening() -> SimpleNamespace:
    """The drawer opens from step 3 to step 8 although the second stage began at step 5; the apple is never touched."""
    opening = np.clip(np.arange(STEPS) - 3, 0, 5) * 0.05
    return SimpleNamespace(
        stage=(np.arange(STEPS) >= 5).astype(int),
        drawers={"top": opening},
        goal_drawer="top",
        source=0,
        source_name="apple",
        held=np.zeros((STEPS, 1), bool),
        touched=np.zeros((STEPS, 1), bool),
        shift=lambda index: np.zeros(STEPS),
    )


@pytest.mark.parametrize("closed_beside_it", [False, True])
def test_who_opens_late_and_then_misses_the_object_did_not_stay_in_the_first_stage(closed_beside_it: bool) -> None:
    events = [Event(step=4, kind="drawer", what="top drawer", offset=None, amount=0.25)]
    if closed_beside_it:
        events.append(Event(step=9, kind="closed", what="apple", offset=(0.0, 0.05, 0.0), amount=0.0))
    cause = rules._wrong_stage(late_opening(), tuple(events))
    assert (cause is None) is closed_beside_it
    assert closed_beside_it or cause.sentence.startswith("went on with the drawer")
