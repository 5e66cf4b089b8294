"""An evaluation from settings to stored records."""

from __future__ import annotations

import platform
import re
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from gymnasium.vector import AutoresetMode
from omegaconf import DictConfig

from vlaser_gym import __version__
from vlaser_gym.agents import Agent
from vlaser_gym.agents.batch_sizes import batch_size_for
from vlaser_gym.agents.vlaser.shipped import with_checkpoint
from vlaser_gym.cli import typed, words
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.engines import check_counts, check_engine, check_episodes, check_limit, effective_settings
from vlaser_gym.envs.instructions import Instructions, stored_instructions
from vlaser_gym.envs.perturbations import Perturbation, check_perturbation, find_perturbations
from vlaser_gym.envs.tasks import Task, by_robot, get_task, resolve
from vlaser_gym.envs.tasks.protocols import Protocol, get_protocol, parts_of
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import AgentError, GymWarning, InvalidConfigError, StorageError
from vlaser_gym.evaluation.diagnosis import Diagnosis
from vlaser_gym.evaluation.diagnosis.run import diagnose_run
from vlaser_gym.evaluation.launchers import Interruption, Introduction, Launcher, MakeEnv, check_launcher, make_launcher
from vlaser_gym.evaluation.plan import Reduction, plan_episodes
from vlaser_gym.evaluation.runner import EpisodeResult
from vlaser_gym.evaluation.sequential import UntilDecided, outcome_of, read_baseline
from vlaser_gym.evaluation.store import Record, RunStore, address_of, check_same, check_writable, read_config
from vlaser_gym.evaluation.summary import Summary, protocol_scores, summarise_run
from vlaser_gym.evaluation.units import UnitsWatch
from vlaser_gym.evaluation.variants import variant_changes
from vlaser_gym.settings.commands import EvalKeys
from vlaser_gym.settings.fields import defaults_of
from vlaser_gym.wrappers.perturbed import Perturbed

#: What is run where neither task nor protocol is given.
DEFAULT_TASK = "widowx"
#: Episodes of each task where neither they nor a protocol are given.
DEFAULT_EPISODES = 24


