"""Launchers: episodes run in this process, or on the workers of a Ray cluster.

A launcher runs episodes and hands back their results; the caller alone knows of run directories. So a run on many
machines leaves the same records as one here, and an episode that was lost on its way is simply run again.
"""

from __future__ import annotations

import os
import pickle
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from vlaser_gym.agents import Agent, make_agent, understood
from vlaser_gym.agents.base import agent_code
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.engines import lanes_that_fit
from vlaser_gym.envs.extensions import Extensions, unpack
from vlaser_gym.envs.robots import is_image
from vlaser_gym.errors import AgentError, GymError, GymWarning, InvalidConfigError, SimulationError, UnknownNameError
from vlaser_gym.evaluation.patience import Patience
from vlaser_gym.evaluation.runner import EpisodeResult, Runner, VectorEnv
from vlaser_gym.registry import import_extra

if TYPE_CHECKING:
    from vlaser_gym.evaluation.evaluator import EvalSettings

#: Asked before episodes begin; once it says yes, none begins any more.
Enough = Callable[[], bool]


class MakeEnv(Protocol):
    """Builds the vector environment of an evaluation."""

    def __call__(
        self, settings: EvalSettings, tasks: Sequence[str], num_envs: int, observe: Sequence[str]
    ) -> ClosableEnv:
        """An environment with autoreset mode DISABLED that records states."""


class ClosableEnv(VectorEnv, Protocol):
    """A vector environment that names its engine."""

    engine: Any

    def close(self) -> None:
        """Release agents, engines and processes."""


@dataclass(frozen=True)
class Introduction:
    """The description of the agent and of the engine.

    Attributes:
        origin: fields of every record that name agent, engine and look.
        agent_settings: what the agent tells of itself.
        robot: the only robot that it acts for; None if it is for any, or does not say.
    """

    origin: Mapping[str, Any]
    agent_settings: Mapping[str, Any]
    robot: str | None = None


@dataclass(frozen=True)
class Interruption:
    """The simulator failed.

    Attributes:
        running: episodes that it may have failed at.
        waiting: episodes that had not begun, or that it interrupted at no fault of theirs.
        error: what it said.
    """

    running: list[Address]
    waiting: list[Address]
    error: str


Event = EpisodeResult | Interruption


class Launcher(Protocol):
    """Runs episodes somewhere."""

    @property
    def sharing(self) -> int:
        """The number of workers that run at the same time."""

    def introduce(self, tasks: Sequence[str]) -> Introduction:
        """Build agent and engine and ask who they are."""

    def run(self, addresses: Sequence[Address], tasks: Sequence[str], lanes: int, enough: Enough) -> Iterator[Event]:
        """Results as episodes end, and one interruption if the simulator fails.

        Args:
            addresses: run each once, in about this order.
            tasks: all tasks among them.
            lanes: how many at the same time, on each worker.
            enough: see :data:`Enough`.
        """

    def close(self) -> None:
        """Free agents and engines."""


def check_launcher(options: Mapping[str, Any]) -> None:
    """Check that the settings of a launcher are within their ranges.

    Raises:
        UnknownNameError: for a launcher that does not exist.
        InvalidConfigError: if not.
    """
    name = options.get("name", "local")
    if name not in ("local", "ray"):
        raise UnknownNameError("launcher", name, ("local", "ray"))
    if name == "ray" and "workers" not in options:
        raise InvalidConfigError("launcher.name=ray alone lacks the launcher's other settings: give launcher=ray.")
    for key, least, meaning in (
        ("workers", 1, "a whole number from 1 on, or null"),
        ("cpus", 0.01, "above 0"),
        ("gpus", 0, "0 or more"),
        ("retries", 0, "0 or more"),
        ("patience", 1, "at least 1"),
    ):
        value = options.get(key, least)
        good = isinstance(value, int if key in ("workers", "retries") else int | float) and value >= least
        if not good and not (key == "workers" and value is None):
            raise InvalidConfigError(f"launcher.{key} must be {meaning}; got {value!r}.")


def make_launcher(settings: EvalSettings, make_env: MakeEnv, agent: Agent | None = None) -> Launcher:
    """The launcher that the settings name; it runs ``agent``, or the agent that the settings name."""
    if settings.launcher.get("name", "local") == "local":
        return LocalLauncher(settings, make_env, agent)
    return RayLauncher(settings, make_env)


