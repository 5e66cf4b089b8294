"""Batch sizes of a policy's forward passes; the reason stands in :mod:`vlaser_gym.agents.inference`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vlaser_gym.errors import InvalidConfigError

#: Rows of every batch where nothing else is chosen.
BATCH_SIZE = 8
#: Sizes among which a server chooses by how many clients wait: few, as each is compiled and recorded by itself.
SERVING_SIZES = (1, 2, 4, 8)


def batch_bounds(count: int, sizes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """The division of rows into batches: ``(start, end, size of the batch)``; ``sizes`` ascend.

    The largest size as often as it is filled, then the smallest that holds the rest.

    Example:
        >>> list(batch_bounds(11, (1, 2, 4, 8))), list(batch_bounds(3, (8,)))
        ([(0, 8, 8), (8, 11, 4)], [(0, 3, 8)])
    """
    for start in range(0, count, sizes[-1]):
        end = min(start + sizes[-1], count)
        yield start, end, next(size for size in sizes if size >= end - start)


def checked_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """Sizes in ascending order.

    Raises:
        InvalidConfigError: for sizes below 1, or none.
    """
    if not sizes or min(sizes) < 1:
        raise InvalidConfigError(f"Batches have at least 1 row; got sizes {list(sizes)}.")
    return tuple(sorted(set(sizes)))


def told_sizes(sizes: Sequence[int]) -> int | list[int]:
    """Sizes as records and metadata tell them: a number, or a list where batches adapt."""
    return sizes[0] if len(sizes) == 1 else list(sizes)


def batch_size_for(episodes: int) -> int:
    """The one size of an evaluation's batches: the smallest of :data:`SERVING_SIZES` that holds all its episodes.

    It follows from what is planned, not from how many environments run at a time.

    Example:
        >>> [batch_size_for(episodes) for episodes in (1, 3, 24)]
        [1, 4, 8]
    """
    return next((size for size in SERVING_SIZES if size >= episodes), SERVING_SIZES[-1])
