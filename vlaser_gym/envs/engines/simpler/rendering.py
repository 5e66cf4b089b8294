"""Images of recorded states, made by the original itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlaser_gym.envs.engines.base import Placement
from vlaser_gym.envs.engines.simpler.engine import SimplerEngine
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.envs.tasks.base import Layout, Task
from vlaser_gym.errors import InvalidConfigError


class SimplerRenderer:
    """Renderer with one worker. States are named as :meth:`Lane.state` names them.

    Args:
        options: keyword arguments of :class:`SimplerEngine`.

    Raises:
        InvalidConfigError: if the interpreter does not exist or cannot import ``simpler_env``.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._engine = SimplerEngine(1, **options)
        self._shown: tuple[str, str, Mapping[str, ArrayLike]] | None = None

    def frame(self, task: str, variant: str, state: Mapping[str, ArrayLike]) -> NDArray[np.uint8]:
        """``[H, W, 3]`` image of a state."""
        self._show(task, variant, state)
        return np.asarray(self._engine.images(np.zeros(1, np.int64))[0])

    def foreground(self, task: str, variant: str, state: Mapping[str, ArrayLike]) -> NDArray[np.bool_]:
        """``[H, W]``: where the image shows robot, objects or cabinet, not the photograph."""
        self._show(task, variant, state)
        return np.asarray(self._engine.foreground(np.zeros(1, np.int64))[0])

    def close(self) -> None:
        """Terminate the render process."""
        self._engine.close()

    def _show(self, name: str, variant: str, state: Mapping[str, ArrayLike]) -> None:
        """Begin the nearest episode and set the state, unless that is what was shown last."""
        last = self._shown
        if last is not None and last[:2] == (name, variant) and last[2] is state:
            return
        task = get_task(name)
        placement = Placement(task, variant, layout_of(task, variant, state), np.asarray(state["qpos"], np.float64))
        self._engine.place([0], [placement])
        self._shown = name, variant, state


def layout_of(task: Task, variant: str, state: Mapping[str, ArrayLike]) -> Layout:
    """A layout in which bodies, drawers and robot are where a state has them; else that of the nearest in the grid.

    Raises:
        InvalidConfigError: if no layout of the grid has the state's bodies.
    """
    layouts = [task.layout(f"grid:{index}", variant) for index in range(task.num_layouts)]
    bodies = [name.removeprefix("object/") for name in state if name.startswith("object/")]
    held = [layout for layout in layouts if {body.name for body in task.objects_of(layout.cast)} == set(bodies)]
    if not held:
        raise InvalidConfigError(f"{task.name} has no layout of the bodies {', '.join(bodies) or 'none'}.")
    moved = [_moved(task, layout, state) for layout in held]
    return moved[int(np.argmin([_apart(one, other) for one, other in zip(moved, held, strict=True)]))]


def _moved(task: Task, layout: Layout, state: Mapping[str, ArrayLike]) -> Layout:
    poses = [np.asarray(state[f"object/{body.name}"], np.float64) for body in task.objects_of(layout.cast)]
    joints = {name: float(np.asarray(state.get(f"joint/{name}", value))) for name, value in layout.joints.items()}
    base = state.get("base_pose", layout.base_pose)
    return replace(
        layout,
        object_pose=np.array(poses).reshape(-1, 7),
        joints=joints,
        base_pose=None if base is None else tuple(np.asarray(base, np.float64).tolist()),
    )


def _apart(one: Layout, other: Layout) -> float:
    """The summed distance between the bodies and robots of two layouts (m)."""
    places = np.abs(one.object_pose[:, :3] - other.object_pose[:, :3]).sum()
    if one.base_pose is None or other.base_pose is None:
        return float(places)
    return float(places + np.abs(np.subtract(one.base_pose, other.base_pose)).sum())
