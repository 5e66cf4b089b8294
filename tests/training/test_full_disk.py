"""Disks that take no more: one sentence, nothing lost, and the same command goes on.

A forked child may write files up to a size only, at which the system refuses as it does on a full disk. Each file of an
undisturbed run is in turn the first that does not fit, whole or by half. ``tests/evaluation/test_faults.py`` has the
same of an evaluation, and a disk that is really full.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from killed import contents
from test_killed_writers import end_of, no_pictures, train, trainer_of, write_data_set  # noqa: F401  (a fixture)

from vlaser_gym.errors import StorageError

_REFUSED, _FAILED = 3, 4


def end_with_small_files(work: Callable[[Path], Any], folder: Path, size: int) -> str | None:
    """Run ``work(folder)`` in a process whose files may have so many bytes; its sentence, if it gave one."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 0
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            work(folder)
        except StorageError as error:
            os.write(writing, str(error).encode())
            status = _REFUSED
        except BaseException:
            os.write(writing, traceback.format_exc().encode())
            status = _FAILED
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, _REFUSED), said
    return said if status else None


def every_file_too_large(
    work: Callable[[Path], Any], base: Path, state: Callable[[Path], Any], prepare: Callable[[Path], Any] = Path.mkdir
) -> list[str]:
    """The sentences; afterwards the same work goes on and ends as if nothing had been."""
    whole = base / "whole"
    prepare(whole)
    work(whole)
    wanted = state(whole)
    sizes = {file.stat().st_size for file in whole.rglob("*") if file.is_file()}
    sentences = []
    for limit in sorted({part for size in sizes for part in (size // 2, size - 1) if size > 1}):
        folder = base / f"{limit}"
        prepare(folder)
        said = end_with_small_files(work, folder, limit)
        if said is not None:
            sentences.append(said)
        work(folder)
        assert state(folder) == wanted, limit
        shutil.rmtree(folder)
    return sentences


def check_sentences(sentences: list[str], place: str, remedy: str) -> None:
    assert len(sentences) > 2
    for said in sentences:
        assert "\n" not in said
        assert place in said
        assert "File too large" in said or "space" in said, said
        assert re.search(remedy, said), said


@pytest.mark.slow
def test_a_data_set_on_a_full_disk(tmp_path):
    check_sentences(every_file_too_large(write_data_set, tmp_path, contents), "set", "stored episodes are kept")


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["sft", "ppo", "dpo"])
def test_a_trainer_on_a_full_disk(tmp_path, algo):
    make, prepare = trainer_of(algo, tmp_path)
    (tmp_path / "runs").mkdir()
    sentences = every_file_too_large(train(make), tmp_path / "runs", end_of, prepare)
    remedy = "make space there|choose a writable place with enough space"
    check_sentences(sentences, str(tmp_path / "runs"), remedy)
