"""Decisions of stored episodes as tensors, and their encodings, kept while what these depend on is not trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlaser_gym.agents.trainable import TrainableAgent
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.episodes import StoredEpisode
from vlaser_gym.training.data.prefix_cache import PrefixCache

#: Decisions that are encoded at once when they are kept.
_ENCODED_AT_ONCE = 64


@dataclass(frozen=True)
class Decisions:
    """All decisions of some episodes, one after another, on the CPU.

    Attributes:
        inputs: what the policy read, ``[N, ...]`` each.
        chunk: ``[N, H, A]``, normalised, not clamped.
        latent: what a distribution drew; empty where none acted.
        starts: ``[E + 1]``: episode e has the decisions ``starts[e]`` to ``starts[e + 1]``.
    """

    inputs: dict[str, Tensor]
    chunk: Tensor
    latent: dict[str, Tensor]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.chunk)

    @classmethod
    def read(cls, episodes: Sequence[StoredEpisode], agent: TrainableAgent) -> Decisions:
        """Read the decisions of these episodes.

        Raises:
            StorageError: if an episode was stored without it.
            InvalidConfigError: if another policy's was stored, or draws of some episodes only, or of several shapes.
        """
        parts = [episode.training() for episode in episodes]
        shapes = {**agent.input_shapes, "chunk": (agent.horizon, agent.action_dim)}
        for episode, part in zip(episodes, parts, strict=True):
            _check(episode, part, shapes)
        latents = {tuple(part[name].shape[1:] for name in agent.latent_names if name in part) for part in parts}
        if len(latents) > 1:
            raise InvalidConfigError(
                "Some of these episodes were stored with chains and some without, or with chains of another number of "
                "flow steps: give runs of agent=vlaser_explore with one setting only, or none of it."
            )

        def joined(name: str) -> Tensor:
            return torch.from_numpy(np.concatenate([part[name] for part in parts]))

        return cls(
            inputs={name: joined(name) for name in agent.input_names},
            chunk=joined("chunk"),
            latent={name: joined(name) for name in agent.latent_names} if latents != {()} else {},
            starts=np.cumsum([0, *(len(part["chunk"]) for part in parts)]),
        )


def _check(episode: StoredEpisode, part: dict[str, NDArray[Any]], shapes: dict[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        found = None if name not in part else part[name].shape[1:]
        if found != shape:
            raise InvalidConfigError(
                f"{name} in the run {episode.run} should have shape {list(shape)} per decision for this policy; it has "
                f"{'none' if found is None else list(found)}: collect with the policy that is to be trained."
            )


def equal_shares(starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weights of decisions, mean 1, so that all episodes weigh the same whatever their length."""
    lengths = np.diff(starts)
    return np.asarray(np.repeat(lengths.mean() / lengths, lengths))


class DecisionMemory:
    """Decisions as a policy sees them.

    Args:
        decisions: any number.
        agent: its encodings are computed once, if nothing that they depend on is trained.
        cache_bytes: memory for them; decisions that do not fit are encoded whenever they are asked for.
        device: where they are kept.
    """

    def __init__(self, decisions: Decisions, agent: TrainableAgent, cache_bytes: int, device: torch.device) -> None:
        self.decisions, self.agent = decisions, agent
        self.cache = PrefixCache(cache_bytes if agent.encoding_is_frozen else 0, device, len(decisions))
        if self.cache.budget:
            with torch.no_grad():
                for rows in torch.split(torch.arange(len(self.decisions)), _ENCODED_AT_ONCE):
                    self.cache.add(self.encode(self.agent, rows))
                    if self.cache.is_full:
                        break

    def inputs(self, rows: Tensor) -> dict[str, Tensor]:
        """The policy's inputs in some decisions."""
        return {name: values[rows] for name, values in self.decisions.inputs.items()}

    def encode(self, agent: TrainableAgent, rows: Tensor) -> Any:
        """Some decisions, encoded by some policy."""
        return agent.encode(self.inputs(rows))

    def encoding(self, rows: Tensor) -> Any:
        """Some decisions as the policy sees them; without gradients where none of its encoder is trained."""
        kept = rows < self.cache.capacity
        parts = [self.cache.rows(rows[kept].numpy(), self.agent.device)] if kept.any() else []
        if not kept.all():
            parts.append(self.encode(self.agent, rows[~kept]))
        if len(parts) == 1:
            return parts[0]
        order = torch.cat([kept.nonzero(), (~kept).nonzero()])[:, 0].argsort().to(self.agent.device)
        return type(parts[0]).cat(parts).map(lambda tensor: tensor[order])
