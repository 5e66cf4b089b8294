"""Settings of PPO and GRPO on the flow policy."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vlaser_gym.agents.learners.densities import DENSITIES
from vlaser_gym.agents.learners.ranges import check_cache, check_rising, check_trained
from vlaser_gym.agents.learners.sft import PRECISIONS
from vlaser_gym.cli import check_above_zero, check_least
from vlaser_gym.errors import InvalidConfigError, UnknownNameError

SCHEDULES = ("constant", "linear")
REWARDS = ("sparse", "subgoals", "last")


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

    def __post_init__(self) -> None:
        check_least(self, prefix="algo.", iterations=1, n_steps=1, batch_size=2, micro_batch=1, epochs=1, save_every=1)
        check_least(self, prefix="algo.", learning_rate=0, critic_learning_rate=0, warmup=0, critic_warmup=0)
        check_least(self, prefix="algo.", pull=0, lora=0, cache_mb=0)
        check_least(self, prefix="algo.", or_null=True, flow_steps=1)
        check_above_zero(self, prefix="algo.", clip=math.inf, clip_range=1, noise_level=math.inf)
        check_above_zero(self, prefix="algo.", or_null=True, target_kl=math.inf)
        check_rising("noise_bounds", self.noise_bounds)
        check_trained(self.freeze, self.lora)
        check_cache(self.cache_device)
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

    def check(self, num_envs: int) -> None:
        """Raise :class:`InvalidConfigError` if ``num_envs`` lanes cannot be cut into groups."""
        if num_envs % self.group_size:
            raise InvalidConfigError(
                f"num_envs must be a multiple of algo.group_size={self.group_size}, as lanes of a group run together; "
                f"got {num_envs}."
            )
