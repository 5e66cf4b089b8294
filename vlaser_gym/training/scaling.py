"""Means to fit a policy of billions of weights: bf16, 8-bit optimizers, activation checkpointing, sharding.

Sharing is torch's own FSDP2: every layer in which something is trained is gathered for its own pass only. Layers in
which nothing is trained stay whole on every process: what a learner keeps of them is read without passing them, so that
processes would not meet at their gathering.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from vlaser_gym.agents.trainable import TrainableAgent
from vlaser_gym.agents.vlaser.adapters import is_shared
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.training.distributed import ProcessGroup


@dataclass(frozen=True)
class Scaling:
    """The settings that decide the memory of a run; see the keys of the same names.

    Attributes:
        checkpointing: parts whose layers are computed again in the backward pass.
        weights: ``"float32"`` or ``"bfloat16"``.
        optimizer: one of :data:`~vlaser_gym.settings.training.OPTIMIZERS`.
        shard: share weights, gradients and optimizer states out among the processes.
        compile: compile the layers.
    """

    checkpointing: tuple[str, ...] = ()
    weights: str = "float32"
    optimizer: str = "adamw"
    shard: bool = False
    compile: bool = False


def compile_layers(agent: TrainableAgent) -> None:
    """Compile every layer's own computation; what other modules hook onto a layer stays outside.

    Raises:
        InvalidConfigError: for a policy that names no layers.
    """
    # Image, text, proprioception and actions have shapes of their own, with and without gradients.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    for layer in _layers(agent, "compile"):
        layer.forward = torch.compile(layer.forward, dynamic=False)


def shard(agent: TrainableAgent, group: ProcessGroup) -> None:
    """Share the weights out among the processes, in place; gradients and optimizer states follow them.

    Gradients are means over the processes.

    Raises:
        InvalidConfigError: for one process, and for a policy that names no layers.
    """
    # Imported where it is needed: that takes seconds.
    from torch.distributed.device_mesh import init_device_mesh  # noqa: PLC0415
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard  # noqa: PLC0415

    if group.size == 1:
        raise InvalidConfigError(
            "shard=true shares weights out among the processes that torchrun starts; there is one. Start it with "
            "torchrun --nproc-per-node N -m vlaser_gym.train, or leave shard out."
        )
    # Nothing here writes into what a layer returned, against which torch warns.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(agent.device.type, (group.size,))
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    rest = set(agent.parameters())
    for layer in _layers(agent, "shard"):
        if any(parameter.requires_grad for parameter in layer.parameters()):
            rest -= set(layer.parameters())
            fully_shard(layer, mesh=mesh, mp_policy=policy)
            _enter_by(layer, agent.layer_methods)
    for module, others in list(_of_another_type(agent, {part for part in rest if part.requires_grad})):
        fully_shard(module, mesh=mesh, mp_policy=policy, ignored_params=others)
    frozen = {parameter for parameter in rest if not parameter.requires_grad}
    fully_shard(agent, mesh=mesh, mp_policy=policy, reshard_after_forward=False, ignored_params=frozen)
    _enter_by(agent, agent.learner_methods)


def _of_another_type(agent: nn.Module, learned: set[nn.Parameter]) -> Iterator[tuple[nn.Module, set[nn.Parameter]]]:
    """Modules with own weights of another type than most of ``learned``, and what else they hold.

    Weights that torch gathers together must be of one type. Adapters, and heads that are no part of the policy, stay
    fp32 beside narrow weights.
    """
    numbers: Counter[torch.dtype] = Counter()
    for parameter in learned:
        numbers[parameter.dtype] += parameter.numel()
    usual = max(numbers, key=lambda dtype: (numbers[dtype], str(dtype)), default=None)
    for module in agent.modules():
        own = {parameter for parameter in module.parameters(recurse=False) if parameter in learned}
        other = {parameter for parameter in own if parameter.dtype != usual}
        if other:
            yield module, set(module.parameters()) - other


def _enter_by(module: nn.Module, names: Sequence[str]) -> None:
    from torch.distributed.fsdp import register_fsdp_forward_method  # noqa: PLC0415

    for name in names:
        if hasattr(module, name):
            register_fsdp_forward_method(module, name)


def _layers(agent: TrainableAgent, key: str) -> list[nn.Module]:
    layers = agent.layers()
    if not layers:
        raise InvalidConfigError(f"{type(agent).__name__} names no layers(); use {key}=false.")
    return layers


def release(agent: nn.Module) -> None:
    """Forget gathered weights, so that the next pass gathers those that the optimizer has changed."""
    for module in _sharded(agent):
        module.reshard()


@contextmanager
def gathered(agent: nn.Module) -> Iterator[None]:
    """Inside, every process holds all weights: they may run the policy each for itself, without gradients."""
    modules = list(_sharded(agent))
    for module in modules:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in modules:
            module.set_reshard_after_forward(module is not agent, recurse=False)
            module.reshard()


def _sharded(agent: nn.Module) -> Iterator[Any]:
    """Modules that :func:`shard` made into torch's ``FSDPModule``."""
    return (module for module in agent.modules() if hasattr(module, "set_reshard_after_forward"))


def whole(value: Any) -> Any:
    """Tensors in nested containers, each gathered from the processes that share it; called on all of them."""
    return tree_map_only(Tensor, lambda tensor: tensor.full_tensor() if is_shared(tensor) else tensor, value)


def local(tensor: Tensor) -> Tensor:
    """This process's part of a shared tensor, or the tensor itself; what is written there is written to it."""
    part: Tensor = tensor.to_local() if is_shared(tensor) else tensor  # type: ignore[attr-defined]
    return part


def like(value: Tensor, example: Tensor) -> Tensor:
    """A whole tensor, the same on all processes, shared out as another one of its shape is."""
    if not is_shared(example):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor  # noqa: PLC0415

    if not isinstance(example, DTensor) or value.shape != example.shape:
        return value
    return distribute_tensor(value.to(example.device), example.device_mesh, example.placements, src_data_rank=None)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """``optimizer.load_state_dict`` of whole tensors, whatever the number of processes that stored them."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    placed = {
        number: {
            name: like(value, parameters[number]) if isinstance(value, Tensor) else value
            for name, value in entries.items()
        }
        for number, entries in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": placed})
