"""Images of recorded states, drawn by SAPIEN in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlaser_gym.envs.assets import AssetPack
from vlaser_gym.envs.engines.maniskill.engine import installed_version, start_worker
from vlaser_gym.envs.engines.maniskill.start import SceneKey, Start
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import get_task


class SapienRenderer:
    """States are named as :meth:`Lane.state` names them.

    Args:
        assets: directory of the asset pack; None for the user's cache.

    Raises:
        MissingAssetError: if there is no asset pack.
        InvalidConfigError: if the extra ``maniskill`` is not installed.
    """

    def __init__(self, assets: str | None = None) -> None:
        installed_version()
        directory = AssetPack(assets).directory.resolve()
        self._worker = start_worker()
        self._worker.ask("open", str(directory))

    def frame(self, task: str, variant: str, state: Mapping[str, ArrayLike]) -> NDArray[np.uint8]:
        """``[H, W, 3]`` image of a state."""
        return np.asarray(self._worker.ask("show", _start(task, variant, state))[0])

    def foreground(self, task: str, variant: str, state: Mapping[str, ArrayLike]) -> NDArray[np.bool_]:
        """``[H, W]``: where the image shows robot, objects or cabinet, not the photograph."""
        return np.asarray(self._worker.ask("show", _start(task, variant, state))[1])

    def close(self) -> None:
        """Terminate the render process."""
        self._worker.close()


def _start(task_name: str, variant: str, state: Mapping[str, ArrayLike]) -> Start:
    task = get_task(task_name)
    prefix = "object/"
    names = [name.removeprefix(prefix) for name in state if name.startswith(prefix)]
    cast = "+".join(names) if task.layout("grid:0", variant).cast else ""
    poses = [np.asarray(state[prefix + spec.name], np.float64) for spec in task.objects_of(cast)]
    base = state.get("base_pose", get_setup(task.robot_setup).base_pose)
    return Start(
        SceneKey(task_name, variant, cast),
        np.asarray(state["qpos"], np.float64),
        np.array(poses, np.float64).reshape(-1, 7),
        {n.removeprefix("joint/"): float(np.asarray(v)) for n, v in state.items() if n.startswith("joint/")},
        tuple(np.asarray(base, np.float64).tolist()),
    )
