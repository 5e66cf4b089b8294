"""Points and boxes in a vision-language model's answer: reading them and drawing them.

The models write ``<point>[[x, y], ...]</point>`` and ``<box>[[x1, y1, x2, y2], ...]</box>`` with integers 0..1000 that
stand for the image's width and height (OpenGVLab/Vlaser's grounding format).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SCALE = 1000
_BLOCK = r"<{0}>(.*?)</{0}>"
_NUMBER = r"\s*(\d+)\s*"
_POINT = re.compile(rf"\[{_NUMBER},{_NUMBER}\]")
_BOX = re.compile(rf"\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]")
_REFERRED_BOX = re.compile(r"(?:<ref>([^<]*)</ref>\s*)?" + _BLOCK.format("box"), re.DOTALL)

_COLOURS = ((230, 57, 70), (29, 120, 220), (42, 157, 80), (244, 162, 20), (146, 72, 200), (0, 150, 160))
_MARGIN = 8


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, ``left <= right`` and ``top <= bottom``, with the words it was given for."""

    left: int
    top: int
    right: int
    bottom: int
    label: str = ""


def parse_points(answer: str, width: int, height: int) -> list[tuple[int, int]]:
    """Points (x, y) in pixels of the first complete point block; pairs outside 0..1000 are left out.

    Example:
        >>> parse_points("Here: <point>[[500, 250], [0, 1000]]</point>", 640, 480)
        [(320, 120), (0, 480)]
    """
    block = re.search(_BLOCK.format("point"), answer, re.DOTALL)
    pairs = _POINT.findall(block[1]) if block else []
    return [(_pixel(x, width), _pixel(y, height)) for x, y in pairs if _inside(x, y)]


def parse_boxes(answer: str, width: int, height: int) -> list[Box]:
    """All boxes in pixels, labelled where ``<ref>words</ref>`` stands before; boxes outside 0..1000 are left out."""
    boxes = []
    for label, block in _REFERRED_BOX.findall(answer):
        for numbers in _BOX.findall(block):
            if _inside(*numbers):
                x1, y1, x2, y2 = numbers
                left, right = sorted((_pixel(x1, width), _pixel(x2, width)))
                top, bottom = sorted((_pixel(y1, height), _pixel(y2, height)))
                boxes.append(Box(left, top, right, bottom, label.strip()))
    return boxes


def draw_answer(image: NDArray[np.uint8], question: str, answer: str) -> NDArray[np.uint8]:
    """The image with the answer's points and boxes on it and question and answer below it.

    Args:
        image: ``[H, W, 3]`` RGB.
        question: what was asked.
        answer: what the model wrote.

    Returns:
        ``[H + caption, W, 3]`` RGB.
    """
    height, width = image.shape[:2]
    font = cast(ImageFont.FreeTypeFont, ImageFont.load_default(max(12, width // 40)))
    lines = [*_wrap(f"Q: {question}", font, width), *_wrap(f"A: {answer}", font, width)]
    line_height = round(font.size * 1.35)
    canvas = Image.new("RGB", (width, height + len(lines) * line_height + 2 * _MARGIN), (24, 24, 28))
    canvas.paste(Image.fromarray(image))
    draw = ImageDraw.Draw(canvas)
    _draw_marks(draw, answer, width, height, font)
    for number, line in enumerate(lines):
        draw.text((_MARGIN, height + _MARGIN + number * line_height), line, fill=(235, 235, 235), font=font)
    return np.asarray(canvas)


def _draw_marks(draw: ImageDraw.ImageDraw, answer: str, width: int, height: int, font: ImageFont.FreeTypeFont) -> None:
    radius = max(4, width // 100)
    for number, box in enumerate(parse_boxes(answer, width, height)):
        colour = _COLOURS[number % len(_COLOURS)]
        right, bottom = min(box.right, width - 1), min(box.bottom, height - 1)
        draw.rectangle((box.left, box.top, right, bottom), outline=colour, width=max(2, radius // 2))
        _tag(draw, (box.left, box.top), box.label or str(number + 1), colour, font)
    for number, point in enumerate(parse_points(answer, width, height)):
        colour = _COLOURS[number % len(_COLOURS)]
        x, y = min(point[0], width - 1), min(point[1], height - 1)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline=(255, 255, 255), width=2)
        _tag(draw, (x + radius, y - radius), str(number + 1), colour, font)


def _tag(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    text: str,
    colour: tuple[int, int, int],
    font: ImageFont.FreeTypeFont,
) -> None:
    """A word on a coloured ground, at or above the corner, inside the image."""
    size = round(font.size * 1.2)
    x, y = corner[0] + 2, max(corner[1] - size, 0)
    draw.rectangle(draw.textbbox((x, y), text, font=font), fill=colour)
    draw.text((x, y), text, fill=(255, 255, 255), font=font)


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines that fit between the margins; words longer than a line are broken."""
    lines = []
    for paragraph in text.splitlines():
        line = ""
        for piece in re.findall(r"\S+\s*|\s+", paragraph):
            if line and font.getlength((line + piece).rstrip()) > width - 2 * _MARGIN:
                lines.append(line)
                line = ""
            line += piece
            while font.getlength(line.rstrip()) > width - 2 * _MARGIN and len(line) > 1:
                cut = next(n for n in range(len(line), 0, -1) if n == 1 or _fits(line[:n], font, width))
                lines.append(line[:cut])
                line = line[cut:]
        lines.append(line)
    return [line.rstrip() for line in lines]


def _fits(text: str, font: ImageFont.FreeTypeFont, width: int) -> bool:
    return font.getlength(text) <= width - 2 * _MARGIN


def _inside(*numbers: str) -> bool:
    return all(int(number) <= SCALE for number in numbers)


def _pixel(number: str, extent: int) -> int:
    return int(int(number) / SCALE * extent)
