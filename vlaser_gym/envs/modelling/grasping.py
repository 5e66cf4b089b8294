"""Ways to hold an object with two fingers that come from above, found on its surface."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import trimesh

from vlaser_gym.conventions.rotations import matrix_from_quaternion
from vlaser_gym.envs.tasks.base import Floats, Grasp
from vlaser_gym.envs.tasks.own_objects import Rest


@dataclass(frozen=True)
class Fingers:
    """A gripper's numbers, m; the defaults are the WidowX's, measured on its finger hulls.

    Attributes:
        opening: the gap between the open pads.
        slack: how much narrower an object must be: positions are met to some millimetres.
        half_width: half of a pad's width.
        below, above: how far pads reach below the tool centre point, and objects may reach above it.
        clearance: least height of the finger tips over the ground.
    """

    opening: float = 0.052
    slack: float = 0.004
    half_width: float = 0.0128
    below: float = 0.0156
    above: float = 0.018
    clearance: float = 0.0015


_SAMPLES, _HEADINGS, _PLACES = 12000, 24, 9
#: Least alignment of the surface with the closing direction where the fingers touch (cosine, mean).
_ALIGNED = 0.75
#: Depth of the layer that a pad touches, m; deeper, edges of flat things would count with what lies behind them.
_TOUCHED = 0.0007


def find_grasps(mesh: Any, com: Sequence[float], rests: Sequence[Rest], fingers: Fingers = Fingers()) -> list[Grasp]:
    """The best grasp of each resting posture that has one.

    Args:
        mesh: a closed ``trimesh.Trimesh``, m.
        com: its centre of mass, m.
        rests: postures.
        fingers: of the gripper.
    """
    points, triangles = trimesh.sample.sample_surface(mesh, _SAMPLES, seed=0)
    normals = np.asarray(mesh.face_normals)[triangles]
    found = []
    for rest in rests:
        turn = matrix_from_quaternion(np.array(rest.rotation))
        lying = points @ turn.T + [0, 0, rest.height]
        centre = turn @ np.asarray(com) + [0, 0, rest.height]
        candidates = list(_candidates(lying, normals @ turn.T, centre, fingers))
        if candidates:
            _, point, axis = max(candidates, key=lambda candidate: candidate[0])
            local = (np.asarray(point) - [0, 0, rest.height]) @ turn
            found.append(Grasp(_three(turn[2]), _three(local), _three(axis @ turn)))
    return found


def _candidates(
    points: Floats, normals: Floats, centre: Floats, fingers: Fingers
) -> Iterator[tuple[float, Floats, Floats]]:
    """Score, point and closing direction of grasps of an object that lies with its surface at ``points [N, 3]``."""
    # The tool centre point is as high as the centre of mass, as far as ground and palm let it.
    top = float(points[:, 2].max())
    height = max(fingers.below + fingers.clearance, top - fingers.above, min(float(centre[2]), top - 0.005))
    in_reach = points[:, 2] > height - fingers.below
    if top > height + fingers.above:
        return
    for angle in np.arange(_HEADINGS) * np.pi / _HEADINGS:
        axis = np.array([np.cos(angle), np.sin(angle), 0.0])
        across = np.array([-axis[1], axis[0], 0.0])
        along, side, facing = points @ axis, points @ across, normals @ axis
        for place in np.linspace(side.min() + 0.004, side.max() - 0.004, _PLACES):
            between = in_reach & (np.abs(side - place) < fingers.half_width)
            score = _score(along[between], facing[between], fingers)
            if score is None:
                continue
            middle = (along[between].min() + along[between].max()) / 2
            off = abs(place - centre @ across), abs(middle - centre @ axis)
            point = axis * middle + across * place + [0, 0, height]
            yield score - 20 * off[0] - 5 * off[1], point, axis


def _score(along: Floats, facing: Floats, fingers: Fingers) -> float | None:
    """The alignment of the surface where the fingers touch; ``None`` where they do not fit or would slip."""
    if len(along) < 10:
        return None
    low, high = along.min(), along.max()
    if high - low > fingers.opening - fingers.slack:
        return None
    alignment = min(facing[along > high - _TOUCHED].mean(), -facing[along < low + _TOUCHED].mean())
    return float(alignment) if alignment > _ALIGNED else None


def _three(values: Floats) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
