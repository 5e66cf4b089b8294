"""A vector environment without physics, with the interface of SceneVectorEnv that evaluations use.

An environment is a point in space and a goal; actions move the point; it is a success to be near the goal. Everything
follows from the address and the actions, so runs can be compared byte for byte, and an episode takes microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.errors import SimulationError

STEPS = 10
NEAR = 0.02


class FakeVectorEnv:
    """Autoreset mode DISABLED; ``crash_on`` lists episodes that the simulator cannot finish."""

    def __init__(
        self,
        tasks: Sequence[str],
        num_envs: int,
        observe: Sequence[str] = ("proprio", "state"),
        crash_on: Iterable[str] = (),
        terminate_on_success: bool = False,
    ) -> None:
        self.tasks, self.num_envs, self.observe = list(tasks), num_envs, tuple(observe)
        self.engine = SimpleNamespace(name="mujoco", version="fake-1", look="builtin")
        self.crash_on, self.terminate_on_success = set(crash_on), terminate_on_success
        self.addresses: list[Address | None] = [None] * num_envs
        self.point, self.goal = np.zeros((num_envs, 3)), np.zeros((num_envs, 3))
        self.elapsed, self.ended = np.zeros(num_envs, int), np.ones(num_envs, bool)
        self.any = np.zeros(num_envs, bool)
        self.closed = False
        self.resets: list[list[str]] = []

    def reset(self, *, seed: Any = None, options: Mapping[str, Any] | None = None) -> tuple[dict, dict]:
        columns = [options[name] for name in ("task", "variant", "layout", "trial")]
        initial: list[dict | None] = [None] * self.num_envs
        for lane in np.flatnonzero(options["reset_mask"]):
            address = Address(*(column[lane] for column in columns))
            assert address.task in self.tasks
            # Like the benchmark: the trial does not change the initial state.
            rng = Address(address.task, address.variant, address.layout).rng("layout")
            self.addresses[lane] = address
            self.point[lane], self.goal[lane] = rng.uniform(0, 0.1, 3), rng.uniform(0, 0.1, 3)
            self.elapsed[lane], self.ended[lane], self.any[lane] = 0, False, False
            initial[lane] = self._state(lane)
        self.resets.append([str(self.addresses[lane]) for lane in np.flatnonzero(options["reset_mask"])])
        return self._observe(), {"initial_states": initial}

    def step_chunk(self, actions: np.ndarray) -> tuple[dict, np.ndarray, np.ndarray, np.ndarray, dict]:
        horizon = actions.shape[1]
        assert actions.shape == (self.num_envs, horizon, 7)
        ran = np.zeros((self.num_envs, horizon), bool)
        names = sorted({name for task in self.tasks for name in get_task(task).flags})
        flags = {name: np.zeros((self.num_envs, horizon), bool) for name in names}
        states: list[list[dict]] = [[] for _ in range(self.num_envs)]
        active = ~self.ended
        terminated = np.zeros(self.num_envs, bool)
        for h in range(horizon):
            for lane in np.flatnonzero(~self.ended):
                self.point[lane] += actions[lane, h, :3]
                self.elapsed[lane] += 1
                if str(self.addresses[lane]) in self.crash_on and self.elapsed[lane] == STEPS // 2:
                    raise SimulationError("the point diverged")
                near = np.linalg.norm(self.point[lane] - self.goal[lane]) < NEAR
                ran[lane, h], flags["success"][lane, h] = True, near
                flags["moved_correct_obj"][lane, h] = self.elapsed[lane] > 1
                self.any[lane] |= near
                terminated[lane] = near and self.terminate_on_success
                self.ended[lane] = terminated[lane] or self.elapsed[lane] >= STEPS
                states[lane].append({**self._state(lane), "action": actions[lane, h]})
        info: dict[str, Any] = {
            "success_any": self.any.copy(),
            "elapsed_steps": self.elapsed.copy(),
            "steps": ran.sum(1),
            "chunk": {"ran": ran, "reward": flags["success"].astype(float), "flags": flags},
            "states": [{k: np.stack([s[k] for s in lane]) for k in lane[0]} if lane else {} for lane in states],
        }
        for name in names:
            info[f"_{name}"] = np.array([a is not None and name in get_task(a.task).flags for a in self.addresses])
        truncated = active & self.ended & ~terminated
        return self._observe(), flags["success"].sum(1).astype(float), terminated & active, truncated, info

    def close(self) -> None:
        self.closed = True

    def _observe(self) -> dict[str, Any]:
        every = {
            "proprio": np.concatenate([self.point, np.tile([1, 0, 0, 0, 0], (self.num_envs, 1))], 1).astype(np.float32),
            "state": np.concatenate([self.goal, np.zeros((self.num_envs, 23))], 1).astype(np.float32),
            "instruction": tuple("" if a is None else get_task(a.task).instruction(a.layout) for a in self.addresses),
        }
        return {name: every[name] for name in self.observe}

    def _state(self, lane: int) -> dict[str, np.ndarray]:
        address = self.addresses[lane]
        names = [obj.name for obj in get_task(address.task).objects]
        pose = np.array([*self.goal[lane], 1.0, 0, 0, 0])
        return {"qpos": np.concatenate([self.point[lane], np.zeros(5)])} | {f"object/{name}": pose for name in names}


class Reacher:
    """Moves towards the goal with noise from the address; reaches it in most episodes, not in all."""

    observes = ("proprio", "state", "instruction")

    def __init__(self, noise: float = 0.006, horizon: int = 3) -> None:
        self.noise, self.horizon = noise, horizon
        self.generators: dict[int, np.random.Generator] = {}
        self.seen: list[int] = []

    def reset(self, lanes: np.ndarray, addresses: Sequence[Address]) -> None:
        self.generators |= {int(lane): a.rng() for lane, a in zip(lanes, addresses, strict=True)}

    def act(self, observations: Mapping[str, Any], lanes: np.ndarray) -> np.ndarray:
        assert len(observations["instruction"]) == len(observations["proprio"]) == len(lanes)
        self.seen.append(len(lanes))
        error = (observations["state"][:, :3] - observations["proprio"][:, :3]).astype(float)
        noise = np.stack([self.generators[int(lane)].normal(0, self.noise, (self.horizon, 3)) for lane in lanes])
        actions = np.zeros((len(lanes), self.horizon, 7))
        actions[..., :3] = error[:, None] / 8 + noise
        return actions


class Bound(Reacher):
    """Acts for one robot only."""

    robot = "widowx"


def make_fake_env(settings: Any, tasks: Sequence[str], num_envs: int, observe: Sequence[str]) -> FakeVectorEnv:
    """Stands in for make_scene_env; ``engine.crash_on`` lists addresses that crash."""
    return FakeVectorEnv(tasks, num_envs, observe, settings.engine.get("crash_on", ()), settings.terminate_on_success)
