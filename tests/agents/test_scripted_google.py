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


def test_a_disturbance_moves_the_executed_actions_only() -> None:
    env = SceneVectorEnv("google_robot_pick_coke_can", 1, observe=("state",))
    plain, pushed = ScriptedExpert(), ScriptedExpert(disturbance={"probability": 1.0, "every": 2})
    observation, _ = env.reset(options={"layout": 12})
    lanes = np.zeros(1, np.int64)
    for expert in (plain, pushed):
        expert.reset(lanes, env.addresses)
    offsets = []
    for _ in range(4):
        action, executed = plain.act(observation, lanes), pushed.act(observation, lanes)
        np.testing.assert_array_equal(pushed.intended(lanes), action)
        offsets.append((executed - action)[0, 0])
    env.close()
    # One push per two actions, along the axes and about the vertical.
    np.testing.assert_allclose(offsets[0], offsets[1], atol=1e-12)
    assert np.abs(offsets[0] - offsets[2]).max() > 1e-6
    assert (offsets[0][[0, 1, 2, 5]] != 0).all()
    assert (offsets[0][[3, 4, 6]] == 0).all()


@pytest.mark.long
def test_cans_of_the_whole_grid() -> None:
    assert successes("google_robot_pick_coke_can", list(range(75))) >= 72


@pytest.mark.long
def test_things_of_the_whole_grid() -> None:
    assert successes("google_robot_move_near", list(range(60))) >= 52
