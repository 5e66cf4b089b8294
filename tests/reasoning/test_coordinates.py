"""Numbers 0 to 1000 and run lengths, against loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest

from vlaser_gym.reasoning.coordinates import box_numbers, decode_mask, encode_mask, mask_box, number_of, pixel_of


@pytest.mark.parametrize("extent", [480, 512, 640, 1000])
def test_every_pixel_comes_back_by_vlasers_rule(extent: int) -> None:
    for pixel in range(extent):
        number = number_of(pixel, extent)
        assert 0 <= number <= 1000
        assert int(number / 1000 * extent) == pixel == pixel_of(number, extent)


def test_a_box_of_numbers_encloses_its_pixels_narrowly() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        x, y = sorted(rng.choice(641, 2, replace=False)), sorted(rng.choice(481, 2, replace=False))
        left, top, right, bottom = box_numbers((x[0], y[0], x[1], y[1]), 640, 480)
        for number, pixel, extent, outward in (
            (left, x[0], 640, -1),
            (top, y[0], 480, -1),
            (right, x[1], 640, 1),
            (bottom, y[1], 480, 1),
        ):
            assert (number / 1000 * extent - pixel) * outward >= -1e-9
            assert abs(number / 1000 * extent - pixel) < extent / 1000 + 1e-9


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_run_lengths_are_cocos(share: float) -> None:
    mask = np.random.default_rng(1).random((9, 7)) < share
    encoded = encode_mask(mask)
    # By hand: column by column, runs of equal pixels, the first one outside.
    pixels, runs, inside = [bool(mask[r, c]) for c in range(7) for r in range(9)], [0], False
    for pixel in pixels:
        if pixel != inside:
            runs.append(0)
            inside = pixel
        runs[-1] += 1
    assert encoded == {"size": [9, 7], "counts": runs}
    np.testing.assert_array_equal(decode_mask(encoded), mask)


def test_damaged_runs() -> None:
    with pytest.raises(ValueError, match="runs of 6 pixels"):
        decode_mask({"size": [2, 3], "counts": [4]})


def test_the_box_of_a_mask_by_a_loop() -> None:
    mask = np.zeros((6, 8), bool)
    mask[2, 3] = mask[4, 6] = True
    inside = [(r, c) for r in range(6) for c in range(8) if mask[r, c]]
    rows, columns = zip(*inside, strict=True)
    assert mask_box(mask) == (min(columns), min(rows), max(columns) + 1, max(rows) + 1)
