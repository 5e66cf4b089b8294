"""Writers that die at every write, rename and sync in turn, and are started again.

A forked child counts what it does to files below one folder and ends without a word at one of these points, as a
process does that the system kills; a second one goes on. Where a file was opened just before, it also dies with that
file cut in half. ``every_point`` compares what is there in the end with what an undisturbed writer leaves.
"""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from vlaser_gym.storage import files

_KILLED, _KILLED_AND_COULD_CUT = 77, 78
#: Audit events of Python and which of their arguments is the path.
_EVENTS = {"os.rename": 1, "os.remove": 0, "os.rmdir": 0, "os.mkdir": 0, "os.link": 1, "os.truncate": 0}

Work = Callable[[Path], Any]


class Killer:
    """Counts the points of this process, and ends it at one of them.

    Args:
        folder: only what happens in it counts.
        point: the number, from 0; ``None``: never.
        cut: a file that was opened for writing just before loses its second half.
    """

    def __init__(self, folder: Path, point: int | None, cut: bool) -> None:
        self.folder, self.point, self.cut = str(folder), point, cut
        self.count = 0
        self.opened: str | None = None
        self.busy = False
        self.write = os.write

    def install(self) -> None:
        sys.addaudithook(self.audit)
        files.bring_to_disk = lambda file: self.at("sync", str(file))  # type: ignore[assignment]
        os.write = self.half_written  # type: ignore[assignment]

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.busy:
            return
        if event == "open" and isinstance(arguments[0], str) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            self.at(event, arguments[0])
            if arguments[0].startswith(self.folder) and not arguments[2] & os.O_APPEND:
                self.opened = arguments[0]
        elif event in _EVENTS:
            # Relative to a folder's descriptor, as shutil.rmtree removes.
            self.at(event, str(arguments[_EVENTS[event]]), relative=not os.path.isabs(str(arguments[_EVENTS[event]])))

    def half_written(self, descriptor: int, data: bytes) -> int:
        if self.count == self.point:
            self.write(descriptor, data[: len(data) // 2])
        self.at("write", self.folder)
        return self.write(descriptor, data)

    def at(self, event: str, path: str, relative: bool = False) -> None:
        if not (relative or path.startswith(self.folder)):
            return
        if self.count == self.point:
            self.end()
        self.count += 1
        self.opened = None

    def end(self) -> None:
        self.busy = True
        can_cut = self.opened is not None and os.path.isfile(self.opened) and os.path.getsize(self.opened) > 1
        if self.cut and can_cut:
            os.truncate(self.opened, os.path.getsize(self.opened) // 2)
        os._exit(_KILLED_AND_COULD_CUT if can_cut else _KILLED)


def in_child(work: Work, folder: Path, point: int | None = None, cut: bool = False) -> int:
    """Run ``work(folder)`` in a forked process; its exit status."""
    child = os.fork()
    if not child:
        status = 1
        try:
            Killer(folder, point, cut).install()
            work(folder)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def every_point(
    work: Work, base: Path, state: Callable[[Path], Any], every: int = 1, first: int = 0, prepare: Work = Path.mkdir
) -> int:
    """Let a writer die at every point, or every n-th, and start it again.

    Args:
        work: writes into a folder, and goes on with what is there.
        base: empty folder for all of it.
        state: of a folder what must be the same in the end.
        every, first: which points.
        prepare: makes the folder as it is before the first start.

    Returns:
        How many deaths were tried.

    Raises:
        AssertionError: if what a writer that died left behind, and its successor found, comes out differently.
    """
    whole, imported = base / "whole", base / "imported"
    prepare(whole)
    assert in_child(partial(_work_and_tell, work, imported), whole) == 0
    # Children inherit what is imported here; optimisers alone import for seconds, and hundreds of children follow.
    for name in imported.read_text().split():
        with suppress(Exception):  # some names of sys.modules are no modules
            import_module(name)
    wanted, point, deaths = state(whole), first, 0
    while True:
        status = _die_and_go_on(work, base / f"{point}", point, False, state, wanted, prepare)
        if status == 0:
            return deaths
        deaths += 1
        if status == _KILLED_AND_COULD_CUT:
            _die_and_go_on(work, base / f"{point}-cut", point, True, state, wanted, prepare)
            deaths += 1
        point += every


def _work_and_tell(work: Work, imported: Path, folder: Path) -> None:
    work(folder)
    imported.write_text("\n".join(sys.modules))


def _die_and_go_on(
    work: Work, folder: Path, point: int, cut: bool, state: Callable[[Path], Any], wanted: Any, prepare: Work
) -> int:
    prepare(folder)
    status = in_child(work, folder, point, cut)
    assert status in (0, _KILLED, _KILLED_AND_COULD_CUT), f"point {point}"
    assert in_child(work, folder) == 0, f"the start after a death at point {point} (cut: {cut}) failed"
    found = state(folder)
    assert found.keys() == wanted.keys(), f"point {point} (cut: {cut}): {sorted(found.keys() ^ wanted.keys())}"
    differing = [name for name in wanted if found[name] != wanted[name]]
    assert not differing, f"point {point} (cut: {cut}): {differing}"
    shutil.rmtree(folder)
    return status


def contents(folder: Path, leave_out: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Every file's bytes by its name; folders, too, so that none is left over."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not name.startswith(leave_out):
            found[name] = path.read_bytes() if path.is_file() else b""
    return found
