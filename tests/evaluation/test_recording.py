"""Rows that are made afterwards from recorded states say what the environment said then."""

from __future__ import annotations

import numpy as np
from gymnasium.vector import AutoresetMode

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.evaluation.recording import proprio_of, state_of

APPLE = "google_robot_place_apple_in_closed_top_drawer"


def test_the_state_is_what_the_environment_observed_stage_and_all() -> None:
    """The agent ends the first stage before the third of six steps."""
    env = SceneVectorEnv(
        APPLE,
        observe=("proprio", "state", "instruction"),
        autoreset_mode=AutoresetMode.DISABLED,
        record_states=True,
        engine_options={"threads": 1},
    )
    observation, info = env.reset(options={"layout": 4})
    rows, parts = [observation], [{name: values[None] for name, values in info["initial_states"][0].items()}]
    for step in range(6):
        if step == 2:
            env.advance_to_next_subtask(np.array([0]))
        observation, *_, info = env.step(np.array([[0.02, 0, -0.02, 0, 0, 0.1, 0.0]]))
        rows.append(observation)
        parts.append(info["states"][0])
    env.close()
    trajectory = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    address = Address(APPLE, layout="grid:4")
    observed = np.array([row["state"][0] for row in rows])
    assert observed[:, 25].tolist() == [0, 0, 0, 1, 1, 1, 1]
    np.testing.assert_allclose(state_of(address, trajectory), observed, atol=1e-6)
    np.testing.assert_allclose(proprio_of(address, trajectory), [row["proprio"][0] for row in rows], atol=1e-6)
    assert trajectory["instruction"].tolist() == [row["instruction"][0] for row in rows]
    assert trajectory["stage"].tolist() == [0, 0, 0, 1, 1, 1, 1]
