from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from vlaser_gym.storage import files
from vlaser_gym.storage.files import appearing, write_whole
from vlaser_gym.storage.locks import claim
from vlaser_gym.storage.syncer import Syncer


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_whole(file, b"old")
    with appearing(file) as partial:
        partial.write_bytes(b"new")
        assert file.read_bytes() == b"old"
    assert file.read_bytes() == b"new"
    with suppress(KeyError), appearing(file) as partial:
        partial.write_bytes(b"half")
        raise KeyError
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("a.json", b"new")]


def test_a_folder_is_claimed_once(tmp_path: Path) -> None:
    held = claim(tmp_path, "another")
    code = (
        "from pathlib import Path; from vlaser_gym.storage.locks import claim; "
        f"claim(Path({str(tmp_path)!r}), 'another run=')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"Another process is writing to {tmp_path}: wait for it or choose another run=." in done.stderr
    assert f"It is process {os.getpid()} on " in done.stderr, "who"
    held.release()
    claim(tmp_path, "another").release()


def test_files_reach_the_disk_in_order_each_after_its_last_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first waits at the disk; meanwhile three episodes end, and their common list is brought there once."""
    order: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def slow(file: Path) -> None:
        begun.set()
        go_on.wait(10)
        order.append(file.name)

    monkeypatch.setattr(files, "bring_to_disk", slow)
    syncer = Syncer()
    syncer.add(Path("0"), Path("list"))
    assert begun.wait(10)
    for name in "123":
        syncer.add(Path(name), Path("list"))
    assert order == []
    go_on.set()
    syncer.wait()
    assert order == ["0", "list", "1", "2", "3", "list"]
    syncer.close()


def test_a_disk_that_fails_is_told_at_the_next_occasion(tmp_path: Path) -> None:
    (tmp_path / "good").touch()
    syncer = Syncer()
    syncer.add(tmp_path / "good")
    syncer.wait()
    syncer.add(tmp_path / "bad")
    with pytest.raises(FileNotFoundError, match="bad"):
        syncer.wait()
    syncer.add(tmp_path / "good")
    syncer.add(tmp_path / "bad")
    with pytest.raises(FileNotFoundError, match="bad"):
        syncer.close()
    assert syncer.cpu_seconds >= 0
