"""The contract between a policy and the learners of :mod:`vlaser_gym.training`.

A learner knows :class:`TrainableAgent` and nothing of the network behind it. What a network reads are its *inputs*, a
dictionary of arrays with one row per decision; what of them can be computed once and kept while the rest trains is
their *encoding*; what it decides is a *chunk*, normalised and not clamped.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vlaser_gym.agents.base import Agent, Observations
from vlaser_gym.agents.text_rows import Pictures, TextRows, TextSample
from vlaser_gym.errors import InvalidConfigError, UnknownNameError

Inputs = Mapping[str, Tensor]
Draws = Mapping[str, Tensor]


class Encoding(Protocol):
    """Tensors with one row per decision that stay the same while nothing that they depend on is trained."""

    def tensors(self) -> list[Tensor]:
        """All tensors, each with the batch as its first dimension."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to each."""

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """Concatenate batches along the first dimension."""


@dataclass(frozen=True)
class TensorEncoding:
    """The :class:`Encoding` of a network whose encoder gives one tensor ``[B, ...]``."""

    features: Tensor

    def tensors(self) -> list[Tensor]:
        """See :class:`Encoding`."""
        return [self.features]

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """See :class:`Encoding`."""
        return type(self)(function(self.features))

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """See :class:`Encoding`."""
        return cls(torch.cat([part.features for part in parts]))


@dataclass(frozen=True)
class Sample:
    """Decisions drawn from the policy's distribution.

    Attributes:
        chunk: ``[B, H, A]``, normalised, not clamped.
        latent: what :meth:`TrainableAgent.log_prob` needs to evaluate them again; one row per decision.
        log_prob: ``[B]``, float64.
        value_features: ``[B, F]`` if they were asked for.
    """

    chunk: Tensor
    latent: dict[str, Tensor]
    log_prob: Tensor
    value_features: Tensor | None

    def map(self, function: Callable[[Tensor], Tensor]) -> Sample:
        """Apply a function to each tensor."""
        latent = {name: function(rows) for name, rows in self.latent.items()}
        features = None if self.value_features is None else function(self.value_features)
        return Sample(function(self.chunk), latent, function(self.log_prob), features)

    @classmethod
    def cat(cls, parts: Sequence[Sample]) -> Sample:
        """Concatenate batches along the first dimension."""
        latent = {name: torch.cat([part.latent[name] for part in parts]) for name in parts[0].latent}
        features = [part.value_features for part in parts if part.value_features is not None]
        return cls(
            torch.cat([part.chunk for part in parts]),
            latent,
            torch.cat([part.log_prob for part in parts]),
            torch.cat(features) if features else None,
        )


@dataclass(frozen=True)
class Likelihood:
    """Likelihoods of stored decisions.

    Attributes:
        log_prob: ``[B]``, float64, summed over all random numbers of a decision.
        entropy: ``[B]``, float64, mean per random number (nat).
        numbers: random numbers per decision.
        location: ``[B, ...]``, the network's output that places the distribution (a flow's velocity, a Gaussian's
            mean): what the reference penalty compares.
        value_features: ``[B, F]`` if they were asked for.
        actions: ``[B, H]``, float64, log-probability of each action of the chunk; of a flow, mean over the random
            steps. Needed where :attr:`TrainableAgent.likelihoods` has more than ``chain``.
    """

    log_prob: Tensor
    entropy: Tensor
    numbers: int
    location: Tensor
    value_features: Tensor | None
    actions: Tensor | None = None


