"""Training on batches of examples: the steps, their learning rates and their state, whatever the loss.

Everything random in a step is a function of the seed and the step's number, drawn for the whole batch and cut into the
processes' shares: a resumed run and a run on several processes take the same steps as an uninterrupted one on a single
process. Stochastic depth alone is drawn part by part.
"""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vlaser_gym.agents.trainable import TrainableAgent
from vlaser_gym.agents.vlaser.agent import SMALL_WEIGHTS
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.settings.algorithms import SftSettings
from vlaser_gym.training.averaging import WeightAverage
from vlaser_gym.training.optimizers import set_rate
from vlaser_gym.training.scaling import like, load_optimizer
from vlaser_gym.training.seeds import seed_of
from vlaser_gym.training.trainer import RunOptions, Trainer

#: Of a group of parameters: what the settings say and a stored optimizer does not.
_CHOSEN = ("peak", "weight_decay", "betas")
#: Decay of the averaged weights of small models.
SMALL_DECAY = 0.999


class SupervisedTraining(Trainer):
    """Trains a policy on batches by a loss.

    Args:
        agent: its weights change in place.
        settings: see :class:`SftSettings`, whose keys about steps, rates and parts count here.
        path, options: see :class:`Trainer`.

    Attributes:
        average: of the weights, which is stored and evaluated in their place; ``None`` if there is none.
    """

    #: Settings that are learning rates.
    rates: ClassVar[tuple[str, ...]] = ("learning_rate",)

    def __init__(
        self, agent: TrainableAgent, settings: SftSettings, path: str | Path, options: RunOptions | None = None
    ) -> None:
        super().__init__(agent, path, settings.steps, options)
        self.settings = settings
        if settings.batch_size % (self.group.size * settings.accumulate):
            raise InvalidConfigError(
                f"algo.batch_size must be a multiple of processes times algo.accumulate; got {settings.batch_size}, "
                f"{self.group.size} and {settings.accumulate}."
            )
        decay = average_decay(agent, settings)
        self.prepare(self.frozen(), settings.lora, settings.whole)
        agent.train()
        self.average = WeightAverage(agent, decay) if decay else None
        self.optimizer = self.optimizer_of(
            parameter_groups(agent, settings), betas=(settings.betas[0], settings.betas[1])
        )
        self._sums: list[dict[str, Tensor]] = []
        self._clock = time.perf_counter()
        self.load()
        self.loss = self.make_loss()
        if self.group.size > 1 and not self.scaling.shard:
            self.loss = DistributedDataParallel(self.loss)

    # ------------------------------------------------------------------ what a loss says

    @abstractmethod
    def make_loss(self) -> nn.Module:
        """Make the loss as a module, so that processes can share its gradient; it maps the arguments of a part to
        what is minimised and its terms.
        """

    @abstractmethod
    def micro_batches(self) -> Iterator[tuple[Any, ...]]:
        """Arguments of the loss for this process's share of the step, in ``accumulate`` parts."""

    def frozen(self) -> Sequence[str]:
        """Names of the frozen parts."""
        return frozen_parts(self.agent, self.settings)

    @property
    def share_count(self) -> int:
        """Parts of a step, over all processes."""
        return self.settings.accumulate * self.group.size

    def shares(self, count: int) -> list[NDArray[np.int64]]:
        """The examples, of ``count`` in a step, in each of this process's micro-batches."""
        share = np.array_split(np.arange(count), self.share_count)
        return share[self.group.rank :: self.group.size]

    # ------------------------------------------------------------------ a step

    @contextmanager
    def whole_policy(self) -> Iterator[TrainableAgent]:
        """See :class:`Trainer`; with the averaged weights, and without what is random in training."""
        self.agent.eval()
        try:
            with self.average.active() if self.average is not None else nullcontext(), super().whole_policy() as policy:
                yield policy
        finally:
            self.agent.train()

    def step(self) -> bool:
        """Take a step of the optimizer; a line of numbers every ``log_every`` steps."""
        self._sums.append(self.take_step())
        if self.done % self.options.log_every == 0 or self.done == self.total:
            seconds, count = time.perf_counter() - self._clock, len(self._sums)
            means = {f"loss/{name}": float(sum(row[name] for row in self._sums)) / count for name in self._sums[0]}
            share = self.rate(self.done - 1)
            rates = {name: share * getattr(self.settings, name) for name in self.rates}
            self.log(**means, samples_per_second=count * self.settings.batch_size / seconds, **rates)
            self._sums, self._clock = [], time.perf_counter()
        return True

    def evaluate(self) -> None:
        """See :class:`Trainer`; its time does not count against the pace of training."""
        paused = time.perf_counter()
        super().evaluate()
        self._clock += time.perf_counter() - paused

    def take_step(self) -> dict[str, Tensor]:
        """One update; returns the loss's terms, means over all processes.

        Raises:
            DivergedError: for a loss or a gradient that is not finite, before any weight changes.
        """
        for group in self.optimizer.param_groups:
            set_rate(group, group["peak"] * self.rate(self.done))
        self.optimizer.zero_grad(set_to_none=True)
        parts, found = list(self.micro_batches()), []
        gpus = [self.agent.device] if self.agent.device.type == "cuda" else []
        for number, part in enumerate(parts):
            exchange: AbstractContextManager[None] = nullcontext()
            if number < len(parts) - 1 and isinstance(self.loss, DistributedDataParallel):
                exchange = self.loss.no_sync()  # gradients are exchanged once per step, with the last part
            with exchange, self.autocast(self.settings.precision), torch.random.fork_rng(gpus):
                # Stochastic depth draws from torch's global stream: seeded here by step and part, as all else is.
                share = number * self.group.size + self.group.rank
                torch.manual_seed(seed_of(self.seed, self.done, share, 1))
                loss, terms = self.loss(*part)
                (loss / len(parts)).backward()
            found.append(terms)
        means = {n: self.group.mean(torch.stack([terms[n] for terms in found]).mean()) for n in found[0]}
        rate = " and ".join(f"algo.{name}" for name in self.rates)
        total = {"loss": torch.stack(list(means.values())).sum()}
        self.clip_gradients(list(self.agent.parameters()), self.settings.clip, f"step {self.done + 1}", rate, total)
        self.step_optimizer(self.optimizer, self.done)
        self.done = self.position = self.done + 1
        if self.average is not None:
            self.average.update(self.done)
        return means

    def rate(self, step: int) -> float:
        """Learning rate relative to its peak: linear warm-up, then a cosine down to ``final_rate``."""
        settings = self.settings
        if step < settings.warmup:
            return (step + 1) / settings.warmup
        progress = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
        return settings.final_rate + (1 - settings.final_rate) * (1 + math.cos(math.pi * min(progress, 1))) / 2

    # ------------------------------------------------------------------ files

    def state(self) -> dict[str, Any]:
        """See :class:`Trainer`."""
        return {
            "step": self.done,
            "module": self.agent.state_dict(),
            "average": {} if self.average is None else self.average.values,
            "optimizer": self.optimizer.state_dict(),
            # Of the steps since the last line of numbers, so that the next one is about all of them.
            "sums": [{name: float(term) for name, term in row.items()} for row in self._sums],
        }

    @torch.no_grad()
    def load_state(self, state: dict[str, Any]) -> None:
        """See :class:`Trainer`. Rates, decay and betas are those of the settings, which may have changed on the way."""
        groups = (self.optimizer.param_groups, state["optimizer"]["param_groups"])
        ours, theirs = ([len(group["params"]) for group in some] for some in groups)
        if ours != theirs or self.agent.state_dict().keys() != state["module"].keys():
            raise InvalidConfigError(
                f"{self.path} trained other weights than these settings would: continue it with the same algo.freeze, "
                "algo.lora, algo.whole, algo.places and algo.named_places, or choose another run=."
            )
        for name, value in self.agent.state_dict().items():
            value.copy_(like(state["module"][name], value))
        if self.average is not None:
            self.average.load(state["average"])
        chosen = [{name: group[name] for name in _CHOSEN} for group in self.optimizer.param_groups]
        load_optimizer(self.optimizer, state["optimizer"])
        for group, values in zip(self.optimizer.param_groups, chosen, strict=True):
            group.update(values)
        self._sums = [{name: torch.tensor(term) for name, term in row.items()} for row in state.get("sums", [])]
        self.done = self.position = int(state["step"])


