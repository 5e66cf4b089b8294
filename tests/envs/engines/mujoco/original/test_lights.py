"""The original's lamps, fitted to MuJoCo's way of adding light."""

from __future__ import annotations

import numpy as np
import pytest

from vlaser_gym.envs.engines.mujoco.original.lights import fitted
from vlaser_gym.envs.tasks.variants import LIGHTS, Light, Lighting


def test_ambient_light_alone_is_its_root() -> None:
    gain, strengths = fitted(Lighting(0.3, (Light((0, 0, -1), 0.0),)))
    assert gain * strengths[0] == pytest.approx(0.3 ** (1 / 2.2), abs=1e-9)


@pytest.mark.parametrize("light", sorted(LIGHTS))
def test_the_fit_is_near_the_originals_light_in_every_direction(light: str) -> None:
    lighting = LIGHTS[light]
    gain, (ambient, *strengths) = fitted(lighting)
    normals = np.random.default_rng(0).normal(size=(500, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    linear, shown = np.full(500, lighting.ambient), np.full(500, ambient)
    for lamp, strength in zip(lighting.lights, strengths, strict=True):
        away = -np.array(lamp.direction) / np.linalg.norm(lamp.direction)
        cosine = np.maximum(normals @ away, 0)
        linear += lamp.strength * cosine / np.pi
        shown += strength * cosine
    assert np.abs(gain * shown - linear ** (1 / 2.2)).max() < 0.12
    assert np.abs(gain * shown - linear ** (1 / 2.2)).mean() < 0.03
    assert shown.max() < 1.05, "what is brighter than 1 would be cut off"