class ImageResize(Protocol):
    """Makes a policy's square images, ``{"image": [N, H, W, 3]}`` -> ``{"pixels": [N, S, S, 3]}``, uint8.

    Attributes:
        size: side S (pixels).
        filter: name of how it shrinks; with the size it identifies the images.
    """

    @property
    def size(self) -> int:
        """See the attributes."""

    @property
    def filter(self) -> str:
        """See the attributes."""

    def __call__(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Resize every image of the observations."""


class ActionDecoder(Protocol):
    """Decoder of normalised chunks into the environment's actions, with the memory per environment that this takes."""

    def reset(self, indices: NDArray[np.int64]) -> None:
        """Episodes begin in these environments."""

    def __call__(self, chunk: NDArray[Any], indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """``[N, H, A]`` -> ``[N, act_steps, 7]`` in environment units."""

    def get_state(self) -> dict[str, Any]:
        """The memory."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`get_state` gave."""


class TrainableAgent(nn.Module, ABC):
    """A policy that learners can train.

    The parameters of the module are what is trained. Subclasses that are no flows leave :meth:`velocities` out:
    algorithms that need it say so.

    Attributes:
        observes: names of the observations that :meth:`transform` reads.
        robot: ``"widowx"`` or ``"google_robot"``.
        horizon, action_dim: shape ``[H, A]`` of a chunk.
        act_steps: actions executed per decision.
        value_width: numbers of :meth:`value_features`.
        parts: names of the parts that can be frozen, and the child modules that each consists of.
        resize: ``{"image": ...}`` -> ``{"pixels": ...}``, the policy's own images, which data sets keep decoded.
        input_shapes: entries of :meth:`transform`'s result and the shape of a row of each.
        latent_names: entries of :attr:`Sample.latent`.
        recordable: on a GPU, what decides (:meth:`encode`, :meth:`sample`, :meth:`value_features`, :meth:`decide`) can
            be recorded as a CUDA graph: inputs are on the device already, shapes depend on theirs alone, and no number
            is read back on the way.
        likelihoods: values of ``algo.likelihood`` that it can be trained by.
    """

    observes: tuple[str, ...] = ("image", "proprio", "instruction")
    robot: str
    horizon: int
    action_dim: int
    act_steps: int
    value_width: int
    parts: Mapping[str, tuple[str, ...]]
    resize: ImageResize
    input_shapes: Mapping[str, tuple[int, ...]]
    latent_names: ClassVar[tuple[str, ...]] = ()
    recordable: ClassVar[bool] = False
    likelihoods: ClassVar[tuple[str, ...]] = ("chain",)
    #: Tiles that an image of a question is cut into at most; 1: it is brought to one square by :attr:`resize`.
    max_tiles: int = 1
    #: Parts that ``algo=sft`` leaves as they are where ``algo.freeze`` says nothing.
    frozen_by_default: tuple[str, ...] = ()
    #: Methods by which learners run the network, and those of :meth:`layers` besides ``forward``: where weights are
    #: shared by processes, these gather them.
    learner_methods: ClassVar[tuple[str, ...]] = (
        *("encode", "sample", "log_prob", "value_features", "imitation_error", "auxiliary_losses", "velocities"),
        *("decide", "answer_loss"),
    )
    layer_methods: ClassVar[tuple[str, ...]] = ()

    @property
    def input_names(self) -> tuple[str, ...]:
        """Entries of :meth:`transform`'s result."""
        return tuple(self.input_shapes)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    # ------------------------------------------------------------------ environment side

    @abstractmethod
    def transform(self, observations: Observations) -> dict[str, NDArray[Any]]:
        """Observations of N environments -> inputs; of entries that are absent nothing is made."""

    @abstractmethod
    def normalize_actions(self, actions: NDArray[Any]) -> NDArray[Any]:
        """Demonstrated actions -> chunks ``[..., A]`` that the network should give.

        Args:
            actions: ``[..., 7]``: translation (m), roll, pitch, yaw (rad, static xyz), openness (0 closed, 1 open).
        """

    @abstractmethod
    def make_decoder(self) -> ActionDecoder:
        """A decoder with a memory of its own."""

    def acting(self, *, explore: bool = False) -> Agent:
        """An agent with these weights for the runner; ``explore``: draws from the distribution that is trained."""
        from vlaser_gym.agents.acting import PolicyAgent  # noqa: PLC0415  (it imports this module)

        return PolicyAgent(self, explore=explore)

    def decide(self, encoding: Any, inputs: Inputs) -> Tensor:
        """Chunks ``[B, H, A]`` without noise, for :meth:`acting`."""
        raise InvalidConfigError(f"{type(self).__name__} has neither decide() nor acting(): write one of them.")

    def describe_distribution(self) -> dict[str, Any]:
        """The settings of the sampling distribution, as runs keep them among their agent's settings."""
        return {}

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write a checkpoint that acts on its own."""

    # ------------------------------------------------------------------ network side

    @abstractmethod
    def encode(self, inputs: Inputs) -> Encoding:
        """The part of a forward pass that can be kept while :attr:`encoding_is_frozen`."""

    @property
    def encoding_is_frozen(self) -> bool:
        """True if training cannot change the encodings."""
        return False

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """Everything random of ``count`` decisions, on the CPU; one row per decision."""

    @abstractmethod
    def sample(self, encoding: Any, inputs: Inputs, draws: Draws, *, with_value: bool = False) -> Sample:
        """Decide. Mean and spread come from the same function as those of :meth:`log_prob`."""

    @abstractmethod
    def log_prob(self, encoding: Any, inputs: Inputs, latent: Mapping[str, Tensor], *, with_value: bool) -> Likelihood:
        """Evaluate stored decisions, in one forward pass."""

    @abstractmethod
    def value_features(self, encoding: Any, inputs: Inputs) -> Tensor:
        """``[B, F]``, what a critic reads of an observation; without gradients."""

    @abstractmethod
    def imitation_draws(self, count: int, samples: int, generator: torch.Generator) -> Draws:
        """Random numbers of :meth:`imitation_error` for ``count`` rows and ``samples`` draws per row, on the CPU."""

    @abstractmethod
    def imitation_error(self, encoding: Any, inputs: Inputs, chunk: Tensor, draws: Draws) -> Tensor:
        """The imitation error of chunks ``[B, H, A]``, ``[B, ...]``; its mean is the loss of cloning."""

    def auxiliary_losses(self, inputs: Inputs) -> dict[str, Tensor]:
        """Further terms of the imitation loss, weighted, of the last :meth:`encode`; scalars by name."""
        return {}

    def keep_place_moments(self, mean: NDArray[np.float64], std: NDArray[np.float64]) -> None:
        """Told mean and standard deviation ``[10]`` by which the batches' ``places`` are standardised, if they are."""

    # ------------------------------------------------------------------ answers

    @property
    def reasoning_length(self) -> int:
        """Tokens of images, question and answer together; 0: it has no language head and answers nothing."""
        return 0

    def picture_tokens(self, width: int, height: int) -> int:
        """Tokens of an image of so many pixels."""
        raise self._cannot_answer()

    def picture_tiles(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An image ``[H, W, 3]`` as the network reads it, ``[tiles, S, S, 3]``, uint8."""
        raise self._cannot_answer()

    def text_sample(
        self, question: str, answer: str, image_tokens: Sequence[int], history: Sequence[tuple[str, str]] = ()
    ) -> TextSample:
        """A question and its answer as tokens.

        Args:
            question: with ``<image>`` once per image, or not at all.
            answer: what is to be said.
            image_tokens: of each image, by :meth:`picture_tokens`.
            history: questions and answers before it.
        """
        raise self._cannot_answer()

    @property
    def pad_id(self) -> int:
        """The token that fills rows of text up."""
        raise self._cannot_answer()

    def answer_loss(self, pictures: Pictures | None, rows: TextRows) -> Tensor:
        """Weighted sum of the learned tokens' cross entropies, for questions and answers with their images."""
        raise self._cannot_answer()

    def _cannot_answer(self) -> InvalidConfigError:
        return InvalidConfigError(f"{type(self).__name__} has no language head and cannot learn to answer questions.")

    def velocities(self, encoding: Any, inputs: Inputs, chunk: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """A flow's velocity on the paths to chunks and what it is trained towards, ``[B, K, H, A]`` each.

        Raises:
            InvalidConfigError: for a policy that is no flow.
        """
        raise InvalidConfigError(
            f"{type(self).__name__} is no flow and has no velocity, which this algorithm needs; take algo=dpo or ppo."
        )

    # ------------------------------------------------------------------ what is trained

    def freeze(self, *parts: str) -> None:
        """Make the named parts constant and all others trainable.

        Raises:
            UnknownNameError: for another part.
        """
        for part in parts:
            if part not in self.parts:
                raise UnknownNameError("part of the policy", part, self.parts)
        frozen = {name for part in parts for name in self.parts[part]}
        for name, module in self.named_children():
            module.requires_grad_(name not in frozen)

    def add_adapters(self, rank: int, frozen: Sequence[str], seed: int, whole: Sequence[str] = ()) -> None:
        """Put LoRA adapters on all parts but the frozen ones and those in ``whole``.

        From then on only the adapters are trained, and the parts in ``whole``.

        Raises:
            InvalidConfigError: for a policy that takes none.
        """
        raise InvalidConfigError(f"{type(self).__name__} takes no adapters; use algo.lora=0.")

    @property
    def has_adapters(self) -> bool:
        """True after :meth:`add_adapters`."""
        return False

    def adapters_off(self) -> AbstractContextManager[None]:
        """Inside, the policy computes what it computed before it had adapters."""
        return nullcontext()

    def frozen_copy(self) -> Self:
        """The same weights in another agent, constant and in evaluation mode.

        Weights that are constant here already may be shared with it. Called on all processes that share weights.
        """
        return copy.deepcopy(self).requires_grad_(False).eval()

    # ------------------------------------------------------------------ how it fits into memory

    def layers(self) -> list[nn.Module]:
        """Modules that are compiled, and shared by processes, one by one; a policy without any is not."""
        return []

    def narrow(self, dtype: torch.dtype) -> None:
        """Make the network's weights of another type, in place; what makes likelihoods stays as it is."""
        self.to(dtype)

    def set_gradient_checkpointing(self, *parts: str) -> None:
        """Compute the layers of some parts again in the backward pass, instead of keeping what they computed.

        Raises:
            InvalidConfigError: for a policy that cannot.
        """
        if parts:
            raise InvalidConfigError(f"{type(self).__name__} recomputes no layers; use checkpointing=[].")

    def is_vision_language(self, name: str) -> bool:
        """True for parameters of the pretrained half, which has a learning rate of its own in ``algo=sft``."""
        return False
