"""The inputs of an algorithm at the start of a run: policy, environments, demonstrations, stored episodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vlaser_gym.agents.trainable import TrainableAgent
from vlaser_gym.agents.vlaser.agent import RANDOM, choose_device, random_policy
from vlaser_gym.agents.vlaser.answering import reasoning_settings
from vlaser_gym.agents.vlaser.checkpoint import CONFIG_FILE, is_ours, load_policy, read_config
from vlaser_gym.agents.vlaser.config import PRESETS
from vlaser_gym.agents.vlaser.densities import make_density
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import Processor
from vlaser_gym.agents.vlaser.shipped import SHIPPED_NAMES, shipped_or_path
from vlaser_gym.agents.vlaser.statistics import FILE_NAME as STATISTICS_FILE
from vlaser_gym.agents.vlaser.statistics import OF_ROBOT, Statistics
from vlaser_gym.agents.vlaser.tokenizer import ByteTokenizer, Tokenizer
from vlaser_gym.agents.vlaser.trainable import TrainableVlaser
from vlaser_gym.envs.tasks import by_robot, get_task, resolve
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.evaluation.tracker import Tracker
from vlaser_gym.registry import import_string
from vlaser_gym.settings.training import TrainSettings
from vlaser_gym.training.checkpoints import POLICY_FOLDER
from vlaser_gym.training.collection import CollectRound
from vlaser_gym.training.data.clipping import Clipped, Normalisation
from vlaser_gym.training.data.demonstrations import Demonstrations
from vlaser_gym.training.data.rows import has_privileged
from vlaser_gym.training.data.sources import sources
from vlaser_gym.training.distributed import ProcessGroup, own_device
from vlaser_gym.training.environments import LearningEnv, make_learning_env, task_slots
from vlaser_gym.training.evaluation import run_episodes, success_rates
from vlaser_gym.training.scaling import Scaling
from vlaser_gym.training.trainer import Numbers, RunOptions


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
        advance: told how many units of work are done.
    """

    settings: TrainSettings
    algo: Any
    init: str
    path: Path
    group: ProcessGroup
    report: Callable[[Numbers], None] = lambda row: None
    say: Callable[[Any], None] = lambda text: None
    advance: Callable[[int], None] = lambda done: None

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks to act in."""
        return list(resolve(self.settings.task))

    @property
    def turns(self) -> list[str]:
        """The tasks as on-policy environments take them in turn, each as often as its share says.

        Raises:
            UnknownNameError: for a share of a task that is not acted in.
            InvalidConfigError: for a share below one.
        """
        shares = self.settings.task_shares or {}
        for name, share in shares.items():
            if name not in self.tasks:
                raise UnknownNameError("task of task_shares", name, self.tasks)
            if share < 1:
                raise InvalidConfigError(f"task_shares.{name} is a number of turns, 1 or more; got {share}.")
        return [name for name in self.tasks for _ in range(shares.get(name, 1))]

    @property
    def options(self) -> RunOptions:
        """The options of how the run is stored."""
        settings = self.settings
        return RunOptions(
            seed=settings.seed,
            group=self.group,
            save_every=getattr(self.algo, "save_every", settings.save_every),
            log_every=settings.log_every,
            evaluate=self.evaluate if settings.evaluate_episodes else None,
            evaluate_every=settings.evaluate_every,
            keep=settings.keep_checkpoints,
            target_kl=getattr(self.algo, "target_kl", None),
            tracker=self.tracker,
            scaling=Scaling(
                tuple(settings.checkpointing), settings.weights, settings.optimizer, settings.shard, settings.compile
            ),
            advance=self.advance,
            report=self.report,
            say=self.say,
            check=settings.check_weights,
        )

    @property
    def tracker(self) -> Tracker | None:
        """The experiment tracker of the run, if any."""
        settings = self.settings
        if settings.tracker is None:
            return None
        return Tracker(settings.tracker, settings.tracker_project, self.path, settings.stored(self.init), self.say)

    # ------------------------------------------------------------------ the policy

    def agent(self) -> TrainableAgent:
        """The policy to go on from, with its own statistics: Vlaser's, or whatever ``policy=`` makes of ``init``."""
        return self.start("keep")[0]

    def start(self, statistics: str | None, *, answers: bool = False) -> tuple[TrainableAgent, bool]:
        """The initial policy of the run, and whether its statistics stay; see :func:`initial_policy`.

        Args:
            statistics: ``"keep"``, ``"widen"``, ``"data"`` or ``None``.
            answers: whether it learns to answer questions, and has or gets a language head.
        """
        settings = self.settings
        if settings.policy is None:
            if answers:
                settings = self._with_head()
            policy, processor, keeps = initial_policy(settings, self.init, statistics, self.say)
            # What it sees from now on: images of another size are other images.
            processor = replace(processor, image_size=str(settings.engine.get("image_size") or ""))
            return self.vlaser(policy, processor, teach=answers), keeps
        make, device = import_string(settings.policy, "policy"), own_device(choose_device(settings.device))
        made = make(self.init, robot=settings.robot, seed=settings.seed, device=device)
        if not isinstance(made, TrainableAgent):
            raise InvalidConfigError(
                f"policy={settings.policy} should give a vlaser_gym.agents.trainable.TrainableAgent; got "
                f"{type(made).__name__}."
            )
        return made, True

    def _with_head(self) -> TrainSettings:
        """The settings with what a policy's config needs in order to answer."""
        length = getattr(self.algo, "length", None) or stored_config(self.init).get("reasoning_length")
        return replace(self.settings, settings={**reasoning_settings(length), **self.settings.settings})

    def student(self) -> TrainableAgent:
        """The model that learns to answer: an InternVL chat model, a Vlaser policy, or the result of ``policy=``.

        Raises:
            InvalidConfigError: for a policy class that cannot learn it.
        """
        settings, algo = self.settings, self.algo
        if settings.policy is None and is_chat_model(self.init):
            from vlaser_gym.agents.vlaser.trainable_vlm import TrainableVlm  # noqa: PLC0415  (it takes seconds)

            self._check_place_spread(None)
            device = own_device(choose_device(settings.device))
            return TrainableVlm.from_folder(self.init, device, algo.length, algo.max_tiles)
        agent, keeps = self.start(None, answers=True)
        if not agent.reasoning_length:
            raise InvalidConfigError(
                f"policy={settings.policy} makes a {type(agent).__name__}, which lacks the language head of algo=vlm."
            )
        if isinstance(agent, TrainableVlaser):
            # A policy whose expert was never trained is a vision-language model.
            agent.acts = keeps
        return agent

    def vlaser(self, policy: VlaserPolicy, processor: Processor, *, teach: bool = False) -> TrainableVlaser:
        """A Vlaser policy with the density and the auxiliary heads that the algorithm's settings ask for."""
        algo, density = self.algo, None
        if getattr(algo, "flow_steps", None) is not None:
            # Its evaluations and its checkpoint act as it learned to.
            policy.config = policy.config.replace(num_flow_steps=algo.flow_steps)
        initial_noise = getattr(algo, "initial_noise", None)
        if initial_noise is None and getattr(algo, "density", None) == "chunk_gaussian":
            initial_noise = 0.0
        if initial_noise is not None:
            policy.config = policy.config.replace(initial_noise=initial_noise)
        config = policy.config
        if getattr(algo, "density", None) is not None:
            density = make_density(
                algo.density,
                config.num_flow_steps,
                width=config.expert_width,
                action_dim=config.action_dim,
                horizon=config.horizon,
                initial_noise=config.initial_noise,
                noise_level=algo.noise_level,
                noise_bounds=getattr(algo, "noise_bounds", (0.05, 0.2)),
                chunk_noise=algo.chunk_noise,
                rotation_noise=algo.rotation_noise,
                seed=self.settings.seed,
            ).to(policy.device)
        if teach:
            self._check_place_spread(processor.prompt.tokenizer)
        return TrainableVlaser(
            policy,
            processor,
            density,
            getattr(algo, "places", 0.0),
            self.settings.seed,
            named_places=getattr(algo, "named_places", 0.0),
            teach=teach,
            place_spread=getattr(algo, "place_spread", 0.0) if teach else 0.0,
        )

    def _check_place_spread(self, tokenizer: Tokenizer | None) -> None:
        if getattr(self.algo, "place_spread", 0.0) and not isinstance(tokenizer, ByteTokenizer):
            raise InvalidConfigError(
                "algo.place_spread needs tokens that stand for the numbers of a place, as the small model's tokenizer "
                f"has them; {self.init} writes them digit by digit: leave algo.place_spread out."
            )

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
            self.turns,
            settings.num_envs,
            agent,
            self.algo,
            group=self.group,
            layouts=settings.layout_kind,
            engine=str(settings.engine["name"]),
            look=settings.look,
            engine_options=settings.engine_options,
        )
        self.say_shares(slots)
        return env

    def say_shares(self, slots: int) -> None:
        """Say which tasks come more often than their shares, where the places cannot be shared out evenly."""
        turns = len(self.turns)
        if slots % turns:
            self.say(
                f"{turns} tasks take turns in {slots} places: the first {slots % turns} have one more than the others; "
                f"a multiple of {turns} would be fair."
            )

    def demonstrations(self, agent: TrainableAgent) -> Demonstrations:
        """The first process decodes the images; the others wait, then read the same episodes."""
        given, group = sources(self.settings), self.group
        groups = group.broadcast([len(source.reader().groups) for source in given])
        readers = [source.reader(count) for source, count in zip(given, groups, strict=True)]
        if not group.is_main_process:
            group.barrier()
        data = Demonstrations(
            readers, agent.robot, agent.horizon, agent.resize, None, self.settings.cache, self.say, given
        )
        if group.is_main_process:
            group.barrier()
        return data

    def without_unknown_places(self) -> Job:
        """The same without the heads that say where things are, if a data set does not know it."""
        weights = ("places", "named_places")
        if not any(getattr(self.algo, name, 0.0) for name in weights):
            return self
        foreign = [source.path for source in sources(self.settings) if not has_privileged(source.reader(), source)]
        if not foreign:
            return self
        self.say(f"{', '.join(foreign)}: no simulator's state, so that algo.places and algo.named_places are off")
        return replace(self, algo=replace(self.algo, **dict.fromkeys(weights, 0.0)))

    def normalisation(self, agent: TrainableAgent, data: Demonstrations, keeps: bool) -> Normalisation | None:
        """Give a Vlaser policy the statistics that it and the data go by; a run that goes on keeps those it began with.

        Returns:
            whose they are and what they clip of the data; ``None`` for policies that have no statistics.
        """
        if not isinstance(agent, TrainableVlaser):
            return None
        stored = self.path / POLICY_FOLDER / STATISTICS_FILE
        if stored.is_file():
            whose, statistics = "run", Statistics.load(stored)
        elif keeps and self.algo.statistics == "widen":
            whose, statistics = "widen", agent.widen_proprio(data.statistics().proprio)
        elif keeps:
            whose, statistics = "keep", agent.processor.statistics
        else:
            whose, statistics = "data", data.statistics()
        agent.processor = replace(agent.processor, statistics=statistics)
        return Normalisation(whose, Clipped.of(data, statistics))

    def rounds(self) -> Callable[[int, Any], list[Path] | None]:
        """Runs that are there, or, in iterated mode, those that the policy of the moment makes."""
        settings, algo = self.settings, self.algo
        if not algo.rounds:
            return lambda number, agent: [Path(run) for run in settings.data_sets]
        return CollectRound(
            self.path / "rounds",
            self.tasks,
            kind=settings.layout_kind,
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
        """Success rates on layouts of the kind that training learns from, in regions none that it ever draws."""
        settings = self.settings
        results = run_episodes(
            agent.acting(),
            [get_task(name) for name in self.tasks],
            settings.evaluate_episodes,
            layouts=settings.layout_kind,
            num_envs=settings.num_envs,
            engine=str(settings.engine["name"]),
            look=settings.look,
            engine_options=settings.engine_options,
        )
        return success_rates(results)


def stored_config(init: str) -> dict[str, Any]:
    """The policy's config in a folder of ours, or of a shipped policy; empty for everything else."""
    source = Path(shipped_or_path(init))
    return read_config(source) if source.is_dir() and is_ours(source) else {}


def is_chat_model(init: str) -> bool:
    """True if a folder holds a vision-language model in one of InternVL's two layouts."""
    return Path(init).is_dir() and not is_ours(init) and (Path(init) / CONFIG_FILE).is_file()


def check_start(init: str) -> None:
    """See that there is something to start from, without loading it.

    Raises:
        UnknownNameError: if there is not.
    """
    known = [*SHIPPED_NAMES, *(f"{RANDOM}{name}" for name in PRESETS)]
    if init not in known and not Path(init).exists():
        raise UnknownNameError("init (a name or an existing folder)", init, known)


def initial_policy(
    settings: TrainSettings, init: str, statistics: str | None = None, say: Callable[[str], None] = lambda text: None
) -> tuple[VlaserPolicy, Processor, bool]:
    """The Vlaser policy that a run starts from, its processor, and whether the statistics in it stay.

    Args:
        settings: of the run.
        init: a name or an existing folder.
        statistics: ``"keep"``, ``"widen"``, ``"data"``, or ``None`` for what fits the start. Where the data's are to
            come, the processor holds others until they are known.
        say: told what is worth knowing about the start.

    Raises:
        InvalidConfigError: for ``"keep"`` or ``"widen"`` and a start with random weights.
        MissingAssetError: for a policy without its statistics.
    """
    device = own_device(choose_device(settings.device))
    if init.startswith(RANDOM):
        policy, processor = random_policy(
            init, settings.robot, settings.settings, settings.seed, device, tokenizer=settings.tokenizer
        )
        _check_has_statistics(init, statistics, has=False)
        return policy, processor, False
    source = shipped_or_path(init)
    check_start(init)
    policy, report = load_policy(
        source,
        robot=settings.robot,
        dtype=torch.float32,
        device=device,
        seed=settings.seed,
        settings=settings.settings,
        check=settings.check_weights,
        new_expert="expert" in settings.fresh,
    )
    is_policy = report.layout != "vlm"
    _check_has_statistics(init, statistics, has=is_policy)
    if not is_policy:
        say(f"{init} is a vision-language model: the action expert starts with random weights")
    policy.reset_parameters(settings.seed, settings.fresh)
    is_trained = is_policy and "expert" not in settings.fresh
    keeps = is_policy and (statistics or ("keep" if is_trained else "data")) != "data"
    if is_trained and not keeps:
        say(f"Warning: the data's statistics replace those of {init}, so that its outputs mean something else at once")
    known = None if keeps else OF_ROBOT[str(policy.config.robot)]
    processor = Processor.load(
        source, policy.config, robot=policy.config.robot, statistics=known, tokenizer=settings.tokenizer
    )
    return policy, processor, keeps


def _check_has_statistics(init: str, statistics: str | None, *, has: bool) -> None:
    if statistics in ("keep", "widen") and not has:
        raise InvalidConfigError(
            f"{init} is no policy yet: its action expert starts with random weights, and there are no statistics to "
            f"keep; give the folder of a policy with init=, or train one first (algo=sft without "
            f"algo.statistics={statistics})."
        )
