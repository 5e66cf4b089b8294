"""Record demonstrations: ``python -m vlaser_gym.collect agent=expert task=widowx``; ``--help`` lists the keys.

``store=training trials=8`` makes a run directory for ``algo=dpo``, ``nft`` and ``rft`` instead.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from omegaconf import DictConfig

from vlaser_gym.agents import Agent, make_agent
from vlaser_gym.agents.vlaser.processor import FILTERS, ResizeImage
from vlaser_gym.agents.vlaser.shipped import with_checkpoint
from vlaser_gym.cli import run, typed, words
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.engines import check_counts, check_engine, check_limit
from vlaser_gym.envs.instructions import Instructions, stored_instructions
from vlaser_gym.envs.robots import POLICY_CAMERA, get_setup
from vlaser_gym.envs.tasks import Task, by_robot, get_task, resolve
from vlaser_gym.envs.vector import FIRST_TRAINING_REGION, SceneVectorEnv
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.evaluation.evaluator import evaluate
from vlaser_gym.evaluation.lerobot import LeRobotWriter, check_images
from vlaser_gym.evaluation.plan import plan_episodes
from vlaser_gym.evaluation.recording import EpisodeCamera, LabelTap, Recorder, Resize
from vlaser_gym.evaluation.runner import Runner
from vlaser_gym.evaluation.store import read_records
from vlaser_gym.evaluation.table import EpisodeProgress, make_console
from vlaser_gym.evaluation.units import UnitsWatch
from vlaser_gym.settings.commands import CollectKeys
from vlaser_gym.settings.fields import check_unread

#: Settings that change how fast or how much is recorded, not what an episode holds.
_FREE = ("episodes", "first", "trials", "store", "group", "num_envs", "max_minutes", "output", "task", "engine")
_TIME_UP = "; the time is up, the same command goes on"
#: Settings of demonstrations alone.
_OF_DEMONSTRATIONS = (
    "only_successful",
    "every",
    "render",
    "tail",
    "skip",
    "image_size",
    "resize",
    "cameras",
    "images",
    "group",
)


@dataclass
class CollectSettings(CollectKeys):
    """The keys of the command, checked against what there is.

    Raises:
        InvalidConfigError: with the key and what was expected.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.look = check_engine(str(self.engine["name"]), self.look)
        check_counts(self.engine)
        check_images(self.images)
        self._check_cameras()
        if self.resize not in FILTERS:
            raise UnknownNameError("resize", self.resize, FILTERS)
        if self.instruction is not None:
            self.instruction = stored_instructions(self.instruction)
            Instructions.read(self.instruction).check(task.name for task in self.tasks)
        check_limit(self.engine, self.tasks, self.max_episode_steps)
        if self.checkpoint is None:
            self.agent = with_checkpoint(self.agent, None, next(iter(by_robot(self.tasks))))
        if self.store == "training":
            check_unread(self, _OF_DEMONSTRATIONS, "store=training")

    def _check_cameras(self) -> None:
        wanted, known = words(self.cameras), get_setup(self.tasks[0].robot_setup).cameras
        for name in wanted:
            if name not in known:
                raise UnknownNameError(f"camera of {self.tasks[0].name}", name, known)
        if POLICY_CAMERA not in wanted:
            raise InvalidConfigError(f"cameras= has the policy's camera in it too: cameras=policy,{','.join(wanted)}.")
        self.cameras = POLICY_CAMERA if wanted == [POLICY_CAMERA] else wanted

    @classmethod
    def from_config(cls, config: DictConfig) -> CollectSettings:
        """Settings of the right types and within their ranges; errors as above."""
        return typed(cls, config)

    @property
    def tasks(self) -> list[Task]:
        """The tasks meant by ``task``; of one robot."""
        spec = self.task if isinstance(self.task, str) else [str(name) for name in self.task or [""]]
        tasks = [get_task(name) for name in resolve(spec)]
        if len(by_robot(tasks)) > 1:
            raise InvalidConfigError(f"A data set holds one robot; task={self.task} names several: choose one.")
        return tasks

    def addresses(self) -> list[Address]:
        """Episodes to run, the tasks taking turns."""
        plan = plan_episodes(self.tasks, self.variant, self.layouts, self.episodes, self.trials)
        begin = FIRST_TRAINING_REGION + self.first
        plan = [
            a if a.layout_kind == "grid" else replace(a, layout=f"{a.layout_kind}:{begin + a.layout_index}")
            for a in plan
        ]
        return sorted(plan, key=lambda a: (a.trial, a.layout_index))

    def stored(self) -> dict[str, Any]:
        """The settings that the data set stores, which must agree to continue it."""
        kept = {key: value for key, value in asdict(self).items() if key not in _FREE}
        if not self.skip:
            del kept["skip"]  # data sets from before this setting say nothing of it
        return {"engine": self.engine["name"], **kept}


