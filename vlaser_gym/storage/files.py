"""Files that are whole or not there, and what was begun and not ended."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from vlaser_gym.errors import StorageError
from vlaser_gym.storage.locks import LOCK_NAME, claim

#: Names of what is being written, or was when its process died; earlier versions had a process's number in their place,
#: or nothing.
_TEMPORARY = re.compile(r".*\.([0-9a-f]{8}|\d+|yaml|jsonl?|png|pt|safetensors|parquet|mp4|md|npy|html)\.tmp")
#: A folder of files that were stored together and are not in their places yet.
_ON_THEIR_WAY = ".together"


def is_temporary(path: Path) -> bool:
    """True if a name is that of a temporary file or folder."""
    return _TEMPORARY.fullmatch(path.name) is not None


def temporary_for(path: Path) -> Path:
    """A name beside a path that nothing has."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")


@contextmanager
def appearing(file: Path, sync: bool = True) -> Iterator[Path]:
    """A path to write to; what was written takes the place of ``file`` at the end, and nothing does after an error.

    Args:
        file: whose folder exists.
        sync: wait until the content is on the disk, so that even a power failure leaves the old file or the new one.
    """
    partial = temporary_for(file)
    try:
        partial.touch(exist_ok=False)
        mode = stat.S_IMODE(partial.stat().st_mode)
        yield partial
        # Some libraries write files that nobody else may read, whatever the user's mask says.
        partial.chmod(mode)
        if sync:
            bring_to_disk(partial)
        partial.replace(file)
        if sync:
            bring_entries_to_disk(file.parent)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def write_whole(file: Path, data: bytes, sync: bool = True) -> None:
    """Write a file of this content; see :func:`appearing`."""
    with appearing(file, sync) as partial:
        partial.write_bytes(data)


@contextmanager
def appearing_folder(folder: Path) -> Iterator[Path]:
    """Write a folder of files as :func:`appearing` writes a file; it takes the place of one that is there.

    Between two renames there is neither; whoever dies there has a writer that begins this folder again.
    """
    partial, former = temporary_for(folder), temporary_for(folder)
    try:
        partial.mkdir()
        yield partial
        for file in partial.iterdir():
            bring_to_disk(file)
        bring_entries_to_disk(partial)
        if folder.exists():
            folder.rename(former)
        partial.rename(folder)
        bring_entries_to_disk(folder.parent)
    finally:
        for left in (partial, former):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def storing_together(folder: Path) -> Iterator[Path]:
    """A folder to write files to that take their places in ``folder`` together: all of them or none.

    One rename decides. Whoever dies after it leaves files on their way: :func:`committed` reads them there, and
    :func:`remove_leftovers`, or the next to store files here, brings them to their places.
    """
    partial, ready = temporary_for(folder / "files"), folder / _ON_THEIR_WAY
    try:
        partial.mkdir()
        yield partial
        for file in sorted(partial.iterdir()):
            bring_to_disk(file)
        bring_entries_to_disk(partial)
        _bring_to_their_places(ready)
        partial.rename(ready)
        bring_entries_to_disk(folder)
        _bring_to_their_places(ready)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def committed(file: Path) -> Path:
    """The path of a file's content that :func:`storing_together` stored with others."""
    on_its_way = file.parent / _ON_THEIR_WAY / file.name
    return on_its_way if on_its_way.is_file() else file


def _bring_to_their_places(ready: Path) -> None:
    if not ready.is_dir():
        return
    for file in sorted(ready.iterdir()):
        file.replace(ready.parent / file.name)
    bring_entries_to_disk(ready.parent)
    ready.rmdir()


def remove_leftovers(folder: Path) -> None:
    """Remove the temporaries of writers that died, at any depth, and bring files that belong together to their places.

    Only for whoever has claimed the folder.

    Folders in it that somebody has claimed are left to whoever claims them next.
    """
    for path in sorted(folder.iterdir()):
        is_folder = path.is_dir() and not path.is_symlink()
        if is_temporary(path):
            if is_folder:
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        elif is_folder and path.name == _ON_THEIR_WAY:
            _bring_to_their_places(path)
        elif is_folder and not (path / LOCK_NAME).exists():
            remove_leftovers(path)


def probe(folder: Path) -> None:
    """Find out whether a folder can be made or written, and leave no trace.

    Raises:
        OSError: if not.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial = temporary_for(folder / "probe")
        trial.write_bytes(b"")
        trial.unlink()
    finally:
        for path in new:
            if path.is_dir():
                path.rmdir()


def check_output(key: str, path: str | None, folder: bool = False) -> None:
    """Find out whether a command's output can be written, before the work that it is about; leave no trace.

    Args:
        key: the command's key for it.
        path: of the file; ``None`` if there is to be none.
        folder: it is to be a folder.

    Raises:
        StorageError: if it cannot.
    """
    if path is None:
        return
    place = Path(path)
    with _refusing(key, path):
        if not folder and place.exists() and not place.is_file():
            raise StorageError(f"Cannot write {key}={path}: expected a file, found a folder or device; choose another.")
        probe(place if folder else place.parent)


def write_output(key: str, path: str, data: bytes) -> None:
    """Write a command's output as a whole, in a new folder if need be; one process at a time.

    Raises:
        StorageError: if it cannot be written.
    """
    file = Path(path)
    with _refusing(key, path):
        file.parent.mkdir(parents=True, exist_ok=True)
        with claim(file, f"another {key}="):
            for leftover in file.parent.iterdir():
                if leftover.name.startswith(f"{file.name}.") and is_temporary(leftover):
                    leftover.unlink(missing_ok=True)
            write_whole(file, data)


def _refusing(key: str, path: str) -> AbstractContextManager[None]:
    return storage_errors(f"Cannot write {key}={path}", "choose another")


def bring_to_disk(file: Path) -> None:
    """Wait until a file's content is on the disk."""
    # Windows syncs what may be written only.
    descriptor = os.open(file, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def bring_entries_to_disk(folder: Path) -> None:
    """Wait until a folder's names are on the disk, where a folder can be opened at all."""
    if os.name != "nt":
        bring_to_disk(folder)


@contextmanager
def storage_errors(what: str, remedy: str) -> Iterator[None]:
    """Turn what the file system dislikes into one sentence.

    Raises:
        StorageError: in place of an :class:`OSError`, also where torch's archive writer, which cannot close what it
            could not write, raises another error in its place.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        refused = error if isinstance(error, OSError) else error.__context__
        if not isinstance(refused, OSError):
            raise
        raise StorageError(f"{what}: {refused.strerror or refused}; {remedy}.") from error
