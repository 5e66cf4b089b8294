from __future__ import annotations

from pathlib import Path

import pytest
from stand_in_interpreter import make_interpreter


@pytest.fixture
def interpreter(tmp_path: Path) -> Path:
    """Python with the stand-in."""
    return make_interpreter(tmp_path)
