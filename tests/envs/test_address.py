from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlaser_gym.envs.address import Address, canonical_layout
from vlaser_gym.errors import InvalidConfigError

RECORDED = [675510781, 350876863, 662258507]
BASE = Address("widowx_stack_cube", "default", "grid:3", 2)


@given(st.integers(0, 10**12))
def test_a_number_means_a_grid_layout(k: int) -> None:
    assert canonical_layout(k) == canonical_layout(np.int64(k)) == canonical_layout(f"grid:{k}") == f"grid:{k}"


def test_leading_zeros_do_not_make_another_layout() -> None:
    assert Address("t", layout="region:007") == Address("t", layout="region:7")


@pytest.mark.parametrize(
    "layout", [-1, "5", "grid", "grid:", "grid:-1", "grid:1.5", "area:3", "grid:1 ", None, 1.5, "", True]
)
def test_anything_else_is_refused(layout: object) -> None:
    with pytest.raises(InvalidConfigError, match="'grid:K', 'region:K' or 'region2:K'; got"):
        canonical_layout(layout)  # type: ignore[arg-type]


def test_parts_of_a_layout() -> None:
    address = Address("t", layout="region:12")
    assert (address.layout_kind, address.layout_index) == ("region", 12)


def test_sorting_counts_layouts_as_numbers() -> None:
    layouts = ["region:2", "grid:10", "grid:9"]
    ordered = sorted((Address("t", layout=layout) for layout in layouts), key=lambda a: a.sort_key)
    assert [a.layout for a in ordered] == ["grid:9", "grid:10", "region:2"]


@pytest.mark.parametrize(
    "change", [{"task": "widowx_carrot_on_plate"}, {"variant": "other"}, {"layout": "grid:4"}, {"trial": 3}]
)
def test_noise_depends_on_every_field_and_on_the_purpose(change: dict[str, object]) -> None:
    other = dataclasses.replace(BASE, **change)  # type: ignore[arg-type]
    draws = {a.rng(purpose).integers(2**62) for a in (BASE, other) for purpose in ("agent", "layout")}
    assert len(draws) == 4


def test_noise_stays_what_it_was() -> None:
    """Stored results name addresses: their noise must never change. Recorded when addresses were introduced."""
    assert BASE.rng().integers(10**9, size=3).tolist() == RECORDED
    assert BASE.rng().integers(10**9, size=3).tolist() == RECORDED


def test_as_text() -> None:
    assert str(BASE) == "widowx_stack_cube/default/grid:3/2"
