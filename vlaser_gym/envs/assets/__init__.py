"""The asset pack: meshes, textures, robot descriptions and photographs of the original SimplerEnv.

The project holds none of these files, only a list of them with sizes and SHA-256 sums (``manifest.json``). Users fetch
them from the original's public repository: ``python -m vlaser_gym.assets``. Nothing here knows an engine.
"""

from vlaser_gym.envs.assets.manifest import MANIFEST, Entry, Manifest
from vlaser_gym.envs.assets.pack import AssetPack, Status, default_directory

__all__ = ["MANIFEST", "AssetPack", "Entry", "Manifest", "Status", "default_directory"]
