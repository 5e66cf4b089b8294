"""The environments of post-training, with this gym's conventions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gymnasium.vector import AutoresetMode

from vlaser_gym.agents.learners.distributed import Workers
from vlaser_gym.agents.learners.grpo import GroupVecEnv
from vlaser_gym.agents.learners.lanes import ChainLanes, ChainVecEnv
from vlaser_gym.agents.learners.ppo_settings import GrpoSettings, PpoSettings
from vlaser_gym.agents.learners.ranges import check_shares
from vlaser_gym.agents.vlaser.agent import VlaserAgent
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.processor import Processor
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.wrappers.reward import LastStepReward, SubgoalReward


def task_slots(num_envs: int, settings: PpoSettings, workers: Workers) -> int:
    """Places in which tasks take turns: lanes of all processes, or, for GRPO, their initial states in a rollout."""
    if isinstance(settings, GrpoSettings):
        return workers.size * (num_envs // settings.group_size) * settings.rounds
    return workers.size * num_envs


def make_chain_lanes(
    tasks: Sequence[str],
    num_envs: int,
    processor: Processor,
    config: VlaserConfig,
    settings: PpoSettings,
    *,
    seed: int = 0,
    workers: Workers | None = None,
    engine: str = "mujoco",
    look: str | None = None,
    engine_options: Mapping[str, Any] | None = None,
) -> ChainVecEnv:
    """This process's share of ``num_envs`` lanes: region layouts that evaluation never draws, ended by success
    unless the reward is for the last step.

    Args:
        tasks: of one robot; lane i runs ``tasks[i % len(tasks)]``, counted over all processes.
        num_envs: lanes of each process.
        processor, config: the policy's.
        settings: flow steps, discount and reward.
        seed: lane i of all processes draws its layouts from ``seed + i``.
        workers: the processes that train together.
        engine, look, engine_options: of the environment.

    Raises:
        InvalidConfigError: if there are fewer lanes than tasks.
    """
    workers = workers or Workers()
    check_shares(tasks, task_slots(num_envs, settings, workers))
    first = workers.rank * num_envs
    env: Any = SceneVectorEnv(
        [tasks[(first + i) % len(tasks)] for i in range(max(num_envs, len(tasks)))],
        num_envs,
        engine=engine,
        look=look,
        layouts="region",
        observe=VlaserAgent.observes,
        terminate_on_success=settings.reward != "last",
        autoreset_mode=AutoresetMode.SAME_STEP,
        engine_options=engine_options,
    )
    if settings.reward == "subgoals":
        env = SubgoalReward(env, settings.gamma)
    if settings.reward == "last":
        env = LastStepReward(env)
    num_steps = settings.flow_steps or config.num_flow_steps
    lanes = ChainVecEnv(ChainLanes(env, processor, config, num_steps, settings.gamma))
    lanes.seed(seed + first)
    return lanes


def make_group_lanes(
    tasks: Sequence[str],
    num_envs: int,
    processor: Processor,
    config: VlaserConfig,
    settings: GrpoSettings,
    *,
    seed: int = 0,
    workers: Workers | None = None,
    engine: str = "mujoco",
    look: str | None = None,
    engine_options: Mapping[str, Any] | None = None,
) -> GroupVecEnv:
    """The same in groups, for GRPO; ``seed`` is not read, as rollouts have their own.

    Raises:
        InvalidConfigError: if groups do not fill the lanes, or a rollout has fewer initial states than tasks.
    """
    settings.check(num_envs)
    workers = workers or Workers()
    check_shares(tasks, task_slots(num_envs, settings, workers))
    env = SceneVectorEnv(
        list(tasks),
        num_envs,
        engine=engine,
        look=look,
        layouts="region",
        observe=VlaserAgent.observes,
        terminate_on_success=True,
        autoreset_mode=AutoresetMode.DISABLED,
        engine_options=engine_options,
    )
    lanes = ChainLanes(env, processor, config, settings.flow_steps or config.num_flow_steps, settings.gamma)
    longest = max(-(-task.max_steps // lanes.act_steps) for task in env.tasks)
    first = workers.rank * num_envs // settings.group_size
    return GroupVecEnv(lanes, tasks, settings.group_size, settings.rounds, longest, first)
