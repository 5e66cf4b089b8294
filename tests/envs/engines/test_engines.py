"""What can be said of an engine's settings before it is built."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from vlaser_gym.envs import engines
from vlaser_gym.envs.engines import check_counts
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.storage.interrupts import terminable


@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        ({"threads": "abc"}, "engine.threads must be a whole number from 0 on; got 'abc'."),
        ({"threads": -1}, "engine.threads must be a whole number from 0 on; got -1."),
        ({"threads": 1.0}, "engine.threads must be a whole number from 0 on; got 1.0."),
        ({"threads": True}, "engine.threads must be a whole number from 0 on; got True."),
        ({"threads": None}, "engine.threads must be a whole number from 0 on; got None."),
        ({"render_processes": 0}, "engine.render_processes must be a whole number from 1 on; got 0."),
        ({"processes": 0}, "engine.processes must be a whole number from 1 on; got 0."),
    ],
)
def test_what_is_no_number_of_threads_or_processes_is_refused(engine: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        check_counts({"name": "mujoco", **engine})
    assert str(caught.value) == sentence


def test_numbers_and_what_the_engine_chooses_itself_pass() -> None:
    check_counts({"name": "mujoco"})
    check_counts({"threads": 0, "render_processes": None, "processes": None})
    check_counts({"threads": 4, "render_processes": 1, "processes": 2})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_for_the_engine_s_import(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside a compiled module's import it became an ImportError with a traceback."""
    name = f"interrupting_{number}"
    body = f"import os\nos.kill(os.getpid(), {int(number)})\nfor _ in range(1000): pass\nEngine = int\n"
    (tmp_path / f"{name}.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    with terminable(), pytest.raises(KeyboardInterrupt):
        engines._find(f"{name}:Engine")
    assert sys.modules[name].Engine is int
