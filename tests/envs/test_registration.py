from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from vlaser_gym.envs.engines.mujoco.rendering import Job, RenderPool
from vlaser_gym.envs.registration import register_environments
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.single import SceneEnv
from vlaser_gym.envs.tasks import get_task, task_names
from vlaser_gym.envs.vector import SceneVectorEnv

IDS = [f"vlaser_gym/{name}" for name in task_names()]


class SharedPool:
    """Stands in for a render pool that each environment would start anew: one process per image size serves all."""

    pools: ClassVar[dict[tuple[int, int], RenderPool]] = {}

    def __init__(self, num_slots: int, processes: int | None, **look: Any) -> None:
        assert (num_slots, processes) == (1, 1)
        assert not any(look.values()), "the built-in look"

    def render(self, jobs: list[Job]) -> np.ndarray:
        camera = get_setup(get_task(jobs[0][0].task).robot_setup).camera
        size = (camera.width, camera.height)
        if size not in self.pools:
            self.pools[size] = RenderPool(1, 1)
        return self.pools[size].render(jobs)

    def close(self) -> None:
        """The pools stay for the next environment."""


@pytest.fixture(scope="module")
def shared_pool() -> Iterator[type[SharedPool]]:
    yield SharedPool
    while SharedPool.pools:
        SharedPool.pools.popitem()[1].close()


@pytest.mark.parametrize("identifier", IDS)
def test_gymnasium_s_check_passes(
    identifier: str, shared_pool: type[SharedPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlaser_gym.envs.engines.mujoco.engine.RenderPool", shared_pool)
    env = gymnasium.make(identifier, engine_options={"render_processes": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Actions are metres and radians (DESIGN), not numbers between -1 and 1.
        warnings.filterwarnings("ignore", message=".*For Box action spaces, we recommend using a symmetric and norm.*")
        check_env(env.unwrapped)
    env.close()


def test_every_task_is_registered_and_nothing_else() -> None:
    ours = [identifier for identifier in gymnasium.registry if identifier.startswith("vlaser_gym/")]
    assert sorted(ours) == sorted([*IDS, *(f"{identifier}-state" for identifier in IDS)])
    assert len(ours) >= 4


def test_registering_again_changes_nothing() -> None:
    before = dict(gymnasium.registry)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register_environments()
    assert gymnasium.registry == before


def test_make_gives_the_scene_under_gymnasium_s_step_limit() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make("vlaser_gym/widowx_stack_cube", observe=("proprio",), terminate_on_success=True)
    assert type(env) is gymnasium.wrappers.TimeLimit
    assert type(env.unwrapped) is SceneEnv
    assert env.unwrapped.address.task == "widowx_stack_cube"
    env.reset(seed=0, options={"layout": 3})
    assert str(env.unwrapped.address) == "widowx_stack_cube/default/grid:3/0"
    env.close()


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_make_vec_gives_the_vector_environment(mode: AutoresetMode) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make_vec(
            "vlaser_gym/widowx_spoon_on_towel", num_envs=3, observe=("proprio", "instruction"), autoreset_mode=mode
        )
    assert isinstance(env, SceneVectorEnv)
    assert env.num_envs == 3
    assert env.metadata["autoreset_mode"] is mode
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    observation, reward, *_ = env.step(env.action_space.sample() * np.float32(0.01))
    assert env.observation_space.contains(observation)
    assert reward.shape == (3,)
    env.close()


def test_make_vec_mixes_tasks() -> None:
    env = gymnasium.make_vec(
        "vlaser_gym/widowx_stack_cube", num_envs=2, task=["widowx_stack_cube", "widowx_carrot_on_plate"], observe=()
    )
    env.reset(seed=0)
    assert [a.task for a in env.unwrapped.addresses] == ["widowx_stack_cube", "widowx_carrot_on_plate"]
    env.close()
