"""Decisions of stored episodes as tensors, and keys and values of image and text kept while these do not train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlaser_gym.agents.learners.buffer import PrefixCache
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.policy import VisionLanguage, VlaserPolicy
from vlaser_gym.agents.vlaser.processor import normalize_pixels
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.episodes import StoredEpisode

Ints = NDArray[np.int64]
#: Decisions that are encoded at once when they are kept.
_ENCODED_AT_ONCE = 64


@dataclass(frozen=True)
class Decisions:
    """All decisions of some episodes, one after another, on the CPU.

    Attributes:
        pixels: uint8 ``[N, S, S, 3]``.
        input_ids: int64 ``[N, L]``.
        proprio: ``[N, P]``, normalised.
        chunk: ``[N, H, A]``, normalised, not clamped.
        chain, stochastic: ``[N, K + 1, H, A]`` and ``[N, S]`` where a density acted, else ``None``.
        starts: ``[E + 1]``: episode e has the decisions ``starts[e]`` to ``starts[e + 1]``.
    """

    pixels: Tensor
    input_ids: Tensor
    proprio: Tensor
    chunk: Tensor
    chain: Tensor | None
    stochastic: Tensor | None
    starts: Ints

    def __len__(self) -> int:
        return len(self.chunk)

    @classmethod
    def read(cls, episodes: Sequence[StoredEpisode], config: VlaserConfig) -> Decisions:
        """What learners need of these episodes.

        Raises:
            StorageError: if an episode was stored without it.
            InvalidConfigError: if another policy's was stored, or chains of some episodes only, or of several lengths.
        """
        parts = [episode.training() for episode in episodes]
        for episode, part in zip(episodes, parts, strict=True):
            _check(episode, part, config)
        chains = {part["chain"].shape[1:] if "chain" in part else None for part in parts}
        if len(chains) > 1:
            raise InvalidConfigError(
                "Some of these episodes were stored with chains and some without, or with chains of another number of "
                "flow steps: give runs of agent=vlaser_explore with one setting only, or none of it."
            )

        def joined(name: str) -> Tensor:
            return torch.from_numpy(np.concatenate([part[name] for part in parts]))

        has_chains = chains != {None}
        return cls(
            pixels=joined("pixels"),
            input_ids=joined("input_ids"),
            proprio=joined("proprio"),
            chunk=joined("chunk"),
            chain=joined("chain") if has_chains else None,
            stochastic=joined("stochastic") if has_chains else None,
            starts=np.cumsum([0, *(len(part["chunk"]) for part in parts)]),
        )


def _check(episode: StoredEpisode, part: dict[str, NDArray[Any]], config: VlaserConfig) -> None:
    expected = {
        "pixels": (config.image_size, config.image_size, 3),
        "input_ids": (config.max_length,),
        "proprio": (config.proprio_dim,),
        "chunk": (config.horizon, config.action_dim),
    }
    for name, shape in expected.items():
        if part[name].shape[1:] != shape:
            raise InvalidConfigError(
                f"{name} in the run {episode.run} should have shape {list(shape)} per decision for this policy; it has "
                f"{list(part[name].shape[1:])}: collect with the policy that is to be trained."
            )


class DecisionMemory:
    """Decisions as a policy sees them.

    Args:
        decisions: any number.
        policy: its keys and values of image and text are computed once, if nothing that they depend on is trained.
        cache_bytes: memory for them; decisions that do not fit are encoded whenever they are asked for.
        cache_device: where they are kept; by default where the policy is.
    """

    def __init__(
        self, decisions: Decisions, policy: VlaserPolicy, cache_bytes: int, cache_device: str | None = None
    ) -> None:
        self.decisions, self.policy = decisions, policy
        self.cache = PrefixCache(cache_bytes, cache_device or policy.device)
        if cache_bytes and is_frozen(policy):
            self._fill()

    @torch.no_grad()
    def _fill(self) -> None:
        for rows in torch.split(torch.arange(len(self.decisions)), _ENCODED_AT_ONCE):
            self.cache.add(self.encode(self.policy, rows), len(self.decisions))
            if self.cache.is_full:
                return

    def encode(self, policy: VlaserPolicy, rows: Tensor) -> VisionLanguage:
        """Image and text of some decisions, encoded by some policy."""
        pixels = normalize_pixels(self.decisions.pixels[rows].to(policy.device))
        return policy.encode_vision_language(pixels, self.decisions.input_ids[rows].to(policy.device))

    def vision_language(self, rows: Tensor) -> VisionLanguage:
        """Image and text of some decisions as the policy sees them; without gradients where none of it is trained."""
        kept = rows < self.cache.capacity
        parts = [self.cache.rows(rows[kept].numpy(), self.policy.device)] if kept.any() else []
        if not kept.all():
            with torch.set_grad_enabled(torch.is_grad_enabled() and not is_frozen(self.policy)):
                parts.append(self.encode(self.policy, rows[~kept]))
        if len(parts) == 1:
            return parts[0]
        order = torch.cat([kept.nonzero(), (~kept).nonzero()])[:, 0].argsort()
        return VisionLanguage.cat(parts).rows(order.to(self.policy.device))


def is_frozen(policy: VlaserPolicy) -> bool:
    """Whether keys and values of image and text cannot change in training."""
    parts = (policy.vision, policy.projector, policy.embed_tokens, policy.language)
    return not any(parameter.requires_grad for part in parts for parameter in part.parameters())
