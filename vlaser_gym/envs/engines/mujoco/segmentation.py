"""Segmentation: the label of the object at every pixel of an image.

Labels are the names that contact queries have for bodies and parts: ``link:<robot link>``, ``object:<name>``,
``part:<drawer>_drawer_<part>``; beside them ``part:cabinet_top`` and ``part:basket``. What has no label (table, walls,
floor) is 0. A segmentation holds indices into :func:`segment_labels` plus one.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import cabinet
from vlaser_gym.envs.tasks.base import Task

#: Shapes that are only seen and have labels of their own.
_NAMED_SHAPES = {"scene/cabinet_tabletop/visual": "part:cabinet_top", "sink/visual1": "part:basket"}


def segment_labels(task: Task, cast: str) -> tuple[str, ...]:
    """The labels of a scene; value ``i + 1`` of a segmentation stands for the ``i``-th of them."""
    links = (f"link:{link.name}" for link in get_setup(task.robot_setup).robot.links)
    objects = (f"object:{body.name}" for body in task.objects_of(cast))
    drawers = cabinet.DRAWERS if task.scenery == "google_cabinet" else ()
    parts = (f"part:{drawer}_drawer_{part.name}" for drawer in drawers for part in cabinet.DRAWER)
    return (*links, *objects, *parts, *_NAMED_SHAPES.values())


def label_values(model: mujoco.MjModel, labels: tuple[str, ...]) -> NDArray[np.uint8]:
    """The value of each geom of a compiled scene, ``[ngeom]``."""
    value = {label: number for number, label in enumerate(labels, 1)}
    values = np.zeros(model.ngeom, np.uint8)
    for index in range(model.ngeom):
        geom = model.geom(index)
        body = model.body(int(geom.bodyid[0])).name
        shape = _NAMED_SHAPES.get(geom.name, geom.name.removesuffix("/visual"))
        values[index] = value.get(shape, value.get(body, 0))
    return values


def drawn_values(scene: mujoco.MjvScene, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The value of each number that MuJoCo draws for a shape; 0, the background's number, has 0.

    Args:
        scene: what is drawn, brought up to date.
        values: of the model's geoms.
    """
    drawn = np.zeros(scene.ngeom + 1, np.uint8)
    for shape in scene.geoms[: scene.ngeom]:
        if shape.segid >= 0 and shape.objtype == mujoco.mjtObj.mjOBJ_GEOM:
            drawn[shape.segid + 1] = values[shape.objid]
    return drawn
