"""Agents: policies that act in the environments. :func:`make_agent` builds any of them from its config."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any, cast

from vlaser_gym.agents.base import Agent, agent_code
from vlaser_gym.errors import InvalidConfigError, UnknownNameError

__all__ = ["Agent", "agent_config", "make_agent", "understood"]

#: What an agent is given that does not say what it observes.
DEFAULT_OBSERVES = ("image", "proprio", "instruction")


#: Agents that runs of earlier editions name, and where they are now.
MOVED = {
    "vlaser_gym.agents.learners.exploration.load_exploring_agent": (
        "vlaser_gym.agents.vlaser.exploration.load_exploring_agent"
    ),
}


def make_agent(config: str | Mapping[str, Any]) -> Agent:
    """Build an agent.

    Args:
        config: name of a file in ``configs/agent``, or a mapping with ``_target_`` (a class or function by its dotted
            path) and its keyword arguments. ``name``, the label in records, is not handed on.

    Returns:
        An object with ``observes``, ``reset`` and ``act``; an agent without ``observes`` gets images, proprioception
        and instruction, one whose ``observes`` is a single name gets that.

    Raises:
        UnknownNameError: for a name without a file, or an argument that the class does not take.
        InvalidConfigError: if the class cannot be imported, or is no agent.
        AgentError: if its code raises something while it is imported or built.

    Example:
        >>> make_agent({"_target_": "vlaser_gym.agents.random.RandomAgent", "horizon": 2}).observes
        ()
    """
    # Here and not above: learners and environments import this package without needing Hydra.
    from omegaconf import OmegaConf  # noqa: PLC0415

    from vlaser_gym.cli import group_config  # noqa: PLC0415

    mapping = group_config("agent", config) if isinstance(config, str) else OmegaConf.create(dict(config))
    # The name may refer to keys of a whole command's config.
    nameless = OmegaConf.masked_copy(mapping, [key for key in mapping if key != "name"])
    settings: dict[str, Any] = OmegaConf.to_container(nameless, resolve=True)
    path = str(settings.pop("_target_", ""))
    path = MOVED.get(path, path)
    module, _, name = path.rpartition(".")
    with agent_code(f"Importing the agent {path}"):
        try:
            target = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise InvalidConfigError(
                f"agent._target_ must be an importable class such as my_package.MyAgent; got {path!r} ({error}); "
                "modules of the current folder and of installed packages are found."
            ) from error
    _check_arguments(path, target, settings)
    with agent_code(f"Building the agent {path} with {settings}"):
        agent = target(**settings)
    return understood(_as_agent(path, agent))


def agent_config(name: str) -> dict[str, Any]:
    """The config of an agent, for another that stands around it and has more to say about it.

    Args:
        name: of a file in ``configs/agent``.

    Raises:
        UnknownNameError: for a name without a file.
    """
    from omegaconf import OmegaConf  # noqa: PLC0415  as above

    from vlaser_gym.cli import group_config  # noqa: PLC0415

    return cast(dict[str, Any], OmegaConf.to_container(group_config("agent", name)))


def understood(agent: Agent) -> Agent:
    """The agent itself, or converted if it declares another convention than the environments'.

    Raises:
        UnknownNameError, InvalidConfigError: for a convention that is none.
    """
    from vlaser_gym.agents.converted import ConvertedAgent, declared, is_of_this_gym  # noqa: PLC0415  (needs tasks)

    convention = declared(agent)
    return agent if convention is None or is_of_this_gym(convention) else ConvertedAgent(agent, convention)


def _check_arguments(path: str, target: Any, settings: Mapping[str, Any]) -> None:
    """Check that every argument exists and that every required one is given."""
    if not callable(target):
        raise InvalidConfigError(f"agent._target_ must be a class; {path} is a {type(target).__name__}.")
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:  # built in C: it says itself what it dislikes
        return
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for key in settings:
        if key not in parameters:
            if not parameters:
                raise InvalidConfigError(f"The agent {path} takes no arguments; got agent.{key}.")
            raise UnknownNameError(f"argument of the agent {path}", key, parameters)
    needed = [n for n, p in parameters.items() if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    absent = [name for name in needed if name not in settings]
    if absent:
        raise InvalidConfigError(f"The agent {path} needs {absent[0]!r}: give agent.{absent[0]}=VALUE.")


def _as_agent(path: str, agent: Any) -> Agent:
    absent = [name for name in ("reset", "act") if not callable(getattr(agent, name, None))]
    if absent:
        raise InvalidConfigError(
            f"An agent has the methods reset(lanes, addresses) and act(observations, lanes); {path} has no {absent[0]}."
        )
    if not hasattr(agent, "observes"):
        agent.observes = DEFAULT_OBSERVES
    elif isinstance(agent.observes, str):
        agent.observes = (agent.observes,)
    return agent  # type: ignore[no-any-return]
