from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pytest
from omegaconf import OmegaConf

from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.settings.fields import fixed, option
from vlaser_gym.settings.reading import typed


@dataclass
class Rich:
    """Types that OmegaConf does not know, in a class that knows nothing of ours."""

    mode: Literal["fast", "slow"] = "fast"
    other: Literal["fast", "slow"] | None = None
    weights: Mapping[str, float] = option({}, "Weights.")
    names: Sequence[str] = option((), "Names.")
    either: int | str = option(1, "One or the other.")
    pair: tuple[float, float] = option((0.0, 1.0), "A pair.")
    lengths: list[int] | None = option(None, "Lengths.")
    inner: float = fixed(2.0)


def test_literals_mappings_and_unions_are_read() -> None:
    given = {"mode": "slow", "weights": {"a": 1}, "names": ["x"], "either": "y", "pair": [1, 2], "lengths": [3]}
    made = typed(Rich, OmegaConf.create(given))
    assert dataclasses.asdict(made) == {**given, "pair": (1.0, 2.0), "weights": {"a": 1.0}, "inner": 2.0, "other": None}
    assert typed(Rich, {}) == Rich()
    texts = ({"mode": "medium"}, {"other": "medium"}, {"weights": {"a": "heavy"}})
    for wrong in (*texts, {"pair": ["a", "b"]}, {"lengths": 3}):
        with pytest.raises((InvalidConfigError, UnknownNameError)) as caught:
            typed(Rich, {"either": 1, **wrong}, "algo.")
        assert f"algo.{next(iter(wrong))}" in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(UnknownNameError, match=r"Unknown key 'algo\.mod'.*nearest: algo\.mode"):
        typed(Rich, {"mod": "fast"}, "algo.")