def frozen_parts(agent: TrainableAgent, settings: SftSettings) -> Sequence[str]:
    """Parts that stay constant: those of the settings, or where they say nothing those that the policy names."""
    return agent.frozen_by_default if settings.freeze is None else settings.freeze


def average_decay(agent: TrainableAgent, settings: SftSettings) -> float:
    """Decay of averaged weights; where the settings say nothing, small models have one and large ones none."""
    if settings.ema is not None:
        return settings.ema
    return SMALL_DECAY if sum(weight.nbytes for weight in agent.parameters()) <= SMALL_WEIGHTS else 0.0


def parameter_groups(agent: TrainableAgent, settings: SftSettings) -> list[dict[str, Any]]:
    """Trainable parameters with their peak learning rate; vectors (norms, biases) do not decay."""
    named = [(name, parameter) for name, parameter in agent.named_parameters() if parameter.requires_grad]
    groups = []
    for is_vision_language, rate in ((True, settings.learning_rate), (False, settings.expert_learning_rate)):
        mine = [parameter for name, parameter in named if agent.is_vision_language(name) == is_vision_language]
        for decays in (True, False):
            chosen = [parameter for parameter in mine if (parameter.ndim > 1) == decays]
            decay = settings.weight_decay if decays else 0.0
            if chosen:
                groups.append({"params": chosen, "lr": rate, "peak": rate, "weight_decay": decay})
    return groups
