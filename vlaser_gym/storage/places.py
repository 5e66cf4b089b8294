"""Default locations of files."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """The user's cache for this package: in ``~/.cache``, or where the system's variable says."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vlaser_gym"
