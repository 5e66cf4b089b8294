"""Free memory by hand-written files of the kernel, and how many workers that is."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlaser_gym.envs.engines import lanes_that_fit
from vlaser_gym.envs.engines.simpler import memory


def files(folder: Path, available: int | None, limit: str = "max") -> tuple[Path, Path]:
    """A machine with so many kB, and a control group that uses 3 GB, of which 1 GB are files."""
    system = folder / "meminfo"
    if available is not None:
        system.write_text(f"MemTotal:  99999999 kB\nMemAvailable:   {available} kB\n")
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text("3000000000\n")
    (folder / "memory.stat").write_text("anon 5\ninactive_file 1000000000\n")
    return system, folder


@pytest.mark.parametrize(("available", "limit", "rendering", "blind"), [
    (8_000_000, "max", 7, 20),  # 8.19 GB
    (8_000_000, "5000000000", 2, 7),  # 5 - 3 + 1 = 3 GB
    (100, "max", 1, 1),
    (None, "max", 952380, 2500000),
])  # fmt: skip
def test_workers_that_fit(tmp_path: Path, available: int | None, limit: str, rendering: int, blind: int) -> None:
    where = files(tmp_path, available, limit)
    assert memory.lanes_that_fit(True, *where) == pytest.approx(rendering)
    assert memory.lanes_that_fit(False, *where) == pytest.approx(blind, rel=1e-2)


def test_other_engines_have_as_many_lanes_as_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda *_: 3.2e9)
    assert [lanes_that_fit("simpler", wanted, True) for wanted in (1, 3, 8)] == [1, 3, 3]
    assert lanes_that_fit("simpler", 8, False) == 8
    assert lanes_that_fit("mujoco", 64, True) == 64
