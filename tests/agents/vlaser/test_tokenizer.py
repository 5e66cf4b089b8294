"""Both tokenizers: a small Qwen2 tokenizer made here, the byte tokenizer, and the real one by its golden ids."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import pytest

from vlaser_gym.agents.vlaser.tokenizer import (
    SPECIAL_TOKENS,
    ByteTokenizer,
    QwenTokenizer,
    load_tokenizer,
)
from vlaser_gym.errors import MissingAssetError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of a Qwen2 tokenizer with lower-case letters, space, newline, one merge and the special tokens."""
    path = tmp_path_factory.mktemp("tokenizer")
    letters = [*"abcdefghijklmnopqrstuvwxyz", "Ġ", "Ċ", "ca"]
    (path / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(letters)}))
    (path / "merges.txt").write_text("#version: 0.2\nc a\n")
    (path / "added_tokens.json").write_text(json.dumps({t: len(letters) + i for i, t in enumerate(SPECIAL_TOKENS)}))
    return path


def test_small_qwen_tokenizer_merges_and_keeps_specials_whole(folder: Path) -> None:
    tokenizer = QwenTokenizer(folder)
    assert tokenizer.encode("a can<IMG_CONTEXT>\n<|im_end|>") == [0, 26, 28, 13, 34, 27, 31]
    assert (tokenizer.pad_id, tokenizer.end_id, tokenizer.image_id, tokenizer.vocab_size) == (29, 31, 34, 35)
    assert tokenizer.decode([0, 26, 28, 13, 34, 31]) == "a can<IMG_CONTEXT><|im_end|>"


def test_saved_tokenizer_is_the_same(folder: Path, tmp_path: Path) -> None:
    tokenizer = QwenTokenizer(folder)
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    text = "<img>pick a can</img>\n"
    assert again.encode(text) == tokenizer.encode(text)
    assert again.vocab_size == tokenizer.vocab_size


def test_folder_without_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(MissingAssetError, match=r"vocab\.json and merges\.txt"):
        load_tokenizer(tmp_path)


def test_tokenizer_without_image_tokens(folder: Path, tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(MissingAssetError, match="<IMG_CONTEXT>"):
        load_tokenizer(tmp_path)


def test_damaged_tokenizer(folder: Path, tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt", "added_tokens.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "vocab.json").write_text('{"a": 0,')
    with pytest.raises(MissingAssetError, match="Copy them again"):
        load_tokenizer(tmp_path)


def test_bytes() -> None:
    tokenizer = load_tokenizer("bytes")
    assert isinstance(tokenizer, ByteTokenizer)
    ids = tokenizer.encode("<img><IMG_CONTEXT></img>né<|im_end|>")
    assert ids == [259, 261, 260, 110, 0xC3, 0xA9, 258]
    assert tokenizer.decode(ids) == "<img><IMG_CONTEXT></img>né<|im_end|>"
    assert tokenizer.vocab_size == 262
    assert max(tokenizer.encode("".join(SPECIAL_TOKENS))) == 261


@pytest.mark.golden
def test_real_tokenizer_ids_and_loading_time(shared: Path) -> None:
    import transformers  # noqa: F401  (its import is not the tokenizer's)

    start = time.process_time()
    tokenizer = QwenTokenizer(shared / "assets" / "internvl3_tokenizer")
    assert time.process_time() - start < 3
    assert (tokenizer.pad_id, tokenizer.end_id, tokenizer.image_id) == (151643, 151645, 151667)
    assert tokenizer.vocab_size == 151674
    specials = "<|im_start|><img></img><quad></quad><ref></ref><box></box>"
    assert tokenizer.encode(specials) == [151644, 151665, 151666, *range(151668, 151674)]


@pytest.mark.golden
def test_real_tokenizer_is_the_same_after_saving_and_loads_silently(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = QwenTokenizer(shared / "assets" / "internvl3_tokenizer")
    tokenizer.save(tmp_path)
    (tmp_path / "config.json").write_text('{"format": "of a policy"}')
    said: list[str] = []
    monkeypatch.setattr(logging.Logger, "callHandlers", lambda _, entry: said.append(entry.getMessage()))
    again = QwenTokenizer(tmp_path)
    assert said == []
    text = "<|im_start|>user\n<img><IMG_CONTEXT></img>\nMove the 7UP can's lid, don't spill 12 ml 你好.<|im_end|>\n"
    assert again.encode(text) == tokenizer.encode(text)
    assert (again.pad_id, again.image_id, again.vocab_size) == (151643, 151667, 151674)


def test_words_are_one_token_each_and_lose_nothing() -> None:
    tokenizer = load_tokenizer("words")
    text = "move blue plastic bottle near 7up can"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert len(ids) < len(text) < ByteTokenizer.vocab_size < max(ids)
    assert [tokenizer.decode([i]) for i in ids if i >= ByteTokenizer.vocab_size] == [
        " blue",
        " bottle",
        " near",
        " can",
    ]