class LocalLauncher:
    """One agent and one engine in this process.

    Raises:
        InvalidConfigError: for ``store=training`` with an agent that does not tell what it decides by.
    """

    sharing = 1

    def __init__(self, settings: EvalSettings, make_env: MakeEnv, agent: Agent | None = None) -> None:
        self.settings, self.make_env = settings, make_env
        self.name = str(settings.agent.get("name"))
        given = {} if settings.checkpoint is None else {"checkpoint": settings.checkpoint}
        self.agent = understood(agent) if agent is not None else make_agent({**settings.agent, **given})
        if settings.store == "training" and not hasattr(self.agent, "decided"):
            raise InvalidConfigError(
                f"store=training needs an agent that learns (it has a method decided); {self.name} has none: choose "
                "agent=vlaser, vlaser_nano or vlaser_explore."
            )
        seconds = settings.agent_timeout
        self._patience = None if seconds is None else Patience(seconds, self.name)
        self._env: ClosableEnv | None = None
        self._env_tasks: tuple[str, ...] = ()

    def introduce(self, tasks: Sequence[str]) -> Introduction:
        """Builds an environment to ask it."""
        env = self.make_env(self.settings, tasks, 1, self.agent.observes)
        try:
            engine = {"engine": env.engine.name, "engine_version": env.engine.version, "look": env.engine.look}
        finally:
            env.close()
        with agent_code(f"{self.name}.describe"):
            told = described(self.agent)
        return Introduction({"agent": self.name, **engine}, told, getattr(self.agent, "robot", None))

    def run(self, addresses: Sequence[Address], tasks: Sequence[str], lanes: int, enough: Enough) -> Iterator[Event]:
        """See :class:`Launcher`. The environment stays for a next call with the same tasks.

        Warns:
            GymWarning: if fewer episodes run at the same time because the machine's memory has no room for more.
        """
        env, used = self._environment(tuple(tasks), self._fitting(min(lanes, len(addresses))))
        keep = self.settings.store == "training"
        runner = Runner(env, self.agent, addresses, enough, self.name, self._patience, used, keep)
        told = getattr(env.engine, "told", {})
        try:
            for result in runner:
                task = result.address.task
                yield replace(result, environment=told[task]) if task in told else result
        except SimulationError as error:
            self._close_env()
            # The other environments did nothing wrong: their episodes just begin again.
            failed = {lane for lane in runner.running if error.lanes is None or lane in error.lanes}
            suspects = [address for lane, address in runner.running.items() if lane in failed]
            others = [address for lane, address in runner.running.items() if lane not in failed]
            yield Interruption(suspects, [*others, *runner.waiting], str(error))

    def close(self) -> None:
        """Close the environment, and hang up where the agent has somebody to hang up on."""
        self._close_env()
        if self._patience is not None:
            self._patience.close()
        with agent_code(f"{self.name}.close"):
            getattr(self.agent, "close", lambda: None)()

    def _fitting(self, lanes: int) -> int:
        """So many environments, or those that the memory has room for; an environment that is there has its memory."""
        if self._env is not None:
            return lanes
        pictures = any(map(is_image, self.agent.observes))
        fitting = lanes_that_fit(str(self.settings.engine["name"]), lanes, pictures)
        if fitting < lanes:
            warnings.warn(
                f"This machine's free memory has room for {fitting} of {lanes} environments of engine="
                f"{self.settings.engine['name']}: {fitting} episodes run at the same time. It changes the speed alone.",
                GymWarning,
                stacklevel=2,
            )
        return fitting

    def _environment(self, tasks: tuple[str, ...], lanes: int) -> tuple[ClosableEnv, bool]:
        """A vector environment with at least ``lanes`` environments, and True if all of them were used before."""
        if self._env is not None and self._env_tasks == tasks and self._env.num_envs >= lanes:
            return self._env, True
        self._close_env()
        self._env = self.make_env(self.settings, tasks, lanes, self.agent.observes)
        self._env_tasks = tasks
        return self._env, False

    def _close_env(self) -> None:
        env, self._env = self._env, None
        if env is not None:
            env.close()


def described(agent: Any) -> dict[str, Any]:
    """The settings that an agent reports by its optional method ``describe()`` because they decide its actions."""
    describe = getattr(agent, "describe", None)
    return {} if describe is None else dict(describe())


@dataclass(frozen=True)
class _Refusal:
    """A worker's :class:`GymError`, in words: exceptions do not all survive the way between processes."""

    sentence: str
    trace: str = ""

    @classmethod
    def of(cls, error: GymError) -> _Refusal:
        """The message of an error, and the line of the agent's own code that raised it."""
        return cls(str(error), error.trace if isinstance(error, AgentError) else "")

    @property
    def error(self) -> GymError:
        """The error again; of its kinds only :class:`AgentError` survives."""
        return AgentError(self.sentence, self.trace) if self.trace else GymError(self.sentence)


