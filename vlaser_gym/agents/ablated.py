"""An agent that is shown something wrong: does it read the image, and the instruction?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.agents import agent_config, make_agent
from vlaser_gym.agents.base import Observations
from vlaser_gym.agents.forwarding import ForwardingAgent
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.perturbations.words import other_instruction
from vlaser_gym.envs.tasks import task_names
from vlaser_gym.errors import InvalidConfigError, UnknownNameError

IMAGES = ("true", "blank", "swap")
INSTRUCTIONS = ("true", "other", "empty")


class AblatedAgent(ForwardingAgent):
    """Another agent behind a filter. What else that agent has (``describe``, ``robot``, ``subtask_done``) it has too.

    Args:
        agent: name of the agent's config.
        image: ``true``; ``blank``: uniform grey; ``swap``: each environment gets the image of the next environment with
            the same instruction, grey where there is none.
        instruction: ``true``; ``other``: another task's of the same robot, see :func:`other_instruction`; ``empty``:
            no words.
        settings: the agent's own settings, e.g. its ``checkpoint``.

    Raises:
        UnknownNameError: for another filter.
        InvalidConfigError: for a filter of something that the agent does not read.
    """

    def __init__(
        self, agent: str = "vlaser_nano", image: str | bool = "true", instruction: str | bool = "true", **settings: Any
    ) -> None:
        # Where settings are read as YAML, the word true is a truth value.
        self.image = "true" if image is True else image
        self.instruction = "true" if instruction is True else instruction
        for kind, value, valid in (("image", self.image, IMAGES), ("instruction", self.instruction, INSTRUCTIONS)):
            if value not in valid:
                raise UnknownNameError(f"agent.{kind}", value, valid)
        self.agent = make_agent({**agent_config(agent), **settings})
        for kind, value in (("image", self.image), ("instruction", self.instruction)):
            if value != "true" and kind not in self.agent.observes:
                raise InvalidConfigError(
                    f"agent.{kind}={value} filters what the agent reads; {agent} reads no {kind}: leave the key out."
                )
        # Images change places within an instruction, also where the agent reads images alone.
        more = ("instruction",) if self.image == "swap" else ()
        self.observes = tuple(dict.fromkeys((*self.agent.observes, *more)))
        self._tasks: dict[int, str] = {}

    def reset(self, lanes: NDArray[np.int64], addresses: Sequence[Address]) -> None:
        """See :class:`~vlaser_gym.agents.base.Agent`.

        Raises:
            InvalidConfigError: for ``instruction=other`` in an episode of a task that does not exist here.
        """
        for lane, address in zip(lanes, addresses, strict=True):
            if self.instruction == "other" and address.task not in task_names():
                raise InvalidConfigError(
                    "agent.instruction=other tells another task's instruction and must know which task the episode is "
                    f"of; got {address.task!r}: let the client send the episode's address, or choose "
                    "agent.instruction=empty."
                )
            self._tasks[int(lane)] = address.task
        self.agent.reset(lanes, addresses)

    def act(self, observations: Observations, lanes: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        """See :class:`~vlaser_gym.agents.base.Agent`."""
        filtered = dict(observations)
        if self.image != "true":
            filtered["image"] = self._shown(np.asarray(observations["image"]), observations)
        if self.instruction != "true":
            told = zip(lanes, observations["instruction"], strict=True)
            filtered["instruction"] = tuple(self._told(text, self._tasks[int(lane)]) for lane, text in told)
        return self.agent.act(filtered, lanes)

    def _shown(self, images: NDArray[np.uint8], observations: Observations) -> NDArray[np.uint8]:
        out = np.full_like(images, 127)
        if self.image == "swap":
            told = observations["instruction"]
            for sentence in set(told):
                mine = np.array([i for i, other in enumerate(told) if other == sentence])
                if len(mine) > 1:
                    out[mine] = images[np.roll(mine, 1)]
        return out

    def _told(self, text: str, task: str) -> str:
        return "" if self.instruction == "empty" else other_instruction(text, task)
