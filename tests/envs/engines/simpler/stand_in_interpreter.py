"""An interpreter in which the stand-in for SimplerEnv can be imported."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STAND_IN = Path(__file__).parent / "stand_in"


def make_interpreter(
    folder: Path,
    *,
    faults: Mapping[str, str] | None = None,
    says: Mapping[str, Any] | None = None,
    sapien: str = "2.2.2",
    **variables: Any,
) -> Path:
    """A script that runs Python with the stand-in on its path; calls are logged in ``folder/log``.

    The stand-in is a copy, so that it is no checkout, with a version of SAPIEN.
    """
    log, site = folder / "log", folder / "site"
    log.mkdir(parents=True, exist_ok=True)
    shutil.copytree(STAND_IN, site, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    told = site / f"sapien-{sapien}.dist-info" / "METADATA"
    told.parent.mkdir(exist_ok=True)
    told.write_text(f"Metadata-Version: 2.1\nName: sapien\nVersion: {sapien}\n")
    settings = {
        "PYTHONPATH": site,
        "STAND_IN_LOG": log,
        "STAND_IN_FAULTS": json.dumps(faults or {}),
        "STAND_IN_SAYS": json.dumps(says or {}),
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
