"""Images as files, against Pillow."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image

from vlaser_gym.evaluation.encoding import decode_image, encode_image


def image() -> np.ndarray:
    """Three channels of different content, so that no two can be mistaken for each other."""
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_pillow_reads_what_is_encoded() -> None:
    with Image.open(io.BytesIO(encode_image(image(), ".png", (cv2.IMWRITE_PNG_COMPRESSION, 1)))) as read:
        assert read.format == "PNG"
        assert np.array_equal(np.asarray(read), image())
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    with Image.open(io.BytesIO(encode_image(red, ".jpg", (cv2.IMWRITE_JPEG_QUALITY, 95)))) as read:
        assert read.format == "JPEG"
        assert np.abs(np.asarray(read).astype(int) - red).max() < 8


def test_what_pillow_wrote_is_decoded() -> None:
    buffer = io.BytesIO()
    Image.fromarray(image()).save(buffer, "PNG")
    decoded = decode_image(buffer.getvalue())
    assert decoded is not None
    assert np.array_equal(decoded, image())


def test_what_is_no_image_is_none() -> None:
    assert decode_image(b"") is None
    assert decode_image(b"no image") is None
