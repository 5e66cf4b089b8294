"""Supervised fine-tuning: behaviour cloning on demonstrations, and beside it answers to questions where there are some.

See :mod:`vlaser_gym.training.supervised` for the steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlaser_gym.agents.text_rows import Pictures, TextRows
from vlaser_gym.agents.trainable import Draws, TrainableAgent
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.settings.algorithms import SftSettings
from vlaser_gym.training.data.augment import Augmentation
from vlaser_gym.training.data.clipping import Normalisation
from vlaser_gym.training.data.conversations import Answers
from vlaser_gym.training.data.demonstrations import Batches
from vlaser_gym.training.job import Job
from vlaser_gym.training.seeds import seed_of
from vlaser_gym.training.supervised import SupervisedTraining, frozen_parts
from vlaser_gym.training.trainer import RunOptions, choose_trained


class ImitationLoss(nn.Module):
    """The loss as a module, so that several processes can share its gradient."""

    def __init__(self, agent: TrainableAgent) -> None:
        super().__init__()
        self.agent = agent

    def forward(
        self, batch: dict[str, Tensor], draws: Draws, questions: tuple[Pictures | None, TextRows] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its terms: ``imitation``, the agent's auxiliary ones, and ``answers``, weighted."""
        encoding = self.agent.encode(batch)
        error = self.agent.imitation_error(encoding, batch, batch["actions"], draws).mean()
        terms = {"imitation": error, **self.agent.auxiliary_losses(batch)}
        if questions is not None:
            terms["answers"] = self.agent.answer_loss(*questions)
        return torch.stack(list(terms.values())).sum(), {name: term.detach() for name, term in terms.items()}


class SupervisedFineTuning(SupervisedTraining):
    """Trains a policy on batches of demonstrations.

    Args:
        agent: its weights change in place.
        batches: what to train on.
        settings: see :class:`SftSettings`.
        path, options: see :class:`Trainer`.
        normalisation: by whose statistics the batches go.
        answers: questions that are learned beside, and the weight of their loss.
    """

    rates = ("learning_rate", "expert_learning_rate")

    def __init__(
        self,
        agent: TrainableAgent,
        batches: Batches,
        settings: SftSettings,
        path: str | Path,
        options: RunOptions | None = None,
        normalisation: Normalisation | None = None,
        answers: tuple[Answers, float] | None = None,
    ) -> None:
        self.batches, self.normalisation, self.answers = batches, normalisation, answers
        self.augmentation = Augmentation(settings.augment)
        super().__init__(agent, settings, path, options)

    def make_loss(self) -> nn.Module:
        """See :class:`SupervisedTraining`."""
        return ImitationLoss(self.agent)

    def micro_batches(self) -> Iterator[tuple[Any, ...]]:
        """See :class:`SupervisedTraining`."""
        settings, device, size = self.settings, self.agent.device, self.settings.batch_size
        generator = torch.Generator().manual_seed(seed_of(self.seed, self.done))
        rows = self.batches.rows(self.done, size)
        changes = self.augmentation.draw(size, generator)
        draws = self.agent.imitation_draws(size, settings.flow_samples, generator)
        questions = self._questions()
        for part in self.shares(size):
            batch = self.batches.batch(rows[part])
            batch["pixels"] = self.augmentation(batch["pixels"], changes[part])
            moved = {name: values.to(device) for name, values in batch.items()}
            yield moved, {name: values[part].to(device) for name, values in draws.items()}, next(questions)

    def _questions(self) -> Iterator[tuple[Pictures | None, TextRows] | None]:
        """Questions for each part of a step, from a stream of their own: without them nothing else changes."""
        if self.answers is None:
            yield from repeat(None)
            return
        answers, weight = self.answers
        count, generator = self.settings.answers, torch.Generator().manual_seed(seed_of(self.seed, self.done, 3))
        yield from answers.parts(self.done, count, self.shares(count), weight * self.share_count, generator)

    def describe(self) -> str:
        """See :class:`Trainer`; and what it learns from."""
        data = self.batches.data
        lines = [f"{super().describe()}; {len(data):,} rows of {data.num_episodes} episodes"]
        lines += [f"and {self.answers[0].describe()}"] if self.answers is not None else []
        return "\n".join([*lines, *(self.normalisation.lines() if self.normalisation is not None else [])])

    def record(self) -> dict[str, Any]:
        """See :class:`Trainer`."""
        return {
            "rows": len(self.batches.data),
            **(self.normalisation.record() if self.normalisation is not None else {}),
        }


def build(job: Job) -> SupervisedFineTuning:
    """``algo=sft``."""
    job = job.without_unknown_places()
    settings = job.settings
    agent, keeps = job.start(job.algo.statistics, answers=settings.questions is not None)
    # Before the demonstrations, which may take minutes to read.
    choose_trained(agent, frozen_parts(agent, job.algo), 0, settings.seed)
    answers = questions_of(job, agent)
    if settings.evaluate_episodes:
        job.check_robot(agent)
    data = job.demonstrations(agent)
    normalisation = job.normalisation(agent, data, keeps)
    batches = Batches(data, agent, settings.seed)
    return SupervisedFineTuning(agent, batches, job.algo, job.path, job.options, normalisation, answers)


def questions_of(job: Job, agent: TrainableAgent) -> tuple[Answers, float] | None:
    """The questions that are learned beside the demonstrations, and the weight of their loss; ``None`` for none.

    Raises:
        InvalidConfigError: for fewer answers than parts of an update, and for a policy without a language head.
    """
    settings, algo = job.settings, job.algo
    if settings.questions is None:
        return None
    if algo.answers < algo.accumulate * job.group.size:
        raise InvalidConfigError(
            f"algo.answers must be at least processes times algo.accumulate; got {algo.answers}, {job.group.size} and "
            f"{algo.accumulate}."
        )
    mode = "none" if algo.augment == "none" else "colour"
    answers = Answers(
        settings.questions, agent, settings.seed, augmentation=Augmentation(mode), cache=settings.cache, say=job.say
    )
    return answers, settings.questions_weight
