from __future__ import annotations

import sys
from pathlib import Path

# The makers of stored runs stand one folder up.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
