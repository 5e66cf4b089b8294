"""A policy that acts first and an expert that goes on from where it has come to: DAgger's demonstrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.agents import agent_config, make_agent
from vlaser_gym.agents.base import Observations, rows_of
from vlaser_gym.agents.scripted import ScriptedExpert
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.errors import InvalidConfigError

Floats = NDArray[np.float64]
Lanes = NDArray[np.int64]


class RollInAgent:
    """A policy acts for the first control steps of each episode, the expert for the others; only these are taught.

    An expert alone never shows the states that a policy's own errors lead to (Ross, Gordon and Bagnell, 2011).

    Args:
        agent: name of the policy's config.
        steps: least and most control steps that the policy acts; how many is drawn from the episode's address.
        disturbance, declares: the expert's, see :class:`~vlaser_gym.agents.scripted.ScriptedExpert`.
        settings: the policy's own settings, e.g. its ``checkpoint``.

    Raises:
        InvalidConfigError: for other numbers of steps.
    """

    def __init__(
        self,
        agent: str = "vlaser_nano",
        steps: Sequence[int] = (2, 40),
        disturbance: Mapping[str, float] | None = None,
        declares: bool = True,
        **settings: Any,
    ) -> None:
        if not isinstance(steps, Sequence) or len(steps) != 2 or not 0 <= steps[0] <= steps[1]:
            raise InvalidConfigError(
                f"agent.steps is the least and the most control steps that the policy acts, as in [2,40]; got {steps}."
            )
        self.policy = make_agent({**agent_config(agent), **settings})
        self.expert = ScriptedExpert(disturbance, declares)
        self.observes = tuple(dict.fromkeys((*self.policy.observes, *self.expert.observes)))
        self._least, self._most = (int(number) for number in steps)
        #: By environment: steps left to the policy, what it has decided to do in them, who acted last, and how.
        self._left: dict[int, int] = {}
        self._chunks: dict[int, list[Floats]] = {}
        self._is_expert: dict[int, bool] = {}
        self._acted: dict[int, Floats] = {}

    def reset(self, lanes: Lanes, addresses: Sequence[Address]) -> None:
        """See :class:`~vlaser_gym.agents.base.Agent`.

        Raises:
            InvalidConfigError: for a WidowX episode.
        """
        for lane, address in zip(lanes, addresses, strict=True):
            if get_setup(get_task(address.task).robot_setup).robot.name != "google_robot":
                raise InvalidConfigError(
                    "agent=roll_in is for the Google Robot; the WidowX's controller adds up the targets of all "
                    f"actions, also of those that its expert has not made: record {address.task} with agent=expert."
                )
            self._left[int(lane)] = int(address.rng("roll_in").integers(self._least, self._most + 1))
            self._chunks[int(lane)], self._is_expert[int(lane)] = [], False
        self.policy.reset(lanes, addresses)
        self.expert.reset(lanes, addresses)

    def act(self, observations: Observations, lanes: Lanes) -> Floats:
        """``[N, 1, 7]`` actions."""
        by_expert = np.array([self._left[int(lane)] == 0 for lane in lanes])
        deciding = ~by_expert & np.array([not self._chunks[int(lane)] for lane in lanes])
        if deciding.any():
            asked = rows_of(observations, np.flatnonzero(deciding))
            chunks = np.asarray(self.policy.act(asked, lanes[deciding]), np.float64)
            self._chunks |= {int(lane): list(chunk) for lane, chunk in zip(lanes[deciding], chunks, strict=True)}
        actions = np.zeros((len(lanes), 1, 7))
        if by_expert.any():
            actions[by_expert] = self.expert.act(rows_of(observations, np.flatnonzero(by_expert)), lanes[by_expert])
        for row in np.flatnonzero(~by_expert):
            actions[row, 0] = self._chunks[int(lanes[row])].pop(0)
            self._left[int(lanes[row])] -= 1
        self._is_expert |= dict(zip(lanes.tolist(), by_expert.tolist(), strict=True))
        self._acted |= dict(zip(lanes.tolist(), actions, strict=True))
        return actions

    def intended(self, lanes: Lanes) -> Floats:
        """``[N, 1, 7]``: the last actions, the expert's without disturbance."""
        by_expert = np.array([self._is_expert[int(lane)] for lane in lanes])
        acted = np.array([self._acted[int(lane)] for lane in lanes])
        return np.where(by_expert[:, None, None], self.expert.intended(lanes), acted)

    def teaches(self, lanes: Lanes) -> NDArray[np.bool_]:
        """True where the expert acted last and teaches, ``[N]``."""
        return np.array([self._is_expert[int(lane)] for lane in lanes]) & self.expert.teaches(lanes)

    def subtask_done(self, lanes: Lanes) -> NDArray[np.bool_]:
        """True where the expert has done the first sub-task of an episode of two, ``[N]``."""
        return self.expert.subtask_done(lanes)
