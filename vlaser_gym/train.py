"""Train a policy: ``python -m vlaser_gym.train algo=sft data=datasets/demonstrations``; ``--help`` lists the keys.

``algo=ppo init=FOLDER`` (or ``grpo``) goes on from a policy, in the environments; ``algo=dpo`` and ``algo=nft`` learn
from stored episodes, given by ``data=RUNS`` or collected in rounds; ``algo=sb3_ppo`` and ``sb3_sac`` are
Stable-Baselines3's own, from the privileged state.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from vlaser_gym.agents.learners.collection import CollectRound
from vlaser_gym.agents.learners.curves import draw_curves, read_metrics
from vlaser_gym.agents.learners.dataset import Batches, Demonstrations
from vlaser_gym.agents.learners.distributed import Workers, joined_workers, own_device
from vlaser_gym.agents.learners.dpo import DpoSettings, PreferenceTrainer
from vlaser_gym.agents.learners.evaluation import run_episodes, success_rates
from vlaser_gym.agents.learners.gripper_column import GripperColumn
from vlaser_gym.agents.learners.nft import NegativeAwareTrainer, NftSettings
from vlaser_gym.agents.learners.ppo_settings import GrpoSettings, PpoSettings
from vlaser_gym.agents.learners.rounds import RoundSettings, RoundTrainer, Source
from vlaser_gym.agents.learners.sb3_settings import Sb3Settings
from vlaser_gym.agents.learners.sft import POLICY_FOLDER, SftSettings, SupervisedFineTuning
from vlaser_gym.agents.vlaser.agent import SHIPPED, VlaserAgent, choose_device, nano_processor
from vlaser_gym.agents.vlaser.checkpoint import load_policy
from vlaser_gym.agents.vlaser.config import PRESETS, VlaserConfig
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import Processor
from vlaser_gym.agents.vlaser.statistics import Statistics
from vlaser_gym.agents.vlaser.tokenizer import ByteTokenizer
from vlaser_gym.cli import check_least, check_unread, run, typed
from vlaser_gym.envs.engines import check_counts, check_engine
from vlaser_gym.envs.tasks import by_robot, get_task, resolve
from vlaser_gym.errors import InvalidConfigError, StorageError, UnknownNameError
from vlaser_gym.evaluation.lerobot import LeRobotReader
from vlaser_gym.evaluation.store import check_writable
from vlaser_gym.evaluation.table import make_console

SETTINGS_FILE = "settings.json"
#: Settings that may differ when a run is continued.
_FREE = ("run", "device", "threads", "log_every", "save_every", "num_envs", "max_minutes", "engine")


@dataclass
class TrainSettings:
    """What ``configs/train.yaml`` holds; the comments there say what each means."""

    data: Any
    gripper: str | None
    init: Any
    robot: str | None
    run: str | None
    seed: int
    device: str | None
    threads: int | None
    log_every: int
    save_every: int
    evaluate_every: int
    evaluate_episodes: int
    task: Any
    look: str | None
    num_envs: int
    max_minutes: float | None
    fresh: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    algo: dict[str, Any] = field(default_factory=dict)
    engine: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_config(cls, config: DictConfig) -> TrainSettings:
        """Settings of the right types and within their ranges.

        Raises:
            InvalidConfigError: with the key and what was expected.
        """
        settings = typed(cls, config)
        settings.look = check_engine(str(settings.engine["name"]), settings.look)
        check_counts(settings.engine)
        check_least(settings, seed=0, log_every=1, save_every=1, num_envs=1, evaluate_every=0, evaluate_episodes=0)
        check_least(settings, or_null=True, threads=1, max_minutes=0)
        GripperColumn.parse(settings.gripper)
        return settings

    @property
    def inits(self) -> list[str]:
        """What to start from, one run each."""
        return [self.init] if isinstance(self.init, str) else [str(name) for name in self.init]

    @property
    def data_sets(self) -> list[str]:
        """Folders of the demonstrations."""
        return [self.data] if isinstance(self.data, str) else [str(path) for path in self.data]

    def stored(self) -> dict[str, Any]:
        """What a run keeps of its settings, and what must agree to continue it."""
        kept = {name: value for name, value in asdict(self).items() if name not in _FREE}
        return {**kept, "robot": self.robot or "widowx"}


def main(config: DictConfig) -> None:
    """Train from every initialisation and tabulate the results."""
    settings = TrainSettings.from_config(config)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    path = Path(settings.run or f"runs/{settings.algo['name']}-{datetime.now():%Y%m%d-%H%M%S}")
    inits = settings.inits
    with joined_workers(choose_device(settings.device)) as workers:
        runs = {}
        for init in inits:
            runs[init] = path if len(inits) == 1 else path / _folder_name(init)
            _train(settings, init, runs[init], workers)
        if workers.leads and len(inits) > 1:
            _compare(runs, path)


def _train(settings: TrainSettings, init: str, path: Path, workers: Workers) -> None:
    """One run."""
    begun = time.monotonic()
    algo = _algorithm(settings)
    _check_given(settings, algo, init)
    if workers.leads:
        _check_same(path, {**settings.stored(), "init": init})
        check_writable(path)
    workers.barrier()
    if isinstance(algo, RoundSettings):
        _learn_in_rounds(settings, algo, init, path, workers, _clock(settings, begun))
        return
    if isinstance(algo, PpoSettings):
        _post_train(settings, algo, init, path, workers, _clock(settings, begun))
        return
    if isinstance(algo, Sb3Settings):
        _train_stock(settings, algo, init, path, workers, _clock(settings, begun))
        return
    policy, processor, data = _prepare(settings, init, path, workers)
    if workers.leads:
        count = sum(p.numel() for p in policy.parameters())
        print(
            f"Run directory: {path}\n{init}: {count:,} parameters; {len(data):,} rows of {data.num_episodes} episodes"
        )
    trainer = SupervisedFineTuning(
        policy,
        processor,
        Batches(data, processor, settings.seed),
        algo,
        path,
        seed=settings.seed,
        workers=workers,
        save_every=settings.save_every,
        log_every=settings.log_every,
        evaluate=_evaluation(settings, processor) if settings.evaluate_episodes else None,
        evaluate_every=settings.evaluate_every or algo.steps,
        report=_print_row,
    )
    if workers.leads:
        _claim(path, {**settings.stored(), "init": init})
        _record_start(path, trainer.step, {**settings.stored(), "init": init, "rows": len(data)})
    finished = trainer.train(_clock(settings, begun))
    if workers.leads:
        hint = "" if finished else f"; the time is up, the same command with run={path} goes on"
        print(f"Step {trainer.step} of {algo.steps}. Policy: {path / POLICY_FOLDER}{hint}")


def _post_train(
    settings: TrainSettings, algo: PpoSettings, init: str, path: Path, workers: Workers, stop: Callable[[], bool]
) -> None:
    """Reinforcement learning in the environments."""
    # Imported here: Stable-Baselines3 takes seconds that the other algorithms need not wait.
    from vlaser_gym.agents.learners.grpo import FlowGRPO  # noqa: PLC0415
    from vlaser_gym.agents.learners.post_training import (  # noqa: PLC0415
        make_chain_lanes,
        make_group_lanes,
        task_slots,
    )
    from vlaser_gym.agents.learners.ppo import FlowPPO  # noqa: PLC0415

    in_groups = isinstance(algo, GrpoSettings)
    make: Callable[..., Any] = make_group_lanes if in_groups else make_chain_lanes
    learner: type[FlowPPO] = FlowGRPO if in_groups else FlowPPO
    policy, processor = initial_policy(settings, init)
    _check_robot(settings, init, processor)
    lanes = make(
        resolve(settings.task),
        settings.num_envs,
        processor,
        policy.config,
        algo,
        seed=settings.seed,
        workers=workers,
        engine=str(settings.engine["name"]),
        look=settings.look,
        engine_options={key: value for key, value in settings.engine.items() if key != "name"},
    )
    try:
        trainer = learner(
            policy,
            processor,
            lanes,
            algo,
            path,
            seed=settings.seed,
            workers=workers,
            evaluate=_evaluation(settings, processor) if settings.evaluate_episodes else None,
            evaluate_every=settings.evaluate_every or algo.iterations,
            stop=stop,
            report=_print_row,
        )
        if workers.leads:
            _claim(path, {**settings.stored(), "init": init})
            print(f"Run directory: {path}\n{init}: " + trainer.describe())
            _say_shares(len(resolve(settings.task)), task_slots(settings.num_envs, algo, workers))
        finished = trainer.run()
    finally:
        lanes.close()
    if workers.leads:
        hint = "" if finished else f"; the time is up, the same command with run={path} goes on"
        print(f"Iteration {trainer.iteration} of {algo.iterations}. Policy: {path / POLICY_FOLDER}{hint}")


def _train_stock(
    settings: TrainSettings, algo: Sb3Settings, init: str, path: Path, workers: Workers, stop: Callable[[], bool]
) -> None:
    """Stable-Baselines3's own algorithms."""
    from vlaser_gym.agents.learners.sb3 import MODEL_FILE, StockTraining, make_state_lanes  # noqa: PLC0415

    if workers.size > 1:
        raise InvalidConfigError(f"{algo.name} trains in one process: start it without torchrun.")
    lanes = make_state_lanes(
        resolve(settings.task),
        settings.num_envs,
        algo,
        seed=settings.seed,
        engine=str(settings.engine["name"]),
        look=settings.look,
        engine_options={key: value for key, value in settings.engine.items() if key != "name"},
    )
    try:
        training = StockTraining(
            lanes, algo, path, seed=settings.seed, device=settings.device or "cpu", stop=stop, report=_print_row
        )
        _claim(path, {**settings.stored(), "init": init})
        print(f"Run directory: {path}; {algo.name} at {training.timesteps:,} of {algo.timesteps:,} actions")
        _say_shares(len(resolve(settings.task)), settings.num_envs)
        finished = training.run()
        if finished and settings.evaluate_episodes:
            _print_row(training.evaluate(settings.evaluate_episodes))
    finally:
        lanes.close()
    hint = "" if finished else f"; the time is up, the same command with run={path} goes on"
    print(f"{training.timesteps:,} of {algo.timesteps:,} actions. Model: {path / MODEL_FILE}{hint}")


