"""A policy of one's own: a small convolutional network whose chunks are Gaussian. No part of it is Vlaser's.

    python -m vlaser_gym.collect task=widowx_spoon_on_towel episodes=400 output=datasets/spoon every=4 image_size=64
    python -m vlaser_gym.train algo=sft policy=examples.gaussian_policy:make init=new data=datasets/spoon run=runs/gauss
    python -m vlaser_gym.train algo=ppo policy=examples.gaussian_policy:make init=runs/gauss/checkpoint algo.freeze=[]
    python -m vlaser_gym.eval agent._target_=examples.gaussian_policy.agent checkpoint=runs/gauss/checkpoint

It is trained by every algorithm that needs no flow.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vlaser_gym.agents.acting import PolicyAgent
from vlaser_gym.agents.trainable import Draws, Inputs, Likelihood, Sample, TensorEncoding, TrainableAgent
from vlaser_gym.agents.vlaser.processor import ResizeImage
from vlaser_gym.errors import MissingAssetError
from vlaser_gym.wrappers.action import ACTION_RANGE

SIZE, HORIZON, SENTENCES = 64, 4, 32
SCALE = np.array(ACTION_RANGE)


class Decoder:
    """Chunks in [-1, 1] -> metres, radians and an absolute gripper command; WidowX keeps no memory."""

    def reset(self, indices: np.ndarray) -> None: ...

    def __call__(self, chunk: np.ndarray, indices: np.ndarray) -> np.ndarray:
        actions = np.clip(np.asarray(chunk, np.float64), -1, 1) * SCALE
        actions[..., 6] = np.where(actions[..., 6] > 0, 1.0, -1.0)
        return actions

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: dict[str, Any]) -> None: ...


class GaussianPolicy(TrainableAgent):
    """Keypoints of the image, proprioception and the sentence's number -> mean of a chunk; one spread per number."""

    robot, horizon, action_dim, act_steps, value_width = "widowx", HORIZON, 7, HORIZON, 256
    parts = {"encoder": ("convolutions", "sentences"), "head": ("trunk", "mean", "spread")}
    input_shapes = {"pixels": (SIZE, SIZE, 3), "proprio": (8,), "sentence": (1,)}
    latent_names = ("chunk",)
    resize = ResizeImage(SIZE, "area")

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            layers = [(3, 32, 5, 2), (32, 64, 3, 2), (64, 64, 3, 1)]
            self.convolutions = nn.Sequential(
                *(m for i, o, k, s in layers for m in (nn.Conv2d(i, o, k, s, k // 2), nn.GroupNorm(8, o), nn.SiLU()))
            )
            self.sentences = nn.Embedding(SENTENCES, 16)
            self.trunk = nn.Sequential(nn.Linear(128 + 8 + 16, 256), nn.SiLU(), nn.Linear(256, 256), nn.SiLU())
            self.mean = nn.Linear(256, HORIZON * 7)
            self.spread = nn.Parameter(torch.full((HORIZON, 7), math.log(0.15)))

    def transform(self, observations: Mapping[str, Any]) -> dict[str, np.ndarray]:
        data: dict[str, np.ndarray] = {}
        if "image" in observations:
            data["pixels"] = np.asarray(self.resize(observations)["pixels"])
        if "proprio" in observations:
            data["proprio"] = np.asarray(observations["proprio"], np.float32)
        if "instruction" in observations:
            numbers = [zlib.crc32(text.encode()) % SENTENCES for text in observations["instruction"]]
            data["sentence"] = np.array(numbers, np.int64)[:, None]
        return data

    def normalize_actions(self, actions: np.ndarray) -> np.ndarray:
        gripper = 2 * actions[..., 6:] - 1  # openness -> the sign that opens the WidowX's
        return np.clip(np.concatenate([actions[..., :6], gripper], -1) / SCALE, -1, 1)

    def make_decoder(self) -> Decoder:
        return Decoder()

    def encode(self, inputs: Inputs) -> TensorEncoding:
        """Where each feature map is brightest (spatial softmax), and the sentence: ``[B, 144]``."""
        images = inputs["pixels"].to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        maps = self.convolutions(images)
        weights = maps.flatten(2).softmax(-1).view_as(maps)
        x, y = (torch.linspace(-1, 1, n, device=self.device) for n in (maps.shape[3], maps.shape[2]))
        points = torch.cat([(weights.sum(2) * x).sum(-1), (weights.sum(3) * y).sum(-1)], -1)
        return TensorEncoding(torch.cat([points, self.sentences(inputs["sentence"].to(self.device)[:, 0])], -1))

    @property
    def encoding_is_frozen(self) -> bool:
        modules = (self.convolutions, self.sentences)
        return not any(p.requires_grad for module in modules for p in module.parameters())

    def value_features(self, encoding: TensorEncoding, inputs: Inputs) -> Tensor:
        return self.trunk(torch.cat([encoding.features, inputs["proprio"].to(self.device)], -1))

    def _normal(self, features: Tensor) -> torch.distributions.Normal:
        mean = self.mean(features).view(-1, HORIZON, 7).double()
        return torch.distributions.Normal(mean, self.spread.double().exp().expand_as(mean))

    def decide(self, encoding: TensorEncoding, inputs: Inputs) -> Tensor:
        return self._normal(self.value_features(encoding, inputs)).mean.float()

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        return {"noise": torch.randn(count, HORIZON, 7, generator=generator)}

    def sample(self, encoding: TensorEncoding, inputs: Inputs, draws: Draws, *, with_value: bool = False) -> Sample:
        features = self.value_features(encoding, inputs)
        normal = self._normal(features)
        chunk = (normal.mean + normal.stddev * draws["noise"].to(self.device)).float()
        log_prob = normal.log_prob(chunk.double()).sum((1, 2))
        return Sample(chunk, {"chunk": chunk}, log_prob, features if with_value else None)

    def log_prob(
        self, encoding: TensorEncoding, inputs: Inputs, latent: Mapping[str, Tensor], *, with_value: bool
    ) -> Likelihood:
        features = self.value_features(encoding, inputs)
        normal = self._normal(features)
        log_prob = normal.log_prob(latent["chunk"].to(self.device).double()).sum((1, 2))
        entropy = normal.entropy().mean((1, 2))
        return Likelihood(log_prob, entropy, HORIZON * 7, normal.mean, features if with_value else None)

    def imitation_draws(self, count: int, samples: int, generator: torch.Generator) -> Draws:
        return {}

    def imitation_error(self, encoding: TensorEncoding, inputs: Inputs, chunk: Tensor, draws: Draws) -> Tensor:
        return (self.decide(encoding, inputs) - chunk.to(self.device)).square()

    def save(self, folder: Path) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, Path(folder) / "model.safetensors")


def make(init: str, *, robot: str | None = None, seed: int = 0, device: str = "cpu") -> GaussianPolicy:
    """For ``policy=``: new weights for ``init=new``, else those of a folder."""
    policy = GaussianPolicy(seed)
    if init != "new":
        restore(policy, Path(init) / "model.safetensors")
    return policy.to(device)


def restore(policy: GaussianPolicy, file: Path) -> None:
    """Put stored weights into a policy; a file that is not there or of another policy is one sentence."""
    stored = load_file(file) if file.is_file() else {}
    if stored.keys() != policy.state_dict().keys():
        what = "holds the weights of another kind of policy" if stored else "does not exist"
        raise MissingAssetError(f"{file} {what}: give init=new, or the folder of a GaussianPolicy that was trained.")
    policy.load_state_dict(stored)


def agent(checkpoint: str) -> PolicyAgent:
    """For ``agent._target_=``."""
    return PolicyAgent(make(checkpoint).eval(), source=checkpoint)
