"""Encodings of decisions that are kept while nothing that they depend on is trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlaser_gym.agents.trainable import Encoding


class PrefixCache:
    """Encodings of as many decisions as a memory budget takes; the first ones are kept.

    Args:
        budget: bytes; 0 keeps none.
        device: where to keep them.
        total: decisions that will come in all.
    """

    def __init__(self, budget: int, device: torch.device | str, total: int) -> None:
        self.budget, self.device, self.total = budget, torch.device(device), total
        #: Decisions that are kept; known after the first.
        self.capacity = 0
        #: Bytes of one decision.
        self.bytes_per_decision = 0
        self._store: Any = None
        self._filled = 0

    @property
    def is_full(self) -> bool:
        """True if nothing more fits."""
        return self._store is not None and self._filled >= self.capacity

    def reset(self) -> None:
        """Forget the decisions, keep the memory."""
        self._filled = 0

    def add(self, encoding: Encoding) -> None:
        """Keep what fits of a batch."""
        if not self.budget:
            return
        new = encoding.tensors()
        if self._store is None:
            self.bytes_per_decision = sum(tensor.nbytes for tensor in new) // len(new[0])
            self.capacity = min(self.total, self.budget // self.bytes_per_decision)
            self._store = encoding.map(
                lambda t: torch.empty(self.capacity, *t.shape[1:], dtype=t.dtype).to(self.device)
            )
        count = min(len(new[0]), self.capacity - self._filled)
        target = slice(self._filled, self._filled + count)
        for kept, tensor in zip(self._store.tensors(), new, strict=True):
            kept[target] = tensor[:count].detach().to(self.device)
        self._filled += count

    def rows(self, index: NDArray[np.int64], device: torch.device | str) -> Any:
        """Kept encodings by number."""
        chosen = torch.from_numpy(index).to(self.device)
        return self._store.map(lambda tensor: tensor[chosen].to(device))
