"""Comparison of an original episode's initial state with the expected one.

The original goes on where a mesh is missing: its simulator writes a line into a log, nothing carries the objects, and
they have fallen by metres before the first action; every episode then ends as a failure of the policy. The layouts
here are recorded starts of the original, so each of its episodes is compared with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from vlaser_gym.conventions.rotations import rotation_angle
from vlaser_gym.envs.engines.base import Placement
from vlaser_gym.envs.robots import get_setup

#: How far a body or a drawer may be from where it should be (m). Recorded starts repeat themselves within 1 mm.
REACH = 0.01
#: How far it may be turned (degrees).
TURN = 20.0


def departures(placement: Placement, told: Mapping[str, Any]) -> list[str]:
    """Differences of an episode's start from its layout, a phrase each, the largest first.

    Distractors are left out: where they lie is drawn by the original.

    Args:
        placement: with a layout of the original's.
        told: the worker's state, with all bodies and joints of the layout.
    """
    far: list[tuple[float, str]] = []  # in units of what is allowed
    for name, where, should in _poses(placement, told):
        distance = float(np.linalg.norm(where[:3] - should[:3]))
        angle = float(np.degrees(rotation_angle(where[3:], should[3:])))
        # Written so that numbers that are not finite are too far.
        if not distance <= REACH:
            far.append((distance / REACH, f"{name} is {distance:.3g} m from its place"))
        if not angle <= TURN:
            far.append((angle / TURN, f"{name} is turned by {angle:.0f} degrees"))
    for name, opening in placement.layout.joints.items():
        distance = abs(told["joints"][name] - opening)
        if not distance <= REACH:
            far.append((distance / REACH, f"{name} is {distance:.3g} m from its place"))
    return [phrase for _, phrase in sorted(far, key=lambda one: -one[0])]


def _poses(placement: Placement, told: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """``(name, pose [7], the layout's pose [7])`` of the robot's base and of the bodies whose places are known."""
    task, layout = placement.task, placement.layout
    base = layout.base_pose or get_setup(task.robot_setup).base_pose
    yield "the robot", np.array(told["base"]), np.array(base)
    bodies = task.objects_of(layout.cast)
    own = len(bodies) - len(task.look(placement.variant).distractors)
    for body, pose in zip(bodies[:own], layout.object_pose, strict=False):
        yield body.name, np.array(told["objects"][body.name]), pose