@dataclass
class EvalSettings(EvalKeys):
    """The keys of an evaluation, checked against what there is; what was left open is filled in.

    Raises:
        InvalidConfigError: with the key and what was expected.

    Example:
        >>> EvalSettings(episodes=3).plan[2].layout
        'grid:2'
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.protocol is not None:
            get_protocol(str(self.protocol))
            defaults = defaults_of(EvalKeys)
            for key in ("variant", "layouts", "trials"):
                if getattr(self, key) != defaults[key]:
                    raise InvalidConfigError(
                        f"protocol={self.protocol} fixes tasks, variants, layouts and trials; got {key}="
                        f"{getattr(self, key)}: leave {key}= out (episodes= runs fewer of each)."
                    )
        elif self.task is None:
            self.task = DEFAULT_TASK
        self.look = check_engine(str(self.engine["name"]), self.look)
        check_counts(self.engine)
        check_launcher(self.launcher)
        if self.instruction is not None:
            self.instruction = stored_instructions(self.instruction)
            Instructions.read(self.instruction).check(task.name for task in self.tasks)
        check_limit(self.engine, self.tasks, self.max_episode_steps)
        if self.checkpoint is None:
            self.agent = with_checkpoint(self.agent, None, next(iter(by_robot(self.tasks))))
        if (perturbation := self.perturbation) is not None:
            self.perturb = perturbation.label
        if (self.until is None) != (self.baseline is None):
            raise InvalidConfigError("until=decided and baseline=RUN or baseline=RATE go together; only one was given.")

    @property
    def perturbation(self) -> Perturbation | None:
        """The perturbation of all episodes, or ``None``. Several perturbations make several evaluations.

        Raises:
            UnknownNameError: if there is no such perturbation.
            InvalidConfigError: for several, and for one that this engine, look or task does not have.
        """
        if self.perturb is None:
            return None
        found = find_perturbations(words(self.perturb))
        if len(found) != 1:
            raise InvalidConfigError(
                f"One run has one perturbation; got perturb={self.perturb}: run them one by one, or by eval."
            )
        (perturbation,) = found
        check_perturbation(perturbation, self.engine, str(self.look), self.tasks)
        if perturbation.reads_words and self.instruction is not None:
            raise InvalidConfigError(
                f"perturb={perturbation.name} changes words of the benchmark's own sentences; leave instruction= out."
            )
        return perturbation

    @classmethod
    def from_config(cls, config: DictConfig) -> EvalSettings:
        """Settings of the right types and within their ranges; errors as above."""
        return typed(cls, config)

    @property
    def tasks(self) -> list[Task]:
        """The tasks meant by ``task``; of one robot, unless a preset names them.

        Raises:
            UnknownNameError: if there is no such task.
            InvalidConfigError: if tasks of several robots were listed.
        """
        if self.protocol is not None:
            return [get_task(name) for name in dict.fromkeys(address.task for address in self.plan)]
        tasks = [get_task(name) for name in resolve(words(self.task))]
        if len(words(self.task)) > 1 and len(by_robot(tasks)) > 1:
            names = "; ".join(f"{robot}: {', '.join(t.name for t in of)}" for robot, of in by_robot(tasks).items())
            raise InvalidConfigError(f"The tasks of one evaluation share a robot; got {names}: run them one by one.")
        return tasks

    @property
    def plan(self) -> list[Address]:
        """The episodes, in order.

        Raises:
            UnknownNameError: for a task, a variant, a kind of layout or a protocol that does not exist.
            InvalidConfigError: for numbers of episodes that make no sense, or a protocol without the tasks asked for.
        """
        if self.protocol is None:
            return plan_episodes(self.tasks, self.variant, self.layouts, self.episodes or DEFAULT_EPISODES, self.trials)
        return self._episodes_of(get_protocol(self.protocol, self.episodes))

    def _episodes_of(self, protocol: Protocol) -> list[Address]:
        wanted = None if self.task is None else parts_of(resolve(words(self.task)))
        episodes = [a for a in protocol.episodes if wanted is None or a.task in wanted]
        if not episodes:
            raise InvalidConfigError(
                f"protocol={self.protocol} has none of the tasks task={self.task}: leave task= out."
            )
        return episodes

    @property
    def reduction(self) -> Reduction | None:
        """The part of the protocol that ``episodes`` leaves; ``None`` without a protocol, or where it leaves all."""
        if self.protocol is None or self.episodes is None:
            return None
        planned, whole = len(self.plan), len(self._episodes_of(get_protocol(self.protocol)))
        return None if planned == whole else Reduction(self.episodes, planned, whole)

    def run_directory(self) -> Path:
        """``run``, or a new directory in ``runs/`` named after task, agent, engine and time."""
        if self.run is not None:
            return Path(self.run)
        names = words(self.task if self.protocol is None else self.protocol)
        task = names[0] if len(names) == 1 else f"{len(names)}-tasks"
        task += "-reduced" if self.reduction else ""
        parts = [task, str(self.agent.get("name")), str(self.engine["name"]), f"{datetime.now():%Y%m%d-%H%M%S}"]
        return Path("runs") / re.sub(r"[^\w.-]+", "-", "-".join(parts))

    def until_decided(self, plan: Sequence[Address]) -> UntilDecided | None:
        """The sequential test that ends the evaluation; ``None`` if it is to run to its end.

        Raises:
            InvalidConfigError: for a baseline that is none, or lacks episodes, and for tasks of several robots: those
                run robot after robot, and the test takes the layouts of all tasks in turn.
        """
        if self.until is None:
            return None
        if len(by_robot(self.tasks)) > 1:
            raise InvalidConfigError("until=decided takes tasks of one robot; got several: decide robot by robot.")
        return UntilDecided(plan, read_baseline(self.baseline), self.level)

    def stored(self) -> dict[str, Any]:
        """The settings that a run directory keeps: all but its own path."""
        described = {task.name: task.definition for task in self.tasks if task.definition}
        from_files = {"task_definitions": described} if described else {}
        kept = {k: v for k, v in asdict(self).items() if k != "run"}
        counted = {
            "episodes": self.episodes or DEFAULT_EPISODES,
            "reduced": None if self.reduction is None else asdict(self.reduction),
        }
        return {"vlaser_gym": __version__, **kept, **counted, **from_files}


def make_scene_env(
    settings: EvalSettings, tasks: Sequence[str], num_envs: int, observe: Sequence[str]
) -> SceneVectorEnv:
    """The environment that evaluations run in."""
    options = {key: value for key, value in settings.engine.items() if key != "name"}
    perturbation = settings.perturbation
    env = SceneVectorEnv(
        tasks,
        num_envs,
        engine=settings.engine["name"],
        look=settings.look,
        variant=settings.variant,
        observe=observe,
        terminate_on_success=settings.terminate_on_success,
        autoreset_mode=AutoresetMode.DISABLED,
        record_states=True,
        engine_options=options,
        perturbation=perturbation,
        max_episode_steps=settings.max_episode_steps,
        instruction=settings.instruction,
    )
    return env if perturbation is None else cast(SceneVectorEnv, Perturbed(env, perturbation))


def evaluate(
    settings: EvalSettings,
    on_start: Callable[[Path, int, int], None] = lambda path, done, total: None,
    on_episode: Callable[[Record], None] = lambda record: None,
    make_env: MakeEnv = make_scene_env,
    plan: Sequence[Address] | None = None,
    agent: Agent | None = None,
) -> Evaluation:
    """Run the episodes that the run directory does not hold yet.

    Args:
        settings: what to run.
        on_start: told the run directory, how many episodes it holds already, and how many there will be.
        on_episode: told each finished episode's record.
        make_env: builds the environment.
        plan: the episodes, where they are others than the settings say.
        agent: acts, in place of one built from the settings; not with Ray.

    Returns:
        The evaluation, complete unless its time budget ran out. With ``until="decided"`` it is complete as soon as the
        question is answered.

    Raises:
        GymError: for whatever is wrong with the settings; then nothing is left behind.

    Warns:
        GymWarning: once, at the first episode whose actions cannot be metres and radians.
    """
    tasks = settings.tasks
    plan = settings.plan if plan is None else plan
    until = settings.until_decided(plan)
    check_engine(str(settings.engine["name"]), settings.look)
    check_episodes(settings.engine, plan)
    path = settings.run_directory()
    check_same(path, settings.stored())
    check_writable(path)
    with closing(make_launcher(_with_batch_size(settings, plan, path), make_env, agent)) as launcher:
        robots = by_robot(tasks)
        who = launcher.introduce([task.name for task in next(iter(robots.values()))])
        # An agent of one robot would get through that robot's episodes and fail at the next robot's first.
        if who.robot is not None and list(robots) != [who.robot]:
            raise InvalidConfigError(
                f"The agent {who.origin['agent']} is for {who.robot}; the tasks are of {' and '.join(robots)}: "
                f"choose those of {who.robot} with task=."
            )
        _warn_of_pictures(who, settings.engine)
        decided = {
            "engine_version": who.origin["engine_version"],
            "agent_settings": dict(who.agent_settings),
            "environment_settings": {
                task.name: effective_settings(settings.engine, task, settings.max_episode_steps) for task in tasks
            },
        }
        with RunStore(path, {**settings.stored(), **decided}) as store:
            strangers = sorted(store.records.keys() - set(plan), key=lambda address: address.sort_key)
            if strangers:  # another version of this package began it for other episodes of the same name
                raise StorageError(
                    f"{path} holds {len(strangers)} episodes that its settings no longer mean, such as {strangers[0]}: "
                    "the preset held other tasks when it began; compare and render still read it, to score anew choose "
                    "a new run=."
                )
            on_start(path, len(store.records), len(plan))
            evaluation = Evaluation(settings, who, store, launcher, on_episode, until)
            order = plan if until is None else until.plan
            try:
                evaluation.run([address for address in order if address not in store.records])
            except AgentError as error:
                raise AgentError(f"{error} {_kept(store)}", error.trace) from error
            evaluation.complete = evaluation.decided or all(address in store.records for address in plan)
            if evaluation.complete:
                store.finish(evaluation.summary() | evaluation.verdict)
        evaluation.seconds = evaluation.elapsed()
        return evaluation


def _kept(store: RunStore) -> str:
    """A sentence on the stored episodes of an evaluation that the agent's failure has ended."""
    count = len(store.records)
    if not count:
        return f"No episode had ended: nothing is stored in {store.path}, and the same command begins again."
    what = f"{count} finished episode{'s are' if count > 1 else ' is'} stored"
    return f"{what}: the same command with run={store.path} goes on after them."


