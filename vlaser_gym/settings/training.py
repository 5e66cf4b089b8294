"""Settings of the ``train`` command."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from vlaser_gym.settings.checks import check_least

#: Version of what a run keeps of them. In the first, which says no number, ``init=nano`` meant random weights.
SCHEMA = 2
#: Settings that may differ when a run is continued.
_FREE = ("run", "device", "threads", "log_every", "save_every", "keep_checkpoints", "num_envs", "max_minutes", "engine")


@dataclass
class TrainSettings:
    """What ``configs/train.yaml`` holds; the comments there say what each means."""

    data: Any
    gripper: str | None
    init: Any
    policy: str | None
    robot: str | None
    run: str | None
    seed: int
    device: str | None
    threads: int | None
    log_every: int
    save_every: int
    keep_checkpoints: int | None
    evaluate_every: int
    evaluate_episodes: int
    task: Any
    look: str | None
    num_envs: int
    max_minutes: float | None
    fresh: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    algo: dict[str, Any] = field(default_factory=dict)
    engine: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_least(self, seed=0, log_every=1, save_every=1, num_envs=1, evaluate_every=0, evaluate_episodes=0)
        check_least(self, or_null=True, threads=1, max_minutes=0, keep_checkpoints=1)

    @property
    def inits(self) -> list[str]:
        """What to start from, one run each."""
        return [self.init] if isinstance(self.init, str) else [str(name) for name in self.init]

    @property
    def data_sets(self) -> list[str]:
        """Folders of the demonstrations, or run directories."""
        return [self.data] if isinstance(self.data, str) else [str(path) for path in self.data]

    @property
    def engine_options(self) -> dict[str, Any]:
        """What the engine is given besides its name."""
        return {key: value for key, value in self.engine.items() if key != "name"}

    def stored(self, init: str) -> dict[str, Any]:
        """What a run keeps of its settings, and what must agree to continue it."""
        kept = {name: value for name, value in asdict(self).items() if name not in _FREE}
        return {**kept, "robot": self.robot or "widowx", "schema": SCHEMA, "init": init}
