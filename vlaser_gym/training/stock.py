"""Stable-Baselines3's own PPO and SAC on these environments, from the privileged state.

For people who know these algorithms, and a yardstick: what they find from poses, without images, language or
demonstrations. Checkpoints are Stable-Baselines3's: ``model.zip``, ``normalization.pkl`` (its ``VecNormalize``: states
are brought to mean 0 and spread 1) and, for SAC, ``replay_buffer.pkl``. A run that goes on has the same networks,
optimizers and memory, and begins new episodes. Of their pickles only numbers are read: no code in a run directory runs.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.save_util import load_from_zip_file, recursive_setattr
from stable_baselines3.common.vec_env import VecEnv, VecMonitor, VecNormalize

from vlaser_gym.agents.sb3 import NotPlainError, plain
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.tracker import Tracker
from vlaser_gym.settings.algorithms import Sb3Settings
from vlaser_gym.storage.files import committed, storage_errors, storing_together
from vlaser_gym.storage.interrupts import Interrupts
from vlaser_gym.training.environments import check_shares
from vlaser_gym.training.job import Job
from vlaser_gym.training.metrics import MetricLogger
from vlaser_gym.training.trainer_state import reading
from vlaser_gym.wrappers.reward import Reward
from vlaser_gym.wrappers.sb3 import StableBaselines3VecEnv

Numbers = dict[str, float]
MODEL_FILE, REPLAY_FILE, NORMALIZATION_FILE = "model.zip", "replay_buffer.pkl", "normalization.pkl"
ALGORITHMS: dict[str, type[BaseAlgorithm]] = {"sb3_ppo": PPO, "sb3_sac": SAC}
#: Iterations (PPO) or episodes (SAC) between two lines of numbers.
_LOG_INTERVALS = {"sb3_ppo": 1, "sb3_sac": 48}


def make_state_env(
    tasks: Sequence[str],
    num_envs: int,
    settings: Sb3Settings,
    *,
    seed: int = 0,
    layouts: str = "region",
    engine: str = "mujoco",
    look: str | None = None,
    engine_options: Mapping[str, Any] | None = None,
) -> VecMonitor:
    """Environments that observe ``state`` on layouts of a kind, ended by success, with the reward that was asked
    for.
    """
    check_shares(tasks, num_envs)
    reward = Reward(settings.reward, settings.gamma, settings.subgoal_weights)
    env: Any = SceneVectorEnv(
        list(tasks),
        num_envs,
        engine=engine,
        look=look,
        layouts=layouts,
        observe=("state",),
        terminate_on_success=reward.ends_at_success,
        engine_options=engine_options,
    )
    lanes = VecMonitor(StableBaselines3VecEnv(reward(env), horizon=settings.horizon, gamma=settings.gamma))
    lanes.seed(seed)
    return lanes


class StockTraining:
    """A stock algorithm, its files and its metrics.

    Args:
        env: see :func:`make_state_env`.
        settings: see :class:`Sb3Settings`.
        path: run directory; a model in it is continued.
        seed: of the networks and of the order of everything.
        device: of the networks.
        layouts: kind of the evaluation's.
        evaluate_episodes: episodes of the evaluation at the end; 0: none.
        report: told each line of numbers.
        tracker: is told them too.
        say: told what a signal does.

    Attributes:
        stopped_by: the signal that ended :meth:`run`, if one did.

    Raises:
        InvalidConfigError: for options that the algorithm does not take.
    """

    def __init__(
        self,
        env: VecEnv,
        settings: Sb3Settings,
        path: str | Path,
        *,
        seed: int = 0,
        device: str = "cpu",
        layouts: str = "region",
        evaluate_episodes: int = 0,
        report: Callable[[Numbers], None] = lambda row: None,
        tracker: Tracker | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.settings, self.path = settings, Path(path)
        self.layouts, self.evaluate_episodes = layouts, evaluate_episodes
        stored = committed(self.path / NORMALIZATION_FILE)
        with reading(stored):
            self.env = _stored_normalization(stored, env) if stored.is_file() else VecNormalize(env, norm_reward=False)
        self.report, self.tracker = report, tracker
        self.metrics: MetricLogger | None = None
        self.stop: Callable[[], bool] = lambda: False
        self.interrupts = Interrupts(say)
        self.stopped_by: int | None = None
        self.model = self._make(seed, device)
        self._load(device)
        if self.timesteps:
            # The streams of the environments are not stored: the first seed would bring the first episodes again.
            self.env.seed(seed + self.timesteps)

    def _make(self, seed: int, device: str) -> BaseAlgorithm:
        algorithm: Any = ALGORITHMS[self.settings.name]
        gamma = self.settings.gamma ** (self.settings.horizon or 1)
        try:
            return algorithm(
                "MultiInputPolicy", self.env, gamma=gamma, seed=seed, device=device, **self.settings.options
            )
        except (TypeError, ValueError, AssertionError) as error:
            raise InvalidConfigError(
                f"algo.options should be keyword arguments of Stable-Baselines3's {algorithm.__name__}: {error}."
            ) from error

    def _load(self, device: str) -> None:
        """Put stored weights, counters and memory into the model: its own ``load`` would run what the file says."""
        file, memory = committed(self.path / MODEL_FILE), committed(self.path / REPLAY_FILE)
        if not file.is_file():
            return
        with reading(file):
            _, parameters, variables = load_from_zip_file(file, device=device, load_data=False)
            self.model.set_parameters(parameters, exact_match=True, device=device)
            for name, value in (variables or {}).items():
                recursive_setattr(self.model, f"{name}.data", value.data)
            for name, count in _counters(file).items():
                setattr(self.model, name, count)
        if isinstance(self.model, SAC):
            with reading(memory), _plain_only(memory), memory.open("rb") as stream:
                self.model.replay_buffer = _of_kind(plain(stream), ReplayBuffer)
                self.model.replay_buffer.device = self.model.device
            count = self.model.replay_buffer.n_envs
            if count != self.env.num_envs:
                raise InvalidConfigError(
                    f"{self.path} was trained in {count} environments, for which its memory has a column each: "
                    f"continue it with num_envs={count}, not {self.env.num_envs}."
                )

    @property
    def timesteps(self) -> int:
        """Actions that were taken."""
        return int(self.model.num_timesteps)

    def describe(self) -> str:
        """The progress of the run, as a sentence."""
        return f"{self.settings.name} at {self.timesteps:,} of {self.settings.timesteps:,} actions"

    def summary(self) -> str:
        """The progress of the run and the path of its model, as a sentence."""
        return f"{self.timesteps:,} of {self.settings.timesteps:,} actions. Model: {self.path / MODEL_FILE}"

    def record(self) -> dict[str, Any]:
        """Nothing to record besides the settings."""
        return {}

    def close(self) -> None:
        """Stop the environments."""
        self.env.close()

    def run(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Take the actions that are left, or as many as go before ``stop`` says yes; returns whether all are."""
        self.stop, begun = stop, self.timesteps
        with MetricLogger(self.path, begun, self.tracker) as self.metrics:
            self.model.set_logger(Logger(None, [_MetricWriter(self.metrics, self.report)]))
            if begun < self.settings.timesteps:
                with self.interrupts:
                    self.model.learn(
                        self.settings.timesteps - begun,
                        callback=_Keeper(self),
                        log_interval=_LOG_INTERVALS[self.settings.name],
                        reset_num_timesteps=begun == 0,
                    )
                    self.save()
            self.stopped_by = self.interrupts.received
        finished = self.timesteps >= self.settings.timesteps
        if finished and self.stopped_by is None and self.evaluate_episodes:
            self.report(self.evaluate(self.evaluate_episodes))
        return finished

    def save(self) -> None:
        """Write the files: all of them, each whole, or none."""
        remedy = "make space there: the one before it is whole, and the same command goes on from it"
        with storage_errors(f"Cannot write the model to {self.path}", remedy):
            self.path.mkdir(parents=True, exist_ok=True)
            self._write_files()

    def _write_files(self) -> None:
        with storing_together(self.path) as files:
            if isinstance(self.model, SAC):
                self.model.save_replay_buffer(files / REPLAY_FILE)
            self.env.save(str(files / NORMALIZATION_FILE))
            self.model.save(files / MODEL_FILE)
        if self.metrics is not None:
            self.metrics.keep(self.timesteps)

    def evaluate(self, episodes: int) -> Numbers:
        """Share of successes, and of episodes that ended within reach, without noise, on layouts 0, 1, ... of the kind
        that is learned from; those of the grid come again when they have all been.
        """
        ends: list[dict[str, Any]] = []
        lanes, self.env.training = self.env.num_envs, False
        for first in range(0, episodes, lanes):
            self.env.set_options([{"layout": self._layout(i, first + i)} for i in range(lanes)])
            observation, running = self.env.reset(), np.arange(lanes) < episodes - first
            while running.any():
                actions, _ = self.model.predict(observation, deterministic=True)
                observation, _, dones, infos = self.env.step(actions)
                ends += [infos[i] for i in np.flatnonzero(dones & running)]
                running &= ~dones
        names = {"success": "evaluation/success", "reached": "evaluation/reached"}
        row = {label: float(np.mean([end[name] for end in ends])) for name, label in names.items() if name in ends[0]}
        self._keep(row)
        return row

    def _layout(self, lane: int, number: int) -> str:
        """The ``number``-th layout of an evaluation, of the task that the environment began with."""
        (tasks,) = self.env.get_attr("tasks", 0)
        task = tasks[lane % len(tasks)]
        return f"{self.layouts}:{number % task.num_layouts if self.layouts == 'grid' else number}"

    def _keep(self, row: Numbers) -> None:
        """Add an evaluation to the run's numbers, once."""
        with MetricLogger(self.path, self.timesteps, self.tracker) as metrics:
            if not metrics.scored(self.timesteps, "evaluation/"):
                metrics.add(self.timesteps, **row)


