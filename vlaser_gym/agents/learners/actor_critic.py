"""A Vlaser policy with a density and a value, in the shape that Stable-Baselines3's rollout loop asks for."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vlaser_gym.agents.learners.densities import Density, Draws, Evaluation
from vlaser_gym.agents.vlaser.policy import Prefix, VisionLanguage, VlaserPolicy
from vlaser_gym.agents.vlaser.processor import normalize_pixels

VISION_LANGUAGE = ("vision", "embedding", "language")


@dataclass(frozen=True)
class Decision:
    """What a rollout keeps of a batch of decisions besides the chains.

    Attributes:
        vision_language: keys and values of image and text.
        stochastic: random steps ``[B, S]``.
    """

    vision_language: VisionLanguage
    stochastic: Tensor


@dataclass(frozen=True)
class Judgement:
    """Of stored chains.

    Attributes:
        evaluation: their likelihood.
        values: ``[B]``, fp32.
        velocity: at the states that random steps leave from, ``[B, S, H, A]``.
    """

    evaluation: Evaluation
    values: Tensor
    velocity: Tensor


class ValueHead(nn.Module):
    """The value of an observation, from the action expert's features of a chunk of zeros at flow time 0.

    Zeros are the mean of the noise: what the expert makes of them depends on the observation alone, and they travel
    through it as one more state beside those of the chain. The features are detached: the critic reads the actor and
    does not change it.
    """

    def __init__(self, width: int, hidden: int = 256, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()
            )
            self.last = nn.Linear(hidden, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, features: Tensor) -> Tensor:
        """``[B, H, W]`` -> ``[B]``."""
        values: Tensor = self.last(self.layers(features.detach().float().flatten(1)))
        return values[:, 0]


class FlowField:
    """The velocity field at one prefix; notes the features for the value head on the way."""

    def __init__(self, policy: VlaserPolicy, prefix: Prefix, *, with_value: bool = False) -> None:
        self.policy, self.prefix, self.with_value = policy, prefix, with_value
        self.value_features: Tensor | None = None
        self.velocity: Tensor | None = None

    def __call__(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """See :data:`~vlaser_gym.agents.learners.densities.Field`."""
        if self.with_value and self.value_features is None:
            x, t = torch.cat([x, torch.zeros_like(x[:, :1])], 1), torch.cat([t, torch.zeros_like(t[:, :1])], 1)
            features = self.policy.features(self.prefix, x, t)
            self.value_features, features = features[:, -1], features[:, :-1]
        else:
            features = self.policy.features(self.prefix, x, t)
        self.velocity = self.policy.decode(features)
        return self.velocity, features


class FlowActorCritic(nn.Module):
    """Chains, their likelihood and values.

    Always in evaluation mode: dropout and drop-path would make likelihoods random.

    Args:
        observation_space, action_space, lr_schedule, use_sde: as Stable-Baselines3 hands them over; not read.
        policy: acts; keeps its own requires_grad flags.
        density: of its flow.
        precision: ``"float32"`` or ``"bfloat16"`` (matrix products of rollout and update).
        seed: of the value head's weights.
        critic: whether there is a value head; without one all values are 0.
    """

    #: Stable-Baselines3 asks whether actions come squashed into the space's bounds.
    squash_output = False

    def __init__(
        self,
        observation_space: Any,
        action_space: Any,
        lr_schedule: Any,
        use_sde: bool = False,
        *,
        policy: VlaserPolicy,
        density: Density,
        precision: str = "float32",
        seed: int = 0,
        critic: bool = True,
    ) -> None:
        super().__init__()
        config = policy.config
        self.policy, self.density, self.precision = policy, density, precision
        self.value_head = ValueHead(config.horizon * config.expert_width, seed=seed) if critic else None
        #: Random numbers of the next call; whoever rolls out sets them.
        self.draws: Draws | None = None
        #: Of the last call.
        self.decision: Decision | None = None
        self.eval()

    def set_training_mode(self, mode: bool) -> None:
        """Nothing changes between rollout and update."""

    def actor_parameters(self) -> list[nn.Parameter]:
        """Of the policy and of a learned noise; those that are trained."""
        return [p for module in (self.policy, self.density) for p in module.parameters() if p.requires_grad]

    def critic_parameters(self) -> list[nn.Parameter]:
        """Of the value head."""
        return [] if self.value_head is None else list(self.value_head.parameters())

    @property
    def vision_language_is_frozen(self) -> bool:
        """Whether keys and values of image and text can be kept from rollout to update."""
        policy = self.policy
        parts = (policy.vision, policy.projector, policy.embed_tokens, policy.language)
        return not any(p.requires_grad for part in parts for p in part.parameters())

    def autocast(self) -> AbstractContextManager[Any]:
        """Matrix products in the chosen precision."""
        return torch.autocast(self.policy.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def encode(self, observation: Mapping[str, Tensor]) -> VisionLanguage:
        """Image and text of B observations; without gradients where nothing of it is trained."""
        device = self.policy.device
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.vision_language_is_frozen), self.autocast():
            pixels = normalize_pixels(observation["pixels"].to(device).permute(0, 2, 3, 1))
            return self.policy.encode_vision_language(pixels, observation["input_ids"].to(device).long())

    def forward(self, observation: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Decide: chains ``[B, K + 1, H, A]``, values ``[B]``, log-probabilities ``[B]`` (float64)."""
        assert self.draws is not None, "Random numbers come from outside."
        vision_language = self.encode(observation)
        draws = self.draws.to(self.policy.device)
        with self.autocast():
            prefix = self.policy.encode_proprio(vision_language, self._proprio(observation))
            field = FlowField(self.policy, prefix, with_value=self.value_head is not None)
            chain, log_prob = self.density.sample(field, draws)
        self.decision = Decision(vision_language, draws.stochastic)
        return chain, self._value(field, len(chain)), log_prob

    def predict_values(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Values ``[B]``."""
        if self.value_head is None:
            return torch.zeros(len(observation["proprio"]), device=self.policy.device)
        return self.values(self.encode(observation), self._proprio(observation))

    def values(self, vision_language: VisionLanguage, proprio: Tensor) -> Tensor:
        """Values ``[B]`` of encoded observations; no gradient reaches the policy."""
        assert self.value_head is not None, "There is no critic."
        with torch.no_grad(), self.autocast():
            prefix = self.policy.encode_proprio(vision_language, proprio.to(self.policy.device))
            config = self.policy.config
            zeros = torch.zeros(len(proprio), config.horizon, config.action_dim, device=self.policy.device)
            features = self.policy.features(prefix, zeros, zeros[:, 0, 0])
        values: Tensor = self.value_head(features)
        return values

    def judge(self, vision_language: VisionLanguage, proprio: Tensor, chain: Tensor, stochastic: Tensor) -> Judgement:
        """Likelihood and value of stored chains, in one pass of the action expert."""
        with self.autocast():
            prefix = self.policy.encode_proprio(vision_language, proprio)
            field = FlowField(self.policy, prefix, with_value=self.value_head is not None)
            evaluation = self.density.evaluate(field, chain, stochastic)
        assert field.velocity is not None
        return Judgement(evaluation, self._value(field, len(chain)), field.velocity)

    def _value(self, field: FlowField, count: int) -> Tensor:
        if self.value_head is None:
            return torch.zeros(count, device=self.policy.device)
        assert field.value_features is not None
        values: Tensor = self.value_head(field.value_features)
        return values

    def _proprio(self, observation: Mapping[str, Tensor]) -> Tensor:
        return observation["proprio"].to(self.policy.device).float()
