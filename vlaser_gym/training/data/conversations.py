"""Conversations about images, to learn answers from: InternVL's fine-tuning format.

A line of JSON holds ``conversations`` (turns ``from`` ``human`` and ``gpt`` with their ``value``) and ``image``, a path
or a list of them. A folder that ``python -m vlaser_gym.questions`` made has such lines in ``train.jsonl``, and in
``truth/train.jsonl`` of which kind each is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from vlaser_gym.agents.text_rows import Pictures, TextRows, TextSample, answer_weights, packed, text_rows
from vlaser_gym.agents.trainable import TrainableAgent
from vlaser_gym.errors import InvalidConfigError, MissingAssetError, StorageError, UnknownNameError
from vlaser_gym.storage.lines import parse_object
from vlaser_gym.training.data.augment import Augmentation
from vlaser_gym.training.data.pictures import cached_pixels

#: What starts a run in the command's other formats: their files, by which a wrong folder is recognised.
_DATA_SET, _RUN = "meta/info.json", "records.jsonl"


@dataclass(frozen=True)
class Conversation:
    """One question with the answer to be learned.

    Attributes:
        question: with ``<image>`` once per image, or not at all.
        answer: what is to be said.
        images: paths of the images.
        sizes: their width and height (pixels).
        history: questions and answers before it.
    """

    question: str
    answer: str
    images: tuple[Path, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    history: tuple[tuple[str, str], ...] = ()


def read_conversations(source: str | Path, kinds: Sequence[str] = ()) -> list[Conversation]:
    """The answers to learn of a folder of questions, or of a file of conversations with its images beside.

    Args:
        source: a folder with ``train.jsonl``, or such a file.
        kinds: kinds or families of questions; all, for none.

    Raises:
        StorageError: if there are none, or a line is something else.
        UnknownNameError: for a kind that is not there.
        MissingAssetError: if images are missing.
    """
    file = Path(source) if Path(source).is_file() else Path(source) / "train.jsonl"
    if not file.is_file():
        raise StorageError(
            f"{source} should be a folder of questions with train.jsonl, or a file of conversations in InternVL's "
            f"fine-tuning format; it is {_found(Path(source))}. Make one: python -m vlaser_gym.questions output=DIR."
        )
    lines = file.read_bytes().splitlines()
    chosen = range(len(lines)) if not kinds else _of_kinds(file, len(lines), kinds)
    found = [one for number in chosen for one in _conversations(lines[number], file, number + 1)]
    if not found:
        raise StorageError(f"{file} holds no conversation{' of kinds=' + ','.join(kinds) if kinds else ''}.")
    missing = [path for path in dict.fromkeys(path for one in found for path in one.images) if not path.is_file()]
    if missing:
        raise MissingAssetError(
            f"{len(missing)} images of {file} are missing, the first is {missing[0]}: copy the folder again, or "
            "repeat the command that made it."
        )
    return found


def _found(source: Path) -> str:
    if (source / _DATA_SET).is_file():
        return "a data set of demonstrations, which algo=sft learns from"
    if (source / _RUN).is_file():
        return "a run directory"
    return "a folder of something else" if source.is_dir() else "not there"


def _of_kinds(file: Path, count: int, kinds: Sequence[str]) -> list[int]:
    """Numbers of the lines whose kind or family is named."""
    truth = file.parent / "truth" / file.name
    entries = [parse_object(line) or {} for line in truth.read_bytes().splitlines()] if truth.is_file() else []
    if len(entries) != count:
        raise StorageError(
            f"Kinds of questions are told by {truth}, with a line for each of the {count} of {file}; it has "
            f"{len(entries)}: leave algo.kinds out, or make the questions again."
        )
    names = [{str(entry.get("kind")), str(entry.get("family"))} for entry in entries]
    for kind in kinds:
        if not any(kind in name for name in names):
            raise UnknownNameError(f"kind of questions in {file}", kind, sorted(set().union(*names)))
    return [number for number, name in enumerate(names) if name & set(kinds)]


def _conversations(line: bytes, file: Path, number: int) -> Iterator[Conversation]:
    """One for every answer of a line."""
    entry = parse_object(line)
    try:
        turns = [(str(turn["from"]), str(turn["value"])) for turn in (entry or {})["conversations"]]
        turns = [turn for turn in turns if turn[0] != "system"]
        pairs = [(asked[1], told[1]) for asked, told in zip(turns[::2], turns[1::2], strict=True)]
        if [turn[0] for turn in turns] != ["human", "gpt"] * len(pairs) or not pairs:
            raise ValueError("turns of human and gpt should take turns")
        images, sizes = _images(entry or {}, file.parent)
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(
            f"Line {number} of {file} should be a conversation in InternVL's fine-tuning format (conversations, "
            f"image): {type(error).__name__}: {error}; restore the line, or make the questions again."
        ) from error
    for count, (question, answer) in enumerate(pairs):
        yield Conversation(question, answer, images, sizes, tuple(pairs[:count]))


def _images(entry: Mapping[str, Any], folder: Path) -> tuple[tuple[Path, ...], tuple[tuple[int, int], ...]]:
    """Paths of a line's images, and their sizes: those that it says, else those of the files."""
    given = entry.get("image", [])
    paths = tuple(folder / str(path) for path in ([given] if isinstance(given, str) else given))
    if "width_list" in entry:
        sizes = list(zip(entry["width_list"], entry["height_list"], strict=True))
    elif "width" in entry and len(paths) == 1:
        sizes = [(entry["width"], entry["height"])]
    else:
        sizes = [_size(path) for path in paths]
    if len(sizes) != len(paths):
        raise ValueError(f"{len(paths)} images have {len(sizes)} sizes")
    return paths, tuple((int(width), int(height)) for width, height in sizes)


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def read_picture(path: Path) -> NDArray[np.uint8]:
    """An image ``[H, W, 3]``.

    Raises:
        MissingAssetError: if it cannot be read.
    """
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise MissingAssetError(f"{path} should be an image; reading it gave: {error}. Copy it again.") from error