def _stored_normalization(file: Path, env: VecEnv) -> VecNormalize:
    with _plain_only(file), file.open("rb") as stream:
        stored: VecNormalize = _of_kind(plain(stream), VecNormalize)
        stored.set_venv(env)
    return stored


def _of_kind(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"expected a {kind.__name__}; got a {type(value).__name__}")
    return value


@contextmanager
def _plain_only(file: Path) -> Iterator[None]:
    try:
        yield
    except NotPlainError as error:
        raise InvalidConfigError(
            f"{file} holds more than numbers ({error}), and reading that could run any code: choose another run=."
        ) from error


def _counters(file: Path) -> dict[str, int]:
    """The counters of a model, by the names of its attributes."""
    with zipfile.ZipFile(file) as archive:
        data = json.loads(archive.read("data"))
    return {name: int(data[name]) for name in ("num_timesteps", "_n_updates", "_episode_num") if name in data}


class _Keeper(BaseCallback):  # type: ignore[misc]  # Stable-Baselines3 is not followed by the type checker
    """Logs how episodes end, writes checkpoints, and stops in time."""

    def __init__(self, training: StockTraining) -> None:
        super().__init__()
        self.training, self.saved = training, training.timesteps
        self.reached: deque[bool] = deque(maxlen=100)

    def _on_step(self) -> bool:
        ends = [info for info, done in zip(self.locals["infos"], self.locals["dones"], strict=True) if done]
        self.reached.extend(info["reached"] for info in ends if "reached" in info)
        if self.reached:
            self.logger.record("rollout/reached", float(np.mean(self.reached)))
        if self.num_timesteps - self.saved >= self.training.settings.save_every:
            self.saved = self.num_timesteps
            self.training.save()
        return not self.training.stop() and self.training.interrupts.received is None


