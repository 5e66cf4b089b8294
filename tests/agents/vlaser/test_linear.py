from __future__ import annotations

import pytest
import torch
from torch import nn

from vlaser_gym.agents.vlaser.linear import PaddedLinear


@pytest.mark.parametrize("inputs", [1, 7, 8, 9])
@pytest.mark.parametrize("rows", [2, 3, 8, 32])
def test_a_row_does_not_depend_on_its_place(inputs, rows):
    generator = torch.Generator().manual_seed(rows)
    layer, x = PaddedLinear(inputs, 32), torch.randn(rows, inputs, generator=generator)
    with torch.no_grad():
        expected = layer(x)
        for _ in range(5):
            order = torch.randint(rows, (rows,), generator=generator)
            assert torch.equal(layer(x[order]), expected[order])


def test_it_is_the_linear_map():
    layer, plain = PaddedLinear(7, 5).double(), nn.Linear(7, 5).double()
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(4, 3, 7, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(layer(x), plain(x))
    assert torch.autograd.gradcheck(layer, x)
