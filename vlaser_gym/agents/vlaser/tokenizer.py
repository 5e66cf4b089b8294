"""Text to token ids: InternVL3's Qwen2 tokenizer from its files, and the byte tokenizer of the small model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from vlaser_gym.agents.vlaser.frequent_words import POINTING_PROMPT, WORDS
from vlaser_gym.errors import MissingAssetError
from vlaser_gym.storage.files import storing_together

PAD = "<|endoftext|>"
IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
IMAGE_START = "<img>"
IMAGE_END = "</img>"
IMAGE = "<IMG_CONTEXT>"
#: The special tokens that prompts are made of; both tokenizers know them.
SPECIAL_TOKENS = (PAD, IM_START, IM_END, IMAGE_START, IMAGE_END, IMAGE)


class Tokenizer(Protocol):
    """The tokenizer interface of prompts.

    Attributes:
        pad_id: fills the right end of short prompts.
        image_id: marks the places that image features are written to.
        end_id: ends a turn.
        vocab_size: number of known tokens.
    """

    pad_id: int
    image_id: int
    end_id: int
    vocab_size: int

    def encode(self, text: str) -> list[int]:
        """Ids of a text; special tokens in it are recognised, none are added."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens included."""

    def save(self, folder: str | Path) -> None:
        """Write what :func:`load_tokenizer` needs into a checkpoint folder."""


class ByteTokenizer:
    """UTF-8 bytes 0..255, then :data:`SPECIAL_TOKENS` as 256..261. Needs no file.

    Example:
        >>> ByteTokenizer().encode("<img>hi")
        [259, 104, 105]
    """

    pad_id = 256
    end_id = 258
    image_id = 261
    vocab_size = 256 + len(SPECIAL_TOKENS)

    _special = re.compile("(" + "|".join(re.escape(token) for token in SPECIAL_TOKENS) + ")")

    def encode(self, text: str) -> list[int]:
        """See :meth:`Tokenizer.encode`."""
        ids: list[int] = []
        for piece in self._special.split(text):
            ids += [256 + SPECIAL_TOKENS.index(piece)] if piece in SPECIAL_TOKENS else list(piece.encode())
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """See :meth:`Tokenizer.decode`; broken UTF-8 becomes the replacement character."""
        pieces = [SPECIAL_TOKENS[i - 256].encode() if i >= 256 else bytes([i]) for i in ids]
        return b"".join(pieces).decode(errors="replace")

    def save(self, folder: str | Path) -> None:
        """Nothing to write: the vocabulary is fixed."""


#: What the small model's free ids stand for, in this order from 262 on: tags, what stands between numbers of a place,
#: tens (0 to 100) and units (0 to 9) of such a number, and frequent words. Checkpoints depend on it: append only.
TAGS = ("<point>", "</point>", "<box>", "</box>", "<ref>", "</ref>")
_BETWEEN = ("[[", "], [", "]]", ", ")
_TENS, _UNITS = 101, 10