class _MetricWriter(KVWriter):  # type: ignore[misc]
    """Stable-Baselines3's logger into the metrics of a run."""

    def __init__(self, metrics: MetricLogger, report: Callable[[Numbers], None]) -> None:
        self.metrics, self.report = metrics, report

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        """One line of numbers; JSON has no word for those that are not finite."""
        row = {name: float(value) for name, value in key_values.items() if name != "time/total_timesteps"}
        row = {name: value for name, value in row.items() if math.isfinite(value)}
        self.metrics.add(step, **row)
        self.report({"step": float(step), **row})

    def close(self) -> None:
        """The metrics are closed by the run."""


def build(job: Job) -> StockTraining:
    """``algo=sb3_ppo`` and ``algo=sb3_sac``."""
    settings = job.settings
    env = make_state_env(
        job.tasks,
        settings.num_envs,
        job.algo,
        seed=settings.seed,
        layouts=settings.layout_kind,
        engine=str(settings.engine["name"]),
        look=settings.look,
        engine_options=settings.engine_options,
    )
    job.say_shares(settings.num_envs)
    return StockTraining(
        env,
        job.algo,
        job.path,
        seed=settings.seed,
        device=settings.device or "cpu",
        layouts=settings.layout_kind,
        evaluate_episodes=settings.evaluate_episodes,
        report=job.report,
        tracker=job.tracker,
        say=job.say,
    )
