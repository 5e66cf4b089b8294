"""Settings of PPO on the flow policy."""

from __future__ import annotations

from dataclasses import dataclass

from vlaser_gym.agents.learners.densities import DENSITIES
from vlaser_gym.agents.learners.sft import PRECISIONS
from vlaser_gym.errors import InvalidConfigError, UnknownNameError

SCHEDULES = ("constant", "linear")
REWARDS = ("sparse", "subgoals")


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
    cache_mb: int
    cache_device: str | None
    precision: str
    save_every: int

    def __post_init__(self) -> None:
        for key in ("iterations", "n_steps", "micro_batch", "epochs", "save_every"):
            if getattr(self, key) < 1:
                raise InvalidConfigError(f"algo.{key} must be at least 1; got {getattr(self, key)}.")
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
        if self.cache_mb < 0 or self.warmup < 0 or self.batch_size < 2:
            raise InvalidConfigError(
                "algo.cache_mb and algo.warmup must be at least 0 and algo.batch_size 2; got "
                f"{self.cache_mb}, {self.warmup} and {self.batch_size}."
            )
