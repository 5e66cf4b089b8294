"""The scripted expert solves every layout."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from vlaser_gym.agents.base import Agent
from vlaser_gym.agents.scripted import ScriptedExpert
from vlaser_gym.envs.tasks import resolve
from vlaser_gym.envs.vector import SceneVectorEnv


def successes(task: str, layouts: list[str]) -> np.ndarray:
    """Success at the last step of the full episode, per layout."""
    env = SceneVectorEnv(task, len(layouts), observe=("state",), autoreset_mode=AutoresetMode.DISABLED)
    try:
        observation, _ = env.reset(options={"layout": layouts})
        expert, lanes = ScriptedExpert(), np.arange(len(layouts))
        expert.reset(lanes, env.addresses)
        while not env.ended.all():
            observation, *_, info = env.step_chunk(expert.act(observation, lanes))
        return info["success"]
    finally:
        env.close()


@pytest.mark.parametrize("task", resolve("widowx"))
def test_grid_layouts_are_solved(task: str) -> None:
    assert successes(task, [f"grid:{k}" for k in range(0, 24, 4)]).sum() >= 5


@pytest.mark.slow
@pytest.mark.parametrize("task", resolve("widowx"))
def test_every_grid_layout_is_solved(task: str) -> None:
    needed = 18 if task == "widowx_spoon_on_towel" else 23
    assert successes(task, [f"grid:{k}" for k in range(24)]).sum() >= needed


@pytest.mark.slow
@pytest.mark.parametrize("task", resolve("widowx"))
def test_region_layouts_are_solved(task: str) -> None:
    assert successes(task, [f"region:{k}" for k in range(96)]).mean() >= 0.85


def test_actions_stay_within_the_scripts_steps() -> None:
    env = SceneVectorEnv("widowx_stack_cube", 2, observe=("state",))
    observation, _ = env.reset(options={"layout": [0, 5]})
    expert, lanes = ScriptedExpert(), np.arange(2)
    assert isinstance(expert, Agent)
    expert.reset(lanes, env.addresses)
    for _ in range(12):
        actions = expert.act(observation, lanes)
        assert actions.shape == (2, 1, 7)
        assert (np.linalg.norm(actions[..., :3], axis=-1) <= 0.03 + 1e-9).all()
        assert (np.linalg.norm(actions[..., 3:6], axis=-1) <= 0.25 + 1e-9).all()
        observation, *_ = env.step_chunk(actions)
    env.close()
