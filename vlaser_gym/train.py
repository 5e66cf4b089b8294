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
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from vlaser_gym.agents.learners.clipping import Clipped
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
from vlaser_gym.agents.vlaser.agent import (
    RANDOM,
    SHIPPED_NAMES,
    VlaserAgent,
    choose_device,
    random_policy,
    shipped_or_path,
)
from vlaser_gym.agents.vlaser.checkpoint import load_policy
from vlaser_gym.agents.vlaser.config import PRESETS
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import Processor
from vlaser_gym.agents.vlaser.statistics import FILE_NAME as STATISTICS_FILE
from vlaser_gym.agents.vlaser.statistics import OF_ROBOT, Statistics
from vlaser_gym.agents.vlaser.versions import AGENT_VERSIONS, why_another_version
from vlaser_gym.cli import check_least, check_unread, run, typed
from vlaser_gym.envs.engines import check_counts, check_engine
from vlaser_gym.envs.tasks import by_robot, get_task, resolve
from vlaser_gym.errors import InvalidConfigError, StorageError, UnknownNameError
from vlaser_gym.evaluation.files import parse_object
from vlaser_gym.evaluation.lerobot import LeRobotReader
from vlaser_gym.evaluation.store import check_writable
from vlaser_gym.evaluation.table import make_console

SETTINGS_FILE = "settings.json"
#: Version of what that file means. In the first, which says no number, ``init=nano`` meant random weights.
SCHEMA = 2
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
        return {**kept, "robot": self.robot or "widowx", "schema": SCHEMA}


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
        if isinstance(algo, SftSettings) and init in SHIPPED_NAMES:
            print(f"init={init} is this package's trained policy; random weights, its former meaning: {RANDOM}{init}.")
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
    start = _prepare(settings, algo, init, path, workers)
    if workers.leads:
        print(f"Run directory: {path}", f"{init}: " + "\n".join(start.describe()), sep="\n")
    trainer = SupervisedFineTuning(
        start.policy,
        start.processor,
        Batches(start.data, start.processor, settings.seed),
        algo,
        path,
        seed=settings.seed,
        workers=workers,
        save_every=settings.save_every,
        log_every=settings.log_every,
        evaluate=_evaluation(settings, start.processor) if settings.evaluate_episodes else None,
        evaluate_every=settings.evaluate_every or algo.steps,
        report=_print_row,
    )
    if workers.leads:
        _claim(path, {**settings.stored(), "init": init})
        _record_start(path, trainer.step, {**settings.stored(), "init": init, **start.record()})
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
            _claim_for_agent(path, {**settings.stored(), "init": init}, processor.robot)
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
    _claim_for_agent(path, {**settings.stored(), "init": init}, processor.robot)
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


@dataclass(frozen=True)
class _Prepared:
    """What supervised training begins with.

    Attributes:
        policy: to start from.
        processor: with the statistics that normalise the data.
        data: the demonstrations.
        statistics: whose those are: ``"keep"`` (the policy's), ``"data"``, or ``"run"`` (of the run that goes on).
        clipped: what they clip of the data.
    """

    policy: VlaserPolicy
    processor: Processor
    data: Demonstrations
    statistics: str
    clipped: Clipped

    def record(self) -> dict[str, Any]:
        """For ``starts.jsonl``."""
        return {"rows": len(self.data), "statistics": self.statistics, "clipped": asdict(self.clipped)}

    def describe(self) -> list[str]:
        """For the screen."""
        count = sum(p.numel() for p in self.policy.parameters())
        lines = [f"{count:,} parameters; {len(self.data):,} rows of {self.data.num_episodes} episodes"]
        if self.statistics == "data":
            return [*lines, "Statistics: those of the data."]
        whose = {"keep": "those of the policy", "run": "those that the run began with"}[self.statistics]
        lines.append(f"Statistics: {whose}. {self.clipped.line()}.")
        return [*lines, *(f"Warning: {sentence}" for sentence in self.clipped.warnings())]


def _prepare(settings: TrainSettings, algo: SftSettings, init: str, path: Path, workers: Workers) -> _Prepared:
    """The policy to start from, the data, and the statistics that both go by.

    A run that is continued keeps the statistics that it began with.
    """
    policy, processor, keeps = _start(settings, init, algo.statistics)
    if settings.evaluate_episodes:
        _check_robot(settings, init, processor)
    data = _demonstrations(settings, policy.config.horizon, processor, workers)
    stored = path / POLICY_FOLDER / STATISTICS_FILE
    if stored.is_file():
        whose, statistics = "run", Statistics.load(stored)
    elif keeps:
        whose, statistics = "keep", processor.statistics
    else:
        whose, statistics = "data", data.statistics()
    processor = replace(processor, statistics=statistics)
    return _Prepared(policy, processor, data, whose, Clipped.of(data, statistics))


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
    """The policy that a learner goes on from, and its processor, with the policy's own statistics.

    Raises:
        InvalidConfigError: for a start with random weights.
        MissingAssetError: for a policy without its statistics.
    """
    return _start(settings, init, "keep")[:2]


