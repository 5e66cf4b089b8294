"""A directory of assets on this machine: where it is, what is in it, whether a file is what it should be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlaser_gym.envs.assets.manifest import MANIFEST, Manifest
from vlaser_gym.errors import MissingAssetError
from vlaser_gym.storage.places import user_cache

_MODELS, _PHOTOGRAPHS = "data/custom/models", "data/real_inpainting"
_STAGES, _ROBOTS = "data/hab2_bench_assets/stages", "mani_skill2_real2sim/assets/descriptions"
#: The original's order of preference. Stand-ins are called textured.glb, so a fetched textured.dae wins.
_LOOKS = ("textured.obj", "textured.dae", "textured.glb")
_REMEDY = "get it with `python -m vlaser_gym.assets fetch` (or `import DIR`), or use look=builtin"


def default_directory(manifest: Manifest = MANIFEST) -> Path:
    """The directory of fetched files: in the user's cache, named after the source's commit."""
    return user_cache() / f"simplerenv-{manifest.commit[:12]}"


@dataclass(frozen=True)
class Status:
    """The state of a directory compared with a manifest.

    Attributes:
        intact: paths that are there and right.
        missing, damaged: paths of known files that are absent, or present with other content.
        optional: paths of the manifest's unknown files that are absent.
    """

    intact: tuple[str, ...]
    missing: tuple[str, ...]
    damaged: tuple[str, ...]
    optional: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """True if every listed file is present and intact."""
        return not self.missing and not self.damaged


class AssetPack:
    """Read access to a directory of assets, every file checked when it is first asked for.

    Args:
        directory: with the files under their original relative paths; None for :func:`default_directory`.

    Raises:
        MissingAssetError: if there is no such directory, or it holds no assets.
    """

    def __init__(self, directory: str | Path | None = None, manifest: Manifest = MANIFEST) -> None:
        self.directory = Path(directory) if directory is not None else default_directory(manifest)
        self.manifest = manifest
        self._checked: set[str] = set()
        if not any((self.directory / top).is_dir() for top in ("data", "mani_skill2_real2sim")):
            raise MissingAssetError(
                f"The original's assets are not in {self.directory}: get them with `python -m vlaser_gym.assets fetch` "
                "(or `import DIR`), or use look=builtin."
            )

    def has(self, path: str) -> bool:
        """True if a file is present, intact or not."""
        return (self.directory / path).is_file()

    def file(self, path: str) -> Path:
        """A file of the manifest, checked.

        Raises:
            MissingAssetError: if it is absent, damaged, or not of the manifest.
        """
        place = self.directory / path
        if path not in self.manifest:
            raise MissingAssetError(f"{path} is not among the assets that this project knows.")
        if not place.is_file():
            raise MissingAssetError(f"The asset {path} is missing in {self.directory}: {_REMEDY}.")
        if path not in self._checked and not self.manifest.is_intact(path, place):
            raise MissingAssetError(f"The asset {path} in {self.directory} is damaged: {_REMEDY}.")
        self._checked.add(path)
        return place

    def model_look(self, model: str) -> Path | None:
        """The textured mesh of an object, or None where the directory holds none (then its collision mesh is shown).

        Raises:
            MissingAssetError: if a mesh that can be fetched is absent or damaged.
        """
        paths = [f"{_MODELS}/{model}/{name}" for name in _LOOKS]
        known = next((path for path in paths if path in self.manifest.files), None)
        found = next((path for path in paths if path in self.manifest and self.has(path)), known)
        return None if found is None else self.file(found)

    def model_collision(self, model: str) -> Path:
        """The collision mesh of an object, each group of it one convex hull."""
        return self.file(f"{_MODELS}/{model}/collision.obj")

    def stage(self, scene: str) -> Path | None:
        """The mesh of a scene, or None where the directory holds none (then a table of the right height is shown)."""
        path = f"{_STAGES}/{scene}.glb"
        return self.file(path) if path in self.manifest and self.has(path) else None

    def photograph(self, name: str) -> Path:
        """An image of a real scene (PNG)."""
        return self.file(f"{_PHOTOGRAPHS}/{name}")

    def station(self, name: str) -> Path:
        """The description of a cabinet (URDF)."""
        return self.file(f"data/custom/{name}.urdf")

    def robot(self, path: str) -> Path:
        """A file of a robot description, relative to the folder of all descriptions."""
        return self.file(f"{_ROBOTS}/{path}")

    def status(self) -> Status:
        """Reads and checks every file of the manifest."""
        return examine(self.directory, self.manifest)


def examine(directory: Path, manifest: Manifest = MANIFEST) -> Status:
    """Compare a directory with the manifest, reading every file; the directory need not exist."""
    intact: list[str] = []
    missing: list[str] = []
    damaged: list[str] = []
    for path in (*manifest.files, *manifest.stand_ins, *manifest.unknown):
        place = directory / path
        if place.is_file():
            (intact if manifest.is_intact(path, place) else damaged).append(path)
        elif path in manifest.files:
            missing.append(path)
    optional = tuple(path for path in manifest.unknown if not (directory / path).is_file())
    return Status(tuple(intact), tuple(missing), tuple(damaged), optional)
