"""A folder of questions: conversations to train on, images, and what answers are scored by.

The layout is described in ``docs/reasoning.md``. Conversations are InternVL's fine-tuning format (one JSON object a
line: ``image``, ``conversations`` with ``from`` and ``value``); ``truth/SPLIT.jsonl`` has a line for each of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vlaser_gym.errors import MissingAssetError, StorageError, UnknownNameError
from vlaser_gym.storage.files import write_whole
from vlaser_gym.storage.lines import line_of, parse_object

#: Version of the layout; a folder of a newer one is refused.
FORMAT = "vlaser_gym.questions/1"
SETTINGS_FILE = "settings.json"
#: Where an image goes in a conversation.
PLACEHOLDER = "<image>"


@dataclass(frozen=True)
class Question:
    """A question, its images and what an answer is scored by.

    Attributes:
        id: within its folder.
        split: ``train``, ``test`` or ``ood_...``.
        kind, family: see :mod:`vlaser_gym.reasoning.catalogue`; public benchmarks have names of their own.
        form: ``point``, ``box``, ``choice``, ``number`` or ``trace``.
        text: the question without images.
        answer: as a model should write it; ``thought``: what it should think before, if anything.
        images: paths below the folder, in the order of the question.
        sizes: their width and height.
        about: what answers are balanced within; ``wording``: number of the wording.
        fixed: the thing asked about never moves; it is counted apart.
        lettered: the answer is the letter of an option.
        options: of a choice, in the order of their letters; ``right`` is the option that is right.
        truth: of other forms: ``mask`` or ``masks`` (COCO run lengths), ``box`` (pixels), ``value`` and ``unit``,
            ``points`` (pixels).
        robot, task, variant, look, layout, trial, steps: where the images come from; empty in public benchmarks.
    """

    id: str
    split: str
    kind: str
    family: str
    form: str
    text: str
    answer: str
    images: list[str]
    sizes: list[list[int]]
    about: str = ""
    wording: int = 0
    fixed: bool = False
    lettered: bool = False
    options: list[str] = field(default_factory=list)
    right: str = ""
    truth: dict[str, Any] = field(default_factory=dict)
    robot: str = ""
    task: str = ""
    variant: str = ""
    look: str = ""
    layout: str = ""
    trial: int = 0
    steps: list[int] = field(default_factory=list)
    thought: str = ""

    def conversation(self) -> dict[str, Any]:
        """The line that InternVL's fine-tuning reads."""
        several = len(self.images) > 1
        thinking = f"<think>{self.thought}</think>" if self.thought else ""
        names = ("width", "height")
        size: dict[str, Any] = dict(zip(names, self.sizes[0], strict=True))
        if several:
            size = {f"{name}_list": [one[i] for one in self.sizes] for i, name in enumerate(names)}
        return {
            "id": self.id,
            "image": self.images if several else self.images[0],
            **size,
            "conversations": [
                {"from": "human", "value": picture_lines(len(self.images)) + self.text},
                {"from": "gpt", "value": thinking + self.answer},
            ],
        }


def picture_lines(count: int) -> str:
    """The image placeholders before a question about so many images."""
    if count == 1:
        return f"{PLACEHOLDER}\n"
    return "".join(f"Image-{number}: {PLACEHOLDER}\n" for number in range(1, count + 1))


def write_split(folder: Path, split: str, questions: Sequence[Question]) -> None:
    """Write ``SPLIT.jsonl`` and ``truth/SPLIT.jsonl`` as wholes."""
    (folder / "truth").mkdir(exist_ok=True)
    write_whole(folder / "truth" / f"{split}.jsonl", b"".join(line_of(asdict(question)) for question in questions))
    lines = b"".join(line_of(question.conversation()) for question in questions)
    write_whole(folder / f"{split}.jsonl", lines)


def write_meta(folder: Path, counts: Mapping[str, int]) -> None:
    """Write ``meta.json``, which InternVL's fine-tuning takes as ``meta_path``: one entry per split."""
    entries = {
        f"{folder.name}_{split}": {
            "root": str(folder.resolve()),
            "annotation": str((folder / f"{split}.jsonl").resolve()),
            "data_augment": False,
            "repeat_time": 1,
            "length": count,
        }
        for split, count in counts.items()
    }
    write_whole(folder / "meta.json", (json.dumps(entries, indent=2) + "\n").encode())


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings that made a folder of questions.

    Raises:
        StorageError: if it is none, or of a newer version.
    """
    file = folder / SETTINGS_FILE
    found = parse_object(file.read_bytes()) if file.is_file() else None
    if found is None or "format" not in found:
        raise StorageError(
            f"{folder} should be a folder of questions, with {SETTINGS_FILE} and truth/; it is not: make one with "
            "python -m vlaser_gym.questions output=DIR, or convert a benchmark with reason data=DIR convert=FORMAT."
        )
    if found["format"] != FORMAT:
        raise StorageError(f"{file} says format {found['format']}, this package reads {FORMAT}: update the package.")
    return found


def splits_of(folder: Path) -> list[str]:
    """The splits of a folder, ``train`` and ``test`` first."""
    names = sorted(file.stem for file in (folder / "truth").glob("*.jsonl"))
    return sorted(names, key=lambda name: (["train", "test"].index(name) if name in ("train", "test") else 2, name))


def read_questions(folder: Path, splits: Iterable[str]) -> list[Question]:
    """The questions of some splits.

    Raises:
        StorageError: if the folder is none of questions, or a line is damaged.
        UnknownNameError: for a split that it does not have.
    """
    read_settings(folder)
    known = splits_of(folder)
    questions = []
    for split in splits:
        if split not in known:
            raise UnknownNameError(f"split of {folder}", split, known)
        file = folder / "truth" / f"{split}.jsonl"
        for number, line in enumerate(file.read_bytes().splitlines(), 1):
            questions.append(_question(parse_object(line), file, number))
    return questions


_FIELDS = {entry.name for entry in fields(Question)}


def _question(found: dict[str, Any] | None, file: Path, number: int) -> Question:
    try:
        return Question(**(found or {}))
    except TypeError as error:
        raise StorageError(
            f"Line {number} of {file} should have the fields of a question ({', '.join(sorted(_FIELDS))}): {error}; "
            "restore the line, or make the questions again."
        ) from error


def read_picture(folder: Path, path: str) -> NDArray[np.uint8]:
    """A question's image ``[H, W, 3]``.

    Raises:
        MissingAssetError: if it is not there, or no image.
    """
    try:
        with Image.open(folder / path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise MissingAssetError(
            f"{folder / path} should be the image of a question; reading it gave: {error}. Copy it again, or make "
            "the questions again: images that are there stay."
        ) from error


def missing_pictures(folder: Path, questions: Iterable[Question]) -> list[str]:
    """Paths of images that are not there."""
    paths = dict.fromkeys(path for question in questions for path in question.images)
    return [path for path in paths if not (folder / path).is_file()]
