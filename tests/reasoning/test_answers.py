"""Answers in whatever form they come."""

from __future__ import annotations

import pytest

from vlaser_gym.reasoning.answers import read_box, read_choice, read_number, read_points


@pytest.mark.parametrize(
    ("answer", "points"),
    [
        ("<point>[[500, 250]]</point>", [(320, 120)]),
        ("<point>[[500.5, 250.0]]</point>", [(320.32, 120)]),
        ("Here you are: (500, 250).", [(320, 120)]),
        ("[(0.5, 0.25), (0.75, 1.0)]", [(320, 120), (480, 480)]),
        ("<point>[[500, 250], [1000, 1000], [12", [(320, 120), (640, 480)]),
        ("<point>[[500, 250]]</point> or <point>[[1, 1]]</point>", [(320, 120)]),
        ('<point x="50.0" y="25.0" alt="can">can</point>', [(320, 120)]),
        ("<think>[[1, 1]]</think><point>[[500, 250]]</point>", [(320, 120)]),
        ("<box>[[400, 200, 600, 300]]</box>", [(320, 120)]),
        ("<point>[[1500, 250]]</point>", []),
        ("It is on the left.", []),
        ("<think>maybe [[500, 250]]", []),
        ("", []),
    ],
)
def test_points(answer: str, points: list[tuple[float, float]]) -> None:
    assert read_points(answer, 640, 480) == [pytest.approx(point) for point in points]


@pytest.mark.parametrize(
    ("answer", "box"),
    [
        ("<ref>can</ref><box>[[100, 200, 300, 400]]</box>", (64, 96, 192, 192)),
        ("[300, 400, 100, 200]", (64, 96, 192, 192)),
        ("(0.1, 0.2, 0.3, 0.4)", (64, 96, 192, 192)),
        ("<box>[[100, 200, 300, 400], [1, 2, 3", (64, 96, 192, 192)),
        ("<box>[[100, 200, 30", None),
        ("<box>[[100, 200, 1300, 400]]</box>", None),
        ("no", None),
    ],
)
def test_boxes(answer: str, box: tuple[float, ...] | None) -> None:
    found = read_box(answer, 640, 480)
    assert found == (None if box is None else pytest.approx(box))


@pytest.mark.parametrize(
    ("answer", "chosen"),
    [
        ("B", "behind"),
        ("(b)", None),
        ("B. behind", "behind"),
        ("**B**", "behind"),
        ("The answer is A.", "in front"),
        ("behind", "behind"),
        ("It is behind the can.", "behind"),
        ("In front, not behind.", None),
        ("F", None),
        ("", None),
        ("<think>A? no</think>B", "behind"),
    ],
)
def test_choices(answer: str, chosen: str | None) -> None:
    assert read_choice(answer, ["in front", "behind"]) == chosen


def test_longer_options_win_and_letters_count_only_where_there_are_some() -> None:
    options = ["lift the can", "lift the can; put the can down", "none"]
    assert read_choice("lift the can; put the can down", options) == options[1]
    assert read_choice("First lift the can; put the can down, then rest.", options) == options[1]
    assert read_choice("A", options, lettered=False) is None
    assert read_choice("A carrot", ["plate", "carrot"], lettered=False) == "carrot"
    assert read_choice("the carrot", ["nothing", "the carrot"]) == "the carrot"


@pytest.mark.parametrize(
    ("answer", "unit", "value"),
    [
        ("12 cm", "cm", 12),
        ("About 0.12 m", "cm", 12),
        ("120 mm.", "cm", 12),
        ("12", "cm", 12),
        ("There are 3 cans, 12.5 cm apart", "cm", 12.5),
        ("45 %", "percent", 45),
        ("45 percent", "percent", 45),
        ("12,5 cm", "cm", 12.5),
        ("no idea", "cm", None),
    ],
)
def test_numbers(answer: str, unit: str, value: float | None) -> None:
    found = read_number(answer, unit)
    assert found == (None if value is None else pytest.approx(value))
