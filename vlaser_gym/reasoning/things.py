"""The things of a scene that questions are about, their names and positions.

A thing is an object, a drawer's handle, the gripper, or the basket. Its name is the one that instructions use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vlaser_gym.envs.robots import RobotSetup
from vlaser_gym.envs.robots.kinematics import ArmKinematics
from vlaser_gym.envs.tasks import Task, cabinet
from vlaser_gym.envs.tasks.base import ObjectSpec
from vlaser_gym.envs.tasks.google_objects import spoken

GRIPPER, BASKET = "gripper", "yellow basket"
#: Names of the WidowX's objects in instructions; those of other objects follow from their models.
_NAMES = {
    "bridge_carrot_generated_modified": "carrot",
    "bridge_plate_objaverse_larger": "plate",
    "bridge_spoon_generated_modified": "spoon",
    "table_cloth_generated_shorter": "towel",
    "baked_green_cube_3cm": "green block",
    "baked_yellow_cube_3cm": "yellow block",
    "eggplant": "eggplant",
}
#: Bodies that are seen as scenery, or not at all.
_SCENERY = ("sink", "dummy_sink_target_plane")
#: Middle of the basket in the frame of the sink, m: of its rim (-73 to 115, -169 to -32 mm), half way down.
_BASKET_CENTRE = np.array([0.021, -0.1005, 0.075])
_HANDLE_PARTS = ("handle_bar", "handle_left", "handle_right")


@dataclass(frozen=True)
class Thing:
    """Something that questions are about.

    Attributes:
        name: as instructions have it.
        labels: of the segmentation's parts that show it.
        kind: ``object``, ``handle``, ``gripper`` or ``container``.
        body: number of the object among the scene's, -1 for others.
        com: centre of mass in the object's frame, m.
        moves: it may be elsewhere in another image of the same camera pose.
    """

    name: str
    labels: tuple[str, ...]
    kind: str = "object"
    body: int = -1
    com: tuple[float, float, float] = (0.0, 0.0, 0.0)
    moves: bool = True


def spoken_name(model: str) -> str:
    """A model's name in instructions.

    Example:
        >>> spoken_name("table_cloth_generated_shorter"), spoken_name("baked_apple_v2")
        ('towel', 'apple')
    """
    return _NAMES.get(model) or spoken(model)


def things_of(task: Task, cast: str, setup: RobotSetup) -> dict[str, Thing]:
    """The things of a scene by their names; of two objects with one name neither is a thing."""
    bodies = task.objects_of(cast)
    names = [spoken_name(body.name) for body in bodies]
    found = [
        _object(body, i) for i, body in enumerate(bodies) if body.name not in _SCENERY and names.count(names[i]) == 1
    ]
    if "sink" in names:
        found.append(Thing(BASKET, ("part:basket",), "container", names.index("sink"), tuple(_BASKET_CENTRE), False))
    if task.scenery == "google_cabinet":
        found += [_handle(drawer) for drawer in cabinet.DRAWERS]
    return {thing.name: thing for thing in (*found, Thing(GRIPPER, gripper_labels(setup), "gripper"))}


def _object(body: ObjectSpec, index: int) -> Thing:
    return Thing(spoken_name(body.name), (f"object:{body.name}",), "object", index, body.com)


def _handle(drawer: str) -> Thing:
    labels = tuple(f"part:{drawer}_drawer_{part}" for part in _HANDLE_PARTS)
    return Thing(handle_name(drawer), labels, "handle")


def handle_name(drawer: str) -> str:
    """``"top" -> "handle of the top drawer"``."""
    return f"handle of the {drawer} drawer"


def gripper_labels(setup: RobotSetup) -> tuple[str, ...]:
    """Labels of the last arm joint's link and of all that it carries."""
    robot = setup.robot
    carried = [ArmKinematics(robot).joints[-1].child]
    for joint in robot.joints:
        if joint.parent in carried:
            carried.append(joint.child)
    return tuple(f"link:{link}" for link in carried)


def thing_masks(
    things: Mapping[str, Thing], segmentation: NDArray[np.uint8], labels: tuple[str, ...]
) -> dict[str, NDArray[np.bool_]]:
    """The mask ``[H, W]`` of each thing; the basket covers what its wires enclose, except things before it."""
    values = {label: number for number, label in enumerate(labels, 1)}
    numbers = [[values[label] for label in thing.labels if label in values] for thing in things.values()]
    table = np.zeros(256, np.uint8)
    for index, shown in enumerate(numbers, 1):
        table[shown] = index
    pixels = table[segmentation]
    masks = {name: np.asarray(pixels == index) for index, name in enumerate(things, 1)}
    if BASKET in masks and masks[BASKET].any():
        behind = np.zeros(256, bool)
        behind[[0, values["object:sink"], values["part:basket"]]] = True
        corners = cv2.convexHull(np.argwhere(masks[BASKET])[:, ::-1].astype(np.int32))
        enclosed = cv2.fillConvexPoly(masks[BASKET].astype(np.uint8), corners, 1).astype(bool)
        masks[BASKET] = np.asarray(enclosed & behind[segmentation])
    return masks