class AnswerTokenizer(ByteTokenizer):
    """The byte tokenizer with tokens for places and frequent words: of the small model's questions and answers, and of
    its instructions where they name one of many things.

    A number of a place (0 to 1000, inside a point or box block) is two tokens, tens and units, so that its first token
    says it to a hundredth of the image. Everything else that is not listed is bytes.

    Example:
        >>> AnswerTokenizer().encode("<point>[[512, 7]]</point>")
        [262, 268, 323, 375, 271, 272, 380, 270, 263]
    """

    _first_between = ByteTokenizer.vocab_size + len(TAGS)
    _first_tens = _first_between + len(_BETWEEN)
    _first_unit = _first_tens + _TENS
    _first_word = _first_unit + _UNITS
    vocab_size = _first_word + len(WORDS)
    #: Ids of the tens of a place's number, from 0 to 100: neighbours are a hundredth of the image apart.
    tens = range(_first_tens, _first_unit)

    _names = (*TAGS, *_BETWEEN)
    _numbers: ClassVar[dict[str, int]] = {name: ByteTokenizer.vocab_size + i for i, name in enumerate(_names)}
    _words: ClassVar[dict[str, int]] = dict(zip(WORDS, range(_first_word, vocab_size), strict=True))
    _piece = re.compile(
        "|".join(re.escape(one) for one in (*SPECIAL_TOKENS, POINTING_PROMPT, *_names)) + r"|\d+| ?[A-Za-z]+|.",
        re.DOTALL,
    )

    def encode(self, text: str) -> list[int]:
        """See :meth:`Tokenizer.encode`."""
        ids: list[int] = []
        in_place = False
        for piece in self._piece.findall(text):
            if piece in TAGS:
                in_place = piece in ("<point>", "<box>")
                ids.append(self._numbers[piece])
            elif piece in self._words:
                ids.append(self._words[piece])
            elif in_place and piece in self._numbers:
                ids.append(self._numbers[piece])
            elif in_place and piece.isascii() and piece.isdigit() and str(int(piece)) == piece and int(piece) <= 1000:
                ids += [self._first_tens + int(piece) // 10, self._first_unit + int(piece) % 10]
            else:
                ids += super().encode(piece)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """See :meth:`Tokenizer.decode`; tens without units are those of a cut answer."""
        text, plain = "", list[int]()
        for number, token in enumerate(ids):
            if token < ByteTokenizer.vocab_size:
                plain.append(token)
                continue
            text, plain = text + super().decode(plain), []
            follows = number + 1 < len(ids) and 0 <= ids[number + 1] - self._first_unit < _UNITS
            text += self._text(token, follows)
        return text + super().decode(plain)

    def _text(self, token: int, unit_follows: bool) -> str:
        if token < self._first_tens:
            return self._names[token - ByteTokenizer.vocab_size]
        if token < self._first_unit:
            tens = token - self._first_tens
            return str(tens if unit_follows and tens else "" if unit_follows else 10 * tens)
        if token < self._first_word:
            return str(token - self._first_unit)
        return WORDS[token - self._first_word] if token < self.vocab_size else ""


class QwenTokenizer:
    """InternVL3's tokenizer, read by ``transformers`` from a folder with ``vocab.json`` and ``merges.txt``.

    Raises:
        MissingAssetError: if the folder lacks these files or their vocabulary lacks the image tokens.
    """

    def __init__(self, folder: str | Path) -> None:
        path = Path(folder)
        if not has_qwen_files(path):
            raise MissingAssetError(
                f"{path} should hold a Qwen2 tokenizer (tokenizer.json, or vocab.json and merges.txt); it does not. "
                f"Copy the tokenizer files of OpenGVLab/InternVL3-2B there, or give their folder with agent.tokenizer=."
            )
        self._tokenizer = _read(path)
        known = self._tokenizer.get_vocab()
        missing = [token for token in SPECIAL_TOKENS if token not in known]
        if missing:
            raise MissingAssetError(
                f"The tokenizer in {path} should know {', '.join(SPECIAL_TOKENS)}; it lacks {', '.join(missing)}. "
                f"Use the tokenizer files of an InternVL3 model, added_tokens.json included."
            )
        self.pad_id, self.end_id, self.image_id = (int(known[token]) for token in (PAD, IM_END, IMAGE))
        self.vocab_size = len(self._tokenizer)

    def encode(self, text: str) -> list[int]:
        """See :meth:`Tokenizer.encode`."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """See :meth:`Tokenizer.decode`."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def save(self, folder: str | Path) -> None:
        """See :meth:`Tokenizer.save`."""
        with storing_together(Path(folder)) as files:
            self._tokenizer.save_pretrained(str(files))


def _read(path: Path) -> Any:
    # Imported here: the import takes seconds and the small model does without it.
    from transformers import Qwen2Tokenizer  # noqa: PLC0415

    try:
        # Beside a config.json that is not its own, transformers would take the tokenizer for a faulty Mistral one.
        return Qwen2Tokenizer.from_pretrained(str(path), local_files_only=True, fix_mistral_regex=False)
    except Exception as error:  # the tokenizers library raises bare exceptions on damaged files
        raise MissingAssetError(
            f"The tokenizer files in {path} should be those of a Qwen2 tokenizer; reading them gave: {error}. "
            f"Copy them again."
        ) from error


def has_qwen_files(folder: Path) -> bool:
    """True if a folder holds a tokenizer that :class:`QwenTokenizer` can read."""
    return (folder / "tokenizer.json").is_file() or all((folder / f).is_file() for f in ("vocab.json", "merges.txt"))


#: Tokenizers that need no files, by the name that a checkpoint's ``processor.json`` gives them.
BUILT_IN: dict[str, type[ByteTokenizer]] = {"bytes": ByteTokenizer, "words": AnswerTokenizer}


def load_tokenizer(source: str | Path) -> Tokenizer:
    """A name of :data:`BUILT_IN`, or a folder -> :class:`QwenTokenizer`."""
    built_in = BUILT_IN.get(str(source))
    return QwenTokenizer(source) if built_in is None else built_in()


def kind_of(tokenizer: Tokenizer) -> str:
    """The name of :data:`BUILT_IN`, else ``"qwen"``."""
    return next((name for name, kind in BUILT_IN.items() if type(tokenizer) is kind), "qwen")
