"""Preference optimisation: the better episode of a pair more likely, the worse one less, compared with a reference.

Two losses say what "likely" means. ``tpo``: the likelihood of the episode's chains under a density. ``flow_dpo``: how
small the flow-matching error of its chunks is, with the same noise and time for the policy and the reference. Both are
means over an episode's decisions, so that long episodes do not count more. Derivations: ``docs/post_training.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vlaser_gym.agents.trainable import Draws, Likelihood, TrainableAgent
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.episodes import StoredEpisode
from vlaser_gym.evaluation.store import read_config
from vlaser_gym.settings.algorithms import DpoSettings
from vlaser_gym.training.data.pairs import Pair, explain_nothing, mine_pairs
from vlaser_gym.training.job import Job
from vlaser_gym.training.rounds import Ints, RoundTrainer
from vlaser_gym.training.seeds import seed_of


@dataclass(frozen=True)
class Measure:
    """Measures of B decisions, float64.

    Attributes:
        score: ``[B]``, larger for what the policy would rather do: log-likelihood, or minus the flow's error.
        error: ``[B]``, per number: half the mean squared deviation in standard deviations, or the flow's error.
    """

    score: Tensor
    error: Tensor


@dataclass(frozen=True)
class Sides:
    """Means over the decisions of the better and the worse episode of P pairs, each ``[P, 2]``, float64.

    Attributes:
        ratio: score of the policy minus that of the reference.
        error: of the policy.
        before: error of the reference.
    """

    ratio: Tensor
    error: Tensor
    before: Tensor


class PreferenceTrainer(RoundTrainer):
    """``algo=dpo``; see :class:`RoundTrainer` for what it is given."""

    statistics = (
        *("loss", "preference", "margin", "accuracy", "win_error", "lose_error"),
        *("win_error_change", "lose_error_change", "proximal"),
    )

    settings: DpoSettings

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.pairs: list[Pair] = []
        self.rises: list[float] = []
        super().__init__(*args, **kwargs)

    # ------------------------------------------------------------------ pairs

    def choose(self, episodes: Sequence[StoredEpisode], runs: Sequence[Path]) -> list[StoredEpisode]:
        """Mine pairs; say what was found."""
        settings = self.settings
        if settings.loss == "tpo":
            for run in runs:
                check_distribution(run, self.agent)
        mined = mine_pairs(
            episodes,
            kinds=settings.kinds,
            per_layout=settings.per_layout,
            most=settings.pairs,
            faster_by=settings.faster_by,
            seed=seed_of(self.seed, self.done),
        )
        self.options.say(mined.table(plain=True))
        if not mined.pairs:
            reason = explain_nothing(mined, runs)
            if not settings.rounds:
                raise reason
            self.options.say(f"{reason} The round is over.")
        used = sorted({number for pair in mined.pairs for number in (pair.win, pair.lose)})
        place = {number: index for index, number in enumerate(used)}
        self.pairs = [Pair(place[pair.win], place[pair.lose], pair.kind) for pair in mined.pairs]
        return [episodes[number] for number in used]

    @property
    def items(self) -> int:
        """Number of pairs per epoch."""
        return len(self.pairs)

    def _rows(self, items: Ints, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Decisions ``[P, 2, n]`` of pairs and their weights, which add up to 1 over the last dimension.

        Episodes of more than ``algo.decisions`` decisions give so many of them, drawn at random; shorter ones are
        filled up with copies of weight 0.
        """
        assert self.memory is not None
        starts = self.memory.decisions.starts
        sides = [number for item in items for number in (self.pairs[item].win, self.pairs[item].lose)]
        lengths = [int(starts[number + 1] - starts[number]) for number in sides]
        most = min(self.settings.decisions or max(lengths), max(lengths))
        rows, weights = torch.zeros(len(sides), most, dtype=torch.long), torch.zeros(len(sides), most).double()
        for place, (number, length) in enumerate(zip(sides, lengths, strict=True)):
            count = min(length, most)
            drawn = torch.randperm(length, generator=generator)[:count].sort().values
            rows[place, :count] = int(starts[number]) + drawn
            rows[place, count:] = int(starts[number])
            weights[place, :count] = 1 / count
        return rows.view(len(items), 2, most), weights.view(len(items), 2, most)

    # ------------------------------------------------------------------ losses

    def draw(self, items: Ints, generator: torch.Generator) -> tuple[Tensor, Tensor, Draws]:
        """Decisions of pairs ``[P, 2, n]``, their weights, and what their error is measured with."""
        rows, weights = self._rows(items, generator)
        return rows, weights, self.draws(rows.numel(), generator)

    def losses_of(self, items: Ints, drawn: tuple[Tensor, Tensor, Draws]) -> tuple[Tensor, Tensor]:
        """See :class:`RoundTrainer`."""
        return preference_objective(self.sides(*drawn), self.settings)

    def sides(self, rows: Tensor, weights: Tensor, draws: Draws) -> Sides:
        """Scores and errors of pairs ``[P, 2, n]`` under the policy and the reference."""
        assert self.reference is not None
        assert self.memory is not None
        flat, weights, memory = rows.flatten(), weights.to(self.agent.device), self.memory
        encoding = memory.encoding(flat)
        ours = self.measure(self.agent, encoding, flat, draws)
        with self.reference.active() as reference:
            seen = encoding if self.agent.encoding_is_frozen else memory.encode(reference, flat)
            theirs = self.measure(reference, seen, flat, draws)

        def mean(values: Tensor) -> Tensor:
            """Mean of decisions ``[P * 2 * n]`` over each episode's, ``[P, 2]``."""
            return (weights * values.view(rows.shape)).sum(-1)

        return Sides(mean(ours.score - theirs.score), mean(ours.error), mean(theirs.error))

    def draws(self, count: int, generator: torch.Generator) -> Draws:
        """Random numbers of the imitation error; empty where none is asked for."""
        if self.settings.loss == "tpo":
            return {}
        return self.agent.imitation_draws(count, self.settings.flow_samples, generator)

    def measure(self, agent: TrainableAgent, encoding: Any, rows: Tensor, draws: Draws) -> Measure:
        """The policy's measure of stored decisions: a log-probability or an imitation error."""
        assert self.memory is not None
        inputs, decisions = self.memory.inputs(rows), self.memory.decisions
        if self.settings.loss == "tpo":
            latent = {name: values[rows] for name, values in decisions.latent.items()}
            return likelihood_measure(agent.log_prob(encoding, inputs, latent, with_value=False))
        return imitation_measure(agent.imitation_error(encoding, inputs, decisions.chunk[rows], draws))

    # ------------------------------------------------------------------ when to stop

    def after_step(self, means: Tensor) -> None:
        """The round ends when the better episodes' error has risen over the last ``algo.patience`` steps."""
        named = dict(zip(self.statistics, means.tolist(), strict=True))
        before = named["win_error"] - named["win_error_change"]
        self.rises = [*self.rises, named["win_error_change"] / max(abs(before), 1e-12)][-self.settings.patience :]
        mean = sum(self.rises) / len(self.rises)
        if len(self.rises) == self.settings.patience and mean > self.settings.rise:
            self.ended = True
            self.options.say(
                f"Round {self.done + 1} ends at step {self.round_step}: the win-error is {100 * mean:.1f} % above the "
                f"reference's in the last {len(self.rises)} steps."
            )

    def end_round(self) -> None:
        """See :class:`RoundTrainer`."""
        super().end_round()
        self.rises = []

    def extra_state(self) -> dict[str, Any]:
        """See :class:`RoundTrainer`."""
        return {"rises": self.rises}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """See :class:`RoundTrainer`."""
        self.rises = list(state["rises"])


