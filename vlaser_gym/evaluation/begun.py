"""The initial state that a stored episode began with: its layout's, or what a perturbation made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vlaser_gym.envs.engines import Placement
from vlaser_gym.envs.perturbations import get_perturbation
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.evaluation.records import address_of


def placement_of(record: Mapping[str, Any]) -> Placement:
    """Objects, light, cameras and the robot's start of a record's episode."""
    address, task = address_of(record), get_task(record["task"])
    layout = task.layout(address.layout, address.variant)
    start = np.array(layout.qpos or get_setup(task.robot_setup).qpos)
    placement = Placement(task, address.variant, layout, start, address.layout)
    if "perturb" not in record:
        return placement
    perturbation = get_perturbation(record["perturb"])
    return perturbation.place(placement, perturbation.moment(address))
