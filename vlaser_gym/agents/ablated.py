"""An agent that is shown something wrong: does it read the picture, and the instruction?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.agents import make_agent
from vlaser_gym.agents.base import Observations
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import UnknownNameError

IMAGES = ("true", "blank", "swap")
INSTRUCTIONS = ("true", "other", "empty")
#: What WidowX's tasks say; another than the true one is the next in this list.
SENTENCES = (
    "put carrot on plate",
    "put the spoon on the towel",
    "stack the green block on the yellow block",
    "put eggplant into yellow basket",
)


class AblatedAgent:
    """Another agent behind a filter.

    Args:
        agent: name of the agent's config.
        image: ``true``; ``blank``: uniform grey; ``swap``: each lane gets the picture of the next lane with the same
            instruction, grey where there is none.
        instruction: ``true``; ``other``: another task's; ``empty``: no words.
        settings: the agent's own settings, e.g. its ``checkpoint``.
    """

    def __init__(
        self, agent: str = "vlaser_nano", image: str = "true", instruction: str = "true", **settings: Any
    ) -> None:
        for kind, value, valid in (("image", image, IMAGES), ("instruction", instruction, INSTRUCTIONS)):
            if value not in valid:
                raise UnknownNameError(f"agent.{kind}", value, valid)
        self.agent = make_agent({**_config(agent), **settings})
        self.observes = self.agent.observes
        self.image, self.instruction = image, instruction

    def reset(self, lanes: NDArray[np.int64], addresses: Sequence[Address]) -> None:
        """See :class:`~vlaser_gym.agents.base.Agent`."""
        self.agent.reset(lanes, addresses)

    def act(self, observations: Observations, lanes: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        """See :class:`~vlaser_gym.agents.base.Agent`."""
        told = tuple(observations["instruction"])
        shown = np.asarray(observations["image"])
        filtered = {**observations, "image": self._shown(shown, told), "instruction": self._told(told)}
        return self.agent.act(filtered, lanes)

    def _shown(self, images: NDArray[np.uint8], told: tuple[str, ...]) -> NDArray[np.uint8]:
        if self.image == "true":
            return images
        out = np.full_like(images, 127)
        if self.image == "swap":
            for sentence in set(told):
                mine = np.array([i for i, other in enumerate(told) if other == sentence])
                if len(mine) > 1:
                    out[mine] = images[np.roll(mine, 1)]
        return out

    def _told(self, told: tuple[str, ...]) -> tuple[str, ...]:
        if self.instruction == "true":
            return told
        if self.instruction == "empty":
            return ("",) * len(told)
        after = dict(zip(SENTENCES, SENTENCES[1:] + SENTENCES[:1], strict=True))
        return tuple(after.get(sentence, SENTENCES[0]) for sentence in told)


def _config(agent: str) -> dict[str, Any]:
    from vlaser_gym.cli import group_config  # noqa: PLC0415

    return {str(key): value for key, value in group_config("agent", agent).items()}