def _learn_in_rounds(
    settings: TrainSettings, algo: RoundSettings, init: str, path: Path, workers: Workers, stop: Callable[[], bool]
) -> None:
    """Preferences among stored episodes, or what succeeded in them."""
    if workers.size > 1:
        raise InvalidConfigError(f"algo={algo.name} trains in one process; start it without torchrun.")
    policy, processor = initial_policy(settings, init)
    if algo.rounds or settings.evaluate_episodes:
        _check_robot(settings, init, processor)
    kinds: dict[type[RoundSettings], type[RoundTrainer]] = {
        DpoSettings: PreferenceTrainer,
        NftSettings: NegativeAwareTrainer,
    }
    trainer = kinds[type(algo)](
        policy,
        processor,
        _runs_of_a_round(settings, algo, init, path),
        algo,
        path,
        seed=settings.seed,
        save_every=settings.save_every,
        log_every=settings.log_every,
        evaluate=_evaluation(settings, processor) if settings.evaluate_episodes else None,
        evaluate_every=settings.evaluate_every,
        report=_print_row,
        say=make_console().print,
    )
    _claim(path, {**settings.stored(), "init": init})
    print(f"Run directory: {path}\n{init}: {trainer.describe()}")
    finished = trainer.train(stop)
    hint = "" if finished else f"; the time is up, the same command with run={path} goes on"
    print(f"Round {trainer.round} of {trainer.rounds}, step {trainer.total}. Policy: {path / POLICY_FOLDER}{hint}")


