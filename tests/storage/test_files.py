from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from killed import contents, every_point

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


def test_two_writers_of_one_file_do_not_share_a_temporary(tmp_path: Path) -> None:
    file = tmp_path / "a"
    with appearing(file) as one, appearing(file) as other:
        one.write_bytes(b"one")
        other.write_bytes(b"other")
    assert file.read_bytes() == b"one", "whoever is last; neither is a mixture"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_private_file_gets_the_rights_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    with appearing(tmp_path / "secret") as partial:
        partial.unlink()
        os.close(os.open(partial, os.O_CREAT | os.O_WRONLY, 0o600))
    modes = {path.name: path.stat().st_mode for path in tmp_path.iterdir()}
    assert modes["secret"] == modes["plain"]


def test_leftovers_of_every_version_go_and_nothing_else(tmp_path: Path) -> None:
    left = ["config.yaml.tmp", "model.safetensors.4711.tmp", "deep/trainer.pt.0a1b2c3d.tmp", "000300.0a1b2c3d.tmp/x"]
    kept = ["notes.tmp", "a.json", "deep/0a1b2c3d", "claimed/a.json.0a1b2c3d.tmp", "claimed/.lock"]
    for name in (*left, *kept):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    files.remove_leftovers(tmp_path)
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == set(kept)


def test_a_folder_takes_the_place_of_another_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    for text in ("old", "new"):
        with files.appearing_folder(folder) as partial:
            (partial / text).write_text(text)
            assert folder.exists() == (text == "new")
    assert [path.name for path in folder.iterdir()] == ["new"]
    with suppress(KeyError), files.appearing_folder(folder) as partial:
        raise KeyError
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["policy", "policy/new"]


def generation_of(folder: Path) -> int:
    """What all three files say, read as a reader does."""
    found = {name: files.committed(folder / name) for name in ("model", "statistics", "memory")}
    said = {file.read_text() if file.is_file() else "0" * 100 for file in found.values()}
    assert len(said) == 1, said
    return int(said.pop())


def store_generations(folder: Path) -> None:
    """Each tells the next one which it is; a mixture is found by the writer that comes after a death."""
    for generation in range(generation_of(folder) + 1, 3):
        with files.storing_together(folder) as partial:
            for name in ("model", "statistics", "memory"):
                (partial / name).write_text(f"{generation:0100d}")
    files.remove_leftovers(folder)


def test_files_that_belong_together_survive_death_at_every_point_together(tmp_path: Path) -> None:
    assert every_point(store_generations, tmp_path, contents) > 20


def test_files_on_their_way_are_read_and_brought_to_their_places(tmp_path: Path) -> None:
    store_generations(tmp_path)
    (tmp_path / ".together").mkdir()
    (tmp_path / "model").write_text("4")
    for name in ("statistics", "memory"):
        (tmp_path / ".together" / name).write_text("4")
    assert generation_of(tmp_path) == 4
    files.remove_leftovers(tmp_path)
    assert contents(tmp_path) == dict.fromkeys(("memory", "model", "statistics"), b"4")
