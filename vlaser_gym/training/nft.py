"""Negative-aware fine-tuning: towards what succeeded, away from what failed, without likelihoods or a critic.

DiffusionNFT (arXiv 2509.16117): with the velocities v of the policy and v_old of the policy that acted,
``(1 - beta) v_old + beta v`` is matched to the paths of chunks that did well and ``(1 + beta) v_old - beta v`` to those
of chunks that did badly, weighted by how well the episode did among those of the same initial state.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlaser_gym.agents.trainable import Draws
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.episodes import StoredEpisode
from vlaser_gym.settings.algorithms import NftSettings
from vlaser_gym.training.data.decisions import equal_shares
from vlaser_gym.training.job import Job
from vlaser_gym.training.rounds import Ints, RoundTrainer
from vlaser_gym.training.trainer import Numbers


class NegativeAwareTrainer(RoundTrainer):
    """``algo=nft``; see :class:`RoundTrainer` for what it is given.

    Attributes:
        optimality: of every episode learned from, 0 to 1.
    """

    #: The changes are summed over the decisions of their side and divided by all: see :meth:`summarise`.
    statistics = (
        *("loss", "positive_error", "negative_error", "win_error_change", "lose_error_change", "distance"),
        *("winners", "losers"),
    )
    copy_reference = True

    settings: NftSettings

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.optimality = np.zeros(0)
        super().__init__(*args, **kwargs)

    def choose(self, episodes: Sequence[StoredEpisode], runs: Sequence[Path]) -> list[StoredEpisode]:
        """Weigh the episodes; those that teach nothing are left out."""
        values = episode_optimality(episodes) if self.settings.negatives else np.array([e.success for e in episodes])
        useful = [i for i, value in enumerate(values) if value != (0.5 if self.settings.negatives else 0)]
        successes = sum(episode.success for episode in episodes)
        self.options.say(f"{len(useful)} of {len(episodes)} episodes to learn from; {successes} succeeded.")
        if not useful:
            reason = nothing_to_learn(episodes, runs)
            if not self.settings.rounds:
                raise reason
            self.options.say(f"{reason} The round is over.")
        self.optimality = np.asarray(values, np.float64)[useful]
        return [episodes[i] for i in useful]

    @property
    def items(self) -> int:
        """Decisions."""
        return 0 if self.memory is None else len(self.memory.decisions)

    def summarise(self, means: Numbers) -> Numbers:
        """Changes per decision of their side: parts of a batch without any would pull a mean of means towards 0."""
        row = dict(means)
        for change, share in (("win_error_change", "winners"), ("lose_error_change", "losers")):
            total = row.pop(change)
            if row[share]:
                row[change] = total / row[share]
        return row

    def draw(self, items: Ints, generator: torch.Generator) -> Draws:
        """Noise and flow times of decisions."""
        return self.agent.imitation_draws(len(items), self.settings.flow_samples, generator)

    def losses_of(self, items: Ints, drawn: Draws) -> tuple[Tensor, Tensor]:
        """See :class:`RoundTrainer`."""
        assert self.reference is not None
        assert self.memory is not None
        rows, memory, decisions = torch.from_numpy(items), self.memory, self.memory.decisions
        device, inputs, chunk = self.agent.device, memory.inputs(rows), decisions.chunk[rows]
        encoding = memory.encoding(rows)
        velocity, target = self.agent.velocities(encoding, inputs, chunk, drawn)
        with self.reference.active() as reference:
            seen = encoding if self.agent.encoding_is_frozen else memory.encode(reference, rows)
            old, _ = reference.velocities(seen, inputs, chunk, drawn)
        episode = np.searchsorted(decisions.starts, items, side="right") - 1
        optimality = torch.from_numpy(self.optimality[episode]).to(device)
        weight = torch.from_numpy(equal_shares(decisions.starts)[items]).to(device)
        return negative_aware_objective(velocity, old, target, optimality, self.settings.beta, weight)


def negative_aware_objective(
    velocity: Tensor, old: Tensor, target: Tensor, optimality: Tensor, beta: float, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """The loss, mean over B decisions, and the means of :attr:`NegativeAwareTrainer.statistics`.

    Args:
        velocity, old, target: of the policy, of the policy that acted, and of the paths; ``[B, K, H, A]``.
        optimality: ``[B]``, 0 to 1.
        beta: how far the policy stands from ``old`` on the way from there to the positive policy.
        weight: ``[B]``, of the decisions in the loss.
    """

    def error(guess: Tensor) -> Tensor:
        """Mean squared error of each decision, ``[B]``, float64."""
        return (guess - target).double().square().mean((1, 2, 3))

    positive = error((1 - beta) * old + beta * velocity)
    negative = error((1 + beta) * old - beta * velocity)
    loss = (weight * (optimality * positive + (1 - optimality) * negative)).mean()
    change = (error(velocity) - error(old)).detach()
    good, bad = optimality > 0.5, optimality < 0.5
    columns = (
        *(positive.mean(), negative.mean(), (change * good).mean(), (change * bad).mean()),
        *((velocity - old).double().square().mean(), good.double().mean(), bad.double().mean()),
    )
    return loss, torch.stack([value.detach().double().cpu() for value in (loss, *columns)])


def episode_optimality(episodes: Sequence[StoredEpisode]) -> NDArray[np.float64]:
    """The optimality of each episode among those of its initial state: ``[E]``, 0.5 for the average.

    Success minus the success rate of its initial state, scaled so that the episode furthest from 0 stands at 0 or 1.
    Within an initial state good and bad add up to nothing: more failures than successes do not push the policy away
    from whatever it does.
    """
    success = np.array([episode.success for episode in episodes], np.float64)
    starts = [episode.start for episode in episodes]
    number = {start: place for place, start in enumerate(dict.fromkeys(starts))}
    group = np.array([number[start] for start in starts], np.int64)
    rates = np.bincount(group, success) / np.bincount(group)
    advantage = success - rates[group]
    return np.asarray(0.5 + 0.5 * advantage / (np.abs(advantage).max(initial=0.0) or 1.0))


def nothing_to_learn(episodes: Sequence[StoredEpisode], runs: Sequence[Path]) -> InvalidConfigError:
    """The error for episodes that teach nothing: the reason and the remedy."""
    where = ", ".join(str(run) for run in runs)
    repeated = len(episodes) - len({episode.start for episode in episodes})
    if not episodes:
        said = "there is no finished episode; collect some with store=training trials=8"
    elif not repeated:
        said = f"none of {len(episodes)} episodes shares its initial state with another; repeat layouts with trials=8"
    else:
        said = "in every initial state all episodes succeeded or all failed; more trials or more noise make them differ"
    return InvalidConfigError(f"Nothing to learn from in {where or 'no run'}: {said}.")


def build(job: Job) -> NegativeAwareTrainer:
    """``algo=nft``."""
    return NegativeAwareTrainer(job.round_agent(), job.rounds(), job.algo, job.path, job.options)
