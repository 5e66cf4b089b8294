"""The expert at the Google Robot's table."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from vlaser_gym.agents.scripted import ScriptedExpert
from vlaser_gym.envs.vector import SceneVectorEnv


def successes(task: str, layouts: list[int]) -> int:
    """Episodes that end in success by the original's rule, at the step limit."""
    env = SceneVectorEnv(task, len(layouts), observe=("state",), autoreset_mode=AutoresetMode.DISABLED)
    observation, info = env.reset(options={"layout": layouts})
    expert, lanes = ScriptedExpert(), np.arange(len(layouts))
    expert.reset(lanes, env.addresses)
    while not env.ended.all():
        observation, *_, info = env.step_chunk(expert.act(observation, lanes))
    env.close()
    return int(info["success"].sum())


def test_a_can_in_every_posture_and_a_thing_to_move() -> None:
    assert successes("google_robot_pick_coke_can", [12, 37, 62]) == 3
    assert successes("google_robot_move_near", [0, 27]) == 2


@pytest.mark.slow
def test_cans_of_the_whole_grid() -> None:
    assert successes("google_robot_pick_coke_can", list(range(75))) >= 72


@pytest.mark.slow
def test_things_of_the_whole_grid() -> None:
    assert successes("google_robot_move_near", list(range(60))) >= 52
