"""Stored episodes as one likes, without a simulator, with what learners need."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlaser_gym.agents.vlaser.agent import nano_processor
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.evaluation.episodes import StoredEpisode
from vlaser_gym.evaluation.store import RunStore

CUBE, CARROT = "widowx_stack_cube", "widowx_carrot_on_plate"
#: Success, control steps up to it (or to the end), sub-goals reached.
Outcome = tuple[bool, int, int]


def record_of(address: Address, outcome: Outcome, engine: str = "mujoco") -> dict[str, Any]:
    success, steps, progress = outcome
    flags = {name: number < progress for number, name in enumerate(get_task(address.task).subgoals)}
    return {
        **{"task": address.task, "variant": address.variant, "layout": address.layout, "trial": address.trial},
        **{"engine": engine, "engine_version": "1", "look": "builtin", "agent": "random"},
        **{"instruction": get_task(address.task).instruction(address.layout), "steps": steps, "reward": float(success)},
        **{"success": success, "success_any": success, "first_success_step": steps if success else None},
        **{"flags": {**flags, "success": success}, "flags_any": {**flags, "success": success}},
        **{"ending": "truncated", "error": None},
    }


def episode_of(address: Address, outcome: Outcome, run: str = "run", **more: Any) -> StoredEpisode:
    return StoredEpisode(Path(run), record_of(address, outcome, **more), outcome[2])


def write_run(
    path: Path,
    outcomes: Mapping[Address, Outcome],
    config: VlaserConfig,
    *,
    density: str | None = "flow_sde",
    noise_level: float = 0.5,
    seed: int = 0,
) -> Path:
    """A run of random numbers; an episode has a decision for every four steps."""
    settings: dict[str, Any] = {"num_flow_steps": config.num_flow_steps}
    settings |= {} if density is None else {"density": density, "noise_level": noise_level}
    with RunStore(path, {"agent_settings": settings}) as store:
        for number, (address, outcome) in enumerate(outcomes.items()):
            count = -(-outcome[1] // 4)
            arrays = decisions(np.random.default_rng([seed, number]), count, config, density)
            store.add(record_of(address, outcome), None, arrays)
    return path


def decisions(rng: np.random.Generator, count: int, config: VlaserConfig, density: str | None) -> dict[str, np.ndarray]:
    shape = (config.horizon, config.action_dim)
    ids = nano_processor(config).prompt.ids("stack the cubes")
    size, steps = config.image_size, config.num_flow_steps
    arrays = {
        "pixels": rng.integers(0, 256, (count, size, size, 3), np.uint8),
        "input_ids": np.repeat(ids[None], count, 0),
        "proprio": rng.normal(size=(count, config.proprio_dim)).astype(np.float32),
        "noise": rng.normal(size=(count, *shape)).astype(np.float32),
        "chunk": rng.normal(size=(count, *shape)).astype(np.float32),
    }
    if density is not None:
        arrays["chain"] = rng.normal(size=(count, steps + 1, *shape)).astype(np.float32)
        one = density == "flow_sde_one_step"
        arrays["stochastic"] = np.stack([rng.integers(steps, size=1) if one else np.arange(steps)] * count)
    return arrays