@dataclass
class Evaluation:
    """One attempt at the missing episodes of a run directory. Use :func:`evaluate`.

    Attributes:
        who: acts and simulates.
        complete: no episode of the plan is missing, or none is needed any more.
        episodes: how many this go has run.
        seconds: wall time of this go without start-up, until everything is on the disk.
    """

    settings: EvalSettings
    who: Introduction
    store: RunStore
    launcher: Launcher
    on_episode: Callable[[Record], None]
    until: UntilDecided | None = None
    complete: bool = False
    episodes: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._begun = time.monotonic()
        self._perturbation = self.settings.perturbation
        given = self.settings.instruction
        self._instructions = None if given is None else Instructions.read(given)
        self._units = UnitsWatch(str(self.who.origin["agent"]))
        self._outcomes = {address: outcome_of(record) for address, record in self.store.records.items()}
        self._environments = dict(read_config(self.path).get("environment_settings") or {})

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.store.path

    @cached_property
    def diagnoses(self) -> dict[Address, Diagnosis]:
        """The diagnosis of every episode; to be asked for when all have run."""
        return diagnose_run(self.path, self.store.records)

    def summary(self) -> Summary:
        """Rates of the episodes that are there, and the protocol's scores whose episodes all are."""
        records = self.store.sorted_records()
        summary = summarise_run(records, self.settings.tasks, read_config(self.path))
        if self.settings.protocol is not None:
            protocol = get_protocol(self.settings.protocol, self.settings.episodes)
            summary["protocol"] = protocol_scores(protocol, records)
            summary["variants"] = [asdict(change) for change in variant_changes(self.path, self.store.records)]
        if self.settings.reduction is not None:
            summary["reduced"] = asdict(self.settings.reduction)
        return summary

    @property
    def decided(self) -> bool:
        """The sequential test has its verdict."""
        return self.until is not None and self.until(self._outcomes) is not None

    @property
    def verdict(self) -> dict[str, Any]:
        """The sequential test's result for the summary; empty without such a test."""
        if self.until is None:
            return {}
        test = self.until
        test(self._outcomes)
        named = {"baseline": str(self.settings.baseline), "level": test.schedule.level}
        counts = {"episodes": test.n, "wins": test.wins, "losses": test.losses, "errors": test.errors}
        low, high = test.interval()
        limits = {"interval_of": test.quantity, "low": low, "high": high}
        return {"sequential": {"verdict": test.verdict, "reason": test.conclusion, **named, **counts, **limits}}

    def run(self, addresses: Sequence[Address]) -> None:
        """Run and store episodes, robot after robot; those that a simulator failure interrupts are tried once more."""
        self.store.add_timing({"event": "start", "time": _now(), "host": platform.node()})
        tasks = [get_task(name) for name in dict.fromkeys(address.task for address in addresses)]
        for group in by_robot(tasks).values():
            names = {task.name for task in group}
            waiting = [address for address in addresses if address.task in names]
            while waiting and not self._enough():
                suspects, waiting, failure = self._run_lanes(waiting, self.settings.num_envs)
                for address in suspects:  # each by itself
                    if self._enough():
                        break
                    self.store.add_timing({"event": "retry", **_where(address), "error": failure, "time": _now()})
                    interrupted, _, error = self._run_lanes([address], 1)
                    if interrupted:
                        self._add_error(address, error)
        self.store.add_timing({"event": "end", "time": _now(), "seconds": round(self.elapsed(), 3)})

    def elapsed(self) -> float:
        """Seconds since agent and engine were ready."""
        return time.monotonic() - self._begun

    def _run_lanes(self, addresses: list[Address], lanes: int) -> tuple[list[Address], list[Address], str]:
        """Run episodes until all are done or the simulator fails: ``(interrupted, not begun, what it said)``."""
        lanes = min(lanes, len(addresses))
        tasks = list(dict.fromkeys(address.task for address in addresses))
        for event in self.launcher.run(addresses, tasks, lanes, self._enough):
            if isinstance(event, Interruption):
                return event.running, event.waiting, event.error
            self._add(event, lanes * self.launcher.sharing)
        return [], [], ""

    def _add(self, result: EpisodeResult, lanes: int) -> None:
        self._units.see(result)
        task = result.address.task
        kept = self._environments.get(task, {})
        told = {name: result.environment.get(name, value) for name, value in kept.items()}
        if result.environment and told != kept:
            # What the simulator reports replaces what was requested.
            self._environments[task] = told
            self.store.keep_environments(self._environments)
        record = {
            **self._told(result.address),
            **self.who.origin,
            "success": result.success,
            "success_any": result.success_any,
            "first_success_step": result.first_success_step,
            "steps": result.steps,
            "reward": result.reward,
            "ending": result.ending,
            "flags": result.flags,
            "flags_any": result.flags_any,
            "error": None,
        }
        self._store(record, result.trajectory, result.training)
        timing = {"event": "episode", **_where(result.address), "seconds": round(result.seconds, 4), "lanes": lanes}
        self.store.add_timing({**timing, "time": _now()})

    def _add_error(self, address: Address, error: str) -> None:
        """An episode that the simulator could not finish counts as a failure; it never leaves the denominator."""
        flags = dict.fromkeys(get_task(address.task).flags, False)
        record = {
            **self._told(address),
            **self.who.origin,
            "success": False,
            "success_any": False,
            "first_success_step": None,
            "steps": 0,
            "reward": 0.0,
            "ending": "error",
            "flags": flags,
            "flags_any": flags,
            "error": error,
        }
        self._store(record, None)

    def _told(self, address: Address) -> dict[str, Any]:
        """The address of an episode and the instruction at its start."""
        own = None if self._instructions is None else self._instructions.told(address)
        instruction = get_task(address.task).instruction(address.layout, address.variant) if own is None else own
        perturbation = self._perturbation
        if perturbation is None:
            return {**_where(address), "instruction": instruction}
        said = perturbation.instruction(instruction, perturbation.moment(address))
        return {**_where(address), "perturb": perturbation.label, "instruction": said}

    def _store(
        self, record: Record, states: Mapping[str, Any] | None, training: Mapping[str, Any] | None = None
    ) -> None:
        record = self.store.add(record, states, training)
        self._outcomes[address_of(record)] = outcome_of(record)
        self.episodes += 1
        self.on_episode(record)

    def _enough(self) -> bool:
        """The time budget has run out, or the question is answered."""
        minutes = self.settings.max_minutes
        return self.decided or (minutes is not None and self.elapsed() > 60 * minutes)


