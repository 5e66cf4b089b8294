"""Scores during training: the ordinary runner on layouts that environments of a region never draw for training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gymnasium.vector import AutoresetMode

from vlaser_gym.agents.base import Agent
from vlaser_gym.envs.tasks.base import Task
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.evaluation.plan import plan_episodes
from vlaser_gym.evaluation.runner import EpisodeResult, Runner


def run_episodes(
    agent: Agent,
    tasks: Sequence[Task],
    episodes: int,
    *,
    layouts: str = "region",
    num_envs: int = 8,
    engine: str = "mujoco",
    look: str | None = None,
    engine_options: dict[str, Any] | None = None,
    wrap: Callable[[SceneVectorEnv], Any] = lambda env: env,
) -> list[EpisodeResult]:
    """``episodes`` per task by the benchmark's rules.

    Args:
        agent: who acts.
        tasks: of one robot.
        episodes: layouts 0, 1, ... of each task.
        layouts: their kind.
        num_envs: environments.
        engine, look, engine_options: of the environment.
        wrap: put around the environment, e.g. to change what the agent sees.
    """
    plan = plan_episodes(tasks, "default", layouts, episodes)
    env = SceneVectorEnv(
        [task.name for task in tasks],
        min(num_envs, len(plan)),
        engine=engine,
        look=look,
        observe=agent.observes,
        autoreset_mode=AutoresetMode.DISABLED,
        engine_options=engine_options,
    )
    try:
        return list(Runner(wrap(env), agent, plan))
    finally:
        env.close()


def success_rates(results: Sequence[EpisodeResult]) -> dict[str, float]:
    """``success/<task>`` and their mean ``success/mean``, at the last step."""
    tasks = dict.fromkeys(result.address.task for result in results)
    rates = {}
    for task in tasks:
        mine = [result.success for result in results if result.address.task == task]
        rates[f"success/{task}"] = sum(mine) / len(mine)
    return {**rates, "success/mean": sum(rates.values()) / len(rates)}
