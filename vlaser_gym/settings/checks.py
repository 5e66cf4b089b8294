"""Checks that settings share; each error is one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vlaser_gym.errors import InvalidConfigError


def check_rising(key: str, values: Sequence[float]) -> None:
    """Raise :class:`InvalidConfigError` unless these are two rising numbers above 0."""
    if len(values) != 2 or not 0 < values[0] < values[1]:
        raise InvalidConfigError(f"algo.{key} must be two rising numbers above 0; got {list(values)}.")


def check_least(settings: object, *, or_null: bool = False, prefix: str = "", **least: int) -> None:
    """Look whether fields of a command's settings are large enough, such as ``check_least(settings, num_envs=1)``.

    Args:
        settings: with the fields as attributes.
        or_null: ``None`` is right too.
        prefix: what to put before their names, such as ``algo.``.
        least: of each field.

    Raises:
        InvalidConfigError: with the first that is not.
    """
    for key, limit in least.items():
        value = getattr(settings, key)
        if not (or_null and value is None) and not value >= limit:
            wanted = f"{limit} or null" if or_null else str(limit)
            raise InvalidConfigError(f"{prefix}{key} must be at least {wanted}; got {value}.")


def check_above_zero(settings: object, *, or_null: bool = False, prefix: str = "", **most: float) -> None:
    """Look whether fields of a command's settings are above 0, such as ``check_above_zero(settings, clip=math.inf)``.

    Args:
        settings: with the fields as attributes.
        or_null: ``None`` is right too.
        prefix: what to put before their names, such as ``algo.``.
        most: of each field, ``math.inf`` where there is no limit.

    Raises:
        InvalidConfigError: with the first that is not, or is above its limit.
    """
    for key, limit in most.items():
        value = getattr(settings, key)
        if not (or_null and value is None) and not 0 < value <= limit:
            wanted = ("" if math.isinf(limit) else f" and at most {limit:g}") + (" or null" if or_null else "")
            raise InvalidConfigError(f"{prefix}{key} must be above 0{wanted}; got {value}.")
