"""AdamW in the sizes that it comes in: with fp32 averages, or with averages of eight bits.

Bytes per trained weight, its gradient and what the optimizer keeps included: fp32 weights 16, bf16 weights with fp32
copies 16, fp32 weights with eight-bit averages 10, bf16 weights with eight-bit averages 6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.training.scaling import like


class MasterAdamW(torch.optim.AdamW):
    """AdamW that steps fp32 copies of narrower weights and rounds them into these.

    A bf16 weight has 8 significant bits: a step of less than a 256th of it would be lost every time.

    Args:
        groups: as of ``torch.optim.AdamW``; weights that are fp32 have no copy.
        **options: as of ``torch.optim.AdamW``.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], **options: Any) -> None:
        self.pairs: list[tuple[nn.Parameter, nn.Parameter]] = []
        copied = [{**group, "params": [self._copy(weight) for weight in group["params"]]} for group in groups]
        super().__init__(copied, **options)

    def _copy(self, weight: nn.Parameter) -> nn.Parameter:
        if weight.dtype == torch.float32:
            return weight
        self.pairs.append((weight, nn.Parameter(weight.detach().float())))
        return self.pairs[-1][1]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Also of the narrow weights."""
        super().zero_grad(set_to_none)
        for weight, _ in self.pairs:
            weight.grad = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Step the copies by the narrow weights' gradients."""
        for weight, copy in self.pairs:
            copy.grad, weight.grad = None if weight.grad is None else weight.grad.float(), None
        loss: float | None = super().step(closure)
        for weight, copy in self.pairs:
            weight.copy_(copy)
            copy.grad = None
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state with the copies."""
        return {**super().state_dict(), "copies": [copy.detach() for _, copy in self.pairs]}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""
        super().load_state_dict({name: state_dict[name] for name in ("state", "param_groups")})
        for (_, copy), stored in zip(self.pairs, state_dict["copies"], strict=True):
            copy.copy_(like(stored, copy))


def make_optimizer(
    name: str, groups: Iterable[dict[str, Any]], *, sharded: bool = False, **options: Any
) -> torch.optim.Optimizer:
    """AdamW for groups of parameters.

    Args:
        name: one of :data:`~vlaser_gym.settings.training.OPTIMIZERS`.
        groups: as of ``torch.optim.AdamW``.
        sharded: whether the weights are shared out among processes.
        **options: ``lr``, ``betas``, ``weight_decay``.

    Raises:
        InvalidConfigError: for a package that is not installed, or that cannot do it.
    """
    groups = list(groups)
    if name == "adamw":
        weights = [weight for group in groups for weight in group["params"]]
        if weights and all(weight.is_cuda for weight in weights):
            options["fused"] = True  # by default a step there takes as much memory as all trained weights once more
        narrow = any(weight.dtype != torch.float32 for weight in weights)
        return (MasterAdamW if narrow else torch.optim.AdamW)(groups, **options)
    if name == "adamw_8bit":
        return _torchao(groups, options)
    if sharded:
        raise InvalidConfigError(
            "optimizer=bitsandbytes knows no weights that processes share; use optimizer=adamw_8bit, or shard=false."
        )
    return _bitsandbytes(groups, options)


def set_rate(group: dict[str, Any], rate: float) -> None:
    """Change the learning rate of a group of an optimizer; compiled ones hold it as a tensor."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def _torchao(groups: list[dict[str, Any]], options: dict[str, Any]) -> torch.optim.Optimizer:
    try:
        from torchao.optim import AdamW8bit  # noqa: PLC0415
    except ImportError as error:
        raise _missing("adamw_8bit", "torchao") from error
    # Without random rounding most steps of a bf16 weight would be lost.
    optimizer: torch.optim.Optimizer = AdamW8bit(groups, bf16_stochastic_round=True, **options)
    return optimizer


def _bitsandbytes(groups: list[dict[str, Any]], options: dict[str, Any]) -> torch.optim.Optimizer:
    if not all(weight.is_cuda for group in groups for weight in group["params"]):
        raise InvalidConfigError("optimizer=bitsandbytes needs a CUDA GPU; use optimizer=adamw_8bit, or adamw.")
    try:
        from bitsandbytes.optim import AdamW8bit  # noqa: PLC0415
    except ImportError as error:
        raise _missing("bitsandbytes", "bitsandbytes") from error
    optimizer: torch.optim.Optimizer = AdamW8bit(groups, **options)
    return optimizer


def _missing(key: str, package: str) -> InvalidConfigError:
    return InvalidConfigError(
        f"optimizer={key} needs the package {package}, which is not installed: pip install 'vlaser-gym[gpu]', or use "
        "optimizer=adamw."
    )


def state_bytes(name: str, weight: Tensor) -> float:
    """The optimizer state of one tensor of weights (bytes), by definition of its formats."""
    if name == "adamw":
        return weight.numel() * (8 if weight.dtype == torch.float32 else 12)
    # Two averages of one byte, and an fp32 scale for every 256 numbers; small tensors keep theirs as they are.
    if weight.numel() < 4096 or (name == "adamw_8bit" and weight.numel() % 256):
        return weight.numel() * 2 * (weight.itemsize if name == "adamw_8bit" else 4)
    return weight.numel() * (2 + 2 * 4 / 256)
