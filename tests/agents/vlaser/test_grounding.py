"""Reading points and boxes, and where they are drawn."""

from __future__ import annotations

import numpy as np
import pytest

from vlaser_gym.agents.vlaser.grounding import Box, draw_answer, parse_boxes, parse_points


@pytest.mark.parametrize(
    ("answer", "points"),
    [
        ("<point>[[500, 250], [0, 1000]]</point>", [(320, 120), (0, 480)]),
        ("<point>[[333,333]]</point>", [(213, 159)]),
        ("<point>[ 10 , 20 ]</point>", [(6, 9)]),
        ("first <point>[[1, 2]]</point> then <point>[[500, 500]]</point>", [(0, 0)]),
        ("<point>[[100, 200],\n [300, 400]]</point>", [(64, 96), (192, 192)]),
        ("<point>[[1001, 5], [500, 500], [7, 99999999999999]]</point>", [(320, 240)]),
        ("<point>[[1, 2, 3], [4], [-5, 6], [0.5, 0.5], [x, y], [500, 500]]</point>", [(320, 240)]),
        ("<point>[[500, 500], [600,", []),
        ("<point></point>", []),
        ("", []),
        ("[[500, 500]] without tags", []),
        ("<box>[[1, 2, 3, 4]]</box>", []),
    ],
)
def test_points(answer: str, points: list[tuple[int, int]]) -> None:
    assert parse_points(answer, 640, 480) == points


@pytest.mark.parametrize(
    ("answer", "boxes"),
    [
        ("<box>[[0, 0, 500, 1000]]</box>", [Box(0, 0, 320, 480)]),
        ("<box>[[500, 1000, 0, 0]]</box>", [Box(0, 0, 320, 480)]),
        (
            "<ref>the can</ref><box>[[100, 100, 200, 200]]</box> and <ref>cup</ref> <box>[[0, 0, 10, 10]]</box>",
            [Box(64, 48, 128, 96, "the can"), Box(0, 0, 6, 4, "cup")],
        ),
        ("<box>[[1, 2, 3], [0, 0, 2000, 10], [0, 0, 1000, 1000]]</box>", [Box(0, 0, 640, 480)]),
        ("<box>[[1, 2, 3, 4]", []),
    ],
)
def test_boxes(answer: str, boxes: list[Box]) -> None:
    assert parse_boxes(answer, 640, 480) == boxes


def test_marks_are_where_the_answer_says() -> None:
    image = np.full((480, 640, 3), 128, np.uint8)
    answer = "<point>[[500, 500]]</point><box>[[100, 100, 300, 300]]</box>"
    drawn = draw_answer(image, "Where?", answer)
    assert drawn.shape[1] == 640
    assert drawn.shape[0] > 480
    changed = (drawn[:480] != 128).any(axis=-1)
    assert changed[240, 320]
    assert changed[48:145, 64].all()
    assert changed[144, 64:193].all()
    assert not changed[96, 128]
    assert not changed[300:, :].any()
    assert (image == 128).all()


def test_points_on_the_far_edge_stay_in_the_picture() -> None:
    drawn = draw_answer(np.zeros((100, 200, 3), np.uint8), "q", "<point>[[1000, 1000]]</point>")
    assert drawn[99, 199].any()


def test_long_answers_are_wrapped_and_grow_the_caption() -> None:
    image = np.zeros((100, 300, 3), np.uint8)
    short = draw_answer(image, "q", "a")
    words = draw_answer(image, "q", "word " * 100)
    letters = draw_answer(image, "q", "x" * 500)
    assert words.shape[0] > short.shape[0] + 50
    assert letters.shape[0] > short.shape[0] + 50
