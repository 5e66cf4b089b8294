"""The data card: what a data set of this gym holds, in the words of its columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlaser_gym.conventions import CONVENTIONS, of_robot

_POSE = "position (m) and quaternion w, x, y, z"
_ACTION = (
    "move of the TCP: translation (m) and axis-angle rotation (rad), both in the base frame, neither scaled nor clipped"
)
_COLUMNS = {
    "observation.images.main": "the robot's camera, before the step",
    "observation.state": f"pose of the TCP in the base frame, {_POSE}, and how far the gripper is open (0 to 1)",
    "action": f"**what to learn**: what the recorded agent meant to do, a {_ACTION}; then {{gripper}}",
    "privileged.executed": "what was executed instead: the same, but for disturbances that the agent did not know of",
    "privileged.state": "of the simulator: pose of the TCP and openness, poses of the object to move and of its goal "
    f"({_POSE}, base frame), up to three joints of furniture, the task's stage",
    "privileged.decision": "a policy that decides every {every} steps does so here; this gym's own fine-tuning takes "
    "its samples from these rows",
    "next.reward": "1 where the task is solved after the step",
    "next.done": "the episode's last row",
}


_FURTHER_CAMERA = "another camera of the robot, by its name, before the step"


def data_card(robot: str, fps: float, settings: Mapping[str, Any], columns: Mapping[str, Any]) -> str:
    """The text of a data set's ``README.md``.

    Args:
        robot: whose episodes they are.
        fps: control steps, and so rows, per second.
        settings: what made the episodes.
        columns: of ``meta/info.json``, by name.
    """
    family = next((name for name in CONVENTIONS if robot.startswith(name)), None)
    gripper = "the gripper" if family is None else f"the gripper's goal: {of_robot(family).gripper.words}"
    words = {"gripper": gripper, "every": settings.get("every", 1)}
    views = [name for name in columns if name.startswith("observation.images.")]
    told = {name: _COLUMNS.get(name, _FURTHER_CAMERA) for name in columns if name in _COLUMNS or name in views}
    rows = [f"| `{name}` | {text.format(**words)} |" for name, text in told.items()]
    agent = dict(settings.get("agent") or {}).get("name", "an agent")
    kept = "those that are solved at their last step" if settings.get("only_successful") else "all"
    return f"""---
task_categories:
- robotics
tags:
- LeRobot
- simulation
configs:
- config_name: default
  data_files: data/*/*.parquet
---

# Demonstrations in simulation: {robot}

Recorded by vlaser-gym from the agent `{agent}` in the engine `{settings.get("engine", "mujoco")}`; of the episodes
that were run, {kept} are kept. Layout: LeRobot v3.0, {fps:g} rows per second, one per control step, each with its
image and one action. All settings are in `meta/collection.json`, the address of each episode (task, variant, layout,
trial) in `meta/episodes`.

| column | holds |
| --- | --- |
{chr(10).join(rows)}

Stock policies of LeRobot take the columns `observation.*` as inputs and `action` as the output. **`privileged.*` is
for analysis and for critics: on a robot nobody knows these numbers.** The other columns `next.*` are sub-goals, after
the step.

Quantiles in `meta/stats.json` are taken over all rows; those of the images are means of the episodes' quantiles, as
LeRobot computes them.
"""