class _Worker:
    """The Ray actor that runs episodes."""

    def __init__(self, folders: Sequence[str], extensions: bytes, pickled: bytes) -> None:
        # Before unpickling: what is in there may come from the folder that the command was called in.
        sys.path += [folder for folder in folders if folder not in sys.path and os.path.isdir(folder)]
        with suppress(OSError):  # relative paths of checkpoints mean the same as there
            os.chdir(folders[0])
        unpack(extensions)
        self.settings, self.make_env = pickle.loads(pickled)
        self.launcher: LocalLauncher | None = None

    def introduce(self, tasks: Sequence[str]) -> Introduction | _Refusal:
        """Build the agent; the answer says that this worker is ready."""
        try:
            self.launcher = LocalLauncher(self.settings, self.make_env)
            return self.launcher.introduce(tasks)
        except GymError as error:
            return _Refusal.of(error)

    def run(self, addresses: Sequence[Address], tasks: Sequence[str], lanes: int) -> Iterator[Event | _Refusal]:
        """A shard's episodes as they end."""
        assert self.launcher is not None
        try:
            yield from self.launcher.run(addresses, tasks, lanes, lambda: False)
        except GymError as error:
            yield _Refusal.of(error)


@dataclass
class _Member:
    """A worker as the launcher sees it.

    Attributes:
        actor: its handle.
        pending: what it will answer next: its introduction, or a stream of results; ``None`` if it is idle.
        shard: episodes given to it whose results have not arrived.
        ready: it has introduced itself.
    """

    actor: Any
    pending: Any
    shard: dict[Address, None] = field(default_factory=dict)
    ready: bool = False


