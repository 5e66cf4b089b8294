"""Several processes that train together, as ``torchrun`` starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

#: How long a process waits for the others: the first one decodes data sets and evaluates meanwhile. torch's own ten
#: minutes would end the run there.
_PATIENCE = timedelta(hours=12)


@dataclass(frozen=True)
class Workers:
    """This process among those that train together.

    Attributes:
        rank: this process's number.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process prints, evaluates and writes files."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for the others."""
        if self.size > 1:
            distributed.barrier()

    def agree(self, value: Any) -> Any:
        """What the first process gives, on all of them."""
        values = [value]
        if self.size > 1:
            distributed.broadcast_object_list(values)
        return values[0]

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean over all processes."""
        if self.size > 1:
            distributed.all_reduce(value)
            value = value / self.size
        return value


def own_device(device: str) -> str:
    """The device of this process: each of several that ``torchrun`` started has a GPU of its own."""
    if device.startswith("cuda") and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return device


@contextmanager
def joined_workers(device: str) -> Iterator[Workers]:
    """Join the processes that ``torchrun`` started; alone without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Workers()
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(own_device(device))
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=_PATIENCE)
    try:
        yield Workers(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()
