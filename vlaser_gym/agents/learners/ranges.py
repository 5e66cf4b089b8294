"""Checks that the settings of several algorithms share; each error is one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from vlaser_gym.agents.vlaser.agent import choose_device
from vlaser_gym.agents.vlaser.policy import PARTS
from vlaser_gym.errors import InvalidConfigError, UnknownNameError

#: Parts that take no adapters.
WITHOUT_ADAPTERS = ("embedding",)


def check_rising(key: str, values: Sequence[float]) -> None:
    """Raise :class:`InvalidConfigError` unless these are two rising numbers above 0."""
    if len(values) != 2 or not 0 < values[0] < values[1]:
        raise InvalidConfigError(f"algo.{key} must be two rising numbers above 0; got {list(values)}.")


def check_trained(freeze: Sequence[str], lora: int = 0) -> None:
    """See that something is left to train.

    Raises:
        UnknownNameError: for a part that a policy does not have.
        InvalidConfigError: if no part is left.
    """
    for part in freeze:
        if part not in PARTS:
            raise UnknownNameError("part of the policy", part, PARTS)
    out = {*freeze, *(WITHOUT_ADAPTERS if lora else ())}
    if out >= set(PARTS):
        adapters = f" with adapters (algo.lora={lora})" if lora else ""
        raise InvalidConfigError(
            f"algo.freeze={list(freeze)} leaves nothing to train{adapters}; take a part such as expert out of it."
        )


def check_cache(device: str | None) -> None:
    """Raise :class:`InvalidConfigError` for a device that is not there; ``None`` is the policy's."""
    if device is not None:
        choose_device(device, "algo.cache_device")


def check_shares(tasks: Sequence[str], slots: int) -> None:
    """Raise :class:`InvalidConfigError` if tasks take turns in fewer slots: some would never be trained."""
    if slots < len(tasks):
        raise InvalidConfigError(
            f"{len(tasks)} tasks need as many lanes, or initial states of a GRPO rollout, over all processes; got "
            f"{slots}: raise num_envs to a multiple of {len(tasks)}, or name fewer tasks with task=."
        )