def _runs_of_a_round(settings: TrainSettings, algo: RoundSettings, init: str, path: Path) -> Source:
    """Runs that are there, or, in iterated mode, those that the policy of the moment makes."""
    if not algo.rounds:
        return lambda number, agent: [Path(run) for run in settings.data_sets]
    return CollectRound(
        path / "rounds",
        resolve(settings.task),
        layouts=algo.layouts,
        trials=algo.trials,
        seed=settings.seed,
        name=f"{algo.name} of {init}",
        terminate_on_success=algo.terminate_on_success,
        look=settings.look,
        num_envs=settings.num_envs,
        engine=settings.engine,
    )


_ALGORITHMS: dict[str, type[SftSettings] | type[PpoSettings] | type[Sb3Settings] | type[RoundSettings]] = {
    "sft": SftSettings,
    "ppo": PpoSettings,
    "grpo": GrpoSettings,
    "dpo": DpoSettings,
    "nft": NftSettings,
    "sb3_ppo": Sb3Settings,
    "sb3_sac": Sb3Settings,
}


def _algorithm(settings: TrainSettings) -> SftSettings | PpoSettings | Sb3Settings | RoundSettings:
    name = str(settings.algo.get("name"))
    if name not in _ALGORITHMS:
        raise UnknownNameError("algorithm", name, _ALGORITHMS)
    return typed(_ALGORITHMS[name], DictConfig(settings.algo))


