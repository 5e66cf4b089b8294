"""LoRA adapters on parts of the policy, through ``peft``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vlaser_gym.agents.vlaser.policy import PARTS, VlaserPolicy
from vlaser_gym.errors import InvalidConfigError, UnknownNameError


def add_lora(
    policy: VlaserPolicy,
    parts: Sequence[str] = ("language", "expert"),
    *,
    rank: int = 16,
    alpha: float | None = None,
    dropout: float = 0.0,
    seed: int = 0,
) -> None:
    """Put low-rank adapters on every linear layer of some parts, in place.

    All weights of these parts become constant; what was trainable elsewhere stays trainable. Fresh adapters change
    nothing. Layers that no action depends on get none.

    Args:
        policy: without adapters.
        parts: some of ``vision``, ``language``, ``expert``.
        rank: of the adapters.
        alpha: scale times rank; by default twice the rank.
        dropout: on the adapters' inputs, in training mode; likelihoods need 0.
        seed: of the adapters' weights.

    Raises:
        UnknownNameError: for another part.
        InvalidConfigError: if the policy has adapters already.
    """
    if has_adapters(policy):
        raise InvalidConfigError("The policy has adapters already: merge them before adding others.")
    for part in parts:
        if part not in PARTS or part == "embedding":
            raise UnknownNameError("part for adapters", part, set(PARTS) - {"embedding"})
    last = f"language.layers.{policy.config.layers - 1}."
    # No action depends on these.
    unused = tuple(last + name for name in ("mlp.", "self_attn.q_proj", "self_attn.o_proj"))
    roots = [root for part in parts for root in PARTS[part]]
    modules = [pair for root in roots for pair in policy.get_submodule(root).named_modules(prefix=root)]
    targets = [name for name, module in modules if isinstance(module, nn.Linear) and not name.startswith(unused)]
    trainable = {id(p) for p in policy.parameters() if p.requires_grad}
    adapted = {id(p) for root in roots for p in policy.get_submodule(root).parameters()}
    inject_adapters(policy, targets, rank=rank, alpha=alpha, dropout=dropout, seed=seed)
    for parameter in policy.parameters():
        if id(parameter) in trainable - adapted:
            parameter.requires_grad_(True)


def inject_adapters(
    model: nn.Module,
    targets: Sequence[str],
    *,
    rank: int,
    alpha: float | None = None,
    dropout: float = 0.0,
    seed: int = 0,
) -> None:
    """Put low-rank adapters on linear layers, by their names; all other weights become constant."""
    # Imported here: the import takes seconds and most runs have no adapters.
    from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415

    config = LoraConfig(
        r=rank, lora_alpha=alpha if alpha is not None else 2 * rank, lora_dropout=dropout, target_modules=list(targets)
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)


def has_adapters(policy: VlaserPolicy) -> bool:
    """True after :func:`add_lora`, until it is undone."""
    return any(True for _ in adapted_layers(policy))


def merge_lora(policy: VlaserPolicy) -> None:
    """Add the adapters to the weights they sit on and remove them, in place."""
    for name, layer in list(adapted_layers(policy)):
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(policy.get_submodule(parent), child, layer.get_base_layer())


@contextmanager
def adapters_off(policy: VlaserPolicy) -> Iterator[None]:
    """Inside, the policy computes exactly what it computed before adapters were added."""
    layers = [layer for _, layer in adapted_layers(policy)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def merged_state_dict(policy: nn.Module) -> dict[str, Tensor]:
    """Weights under their plain names, with adapters (if any) added in; the policy stays as it is.

    Those that several processes share are gathered, which all of them do together.
    """
    adapted = dict(adapted_layers(policy))
    weights: dict[str, Tensor] = {}
    for key, value in policy.state_dict().items():
        if ".lora_" not in key:
            weights[key.replace(".base_layer.", ".")] = _whole(value.detach())
    for name, layer in adapted.items():
        change = _whole(layer.get_delta_weight("default").detach())
        weights[f"{name}.weight"] = (weights[f"{name}.weight"] + change).to(weights[f"{name}.weight"].dtype)
    return weights


def is_shared(tensor: Tensor) -> bool:
    """True for a tensor that is sharded over processes (a ``DTensor``, whose import alone takes a second)."""
    return hasattr(tensor, "full_tensor")


def _whole(tensor: Any) -> Tensor:
    whole: Tensor = tensor.full_tensor() if is_shared(tensor) else tensor
    return whole


def adapted_layers(policy: nn.Module) -> Iterator[tuple[str, Any]]:
    """Names and modules that carry an adapter."""
    for name, module in policy.named_modules():
        if hasattr(module, "lora_A") and hasattr(module, "get_base_layer"):
            yield name, module
