"""Learning from stored episodes, round after round: collect, choose what to learn from, train.

Everything random in a step (which decisions, noise, flow times) is a function of the seed, the round and the step's
number, and a round's episodes are one of the policy that the round began with. A checkpoint is therefore enough to go
on as if nothing had happened.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vlaser_gym.agents.learners.curves import Curves
from vlaser_gym.agents.learners.decisions import DecisionMemory, Decisions
from vlaser_gym.agents.learners.exploration import EXPLORATIONS, ExploringAgent, make_exploration
from vlaser_gym.agents.learners.gradients import check_finite, clip_gradients
from vlaser_gym.agents.learners.ranges import check_cache, check_trained
from vlaser_gym.agents.learners.reference import Reference
from vlaser_gym.agents.learners.sft import POLICY_FOLDER, PRECISIONS, STATE_FILE
from vlaser_gym.agents.learners.trainer_state import read_state
from vlaser_gym.agents.vlaser.adapters import add_lora
from vlaser_gym.agents.vlaser.agent import VlaserAgent
from vlaser_gym.agents.vlaser.checkpoint import save_pretrained
from vlaser_gym.agents.vlaser.policy import PARTS, VlaserPolicy
from vlaser_gym.agents.vlaser.processor import Processor
from vlaser_gym.cli import check_above_zero, check_least
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.evaluation.episodes import StoredEpisode, read_episodes

Numbers = dict[str, float]
Ints = NDArray[np.int64]
#: The runs of a round, given its number and who acts in it; ``None`` if there was no time to finish them.
Source = Callable[[int, VlaserAgent], Sequence[Path] | None]


@dataclass
class RoundSettings:
    """What ``configs/algo/dpo.yaml`` and ``nft.yaml`` have in common; the comments there say what each means."""

    name: str
    rounds: int
    layouts: int
    trials: int
    terminate_on_success: bool
    density: str | None
    noise_level: float
    epochs: int
    batch_size: int
    micro_batch: int
    flow_samples: int
    learning_rate: float
    clip: float
    freeze: list[str]
    lora: int
    cache_mb: int
    cache_device: str | None
    precision: str

    def __post_init__(self) -> None:
        check_least(self, prefix="algo.", rounds=0, layouts=1, trials=1, epochs=1, batch_size=1, micro_batch=1)
        check_least(self, prefix="algo.", flow_samples=1, learning_rate=0, lora=0, cache_mb=0)
        check_above_zero(self, prefix="algo.", clip=math.inf, noise_level=math.inf)
        check_trained(self.freeze, self.lora)
        check_cache(self.cache_device)
        if self.density is not None and self.density not in EXPLORATIONS:
            raise UnknownNameError("algo.density", self.density, EXPLORATIONS)
        if self.precision not in PRECISIONS:
            raise UnknownNameError("algo.precision", self.precision, PRECISIONS)


class RoundTrainer(ABC):
    """Trains a policy on stored episodes.

    Args:
        policy: its weights change in place.
        processor: of the policy; stored with it.
        source: gives the runs of a round.
        settings: see :class:`RoundSettings`.
        path: run directory; a trainer state in it is continued.
        seed: of everything random.
        save_every: steps between two checkpoints; there is one at the end of every round too.
        log_every: steps between two lines of numbers.
        evaluate: given the policy, returns numbers for the curves; asked every ``evaluate_every`` rounds and at the
            end.
        report: told each line of numbers.
        say: told what is worth reading once: a sentence or a table.

    Attributes:
        round: rounds finished.
        step: steps taken in this round.
        total: steps taken in all.
        env_steps: control steps of all episodes learned from in finished rounds.
        memory: the decisions of this round; ``None`` if there is nothing to learn from.
        steps: of this round.
    """

    #: Names of the means that :meth:`losses` gives; the loss itself comes first.
    statistics: ClassVar[tuple[str, ...]]
    #: Keep the state of adapters at a round's beginning as its reference, not the weights below them.
    copy_reference: ClassVar[bool] = False

    def __init__(
        self,
        policy: VlaserPolicy,
        processor: Processor,
        source: Source,
        settings: RoundSettings,
        path: str | Path,
        *,
        seed: int = 0,
        save_every: int = 500,
        log_every: int = 50,
        evaluate: Callable[[VlaserPolicy], Numbers] | None = None,
        evaluate_every: int = 0,
        report: Callable[[Numbers], None] = lambda row: None,
        say: Callable[[Any], None] = lambda text: None,
    ) -> None:
        self.policy, self.processor, self.source, self.path, self.seed = policy, processor, source, Path(path), seed
        self.save_every, self.log_every = save_every, log_every
        self.evaluate, self.evaluate_every, self.report, self.say = evaluate, evaluate_every, report, say
        self.config = settings
        policy.eval()
        policy.freeze(*settings.freeze)
        if settings.lora:
            # With adapters only these are trained, so that the policy without them is the reference.
            parts = [part for part in PARTS if part not in (*settings.freeze, "embedding")]
            policy.requires_grad_(False)
            add_lora(policy, parts, rank=settings.lora, seed=seed)
        self.optimizer = torch.optim.AdamW(self._parameters(), lr=settings.learning_rate, weight_decay=0.0)
        self.rounds = max(settings.rounds, 1)
        self.round = self.step = self.total = self.env_steps = self.steps = 0
        self.ended = False
        self.memory: DecisionMemory | None = None
        self.reference: Reference | None = None
        self._means: list[Tensor] = []
        self._load()

    # ------------------------------------------------------------------ what differs

    @abstractmethod
    def choose(self, episodes: Sequence[StoredEpisode], runs: Sequence[Path]) -> list[StoredEpisode]:
        """Choose what to learn from.

        Returns:
            the episodes whose decisions are needed, in the order in which they are numbered from now on.
        """

    @property
    @abstractmethod
    def items(self) -> int:
        """How many things a minibatch is drawn from: pairs, or decisions."""

    @abstractmethod
    def losses(self, items: Ints, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What is minimised, mean over some items, and the means of :attr:`statistics` (float64, on the CPU)."""

    def summarise(self, means: Numbers) -> Numbers:
        """What is logged of the means of several steps."""
        return means

    def after_step(self, means: Tensor) -> None:  # noqa: B027  (most have nothing to do)
        """Look at a step's means; may end the round by setting :attr:`ended`."""

    def extra_state(self) -> dict[str, Any]:
        """What else the next step depends on; plain values and tensors."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Put back what :meth:`extra_state` gave."""

    def begin_round(self) -> None:  # noqa: B027
        """Forget what belongs to the last round."""

    # ------------------------------------------------------------------ the loop

    def train(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Take the rounds that are left, or as many as go before ``stop`` says yes; returns whether all are taken."""
        curves = Curves(self.path, self.total)
        try:
            self._evaluate(curves)
            while self.round < self.rounds and self._take_round(curves, stop):
                pass
        finally:
            curves.close()
        return self.round == self.rounds

    def _take_round(self, curves: Curves, stop: Callable[[], bool]) -> bool:
        """Collect, choose, train; returns whether there is time for more."""
        runs = self.source(self.round, self.agent())
        if runs is None:
            self.save(curves)
            return False
        episodes = read_episodes(runs)
        self._remember(self.choose(episodes, runs))
        size = min(self.config.batch_size, self.items) or 1
        self.steps = self.config.epochs * -(-self.items // size)
        while self.step < self.steps and not self.ended:
            means = self.take_step()
            self._means.append(means)
            self.after_step(means)
            if self.total % self.log_every == 0:
                self._log(curves)
            if self.total % self.save_every == 0 and self.step < self.steps and not self.ended:
                self.save(curves)
            if stop():
                self.save(curves)
                return False
        self._finish_round(curves, episodes)
        return not stop()

    def _remember(self, chosen: Sequence[StoredEpisode]) -> None:
        self.memory = None
        if not chosen:
            return
        decisions = Decisions.read(chosen, self.policy.config)
        with self.autocast(), torch.no_grad():
            self.memory = DecisionMemory(decisions, self.policy, self.config.cache_mb * 2**20, self.config.cache_device)
        if self.reference is None:
            self.reference = Reference(self.policy, copy=self.copy_reference)

    def take_step(self) -> Tensor:
        """One update; returns the means of :attr:`statistics`.

        Raises:
            DivergedError: for a loss or a gradient that is not finite, before any weight changes.
        """
        generator = torch.Generator().manual_seed(seed_of(self.seed, self.round, self.step))
        items = self._minibatch()
        self.optimizer.zero_grad(set_to_none=True)
        means = torch.zeros(len(self.statistics), dtype=torch.float64)
        for start in range(0, len(items), self.config.micro_batch):
            part = items[start : start + self.config.micro_batch]
            loss, found = self.losses(part, generator)
            torch.autograd.backward(loss * (len(part) / len(items)))
            means += found * (len(part) / len(items))
        numbers = {"loss": means[0], "gradient norm": clip_gradients(self._parameters(), self.config.clip)}
        check_finite(f"step {self.step + 1} in round {self.round + 1}", self.path, numbers)
        self.optimizer.step()
        self.step += 1
        self.total += 1
        return means

    def agent(self) -> VlaserAgent:
        """Who collects a round."""
        if self.config.density is None:
            return VlaserAgent(self.policy, self.processor, compile=False)
        return ExploringAgent(
            self.policy,
            self.processor,
            make_exploration(self.config.density, self.policy.config.num_flow_steps, self.config.noise_level),
        )

    def autocast(self) -> AbstractContextManager[Any]:
        """Matrix products in the chosen precision."""
        enabled = self.config.precision == "bfloat16"
        return torch.autocast(self.policy.device.type, torch.bfloat16, enabled=enabled)

    def _minibatch(self) -> Ints:
        """Items of this step; every epoch has its own order, in which every item comes once."""
        size = min(self.config.batch_size, self.items)
        epoch, place = divmod(self.step, -(-self.items // size))
        order = np.random.default_rng(seed_of(self.seed, self.round, epoch, 1)).permutation(self.items)
        return np.array_split(order, -(-self.items // size))[place]

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.policy.parameters() if parameter.requires_grad]

    # ------------------------------------------------------------------ reports and files

    def describe(self) -> str:
        """One sentence about what is trained."""
        count = sum(parameter.numel() for parameter in self._parameters())
        state = f"continued at round {self.round}, step {self.step}" if self.total or self.round else "from the start"
        return f"{count:,} parameters are trained, {state}"

    def _log(self, curves: Curves, **more: float) -> None:
        row = dict(more)
        if self._means:
            means = torch.stack(self._means).mean(0).tolist()
            named = self.summarise(dict(zip(self.statistics, means, strict=True)))
            row = {**{f"train/{name}": value for name, value in named.items()}, **row}
        self._means = []
        if row:
            curves.add(self.total, **row)
            self.report({"step": self.total, **row})

    def _finish_round(self, curves: Curves, episodes: Sequence[StoredEpisode]) -> None:
        """Log, checkpoint, evaluation: what fails there costs no training."""
        self.env_steps += sum(int(episode.record["steps"]) for episode in episodes)
        success = float(np.mean([episode.success for episode in episodes])) if episodes else 0.0
        self.round += 1
        self._log(curves, round=self.round, **{"rollout/success": success, "rollout/env_steps": self.env_steps})
        self.step, self.ended, self.reference = 0, False, None
        self.begin_round()
        self.save(curves)
        self._evaluate(curves)

    def _evaluate(self, curves: Curves) -> None:
        """Score the stored policy after a round, where that is due and was not done before an interruption."""
        due = self.round == self.rounds or (self.evaluate_every and self.round % self.evaluate_every == 0)
        if self.evaluate is not None and self.round and not self.step and due and not curves.scored(self.total):
            row = self.evaluate(self.policy)
            curves.add(self.total, **row)
            self.report({"step": self.total, **row})

    def save(self, curves: Curves | None = None) -> None:
        """Write the policy for use, and the state that the next step depends on; each file whole or not at all."""
        self.path.mkdir(parents=True, exist_ok=True)
        save_pretrained(self.policy, self.path / POLICY_FOLDER)
        self.processor.save(self.path / POLICY_FOLDER)
        state = {
            **{name: getattr(self, name) for name in _PLAIN},
            "means": [means.tolist() for means in self._means],
            "trained": self._trained(),
            "reference": None if self.reference is None else self.reference.state(),
            "has_reference": self.reference is not None,
            "optimizer": self.optimizer.state_dict(),
            "extra": self.extra_state(),
        }
        partial = self.path / f"{STATE_FILE}.tmp"
        torch.save(state, partial)
        partial.replace(self.path / STATE_FILE)
        if curves is not None:
            curves.draw(every=30.0)

    def _trained(self) -> dict[str, Tensor]:
        """Weights that training changes, by name."""
        return {name: p.detach() for name, p in self.policy.named_parameters() if p.requires_grad}

    def _load(self) -> None:
        file = self.path / STATE_FILE
        if not file.is_file():
            return
        state = read_state(file)
        trained = self._trained()
        if trained.keys() != state["trained"].keys():
            raise InvalidConfigError(
                f"{self.path} trained other weights than these settings would: continue it with the same algo.freeze "
                "and algo.lora, or choose another run=."
            )
        for name, value in state["trained"].items():
            trained[name].copy_(value)
        for name in _PLAIN:
            setattr(self, name, state[name])
        # A version that logged other numbers may have begun the run.
        stored = [means for means in state["means"] if len(means) == len(self.statistics)]
        self._means = [torch.tensor(means, dtype=torch.float64) for means in stored]
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate
        if state["has_reference"]:
            self.reference = Reference(self.policy, copy=self.copy_reference)
            self.reference.load(state["reference"])
        self.load_extra_state(state["extra"])


#: Attributes of a trainer that its state keeps as they are.
_PLAIN = ("round", "step", "total", "env_steps", "ended")


def seed_of(*numbers: int) -> int:
    """One seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
