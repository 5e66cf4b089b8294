from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pytest
from omegaconf import OmegaConf

from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.settings.fields import fixed, option
from vlaser_gym.settings.reading import read_yaml, typed


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


@pytest.mark.parametrize("number", [10**400, -(10**400), int("9" * 4000)])
def test_numbers_that_no_float_holds_are_refused(number: int) -> None:
    for key in ("inner", "weights"):
        with pytest.raises((InvalidConfigError, UnknownNameError)) as caught:
            typed(Rich, {"mode": "slow", key: number}, "algo.")
        assert f"algo.{key}" in str(caught.value)
        assert len(str(caught.value)) < 300


def test_yaml_of_strangers_neither_unfolds_nor_nests_without_end() -> None:
    laughs = "a0: &a0 [ha, ha]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
    for text in (
        laughs,
        "x: &x 1\ny: *x\n",
        "[" * 100_000,
        "a: " + "{b: " * 40 + "1" + "}" * 40,
        "a: " + "b" * 5_000_000,
    ):
        began = time.process_time()
        with pytest.raises(ValueError, match=r"aliases, or more than 32 levels|longer than 4000000 characters"):
            read_yaml(text)
        assert time.process_time() - began < 3
    assert read_yaml("a: {b: [1, 2.5, null]}\nc: ${oc.env:HOME}\n") == {
        "a": {"b": [1, 2.5, None]},
        "c": "${oc.env:HOME}",
    }