class RayLauncher:
    """Workers on a Ray cluster. Each is given a few episodes at a time; what a lost worker had goes to the others.

    Raises:
        InvalidConfigError: if Ray is not installed or the cluster cannot be reached.
    """

    def __init__(self, settings: EvalSettings, make_env: MakeEnv) -> None:
        if settings.launcher["address"] is None:
            os.environ.setdefault(_LISTENS_EVERYWHERE, "0")  # read when Ray is imported, and by its processes
        self.ray = import_extra("ray", "launcher=ray needs Ray", "ray")
        # A worker has as many threads and render processes as processors, unless they were chosen.
        processors, engine = max(1, int(settings.launcher["cpus"])), dict(settings.engine)
        for key, unset in (("threads", 0), ("render_processes", None)):
            if engine.get(key, processors) == unset:
                engine[key] = processors
        self.settings, self.make_env = replace(settings, engine=engine), make_env
        self.options = settings.launcher
        self._ours = not self.ray.is_initialized()
        if self._ours:
            self._connect()
        self._members: list[_Member] = []
        self._tasks: tuple[str, ...] = ()
        self._lost = 0

    @property
    def sharing(self) -> int:
        """Workers that have introduced themselves."""
        return max(1, sum(member.ready for member in self._members))

    def introduce(self, tasks: Sequence[str]) -> Introduction:
        """Start all workers; the first that is ready speaks for all."""
        self._tasks = tuple(tasks)
        self._members = [self._hire() for _ in range(self._number())]
        while True:
            for _, answer in self._answers():
                if isinstance(answer, Introduction):
                    return answer

    def run(self, addresses: Sequence[Address], tasks: Sequence[str], lanes: int, enough: Enough) -> Iterator[Event]:
        """See :class:`Launcher`."""
        waiting = deque(addresses)
        interrupted: list[Address] = []
        error = ""
        while (waiting and not enough()) or any(member.shard for member in self._members):
            for member in self._members:
                if waiting and member.ready and member.pending is None and not enough():
                    self._give(member, waiting, tasks, lanes)
            for member, answer in self._answers():
                if answer is None:  # it was lost
                    waiting.extendleft(reversed(member.shard))
                    member.shard.clear()
                elif isinstance(answer, Interruption):
                    waiting.extendleft(reversed(answer.waiting))
                    interrupted, error = interrupted + answer.running, answer.error
                    member.shard.clear()
                elif isinstance(answer, EpisodeResult):
                    del member.shard[answer.address]
                    yield answer
        if interrupted:
            yield Interruption(interrupted, list(waiting), error)

    def close(self) -> None:
        """Let the workers go; a cluster that was started for this run ends with it."""
        for member in self._members:
            self.ray.kill(member.actor)
        self._members = []
        if self._ours:
            self.ray.shutdown()

    def _connect(self) -> None:
        address = self.options["address"]
        where = {"address": "local", "include_dashboard": False} if address is None else {"address": address}
        try:
            self.ray.init(log_to_driver=False, logging_level="ERROR", **where)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InvalidConfigError(
                f"No Ray cluster answers at {self.options['address']!r} ({str(error).splitlines()[0]}): start one with "
                "ray start --head, or leave launcher.address= away for a cluster on this machine."
            ) from error
        if address is not None and os.environ.get("RAY_AUTH_MODE") != "token":
            warnings.warn(GymWarning(_EXPOSED.format(address=address)), stacklevel=2)

    def _number(self) -> int:
        """The number of workers to start."""
        if self.options["workers"] is not None:
            return int(self.options["workers"])
        available = self.ray.cluster_resources()
        counts = [available.get(kind, 0) / self.options[key] for kind, key in _RESOURCES if self.options[key]]
        return max(1, int(min(counts, default=1)))

    def _hire(self) -> _Member:
        options = {"num_cpus": self.options["cpus"], "num_gpus": self.options["gpus"], "max_restarts": 0}
        folders = [os.getcwd(), *(os.path.abspath(folder) for folder in sys.path)]
        pickled = self.ray.cloudpickle.dumps((self.settings, self.make_env))
        actor = self.ray.remote(**options)(_Worker).remote(folders, Extensions.here().packed(), pickled)
        return _Member(actor, actor.introduce.remote(self._tasks))

    def _give(self, member: _Member, waiting: deque[Address], tasks: Sequence[str], lanes: int) -> None:
        """A shard: large as long as much is left, so that environments seldom run dry; then smaller, so that all end
        together.

        Where the evaluation may stop early it is small: what has been given away is run.
        """
        fair = len(waiting) // (2 * self.sharing) // lanes * lanes  # episodes are often equally long: rounds stay full
        may_stop = self.settings.until is not None or self.settings.max_minutes is not None
        size = min(len(waiting), lanes if may_stop else max(lanes, fair))
        shard = [waiting.popleft() for _ in range(size)]
        member.shard = dict.fromkeys(shard)
        member.pending = member.actor.run.options(num_returns="streaming").remote(shard, list(tasks), lanes)

    def _answers(self) -> Iterator[tuple[_Member, Event | Introduction | None]]:
        """The workers' next results; ``None`` from a lost one, which is then replaced."""
        by_reference = {member.pending: member for member in self._members if member.pending is not None}
        if not by_reference:
            return
        # A worker that runs episodes may take its time; one that has not even started may never find room.
        patience = None if any(member.shard for member in self._members) else self.options["patience"]
        ready, _ = self.ray.wait(list(by_reference), timeout=patience)
        if not ready:
            raise GymError(
                f"No worker answered for {self.options['patience']:g} s: the cluster must have room for "
                f"{self.options['cpus']} CPUs and {self.options['gpus']} GPUs; launcher.patience= waits longer."
            )
        member = by_reference[ready[0]]
        try:
            answer = self._answer(member)
        except self.ray.exceptions.RayTaskError:  # a defect, with its traceback
            raise
        except self.ray.exceptions.RayError as error:
            self._replace(member, error)
            yield member, None
            return
        if isinstance(answer, _Refusal):
            raise answer.error
        if answer is not None:
            yield member, answer

    def _answer(self, member: _Member) -> Event | Introduction | _Refusal | None:
        """The next answer of a worker; ``None`` at the end of its shard."""
        if not member.ready:
            introduction: Introduction | _Refusal = self.ray.get(member.pending)
            member.ready, member.pending = True, None
            return introduction
        try:
            event: Event | _Refusal = self.ray.get(next(member.pending))
        except StopIteration:
            member.pending = None
            return None
        return event

    def _replace(self, member: _Member, error: Exception) -> None:
        self._members.remove(member)
        self._lost += 1
        if self._lost <= self.options["retries"]:
            self._members.append(self._hire())
        if not self._members:
            raise GymError(
                f"{self._lost} workers were lost, the last with: {str(error).splitlines()[0]} Finished episodes are "
                "stored; the same command goes on after them."
            )


#: Resources of Ray, and the key of ``configs/launcher/ray.yaml`` that says how much of each a worker takes.
_RESOURCES = (("CPU", "cpus"), ("GPU", "gpus"))


#: Ray's own switch, on elsewhere than on Linux, by which a cluster of one machine listens at loopback alone.
_LISTENS_EVERYWHERE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
#: What a cluster that is there already is open to, unless it asks for tokens, as Ray can from 2.52 on.
_EXPOSED = (
    "The Ray cluster {address} asks for no token: whoever reaches its ports can run code there as its user, and what "
    "this run sends (settings, agents' code) travels unencrypted; start it with RAY_AUTH_MODE=token on a network that "
    "you trust."
)
