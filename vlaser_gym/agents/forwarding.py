"""Agents around an agent: what that one has beside ``reset`` and ``act``, they have too."""

from __future__ import annotations

from typing import Any

from vlaser_gym.agents.base import Agent


class Forwarded:
    """An attribute or a method of the agent behind; a wrapper around an agent that lacks it lacks it too."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, wrapper: ForwardingAgent | None, owner: type) -> Any:
        if wrapper is None:
            return self
        return getattr(wrapper.agent, self._name)


class ForwardingAgent:
    """Base of wrappers; a subclass sets ``agent`` and defines what it does itself.

    Forwarded is all that an agent may have (see :class:`~vlaser_gym.agents.base.Agent`).

    Example:
        >>> class Mine:
        ...     robot = "widowx"
        >>> wrapper = ForwardingAgent()
        >>> wrapper.agent = Mine()
        >>> wrapper.robot, hasattr(wrapper, "subtask_done")
        ('widowx', False)
    """

    agent: Agent

    batch_sizes = Forwarded()
    close = Forwarded()
    convention: Any = Forwarded()
    decided = Forwarded()
    describe: Any = Forwarded()
    explain = Forwarded()
    explained = Forwarded()
    get_state = Forwarded()
    intended = Forwarded()
    robot = Forwarded()
    set_batch_sizes = Forwarded()
    set_state = Forwarded()
    subtask_done = Forwarded()
    thoughts = Forwarded()