def _start(settings: TrainSettings, init: str, statistics: str | None) -> tuple[VlaserPolicy, Processor, bool]:
    """What a run starts from, and whether the statistics in its processor stay.

    Args:
        settings: of the run.
        init: a name or an existing folder.
        statistics: ``"keep"``, ``"data"``, or ``None`` for what fits the start. Where the data's are to come, the
            processor holds others until they are known.
    """
    device = own_device(choose_device(settings.device))
    if init.startswith(RANDOM):
        _check_has_statistics(init, statistics, has=False)
        return *random_policy(init, settings.robot, settings.settings, settings.seed, device), False
    source = shipped_or_path(init)
    if not Path(source).exists():
        names = [*SHIPPED_NAMES, *(f"{RANDOM}{name}" for name in PRESETS)]
        raise UnknownNameError("init (a name or an existing folder)", init, names)
    policy, report = load_policy(
        source,
        robot=settings.robot,
        dtype=torch.float32,
        device=device,
        seed=settings.seed,
        settings=settings.settings,
    )
    _check_has_statistics(init, statistics, has=report.layout != "vlm")
    if report.layout == "vlm":
        print(f"{init} is a vision-language model: the action expert starts with random weights")
    policy.reset_parameters(settings.seed, settings.fresh)
    trained = report.layout != "vlm" and "expert" not in settings.fresh
    keeps = report.layout != "vlm" and (statistics or ("keep" if trained else "data")) == "keep"
    if trained and not keeps:
        print(
            f"Warning: the data's statistics replace those of {init}, so that its outputs mean something else at once"
        )
    known = None if keeps else OF_ROBOT[str(policy.config.robot)]
    return policy, Processor.load(source, policy.config, statistics=known), keeps


def _check_has_statistics(init: str, statistics: str | None, *, has: bool) -> None:
    if statistics == "keep" and not has:
        raise InvalidConfigError(
            f"{init} is no policy yet: its action expert starts with random weights, and there are no statistics to "
            f"keep; give the folder of a policy with init=, or train one first (algo=sft without algo.statistics=keep)."
        )


def _check_given(
    settings: TrainSettings, algo: SftSettings | PpoSettings | Sb3Settings | RoundSettings, init: str
) -> None:
    """Raise :class:`InvalidConfigError` for what an algorithm cannot begin with, or would not read."""
    if isinstance(algo, PpoSettings | RoundSettings) and init.startswith(RANDOM):
        raise InvalidConfigError(
            f"algo={algo.name} goes on from a policy, but init={init} has random weights; give the folder of a policy, "
            "or init=nano, the trained one that comes with this package."
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
    before = parse_object(file.read_bytes())
    if before is None or not isinstance(before.get("algo", {}), dict):
        raise StorageError(f"{file} is damaged: expected the run's settings; restore the file or choose another run=.")
    if "schema" not in before and before.get("init") in PRESETS:
        before["init"] = f"{RANDOM}{before['init']}"
    differing = sorted(k for k in stored if before.get(k) != json.loads(json.dumps(stored[k])))
    name, wanted = (kept.get("algo", {}).get("name") for kept in (before, stored))
    if name != wanted:
        raise StorageError(f"{path} holds a run of algo={name}, not {wanted}; choose another run= or algo={name}.")
    # What the weights have learned by cannot change on the way; runs from before the key have none in their settings.
    bounds = [kept.get("algo", {}).get("statistics") for kept in (before, stored)]
    if bounds[0] != bounds[1]:
        raise StorageError(
            f"{path} holds a run that began with algo.statistics={bounds[0] or 'null'}, not {bounds[1] or 'null'}; "
            "choose another run= or the same setting."
        )
    # Another schedule and more data are decisions that may be taken on the way; they go on record.
    differing = [name for name in differing if name not in ("algo", "data", "agent_version", "schema")]
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


def _claim_for_agent(path: Path, stored: dict[str, Any], robot: str) -> None:
    """The same for a run that learns from what the policy did: not with two versions of the agent in one run."""
    file = path / SETTINGS_FILE
    version = json.loads(file.read_text()).get("agent_version", 1) if file.is_file() else AGENT_VERSIONS[robot]
    outdated = why_another_version(robot, version)
    if outdated is not None:
        raise StorageError(f"{path} holds a run {outdated}. Begin again with another run=.")
    _claim(path, {**stored, "agent_version": AGENT_VERSIONS[robot]})


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
