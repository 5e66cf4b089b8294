from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch

from vlaser_gym.errors import UnknownNameError
from vlaser_gym.training.data.augment import Augmentation, colour_matrix

PIXELS = torch.from_numpy(np.random.default_rng(0).integers(40, 200, (3, 20, 20, 3), np.uint8))


def only(**draws):
    """Draws that are zero but for some columns by name."""
    names = ("area", "ratio", "x", "y", "brightness", "contrast", "saturation", "hue")
    return torch.tensor([[draws.get(name, 0.0) for name in names]]).expand(len(PIXELS), -1)


def test_zero_draws_leave_colours_alone():
    assert torch.equal(Augmentation("colour")(PIXELS, only()), PIXELS)
    assert torch.equal(Augmentation("none")(PIXELS, only(hue=1.0)), PIXELS)


def test_brightness_adds_a_tenth_of_the_range():
    moved = Augmentation("colour")(PIXELS, only(brightness=1.0)).int() - PIXELS.int()
    assert ((moved - 25.5).abs() <= 0.5).all()


def test_contrast_scales_about_the_mean():
    got = Augmentation("colour")(PIXELS, only(contrast=-1.0)).double()
    numbers = PIXELS.double()
    mean = numbers.mean((1, 2, 3), keepdim=True)
    assert (got - (mean + 0.9 * (numbers - mean))).abs().max() <= 0.51


def test_hue_turns_the_colour_circle():
    """A turn by a third maps red to green exactly, whatever formula is used."""
    matrix = colour_matrix(torch.ones(1, 1, 1), torch.full((1, 1, 1), 1 / 3))[0]
    np.testing.assert_allclose(matrix @ torch.tensor([1.0, 0, 0]), [0, 1, 0], atol=1e-6)
    small = colour_matrix(torch.ones(1, 1, 1), torch.full((1, 1, 1), 0.02))[0] @ torch.tensor([0.7, 0.4, 0.4])
    before, after = colorsys.rgb_to_hsv(0.7, 0.4, 0.4)[0], colorsys.rgb_to_hsv(*small.tolist())[0]
    assert after - before == pytest.approx(0.02, abs=0.004)


def test_without_saturation_everything_is_grey():
    grey = colour_matrix(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))[0] @ torch.tensor([0.2, 0.5, 0.9])
    np.testing.assert_allclose(grey, [0.299 * 0.2 + 0.587 * 0.5 + 0.114 * 0.9] * 3, atol=1e-6)


def test_a_crop_shows_a_section_of_the_picture():
    """On an image whose red is the column's number, columns stay ordered and within the image."""
    ramp = torch.arange(0, 200, 10, dtype=torch.uint8)
    picture = ramp.view(1, 1, 20, 1).expand(3, 20, 20, 3).contiguous()
    left = Augmentation("full")(picture, only(area=-1.0, x=-1.0))[0, 5, :, 0].double()
    right = Augmentation("full")(picture, only(area=-1.0, x=1.0))[0, 5, :, 0].double()
    width = 0.8**0.5
    assert left[0] <= 5
    assert right[-1] >= 185
    assert (left[-1] - left[0]) / 190 == pytest.approx(width, abs=0.03)


def test_draws_follow_the_generator():
    augmentation = Augmentation("colour")
    first = augmentation.draw(4, torch.Generator().manual_seed(1))
    assert torch.equal(first, augmentation.draw(4, torch.Generator().manual_seed(1)))
    assert (first.abs() <= 1).all()
    assert not torch.equal(first[0], first[1])


def test_unknown_modes_are_refused():
    with pytest.raises(UnknownNameError, match="colour"):
        Augmentation("color")
