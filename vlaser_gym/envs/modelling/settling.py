"""Resting postures of an object: dropped many times onto level ground in the built-in engine."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from vlaser_gym.conventions.rotations import heading, matrix_from_quaternion, turned_about_z
from vlaser_gym.envs.engines.mujoco.scene import build_floor
from vlaser_gym.envs.robots import RobotSetup
from vlaser_gym.envs.tasks.base import Floats, ObjectSpec
from vlaser_gym.envs.tasks.own_objects import Rest
from vlaser_gym.envs.tasks.region import oval

#: Seconds that an object gets to come to rest, and those that a posture has to hold afterwards.
_FALLING, _HOLDING = 3.0, 1.5
#: Postures whose upward directions differ by less are one, rad.
_SAME = np.deg2rad(10.0)
#: Greatest drift (m) and tilt (rad) of what rests, while it has to hold.
_DRIFT, _TILT = 0.002, np.deg2rad(2.0)
#: Where an axis is nearer to the vertical than this (cosine), a heading means nothing.
_UPRIGHT = 0.95


def resting_postures(spec: ObjectSpec, setup: RobotSetup, drops: int, seed: int = 0) -> tuple[Rest, ...]:
    """The postures in which drops from random orientations end and then stay, the likeliest first.

    Args:
        spec: the object with its shape.
        setup: whose contacts the ground has.
        drops: how many.
        seed: of the orientations.
    """
    assert spec.shape is not None
    model, ends = build_floor(spec, setup), []
    for orientation in _orientations(drops, seed):
        lowest = min(float((points @ matrix_from_quaternion(orientation)[2]).min()) for points in spec.shape.hulls)
        data = _placed(model, np.array([0.0, 0.0, 0.005 - lowest, *orientation]))  # just above the ground
        _run(model, data, _FALLING)
        ends.append(np.array(data.qpos))
    groups = _grouped(ends)
    rests = [_held(model, spec, group, len(group) / drops) for group in groups]
    return tuple(sorted((rest for rest in rests if rest is not None), key=lambda rest: -rest.share))


def up_of(rotation: Floats) -> Floats:
    """The direction in a body's frame that points up in the world, for an orientation ``[4]``."""
    return np.asarray(matrix_from_quaternion(rotation)[2])


def _orientations(count: int, seed: int) -> Floats:
    """Unit quaternions ``[count, 4]``, all orientations alike."""
    numbers = np.random.default_rng(seed).normal(size=(count, 4))
    return np.asarray(numbers / np.linalg.norm(numbers, axis=1, keepdims=True))


def _held(model: mujoco.MjModel, spec: ObjectSpec, ends: list[Floats], share: float) -> Rest | None:
    """The posture of drops that ended alike; ``None`` if it does not hold when it begins at rest."""
    directions = np.array([up_of(pose[3:]) for pose in ends])
    begin = ends[int(np.argmax(directions @ directions.mean(0)))]
    data = _placed(model, begin)
    _run(model, data, _HOLDING)
    moved = float(np.linalg.norm(data.qpos[:3] - begin[:3]))
    tilted = float(np.arccos(np.clip(up_of(data.qpos[3:]) @ up_of(begin[3:]), -1, 1)))
    return _posture(spec, np.array(data.qpos), share) if moved < _DRIFT and tilted < _TILT else None


def _posture(spec: ObjectSpec, pose: Floats, share: float) -> Rest:
    from scipy.spatial import ConvexHull  # noqa: PLC0415

    assert spec.shape is not None
    rotation = turned_about_z(pose[3:], -float(heading(pose[3:])))
    matrix = matrix_from_quaternion(rotation)
    ground = np.concatenate([points @ matrix.T for points in spec.shape.hulls])[:, :2]
    footprint = ground[ConvexHull(ground).vertices]
    if abs(matrix[2, 0]) > _UPRIGHT:
        reach = float(np.linalg.norm(ground, axis=1).max())
        footprint = oval(-reach, reach, -reach, reach)
    return Rest(float(pose[2]), tuple(rotation.tolist()), footprint, share)


def _grouped(ends: list[Floats]) -> Iterator[list[Floats]]:
    """Poses whose upward directions are alike, group by group."""
    left = list(ends)
    while left:
        directions = np.array([up_of(pose[3:]) for pose in left])
        alike = directions @ directions.T > np.cos(_SAME)
        near = alike[int(np.argmax(alike.sum(1)))]
        yield [pose for pose, belongs in zip(left, near, strict=True) if belongs]
        left = [pose for pose, belongs in zip(left, near, strict=True) if not belongs]


def _placed(model: mujoco.MjModel, pose: Floats) -> mujoco.MjData:
    data = mujoco.MjData(model)
    data.qpos[:] = pose
    return data


def _run(model: mujoco.MjModel, data: mujoco.MjData, seconds: float) -> None:
    mujoco.mj_step(model, data, nstep=round(seconds / model.opt.timestep))
