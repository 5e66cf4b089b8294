"""The policies that a run keeps: the last one, those of earlier steps, and the best by evaluation.

``checkpoint/`` is the last, ``checkpoints/000400/`` that of step 400, ``checkpoints/best/`` the best. Equal files are
stored once (hard links).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from vlaser_gym.storage.files import appearing_folder, temporary_for

POLICY_FOLDER = "checkpoint"
STEPS_FOLDER = "checkpoints"
BEST = "best"


class Checkpoints:
    """Checkpoints of one run.

    Args:
        path: run directory.
        keep: how many of earlier steps stay; ``None``: all.
    """

    def __init__(self, path: Path, keep: int | None) -> None:
        self.path, self.keep = path, keep

    @property
    def last(self) -> Path:
        """The last policy."""
        return self.path / POLICY_FOLDER

    def of_step(self, step: int) -> Path:
        """The policy of a step."""
        return self.path / STEPS_FOLDER / f"{step:06d}"

    def steps(self) -> list[Path]:
        """Policies of steps, the earliest first."""
        found = (self.path / STEPS_FOLDER).glob("[0-9]*")
        return sorted(folder for folder in found if folder.is_dir() and folder.name.isdecimal())

    def write(self, step: int, save: Callable[[Path], None]) -> None:
        """Store the policy of a step by ``save(folder)``; it becomes the last one."""
        folder = self.of_step(step)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with appearing_folder(folder) as partial:
            save(partial)
        _mirror(folder, self.last)
        for old in self.steps()[: -self.keep] if self.keep is not None else ():
            if old != folder:
                shutil.rmtree(old)

    def write_best(self) -> None:
        """The last policy is the best so far."""
        _mirror(self.last, self.path / STEPS_FOLDER / BEST)


def _mirror(source: Path, target: Path) -> None:
    """Make ``target`` hold the files of ``source``, each replaced as a whole, and nothing else."""
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        link = temporary_for(target / file.name)
        try:
            os.link(file, link)
        except OSError:  # a file system without hard links
            shutil.copyfile(file, link)
        link.replace(target / file.name)
    for file in target.iterdir():
        if not (source / file.name).exists():
            file.unlink()
