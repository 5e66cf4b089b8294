"""An interpreter in which the stand-in for SimplerEnv can be imported."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STAND_IN = Path(__file__).parent / "stand_in"


def make_interpreter(folder: Path, *, faults: Mapping[str, str] | None = None, **variables: Any) -> Path:
    """A script that runs Python with the stand-in on its path; calls are logged in ``folder/log``."""
    log = folder / "log"
    log.mkdir(parents=True, exist_ok=True)
    settings = {
        "PYTHONPATH": STAND_IN,
        "STAND_IN_LOG": log,
        "STAND_IN_FAULTS": json.dumps(faults or {}),
        **variables,
    }
    words = " ".join(f"{name}={shlex.quote(str(value))}" for name, value in settings.items())
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nexec env {words} {shlex.quote(sys.executable)} "$@"\n')
    script.chmod(0o755)
    return script


def calls(folder: Path) -> list[dict[str, Any]]:
    """What the stand-in was asked, worker after worker."""
    files = sorted((folder / "log").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]
