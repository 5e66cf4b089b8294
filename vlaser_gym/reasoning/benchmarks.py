"""Public benchmarks, as they are downloaded, as folders of questions.

What each reader expects is said by its docstring and in ``docs/reasoning.md``. The formats are those of the benchmarks'
own releases as of 2025; what could not be downloaded here was tested on fabricated samples of the same form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from vlaser_gym.agents.vlaser.frequent_words import POINTING_PROMPT
from vlaser_gym.errors import MissingAssetError, StorageError, UnknownNameError
from vlaser_gym.reasoning.coordinates import encode_mask, number_of, point_text
from vlaser_gym.reasoning.dealing import LETTERS
from vlaser_gym.reasoning.folder import FORMAT, SETTINGS_FILE, Question, write_split
from vlaser_gym.reasoning.tfrecord import read_examples
from vlaser_gym.storage.files import write_whole
from vlaser_gym.storage.lines import line_of, parse_object

#: Pixels around a true point within which an answer counts, where a benchmark has points and no masks (Vlaser's).
HIT_RADIUS = 25.0
#: Frames that are taken of a scene of VSIBench, evenly.
_FRAMES = 8
_LETTERED_LINE = re.compile(r"(?:^|\s)\(?([A-H])[.)]\s*(.*?)(?=\s\(?[B-H][.)]\s|\s*(?:Please|Answer)\b|$)", re.DOTALL)


@dataclass(frozen=True)
class Item:
    """A question of a benchmark before its images are copied.

    Attributes:
        kind: the benchmark's own category.
        images: files, or the bytes of images.
        truth: as in :class:`Question`; a ``mask`` may be the path of an image that is white inside.
    """

    kind: str
    form: str
    text: str
    images: list[Path | bytes]
    right: str = ""
    options: list[str] = field(default_factory=list)
    lettered: bool = False
    truth: dict[str, Any] = field(default_factory=dict)


def convert(name: str, data: str | Path, output: str | Path) -> int:
    """Write a benchmark's questions as a folder that ``reason data=`` reads, images included.

    Returns:
        How many questions.

    Raises:
        UnknownNameError: for a benchmark that there is no reader of.
        MissingAssetError: for missing or damaged files.
        StorageError: if the output holds something already.
    """
    if name not in READERS:
        raise UnknownNameError("benchmark format", name, READERS)
    source, target = Path(data), Path(output)
    if target.exists() and any(target.iterdir()):
        raise StorageError(f"{target} is not empty: choose another output= for the questions of {name}.")
    try:
        items = list(READERS[name](source))
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise MissingAssetError(
            f"{source} should hold {name} as docs/reasoning.md describes it; reading it gave "
            f"{type(error).__name__}: {error}."
        ) from error
    if not items:
        raise MissingAssetError(f"{source} holds no question of {name}; docs/reasoning.md says which files are read.")
    (target / "images").mkdir(parents=True, exist_ok=True)
    questions = [_stored(f"test-{number:06d}", name, item, target) for number, item in enumerate(items)]
    write_whole(target / SETTINGS_FILE, line_of({"format": FORMAT, "benchmark": name}))
    write_split(target, "test", questions)
    return len(questions)


def _stored(number: str, benchmark: str, item: Item, target: Path) -> Question:
    """The question with its images copied below ``images/``."""
    images, sizes = [], []
    for i, picture in enumerate(item.images):
        data = picture if isinstance(picture, bytes) else picture.read_bytes()
        size, ending = _opened(data, str(picture)[:80])
        images.append(f"images/{number}-{i}.{ending}")
        sizes.append(list(size))
        (target / images[-1]).write_bytes(data)
    truth = {**item.truth, **({"mask": _mask(item.truth["mask"], sizes[0])} if "mask" in item.truth else {})}
    lettered = item.lettered and bool(item.options)
    answer = LETTERS[item.options.index(item.right)] if lettered and item.right in item.options else item.right
    question = Question(number, "test", item.kind, benchmark, item.form, item.text, answer, images, sizes)
    question = replace(question, options=item.options, right=item.right, lettered=lettered, truth=truth)
    return replace(question, answer=answer or _written(question))


def _opened(data: bytes, name: str) -> tuple[tuple[int, int], str]:
    try:
        with Image.open(BytesIO(data)) as picture:
            return picture.size, {"JPEG": "jpg"}.get(str(picture.format), str(picture.format).lower())
    except (OSError, UnidentifiedImageError) as error:
        raise MissingAssetError(f"{name} should be an image; reading it gave: {error}.") from error


def _mask(mask: Path | Mapping[str, Any], size: list[int]) -> Any:
    if not isinstance(mask, Path):
        return mask
    with Image.open(mask) as picture:
        inside = np.asarray(picture.convert("L").resize((size[0], size[1]), Image.Resampling.NEAREST)) > 127
    return encode_mask(inside)


def _written(question: Question) -> str:
    """An answer that is right, where the benchmark writes none."""
    if question.form != "point":
        return f"{question.truth['value']:g}" if "value" in question.truth else ""
    width, height = question.sizes[0]
    if "points" in question.truth:
        places = question.truth["points"]
    else:
        runs = np.cumsum(question.truth["mask"]["counts"])
        first = int(runs[0]) if len(runs) > 1 else 0
        places = [divmod(first, height)]
    return point_text([[number_of(int(x), width), number_of(int(y), height)] for x, y in places])


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        if line.strip():
            found = parse_object(line)
            if found is None:
                raise ValueError(f"line {number} of {file.name} is no JSON object")
            yield found


def _beside(folder: Path, name: str) -> Path:
    """A file, or the one of the same stem with another ending."""
    if (folder / name).is_file():
        return folder / name
    others = sorted((folder / name).parent.glob(Path(name).stem + ".*"))
    if not others:
        raise FileNotFoundError(f"{folder / name} is missing")
    return others[0]


def _pointing(request: str) -> str:
    return f"{POINTING_PROMPT} {request.strip()}"


def read_plain(folder: Path) -> Iterator[Item]:
    """``questions.jsonl``, a JSON object a line, paths relative to the folder.

    Always ``question`` and ``image`` (or ``images``); and one of ``mask`` (an image, white inside), ``points``
    (pixels, with an optional ``radius``), ``box`` (pixels), ``options`` with ``answer`` (an option or its letter),
    ``value`` (with an optional ``unit``). ``kind`` is optional.
    """
    for line in _lines(folder / "questions.jsonl"):
        images: list[Path | bytes] = [folder / name for name in line.get("images") or [line["image"]]]
        kind, text = str(line.get("kind", "question")), str(line["question"])
        if "options" in line:
            options = [str(option) for option in line["options"]]
            yield Item(
                kind, "choice", _with_options(text, options), images, _right(line["answer"], options), options, True
            )
        elif "mask" in line:
            yield Item(kind, "point", _pointing(text), images, truth={"mask": folder / line["mask"]})
        elif "points" in line:
            truth = {"points": line["points"], "radius": float(line.get("radius", HIT_RADIUS))}
            yield Item(kind, "point", _pointing(text), images, truth=truth)
        elif "box" in line:
            yield Item(kind, "box", text, images, truth={"box": line["box"]})
        else:
            truth = {"value": float(line["value"]), "unit": str(line.get("unit", ""))}
            yield Item(kind, "number", text, images, truth=truth)


def _with_options(text: str, options: list[str]) -> str:
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join([text, *lines, "Answer with the letter."])


def _right(answer: str, options: list[str]) -> str:
    answer = str(answer).strip()
    if answer in options:
        return answer
    return options[LETTERS.index(answer.strip("().")[:1])]


def read_where2place(folder: Path) -> Iterator[Item]:
    """``point_questions.jsonl`` (``image``, ``text``, ``category``), ``images/`` and ``masks/`` of the same names."""
    for line in _lines(folder / "point_questions.jsonl"):
        mask = _beside(folder / "masks", line["image"])
        request = re.split(r"\s*Your answer should be formatted", str(line["text"]))[0]
        image = folder / "images" / line["image"]
        yield Item(str(line.get("category", "where2place")), "point", _pointing(request), [image], truth={"mask": mask})


def read_refspatial(folder: Path) -> Iterator[Item]:
    """A folder per split (``Location``, ``Placement``, ``Unseen``), each with ``question.json``: a list of entries with
    ``prompt``, ``rgb_path`` and ``mask_path`` (or ``image`` and ``mask``), relative to the split's folder.
    """
    for file in sorted(folder.glob("*/question.json")):
        for entry in json.loads(file.read_text(encoding="utf-8")):
            image = file.parent / str(entry.get("rgb_path") or entry["image"])
            mask = file.parent / str(entry.get("mask_path") or entry["mask"])
            yield Item(file.parent.name, "point", _pointing(str(entry["prompt"])), [image], truth={"mask": mask})


def read_pointarena(folder: Path) -> Iterator[Item]:
    """``data.json`` (a list with ``image_filename``, ``mask_filename``, ``user_input``, ``category``), ``images/`` and
    ``masks/``, each with or without a folder per category.
    """
    for entry in json.loads((folder / "data.json").read_text(encoding="utf-8")):
        category = str(entry.get("category", "pointarena"))
        image, mask = (
            _in_category(folder / place, category, str(entry[key]))
            for place, key in (("images", "image_filename"), ("masks", "mask_filename"))
        )
        yield Item(category, "point", _pointing(str(entry["user_input"])), [image], truth={"mask": mask})


def _in_category(folder: Path, category: str, name: str) -> Path:
    return folder / category / name if (folder / category / name).is_file() else _beside(folder, name)


def read_pixmo_points(folder: Path) -> Iterator[Item]:
    """``questions.jsonl`` with ``image`` (below the folder), ``label`` and ``points`` (``x`` and ``y`` in percent).

    The release names images by address: they are to be fetched first.
    """
    for line in _lines(folder / "questions.jsonl"):
        image = folder / str(line["image"])
        with Image.open(image) as picture:
            width, height = picture.size
        points = [[point["x"] / 100 * width, point["y"] / 100 * height] for point in line["points"]]
        if points:
            truth = {"points": points, "radius": HIT_RADIUS}
            yield Item("pixmo_points", "point", _pointing(f"Point to the {line['label']}."), [image], truth=truth)


def read_erqa(folder: Path) -> Iterator[Item]:
    """One or more ``*.tfrecord`` of TF examples with ``question``, ``answer`` (a letter), ``image/encoded`` and
    ``question_type``; the options stand in the question.
    """
    for file in sorted(folder.glob("**/*.tfrecord*")):
        for example in read_examples(file):
            text, answer = (example[name][0].decode() for name in ("question", "answer"))
            kind = example.get("question_type", [b"erqa"])[0].decode()
            options = _options_in(text)
            images: list[Path | bytes] = list(example["image/encoded"])
            yield Item(kind, "choice", text, images, _right(answer, options), options, lettered=True)


def _options_in(text: str) -> list[str]:
    """The options of a question that lists them with letters, from A on.

    Raises:
        ValueError: if it lists none.
    """
    _, _, listed = text.rpartition("Choices:")
    found = [(letter, option.strip().rstrip(".")) for letter, option in _LETTERED_LINE.findall(" " + (listed or text))]
    begin = max((i for i, (letter, _) in enumerate(found) if letter == "A"), default=0)
    options = [option for i, (letter, option) in enumerate(found[begin:]) if letter == LETTERS[i]]
    if len(options) < 2:
        raise ValueError(f"no lettered options in {text[:80]!r}")
    return options


def read_vsibench(folder: Path) -> Iterator[Item]:
    """``test.jsonl`` (``dataset``, ``scene_name``, ``question_type``, ``question``, ``options``, ``ground_truth``) and
    ``frames/DATASET/SCENE/`` with images of each video in their order; eight of them are shown.
    """
    for line in _lines(folder / "test.jsonl"):
        scene = folder / "frames" / str(line["dataset"]) / str(line["scene_name"])
        frames = sorted(file for file in scene.glob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
        if not frames:
            raise FileNotFoundError(f"{scene} holds no frames")
        chosen = np.linspace(0, len(frames) - 1, min(_FRAMES, len(frames))).round().astype(int)
        images: list[Path | bytes] = [frames[i] for i in chosen]
        kind, text = str(line["question_type"]), f"These are frames of a video. {line['question']}"
        if line.get("options"):
            options = [re.sub(r"^[A-H][.)]\s*", "", str(option)) for option in line["options"]]
            right = _right(line["ground_truth"], options)
            yield Item(kind, "choice", _with_options(text, options), images, right, options, lettered=True)
        else:
            value = float(line["ground_truth"])
            yield Item(kind, "number", f"{text} Answer with a number.", images, truth={"value": value, "unit": ""})


#: By the name that ``reason convert=`` has for them.
READERS: dict[str, Callable[[Path], Iterator[Item]]] = {
    "plain": read_plain,
    "where2place": read_where2place,
    "refspatial": read_refspatial,
    "pointarena": read_pointarena,
    "pixmo_points": read_pixmo_points,
    "erqa": read_erqa,
    "vsibench": read_vsibench,
}
