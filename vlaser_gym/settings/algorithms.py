"""Settings of the algorithms: what ``configs/algo`` holds, of the right types and within their ranges."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.registry import DENSITIES, REWARDS, STOCK_REWARDS
from vlaser_gym.settings.checks import check_above_zero, check_least, check_rising

#: Densities whose noise is given and not learned.
EXPLORATIONS = ("flow_sde", "flow_sde_one_step")
KINDS = ("success", "faster", "further")
LOSSES = ("tpo", "flow_dpo")
PRECISIONS = ("float32", "bfloat16")
#: Whose statistics normalise: those that the policy has, or the data's.
STATISTICS = ("keep", "data")
SCHEDULES = ("constant", "linear")


@dataclass
class SftSettings:
    """What ``configs/algo/sft.yaml`` holds; the comments there say what each means."""

    name: str
    steps: int
    batch_size: int
    accumulate: int
    learning_rate: float
    expert_learning_rate: float
    weight_decay: float
    betas: tuple[float, float]
    warmup: int
    final_rate: float
    clip: float
    ema: float
    flow_samples: int
    places: float
    freeze: list[str]
    augment: str
    precision: str
    statistics: str | None = None

    def __post_init__(self) -> None:
        check_least(self, prefix="algo.", steps=1, batch_size=1, accumulate=1, flow_samples=1, warmup=0)
        check_least(
            self, prefix="algo.", learning_rate=0, expert_learning_rate=0, weight_decay=0, final_rate=0, places=0
        )
        check_above_zero(self, prefix="algo.", clip=math.inf)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise InvalidConfigError(f"algo.betas must be two numbers in [0, 1); got {list(self.betas)}.")
        if self.batch_size % self.accumulate:
            raise InvalidConfigError(
                f"algo.batch_size must be a multiple of algo.accumulate; got {self.batch_size} and {self.accumulate}."
            )
        if self.precision not in PRECISIONS:
            raise UnknownNameError("algo.precision", self.precision, PRECISIONS)
        if self.statistics not in (None, *STATISTICS):
            raise InvalidConfigError(f"algo.statistics is one of keep, data or null; got {self.statistics!r}.")
        if not 0 <= self.ema < 1:
            raise InvalidConfigError(f"algo.ema must be in [0, 1); got {self.ema}.")


@dataclass
class PpoSettings:
    """What ``configs/algo/ppo.yaml`` holds; the comments there say what each means."""

    name: str
    iterations: int
    n_steps: int
    batch_size: int
    micro_batch: int
    epochs: int
    learning_rate: float
    critic_learning_rate: float
    schedule: str
    warmup: int
    density: str
    flow_steps: int | None
    noise_level: float
    noise_bounds: tuple[float, float]
    gamma: float
    gae_lambda: float
    clip_range: float
    target_kl: float | None
    entropy: float
    clip: float
    critic_warmup: int
    pull: float
    reward: str
    freeze: list[str]
    lora: int
    cache_mb: int
    cache_device: str | None
    precision: str
    save_every: int
    subgoal_weights: dict[str, float] | None = None

    def __post_init__(self) -> None:
        check_least(self, prefix="algo.", iterations=1, n_steps=1, batch_size=2, micro_batch=1, epochs=1, save_every=1)
        check_least(self, prefix="algo.", learning_rate=0, critic_learning_rate=0, warmup=0, critic_warmup=0)
        check_least(self, prefix="algo.", pull=0, lora=0, cache_mb=0)
        check_least(self, prefix="algo.", or_null=True, flow_steps=1)
        check_above_zero(self, prefix="algo.", clip=math.inf, clip_range=1, noise_level=math.inf)
        check_above_zero(self, prefix="algo.", or_null=True, target_kl=math.inf)
        check_rising("noise_bounds", self.noise_bounds)
        for key in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, key) <= 1:
                raise InvalidConfigError(f"algo.{key} must be in [0, 1]; got {getattr(self, key)}.")
        for key, valid in (
            ("schedule", SCHEDULES),
            ("density", DENSITIES),
            ("reward", REWARDS),
            ("precision", PRECISIONS),
        ):
            if getattr(self, key) not in valid:
                raise UnknownNameError(f"algo.{key}", getattr(self, key), valid)


@dataclass(kw_only=True)
class GrpoSettings(PpoSettings):
    """What ``configs/algo/grpo.yaml`` holds: PPO's settings, less what belongs to the critic, plus the groups.

    Rewards are successes, and all decisions of an episode have one advantage: nothing is discounted. ``n_steps``
    follows from the episodes' length.
    """

    group_size: int
    rounds: int
    n_steps: int = 1
    gamma: float = 1.0
    gae_lambda: float = 1.0
    critic_learning_rate: float = 0.0
    critic_warmup: int = 0
    reward: str = "sparse"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, prefix="algo.", group_size=2, rounds=1)


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
        if self.density is not None and self.density not in EXPLORATIONS:
            raise UnknownNameError("algo.density", self.density, EXPLORATIONS)
        if self.precision not in PRECISIONS:
            raise UnknownNameError("algo.precision", self.precision, PRECISIONS)


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


@dataclass
class NftSettings(RoundSettings):
    """What ``configs/algo/nft.yaml`` holds; the comments there say what each means."""

    beta: float
    negatives: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        check_above_zero(self, prefix="algo.", beta=math.inf)


@dataclass
class Sb3Settings:
    """What ``configs/algo/sb3_ppo.yaml`` and ``sb3_sac.yaml`` hold; the comments there say what each means."""

    name: str
    timesteps: int
    reward: str
    gamma: float
    horizon: int | None
    save_every: int
    options: dict[str, Any]
    subgoal_weights: dict[str, float] | None = None

    def __post_init__(self) -> None:
        for key in ("timesteps", "save_every"):
            if getattr(self, key) < 1:
                raise InvalidConfigError(f"algo.{key} must be at least 1; got {getattr(self, key)}.")
        if self.reward not in STOCK_REWARDS:
            raise UnknownNameError("algo.reward", self.reward, STOCK_REWARDS)
        if not 0 <= self.gamma <= 1:
            raise InvalidConfigError(f"algo.gamma must be in [0, 1]; got {self.gamma}.")
