"""Learning from stored episodes, round after round: collect, choose what to learn from, train.

A round's episodes are those of the policy that the round began with.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlaser_gym.agents.base import Agent
from vlaser_gym.agents.trainable import TrainableAgent
from vlaser_gym.evaluation.episodes import StoredEpisode, read_episodes
from vlaser_gym.settings.algorithms import RoundSettings
from vlaser_gym.storage.interrupts import StopNow
from vlaser_gym.training.data.decisions import DecisionMemory, Decisions
from vlaser_gym.training.optimizers import set_rate
from vlaser_gym.training.reference import Reference
from vlaser_gym.training.scaling import load_optimizer
from vlaser_gym.training.seeds import seed_of
from vlaser_gym.training.trainer import (
    Numbers,
    RunOptions,
    Trainer,
    cache_device,
    load_weights,
    trained,
    trained_weights,
)

Ints = NDArray[np.int64]
#: The runs of a round, given its number and who acts in it; ``None`` if there was no time to finish them.
Source = Callable[[int, Agent], Sequence[Path] | None]


class RoundTrainer(Trainer):
    """Trains a policy on stored episodes.

    Args:
        agent: its weights change in place.
        source: gives the runs of a round.
        settings: see :class:`RoundSettings`.
        path, options: see :class:`Trainer`.

    Attributes:
        round_step: steps taken in this round, ``round_steps`` of them in all.
        position: steps taken in all rounds.
        env_steps: control steps of all episodes learned from in finished rounds.
        ended: whether the round is over before its last step.
        memory: the decisions of this round; ``None`` before it begins, and if there is nothing to learn from.
    """

    unit = "round"
    #: Names of the means that :meth:`losses` gives; the loss itself comes first.
    statistics: ClassVar[tuple[str, ...]]
    #: Keep the state of adapters at a round's beginning as its reference, not the weights below them.
    copy_reference: ClassVar[bool] = False
    #: Whether the policy of a round's beginning is compared with.
    has_reference: ClassVar[bool] = True

    def __init__(
        self,
        agent: TrainableAgent,
        source: Source,
        settings: RoundSettings,
        path: str | Path,
        options: RunOptions | None = None,
    ) -> None:
        super().__init__(agent, path, max(settings.rounds, 1), options)
        self.source, self.settings = source, settings
        self._device = cache_device(settings.cache_device, agent)
        self.prepare(settings.freeze, settings.lora)
        self.optimizer = self.optimizer_of(trained(agent), lr=settings.learning_rate, weight_decay=0.0)
        self.round_step = self.round_steps = self.env_steps = 0
        self.ended, self._begun = False, False
        self.memory: DecisionMemory | None = None
        self.reference: Reference | None = None
        self._means: list[Tensor] = []
        self._episodes: list[StoredEpisode] = []
        self.load()

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
        """The number of items that minibatches are drawn from: pairs, or decisions."""

    @abstractmethod
    def draw(self, items: Ints, generator: torch.Generator) -> Any:
        """Everything random of the losses of some items."""

    @abstractmethod
    def losses_of(self, items: Ints, drawn: Any) -> tuple[Tensor, Tensor]:
        """The loss, mean over some items, and the means of :attr:`statistics` (float64, on the CPU).

        Args:
            items: of :attr:`items`.
            drawn: what :meth:`draw` gave for them.
        """

    def losses(self, items: Ints, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """:meth:`losses_of` with fresh draws."""
        return self.losses_of(items, self.draw(items, generator))

    def summarise(self, means: Numbers) -> Numbers:
        """The metrics to log from the means of several steps."""
        return means

    def after_step(self, means: Tensor) -> None:
        """Look at a step's means; may end the round by setting :attr:`ended`."""

    def extra_state(self) -> dict[str, Any]:
        """Further state on which the next step depends; plain values and tensors."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`extra_state` gave."""

    # ------------------------------------------------------------------ a step

    def step(self) -> bool:
        """Take a step of the optimizer; a round begins before its first and ends after its last."""
        if not self._begun and not self.begin_round():
            return False
        if self.round_step < self.round_steps and not self.ended:
            means = self.take_step()
            self._means.append(means)
            self.after_step(means)
            if self.position % self.options.log_every == 0:
                self.log(**self._logged())
        if self.round_step >= self.round_steps or self.ended:
            self.end_round()
        return True

    def begin_round(self) -> bool:
        """Collect and choose; returns whether there was time to finish that."""
        runs = self.collect()
        if runs is None:
            return False
        self._episodes = read_episodes(runs)
        chosen = self.choose(self._episodes, runs)
        self.memory = None
        if chosen:
            decisions, settings = Decisions.read(chosen, self.agent), self.settings
            with self.autocast(settings.precision), torch.no_grad():
                self.memory = DecisionMemory(decisions, self.agent, settings.cache_mb * 2**20, self._device)
            if self.reference is None and self.has_reference:
                self.reference = Reference(self.agent, copy=self.copy_reference)
        size = min(self.settings.batch_size, self.items) or 1
        self.round_steps = self.settings.epochs * -(-self.items // size)
        self._begun = True
        return True

    def collect(self) -> Sequence[Path] | None:
        """The round's runs: the main process acts, and the others wait; ``None`` if there was no time to finish.

        Raises:
            StopNow: on all processes, where the main one was told to stop.
        """
        found: Any = None
        with self.whole_policy() as policy:
            if self.group.is_main_process:
                try:
                    with self.interrupts.at_once():
                        found = self.source(self.done, policy.acting(explore=True))
                except StopNow as stopped:
                    found = stopped
        found = self.group.broadcast(found)
        if isinstance(found, StopNow):
            raise found
        runs: Sequence[Path] | None = found
        return runs

    def take_step(self) -> Tensor:
        """One update; returns the means of :attr:`statistics`.

        Processes take turns at the step's parts; what is random is drawn for all of them everywhere.

        Raises:
            DivergedError: for a loss or a gradient that is not finite, before any weight changes.
        """
        settings = self.settings
        generator = torch.Generator().manual_seed(seed_of(self.seed, self.done, self.round_step))
        items = self.minibatch()
        self.optimizer.zero_grad(set_to_none=True)
        means = torch.zeros(len(self.statistics), dtype=torch.float64)
        for part, drawn, share in self.parts(items, generator):
            with self.autocast(settings.precision):
                loss, found = self.losses_of(part, drawn)
            torch.autograd.backward(self.summed(loss * share))
            means += found * share
        self.sum_gradients(trained(self.agent))
        means = self.group.sum(means, self.device)
        update = f"step {self.round_step + 1} in round {self.done + 1}"
        self.clip_gradients(trained(self.agent), settings.clip, update, "algo.learning_rate", {"loss": means[0]})
        self.step_optimizer(self.optimizer, self.done, self.round_step)
        self.round_step += 1
        self.position += 1
        return means

    def parts(self, items: Ints, generator: torch.Generator) -> Iterator[tuple[Ints, Any, float]]:
        """This process's parts of a step: items, what is random of them, and their share of the step.

        All processes have equally many; where there is none left, one that counts nothing.
        """
        size, rank = self.group.size, self.group.rank
        length = min(self.settings.micro_batch, -(-len(items) // size))
        cut = [items[start : start + length] for start in range(0, len(items), length)]
        drawn = [self.draw(part, generator) for part in cut] if size > 1 else None
        for start in range(0, len(cut), size):
            turn = min(start + rank, len(cut) - 1)
            part = cut[turn]
            share = len(part) / len(items) if start + rank < len(cut) else 0.0
            yield part, self.draw(part, generator) if drawn is None else drawn[turn], share

    def minibatch(self) -> Ints:
        """Items of this step; every epoch has its own order, in which every item comes once."""
        count = -(-self.items // min(self.settings.batch_size, self.items))
        epoch, place = divmod(self.round_step, count)
        order = np.random.default_rng(seed_of(self.seed, self.done, epoch, 1)).permutation(self.items)
        return np.array_split(order, count)[place]

    def end_round(self) -> None:
        """Log how the round's episodes went, and forget what belongs to it."""
        self.env_steps += sum(int(episode.record["steps"]) for episode in self._episodes)
        successes = [episode.success for episode in self._episodes]
        self.done += 1
        success = {"rollout/success": float(np.mean(successes)) if successes else 0.0}
        self.log(**self._logged(), round=self.done, **success, **{"rollout/env_steps": self.env_steps})
        self.round_step, self.ended, self.reference, self._begun = 0, False, None, False

    def _logged(self) -> Numbers:
        if not self._means:
            return {}
        means = torch.stack(self._means).mean(0).tolist()
        self._means = []
        named = self.summarise(dict(zip(self.statistics, means, strict=True)))
        return {f"train/{name}": value for name, value in named.items()}

    # ------------------------------------------------------------------ reports and files

    @property
    def save_is_due(self) -> bool:
        """Due at the end of every round, and every ``save_every`` steps."""
        return not self._begun or self.position % self.options.save_every == 0

    @property
    def evaluation_is_due(self) -> bool:
        """True between rounds only."""
        return not self._begun and self.round_step == 0 and super().evaluation_is_due

    def state(self) -> dict[str, Any]:
        """See :class:`Trainer`."""
        return {
            **{"round": self.done, "step": self.round_step, "total": self.position},
            **{"env_steps": self.env_steps, "ended": self.ended},
            "means": [means.tolist() for means in self._means],
            "trained": trained_weights(self.agent),
            "reference": None if self.reference is None else self.reference.state(),
            "has_reference": self.reference is not None,
            "optimizer": self.optimizer.state_dict(),
            "extra": self.extra_state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """See :class:`Trainer`."""
        # The first edition named weights without the agent's own prefix.
        stored = {name if name.startswith("policy.") else f"policy.{name}": t for name, t in state["trained"].items()}
        weights = trained_weights(self.agent)
        known = stored if stored.keys() == weights.keys() else state["trained"]
        load_weights(self.path, weights, known, "algo.freeze and algo.lora")
        self.done, self.round_step, self.position = state["round"], state["step"], state["total"]
        self.env_steps, self.ended = state["env_steps"], state["ended"]
        # A version that logged other numbers may have begun the run.
        means = [row for row in state["means"] if len(row) == len(self.statistics)]
        self._means = [torch.tensor(row, dtype=torch.float64) for row in means]
        load_optimizer(self.optimizer, state["optimizer"])
        for group in self.optimizer.param_groups:
            set_rate(group, self.settings.learning_rate)
        if state["has_reference"]:
            self.reference = Reference(self.agent, copy=self.copy_reference)
            self.reference.load(state["reference"])
        self.load_extra_state(state["extra"])
