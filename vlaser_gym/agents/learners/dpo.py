"""Preference optimisation: the better episode of a pair more likely, the worse one less, compared with a reference.

Two losses say what "likely" means. ``tpo``: the likelihood of the episode's chains under a density. ``flow_dpo``: how
small the flow-matching error of its chunks is, with the same noise and time for the policy and the reference. Both are
means over an episode's decisions, so that long episodes do not count more. Derivations: ``docs/post_training.md``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vlaser_gym.agents.learners.actor_critic import FlowField
from vlaser_gym.agents.learners.decisions import is_frozen
from vlaser_gym.agents.learners.densities import Density
from vlaser_gym.agents.learners.exploration import describe_density, make_exploration
from vlaser_gym.agents.learners.pairs import KINDS, Pair, explain_nothing, mine_pairs
from vlaser_gym.agents.learners.rounds import Ints, RoundSettings, RoundTrainer, seed_of
from vlaser_gym.agents.learners.sft import path_point
from vlaser_gym.agents.vlaser import flow
from vlaser_gym.agents.vlaser.policy import VisionLanguage, VlaserPolicy
from vlaser_gym.cli import check_above_zero, check_least
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.evaluation.episodes import StoredEpisode
from vlaser_gym.evaluation.store import read_config

LOSSES = ("tpo", "flow_dpo")


@dataclass
class DpoSettings(RoundSettings):
    """What ``configs/algo/dpo.yaml`` holds; the comments there say what each means."""

    loss: str
    beta: float
    proximal: float
    supervised: float
    kinds: list[str]
    per_layout: int
    pairs: int | None
    faster_by: int
    decisions: int | None
    patience: int
    rise: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in LOSSES:
            raise UnknownNameError("algo.loss", self.loss, LOSSES)
        # Two successes that came at the same step are no pair.
        check_least(self, prefix="algo.", per_layout=1, patience=1, faster_by=1, proximal=0, supervised=0)
        check_least(self, prefix="algo.", or_null=True, pairs=1, decisions=1)
        for kind in self.kinds:
            if kind not in KINDS:
                raise UnknownNameError("algo.kinds", kind, KINDS)
        check_above_zero(self, prefix="algo.", beta=math.inf)
        if self.loss == "tpo" and self.density is None:
            raise InvalidConfigError(
                "algo.loss=tpo weighs chains by their likelihood and needs algo.density=flow_sde or flow_sde_one_step."
            )


@dataclass(frozen=True)
class Measure:
    """Of B decisions, float64.

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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.pairs: list[Pair] = []
        self.rises: list[float] = []
        super().__init__(*args, **kwargs)
        assert isinstance(self.config, DpoSettings)
        self.settings: DpoSettings = self.config
        self.density: Density | None = None
        if self.settings.density is not None:
            steps = self.policy.config.num_flow_steps
            self.density = make_exploration(self.settings.density, steps, self.settings.noise_level)

    # ------------------------------------------------------------------ pairs

    def choose(self, episodes: Sequence[StoredEpisode], runs: Sequence[Path]) -> list[StoredEpisode]:
        """Mine pairs; say what was found."""
        settings = self.settings
        if settings.loss == "tpo":
            assert self.density is not None
            for run in runs:
                check_density(run, self.density)
        mined = mine_pairs(
            episodes,
            kinds=settings.kinds,
            per_layout=settings.per_layout,
            most=settings.pairs,
            faster_by=settings.faster_by,
            seed=seed_of(self.seed, self.round),
        )
        self.say(mined.table(plain=True))
        if not mined.pairs:
            reason = explain_nothing(mined, runs)
            if not settings.rounds:
                raise reason
            self.say(f"{reason} The round is over.")
        used = sorted({number for pair in mined.pairs for number in (pair.win, pair.lose)})
        place = {number: index for index, number in enumerate(used)}
        self.pairs = [Pair(place[pair.win], place[pair.lose], pair.kind) for pair in mined.pairs]
        return [episodes[number] for number in used]

    @property
    def items(self) -> int:
        """Pairs."""
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

    def losses(self, items: Ints, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """See :class:`RoundTrainer`."""
        rows, weights = self._rows(items, generator)
        return preference_objective(self.sides(rows, weights, generator), self.settings)

    def sides(self, rows: Tensor, weights: Tensor, generator: torch.Generator) -> Sides:
        """Scores and errors of pairs ``[P, 2, n]`` under the policy and the reference."""
        assert self.reference is not None
        assert self.memory is not None
        flat, weights = rows.flatten(), weights.to(self.policy.device)
        draws = self._draws(len(flat), generator)
        with self.autocast():
            vision_language = self.memory.vision_language(flat)
            ours = self.measure(self.policy, vision_language, flat, draws)
            with self.reference.active() as reference:
                seen = vision_language if is_frozen(self.policy) else self.memory.encode(reference, flat)
                theirs = self.measure(reference, seen, flat, draws)

        def mean(values: Tensor) -> Tensor:
            """Of decisions ``[P * 2 * n]`` over each episode's, ``[P, 2]``."""
            return (weights * values.view(rows.shape)).sum(-1)

        return Sides(mean(ours.score - theirs.score), mean(ours.error), mean(theirs.error))

    def _draws(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Noise ``[B, K, H, A]`` and times ``[B, K]`` for the flow's error; empty where none is asked for."""
        config, samples = self.policy.config, self.settings.flow_samples
        if self.settings.loss == "tpo":
            return torch.empty(0), torch.empty(0)
        noise = torch.randn(count, samples, config.horizon, config.action_dim, generator=generator)
        t = flow.sample_times(count * samples, config.time_distribution, generator).view(count, samples)
        return noise.to(self.policy.device), t.to(self.policy.device)

    def measure(
        self, policy: VlaserPolicy, vision_language: VisionLanguage, rows: Tensor, draws: tuple[Tensor, Tensor]
    ) -> Measure:
        """What a policy thinks of stored decisions."""
        assert self.memory is not None
        decisions, device = self.memory.decisions, self.policy.device
        proprio = decisions.proprio[rows].to(device)
        if self.settings.loss == "tpo":
            assert decisions.chain is not None
            assert decisions.stochastic is not None
            assert self.density is not None
            chain, stochastic = decisions.chain[rows].to(device), decisions.stochastic[rows].to(device)
            field = FlowField(policy, policy.encode_proprio(vision_language, proprio))
            return chain_measure(self.density, field, chain, stochastic)
        chunk = decisions.chunk[rows].to(device)
        return flow_measure(policy, vision_language, proprio, chunk, *draws)

    # ------------------------------------------------------------------ when to stop

    def after_step(self, means: Tensor) -> None:
        """The round ends when the better episodes' error has risen over the last ``algo.patience`` steps."""
        named = dict(zip(self.statistics, means.tolist(), strict=True))
        before = named["win_error"] - named["win_error_change"]
        self.rises = [*self.rises, named["win_error_change"] / max(abs(before), 1e-12)][-self.settings.patience :]
        mean = sum(self.rises) / len(self.rises)
        if len(self.rises) == self.settings.patience and mean > self.settings.rise:
            self.ended = True
            self.say(
                f"Round {self.round + 1} ends at step {self.step}: the win-error is {100 * mean:.1f} % above the "
                f"reference's in the last {len(self.rises)} steps."
            )

    def begin_round(self) -> None:
        """See :class:`RoundTrainer`."""
        self.rises = []

    def extra_state(self) -> dict[str, Any]:
        """See :class:`RoundTrainer`."""
        return {"rises": self.rises}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """See :class:`RoundTrainer`."""
        self.rises = list(state["rises"])


def preference_objective(sides: Sides, settings: DpoSettings) -> tuple[Tensor, Tensor]:
    """What is minimised, mean over P pairs, and the means of :attr:`PreferenceTrainer.statistics`.

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


def chain_measure(density: Density, field: FlowField, chain: Tensor, stochastic: Tensor) -> Measure:
    """Likelihood of chains ``[B, K + 1, H, A]``; the density's noise must not depend on the weights."""
    found = density.evaluate(field, chain, stochastic)
    numbers = stochastic.shape[1] * chain.shape[2] * chain.shape[3]
    # Per number, -log p is z^2 / 2 + log s + log(2 pi) / 2, and the entropy log s + log(2 pi e) / 2.
    return Measure(found.log_prob, 0.5 - found.log_prob / numbers - found.entropy)


def flow_measure(
    policy: VlaserPolicy, vision_language: VisionLanguage, proprio: Tensor, chunk: Tensor, noise: Tensor, t: Tensor
) -> Measure:
    """Flow-matching error of chunks ``[B, H, A]`` with noise ``[B, K, H, A]`` at times ``[B, K]``."""
    error = flow_error(policy, vision_language, proprio, chunk, noise, t)
    return Measure(-error, error)


def flow_error(
    policy: VlaserPolicy, vision_language: VisionLanguage, proprio: Tensor, chunk: Tensor, noise: Tensor, t: Tensor
) -> Tensor:
    """Mean squared error of the velocity ``[B]``, float64; arguments as :func:`flow_measure`."""
    velocity, target = velocities(policy, vision_language, proprio, chunk, noise, t)
    return (velocity - target).double().square().mean((1, 2, 3))


def velocities(
    policy: VlaserPolicy, vision_language: VisionLanguage, proprio: Tensor, chunk: Tensor, noise: Tensor, t: Tensor
) -> tuple[Tensor, Tensor]:
    """The policy's velocity on the paths to chunks and what it is trained towards, ``[B, K, H, A]`` each."""
    actions = chunk[:, None].expand_as(noise)
    x = path_point(noise, actions, t, policy.config.sigma_min)
    velocity = policy.decode(policy.joint_features(vision_language, proprio, x, t))
    return velocity, flow.target_velocity(noise, actions, policy.config.sigma_min)


def check_density(run: Path, density: Density) -> None:
    """Chains must come from the density that weighs them.

    Raises:
        InvalidConfigError: if the run's agent used another one, or none.
    """
    told = read_config(run).get("agent_settings") or {}
    wanted = describe_density(density)
    found = {name: told.get(name) for name in wanted}
    same = all(found[name] == wanted[name] for name in ("density", "num_flow_steps"))
    level = found["noise_level"] or 0
    if not same or not isinstance(level, int | float) or not np.isclose(level, wanted["noise_level"]):
        needed, got = (" ".join(f"{name}={value}" for name, value in values.items()) for values in (wanted, found))
        raise InvalidConfigError(
            f"algo.loss=tpo needs chains of {needed}; the run {run} has {got}: collect with agent=vlaser_explore and "
            "these settings, or change algo.density and algo.noise_level."
        )
