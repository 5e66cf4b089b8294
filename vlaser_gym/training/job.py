"""What an algorithm can ask for when a run begins: the policy, environments, demonstrations, stored episodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vlaser_gym.agents.trainable import TrainableAgent
from vlaser_gym.agents.vlaser.agent import choose_device, nano_processor
from vlaser_gym.agents.vlaser.checkpoint import load_policy
from vlaser_gym.agents.vlaser.config import PRESETS, VlaserConfig
from vlaser_gym.agents.vlaser.densities import make_density
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import Processor
from vlaser_gym.agents.vlaser.statistics import Statistics
from vlaser_gym.agents.vlaser.tokenizer import ByteTokenizer
from vlaser_gym.agents.vlaser.trainable import TrainableVlaser
from vlaser_gym.envs.tasks import by_robot, get_task, resolve
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.evaluation.lerobot import LeRobotReader
from vlaser_gym.registry import import_string
from vlaser_gym.settings.training import TrainSettings
from vlaser_gym.training.collection import CollectRound
from vlaser_gym.training.data.demonstrations import Batches, Demonstrations
from vlaser_gym.training.distributed import ProcessGroup, own_device
from vlaser_gym.training.environments import LearningEnv, make_learning_env, task_slots
from vlaser_gym.training.evaluation import run_episodes, success_rates
from vlaser_gym.training.trainer import POLICY_FOLDER, Numbers, RunOptions


@dataclass(frozen=True)
class Job:
    """One training run to be.

    Attributes:
        settings: of the command.
        algo: of the algorithm.
        init: what to start from.
        path: run directory.
        group: the processes that train together.
        report: told each line of numbers.
        say: told what is worth reading once.
    """

    settings: TrainSettings
    algo: Any
    init: str
    path: Path
    group: ProcessGroup
    report: Callable[[Numbers], None] = lambda row: None
    say: Callable[[Any], None] = lambda text: None

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks to act in."""
        return list(resolve(self.settings.task))

    @property
    def options(self) -> RunOptions:
        """How the run is kept."""
        settings = self.settings
        return RunOptions(
            seed=settings.seed,
            group=self.group,
            save_every=getattr(self.algo, "save_every", settings.save_every),
            log_every=settings.log_every,
            evaluate=self.evaluate if settings.evaluate_episodes else None,
            evaluate_every=settings.evaluate_every,
            report=self.report,
            say=self.say,
        )

    # ------------------------------------------------------------------ the policy

    def agent(self) -> TrainableAgent:
        """The policy to start from: Vlaser's, or whatever ``policy=module:function`` makes of ``init``."""
        settings = self.settings
        if settings.policy is not None:
            device = own_device(choose_device(settings.device))
            made = import_string(settings.policy, "policy")(
                self.init, robot=settings.robot, seed=settings.seed, device=device
            )
            if not isinstance(made, TrainableAgent):
                raise InvalidConfigError(
                    f"policy={settings.policy} should give a vlaser_gym.agents.trainable.TrainableAgent; got "
                    f"{type(made).__name__}."
                )
            return made
        policy, processor = initial_policy(settings, self.init)
        return self.vlaser(policy, processor)

    def vlaser(self, policy: VlaserPolicy, processor: Processor) -> TrainableVlaser:
        """A Vlaser policy with the density and the auxiliary head that the algorithm's settings ask for."""
        config, algo, density = policy.config, self.algo, None
        if getattr(algo, "density", None) is not None:
            density = make_density(
                algo.density,
                getattr(algo, "flow_steps", None) or config.num_flow_steps,
                width=config.expert_width,
                action_dim=config.action_dim,
                noise_level=algo.noise_level,
                noise_bounds=getattr(algo, "noise_bounds", (0.05, 0.2)),
                seed=self.settings.seed,
            ).to(policy.device)
        return TrainableVlaser(policy, processor, density, getattr(algo, "places", 0.0), self.settings.seed)

    def round_agent(self) -> TrainableAgent:
        """The policy, checked against the tasks if it is going to act in them."""
        agent = self.agent()
        if self.algo.rounds or self.settings.evaluate_episodes:
            self.check_robot(agent)
        return agent

    def check_robot(self, agent: TrainableAgent) -> None:
        """Raise :class:`InvalidConfigError` if the tasks are not of the policy's robot."""
        robots = by_robot(get_task(name) for name in self.tasks)
        if set(robots) != {agent.robot}:
            raise InvalidConfigError(
                f"The policy {self.init} is for {agent.robot}, but task={self.settings.task} is of "
                f"{', '.join(robots)}; choose tasks of the policy's robot with task=, or another init."
            )

    # ------------------------------------------------------------------ what it learns from

    def environments(self, agent: TrainableAgent) -> LearningEnv:
        """Environments for an on-policy algorithm; says which tasks come more often, if they do not share evenly."""
        settings, slots = self.settings, task_slots(self.settings.num_envs, self.algo, self.group)
        env = make_learning_env(
            self.tasks,
            settings.num_envs,
            agent,
            self.algo,
            group=self.group,
            engine=str(settings.engine["name"]),
            look=settings.look,
            engine_options=settings.engine_options,
        )
        self.say_shares(slots)
        return env

    def say_shares(self, slots: int) -> None:
        """Say which tasks come more often, where they do not come equally often."""
        tasks = len(self.tasks)
        if slots % tasks:
            self.say(
                f"{tasks} tasks take turns in {slots} places: the first {slots % tasks} have one more than the others; "
                f"a multiple of {tasks} would be fair."
            )

    def demonstrations(self, agent: TrainableAgent) -> Demonstrations:
        """The first process decodes the images; the others wait, then read the same episodes."""
        paths, group = self.settings.data_sets, self.group
        groups = group.broadcast([len(LeRobotReader(path).groups) for path in paths])
        readers = [LeRobotReader(path, count) for path, count in zip(paths, groups, strict=True)]
        if not group.is_main_process:
            group.barrier()
        data = Demonstrations(readers, agent.robot, agent.horizon, agent.resize)
        if group.is_main_process:
            group.barrier()
        return data

    def batches(self, agent: TrainableAgent) -> Batches:
        """Demonstrations in batches. A fresh Vlaser policy takes their statistics; a continued run keeps its own."""
        data = self.demonstrations(agent)
        if isinstance(agent, TrainableVlaser):
            stored = self.path / POLICY_FOLDER
            has = (stored / "statistics.json").is_file()
            statistics = Statistics.load(stored) if has else data.statistics()
            old = agent.processor
            agent.processor = Processor(old.prompt, old.resize, old.robot, statistics)
        return Batches(data, agent, self.settings.seed)

    def rounds(self) -> Callable[[int, Any], list[Path] | None]:
        """Runs that are there, or, in iterated mode, those that the policy of the moment makes."""
        settings, algo = self.settings, self.algo
        if not algo.rounds:
            return lambda number, agent: [Path(run) for run in settings.data_sets]
        return CollectRound(
            self.path / "rounds",
            self.tasks,
            layouts=algo.layouts,
            trials=algo.trials,
            seed=settings.seed,
            name=f"{algo.name} of {self.init}",
            terminate_on_success=algo.terminate_on_success,
            look=settings.look,
            num_envs=settings.num_envs,
            engine=settings.engine,
        )

    def evaluate(self, agent: TrainableAgent) -> Numbers:
        """Success rates on region layouts that training never draws."""
        settings = self.settings
        results = run_episodes(
            agent.acting(),
            [get_task(name) for name in self.tasks],
            settings.evaluate_episodes,
            num_envs=settings.num_envs,
            engine=str(settings.engine["name"]),
            look=settings.look,
            engine_options=settings.engine_options,
        )
        return success_rates(results)


def initial_policy(settings: TrainSettings, init: str) -> tuple[VlaserPolicy, Processor]:
    """The Vlaser policy that a run starts from, and its processor."""
    device = own_device(choose_device(settings.device))
    if init in PRESETS:
        config = VlaserConfig.preset(init, settings.robot or "widowx", **settings.settings)
        if config.vocab_size < ByteTokenizer.vocab_size or config.image_token_id != ByteTokenizer.image_id:
            raise InvalidConfigError(f"init={init} needs a tokenizer; give the folder of a VLM instead.")
        return VlaserPolicy.initialise(config, settings.seed, device=device), nano_processor(config)
    if not Path(init).exists():
        raise UnknownNameError("init (a preset or an existing folder)", init, PRESETS)
    policy, report = load_policy(
        init,
        robot=settings.robot,
        dtype=torch.float32,
        device=device,
        seed=settings.seed,
        settings=settings.settings,
    )
    if report.layout == "vlm":
        print(f"{init} is a vision-language model: the action expert starts with random weights")
    policy.reset_parameters(settings.seed, settings.fresh)
    return policy, Processor.load(init, policy.config)
