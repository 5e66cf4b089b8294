"""Small demonstrations without a simulator, and a policy of a few thousand parameters."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.envs.address import Address
from vlaser_gym.evaluation.lerobot import LeRobotWriter
from vlaser_gym.evaluation.recording import RecordedEpisode

SIZE = 24
TINY = {
    "image_size": SIZE,
    "patch_size": 6,
    "vision_width": 16,
    "vision_layers": 1,
    "vision_heads": 2,
    "vision_mlp": 32,
    "width": 16,
    "layers": 2,
    "heads": 2,
    "kv_heads": 1,
    "head_dim": 8,
    "mlp_width": 32,
    "expert_width": 16,
    "expert_mlp": 32,
    "max_length": 48,
}


def tiny_config(**changes) -> VlaserConfig:
    return VlaserConfig.preset("nano", **{**TINY, **changes})


def fake_episode(
    number: int, rows: int = 5, every: int = 1, task: str = "widowx_stack_cube", stages: int = 1
) -> RecordedEpisode:
    """Random numbers with the shapes of a recording; quaternions are unit, the gripper is +1 or -1.

    The instruction changes in the middle where there are two stages.
    """
    rng = np.random.default_rng(number)
    quaternion = rng.normal(size=(rows, 4))
    quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
    proprio = np.concatenate([rng.normal(size=(rows, 3)), quaternion, rng.random((rows, 1))], 1)
    state = rng.normal(size=(rows, 26))
    state[:, 11:15] = state[:, 18:22] = quaternion
    action = rng.normal(0, 0.02, (rows, every, 7))
    action[..., 6] = np.sign(rng.normal(size=(rows, every)))
    steps = np.full(rows, every)
    steps[-1] = max(1, every - 1)
    return RecordedEpisode(
        address=Address(task, layout=f"region:{1_000_000 + number}"),
        instructions=tuple(
            ["stack the cubes", "put it there"][(number + row * stages // rows) % 2] for row in range(rows)
        ),
        success=True,
        frames=rng.integers(0, 256, (rows, SIZE, SIZE, 3), np.uint8),
        columns={
            "proprio": proprio.astype(np.float32),
            "state": state.astype(np.float32),
            "action": action + 0.001,
            "label": action,
            "reward": np.zeros(rows, np.float32),
            "steps": steps,
            "done": np.arange(rows) == rows - 1,
            "flag/success": np.arange(rows) >= rows - 2,
        },
    )


def write_set(
    path: Path, episodes: int = 6, *, rows: int = 5, every: int = 1, group: int = 4, images: str = "png"
) -> Path:
    with LeRobotWriter(path, fps=5 / every, robot="widowx", images=images, group=group) as writer:
        for number in range(episodes):
            writer.add(fake_episode(number, rows + number % 2, every))
    return path
