"""Questions about images as the text that a model continues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.agents.vlaser.tokenizer import IM_END, IM_START, IMAGE, IMAGE_END, IMAGE_START
from vlaser_gym.errors import InvalidConfigError

#: InternVL's stock system message, which Vlaser's VLMs were fine-tuned with. It says in Chinese that the model is
#: InternVL, a multimodal large language model of the Shanghai AI Laboratory, Tsinghua University and partners.
SYSTEM_MESSAGE = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)
#: Where an image goes in a question.
PLACEHOLDER = "<image>"


@dataclass(frozen=True)
class Request:
    """A question to a model: its text (see :func:`chat_prompt`) and its images ``[H, W, 3]`` uint8."""

    question: str
    images: Sequence[NDArray[np.uint8]] = ()
    history: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Reply:
    """An answer; ``cut``: it did not end within its length."""

    text: str
    cut: bool


def chat_prompt(
    question: str,
    image_tokens: Sequence[int],
    system: str = SYSTEM_MESSAGE,
    history: Sequence[tuple[str, str]] = (),
) -> str:
    """The text that the model continues.

    Args:
        question: may hold ``<image>`` once per image; without any, one image goes before it, several as numbered
            lines.
        image_tokens: number of image tokens of each image.
        system: system message.
        history: earlier questions and answers; they may hold the ``<image>`` of the first images.

    Raises:
        InvalidConfigError: if images and placeholders differ in number.
    """
    turns = _turns(question, history, len(image_tokens))
    text = f"{IM_START}system\n{system}{IM_END}\n"
    for asked, answer in turns:
        text += f"{IM_START}user\n{asked}{IM_END}\n{IM_START}assistant\n"
        text += "" if answer is None else f"{answer}{IM_END}\n"
    return _with_pictures(text, image_tokens)


def short_prompt(question: str, image_tokens: Sequence[int], history: Sequence[tuple[str, str]] = ()) -> str:
    """:func:`chat_prompt` of the small model, which has no system message: ``<|im_start|>`` asks for the answer.

    Example:
        >>> short_prompt("<image>\\nWhere?", [2])
        '<img><IMG_CONTEXT><IMG_CONTEXT></img>\\nWhere?<|im_start|>'
    """
    turns = _turns(question, history, len(image_tokens))
    texts = [f"{asked}{IM_START}" + ("" if answer is None else f"{answer}{IM_END}") for asked, answer in turns]
    return _with_pictures("".join(texts), image_tokens)


def _turns(question: str, history: Sequence[tuple[str, str]], pictures: int) -> list[tuple[str, str | None]]:
    """Questions and answers in order, the last one open; images that nobody mentions stand at the beginning."""
    turns: list[tuple[str, str | None]] = [*history, (question, None)]
    if not any(PLACEHOLDER in asked for asked, _ in turns):
        turns[0] = (_picture_lines(pictures) + turns[0][0], turns[0][1])
    return turns


def _with_pictures(text: str, image_tokens: Sequence[int]) -> str:
    pieces = text.split(PLACEHOLDER)
    if len(pieces) != len(image_tokens) + 1:
        raise InvalidConfigError(
            f"A question holds {PLACEHOLDER} once per image, or not at all; got it {len(pieces) - 1} times for "
            f"{len(image_tokens)} images."
        )
    pictures = [IMAGE_START + IMAGE * count + IMAGE_END for count in image_tokens]
    return pieces[0] + "".join(picture + piece for picture, piece in zip(pictures, pieces[1:], strict=True))


def _picture_lines(count: int) -> str:
    if count == 1:
        return f"{PLACEHOLDER}\n"
    return "".join(f"Image-{number}: {PLACEHOLDER}\n" for number in range(1, count + 1))
