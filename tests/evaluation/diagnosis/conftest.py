from __future__ import annotations

import sys
from pathlib import Path

# The faulty expert stands beside these tests, the makers of stored runs one folder up.
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
