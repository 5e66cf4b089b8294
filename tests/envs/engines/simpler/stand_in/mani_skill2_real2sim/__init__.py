from pathlib import Path

ASSET_DIR = Path("/assets")