def _prepare(
    settings: TrainSettings, init: str, path: Path, workers: Workers
) -> tuple[VlaserPolicy, Processor, Demonstrations]:
    """The policy to start from, its processor with the data's statistics, and the data.

    A run that is continued keeps the statistics that it began with.
    """
    policy, processor = initial_policy(settings, init)
    if settings.evaluate_episodes:
        _check_robot(settings, init, processor)
    data = _demonstrations(settings, policy.config.horizon, processor, workers)
    stored = path / POLICY_FOLDER
    statistics = Statistics.load(stored) if (stored / "statistics.json").is_file() else data.statistics()
    return policy, _with_statistics(processor, statistics), data


def _demonstrations(settings: TrainSettings, horizon: int, processor: Processor, workers: Workers) -> Demonstrations:
    """The first process decodes the pictures; the others wait, then read the same episodes."""
    paths, gripper = settings.data_sets, GripperColumn.parse(settings.gripper)
    groups = workers.agree([len(LeRobotReader(path).groups) for path in paths])
    readers = [LeRobotReader(path, count) for path, count in zip(paths, groups, strict=True)]
    if not workers.leads:
        workers.barrier()
    data = Demonstrations(readers, processor.robot, horizon, processor.resize, gripper)
    if workers.leads:
        workers.barrier()
    return data


def initial_policy(settings: TrainSettings, init: str) -> tuple[VlaserPolicy, Processor]:
    """The policy that a run starts from, and its processor."""
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


def _check_given(
    settings: TrainSettings, algo: SftSettings | PpoSettings | Sb3Settings | RoundSettings, init: str
) -> None:
    """Raise :class:`InvalidConfigError` for what an algorithm cannot begin with, or would not read."""
    if isinstance(algo, PpoSettings | RoundSettings) and init in PRESETS:
        raise InvalidConfigError(
            f"algo={algo.name} goes on from a policy, but init={init} is a preset with random weights; give the folder "
            f"of a policy, such as init={SHIPPED / 'nano'}, which came with this package."
        )
    if isinstance(algo, PpoSettings | Sb3Settings):
        reason = f"algo={algo.name}, which logs in its own steps and has algo.save_every"
        check_unread("train", settings, ("log_every", "save_every"), reason)
    if isinstance(algo, Sb3Settings):
        check_unread("train", settings, ("evaluate_every",), f"algo={algo.name}, which evaluates at the end")
    if not isinstance(algo, SftSettings):
        check_unread("train", settings, ("gripper",), f"algo={algo.name}, which reads no data set")


def _check_robot(settings: TrainSettings, init: str, processor: Processor) -> None:
    """Raise :class:`InvalidConfigError` if the tasks are not of the policy's robot."""
    robots = by_robot(get_task(name) for name in resolve(settings.task))
    if set(robots) != {processor.robot}:
        raise InvalidConfigError(
            f"The policy {init} is for {processor.robot}, but task={settings.task} is of {', '.join(robots)}; choose "
            "tasks of the policy's robot with task=, or another init."
        )


