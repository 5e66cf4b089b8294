"""The policies that a run keeps: the last one, those of earlier steps, and the best by evaluation.

``checkpoint/`` is the last, ``checkpoints/000400/`` that of step 400, ``checkpoints/best/`` the best. Equal files are
stored once (hard links).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from vlaser_gym.atomic import appearing

POLICY_FOLDER = "checkpoint"
STEPS_FOLDER = "checkpoints"
BEST = "best"


class Checkpoints:
    """Of one run.

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
        return sorted(folder for folder in (self.path / STEPS_FOLDER).glob("[0-9]*") if folder.is_dir())

    def write(self, step: int, save: Callable[[Path], None]) -> None:
        """Store the policy of a step by ``save(folder)``; it becomes the last one."""
        folder = self.of_step(step)
        folder.mkdir(parents=True, exist_ok=True)
        save(folder)
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
        with appearing(target / file.name, sync=False) as link:
            link.unlink(missing_ok=True)
            try:
                os.link(file, link)
            except OSError:  # a file system without hard links
                shutil.copyfile(file, link)
    for file in target.iterdir():
        if not (source / file.name).exists():
            file.unlink()
