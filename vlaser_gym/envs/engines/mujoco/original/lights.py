"""The original's lamps in MuJoCo's terms.

The original adds light linearly, ``a + sum of s cos / pi`` times the colour (ambient ``a``, strengths ``s``), and shows
its root 1 / 2.2. MuJoCo adds in what is shown, and cuts it off at 1 before it multiplies the texture. Its lamps get the
strengths that come nearest over all directions, on a scale on which the brightest direction is 1; colours and textures
are brightened by that scale in return.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from vlaser_gym.envs.engines.mujoco.original.parts import GAMMA
from vlaser_gym.envs.tasks.variants import LIGHTS, Lighting, Variant

Floats = NDArray[np.float64]


def set_lights(spec: mujoco.MjSpec, variant: Variant) -> float:
    """Replace the scene's lamps by those of a variant; returns by how much colours are to be brightened."""
    for lamp in list(spec.lights):
        spec.delete(lamp)
    lighting = LIGHTS[variant.light]
    gain, (ambient, *strengths) = fitted(lighting)
    headlight = spec.visual.headlight
    headlight.ambient, headlight.diffuse, headlight.specular = (ambient,) * 3, (0.0,) * 3, (0.0,) * 3
    for i, (lamp, strength) in enumerate(zip(lighting.lights, strengths, strict=True)):
        spec.worldbody.add_light(
            name=f"scene/light{i}",
            type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
            pos=(0, 0, 3),
            dir=lamp.direction,
            diffuse=(strength,) * 3,
            specular=(0.3 * strength,) * 3,
            castshadow=False,
        )
    return gain


def fitted(lighting: Lighting) -> tuple[float, Floats]:
    """The scale, and on it ambient light and the lamps' strengths for MuJoCo, ``[1 + n]``."""
    normals = _directions(2000)
    towards = [np.array(lamp.direction) / np.linalg.norm(np.array(lamp.direction)) for lamp in lighting.lights]
    cosines = np.stack([np.clip(-normals @ direction, 0, None) for direction in towards], -1)
    linear = lighting.ambient + cosines @ np.array([lamp.strength for lamp in lighting.lights]) / np.pi
    shown = linear ** (1 / GAMMA)
    gain = float(shown.max())
    return gain, np.asarray(nnls(np.column_stack([np.ones(len(normals)), cosines]), shown / gain)[0])


def _directions(count: int) -> Floats:
    """Evenly over the sphere: a spiral that turns by the golden angle."""
    z = 1 - (2 * np.arange(count) + 1) / count
    angle = np.arange(count) * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], -1)
