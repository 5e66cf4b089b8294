"""Similarity of images, against a second implementation."""

from __future__ import annotations

import numpy as np
import pytest

from vlaser_gym.evaluation.pictures import Comparison, Recorded, _compared, picture_figures, ssim


def slow_ssim(a: np.ndarray, b: np.ndarray, row: int, column: int) -> float:
    """One pixel, by the definition: weighted moments of an 11 x 11 window."""
    offsets = np.arange(-5, 6)
    kernel = np.exp(-(offsets**2) / (2 * 1.5**2))
    weight = np.outer(kernel, kernel) / kernel.sum() ** 2
    values = []
    for colour in range(3):
        x, y = (p[row - 5 : row + 6, column - 5 : column + 6, colour].astype(float) for p in (a, b))
        mx, my = (weight * x).sum(), (weight * y).sum()
        vx, vy = (weight * (x - mx) ** 2).sum(), (weight * (y - my) ** 2).sum()
        cov = (weight * (x - mx) * (y - my)).sum()
        c1, c2 = 2.55**2, 7.65**2
        values.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return float(np.mean(values))


def test_similarity_is_that_of_the_definition() -> None:
    random = np.random.default_rng(0)
    a = random.integers(0, 256, (24, 30, 3), np.uint8)
    b = np.clip(a + random.normal(0, 40, a.shape), 0, 255).astype(np.uint8)
    found = ssim(a, b)
    for row, column in ((5, 5), (12, 20), (18, 24)):
        assert found[row, column] == pytest.approx(slow_ssim(a, b, row, column), abs=1e-9)
    np.testing.assert_allclose(ssim(a, a), 1.0)


def test_figures_count_the_recorded_foreground() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    theirs, ours = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    theirs[10:20, 10:30], ours[10:20, 15:30] = True, True
    photograph = np.full_like(picture, 128)
    shown = picture.copy()
    shown[30:] = 0  # wrong far outside the foreground
    comparison = _compared(Recorded("k", "default", {}, picture, theirs), shown, ours, photograph)
    assert isinstance(comparison, Comparison)
    assert comparison.iou == pytest.approx(0.75)
    assert comparison.ssim == pytest.approx(1.0)
    assert comparison.photograph_ssim < 0.3
    assert comparison.whole_ssim < 0.9
    figures = picture_figures([comparison, comparison])
    assert figures["least_iou"] == pytest.approx(0.75)
    assert len(figures["pictures"]) == 2
    assert figures["least_object_iou"] is None


def test_an_object_is_counted_alone() -> None:
    """A can of 200 pixels with a crack of 10, beside a finger that bulges far from it."""
    picture = np.zeros((60, 60, 3), np.uint8)
    can, finger = np.zeros((60, 60), bool), np.zeros((60, 60), bool)
    can[20:30, 10:30], finger[20:30, 34:50] = True, True
    ours = can | finger
    ours[20:30, 15] = False
    ours[10:20, 40:50] = True
    recorded = Recorded("k", "default", {}, picture, can | finger, {"can": can})
    comparison = _compared(recorded, picture, ours, picture)
    assert comparison.object_iou == {"can": pytest.approx(190 / 200)}
    assert comparison.iou == pytest.approx(350 / 460)
    assert picture_figures([comparison])["least_object_iou"] == pytest.approx(0.95)
