"""The policy that training began with, to compare with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from vlaser_gym.agents.learners.sft import copy_policy
from vlaser_gym.agents.vlaser.adapters import adapters_off, has_adapters
from vlaser_gym.agents.vlaser.policy import VlaserPolicy


class Reference:
    """A constant policy: the trained one with its adapters off, or a frozen copy where it has none.

    Args:
        policy: as it is now.
        copy: take a copy also where there are adapters, so that their present state is what is kept.
    """

    def __init__(self, policy: VlaserPolicy, *, copy: bool = False) -> None:
        self.policy = policy
        self.copy = None if has_adapters(policy) and not copy else copy_policy(policy).to(policy.device)

    @contextmanager
    def active(self) -> Iterator[VlaserPolicy]:
        """Inside, what is yielded computes as the reference, without gradients."""
        with torch.no_grad():
            if self.copy is not None:
                yield self.copy
                return
            with adapters_off(self.policy):
                yield self.policy

    def state(self) -> dict[str, Tensor] | None:
        """Weights that a continued run needs; ``None`` if the policy itself has them."""
        return None if self.copy is None else self.copy.state_dict()

    def load(self, state: dict[str, Tensor] | None) -> None:
        """Put back what :meth:`state` gave."""
        if self.copy is not None and state is not None:
            self.copy.load_state_dict(state)