class PictureFiles:
    """Images in files of their own; see :class:`~vlaser_gym.training.data.pictures.PictureReader`."""

    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        self.path, self.files = path, list(files)

    @property
    def total_frames(self) -> int:
        """The number of images."""
        return len(self.files)

    def picture_files(self) -> list[Path]:
        """The files."""
        return self.files

    def frames(self, chosen: NDArray[np.bool_] | None = None) -> Iterator[NDArray[np.uint8]]:
        """One at a time: their sizes differ."""
        for number, file in enumerate(self.files):
            if chosen is None or chosen[number]:
                yield read_picture(file)[None]


class Answers:
    """Batches of questions and answers for an agent.

    Args:
        source: see :func:`read_conversations`.
        agent: makes the tokens and says how it reads images.
        seed: of the order. Every epoch has its own, in which every answer comes once, those about one image after
            another: an image is encoded once for all its questions in a batch.
        kinds: see :func:`read_conversations`.
        weighting: how answers of different lengths count (:data:`~vlaser_gym.agents.text_rows.POWERS`).
        packing: several samples share a row of the agent's ``reasoning_length``.
        augmentation: changes of the images' colours.
        cache: folder of decoded images.
        say: told if another process is decoding.

    Attributes:
        skipped: answers that are longer than the agent's ``reasoning_length`` and are not learned.
    """

    def __init__(
        self,
        source: str | Path,
        agent: TrainableAgent,
        seed: int,
        *,
        kinds: Sequence[str] = (),
        weighting: str = "square",
        packing: bool = True,
        augmentation: Augmentation | None = None,
        cache: str | Path | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.source, self.agent, self.seed, self.weighting, self.packing = source, agent, seed, weighting, packing
        self.augmentation = augmentation or Augmentation("none")
        if self.augmentation.mode == "full":
            raise InvalidConfigError("Places of answers do not follow a crop: augment questions by colour, or none.")
        everything = read_conversations(source)
        found = read_conversations(source, kinds) if kinds else everything
        tokens = [[agent.picture_tokens(*size) for size in one.sizes] for one in found]
        samples = [
            agent.text_sample(one.question, one.answer, count, one.history)
            for one, count in zip(found, tokens, strict=True)
        ]
        fits = [len(sample) <= agent.reasoning_length for sample in samples]
        self.skipped = fits.count(False)
        self.conversations = [one for one, fit in zip(found, fits, strict=True) if fit]
        self.samples: list[TextSample] = [sample for sample, fit in zip(samples, fits, strict=True) if fit]
        if not self.samples:
            raise InvalidConfigError(
                f"All {len(found)} answers of {source} are longer with their questions than {agent.reasoning_length} "
                "tokens: give a larger algo.length."
            )
        # Of all kinds, so that runs that learn different ones share what was decoded.
        self._files = {path: i for i, path in enumerate(sorted({path for one in everything for path in one.images}))}
        self._cache, self._say = cache, say
        self._of_picture = _groups(self.conversations)
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self.samples)

    def describe(self) -> str:
        """A description of the training data."""
        skipped = f"; {self.skipped} longer than {self.agent.reasoning_length} tokens are left out" * bool(self.skipped)
        pictures = len({path for one in self.conversations for path in one.images})
        return f"{len(self):,} answers about {pictures:,} images of {self.source}{skipped}"

    def rows(self, step: int, size: int) -> NDArray[np.int64]:
        """The answers of one step ``[size]``."""
        places = np.arange(step * size, (step + 1) * size)
        return np.array([self._permutation(int(place // len(self)))[place % len(self)] for place in places])

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self._of_picture))
            self._order, self._epoch = np.concatenate([self._of_picture[i] for i in order]), epoch
        return self._order

    def parts(
        self, step: int, size: int, shares: Sequence[NDArray[np.int64]], factor: float, generator: torch.Generator
    ) -> Iterator[tuple[Pictures | None, TextRows]]:
        """Some parts of a step's batch; the sum of the losses of all parts is ``factor`` times the batch's.

        Args:
            step, size: which answers, see :meth:`rows`.
            shares: which of them each part has.
            factor: of the loss.
            generator: of the augmentation, at the same place in every process.
        """
        rows = self.rows(step, size)
        weights = [factor * weight for weight in self.weights(rows)]
        changes = self.augmentation.draw(size, generator)
        for part in shares:
            yield self.batch(rows[part], changes[part], [weights[i] for i in part])

    def batch(
        self, rows: NDArray[np.int64], changes: Tensor, weights: Sequence[float] | None = None
    ) -> tuple[Pictures | None, TextRows]:
        """Images and rows of text.

        Args:
            rows: which answers.
            changes: draws of the augmentation, ``[len(rows), 8]``; an image takes those of its first question.
            weights: of a token of each answer; by default they sum to 1 over this batch.
        """
        samples = [self.samples[row] for row in rows]
        lengths = [len(sample) for sample in samples]
        groups = packed(lengths, self.agent.reasoning_length) if self.packing else [[i] for i in range(len(rows))]
        given = answer_weights(samples, self.weighting) if weights is None else weights
        order = [number for group in groups for number in group]
        places = [(path, number) for number in order for path in self.conversations[rows[number]].images]
        return self._pictures(places, changes), text_rows(samples, given, groups, self.agent.pad_id)

    def weights(self, rows: NDArray[np.int64]) -> list[float]:
        """Weights of each token of these answers: over all of them they sum to 1."""
        return answer_weights([self.samples[row] for row in rows], self.weighting)

    def _pictures(self, places: Sequence[tuple[Path, int]], changes: Tensor) -> Pictures | None:
        """The images of some places, given with the number of the question that each stands in."""
        if not places:
            return None
        firsts: dict[Path, int] = {}
        for path, number in places:
            firsts[path] = min(number, firsts.get(path, number))
        parts = [torch.from_numpy(self._tiles(path)) for path in firsts]
        draws = torch.cat([changes[n].expand(len(part), -1) for n, part in zip(firsts.values(), parts, strict=True)])
        starts = np.cumsum([0, *map(len, parts)])
        ranges = {path: range(starts[i], starts[i + 1]) for i, path in enumerate(firsts)}
        index = [tile for path, _ in places for tile in ranges[path]]
        return Pictures(self.augmentation(torch.cat(parts), draws), torch.tensor(index))

    def _tiles(self, path: Path) -> NDArray[np.uint8]:
        """An image as the agent reads it ``[tiles, S, S, 3]``."""
        if self._stored is not None:
            return np.array(self._stored[self._files[path]][None], np.uint8)
        return np.array(self.agent.picture_tiles(read_picture(path)))

    @cached_property
    def _stored(self) -> NDArray[np.uint8] | None:
        """The images in the policy's size, decoded once, where every image is one square of it."""
        if not self._files or self.agent.max_tiles != 1:
            return None
        files = [path.absolute() for path in self._files]
        reader = PictureFiles(Path(os.path.commonpath([str(path.parent) for path in files])), files)
        return cached_pixels(reader, self.agent.resize, None, self._cache, self._say)


def _groups(conversations: Sequence[Conversation]) -> list[NDArray[np.int64]]:
    """Numbers of the conversations about each image; those without one stand alone."""
    groups: dict[Any, list[int]] = {}
    for number, one in enumerate(conversations):
        groups.setdefault(one.images[0] if one.images else number, []).append(number)
    return [np.array(group) for group in groups.values()]
