"""Photographs behind the foreground ("green screen").

A scene that is shown before a photograph has everything that is neither robot, object nor cabinet in one colour that
nothing else has, the key. The photograph goes there, pixel by pixel, as the original does with its segmentation.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlaser_gym.envs.assets import AssetPack
from vlaser_gym.envs.assets.photographs import read_photograph
from vlaser_gym.envs.tasks.base import Task

#: Magenta: unlit, MuJoCo shows it as these very bytes.
KEY = np.array([255, 0, 255], np.uint8)


class Backdrop:
    """The photographs of a task in a variant, read when they are first needed.

    Args:
        task, variant: of the catalogue.
        pack: where the photographs are.
        size: height and width of the images.
    """

    def __init__(self, task: Task, variant: str, pack: AssetPack, size: tuple[int, int]) -> None:
        self._task, self._variant, self._pack, self._size = task, variant, pack, size
        self._photographs: dict[str, NDArray[np.uint8]] = {}
        #: Names of the photographs by the robot's base: a task takes a while to tell.
        self._names: dict[bytes, str] = {}

    def put_behind(self, picture: NDArray[np.uint8], base_pose: ArrayLike | None = None) -> None:
        """Fill ``picture [H, W, 3]``, in place, where it has the key's colour; ``base_pose`` is the robot's.

        Raises:
            MissingAssetError: if the photograph is missing or damaged.
        """
        compose(picture, self._photograph(base_pose))

    def _photograph(self, base_pose: ArrayLike | None) -> NDArray[np.uint8]:
        place = b"" if base_pose is None else np.asarray(base_pose).tobytes()
        if place not in self._names:
            self._names[place] = self._task.photograph(self._variant, base_pose)
        name = self._names[place]
        if name not in self._photographs:
            self._photographs[name] = read_photograph(self._pack, name, self._size)
        return self._photographs[name]


def compose(picture: NDArray[np.uint8], photograph: NDArray[np.uint8]) -> None:
    """Put the photograph ``[H, W, 3]`` into ``picture [H, W, 3]``, in place, where that has the key's colour."""
    # OpenCV needs a tenth of numpy's time for this.
    shown = np.asarray(picture)
    cv2.copyTo(photograph, cv2.inRange(shown, KEY, KEY), shown)


def is_key(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The mask of the pixels that show the backdrop, ``[H, W]``."""
    return np.asarray(cv2.inRange(np.asarray(picture), KEY, KEY) > 0)
