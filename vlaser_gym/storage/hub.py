"""Folders that are named on the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vlaser_gym.errors import MissingAssetError

#: ``ORG/NAME``, with a branch, tag or commit behind ``@``.
_NAME = re.compile(r"(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w./-]+))?")
#: Files of weights, which no repository is called.
_WEIGHTS = (".pt", ".safetensors", ".bin")
#: What policies and models are made of; no pickles.
FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja", "*.model", "README.md")


def is_hub_name(name: str | Path) -> bool:
    """True if a checkpoint's name can only be one on the hub: neither it nor its parent folder exists here."""
    text = str(name)
    is_one = isinstance(name, str) and _NAME.fullmatch(text) is not None and not text.endswith(_WEIGHTS)
    return is_one and not Path(text).exists() and not Path(text).parent.exists()


def local_folder(name: str | Path, key: str, files: Sequence[str] = FILES) -> Path:
    """A folder itself, or the files of ``ORG/NAME`` or ``ORG/NAME@REVISION`` on the hub, in its own cache.

    Args:
        name: what was given; if it can be no name on the hub it is a path, whether there is something or not.
        key: by which it was given, for errors.
        files: patterns of those that are wanted.

    Raises:
        MissingAssetError: if the hub has it not, or cannot be reached.
    """
    if not is_hub_name(name):
        return Path(name)
    found = _NAME.fullmatch(str(name))
    assert found is not None
    from huggingface_hub import snapshot_download  # noqa: PLC0415  (takes a moment, and few need it)

    with hub_errors(f"{key}={name} is no folder here, and the Hugging Face hub's repository of that name"):
        return Path(snapshot_download(found["repository"], revision=found["revision"], allow_patterns=list(files)))


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turn the errors of the hub's client into one sentence: unknown name, no network, no access, invalid name."""
    from huggingface_hub.errors import (  # noqa: PLC0415
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    # The client's own error is one of its transport's kind, whichever library that is, and one of the system's.
    bases = (base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception))
    kinds: tuple[type[Exception], ...] = (ValueError, *bases)
    try:
        yield
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise MissingAssetError(
            f"{what} cannot be had: the hub cannot be reached and it is not in the hub's cache here; connect this "
            "machine, or copy the folder and give its path."
        ) from error
    except kinds as error:
        said = (str(error).splitlines() or [""])[0][:200]
        raise MissingAssetError(
            f"{what} cannot be had ({type(error).__name__}: {said}): check name, network and rights (hf auth login), "
            "or give a folder's path."
        ) from error
