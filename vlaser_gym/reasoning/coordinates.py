"""Integers 0 to 1000 for places in an image, as InternVL and Vlaser write them, and masks as COCO's run lengths.

Source of the format: OpenGVLab/Vlaser 40d7821 (pixel = int(number / 1000 * extent)).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCALE = 1000

Mask = NDArray[np.bool_]
#: Left, top, right, bottom; the last two are one past the last pixel.
PixelBox = tuple[int, int, int, int]


def number_of(pixel: int, extent: int) -> int:
    """The number in the middle of those that stand for a pixel.

    Example:
        >>> number_of(320, 640), pixel_of(number_of(17, 640), 640)
        (501, 17)
    """
    middle = round((pixel + 0.5) * SCALE / extent)
    return min(middle, ceil((pixel + 1) * SCALE / extent) - 1)


def pixel_of(number: float, extent: int) -> int:
    """The pixel that a number stands for; 1000, the image's far edge, is its last pixel."""
    return min(int(number / SCALE * extent), extent - 1)


def box_numbers(box: PixelBox, width: int, height: int) -> tuple[int, int, int, int]:
    """The narrowest box of numbers around a box of pixels."""
    left, top, right, bottom = box
    low = floor(left * SCALE / width), floor(top * SCALE / height)
    return (*low, ceil(right * SCALE / width), ceil(bottom * SCALE / height))


def point_text(points: Sequence[Sequence[int]]) -> str:
    """``<point>[[x, y], ...]</point>`` of numbers."""
    return f"<point>[{', '.join(f'[{x}, {y}]' for x, y in points)}]</point>"


def box_text(box: Sequence[int], label: str = "") -> str:
    """``<ref>label</ref><box>[[x1, y1, x2, y2]]</box>`` of numbers."""
    words = f"<ref>{label}</ref>" if label else ""
    return f"{words}<box>[[{', '.join(map(str, box))}]]</box>"


def mask_box(mask: Mask) -> PixelBox:
    """The narrowest box around a mask ``[H, W]`` that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def encode_mask(mask: Mask) -> dict[str, Any]:
    """COCO's uncompressed run lengths: column by column, beginning with the pixels outside.

    Example:
        >>> encode_mask(np.array([[False, True], [False, True]]))
        {'size': [2, 2], 'counts': [2, 2]}
    """
    columns = np.flatnonzero(mask.any(0))
    first, last = (int(columns[0]), int(columns[-1]) + 1) if len(columns) else (0, 0)
    flat = np.concatenate([[False], mask[:, first:last].ravel(order="F"), [False]])
    changes = first * len(mask) + np.flatnonzero(flat[1:] != flat[:-1])
    ends = [0, *changes.tolist(), mask.size]
    # Pixels outside come first, even if there are none; behind the last pixel inside there need be none.
    counts = np.diff(ends).tolist()
    return {"size": list(mask.shape), "counts": counts if counts[-1] or len(counts) == 1 else counts[:-1]}


def decode_mask(encoded: Mapping[str, Any]) -> Mask:
    """The mask ``[H, W]`` of :func:`encode_mask`.

    Raises:
        ValueError: if the runs do not fill the image.
    """
    height, width = encoded["size"]
    counts = encoded["counts"]
    if sum(counts) != height * width:
        raise ValueError(f"expected runs of {height * width} pixels, got {sum(counts)}")
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape(height, width, order="F")
