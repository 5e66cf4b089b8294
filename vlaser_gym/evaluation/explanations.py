"""Explanations of decisions (``agent.explain``), drawn into the policy's images of a stored episode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vlaser_gym.envs import transforms
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.robots.projection import Projector
from vlaser_gym.envs.tasks import get_task

Picture = NDArray[np.uint8]
States = Mapping[str, NDArray[Any]]

#: Of the stored arrays.
PREFIX = "explain/"
#: How dark a part of the image without attention becomes, and how strong the colour of the most attended one is.
_DARKEST, _STRONGEST = 0.45, 0.6
_WARM = np.array([255.0, 120.0, 0.0])
#: Colours of source and target, and radius of their rings, px.
_RINGS = (("source", (255, 64, 200)), ("target", (0, 220, 255)))
_RADIUS = 9


def explained_at(states: States, t: int) -> dict[str, NDArray[Any]]:
    """The explanation of the decision that follows the state after ``t`` control steps, by name.

    After the last step it is the last decision. Empty where nothing was told.
    """
    named = {name.removeprefix(PREFIX): rows for name, rows in states.items() if name.startswith(PREFIX)}
    if not named:
        return {}
    decision = int(np.searchsorted(states["decision"], t, side="right")) - 1
    return {name: rows[decision] for name, rows in named.items()}


def draw_explanation(picture: Picture, task: str, states: States, t: int) -> Picture:
    """The policy's image ``[H, W, 3]`` of the state after ``t`` control steps, with what the agent told on it."""
    told = explained_at(states, t)
    if "attention" in told:
        picture = draw_attention(picture, told["attention"])
    if "places" in told:
        picture = draw_places(picture, place_pixels(told["places"], task, states, t))
    return picture


def explanation_note(states: States, t: int) -> str:
    """The explanation in words, for a caption; empty where nothing was told."""
    told, words = explained_at(states, t), []
    if "attention" in told:
        words.append(f"attention on the image {100 * told['attention'].sum():.0f} %")
    if "places" in told:
        words.append("rings: where the policy's eyes have source (pink) and target (blue)")
    return ", ".join(words)


def draw_attention(picture: Picture, attention: NDArray[Any]) -> Picture:
    """Darken what gets little attention, and colour what gets most.

    Args:
        picture: ``[H, W, 3]``.
        attention: ``[g, g]``, of equal parts of the image; its largest value counts as 1.
    """
    height, width = picture.shape[:2]
    share = np.asarray(attention, np.float32)
    spread = cv2.resize(share / max(float(share.max()), 1e-12), (width, height), interpolation=cv2.INTER_LINEAR)
    weight = np.asarray(spread, np.float64)[..., None]
    shown = picture * (_DARKEST + (1 - _DARKEST) * weight)
    shown += _STRONGEST * weight**2 * (_WARM - shown)
    return np.clip(np.rint(shown), 0, 255).astype(np.uint8)


def place_pixels(places: NDArray[Any], task: str, states: States, t: int) -> NDArray[np.float64]:
    """Columns and rows ``[2, 2]`` of source and target, told in the robot's base frame ``[2, 3]`` (m).

    The camera is the robot's own, wherever a perturbation has put the one that the policy saw by.
    """
    setup = get_setup(get_task(task).robot_setup)
    base = np.asarray(states["base_pose"][t] if "base_pose" in states else setup.base_pose, np.float64)
    still = np.tile([1.0, 0.0, 0.0, 0.0], (len(places), 1))
    world = transforms.compose(base, np.concatenate([np.asarray(places, np.float64), still], -1))[:, :3]
    projector, count = Projector(setup), len(places)
    qpos = np.repeat(np.asarray(states["qpos"][t], np.float64)[None], count, 0)
    return np.asarray(projector.pixels(projector.seen(qpos, np.repeat(base[None], count, 0), world)))


def draw_places(picture: Picture, pixels: NDArray[np.float64]) -> Picture:
    """Rings at columns and rows ``[2, 2]`` of source and target; what lies outside the image is not drawn."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for (_, colour), (x, y) in zip(_RINGS, pixels, strict=True):
        if np.isfinite([x, y]).all() and 0 <= x < image.width and 0 <= y < image.height:
            box = (x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS)
            draw.ellipse(box, outline=(0, 0, 0), width=5)
            draw.ellipse(box, outline=colour, width=3)
    return np.asarray(image)