def preference_objective(sides: Sides, settings: DpoSettings) -> tuple[Tensor, Tensor]:
    """The preference loss, mean over P pairs, and the means of :attr:`PreferenceTrainer.statistics`.

    ``-log sigmoid(beta (win - lose))`` of the episodes' ratios; ``proximal`` times the squared ratios, which keeps
    either from running away while their difference grows; ``supervised`` times the better episode's error.
    """
    margin = settings.beta * (sides.ratio[:, 0] - sides.ratio[:, 1])
    preference = functional.softplus(-margin)
    proximal = sides.ratio.square().mean(1)
    loss = (preference + settings.proximal * proximal + settings.supervised * sides.error[:, 0]).mean()
    change = sides.error - sides.before
    accuracy = (margin > 0).double() + 0.5 * (margin == 0)
    columns = (preference, margin, accuracy, *sides.error.T, *change.T, proximal)
    means = [loss, *(column.mean() for column in columns)]
    return loss, torch.stack([value.detach().double().cpu() for value in means])


def likelihood_measure(found: Likelihood) -> Measure:
    """The likelihood of decisions; the spread of their distribution must not depend on the weights."""
    # Per number, -log p is z^2 / 2 + log s + log(2 pi) / 2, and the entropy log s + log(2 pi e) / 2.
    return Measure(found.log_prob, 0.5 - found.log_prob / found.numbers - found.entropy)


def imitation_measure(errors: Tensor) -> Measure:
    """The imitation error of decisions ``[B, ...]``: for a flow as in Diffusion-DPO (arXiv 2311.12908)."""
    error = errors.double().flatten(1).mean(1)
    return Measure(-error, error)


def check_distribution(run: Path, agent: TrainableAgent) -> None:
    """Stored draws must come from the distribution that weighs them.

    Raises:
        InvalidConfigError: if the run's agent used another one, or none.
    """
    told = {"initial_noise": 1.0, **(read_config(run).get("agent_settings") or {})}
    wanted = agent.describe_distribution()
    found = {name: told.get(name) for name in wanted}

    def alike(value: Any, right: Any) -> bool:
        if isinstance(right, list):
            return isinstance(value, list | tuple) and all(map(alike, value, right))
        if isinstance(right, float):
            return isinstance(value, int | float) and bool(np.isclose(value, right))
        return bool(value == right)

    if not all(alike(found[name], value) for name, value in wanted.items()):
        needed, got = (" ".join(f"{name}={value}" for name, value in values.items()) for values in (wanted, found))
        raise InvalidConfigError(
            f"algo.loss=tpo needs chains of {needed}; the run {run} has {got}: collect with agent=vlaser_explore and "
            "these settings, or change algo.density and algo.noise_level."
        )


def build(job: Job) -> PreferenceTrainer:
    """``algo=dpo``."""
    return PreferenceTrainer(job.round_agent(), job.rounds(), job.algo, job.path, job.options)
