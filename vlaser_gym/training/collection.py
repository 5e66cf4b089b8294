"""The episodes of a round: several trials of fresh layouts by the policy of the moment, in a run directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlaser_gym.agents.base import Agent
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.envs.vector import FIRST_TRAINING_REGION
from vlaser_gym.errors import StorageError
from vlaser_gym.evaluation.evaluator import EvalSettings, evaluate, make_scene_env
from vlaser_gym.evaluation.launchers import MakeEnv
from vlaser_gym.evaluation.store import read_records

#: Layouts that a seed may use up before it comes to those of the next.
_LAYOUTS_PER_SEED = 100_000


class CollectRound:
    """Runs a round's episodes that are not stored yet. Of a region it draws layouts that no evaluation draws, new in
    every round; of the grid the layouts take turns.

    Args:
        path: gets a run directory for each round.
        tasks: of one robot.
        kind: of the layouts.
        layouts: of each task and round.
        trials: of each layout.
        seed: another one has other layouts.
        name: of the agent, for the records.
        terminate_on_success: an episode ends with its first success.
        look, num_envs, engine: of the environment.
        make_env: builds it.
    """

    def __init__(
        self,
        path: Path,
        tasks: Sequence[str],
        *,
        kind: str = "region",
        layouts: int,
        trials: int,
        seed: int = 0,
        name: str = "policy",
        terminate_on_success: bool = True,
        look: str | None = None,
        num_envs: int = 8,
        engine: Mapping[str, Any],
        make_env: MakeEnv = make_scene_env,
    ) -> None:
        self.kind = kind
        self.path, self.tasks, self.layouts, self.trials, self.seed = path, list(tasks), layouts, trials, seed
        self.name, self.terminate_on_success, self.look, self.num_envs = name, terminate_on_success, look, num_envs
        self.engine, self.make_env = dict(engine), make_env

    def __call__(self, number: int, agent: Agent) -> list[Path] | None:
        """Run what is missing of a round; ``None`` if it could not be finished."""
        plan = self.addresses(number)
        evaluation = evaluate(self._settings(number), make_env=self.make_env, plan=plan, agent=agent)
        self._check_simulator(evaluation.path)
        return [evaluation.path] if evaluation.complete else None

    def _check_simulator(self, path: Path) -> None:
        """Raise :class:`StorageError` if the first round was run in another simulator than this one."""
        first = self._folder(0)
        old, new = ({f"{r['engine']} {r['engine_version']}" for r in read_records(p)} for p in (first, path))
        if old != new:
            raise StorageError(
                f"The rounds of {self.path} began in {', '.join(sorted(old))}, and {path.name} was run in "
                f"{', '.join(sorted(new))}, which moves otherwise: take that version and remove {path}, or begin anew "
                "from the run's checkpoint, by init=RUN/checkpoint."
            )

    def _folder(self, number: int) -> Path:
        return self.path / f"{number:03d}"

    def addresses(self, number: int) -> list[Address]:
        """Episodes of a round, tasks and layouts taking turns."""
        return [
            self._address(task, number * self.layouts + layout, trial)
            for trial in range(self.trials)
            for layout in range(self.layouts)
            for task in self.tasks
        ]

    def _address(self, task: str, layout: int, trial: int) -> Address:
        """Next address. A grid layout's trials go on where its last turn ended; another seed begins with others."""
        if self.kind != "grid":
            first = FIRST_TRAINING_REGION + self.seed * _LAYOUTS_PER_SEED
            return Address(task, "default", f"{self.kind}:{first + layout}", trial)
        turn, index = divmod(layout, get_task(task).num_layouts)
        return Address(task, "default", f"grid:{index}", (self.seed * _LAYOUTS_PER_SEED + turn) * self.trials + trial)

    def _settings(self, number: int) -> EvalSettings:
        return training_settings(
            self._folder(number),
            self.tasks,
            layouts=self.kind,
            episodes=self.layouts,
            trials=self.trials,
            terminate_on_success=self.terminate_on_success,
            look=self.look,
            num_envs=self.num_envs,
            agent={"name": self.name},
            engine=self.engine,
        )


def training_settings(path: str | Path, tasks: Sequence[str], **changes: Any) -> EvalSettings:
    """Settings of a run that is collected to be learned from: no videos, no report, no early end."""
    return EvalSettings(task=list(tasks), run=str(path), store="training", video=0, report=False, **changes)
