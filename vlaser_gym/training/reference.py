"""The policy that training began with, to compare with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from vlaser_gym.agents.trainable import TrainableAgent


class Reference:
    """A constant policy: the trained one with its adapters off, or a frozen copy where it has none.

    Args:
        agent: as it is now.
        copy: take a copy also where there are adapters, so that their present state is what is kept.
    """

    def __init__(self, agent: TrainableAgent, *, copy: bool = False) -> None:
        self.agent = agent
        self.copy = None if agent.has_adapters and not copy else agent.frozen_copy()

    @contextmanager
    def active(self) -> Iterator[TrainableAgent]:
        """Inside, what is yielded computes as the reference, without gradients."""
        with torch.no_grad():
            if self.copy is not None:
                yield self.copy
                return
            with self.agent.adapters_off():
                yield self.agent

    def state(self) -> dict[str, Tensor] | None:
        """Weights that a continued run needs; ``None`` if the policy itself has them."""
        return None if self.copy is None else self.copy.state_dict()

    def load(self, state: dict[str, Tensor] | None) -> None:
        """Put back what :meth:`state` gave; states of the first edition lack the agent's own prefix."""
        if self.copy is not None and state is not None:
            self.copy.load_state_dict(dict(zip(self.copy.state_dict(), state.values(), strict=True)))