def main(config: DictConfig) -> None:
    """Record what is missing of the data set."""
    settings = CollectSettings.from_config(config)
    if settings.store == "training":
        _store_training(settings)
        return
    plan, setup = settings.addresses(), get_setup(settings.tasks[0].robot_setup)
    agent = make_agent({**settings.agent, **({"checkpoint": settings.checkpoint} if settings.checkpoint else {})})
    writer = LeRobotWriter(
        settings.output,
        fps=setup.control_hz,
        robot=setup.robot.name,
        images=settings.images,
        group=settings.group,
        settings=settings.stored(),
        flags=[flag for task in settings.tasks for flag in task.flags],
    )
    try:
        with writer, EpisodeProgress(make_console(stderr=True)) as progress:
            waiting = [address for address in plan if address not in writer.addresses]
            print(f"Data set: {settings.output} ({_count(writer)} are there already)")
            progress.start(0, len(waiting))
            if waiting:
                _record(settings, agent, waiting, writer, progress)
    except KeyboardInterrupt as interrupt:
        stored = f"Stopped. {_count(writer)} are stored in {settings.output}; the same command goes on."
        raise type(interrupt)(stored) from None
    hint = "" if writer.addresses.issuperset(plan) else _TIME_UP
    print(f"{_count(writer)}, {writer.total_frames} images in {settings.output}{hint}")


def _count(writer: LeRobotWriter) -> str:
    dropped = f" and {len(writer.dropped)} failed ones that are not kept" if writer.dropped else ""
    return f"{writer.total_episodes} episodes{dropped}"


def _store_training(settings: CollectSettings) -> None:
    """Run the episodes into a run directory, each to its step limit."""
    from vlaser_gym.training.collection import training_settings  # noqa: PLC0415  needs torch

    wanted = training_settings(
        settings.output,
        [task.name for task in settings.tasks],
        variant=settings.variant,
        layouts=settings.layouts,
        episodes=settings.episodes,
        trials=settings.trials,
        terminate_on_success=False,
        instruction=settings.instruction,
        max_episode_steps=settings.max_episode_steps,
        checkpoint=settings.checkpoint,
        look=settings.look,
        num_envs=settings.num_envs,
        max_minutes=settings.max_minutes,
        agent=settings.agent,
        engine=settings.engine,
    )
    try:
        with EpisodeProgress(make_console(stderr=True)) as progress:
            found = evaluate(
                wanted, lambda path, done, total: progress.start(done, total), progress.add, plan=settings.addresses()
            )
    except KeyboardInterrupt as interrupt:
        stored = f"Stopped. Finished episodes are stored in {settings.output}; the same command goes on."
        raise type(interrupt)(stored) from None
    hint = "" if found.complete else _TIME_UP
    print(f"{len(read_records(found.path))} episodes in {settings.output}{hint}")


def _record(
    settings: CollectSettings, agent: Agent, waiting: list[Address], writer: LeRobotWriter, progress: EpisodeProgress
) -> None:
    """Run the episodes and hand them to the writer."""
    begun = time.monotonic()

    def out_of_time() -> bool:
        """True once ``max_minutes`` have passed."""
        return settings.max_minutes is not None and time.monotonic() - begun > 60 * settings.max_minutes

    env = _make_env(settings, agent, min(settings.num_envs, len(waiting)))
    rendered = settings.every if settings.render == "decisions" else 1
    resize, cameras = _make_resize(settings), words(settings.cameras)
    camera = EpisodeCamera(env, env.engine, resize, settings.tail, rendered, cameras, settings.skip)
    tap = LabelTap(agent)
    recorder = Recorder(camera, tap, settings.every)
    units = UnitsWatch(str(settings.agent.get("name")))
    try:
        for result in Runner(camera, tap, waiting, out_of_time, str(settings.agent.get("name"))):
            units.see(result)
            if result.steps > settings.skip and (result.success or not settings.only_successful):
                writer.add(recorder.episode(result, env.addresses.index(result.address)))
            else:
                writer.drop(result.address)
            progress.add({"success": result.success})
    finally:
        env.close()


def _make_resize(settings: CollectSettings) -> Resize | None:
    if settings.image_size is None:
        return None
    transform = ResizeImage(settings.image_size, settings.resize)
    return lambda images: np.asarray(transform({"image": images})["pixels"], np.uint8)


def _make_env(settings: CollectSettings, agent: Agent, num_envs: int) -> SceneVectorEnv:
    return SceneVectorEnv(
        [task.name for task in settings.tasks],
        num_envs,
        engine=settings.engine["name"],
        look=settings.look,
        variant=settings.variant,
        observe=tuple(dict.fromkeys((*agent.observes, "instruction"))),
        autoreset_mode=AutoresetMode.DISABLED,
        record_states=True,
        engine_options={key: value for key, value in settings.engine.items() if key != "name"},
        max_episode_steps=settings.max_episode_steps,
        instruction=settings.instruction,
    )


def command() -> None:
    """``python -m vlaser_gym.collect``."""
    run("collect", main)
