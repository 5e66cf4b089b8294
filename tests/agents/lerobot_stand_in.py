"""The surface of LeRobot 0.6.1 that ``agent=lerobot`` touches, without LeRobot; its signatures, none of its code.

The policies are formulas that a test can repeat: what they read is scaled by a pre-processor and what they answer by a
post-processor, as LeRobot's are.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from enum import StrEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

PROCESSORS = ("preprocessor", "postprocessor")


class FeatureType(StrEnum):
    STATE = "STATE"
    VISUAL = "VISUAL"
    ENV = "ENV"
    ACTION = "ACTION"


#: ``PolicyFeature``.
Feature = SimpleNamespace


class Config:
    """``PreTrainedConfig``; attributes as in its ``config.json``."""

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path: Any, **options: Any) -> Config:
        config = cls()
        vars(config).update(json.loads((Path(pretrained_name_or_path) / "config.json").read_text()))
        for name in ("input_features", "output_features"):
            features = getattr(config, name)
            made = {
                k: SimpleNamespace(type=FeatureType(f["type"]), shape=tuple(f["shape"])) for k, f in features.items()
            }
            setattr(config, name, made)
        return config


class Act(nn.Module):
    """Chunk ``h`` is the state's first number plus ``h``, the image's mean, its size, and the text's length."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.reset()

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path: Any, *, config: Any = None, **options: Any) -> Any:
        return cls(config)

    def save_pretrained(self, save_directory: Any) -> None:
        features = {
            name: {k: {"type": f.type.value, "shape": f.shape} for k, f in getattr(self.config, name).items()}
            for name in ("input_features", "output_features")
        }
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        (Path(save_directory) / "config.json").write_text(json.dumps({**vars(self.config), **features}))

    def reset(self) -> None:
        self._action_queue: deque = deque(maxlen=self.config.n_action_steps)

    def predict_action_chunk(self, batch: dict[str, Any]) -> torch.Tensor:
        image, state = batch["observation.images.main"], batch["observation.state"]
        chunk = torch.zeros(len(state), self.config.chunk_size, 7)
        chunk[..., 0] = state[:, :1] + torch.arange(self.config.chunk_size)
        chunk[..., 1] = image.mean((1, 2, 3))[:, None]
        chunk[..., 2], chunk[..., 3] = image.shape[2], image.shape[3]
        chunk[..., 4] = torch.tensor([[float(len(text))] for text in batch["task"]])
        chunk[..., 5] = torch.randn(len(state), 1)
        return chunk

    def select_action(self, batch: dict[str, Any]) -> torch.Tensor:
        if not self._action_queue:
            self._action_queue.extend(self.predict_action_chunk(batch)[:, : self.config.n_action_steps].transpose(0, 1))
        return self._action_queue.popleft()


class Diffusion(Act):
    """Remembers two states, decides for two steps from both: their sum, and the older one."""

    def reset(self) -> None:
        self._queues = {"observation.state": deque(maxlen=2), "action": deque(maxlen=self.config.n_action_steps)}

    def select_action(self, batch: dict[str, Any]) -> torch.Tensor:
        seen = self._queues["observation.state"]
        seen.append(batch["observation.state"][:, 0])
        while len(seen) < 2:
            seen.append(seen[-1])
        if not self._queues["action"]:
            action = torch.zeros(len(seen[0]), 7)
            action[:, 0], action[:, 1] = seen[0] + seen[1], seen[0]
            self._queues["action"].extend([action, action + 1])
        return self._queues["action"].popleft()


class Tdmpc(Act):
    """Plans on from its last plan, with one observation; its chunks come from queues that ``select_action`` fills."""

    def reset(self) -> None:
        self._queues = {"observation.state": deque(maxlen=1), "action": deque(maxlen=1)}
        self._prev_mean: torch.Tensor | None = None

    def predict_action_chunk(self, batch: dict[str, Any]) -> torch.Tensor:
        state = torch.stack(list(self._queues["observation.state"]))[0]
        mean = torch.zeros(1, 7) if self._prev_mean is None else self._prev_mean.clone()
        mean[:, 0] += state[:, 0]
        self._prev_mean = mean
        return mean[None]

    def select_action(self, batch: dict[str, Any]) -> torch.Tensor:
        self._queues["observation.state"].append(batch["observation.state"])
        return self.predict_action_chunk(batch)[0]


def before(batch: dict[str, Any]) -> dict[str, Any]:
    return {**batch, "observation.state": batch["observation.state"] * 2}


def after(action: torch.Tensor) -> torch.Tensor:
    return action / 10


class NewProcessor:
    """One that was made from settings and statistics, not loaded."""

    def __init__(self, name: str, statistics: dict[str, dict[str, torch.Tensor]]) -> None:
        self.name, self.statistics = name, statistics

    def save_pretrained(self, save_directory: Any) -> None:
        shapes = {key: {name: list(t.shape) for name, t in of.items()} for key, of in self.statistics.items()}
        (Path(save_directory) / f"{self.name}.json").write_text(json.dumps(shapes))


def make_policy_config(policy_type: str, **settings: Any) -> Any:
    config = Config()
    vars(config).update({"type": policy_type, "n_obs_steps": 1, **settings})
    return config


def make_pre_post_processors(policy_cfg: Any, pretrained_path: str | None = None, **options: Any) -> tuple[Any, Any]:
    if pretrained_path is None:
        return tuple(NewProcessor(f"policy_{when}", options["dataset_stats"]) for when in PROCESSORS)
    assert options == {"preprocessor_overrides": {"device_processor": {"device": "cpu"}}}
    assert (Path(str(pretrained_path)) / "policy_preprocessor.json").is_file()
    return before, after


def get_policy_class(name: str) -> type:
    kinds = {**dict.fromkeys(("act", "smolvla", "pi0", "xvla"), Act), "diffusion": Diffusion, "tdmpc": Tdmpc}
    if name == "groot":
        raise ImportError("'dm-tree' is required but not installed.")
    if name not in kinds:
        raise ValueError(f"Policy type '{name}' is not available.")
    return kinds[name]


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for LeRobot until the test ends."""
    modules = {
        name: ModuleType(name)
        for name in (
            "lerobot",
            "lerobot.configs",
            "lerobot.configs.policies",
            "lerobot.policies",
            "lerobot.policies.factory",
        )
    }
    modules["lerobot.configs.policies"].PreTrainedConfig = Config  # type: ignore[attr-defined]
    configs: Any = modules["lerobot.configs"]
    configs.FeatureType, configs.PolicyFeature = FeatureType, Feature
    factory: Any = modules["lerobot.policies.factory"]
    factory.make_policy_config = make_policy_config
    factory.get_policy_class, factory.make_pre_post_processors = get_policy_class, make_pre_post_processors
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def save(folder: Path, kind: str = "act", state: int = 8, **changes: Any) -> Path:
    """A checkpoint's folder."""
    features = {
        "observation.images.main": {"type": "VISUAL", "shape": [3, 6, 8]},
        "observation.state": {"type": "STATE", "shape": [state]},
    }
    config = {
        "type": kind,
        "n_obs_steps": 2 if kind == "diffusion" else 1,
        "n_action_steps": 2,
        "chunk_size": 4,
        "input_features": features,
        "output_features": {"action": {"type": "ACTION", "shape": [7]}},
        **changes,
    }
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "policy_preprocessor.json").write_text("{}")
    return folder
