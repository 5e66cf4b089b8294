"""Photographs behind the foreground."""

from __future__ import annotations

import numpy as np

from vlaser_gym.envs.engines.mujoco.original.backdrop import compose, is_key


def test_the_photograph_goes_where_the_key_is_and_nowhere_else() -> None:
    random = np.random.default_rng(0)
    picture, photograph = random.integers(0, 256, (2, 6, 8, 3), np.uint8)
    foreground = picture.copy()
    picture[2:4, 1:5] = (255, 0, 255)
    picture[0, 0], picture[0, 1], picture[0, 2] = (255, 1, 255), (254, 0, 255), (0, 0, 0)
    foreground[0, :3] = picture[0, :3]
    expected = foreground.copy()
    expected[2:4, 1:5] = photograph[2:4, 1:5]
    assert is_key(picture).sum() == 8
    compose(picture, photograph)
    np.testing.assert_array_equal(picture, expected)
