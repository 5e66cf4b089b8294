"""Settings of Stable-Baselines3's own algorithms; apart, because the algorithms take seconds to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vlaser_gym.errors import InvalidConfigError, UnknownNameError

REWARDS = ("sparse", "subgoals", "reach")


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

    def __post_init__(self) -> None:
        for key in ("timesteps", "save_every"):
            if getattr(self, key) < 1:
                raise InvalidConfigError(f"algo.{key} must be at least 1; got {getattr(self, key)}.")
        if self.reward not in REWARDS:
            raise UnknownNameError("algo.reward", self.reward, REWARDS)
        if not 0 <= self.gamma <= 1:
            raise InvalidConfigError(f"algo.gamma must be in [0, 1]; got {self.gamma}.")
