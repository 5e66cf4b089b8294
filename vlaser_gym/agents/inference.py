"""The inference engine: a network's computation on any number of rows, in batches of few sizes.

Evaluation, rollouts and serving run networks through :class:`InferenceEngine`. A matrix product's last bits depend on
its shape. With one size for all batches, what comes out for a row depends neither on how many other rows there are nor
on its place among them; evaluations and rollouts therefore keep one size. With several sizes few rows cost less, and
their last bits depend on how many came together: that is for serving.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from vlaser_gym.agents.batch_sizes import BATCH_SIZE, batch_bounds, checked_sizes
from vlaser_gym.errors import GymWarning


class Rows(Protocol):
    """Tensors whose first dimension is the batch."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to each tensor."""

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """Concatenate batches along the first dimension."""


R = TypeVar("R", bound=Rows)


class NamedRows(dict[str, Tensor]):
    """:class:`Rows` by name."""

    def map(self, function: Callable[[Tensor], Tensor]) -> NamedRows:
        """See :class:`Rows`."""
        return NamedRows({name: function(tensor) for name, tensor in self.items()})

    @classmethod
    def cat(cls, parts: Sequence[NamedRows]) -> NamedRows:
        """See :class:`Rows`."""
        return cls({name: torch.cat([part[name] for part in parts]) for name in parts[0]})


class InferenceEngine(Generic[R]):
    """Runs a computation on ``N`` rows in batches, filled up with copies of a batch's first row.

    Args:
        compute: ``rows by name -> results``, a row of each for a row of the other. Whatever is random is among the
            rows. Weights that it reads may change in place between calls.
        device: where it computes.
        sizes: of batches, see :func:`batch_bounds`.
        record: on a GPU, record the computation as a CUDA graph for every size and shape that comes, and replay it: a
            replay costs no kernel launches. Default: on a GPU. On a CPU nothing is recorded.

    Attributes:
        graphs: what was recorded, by the shapes of its rows.

    Raises:
        InvalidConfigError: for sizes below 1, or none.

    Example:
        >>> double = InferenceEngine(lambda rows: rows.map(lambda x: 2 * x), torch.device("cpu"), (4,))
        >>> double(NamedRows(x=torch.arange(6)))["x"].tolist()
        [0, 2, 4, 6, 8, 10]
    """

    def __init__(
        self,
        compute: Callable[[NamedRows], R],
        device: torch.device,
        sizes: Sequence[int] = (BATCH_SIZE,),
        *,
        record: bool | None = None,
    ) -> None:
        self.compute, self.device = compute, device
        self.sizes = checked_sizes(sizes)
        self.record = device.type == "cuda" and record is not False
        self.graphs: dict[Any, RecordedComputation[R]] = {}
        self._pool: Any = None

    def reset(self) -> None:
        """Forget recorded graphs: weights are other tensors now, or there are more of them."""
        self.graphs.clear()

    def __call__(self, rows: Mapping[str, Tensor]) -> R:
        """Compute, for rows on any device; the results are where the engine is."""
        count, parts = len(next(iter(rows.values()))), []
        for start, end, size in batch_bounds(count, self.sizes):
            batch = NamedRows({name: filled(tensor[start:end], size).to(self.device) for name, tensor in rows.items()})
            kept = end - start
            whole = self._run(batch)
            parts.append(whole if kept == size else whole.map(lambda tensor, kept=kept: tensor[:kept]))  # type: ignore[misc]
        return parts[0] if len(parts) == 1 else type(parts[0]).cat(parts)

    def _run(self, batch: NamedRows) -> R:
        if not self.record:
            return self.compute(batch)
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        shapes = tuple((name, tensor.shape, tensor.dtype) for name, tensor in batch.items())
        if shapes not in self.graphs:
            try:
                self.graphs[shapes] = RecordedComputation(self.compute, batch, self._pool)
            except RuntimeError as error:
                self.record = False
                said = (str(error).splitlines() or [type(error).__name__])[0]
                warnings.warn(
                    f"This computation cannot be recorded as a CUDA graph ({said}): it runs kernel by kernel, slower.",
                    GymWarning,
                    stacklevel=2,
                )
                return self.compute(batch)
        return self.graphs[shapes](batch)


class RecordedComputation(Generic[R]):
    """A computation of fixed shapes as a CUDA graph.

    Args:
        compute: see :class:`InferenceEngine`.
        rows: on a GPU; replays have the same names, shapes and dtypes.
        pool: memory that recordings share. Only one replays at a time, and its results are copied at once.
    """

    def __init__(self, compute: Callable[[NamedRows], R], rows: NamedRows, pool: Any = None) -> None:
        self.inputs = rows.map(torch.clone)
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        # A weight's cast that autocast keeps would be recorded as it is now, and miss every later update.
        autocast = torch.autocast(
            "cuda", torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda"), cache_enabled=False
        )
        with autocast:
            with torch.cuda.stream(side):  # compiles, tunes and allocates outside the recording
                for _ in range(3):
                    compute(self.inputs)
            torch.cuda.current_stream().wait_stream(side)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, pool=pool):
                self.output = compute(self.inputs)

    def __call__(self, rows: NamedRows) -> R:
        """Replay the recorded CUDA graph on new inputs."""
        for name, held in self.inputs.items():
            held.copy_(rows[name])
        self.graph.replay()
        return self.output.map(torch.clone)


def filled(rows: Tensor, size: int) -> Tensor:
    """Rows and copies of the first, ``size`` in all."""
    missing = size - len(rows)
    return torch.cat([rows, rows[:1].expand(missing, *rows.shape[1:])]) if missing else rows
