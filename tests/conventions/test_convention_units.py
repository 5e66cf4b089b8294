from __future__ import annotations

import numpy as np
import pytest

from vlaser_gym.conventions import CONVENTIONS, get_convention
from vlaser_gym.conventions.units import doubted_units


def actions(*rows: list[float]) -> np.ndarray:
    return np.array([[*row, 0.0] for row in rows])


@pytest.mark.parametrize(("robot", "reach"), [("widowx", 0.66), ("google_robot", 1.11)])
def test_the_borders_are_the_reach_and_half_a_turn(robot: str, reach: float) -> None:
    convention = get_convention(robot)
    for inside in ([reach - 0.01, 0, 0, 0, 0, 0], [0, 0, 0, 0, -3.14, 0], [0.3, 0.3, 0.3, 1.5, 1.5, 1.5]):
        assert doubted_units(convention, actions(inside, [0.0] * 6, inside)) == ""
    for outside in ([0, 0, -reach - 0.01, 0, 0, 0], [0, 0, 0, 0, 3.15, 0], [reach, reach, 0, 0, 0, 0]):
        assert f"{robot} reaches {reach} m" in doubted_units(convention, actions(outside, [0.0] * 6, outside))


def test_a_single_stray_step_passes() -> None:
    """Bridge's recordings hold a few turns by 6.28 rad: an angle that wrapped around."""
    convention = get_convention("widowx")
    assert doubted_units(convention, actions([0.0] * 6, [0, 0, 0, 0, 0, 6.28], [0.0] * 6)) == ""
    assert doubted_units(convention, actions([0, 0, 0, 0, 0, 6.28], [0.0] * 6, [0, 0, 0, 0, 0, -6.28])) != ""


def test_the_gripper_is_no_matter_of_metres() -> None:
    wide = np.zeros((4, 7))
    wide[:, 6] = 100
    assert not any(doubted_units(convention, wide) for convention in CONVENTIONS.values())


def test_the_largest_step_of_all_is_named_with_what_it_may_be() -> None:
    """Hand-computed lengths: 3, 4, 0 is 5 long; 2, 3, 6 is 7."""
    convention = get_convention("widowx")
    said = doubted_units(convention, actions([0.01] * 6, [0, 0, 0, 2, 3, 6], [0, 0, 0, 0, 3, 4], [0.1] * 6))
    assert said.startswith("the largest step is 0.17 m and 7.00 rad")
    assert said.endswith("no turn exceeds 3.14 rad): degrees?")
    said = doubted_units(convention, actions([3, 4, 0, 2, 3, 6], [1.0] * 6, [0.0] * 6))
    assert said.startswith("the largest step is 5.00 m and 7.00 rad")
    assert said.endswith("millimetres or degrees?")
    assert doubted_units(convention, actions([1.0] * 6, [1.0] * 6)).endswith(": normalised numbers or millimetres?")


def test_an_episode_without_a_step_is_not_doubted() -> None:
    assert doubted_units(get_convention("widowx"), np.zeros((0, 7))) == ""
