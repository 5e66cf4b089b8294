"""The visual meshes of a robot description (URDF), by link."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.conventions import rotations
from vlaser_gym.envs import transforms

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Visual:
    """One mesh of a link.

    Attributes:
        link: its name.
        mesh: path relative to the description's folder.
        pose: ``[7]`` in the link's frame.
        scale: ``[3]``.
    """

    link: str
    mesh: str
    pose: Floats
    scale: Floats


def read_visuals(file: Path) -> Iterator[Visual]:
    """All meshes of a description that are seen."""
    for link in ElementTree.parse(file).getroot().findall("link"):
        for visual in link.findall("visual"):
            mesh = visual.find("geometry/mesh")
            if mesh is not None:
                name = posixpath.normpath(mesh.get("filename", ""))
                scale = _numbers(mesh.get("scale"), (1.0, 1.0, 1.0))
                origin = visual.find("origin")
                given: dict[str, str] = {} if origin is None else origin.attrib
                rotation = rotations.matrix_from_euler(_numbers(given.get("rpy"), (0.0, 0.0, 0.0)))
                pose = transforms.make_pose(_numbers(given.get("xyz"), (0.0, 0.0, 0.0)), rotation)
                yield Visual(link.get("name", ""), name, pose, scale)


def _numbers(text: str | None, default: tuple[float, float, float]) -> Floats:
    return np.array(default if text is None else text.split(), np.float64)
