"""Policies that come with the package, by the names that stand for them wherever a checkpoint is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.storage.hub import local_folder

#: Folders of weights, one of each name.
SHIPPED = Path(__file__).parent / "weights"
SHIPPED_NAMES = ("nano", "nano-sft", "nano-google", "nano-google-sft")
#: Robot -> the policy that acts where no checkpoint is given.
DEFAULT_OF_ROBOT = {"widowx": "nano", "google_robot": "nano-google"}
_VLASER = "vlaser_gym.agents.vlaser"
#: What builds agents that act by their robot's policy where no checkpoint is given; and an agent around another one.
_BUILDERS = (f"{_VLASER}.agent.load_agent", f"{_VLASER}.exploration.load_exploring_agent")
_AROUND = ("vlaser_gym.agents.ablated.AblatedAgent", "vlaser_gym.agents.roll_in.RollInAgent")


def shipped_or_path(checkpoint: str) -> str:
    """The folder of a policy that comes with the package, by its name, or of one on the Hugging Face hub, by its.

    Anything else is a path, whether there is something or not.
    """
    return str(SHIPPED / checkpoint) if checkpoint in SHIPPED_NAMES else str(local_folder(checkpoint, "checkpoint"))


def default_checkpoint(robot: str | None) -> str:
    """The name of the policy that acts for a robot where no checkpoint is given; without a robot, for WidowX.

    Raises:
        InvalidConfigError: if no policy for this robot comes with the package.
    """
    name = DEFAULT_OF_ROBOT.get(robot or "widowx")
    if name not in SHIPPED_NAMES:
        ours = ", ".join(of for of, named in DEFAULT_OF_ROBOT.items() if named in SHIPPED_NAMES)
        raise InvalidConfigError(
            f"Without checkpoint= a policy of the package acts, which has none for {robot} (only for {ours}): give "
            "checkpoint=FOLDER, or choose another agent, such as agent=expert."
        )
    return name


def with_checkpoint(agent: Mapping[str, Any], checkpoint: str | None, robot: str | None) -> dict[str, Any]:
    """The config of an agent with the weights that it acts by.

    Args:
        agent: config, as :func:`~vlaser_gym.agents.make_agent` takes it.
        checkpoint: what the command's ``checkpoint=`` says, which counts more than the agent's own.
        robot: that it will act for, where neither says anything and the agent is a Vlaser policy.

    Raises:
        InvalidConfigError: see :func:`default_checkpoint`.
    """
    if checkpoint is not None:
        return {**agent, "checkpoint": checkpoint}
    if agent.get("checkpoint") is not None or not _builds_vlaser(agent):
        return dict(agent)
    return {**agent, "checkpoint": default_checkpoint(agent.get("robot") or robot)}


def _builds_vlaser(agent: Mapping[str, Any]) -> bool:
    """True for the config of a Vlaser policy, also if another agent stands around it."""
    from vlaser_gym.cli import group_config  # noqa: PLC0415  learners import this module without needing Hydra

    if agent.get("_target_") in _AROUND:
        return _builds_vlaser(group_config("agent", str(agent["agent"])))
    return agent.get("_target_") in _BUILDERS
