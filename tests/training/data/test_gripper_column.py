"""What the last number of the actions means, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vlaser_gym.errors import GymError
from vlaser_gym.training.data.gripper_column import GripperColumn


@pytest.mark.parametrize(
    ("text", "robot", "values", "openness"),
    [
        (None, "widowx", [1, 0, -1], [1, 0, 0]),
        ("command", "widowx", [1, 0.5, -1], [1, 1, 0]),
        ("command", "google_robot", [1, 0, -1], [0, 0.5, 1]),
        ("open", "google_robot", [1, 0, 0.25], [1, 0, 0.25]),
        ("closed", "widowx", [1, 0, 0.25], [0, 1, 0.75]),
        ("width:0.08", "widowx", [0.08, 0, 0.02, 0.083], [1, 0, 0.25, 1]),
    ],
)
def test_openness(text, robot, values, openness):
    column = GripperColumn.parse(text)
    assert not column.wrong(values, robot, of_this_gym=text is None).any()
    np.testing.assert_allclose(column.openness(np.array(values, float), robot), openness, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "robot", "values", "wrong"),
    [
        (None, "widowx", [1, -1, 0, 0.08], [0, 0, 0, 1]),
        (None, "google_robot", [1, -1, 0, 0.08], [0, 0, 0, 1]),
        # 0 and 1 would close the Google Robot's gripper and never open it.
        (None, "google_robot", [1, 0, 0, 1], [1, 1, 1, 1]),
        ("command", "widowx", [1, -1, 0.3, 255], [0, 0, 0, 1]),
        ("open", "widowx", [0, 1.04, 1.06, -1], [0, 0, 1, 1]),
        ("width:0.08", "widowx", [0, 0.08, 0.09, 1], [0, 0, 1, 1]),
    ],
)
def test_what_a_meaning_does_not_allow_is_found(text, robot, values, wrong):
    found = GripperColumn.parse(text).wrong(values, robot, of_this_gym=False)
    np.testing.assert_array_equal(found, np.array(wrong, bool))


@pytest.mark.parametrize("text", ["width", "width:", "width:0", "width:-1", "width:wide", "width:nan", "opened", ""])
def test_other_words_are_refused(text):
    with pytest.raises(GymError, match="gripper"):
        GripperColumn.parse(text)
