"""A small supervised run that fits into memory in one way or another."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from demonstrations import SIZE, tiny_config

from vlaser_gym.agents.vlaser.agent import nano_processor
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import ResizeImage
from vlaser_gym.agents.vlaser.trainable import TrainableVlaser
from vlaser_gym.evaluation.lerobot import LeRobotReader
from vlaser_gym.settings.algorithms import SftSettings
from vlaser_gym.training.data.demonstrations import Batches, Demonstrations
from vlaser_gym.training.distributed import ProcessGroup
from vlaser_gym.training.scaling import Scaling
from vlaser_gym.training.sft import SupervisedFineTuning
from vlaser_gym.training.trainer import RunOptions

SETTINGS = SftSettings(
    name="sft", steps=6, batch_size=8, learning_rate=3e-3, expert_learning_rate=3e-3, warmup=2, flow_samples=2,
    ema=0.9, augment="none",
)  # fmt: skip


def build(
    data: Path,
    path: Path,
    group: ProcessGroup | None = None,
    *,
    config: dict[str, Any] | None = None,
    scaling: dict[str, Any] | None = None,
    save_every: int = 100,
    **changes: Any,
) -> SupervisedFineTuning:
    """Fine-tuning of a policy of a few thousand parameters.

    Args:
        data: folder of a data set.
        path: run directory.
        group: processes that train together.
        config: changes of the policy's shape.
        scaling: fields of :class:`Scaling`.
        save_every: steps between two checkpoints.
        **changes: of :data:`SETTINGS`.
    """
    group = group or ProcessGroup()
    if not group.is_main_process:
        group.barrier()  # the images are decoded once
    demonstrations = Demonstrations([LeRobotReader(data)], "widowx", 4, ResizeImage(SIZE, "area"))
    if group.is_main_process:
        group.barrier()
    settings = dataclasses.replace(SETTINGS, **changes)
    shape = tiny_config(**(config or {}))
    agent = TrainableVlaser(
        VlaserPolicy.initialise(shape, seed=1), nano_processor(shape, demonstrations.statistics()), None,
        settings.places, seed=5,
    )  # fmt: skip
    options = RunOptions(5, group, save_every, 100, scaling=Scaling(**(scaling or {})))
    return SupervisedFineTuning(agent, Batches(demonstrations, agent, 5), settings, path, options)
