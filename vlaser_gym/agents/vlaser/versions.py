"""Versions of the Vlaser agent: which stored rates can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Version of the agent for each robot: it rises when the same policy would send other commands. Runs keep it as
#: ``agent_version`` among what the agent tells of itself; those that keep none are of version 1. Google Robot's is 2
#: since its gripper's hold counts all predicted actions, as the original's does; before, it counted the executed ones.
AGENT_VERSIONS = {"widowx": 1, "google_robot": 2}


def why_outdated(settings: Mapping[str, Any] | None) -> str | None:
    """The reason why a stored run's rates are not comparable with its agent's today; ``None`` if they are.

    Args:
        settings: what the agent told of itself when it acted (``agent_settings`` of a run); ``None`` for nothing.
    """
    settings = settings or {}
    if "time_max_period" not in settings or settings.get("robot") not in AGENT_VERSIONS:
        return None  # no Vlaser policy
    return why_another_version(settings["robot"], settings.get("agent_version", 1))


def why_another_version(robot: str, version: int) -> str | None:
    """The same for a version of the agent of a robot."""
    current = AGENT_VERSIONS[robot]
    if version == current:
        return None
    made = f"made by version {version} of the Vlaser agent on {robot}, here it is version {current}"
    if version > current:
        return f"{made}: update the package"
    return (
        f"{made}: the gripper held its commands for 15 executed actions instead of 15 predicted ones, so that its "
        "rates are comparable neither with new ones nor with published ones"
    )
