"""Text to token ids: InternVL3's Qwen2 tokenizer from its files, and the byte tokenizer of the small model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

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
    """What prompts need of a tokenizer.

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
    """Whether a folder holds a tokenizer that :class:`QwenTokenizer` can read."""
    return (folder / "tokenizer.json").is_file() or all((folder / f).is_file() for f in ("vocab.json", "merges.txt"))


def load_tokenizer(source: str | Path) -> Tokenizer:
    """``"bytes"`` -> :class:`ByteTokenizer`; a folder -> :class:`QwenTokenizer`."""
    return ByteTokenizer() if str(source) == "bytes" else QwenTokenizer(source)
