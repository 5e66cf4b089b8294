"""The common trainer: the loop, checkpoints, evaluation, metrics, and the choice of trained parts.

A trainer's :meth:`~Trainer.step` is the smallest piece of work that can be repeated: everything random in it is a
function of the run's seed and of where the run stands, so that a checkpoint is enough to go on as if nothing had
happened.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vlaser_gym.agents.trainable import TrainableAgent
from vlaser_gym.agents.vlaser.adapters import is_shared
from vlaser_gym.agents.vlaser.agent import choose_device
from vlaser_gym.errors import DivergedError, InvalidConfigError
from vlaser_gym.evaluation.tracker import Tracker
from vlaser_gym.storage.files import storage_errors
from vlaser_gym.storage.interrupts import Interrupts, StopNow
from vlaser_gym.training.alarms import Alarms
from vlaser_gym.training.checkpoints import STEPS_FOLDER, Checkpoints
from vlaser_gym.training.distributed import ProcessGroup
from vlaser_gym.training.metrics import MetricLogger
from vlaser_gym.training.optimizers import make_optimizer
from vlaser_gym.training.scaling import Scaling, compile_layers, like, release, shard, whole
from vlaser_gym.training.seeds import seed_of
from vlaser_gym.training.trainer_state import read_state, reading, write_state

Numbers = dict[str, float]
STATE_FILE = "trainer.pt"


@dataclass(frozen=True)
class RunOptions:
    """The options of how a run is stored, independent of the algorithm.

    Attributes:
        seed: of everything random.
        group: the processes that train together.
        save_every: units of work between two checkpoints.
        log_every: steps of the optimizer between two lines of numbers.
        evaluate: given the policy, returns numbers for the metrics.
        evaluate_every: units of work between two evaluations; 0: only at the end.
        keep: policies of earlier steps that stay in the run directory; ``None``: all.
        target_kl: divergence that an alarm compares with.
        tracker: is told the numbers too.
        scaling: how the policy fits into memory.
        report: told each line of numbers.
        say: told what is worth reading once: a sentence or a table.
        advance: told how many units of work are done.
        check: compare the checksums of a state that is continued.
    """

    seed: int = 0
    group: ProcessGroup = field(default_factory=ProcessGroup)
    save_every: int = 500
    log_every: int = 50
    evaluate: Callable[[TrainableAgent], Numbers] | None = None
    evaluate_every: int = 0
    keep: int | None = 3
    target_kl: float | None = None
    tracker: Tracker | None = None
    scaling: Scaling = field(default_factory=Scaling)
    report: Callable[[Numbers], None] = lambda row: None
    say: Callable[[Any], None] = lambda text: None
    advance: Callable[[int], None] = lambda done: None
    check: bool = True


class Trainer(ABC):
    """Trains a policy and keeps it in a run directory; a trainer state that lies there is continued.

    Args:
        agent: its weights change in place.
        path: run directory.
        options: see :class:`RunOptions`.

    Attributes:
        done: units of work finished.
        total: units of work in all.
        position: where the run stands on the horizontal axis of its curves.
        stopped_by: the signal that ended :meth:`run`, if one did.
    """

    #: What a unit of work is called.
    unit: ClassVar[str] = "step"

    def __init__(self, agent: TrainableAgent, path: str | Path, total: int, options: RunOptions | None) -> None:
        self.agent, self.path, self.total, self.options = agent, Path(path), total, options or RunOptions()
        self.seed, self.group, self.scaling = self.options.seed, self.options.group, self.options.scaling
        self.done = self.position = 0
        self.device = agent.device
        self.metrics: MetricLogger | None = None
        self.checkpoints = Checkpoints(self.path, self.options.keep)
        self.alarms = Alarms(self.options.target_kl)
        self.interrupts = Interrupts(self.options.say)
        self.stopped_by: int | None = None

    # ------------------------------------------------------------------ what an algorithm says

    @abstractmethod
    def step(self) -> bool:
        """Do the next piece of work and log it; returns whether there was time for it."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """The state on which the next step depends; plain values and tensors. Called on all processes."""

    @abstractmethod
    def load_state(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` gave."""

    @contextmanager
    def whole_policy(self) -> Iterator[TrainableAgent]:
        """Inside, what is stored and evaluated, with all its weights; entered by all processes together."""
        yield self.agent.frozen_copy() if self.scaling.shard else self.agent

    @property
    def save_is_due(self) -> bool:
        """True if a checkpoint is due after the last step."""
        return self.done % self.options.save_every == 0 or self.done == self.total or self.evaluation_is_due

    @property
    def evaluation_is_due(self) -> bool:
        """True if an evaluation is due after the last step."""
        every = self.options.evaluate_every
        return self.done > 0 and (self.done == self.total or (every > 0 and self.done % every == 0))

    # ------------------------------------------------------------------ the loop

    def run(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Take the steps that are left, or as many as go before ``stop`` says yes; returns whether all are taken.

        Ctrl-C and SIGTERM stop after the step under way, or at once where that loses nothing; the state is saved.

        Raises:
            DivergedError: for a loss or a gradient that is not finite, or a last update that ran away.
        """
        is_main, tracker = self.group.is_main_process, self.options.tracker
        try:
            with MetricLogger(self.path, self.position, tracker) if is_main else nullcontext() as self.metrics:
                for row in self.metrics.rows if self.metrics is not None else ():
                    self.alarms.look(row)
                with self.interrupts:
                    self.take_steps(stop)
                self.check_end()
        finally:
            self.stopped_by = self.interrupts.received
        return self.done == self.total

    def take_steps(self, stop: Callable[[], bool]) -> None:
        """The loop."""

        def time_is_up() -> bool:
            # One process's clock decides for all: a process that went on alone would wait for the others forever.
            return bool(self.group.broadcast(stop() or self.interrupts.received is not None))

        try:
            self.evaluate()
            while self.done < self.total and not time_is_up() and self.step():
                self.options.advance(self.done)
                if self.save_is_due:
                    self.save()
                self.evaluate()
        except StopNow:
            pass
        if self.done < self.total:
            self.save()

    def check_end(self) -> None:
        """Raise :class:`DivergedError` if all steps are taken and the policy is beyond use."""
        if self.done == self.total and self.alarms.ran_away:
            raise DivergedError(
                f"Training diverged: its last {self.unit} moved the policy too far from its data to be of use. It is "
                f"kept in {self.checkpoints.last}; take an earlier one from {self.path / STEPS_FOLDER}, "
                "and train anew with a lower algo.learning_rate."
            )

    def evaluate(self) -> None:
        """Score the policy, where that is due and was not done before an interruption; the best one is kept."""
        if not self.evaluation_is_due:
            return
        # One process's numbers decide for all: they gather the weights together.
        is_due = self.metrics is not None and not self.metrics.scored(self.position)
        if self.options.evaluate is not None and self.group.broadcast(is_due):
            with self.whole_policy() as policy:
                self.score(policy, self.options.evaluate)
        self.group.barrier()

    def score(self, policy: TrainableAgent, evaluate: Callable[[TrainableAgent], Numbers]) -> None:
        """Evaluate in the main process, log, and keep the best."""
        if self.metrics is not None:
            with self.interrupts.at_once():
                row = evaluate(policy)
            before = [old["success/mean"] for old in self.metrics.rows if "success/mean" in old]
            if "success/mean" in row and row["success/mean"] >= max(before, default=0.0):
                with self._sentences():
                    self.checkpoints.write_best()
            # Last: a line that is there says that the evaluation need not be repeated.
            self.log(**row)

    def log(self, **row: float) -> None:
        """One line of numbers, from the main process. Not every number exists every time: those are left out."""
        finite = {name: float(value) for name, value in row.items() if math.isfinite(value)}
        if self.metrics is not None and finite:
            self.metrics.add(self.position, **finite)
            self.options.report({"step": float(self.position), **finite})
            for sentence in self.alarms.look(row):
                self.options.say(f"Warning: {sentence}.")

    def save(self) -> None:
        """Write the policy for use, and the state that the next step depends on; each file whole or not at all."""
        state = whole({**self.state(), "scaling": self._kinds()})
        with self.whole_policy() as policy:
            if self.group.is_main_process:
                with self._sentences():
                    self.path.mkdir(parents=True, exist_ok=True)
                    self.checkpoints.write(self.position, policy.save)
        if not self.group.is_main_process:
            return
        with self._sentences():
            write_state(self.path / STATE_FILE, state)
            if self.metrics is not None:
                self.metrics.keep(self.position)
                self.metrics.draw(every=30.0)

    def _sentences(self) -> AbstractContextManager[None]:
        return storage_errors(
            f"Cannot write {self.unit} {self.done} to {self.path}",
            "make space there: the checkpoint before it is whole, and the same command goes on from it",
        )

    def load(self) -> None:
        """Continue from the run directory's state, if there is one.

        Raises:
            StorageError: if it is damaged.
            InvalidConfigError: if it belongs to other settings.
        """
        file = self.path / STATE_FILE
        if not file.is_file():
            return
        state = read_state(file, self.options.check)
        with reading(file):
            before = state.pop("scaling", {"weights": Scaling.weights, "optimizer": Scaling.optimizer})
            for name, ours in self._kinds().items():
                if before[name] != ours:
                    raise InvalidConfigError(
                        f"{self.path} was trained with {name}={before[name]}, which its state is made of: continue it "
                        f"with the same, not {name}={ours}, or choose another run=."
                    )
            self.load_state(state)

    def _kinds(self) -> dict[str, str]:
        """The types of the numbers in a state."""
        return {"weights": self.scaling.weights, "optimizer": self.scaling.optimizer}

    def summary(self) -> str:
        """The progress of the run and the path of its policy, as a sentence."""
        worry = " Warning: the last update ran away; take an earlier policy." if self.alarms.ran_away else ""
        return f"{self.unit.capitalize()} {self.done} of {self.total}. Policy: {self.checkpoints.last}.{worry}"

    def record(self) -> dict[str, Any]:
        """The values that a start keeps in ``starts.jsonl`` besides the settings."""
        return {}

    def settled(self) -> dict[str, Any]:
        """The values that the settings left open, fixed by the run's first start."""
        return {}

    def close(self) -> None:  # noqa: B027  (most hold nothing)
        """Free what the trainer holds."""

    def describe(self) -> str:
        """One sentence about what is trained."""
        count = sum(parameter.numel() for parameter in trained(self.agent))
        state = f"continued at {self.unit} {self.done}" if self.position else "from the beginning"
        return f"{count:,} parameters are trained, {state}"

    # ------------------------------------------------------------------ pieces of a step

    def prepare(self, freeze: Sequence[str], lora: int = 0, whole_parts: Sequence[str] = ()) -> None:
        """Choose what of the policy is trained, and bring it into the shape that it is trained in."""
        scaling, agent = self.scaling, self.agent
        if scaling.weights == "bfloat16":
            agent.narrow(torch.bfloat16)
        choose_trained(agent, freeze, lora, self.seed, whole_parts)
        agent.set_gradient_checkpointing(*scaling.checkpointing)
        if scaling.compile:
            compile_layers(agent)
        if scaling.shard:
            shard(agent, self.group)

    def optimizer_of(self, groups: Iterable[Any], **options: Any) -> torch.optim.Optimizer:
        """The optimizer that ``optimizer=`` names, for parameters or groups of them."""
        given = list(groups)
        listed = given if given and isinstance(given[0], dict) else [{"params": given}]
        return make_optimizer(self.scaling.optimizer, listed, sharded=self.scaling.shard, **options)

    def step_optimizer(self, optimizer: torch.optim.Optimizer, *place: int) -> None:
        """Step, after which gathered weights are stale.

        Narrow weights are rounded at random, from torch's global stream: it is seeded by where the run stands, as all
        else is, and so alike on all processes.
        """
        if self.scaling.optimizer == "adamw":
            optimizer.step()
        else:
            with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
                torch.manual_seed(seed_of(self.seed, *place, 2))
                optimizer.step()
        if self.scaling.shard:
            release(self.agent)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sums over the processes of gradients of losses that :meth:`summed` gave; shared ones are sums by now."""
        own = [parameter for parameter in parameters if not is_shared(parameter)]
        self.group.sum_gradients(own)
        for parameter in own if self.scaling.shard else ():
            if parameter.grad is not None:
                parameter.grad /= self.group.size

    def summed(self, loss: Tensor) -> Tensor:
        """A loss whose gradient is to be summed over the processes; where weights are shared, torch takes means.

        What is not shared, such as a critic, gets that factor too, and loses it in :meth:`sum_gradients`.
        """
        return loss * self.group.size if self.scaling.shard else loss

    def autocast(self, precision: str) -> AbstractContextManager[Any]:
        """Matrix products in the chosen precision, ``"float32"`` or ``"bfloat16"``."""
        # Narrow copies of shared weights would stay until the pass is over: as much memory as all weights together.
        kept = not self.scaling.shard
        return torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=kept)

    def clip_gradients(
        self,
        parameters: Sequence[nn.Parameter],
        most: float,
        update: str,
        rate: str,
        losses: Mapping[str, Tensor],
        whose: str = "",
    ) -> None:
        """Scale gradients down to a common norm of at most ``most``; the last look before the optimizer steps.

        Weights that are not finite once stay so, and the next checkpoint would replace the last good one.

        Args:
            parameters: with gradients that are the same on all processes.
            most: norm.
            update: which one, such as ``"step 7"``.
            rate: the setting that would have to be lower.
            losses: by name; the same on all processes, so that all of them stop or none does.
            whose: gradients, such as ``"critic's "``.

        Raises:
            DivergedError: with the first number that is not finite.
        """
        norm = whole(nn.utils.clip_grad_norm_(parameters, most))
        for name, number in {**losses, f"{whose}gradient norm": norm}.items():
            if not math.isfinite(float(number)):
                raise DivergedError(
                    f"Training diverged: the {name} of {update} is {float(number)}, and the weights stay as they were "
                    f"before it; lower {rate} and resume from the last checkpoint with run={self.path}."
                )


def choose_trained(
    agent: TrainableAgent, freeze: Sequence[str], lora: int, seed: int, whole_parts: Sequence[str] = ()
) -> None:
    """Evaluation mode, frozen parts, and adapters on the others where there is a rank; not on ``whole_parts``.

    Raises:
        UnknownNameError: for a part that the policy does not have.
        InvalidConfigError: if nothing is left to train.
    """
    agent.eval()
    agent.freeze(*freeze)
    if lora:
        agent.add_adapters(lora, freeze, seed, *([whole_parts] if whole_parts else []))
    if not trained(agent):
        adapters = f" with adapters (algo.lora={lora})" if lora else ""
        raise InvalidConfigError(
            f"algo.freeze={list(freeze)} leaves nothing to train{adapters}; take a part such as "
            f"{list(agent.parts)[-1]} out of it."
        )


def cache_device(name: str | None, agent: TrainableAgent) -> torch.device:
    """The device of cached encodings: the policy's, or the one that ``algo.cache_device`` names."""
    return agent.device if name is None else torch.device(choose_device(name, "algo.cache_device"))


def trained(module: nn.Module) -> list[nn.Parameter]:
    """The trained parameters."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def trained_weights(module: nn.Module) -> dict[str, Tensor]:
    """The same by name."""
    return {name: parameter.detach() for name, parameter in module.named_parameters() if parameter.requires_grad}


def load_weights(path: Path, weights: Mapping[str, Tensor], stored: Mapping[str, Tensor], keys: str) -> None:
    """Put stored weights back in place.

    Raises:
        InvalidConfigError: if other weights are trained now; ``keys`` names the settings that decide.
    """
    if {n: t.shape for n, t in weights.items()} != {n: t.shape for n, t in stored.items()}:
        raise InvalidConfigError(
            f"{path} trained other weights than these settings would: continue it with the same {keys}, or choose "
            "another run=."
        )
    for name, value in stored.items():
        weights[name].copy_(like(value, weights[name]))
