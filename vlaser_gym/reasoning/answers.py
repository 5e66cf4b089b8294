"""Reading answers: what a model wrote, in whatever form it wrote it.

Places are numbers from 0 to 1000 (:mod:`~vlaser_gym.reasoning.coordinates`); where all numbers of an answer are at most
1 and one has a decimal point, they are shares of the image. Blocks that the token limit has cut are read up to the
last complete place. ``None`` stands for an answer that says nothing of the kind.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from vlaser_gym.reasoning.coordinates import SCALE
from vlaser_gym.reasoning.dealing import LETTERS

Place = tuple[float, float]
Box = tuple[float, float, float, float]

_NUMBER = r"\s*(-?\d+(?:\.\d+)?|-?\.\d+)\s*"
_POINT = re.compile(rf"[\[(]{_NUMBER},{_NUMBER}[\])]")
_BOX = re.compile(rf"[\[(]{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}[\])]")
#: Molmo's way: ``<point x="12.3" y="45.6" ...>`` in percent.
_TAGGED = re.compile(r"\bx\d*\s*=\s*[\"'](\d+(?:\.\d+)?)[\"']\s+y\d*\s*=\s*[\"'](\d+(?:\.\d+)?)[\"']")
_QUANTITY = re.compile(r"(-?\d+(?:[.,]\d+)?)\s*(mm|cm|m|percent|%|centim\w*|millim\w*|met\w*)?\b", re.IGNORECASE)
_LETTER = re.compile(r"^\W*([A-Z])(?:\W*$|[.:,)])")
_STATED = re.compile(r"(?:answer|option|choice)\s*(?:is|:)?\s*[\"'(*]*([A-Z])\b")
_THOUGHT_END = "</think>"
#: To centimetres.
_LENGTHS = {"mm": 0.1, "cm": 1.0, "m": 100.0}


def spoken(answer: str) -> str:
    """An answer without the thinking before it.

    Example:
        >>> spoken("<think>left, no</think> right")
        'right'
    """
    if "<think>" in answer and _THOUGHT_END not in answer:
        return ""  # it never came to an answer
    return answer.rpartition(_THOUGHT_END)[2].strip()


def read_points(answer: str, width: int, height: int) -> list[Place]:
    """Points (column, row) in pixels of the first point block, or without one of the whole answer.

    Pairs outside the image are left out; ``[]`` for none.

    Example:
        >>> read_points("<point>[[500, 250], [100.5, 20], [33", 640, 480)
        [(320.0, 120.0), (64.32, 9.6)]
        >>> read_points("(0.5, 0.25)", 640, 480)
        [(320.0, 120.0)]
    """
    text = _block(spoken(answer), "point")
    if tagged := _TAGGED.findall(spoken(answer)):
        pairs = [(float(x) / 100, float(y) / 100) for x, y in tagged]
    else:
        pairs = [(x, y) for x, y in _shares(_POINT.findall(text))]
    if not pairs and (box := read_box(answer, 1, 1)) is not None:
        pairs = [((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)]
    return [(x * width, y * height) for x, y in pairs if 0 <= x <= 1 and 0 <= y <= 1]


def read_box(answer: str, width: int, height: int) -> Box | None:
    """The first box (left, top, right, bottom) in pixels, its corners in order.

    Example:
        >>> read_box("<ref>can</ref><box>[[100, 200, 300, 400]]</box>", 640, 480)
        (64.0, 96.0, 192.0, 192.0)
    """
    found = _shares(_BOX.findall(_block(spoken(answer), "box")))
    if not found or not all(0 <= number <= 1 for number in found[0]):
        return None
    x1, y1, x2, y2 = found[0]
    return min(x1, x2) * width, min(y1, y2) * height, max(x1, x2) * width, max(y1, y2) * height


def _block(text: str, tag: str) -> str:
    """The content of the first block of a tag, up to the end of a cut text; without a block the whole text."""
    match = re.search(rf"<{tag}>(.*?)(?:</{tag}>|$)", text, re.DOTALL)
    return match[1] if match else text


def _shares(found: Sequence[tuple[str, ...]]) -> list[tuple[float, ...]]:
    """Numbers as shares of the image."""
    numbers = [number for place in found for number in place]
    are_shares = any("." in number for number in numbers) and all(float(number) <= 1 for number in numbers)
    scale = 1 if are_shares else SCALE
    return [tuple(float(number) / scale for number in place) for place in found]


def read_choice(answer: str, options: Sequence[str], lettered: bool = True) -> str | None:
    """The option that an answer takes: by its letter, if options have such, or in its words.

    Words count where they name one option only, or where one option is all that the answer says.

    Example:
        >>> read_choice("(B) behind", ["in front", "behind"]), read_choice("It is behind.", ["in front", "behind"])
        ('behind', 'behind')
    """
    text = spoken(answer)
    plain = _plain(text)
    exact = [option for option in options if _plain(option) == plain]
    if exact:
        return exact[0]
    letters = (_LETTER.match(text) or _STATED.search(text)) if lettered else None
    if letters and (at := LETTERS.index(letters[1])) < len(options):
        return options[at]
    named = [option for option in options if _names(plain, _plain(option))]
    # An option that is part of another one counts only where it stands by itself.
    longest = [one for one in named if not any(one != other and _names(_plain(other), _plain(one)) for other in named)]
    return longest[0] if len(longest) == 1 else None


def _plain(text: str) -> str:
    words = re.sub(r"[^\w%; ]+", " ", text.lower()).split()
    return " ".join(word for word in words if word not in ("the", "a", "an"))


def _names(text: str, option: str) -> bool:
    return bool(option) and re.search(rf"(?<!\w){re.escape(option)}(?!\w)", text) is not None


def read_number(answer: str, unit: str) -> float | None:
    """The last number of an answer in this unit (``cm``, ``percent`` or none); other lengths are converted.

    Example:
        >>> read_number("about 0.12 m", "cm"), read_number("45 %", "percent")
        (12.0, 45.0)
    """
    found = _QUANTITY.findall(spoken(answer))
    with_unit = [one for one in found if one[1]]
    if not found:
        return None
    text, said = (with_unit or found)[-1]
    value, said = float(text.replace(",", ".")), said.lower()
    if unit != "cm" or not said:
        return value
    length = "mm" if said.startswith(("mm", "milli")) else "m" if said == "m" or said.startswith("met") else "cm"
    return value * _LENGTHS[length]
