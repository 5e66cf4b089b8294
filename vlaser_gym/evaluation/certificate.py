"""A few recorded episodes of the original, shipped with the package: does an installation still play them so?

``certificate.npz`` holds actions, and at every eighth control step where the TCP and the manipulated thing were. It was
drawn from recordings of SimplerEnv 4ab7178 (ManiSkill2_real2sim ef7a4d4, SAPIEN 2.2.2) by
``tests/evaluation/draw_certificate.py``. There are no images in it: drivers draw them differently.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.engines import Placement
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.envs.vector import SceneVectorEnv

Floats = NDArray[np.float64]

CERTIFICATE = Path(__file__).with_name("certificate.npz")
#: Control steps between two compared states.
EVERY = 8
#: How far the TCP and the manipulated thing may be from where they were recorded (m). The original repeats itself to
#: the last bit; the rest is for tables of slightly other height, and for compilers.
TCP_REACH, THING_REACH = 0.005, 0.02


@dataclass(frozen=True)
class RecordedEpisode:
    """An episode recorded from the original.

    Attributes:
        task, layout: where it began.
        objects: ``[n, 7]`` poses that it began with where no layout of the task is that; else None.
        actions: ``[T, 7]``.
        tcp: ``[C, 3]``, m, base frame, at the start, after every :data:`EVERY` actions and at the end.
        thing: ``[C, 3]``, where the manipulated body was in the world, or how far a drawer was open (m) in ``x``.
        flags: the task's flags at the end.
    """

    task: str
    layout: str
    objects: Floats | None
    actions: Floats
    tcp: Floats
    thing: Floats
    flags: dict[str, bool]

    def __str__(self) -> str:
        ending = "a success" if self.flags["success"] else "a failure"
        return f"{self.task}/{self.layout} ({len(self.actions)} steps, {ending})"


@dataclass(frozen=True)
class Departure:
    """The deviations of an installation's episode from the recorded one.

    Attributes:
        tcp, thing: greatest distances (m).
        flags: those of the task's that differ at the end.
    """

    tcp: float
    thing: float
    flags: tuple[str, ...]

    @property
    def phrases(self) -> list[str]:
        """The deviations beyond tolerance, a phrase each."""
        distances = (("the TCP", self.tcp, TCP_REACH), ("the manipulated thing", self.thing, THING_REACH))
        # Written so that numbers that are not finite are too far.
        far = [f"{what} is {1000 * d:.3g} mm off its path" for what, d, most in distances if not d <= most]
        return far + [f"{name} ends otherwise" for name in self.flags]


def recorded_episodes(file: Path = CERTIFICATE) -> list[RecordedEpisode]:
    """All recorded episodes that are shipped."""
    with np.load(file) as arrays:
        index: list[dict[str, Any]] = json.loads(bytes(arrays["index"]))
        actions = np.split(arrays["actions"].astype(np.float64), np.cumsum([row["steps"] for row in index])[:-1])
        states = np.split(arrays["states"].astype(np.float64), np.cumsum([len(compared(a)) for a in actions])[:-1])
    return [
        RecordedEpisode(
            row["task"],
            row["layout"],
            None if row["objects"] is None else np.array(row["objects"]),
            told,
            state[:, :3],
            state[:, 3:],
            row["flags"],
        )
        for row, told, state in zip(index, actions, states, strict=True)
    ]


def compared(actions: NDArray[Any]) -> list[int]:
    """After how many of ``actions [T, 7]`` states are compared."""
    return [*range(0, len(actions), EVERY), len(actions)]


def play(env: SceneVectorEnv, episode: RecordedEpisode) -> Departure:
    """Do what was done on the first environment of ``env``, and compare.

    Raises:
        GymError: if the simulator does not begin the episode, or fails.
    """
    _begin(env, episode)
    lane, rows = env.lanes[0], compared(episode.actions)
    found = [_state(env)]
    for begin, end in pairwise(rows):
        env.step_chunk(np.repeat(episode.actions[None, begin:end], env.num_envs, 0))
        found.append(_state(env))
    ours, theirs = np.array(found), np.concatenate([episode.tcp, episode.thing], 1)
    tcp, thing = (np.linalg.norm(part, axis=1).max() for part in np.split(ours - theirs, 2, axis=1))
    wrong = tuple(name for name, value in episode.flags.items() if bool(lane.flags[name]) != value)
    return Departure(float(tcp), float(thing), wrong)


def _begin(env: SceneVectorEnv, episode: RecordedEpisode) -> None:
    env.reset(options={"task": episode.task, "variant": "default", "layout": episode.layout})
    if episode.objects is not None:
        task = get_task(episode.task)
        layout = replace(task.layout(episode.layout), object_pose=episode.objects)
        qpos = np.array(layout.qpos or get_setup(task.robot_setup).qpos)
        address = Address(episode.task, "default", episode.layout)
        env.start(np.zeros(1, np.int64), [address], [Placement(task, "default", layout, qpos)])


def _state(env: SceneVectorEnv) -> Floats:
    """Position of the TCP and of the manipulated thing, ``[6]``."""
    lane = env.lanes[0]
    state, name = lane.state(), lane.source_name
    thing = state[f"object/{name}"][:3] if f"object/{name}" in state else [float(state[f"joint/{name}"]), 0.0, 0.0]
    assert lane.reading.proprio is not None
    return np.concatenate([lane.reading.proprio[:3], thing])
