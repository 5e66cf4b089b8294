from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from vlaser_gym.errors import StorageError
from vlaser_gym.storage import locks
from vlaser_gym.storage.locks import claim, held

HOLD = "import sys; from pathlib import Path; from vlaser_gym.storage.locks import claim; claim(Path(sys.argv[1]), 'x')"


def test_who_holds_a_claim_is_told_without_what_a_terminal_would_obey(tmp_path: Path) -> None:
    with claim(tmp_path, "another") as held_claim:
        held_claim.path.write_text('{"pid": 7, "host": "a\\u001b[2Jb", "since": "now", "command": "c"}')
        with pytest.raises(StorageError, match=r"It is process 7 on a\?\[2Jb, begun now: c\.$"):
            claim(tmp_path, "another")
        held_claim.path.write_text("no such text")
        with pytest.raises(StorageError, match=r"choose another\.$"):
            claim(tmp_path, "another")
    assert not list(tmp_path.iterdir())


def test_the_claim_of_a_process_that_died_is_free_and_its_file_goes(tmp_path: Path) -> None:
    code = HOLD + "; import os; os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    with claim(tmp_path, "another"):
        pass
    assert not list(tmp_path.iterdir())


def test_files_of_one_folder_are_claimed_apart(tmp_path: Path) -> None:
    with claim(tmp_path / "a.json", "another"), claim(tmp_path / "b.json", "another"):
        assert {path.name for path in tmp_path.iterdir()} == {".a.json.lock", ".b.json.lock"}
        with pytest.raises(StorageError, match="is writing to"):
            claim(tmp_path / "a.json", "another")


def test_whoever_waits_is_told_once_and_goes_on(tmp_path: Path) -> None:
    first, told = claim(tmp_path, "another"), threading.Event()
    said: list[str] = []

    def wait(text: str) -> None:
        said.append(text)
        told.set()

    done: list[bool] = []
    thread = threading.Thread(target=lambda: (claim(tmp_path, "another", wait).release(), done.append(True)))
    thread.start()
    assert told.wait(10)
    assert not done
    first.release()
    thread.join(10)
    assert done
    assert len(said) == 1


def test_a_folder_made_for_nothing_does_not_stay(tmp_path: Path) -> None:
    with held(tmp_path / "a" / "b", "another"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not list(tmp_path.iterdir())


def test_without_fcntl_a_byte_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, whose call is stood in for: one holder, refused with the same sentence."""
    taken: set[int] = set()

    def locking(descriptor: int, mode: int, count: int) -> None:
        import os

        node = os.fstat(descriptor).st_ino
        if node in taken:
            raise PermissionError
        taken.add(node)

    windows = SimpleNamespace(locking=locking, LK_NBLCK=2)
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "import_module", lambda name: windows)
    first = claim(tmp_path, "another")
    with pytest.raises(StorageError, match="Another process is writing to"):
        claim(tmp_path, "another")
    first.release()
    assert not list(tmp_path.iterdir())


#: Windows has no fcntl; its own module is stood in for.
WITHOUT_FCNTL = """
import os, subprocess, sys, types  # subprocess first: by msvcrt it would know Windows
sys.modules["fcntl"] = None
sys.modules["msvcrt"] = types.SimpleNamespace(locking=lambda *_: None, LK_NBLCK=2)
"""


def run_without_fcntl(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_FCNTL + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_every_command_imports_where_there_is_no_fcntl() -> None:
    code = """
import importlib, pkgutil, vlaser_gym.commands
for module in pkgutil.iter_modules(vlaser_gym.commands.__path__):
    importlib.import_module(f"vlaser_gym.commands.{module.name}")
    print(module.name)
"""
    done = run_without_fcntl(code)
    assert done.returncode == 0, done.stderr
    assert {"eval", "train", "collect", "serve", "verify"} <= set(done.stdout.split())


@pytest.mark.slow
def test_an_evaluation_runs_where_there_is_no_fcntl(tmp_path: Path) -> None:
    code = "from vlaser_gym.cli import start; start('eval')"
    keys = ("agent=random", "task=widowx_stack_cube", "episodes=1", f"run={tmp_path}/run")
    done = run_without_fcntl(code, *keys)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "run/episodes.jsonl").read_text().splitlines()) == 1
    assert not (tmp_path / "run/.lock").exists()
