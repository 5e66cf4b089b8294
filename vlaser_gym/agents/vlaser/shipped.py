"""Policies that come with the package, by the names that stand for them wherever a checkpoint is asked for."""

from __future__ import annotations

from pathlib import Path

from vlaser_gym.storage.hub import local_folder

#: Folders of weights, one of each name.
SHIPPED = Path(__file__).parent / "weights"
SHIPPED_NAMES = ("nano", "nano-sft")


def shipped_or_path(checkpoint: str) -> str:
    """The folder of a policy that comes with the package, by its name, or of one on the Hugging Face hub, by its.

    Anything else is a path, whether there is something or not.
    """
    return str(SHIPPED / checkpoint) if checkpoint in SHIPPED_NAMES else str(local_folder(checkpoint, "checkpoint"))