def _with_statistics(processor: Processor, statistics: Statistics) -> Processor:
    return Processor(processor.prompt, processor.resize, processor.robot, statistics)


def _evaluation(settings: TrainSettings, processor: Processor) -> Callable[[VlaserPolicy], dict[str, float]]:
    tasks = [get_task(name) for name in resolve(settings.task)]
    options = {key: value for key, value in settings.engine.items() if key != "name"}

    def evaluate(policy: VlaserPolicy) -> dict[str, float]:
        results = run_episodes(
            # Compiling would wrap the layers that are being trained.
            VlaserAgent(policy, processor, compile=False),
            tasks,
            settings.evaluate_episodes,
            num_envs=settings.num_envs,
            engine=str(settings.engine["name"]),
            look=settings.look,
            engine_options=options,
        )
        return success_rates(results)

    return evaluate


def _check_same(path: Path, stored: dict[str, Any]) -> None:
    """Raise :class:`StorageError` if a run directory holds a run with other settings."""
    file = path / SETTINGS_FILE
    if not file.is_file():
        return
    before = json.loads(file.read_text())
    differing = sorted(k for k in stored if before.get(k) != json.loads(json.dumps(stored[k])))
    name, wanted = (kept.get("algo", {}).get("name") for kept in (before, stored))
    if name != wanted:
        raise StorageError(f"{path} holds a run of algo={name}, not {wanted}; choose another run= or algo={name}.")
    # Another schedule and more data are decisions that may be taken on the way; they go on record.
    differing = [name for name in differing if name not in ("algo", "data")]
    if differing:
        raise StorageError(
            f"{path} holds a run with another {differing[0]} ({before.get(differing[0])}); "
            "choose another run= or the same settings."
        )


def _claim(path: Path, stored: dict[str, Any]) -> None:
    """Keep the settings in the run directory, which refuses others from here on: once nothing is left to check."""
    _check_same(path, stored)
    path.mkdir(parents=True, exist_ok=True)
    (path / SETTINGS_FILE).write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")


def _record_start(path: Path, step: int, stored: dict[str, Any]) -> None:
    """One line in ``starts.jsonl`` for every time that the run was begun or continued."""
    with (path / "starts.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"step": step, **stored}) + "\n")
    if step:
        print(f"Continued at step {step}")


def _clock(settings: TrainSettings, begun: float) -> Callable[[], bool]:
    limit = settings.max_minutes
    return lambda: limit is not None and time.monotonic() - begun > 60 * limit


def _say_shares(tasks: int, slots: int) -> None:
    """Say which tasks come more often, where they do not come equally often."""
    if slots % tasks:
        print(
            f"{tasks} tasks take turns in {slots} places: the first {slots % tasks} have one more than the others; a "
            f"multiple of {tasks} would be fair."
        )


def _print_row(row: dict[str, float]) -> None:
    print("  ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)


def _folder_name(init: str) -> str:
    return re.sub(r"[^\w.-]+", "-", init).strip("-")


def _compare(runs: dict[str, Path], path: Path) -> None:
    """Table and curves of several initialisations."""
    from rich.table import Table  # noqa: PLC0415

    metrics = {init: read_metrics(folder / "metrics.jsonl") for init, folder in runs.items()}
    names = sorted({name for rows in metrics.values() for row in rows for name in row if "/" in name})
    table = Table(title="Last value of each metric, by initialisation")
    for heading in ("init", "step", *names):
        table.add_column(heading)
    for init, rows in metrics.items():
        last = {name: value for row in rows for name, value in row.items()}
        cells = [f"{last[name]:.4g}" if name in last else "-" for name in names]
        table.add_row(init, str(last.get("step", 0)), *cells)
    make_console().print(table)
    draw_curves(metrics, path / "curves.png")


if __name__ == "__main__":
    run("train", main)
