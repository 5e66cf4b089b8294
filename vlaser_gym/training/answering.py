"""Learning to answer questions: the next token of answers, by whoever has a language head.

See :mod:`vlaser_gym.training.supervised` for the steps, and :mod:`vlaser_gym.training.data.conversations` for what is
learned from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlaser_gym.agents.text_rows import Pictures, TextRows
from vlaser_gym.agents.trainable import TrainableAgent
from vlaser_gym.cli import words
from vlaser_gym.settings.algorithms import VlmSettings
from vlaser_gym.training.data.augment import Augmentation
from vlaser_gym.training.data.conversations import Answers
from vlaser_gym.training.job import Job
from vlaser_gym.training.seeds import seed_of
from vlaser_gym.training.supervised import SupervisedTraining
from vlaser_gym.training.trainer import RunOptions, choose_trained


class AnswerLoss(nn.Module):
    """The loss as a module, so that several processes can share its gradient."""

    def __init__(self, agent: TrainableAgent) -> None:
        super().__init__()
        self.agent = agent

    def forward(self, pictures: Pictures | None, rows: TextRows) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its only term ``answers`` (nat per token)."""
        loss = self.agent.answer_loss(pictures, rows)
        return loss, {"answers": loss.detach()}


class AnswerTraining(SupervisedTraining):
    """Trains a model on questions and answers.

    Args:
        agent: its weights change in place.
        answers: what to learn.
        settings: see :class:`VlmSettings`.
        path, options: see :class:`Trainer`.
    """

    settings: VlmSettings

    def __init__(
        self,
        agent: TrainableAgent,
        answers: Answers,
        settings: VlmSettings,
        path: str | Path,
        options: RunOptions | None = None,
    ) -> None:
        self.answers = answers
        super().__init__(agent, settings, path, options)

    def frozen(self) -> Sequence[str]:
        """See :class:`SupervisedTraining`; an action expert has no part in answers."""
        return frozen_for_answers(self.agent, self.settings)

    def make_loss(self) -> nn.Module:
        """See :class:`SupervisedTraining`."""
        return AnswerLoss(self.agent)

    def micro_batches(self) -> Iterator[tuple[Pictures | None, TextRows]]:
        """See :class:`SupervisedTraining`."""
        generator = torch.Generator().manual_seed(seed_of(self.seed, self.done))
        parts = self.shares(self.settings.batch_size)
        yield from self.answers.parts(self.done, self.settings.batch_size, parts, self.share_count, generator)

    def describe(self) -> str:
        """See :class:`Trainer`; and what it learns from."""
        return f"{super().describe()}; {self.answers.describe()}"

    def record(self) -> dict[str, Any]:
        """See :class:`Trainer`."""
        return {"answers": len(self.answers), "skipped": self.answers.skipped}


def frozen_for_answers(agent: TrainableAgent, settings: VlmSettings) -> list[str]:
    """Parts that stay constant: those of the settings, and the action expert."""
    return [*(settings.freeze or ()), *(["expert"] if "expert" in agent.parts else [])]


def build(job: Job) -> AnswerTraining:
    """``algo=vlm``."""
    settings, algo = job.settings, job.algo
    agent = job.student()
    # Before the images, which may take minutes to read.
    choose_trained(agent, frozen_for_answers(agent, algo), 0, settings.seed)
    answers = Answers(
        settings.data_sets[0],
        agent,
        settings.seed,
        kinds=words(algo.kinds) if algo.kinds is not None else (),
        weighting=algo.weighting,
        packing=algo.packing,
        augmentation=Augmentation(algo.augment),
        cache=settings.cache,
        say=job.say,
    )
    # It is asked, and not flown: python -m vlaser_gym.reason.
    return AnswerTraining(agent, answers, algo, job.path, replace(job.options, evaluate=None))
