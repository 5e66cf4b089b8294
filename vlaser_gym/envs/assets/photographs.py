"""Photographs of real scenes, as the original shows them behind the foreground."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlaser_gym.envs.assets.pack import AssetPack


def read_photograph(pack: AssetPack, name: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A photograph at a camera's height and width, ``[H, W, 3]``, to the byte as the original shows it.

    Raises:
        MissingAssetError: if it is missing or damaged.
    """
    with Image.open(pack.photograph(name)) as image:
        pixels = np.asarray(image.convert("RGB"), np.float32)
    # Bilinear in floating point, then cut off.
    return np.asarray(cv2.resize(pixels, size[::-1])).astype(np.uint8)
