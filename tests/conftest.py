"""Options and fixtures shared by all tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from vlaser_gym.envs import tasks
from vlaser_gym.envs.tasks.put_on import PutOnTask
from vlaser_gym.storage import files, places

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--shared",
        default="../shared",
        help="folder with recordings of the original simulator (golden/) and the asset pack (assets/)",
    )
    parser.addoption(
        "--neighbours",
        help="folder of virtual environments with other projects' packages, named as the files in tests/neighbours/; "
        "those that are missing are made there; without it they are made anew for each session",
    )


def pytest_configure() -> None:
    """A shell that starts pytest in the background lets it ignore Ctrl-C, whose effects some tests are about."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared(request: pytest.FixtureRequest) -> Path:
    """The folder given by --shared. Locally its absence skips the test; in CI it fails it."""
    path = Path(request.config.getoption("--shared"))
    path = path if path.is_absolute() else (ROOT / path).resolve()
    if not (path / "golden").is_dir():
        message = f"recordings of the original simulator not found in {path}; give their folder with --shared PATH"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    return shared / "golden" / "simplerenv"


@pytest.fixture(scope="session")
def neighbour(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``neighbour("openpi")``: the interpreter of an environment of its own, with what openpi.txt names.

    ``beside=True``: what is installed here, this gym too, is found there behind its own packages. ``version="3.12"``:
    the Python that it needs, if it is not this one.
    """
    given = request.config.getoption("--neighbours")
    folder = tmp_path_factory.mktemp("neighbours") if given is None else Path(given).absolute()

    def interpreter(name: str, beside: bool = False, version: str | None = None) -> Path:
        python = folder / name / "bin" / "python"
        if not python.exists():
            maker = sys.executable if version is None else shutil.which(f"python{version}")
            if maker is None:
                pytest.skip(f"{name} needs Python {version}, which is not on the path; give its folder by --neighbours")
            subprocess.run([maker, "-m", "venv", folder / name], check=True)
            needs = ROOT / "tests" / "neighbours" / f"{name}.txt"
            subprocess.run([python, "-m", "pip", "install", "-q", "-r", needs], check=True, cwd=ROOT)
        (packages,) = (folder / name).glob("lib/python*/site-packages")
        (packages / "beside.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n" if beside else "")
        return python

    return interpreter


@pytest.fixture(autouse=True)
def no_task_stays() -> Iterator[None]:
    """Tasks that a test adds, and their ids at Gymnasium, are gone behind it."""
    added, ids = dict(tasks._ADDED), set(gymnasium.registry)
    yield
    tasks._ADDED.clear()
    tasks._ADDED.update(added)
    for name in set(gymnasium.registry) - ids:
        del gymnasium.registry[name]


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test switches the power off; thousands of waits for the disk would take a good part of a run."""
    monkeypatch.setattr(files, "bring_to_disk", lambda file: file.stat())


@pytest.fixture(autouse=True)
def no_pictures_in_the_users_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setattr(places, "user_cache", lambda: cache)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, tuple[int, ...]]], None]:
    """``script({"success": (5, 6)})``: success after the 5th and 6th control step of every episode, nothing else.

    Successes come without a good policy this way.
    """

    def install(timeline: Mapping[str, tuple[int, ...]]) -> None:
        def evaluate(self: PutOnTask, scene: Any, memory: Any) -> tuple[Any, Any]:
            return {name: np.isin(scene.elapsed, timeline.get(name, ())) for name in self.flags}, memory

        monkeypatch.setattr(PutOnTask, "evaluate", evaluate)

    return install
