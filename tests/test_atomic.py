"""Files are whole or not there, and one module sees to it."""

from __future__ import annotations

import ast
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from vlaser_gym import atomic
from vlaser_gym.atomic import appearing, write_whole

PACKAGE = Path(atomic.__file__).parent
#: A download that was cut goes on where it stopped: what is there of it has to stay after an error.
RESUMABLE = PACKAGE / "envs/assets/transfer.py"


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_appears_when_it_is_whole(tmp_path: Path, shared: bool) -> None:
    file = tmp_path / "a.json"
    write_whole(file, b"old", shared=shared)
    with appearing(file, shared=shared) as partial:
        partial.write_bytes(b"new")
        assert file.read_bytes() == b"old"
    assert file.read_bytes() == b"new"
    with suppress(KeyError), appearing(file, shared=shared) as partial:
        partial.write_bytes(b"half")
        raise KeyError
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("a.json", b"new")]


def test_several_write_a_shared_file_at_once(tmp_path: Path) -> None:
    file = tmp_path / "cache"
    with ExitStack() as stack:
        partials = [stack.enter_context(appearing(file, shared=True)) for _ in range(3)]
        for number, partial in enumerate(partials):
            partial.write_text(str(number))
        assert len(set(partials)) == 3
    assert file.read_text() == "0"  # left last
    assert list(tmp_path.iterdir()) == [file]


def test_threads_that_keep_the_same_file_leave_one_whole(tmp_path: Path) -> None:
    file, start = tmp_path / "cache", threading.Barrier(8)

    def write(byte: bytes) -> None:
        start.wait()
        for _ in range(20):
            write_whole(file, byte * 1000, sync=False, shared=True)

    threads = [threading.Thread(target=write, args=(bytes([65 + i]),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    data = file.read_bytes()
    assert data in {bytes([65 + i]) * 1000 for i in range(8)}
    assert list(tmp_path.iterdir()) == [file]


def test_it_waits_for_the_disk_before_the_file_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, seen = tmp_path / "a", []
    monkeypatch.setattr(atomic, "bring_to_disk", lambda path: seen.append((path.read_bytes(), file.exists())))
    write_whole(file, b"new", sync=False)
    assert seen == []
    file.unlink()
    write_whole(file, b"new")
    assert seen == [(b"new", False)]


def renames(node: ast.AST) -> bool:
    """``os.replace``, ``os.rename``, ``path.replace(target)``, ``path.rename(target)``; not what strings do."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    by_os = isinstance(node.func.value, ast.Name) and node.func.value.id == "os"
    return node.func.attr in ("replace", "rename") and (by_os or (len(node.args) == 1 and not node.keywords))


def test_no_other_module_gives_a_file_its_name() -> None:
    found = {
        file
        for file in PACKAGE.rglob("*.py")
        if any(renames(node) for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    }
    assert found == {PACKAGE / "atomic.py", RESUMABLE}
