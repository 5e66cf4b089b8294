"""Several processes that train together, as ``torchrun`` starts them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

#: How long a process waits for the others: the first one decodes data sets and evaluates meanwhile. torch's own ten
#: minutes would end the run there.
_PATIENCE = timedelta(hours=12)


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that train together.

    Attributes:
        rank: this process's number.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main_process(self) -> bool:
        """True on the process that prints, evaluates and writes files."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until all processes have arrived."""
        if self.size > 1:
            distributed.barrier()

    def broadcast(self, value: Any) -> Any:
        """Broadcast a value of the first process to all processes."""
        values = [value]
        if self.size > 1:
            distributed.broadcast_object_list(values)
        return values[0]

    def gather(self, value: Any) -> list[Any]:
        """Gather the values of all processes on each of them."""
        values: list[Any] = [value]
        if self.size > 1:
            values = [None] * self.size
            distributed.all_gather_object(values, value)
        return values

    def sum(self, value: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """The sum over all processes; ``device`` is where the process group's tensors live."""
        if self.size == 1:
            return value
        shared = value.to(device).clone()
        distributed.all_reduce(shared)
        return shared.to(value.device)

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all processes."""
        return self.sum(value, value.device) / self.size if self.size > 1 else value

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their sums over all processes."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)


def own_device(device: str) -> str:
    """The device of this process: each of several that ``torchrun`` started has a GPU of its own."""
    if device.startswith("cuda") and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return device


@contextmanager
def joined_processes(device: str) -> Iterator[ProcessGroup]:
    """Join the processes that ``torchrun`` started; alone without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ProcessGroup()
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(own_device(device))
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=_PATIENCE)
    try:
        yield ProcessGroup(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()
