"""Scores of single answers by hand, of many by recomputation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fabricate_questions import HEIGHT, WIDTH, five, square, write_folder

from vlaser_gym.evaluation.statistics import wilson
from vlaser_gym.reasoning.constants import ConstantAnswers
from vlaser_gym.reasoning.coordinates import decode_mask
from vlaser_gym.reasoning.folder import Question, read_questions
from vlaser_gym.reasoning.scores import Scored, iou, row_of, score

POINT, BOX, CHOICE, NUMBER, TRACE = five("test", 0, 0, "x.png", 4, 10)


@pytest.mark.parametrize("question", [POINT, BOX, CHOICE, NUMBER, TRACE])
def test_the_folders_own_answers_are_right(question: Question) -> None:
    answer = question.answer
    if question.form == "box":
        answer = f"<box>[[{4 / WIDTH}, {10 / HEIGHT}, {12 / WIDTH}, {18 / HEIGHT}]]</box>"
    assert score(question, answer).value == 1
    assert score(question, "I cannot see that.").value == 0
    assert not score(question, "I cannot see that.").read


def test_points_count_by_their_share_inside() -> None:
    mask = square(4, 10)
    for y in range(0, HEIGHT, 5):
        for x in range(WIDTH):
            answer = f"<point>[[{(x + 0.5) / WIDTH * 1000}, {(y + 0.5) / HEIGHT * 1000}], [140, 300]]</point>"
            assert score(POINT, answer).value == (mask[y, x] + 1) / 2


def test_iou_by_counting_pixels() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = (np.concatenate([corner := rng.integers(0, 20, 2), corner + rng.integers(1, 20, 2)]) for _ in range(2))
        grids = [np.zeros((40, 40), bool) for _ in range(2)]
        for grid, box in zip(grids, (a, b), strict=True):
            grid[box[1] : box[3], box[0] : box[2]] = True
        assert iou(a, b) == pytest.approx((grids[0] & grids[1]).sum() / (grids[0] | grids[1]).sum())


@pytest.mark.parametrize(("said", "value"), [(4.0, 1.0), (4.1, 1.0), (4.3, 0.9), (5.0, 0.5), (6.1, 0.0), (40, 0.0)])
def test_mean_relative_accuracy(said: float, value: float) -> None:
    """VSIBench: thresholds 0.50, 0.55 .. 0.95; 5.0 for 4.0 is 0.25 off: below 0.5, 0.45, 0.4, 0.35 and 0.3."""
    found = score(NUMBER, f"{said} cm")
    assert found.value == pytest.approx(value)
    assert found.detail == pytest.approx(abs(said - 4) / 4)


def test_traces_count_within_five_percent_of_the_diagonal() -> None:
    def answer(shift: float) -> str:
        points = [[float((x + shift) / WIDTH * 1000), y / HEIGHT * 1000] for x, y in TRACE.truth["points"]]
        return f"<point>{points}</point>"

    limit = 0.05 * np.hypot(WIDTH, HEIGHT)
    assert score(TRACE, answer(limit - 0.05)).value == 1
    assert score(TRACE, answer(limit + 0.05)).value == 0
    short = score(TRACE, f"<point>[[{4 / WIDTH * 1000}, {11 / HEIGHT * 1000}]]</point>")
    assert short.detail == pytest.approx((0 + 2 + 4) / 3 / np.hypot(WIDTH, HEIGHT)), "it stays where it stopped"


def test_the_constant_point_is_where_most_masks_are(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "q")
    training, test = (read_questions(folder, [split]) for split in ("train", "test"))
    constants = ConstantAnswers(training)
    masks = [decode_mask(q.truth["mask"]) for q in training if q.form == "point"]
    best = max(np.mean([mask[y, x] for mask in masks]) for y in range(HEIGHT) for x in range(WIDTH))
    point = next(q for q in test if q.form == "point")
    fitted = [score(q, constants.answer(point) or "").value for q in training if q.form == "point"]
    assert np.mean(fitted) == best < 1


def test_constant_answers_are_the_best_of_all(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "q")
    training = read_questions(folder, ["train"])
    constants = ConstantAnswers(training)
    choices = [q for q in training if q.form == "choice"]
    tried = {a: np.mean([score(q, a).value for q in choices]) for a in ("A", "B", "left", "right")}
    assert np.mean([score(q, constants.answer(q) or "").value for q in choices]) == max(tried.values())
    numbers = [q for q in training if q.form == "number"]
    best = max(np.mean([score(q, f"{v} cm").value for q in numbers]) for v in np.linspace(0, 40, 81))
    assert np.mean([score(q, constants.answer(q) or "").value for q in numbers]) >= best - 1e-9


def test_a_constant_of_nothing(tmp_path: Path) -> None:
    assert ConstantAnswers([]).answer(POINT) is None


def test_rows_recomputed() -> None:
    questions = [five("test", i, i // 2, "x.png", 4 + i, 10)[2] for i in range(8)]
    scored = [Scored(q, score(q, q.answer if i < 6 else "?"), i == 7, None, None) for i, q in enumerate(questions)]
    row = row_of(scored)
    assert (row.mean, row.n, row.layouts, row.unread, row.cut) == (0.75, 8, 4, 2, 1)
    assert row.constant is None is row.blind
    # Layouts 0 to 2 are right twice, layout 3 never: resampling the four of them gives these means.
    rng = np.random.default_rng(1)
    means = rng.choice([1.0, 1.0, 1.0, 0.0], (4000, 4)).mean(1)
    low, high = row.interval
    assert low <= np.quantile(means, 0.05)
    assert high >= np.quantile(means, 0.9)
    all_right = row_of([Scored(q, score(q, q.answer), False, None, None) for q in questions])
    assert all_right.interval == wilson(8, 8)