def _with_batch_size(settings: EvalSettings, plan: Sequence[Address], path: Path) -> EvalSettings:
    """Settings in which the agent's open ``micro_batch`` is chosen: the run's, or what fits the plan of a new one.

    Never by how many environments run at a time: the last bits of actions depend on it.
    """
    if settings.agent.get("micro_batch", 0) is not None:
        return settings
    stored = read_config(path).get("agent_settings", {}) if (path / "config.yaml").is_file() else {}
    size = stored.get("micro_batch", batch_size_for(len(plan)))
    return replace(settings, agent={**settings.agent, "micro_batch": size})


def _warn_of_pictures(who: Introduction, engine: Mapping[str, Any]) -> None:
    """A policy that learned from images of one size sees others in those of another."""
    learned, shown = who.agent_settings.get("image_size_of_checkpoint"), engine.get("image_size")
    if learned is not None and learned != shown:
        warnings.warn(
            f"The agent {who.origin['agent']} was trained on images of {learned}; here they have "
            f"{shown or 'the size of the camera'}: engine.image_size={learned} shows it what it learned from.",
            GymWarning,
            stacklevel=2,
        )


def _where(address: Address) -> dict[str, Any]:
    return {
        "task": address.task,
        "variant": address.variant,
        "layout": address.layout,
        "trial": address.trial,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
