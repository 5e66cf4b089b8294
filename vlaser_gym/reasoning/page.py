"""The page of wrong answers: each drawn onto its images, beside what is right."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from itertools import zip_longest
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vlaser_gym.agents.vlaser.grounding import draw_answer
from vlaser_gym.evaluation.encoding import encode_image
from vlaser_gym.reasoning.answers import read_box, read_points
from vlaser_gym.reasoning.coordinates import box_numbers, box_text, decode_mask, number_of, point_text
from vlaser_gym.reasoning.folder import Question, read_picture
from vlaser_gym.reasoning.scores import Scored
from vlaser_gym.settings.commands import ReasonSettings

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Wrong answers</title>
<style>body {{ font: 15px sans-serif; margin: 2em; background: #fafafa; color: #222; }}
figure {{ display: inline-block; width: 30em; margin: 0 1em 2em 0; vertical-align: top; }}
img {{ max-width: 100%; }} b {{ font-weight: 600; }}</style></head>
<body><h1>Wrong answers of {who}</h1>
<p>{wrong} of {total} answers score less than one half; {shown} of them are shown, kinds in turn. Points and boxes of
the answer are coloured; what is right is outlined in white.</p>
{figures}
</body></html>
"""


def wrong_page(
    folder: Path, scored: Sequence[Scored], answers: Mapping[tuple[str, bool], str], settings: ReasonSettings
) -> str:
    """An HTML page that stands by itself, with ``settings.pictures`` figures at most."""
    wrong = [one for one in scored if one.score.value < 0.5]
    kinds: dict[str, list[Scored]] = {}
    for one in wrong:
        kinds.setdefault(one.question.kind, []).append(one)
    in_turns = [one for turn in zip_longest(*kinds.values()) for one in turn if one is not None]
    shown = in_turns[: settings.pictures]
    figures = []
    for one in shown:
        question = one.question
        pictures = [read_picture(folder, path) for path in question.images]
        picture = drawn(question, answers[question.id, False], pictures)
        data = encode_image(picture, ".jpg", (cv2.IMWRITE_JPEG_QUALITY, 85))
        source = "data:image/jpeg;base64," + base64.b64encode(data).decode()
        right = escape(question.right if question.form == "choice" else question.answer)
        unread = "" if one.score.read else " (cannot be read)"
        figures.append(
            f'<figure><img src="{source}" alt="{escape(question.id)}"><figcaption>{escape(question.kind)}, '
            f"{escape(question.id)}: right is <b>{right}</b>{unread}</figcaption></figure>"
        )
    who = escape(str(settings.checkpoint or settings.url))
    return _PAGE.format(who=who, wrong=len(wrong), total=len(scored), shown=len(shown), figures="\n".join(figures))


def drawn(question: Question, answer: str, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The images side by side, with question and answer below and both places on them."""
    canvas = np.array(pictures[0])
    _outline(canvas, question)
    height = max(len(picture) for picture in pictures)
    padded = [np.pad(p, ((0, height - len(p)), (0, 0), (0, 0))) for p in (canvas, *pictures[1:])]
    beside = np.ascontiguousarray(np.hstack(padded))
    marks = _marks(question, answer) if len(pictures) == 1 else ""
    return draw_answer(beside, question.text, f"{marks}{answer}" if not marks else f"{marks} {_shortened(answer)}")


def _marks(question: Question, answer: str) -> str:
    """The answer's places in the form that is drawn, whatever form they were written in."""
    width, height = question.sizes[0]
    if question.form == "box" and (box := read_box(answer, width, height)) is not None:
        left, top, right, bottom = (int(value) for value in box)
        return box_text(box_numbers((left, top, right, bottom), width, height))
    if question.form in ("point", "trace"):
        points = read_points(answer, width, height)
        if points:
            return point_text([[number_of(int(x), width), number_of(int(y), height)] for x, y in points])
    return ""


def _shortened(answer: str) -> str:
    """The answer's text, without the marks that ``draw_answer`` would draw a second time."""
    return answer.replace("<point>", "").replace("</point>", "").replace("<box>", "").replace("</box>", "")[:200]


def _outline(canvas: NDArray[np.uint8], question: Question) -> None:
    """Draw the correct answer in white."""
    white, truth = (255, 255, 255), question.truth
    if truth.get("mask"):
        outlines, _ = cv2.findContours(
            decode_mask(truth["mask"]).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(canvas, outlines, -1, white, 2)
    elif "box" in truth:
        left, top, right, bottom = (int(value) for value in truth["box"])
        cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), white, 2)
    if question.form == "trace":
        points = np.array(truth["points"], np.int32).reshape(-1, 1, 2)
        cv2.polylines(canvas, [points], isClosed=False, color=white, thickness=2)
