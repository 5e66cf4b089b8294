"""Success-filtered cloning: roll out, keep the episodes that succeeded, imitate them; the simplest of all baselines.

What is imitated are the chunks as they were drawn, noise included, by the policy's own loss of imitation (of a flow,
flow matching); every episode weighs the same whatever its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vlaser_gym.agents.trainable import Draws
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.episodes import StoredEpisode
from vlaser_gym.settings.algorithms import RftSettings
from vlaser_gym.training.data.decisions import equal_shares
from vlaser_gym.training.job import Job
from vlaser_gym.training.rounds import Ints, RoundTrainer


class SuccessCloningTrainer(RoundTrainer):
    """``algo=rft``; see :class:`RoundTrainer` for what it is given."""

    statistics = ("loss",)
    has_reference = False
    settings: RftSettings

    def choose(self, episodes: Sequence[StoredEpisode], runs: Sequence[Path]) -> list[StoredEpisode]:
        """The episodes that succeeded; where a start has many, the first ``algo.per_layout`` of them."""
        kept: list[StoredEpisode] = []
        count: dict[object, int] = {}
        for episode in episodes:
            number = count[episode.start] = count.get(episode.start, 0) + int(episode.success)
            if episode.success and (self.settings.per_layout is None or number <= self.settings.per_layout):
                kept.append(episode)
        self.options.say(f"{len(kept)} of {len(episodes)} episodes to imitate.")
        if not kept and not self.settings.rounds:
            raise InvalidConfigError(
                f"Nothing to imitate in {', '.join(map(str, runs)) or 'no run'}: none of {len(episodes)} episodes "
                "succeeded; give runs of a better policy, or more episodes."
            )
        return kept

    @property
    def items(self) -> int:
        """Decisions."""
        return 0 if self.memory is None else len(self.memory.decisions)

    def draw(self, items: Ints, generator: torch.Generator) -> Draws:
        """See :class:`RoundTrainer`."""
        return self.agent.imitation_draws(len(items), self.settings.flow_samples, generator)

    def losses_of(self, items: Ints, drawn: Draws) -> tuple[Tensor, Tensor]:
        """See :class:`RoundTrainer`."""
        assert self.memory is not None
        rows, decisions = torch.from_numpy(items), self.memory.decisions
        error = self.agent.imitation_error(
            self.memory.encoding(rows), self.memory.inputs(rows), decisions.chunk[rows], drawn
        )
        weight = torch.from_numpy(equal_shares(decisions.starts)[items]).to(error.device)
        loss = (weight * error.double().flatten(1).mean(1)).mean()
        return loss, loss.detach().cpu()[None]


def build(job: Job) -> SuccessCloningTrainer:
    """``algo=rft``."""
    return SuccessCloningTrainer(job.round_agent(), job.rounds(), job.algo, job.path, job.options)
