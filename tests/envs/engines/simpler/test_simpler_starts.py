"""Starts compared with layouts: recordings of the original pass, anything else does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlaser_gym.envs.engines.base import Placement
from vlaser_gym.envs.engines.simpler.starts import departures
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import get_task

CARROT = "bridge_carrot_generated_modified"


def placement(task: str, layout: str = "grid:0", variant: str = "default") -> Placement:
    return Placement(get_task(task), variant, get_task(task).layout(layout, variant), np.zeros(0), layout)


def told(placed: Placement) -> dict[str, Any]:
    """What a worker says of an episode that begins exactly so."""
    layout = placed.layout
    bodies = placed.task.objects_of(layout.cast)
    return {
        "base": list(layout.base_pose or get_setup(placed.task.robot_setup).base_pose),
        "objects": {body.name: list(pose) for body, pose in zip(bodies, layout.object_pose, strict=True)},
        "joints": dict(layout.joints),
    }


def turned(pose: list[float], degrees: float) -> list[float]:
    """A pose turned about world z, and its quaternion with the other sign."""
    c, s = np.cos(np.radians(degrees) / 2), np.sin(np.radians(degrees) / 2)
    w, x, y, z = pose[3:]
    return [*pose[:3], *(-np.array([c * w - s * z, c * x - s * y, c * y + s * x, c * z + s * w]))]


@pytest.mark.parametrize(("shift", "angle", "said"), [
    ((0.0, 0.0, 0.0), 0, []),
    ((0.0, 0.006, -0.007), 19, []),
    ((0.0, 0.0, -0.011), 0, [f"{CARROT} is 0.011 m from its place"]),
    ((0.0, 0.0, 0.0), -21, [f"{CARROT} is turned by 21 degrees"]),
    ((0.03, 0.0, 0.04), 40, [f"{CARROT} is 0.05 m from its place", f"{CARROT} is turned by 40 degrees"]),
    ((0.0, 0.0, float("nan")), 0, [f"{CARROT} is nan m from its place"]),
])  # fmt: skip
def test_a_centimetre_and_twenty_degrees(shift: tuple[float, ...], angle: float, said: list[str]) -> None:
    placed = placement("widowx_carrot_on_plate")
    state = told(placed)
    pose = turned(state["objects"][CARROT], angle)
    state["objects"][CARROT] = [*(np.array(pose[:3]) + shift), *pose[3:]]
    assert departures(placed, state) == said


def test_what_is_compared_besides_objects() -> None:
    """Drawers, the robot's place; not the distractors, whose places the original draws."""
    placed = placement("google_robot_close_middle_drawer", "grid:4")
    state = told(placed)
    state["joints"]["middle_drawer_joint"] = 0.0
    state["base"][0] += 0.1
    assert departures(placed, state) == [
        "middle_drawer_joint is 0.2 m from its place",
        "the robot is 0.1 m from its place",
    ]
    placed = placement("google_robot_pick_coke_can", "grid:7", "distractors")
    state = told(placed)
    state["objects"]["apple"][0] += 1
    assert departures(placed, state) == []
    state["objects"]["opened_coke_can"][0] += 1
    assert departures(placed, state) == ["opened_coke_can is 1 m from its place"]


@pytest.mark.golden
def test_recorded_starts_of_the_original_pass(golden: Path) -> None:
    """WidowX by episode, the Google Robot's coke cans on their grid (recordings 100 to 124), move near by episode."""
    checked = 0
    for folder in sorted((golden / "reset").iterdir()):
        task, _, orientation = folder.name.partition(".")
        if "drawer" in task:
            continue  # the recorded ones drew a place of the robot that is no layout
        name = task.replace("pick", f"pick_{orientation}") if orientation else task
        for key, meta in json.loads((folder / "index.json").read_text()).items():
            number = int(key) - (100 if orientation else 0)
            if number < 0:
                continue  # drew the can's place
            arrays = np.load(folder / f"{key}.npz")
            state = {
                "base": arrays["base_pose_world"],
                "objects": dict(zip(meta["object_names"], arrays["obj_pose"], strict=True)),
                "joints": {},
            }
            assert departures(placement(name, f"grid:{number}"), state) == [], (folder.name, key)
            checked += 1
    assert checked == 97
