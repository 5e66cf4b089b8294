"""The attention of training in bf16 on a CPU is the attention."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vlaser_gym.agents.vlaser.kernels import attention


def _drawn(heads: int, queries: int, keys: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(queries)
    shapes = ((2, heads, queries, 24), (2, heads, keys, 24), (2, heads, keys, 24))
    q, k, v = (torch.randn(shape, generator=generator).bfloat16().requires_grad_() for shape in shapes)
    return q, k, v


def _by_hand(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
    """Result and gradients of its sum of squares, in double precision."""
    exact = [tensor.detach().double().requires_grad_() for tensor in (q, k, v)]
    scores = torch.einsum("bhtd,bhsd->bhts", exact[0], exact[1]) / 24**0.5
    shares = (scores if mask is None else scores + mask.double()).exp()
    out = torch.einsum("bhts,bhsd->bhtd", shares / shares.sum(-1, keepdim=True), exact[2])
    return out.detach(), *torch.autograd.grad(out.square().sum(), exact)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("heads", "queries", "keys"), [(4, 37, 37), (1, 12, 50)])
def test_results_and_gradients_are_those_of_double_precision(heads: int, queries: int, keys: int, masked: bool) -> None:
    q, k, v = _drawn(heads, queries, keys)
    mask = torch.zeros(2, 1, 1, keys).masked_fill_(torch.arange(keys) >= keys - 5, -1e9) if masked else None
    out = attention(q, k, v, mask)
    found = (out.detach(), *torch.autograd.grad(out.float().square().sum(), (q, k, v)))
    for name, value, exact in zip(("result", "q", "k", "v"), found, _by_hand(q, k, v, mask), strict=True):
        assert value.dtype == torch.bfloat16
        error = (value.double() - exact).abs().max() / exact.abs().max()
        assert error < 0.02, (name, float(error))  # bf16 has 8 bits


def test_without_gradients_it_is_the_same_to_the_bit() -> None:
    q, k, v = _drawn(4, 37, 37)
    with torch.no_grad():
        without = attention(q, k, v)
    assert torch.equal(without, attention(q, k, v))


def test_all_else_goes_through_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    fused, calls = functional.scaled_dot_product_attention, []

    def spy(q: Tensor, *args: Tensor, **options: Tensor) -> Tensor:
        calls.append(q.dtype)
        return fused(q, *args, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", spy)
    q, k, v = _drawn(1, 3, 5)
    attention(q, k, v)
    assert calls == []
    attention(q.float(), k.float(), v.float())
    attention(q.double(), k.double(), v.double())
    assert calls == [torch.float32, torch.float64]
