"""RGB images as the bytes of a PNG or JPEG file, and back."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray


def encode_image(image: NDArray[np.uint8], ending: str = ".png", options: Sequence[int] = ()) -> bytes:
    """The file's content of an image ``[H, W, 3]``.

    Args:
        image: red, green, blue, 0 to 255.
        ending: ``".png"``, without loss, or ``".jpg"``.
        options: pairs of OpenCV's constants and values, such as ``(cv2.IMWRITE_JPEG_QUALITY, 85)``.
    """
    done, data = cv2.imencode(ending, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), list(options))
    assert done
    return bytes(data)


def decode_image(data: bytes) -> NDArray[np.uint8] | None:
    """The image ``[H, W, 3]`` in red, green, blue of a file's content; ``None`` if it holds none that can be read."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    return None if image is None else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
