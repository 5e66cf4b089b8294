"""Environments without a simulator: random images, ragged chunks, a reward for moving up, and snapshots."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from vlaser_gym.envs.address import Address


class FakeLanes(VectorEnv):
    """Episodes of 6 control steps (truncated); success terminates, at random, more likely for actions that go up."""

    max_steps = 6
    simulator = "fake 1"

    def __init__(self, num_envs: int, size: int = 24) -> None:
        self.num_envs, self.size = num_envs, size
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_action_space = spaces.Box(-1, 1, (7,), np.float32)
        self.single_observation_space = spaces.Dict(
            image=spaces.Box(0, 255, (size, size, 3), np.uint8),
            proprio=spaces.Box(-2, 2, (8,), np.float32),
            instruction=spaces.Text(50),
        )
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.rngs = [np.random.default_rng(i) for i in range(num_envs)]
        self.elapsed = np.zeros(num_envs, np.int64)
        self.actions: list[np.ndarray] = []

    @property
    def addresses(self) -> list[Address]:
        return [Address("fake_task") for _ in range(self.num_envs)]

    def _one(self, lane: int) -> dict[str, Any]:
        rng = self.rngs[lane]
        proprio = rng.normal(size=8) * 0.1 + [0.3, 0, 0.1, 1, 0, 0, 0, 0.5]
        proprio[3:7] /= np.linalg.norm(proprio[3:7])
        return {
            "image": rng.integers(0, 256, (self.size, self.size, 3), np.uint8),
            "proprio": proprio.astype(np.float32),
            "instruction": ["put it there", "stack"][lane % 2],
        }

    def _stack(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        arrays = {name: np.stack([row[name] for row in rows]) for name in ("image", "proprio")}
        return {**arrays, "instruction": tuple(row["instruction"] for row in rows)}

    def reset(self, *, seed=None, options=None):
        for i in range(self.num_envs):
            if seed is not None:
                self.rngs[i] = np.random.default_rng(seed if isinstance(seed, int) else seed[i])
        self.elapsed[:] = 0
        return self._stack([self._one(i) for i in range(self.num_envs)]), {}

    def step_chunk(self, actions: np.ndarray):
        self.actions.append(actions.copy())
        N, H = actions.shape[:2]
        ran, reward = np.zeros((N, H), bool), np.zeros((N, H))
        terminated, truncated = np.zeros(N, bool), np.zeros(N, bool)
        for i in range(N):
            for h in range(H):
                self.elapsed[i] += 1
                ran[i, h] = True
                up = 1 / (1 + np.exp(-40 * actions[i, h, 2]))
                reward[i, h] = terminated[i] = self.rngs[i].random() < 0.25 * up
                truncated[i] = self.elapsed[i] >= self.max_steps
                if terminated[i] or truncated[i]:
                    break
        rows = [self._one(i) for i in range(N)]
        done = terminated | truncated
        info: dict[str, Any] = {
            "success": terminated.copy(),
            "steps": ran.sum(1),
            "chunk": {"ran": ran, "reward": reward, "flags": {}},
        }
        if done.any():
            info["final_obs"] = np.array([rows[i] if done[i] else None for i in range(N)], object)
            info["_final_obs"] = done.copy()
            for i in np.flatnonzero(done):
                self.elapsed[i], rows[i] = 0, self._one(i)
        return self._stack(rows), reward.sum(1), terminated, truncated, info

    def get_state(self) -> dict[str, Any]:
        return {"rngs": copy.deepcopy(self.rngs), "elapsed": self.elapsed.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        self.rngs, self.elapsed = copy.deepcopy(state["rngs"]), state["elapsed"].copy()

    def close_extras(self, **kwargs: Any) -> None:
        """Nothing to stop."""
