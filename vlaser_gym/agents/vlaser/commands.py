"""Conversion of a policy's chunks into the commands that a simulator executes, for scoring and learning alike.

The order is that of the evaluation loop of OpenGVLab/Vlaser (40d7821): its adapter turns every predicted action into a
command, stepping the gripper's memory once for each, and the loop cuts the chunk to the executed ones afterwards.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlaser_gym.agents.vlaser.gripper import Gripper, Lanes
from vlaser_gym.agents.vlaser.processor import Processor


def executed_actions(
    chunks: ArrayLike, processor: Processor, gripper: Gripper, lanes: Lanes, act_steps: int
) -> NDArray[np.float64]:
    """The first actions of each chunk in environment units; the gripper remembers all of them.

    Args:
        chunks: ``[N, H, 7]`` as the policy predicts them, normalised, not clamped.
        processor: the policy's.
        gripper: of the processor's robot, the environments reset at their episodes' start.
        lanes: ``[N]``, to which the chunks belong.
        act_steps: how many are executed, at most H.

    Returns:
        ``[N, act_steps, 7]``: translation (m), axis-angle (rad), gripper command of the simulator.
    """
    actions = processor.arm_actions(np.clip(np.asarray(chunks, np.float64), -1, 1))
    actions[..., 6] = gripper.commands(actions[..., 6], lanes)
    return actions[:, :act_steps]
