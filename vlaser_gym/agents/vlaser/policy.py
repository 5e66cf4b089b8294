"""The Vlaser policy: images, an instruction and proprioception in; a chunk of normalised actions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional

from vlaser_gym.agents.vlaser import flow
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.expert import ActionEncoder, make_expert, make_language
from vlaser_gym.agents.vlaser.language import (
    DecoderLayer,
    KeyValue,
    RMSNorm,
    Rotary,
    at_least_fp32,
    attend,
    fold_mask,
    rotary,
)
from vlaser_gym.agents.vlaser.linear import PaddedLinear
from vlaser_gym.agents.vlaser.vision import VisionEmbeddings, VisionEncoder, VisionLayer, make_projector
from vlaser_gym.errors import InvalidConfigError, UnknownNameError

#: What can be frozen, adapted or checkpointed on its own, and the modules it consists of.
PARTS: dict[str, tuple[str, ...]] = {
    "vision": ("vision", "projector"),
    "embedding": ("embed_tokens",),
    "language": ("language",),
    "expert": ("expert", "action_encoder", "proprio_encoder", "action_decoder"),
}


@dataclass(frozen=True)
class VisionLanguage:
    """Keys and values of the image and text in every layer: all that the action expert sees of them.

    Independent of proprioception and of the action expert's weights, so that it can be kept while these train.

    Attributes:
        cache: per layer keys and values ``[B, kv_heads, L, head_dim]``, rotated.
        lengths: ``[B]``, tokens of each row that are not padding.
    """

    cache: tuple[KeyValue, ...]
    lengths: Tensor

    def tensors(self) -> list[Tensor]:
        """Keys and values of every layer, then the lengths."""
        return [*(tensor for pair in self.cache for tensor in pair), self.lengths]

    def map(self, function: Any) -> VisionLanguage:
        """Apply ``function(tensor)`` to every tensor; each has the batch as its first dimension."""
        cache = tuple((function(k), function(v)) for k, v in self.cache)
        return VisionLanguage(cache, function(self.lengths))

    def rows(self, index: Tensor | slice) -> VisionLanguage:
        """Some rows of the batch."""
        return self.map(lambda tensor: tensor[index])

    def detach(self) -> VisionLanguage:
        """The same tensors, detached from the graph of gradients."""
        return self.map(lambda tensor: tensor.detach())

    def to(self, device: torch.device | str) -> VisionLanguage:
        """The same keys and values on another device, e.g. ``"cpu"`` to keep many."""
        return self.map(lambda tensor: tensor.to(device))

    def padded(self, length: int) -> VisionLanguage:
        """The same keys and values with zeros behind, up to ``length`` tokens, which no token attends to."""
        gap = (0, 0, 0, length - self.length)
        if not gap[-1]:
            return self
        cache = tuple((functional.pad(k, gap), functional.pad(v, gap)) for k, v in self.cache)
        return VisionLanguage(cache, self.lengths)

    @staticmethod
    def cat(parts: Sequence[VisionLanguage]) -> VisionLanguage:
        """Join batches whose blocks have the same length."""
        layers = zip(*(part.cache for part in parts), strict=True)
        cache = tuple((torch.cat([k for k, _ in layer]), torch.cat([v for _, v in layer])) for layer in layers)
        return VisionLanguage(cache, torch.cat([part.lengths for part in parts]))

    @property
    def nbytes(self) -> int:
        """Memory of the keys and values (bytes)."""
        return sum(tensor.nbytes for pair in self.cache for tensor in pair)

    @property
    def length(self) -> int:
        """Tokens of the block, padding included."""
        return self.cache[0][0].shape[2]

    @property
    def mask(self) -> Tensor:
        """Additive ``[B, 1, 1, L]``: padding is invisible."""
        return _padding_mask(self.lengths, self.length, self.cache[0][0].dtype)


@dataclass(frozen=True)
class Prefix:
    """The part of a decision that all flow steps share.

    Attributes:
        vision_language: image and text.
        proprio: per layer keys and values ``[B, kv_heads, 1, head_dim]`` of the proprioception, which the action
            expert makes.
    """

    vision_language: VisionLanguage
    proprio: tuple[KeyValue, ...]

    def map(self, function: Any) -> Prefix:
        """Apply ``function(tensor)`` to every tensor; each has the batch as its first dimension."""
        proprio = tuple((function(k), function(v)) for k, v in self.proprio)
        return Prefix(self.vision_language.map(function), proprio)

    def rows(self, index: Tensor | slice) -> Prefix:
        """Some rows of the batch."""
        return self.map(lambda tensor: tensor[index])

    def detach(self) -> Prefix:
        """The same tensors, detached from the graph of gradients."""
        return self.map(lambda tensor: tensor.detach())


class ActionContext(NamedTuple):
    """The inputs of the action tokens from a prefix, computed once for all steps.

    Attributes:
        past: per layer keys and values of image, text and proprioception.
        mask: additive, from :func:`fold_mask`.
        rope: of the action tokens.
    """

    past: list[KeyValue]
    mask: Tensor
    rope: Rotary


class VlaserPolicy(nn.Module):
    """Vision encoder, language model and action expert with joint attention, and the flow on top.

    Weights are undefined until :meth:`initialise` made or a checkpoint loaded them. Inputs are normalised pixels
    ``[B, 3, S, S]``, token ids ``[B, L]`` padded on the right, normalised proprioception ``[B, P]``; actions are
    normalised, ``[B, H, A]``. The flow's state is fp32 whatever the dtype of the weights.

    Example:
        >>> policy = VlaserPolicy.initialise(VlaserConfig.preset("nano"))
        >>> sum(parameter.numel() for parameter in policy.parameters()) < 4_000_000
        True
    """

    def __init__(self, config: VlaserConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = VisionEncoder(config)
        self.projector = make_projector(config)
        # Given its weight, the embedding draws none: on the meta device that alone would import for a second.
        table = torch.empty(config.vocab_size, config.width)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width, _weight=table)
        self.language = make_language(config)
        self.expert = make_expert(config)
        self.action_encoder = ActionEncoder(config)
        self.proprio_encoder = PaddedLinear(config.proprio_dim, config.expert_width)
        self.action_decoder = nn.Linear(config.expert_width, config.action_dim)
        if config.answers:
            self.lm_head = nn.Linear(config.width, config.vocab_size, bias=False)

    @classmethod
    def initialise(
        cls,
        config: VlaserConfig,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> VlaserPolicy:
        """A policy with random weights that depend on the seed alone."""
        policy = cls.on_meta(config)
        # Not to_empty(), which imports for a second.
        empty = {k: torch.empty(v.shape, dtype=dtype, device=device) for k, v in policy.state_dict().items()}
        policy.load_state_dict(empty, assign=True)
        policy.reset_parameters(seed)
        return policy.eval()

    @classmethod
    def on_meta(cls, config: VlaserConfig) -> VlaserPolicy:
        """A policy without memory, to count parameters or to assign weights to; parameters in no use are frozen."""
        with torch.device("meta"):
            policy = cls(config)
        policy.freeze()
        return policy

    @torch.no_grad()
    def rescale_proprio(self, scale: ArrayLike, shift: ArrayLike) -> None:
        """Make the policy answer to normalised proprioception ``p`` as it did to ``scale * p + shift`` (``[P]`` each).

        The change of units goes into the layer that reads them, in place.
        """
        layer = self.proprio_encoder
        weight = layer.weight.double()
        factors, offsets = (torch.as_tensor(np.asarray(values), device=weight.device) for values in (scale, shift))
        layer.bias.copy_(layer.bias.double() + weight @ offsets)
        layer.weight.copy_(weight * factors)

    @torch.no_grad()
    def reset_parameters(self, seed: int = 0, parts: Sequence[str] = tuple(PARTS)) -> None:
        """Fresh weights for some parts: normal matrices, zero biases, unit norms; small heads as torch's default."""
        generator = torch.Generator(self.device).manual_seed(seed)
        for part in parts:
            for name in _modules(part):
                for module in self.get_submodule(name).modules():
                    self._reset(module, name, generator)
        if self.config.answers and "language" in parts:
            self.reset_head(seed)

    @torch.no_grad()
    def reset_to_pass_on(self, indices: Sequence[int], seed: int = 0) -> None:
        """Fresh weights for some layers of both stacks, which add nothing to what they get until they are trained."""
        generator = torch.Generator(self.device).manual_seed(seed)
        for stack in ("language", "expert"):
            for index in indices:
                layer = self.get_submodule(f"{stack}.layers.{index}")
                for module in layer.modules():
                    self._reset(module, stack, generator)
                assert isinstance(layer, DecoderLayer)
                nn.init.zeros_(layer.self_attn.o_proj.weight)
                nn.init.zeros_(layer.mlp.down_proj.weight)

    @torch.no_grad()
    def reset_head(self, seed: int = 0) -> None:
        """Fresh weights for the language head, from a stream of their own."""
        generator = torch.Generator(self.device).manual_seed(seed)
        self.lm_head.weight.normal_(0, self.config.init_std, generator=generator)

    def _reset(self, module: nn.Module, root: str, generator: torch.Generator) -> None:
        std = self.config.init_std
        if isinstance(module, nn.Linear) and root in ("action_encoder", "proprio_encoder", "action_decoder"):
            bound = module.in_features**-0.5
            module.weight.uniform_(-bound, bound, generator=generator)
            module.bias.uniform_(-bound, bound, generator=generator)
        elif isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            module.weight.normal_(0, std, generator=generator)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        elif isinstance(module, nn.LayerNorm | RMSNorm):
            nn.init.ones_(module.weight)
            if isinstance(module, nn.LayerNorm):
                nn.init.zeros_(module.bias)
        elif isinstance(module, VisionLayer):
            nn.init.constant_(module.ls1, self.config.layer_scale_init)
            nn.init.constant_(module.ls2, self.config.layer_scale_init)
        elif isinstance(module, VisionEmbeddings):
            module.class_embedding.normal_(0, std, generator=generator)
            module.position_embedding.normal_(0, std, generator=generator)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.action_decoder.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        return self.action_decoder.weight.dtype

    # --- the image-text-proprioception prefix

    def image_features(self, pixel_values: Tensor) -> Tensor:
        """Normalised pixels ``[B, 3, S, S]`` -> ``[B, image tokens, width]``, row by row."""
        features: Tensor = self.projector(self.vision(pixel_values))
        return features

    def embed(self, pixel_values: Tensor, input_ids: Tensor) -> Tensor:
        """Token embeddings with image features in the image tokens' places and zeros for padding: ``[B, L, width]``."""
        features = self.image_features(pixel_values)
        is_image = input_ids == self.config.image_token_id
        order = (is_image.cumsum(1) - 1).clamp(0, features.shape[1] - 1)
        placed = features.gather(1, order[..., None].expand(-1, -1, features.shape[2]))
        embedded = torch.where(is_image[..., None], placed, self.embed_tokens(input_ids))
        return embedded * (input_ids != self.config.pad_id)[..., None]

    def encode_vision_language(self, pixel_values: Tensor, input_ids: Tensor) -> VisionLanguage:
        """The part of a prefix that depends on image and instruction only.

        Padding sees what the other tokens see instead of nothing; nobody sees it, so that this changes nothing.
        """
        lengths = (input_ids != self.config.pad_id).sum(1)
        embedded = self.embed(pixel_values, input_ids)
        mask = _padding_mask(lengths, input_ids.shape[1], embedded.dtype)
        rope = self._rope(self.config.position_start, input_ids.shape[1])
        return VisionLanguage(tuple(self.language.key_values(embedded, rope, mask)), lengths)

    def encode_proprio(self, vision_language: VisionLanguage, proprio: Tensor) -> Prefix:
        """Add proprioception ``[B, P]``: one token of the action expert, which sees image, text and itself."""
        token = self._proprio_token(proprio)
        mask = functional.pad(vision_language.mask, (0, 1))
        past = vision_language.cache
        return Prefix(vision_language, tuple(self.expert.key_values(token, self._rope(1, 1), mask, past)))

    def encode(self, pixel_values: Tensor, input_ids: Tensor, proprio: Tensor) -> Prefix:
        """Everything that the flow steps of a decision share.

        Args:
            pixel_values: ``[B, 3, S, S]``, normalised.
            input_ids: ``[B, L]``, one image token per image feature, padding on the right.
            proprio: ``[B, P]``, normalised.

        Raises:
            InvalidConfigError: if a shape does not fit.
        """
        size = self.config.image_size
        _expect("pixel_values", pixel_values, (None, 3, size, size))
        _expect("input_ids", input_ids, (len(pixel_values), None))
        _expect("proprio", proprio, (len(pixel_values), self.config.proprio_dim))
        return self.encode_proprio(self.encode_vision_language(pixel_values, input_ids), proprio)

    # --- answers

    def embed_text(self, features: Tensor | None, input_ids: Tensor) -> Tensor:
        """:meth:`embed` for rows that hold any number of images each, or none.

        Args:
            features: of :meth:`image_features` ``[pictures, image tokens, width]``, in the order of the images'
                places row after row; ``None`` without images.
            input_ids: ``[R, T]``.
        """
        embedded: Tensor = self.embed_tokens(input_ids)
        if features is None:
            return embedded
        is_image = input_ids == self.config.image_token_id
        order = (is_image.flatten().cumsum(0) - 1).clamp(min=0).view_as(input_ids)
        return torch.where(is_image[..., None], features.flatten(0, 1)[order], embedded)

    def read_text(
        self, embedded: Tensor, positions: Tensor, visible: Tensor, past: Sequence[KeyValue] | None = None
    ) -> tuple[Tensor, list[KeyValue]]:
        """The language model on embedded text, its last layer included.

        Args:
            embedded: ``[R, T, width]``.
            positions: ``[R, T]``, from 0 on.
            visible: booleans ``[R, T, past and T]``: who sees whom.
            past: keys and values of what stands before.

        Returns:
            Hidden states ``[R, T, width]``, which :attr:`lm_head` turns into logits, and the text's keys and values.
        """
        config = self.config
        rope = rotary(positions[:, None] + config.position_start, config.head_dim, config.rope_theta)
        mask = fold_mask(_additive(visible, embedded.dtype)[:, None], config.heads // config.kv_heads)
        hidden, cache = self.language(embedded, rope, mask, past)
        return hidden, cache

    # --- the flow

    def velocity(self, prefix: Prefix, x: Tensor, t: Tensor) -> Tensor:
        """The flow's velocity.

        Args:
            prefix: of B rows.
            x: ``[B, H, A]``, or ``[B, K, H, A]``: K states per row, which do not see each other. Evaluating K steps of
                a stored chain together costs little more than one.
            t: flow times ``[B]`` or ``[B, K]``, 0 noise to 1 data.

        Returns:
            fp32, like ``x``.
        """
        return self.decode(self.features(prefix, x, t))

    def features(self, prefix: Prefix, x: Tensor, t: Tensor) -> Tensor:
        """The action expert's last hidden states ``[B, (K,) H, expert_width]``; arguments as :meth:`velocity`."""
        return self._features(self.action_context(prefix, x), x, t)

    def decode(self, features: Tensor) -> Tensor:
        """Hidden states -> velocity, at least fp32."""
        velocity: Tensor = self.action_decoder(features)
        return velocity.to(at_least_fp32(velocity.dtype))

    def joint_features(self, vision_language: VisionLanguage, proprio: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """:meth:`features`, with proprioception and actions through the action expert together: one pass to train."""
        copies = _copies(x)
        actions = self.action_encoder(x, t).flatten(1, -2)
        tokens = torch.cat([self._proprio_token(proprio), actions], dim=1)
        positions = functional.pad(self._action_positions(copies), (1, 0), value=1)
        rope = rotary(positions, self.config.head_dim, self.config.rope_theta)
        own = self._expert_mask(copies, tokens.dtype, with_proprio=True)
        mask = self._join_masks(vision_language.mask, own)
        hidden: Tensor = self.expert(tokens, rope, mask, vision_language.cache)[0]
        return hidden[:, 1:].reshape(*x.shape[:-1], -1)

    def sample(self, prefix: Prefix, noise: Tensor, num_steps: int | None = None, *, clamp: bool = True) -> Tensor:
        """Actions ``[B, H, A]`` from noise of the same shape, by ``num_steps`` Euler steps; clamped to [-1, 1]."""
        actions = self.sample_chain(prefix, noise, num_steps)[-1]
        return actions.clamp(-1, 1) if clamp else actions

    def sample_chain(self, prefix: Prefix, noise: Tensor, num_steps: int | None = None) -> Tensor:
        """All states of the flow ``[num_steps + 1, B, H, A]``, noise first, not clamped."""
        _expect("noise", noise, (len(prefix.vision_language.lengths), self.config.horizon, self.config.action_dim))
        context = self.action_context(prefix, noise)

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            """The velocity ``[B, H, A]`` at states ``x [B, H, A]`` and times ``t [B]``."""
            return self.decode(self._features(context, x, t))

        return flow.integrate(velocity, noise.float(), num_steps or self.config.num_flow_steps)

    @torch.inference_mode()
    def decide(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        proprio: Tensor,
        noise: Tensor,
        *,
        num_steps: int | None = None,
        clamp: bool = True,
    ) -> Tensor:
        """One decision without gradients: :meth:`encode`, then :meth:`sample`."""
        prefix = self.encode(pixel_values, input_ids, proprio)
        return self.sample(prefix, noise, num_steps, clamp=clamp)

    def flow_loss(
        self,
        batch: Mapping[str, Any],
        noise: Tensor | None = None,
        t: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        reduction: str = "mean",
    ) -> Tensor:
        """Mean squared error of the velocity on the path from noise to the batch's actions.

        Args:
            batch: ``actions`` ``[B, H, A]``, ``proprio``, and either ``pixel_values`` and ``input_ids`` or a cached
                ``vision_language``.
            noise: ``[B, H, A]``; drawn if absent.
            t: ``[B]``; drawn from the config's distribution if absent.
            generator: for the draws, on the policy's device.
            reduction: ``"mean"`` for one number, ``"none"`` for ``[B]``.
        """
        actions = batch["actions"].to(self.device)
        actions = actions.to(at_least_fp32(actions.dtype))
        if noise is None:
            noise = torch.randn(actions.shape, generator=generator, device=self.device)
        if t is None:
            t = flow.sample_times(len(actions), self.config.time_distribution, generator, self.device)
        vision_language = batch.get("vision_language")
        if vision_language is None:
            vision_language = self.encode_vision_language(batch["pixel_values"], batch["input_ids"])
        x = flow.interpolate(noise, actions, t, self.config.sigma_min)
        velocity = self.decode(self.joint_features(vision_language, batch["proprio"], x, t))
        error = (velocity - flow.target_velocity(noise, actions, self.config.sigma_min)).square().mean((1, 2))
        return error.mean() if reduction == "mean" else error

    # --- the plain way, for tests and for comparison

    def velocity_uncached(
        self, pixel_values: Tensor, input_ids: Tensor, proprio: Tensor, x: Tensor, t: Tensor
    ) -> Tensor:
        """:meth:`velocity` as one forward pass over all tokens with the full mask, written without any shortcut."""
        embedded = self.embed(pixel_values, input_ids)
        return self.velocity_of_embedded(embedded, (input_ids != self.config.pad_id).sum(1), proprio, x, t)

    def velocity_of_embedded(self, vlm: Tensor, lengths: Tensor, proprio: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """:meth:`velocity_uncached` from token embeddings ``[B, L, width]`` and prompt lengths ``[B]``."""
        expert = torch.cat([self._proprio_token(proprio), self.action_encoder(x, t)], dim=1)
        length, horizon = vlm.shape[1], x.shape[1]
        ropes = self._rope(self.config.position_start, length), self._rope(1, 1 + horizon)
        mask = _additive(visible_tokens(lengths, length, horizon), vlm.dtype)[:, None]
        mask = fold_mask(mask, self.config.heads // self.config.kv_heads)
        for language_layer, expert_layer in zip(self.language.layers, self.expert.layers, strict=True):
            assert isinstance(language_layer, DecoderLayer)
            assert isinstance(expert_layer, DecoderLayer)
            parts = language_layer.project(vlm, ropes[0]), expert_layer.project(expert, ropes[1])
            q, k, v = (torch.cat([a, b], dim=2) for a, b in zip(*parts, strict=True))
            attended = attend(q, k, v, mask)
            vlm = language_layer.finish(vlm, attended[:, :length])
            expert = expert_layer.finish(expert, attended[:, length:])
        return self.decode(self.expert.norm(expert)[:, 1:])

    # --- training

    def freeze(self, *parts: str) -> None:
        """Make the named parts (keys of :data:`PARTS`) constant and all others trainable.

        What no action depends on stays constant (:meth:`answer_modules`) until :meth:`train_answers`.

        Raises:
            UnknownNameError: for another part.
        """
        frozen = {name for part in parts for name in _modules(part)}
        for name, module in self.named_children():
            module.requires_grad_(name not in frozen)
        for unused in self.answer_modules():
            unused.requires_grad_(False)

    def train_answers(self) -> None:
        """Make trainable what answers alone depend on."""
        for module in self.answer_modules():
            module.requires_grad_(True)

    def answer_modules(self) -> list[nn.Module]:
        """The modules on which no action depends.

        These are the language model's final norm, its last layer but for keys and values, and the language head.
        """
        last = self.language.layers[-1]
        assert isinstance(last, DecoderLayer)
        attention = last.self_attn
        modules = [self.language.norm, last.mlp, last.post_attention_layernorm, attention.q_proj, attention.o_proj]
        return [*modules, self.lm_head] if self.config.answers else modules

    def set_gradient_checkpointing(self, *parts: str) -> None:
        """Recompute the layers of the named parts (``vision``, ``language``, ``expert``) in the backward pass."""
        for part in parts:
            _modules(part)
        self.vision.encoder.gradient_checkpointing = "vision" in parts
        self.language.gradient_checkpointing = "language" in parts
        self.expert.gradient_checkpointing = "expert" in parts

    # --- pieces

    def _rope(self, start: int, length: int) -> Rotary:
        positions = torch.arange(start, start + length, device=self.device)
        return rotary(positions, self.config.head_dim, self.config.rope_theta)

    def _action_positions(self, copies: int) -> Tensor:
        return torch.arange(2, 2 + self.config.horizon, device=self.device).repeat(copies)

    def _proprio_token(self, proprio: Tensor) -> Tensor:
        token: Tensor = self.proprio_encoder(proprio.to(self.dtype))
        return token[:, None]

    def _expert_mask(self, copies: int, dtype: torch.dtype, *, with_proprio: bool) -> Tensor:
        """Additive, among the expert's tokens: actions see their own chunk and proprioception, that sees itself."""
        chunk = torch.arange(copies, device=self.device).repeat_interleave(self.config.horizon)
        chunk = functional.pad(chunk, (1, 0), value=-1) if with_proprio else chunk
        return _additive((chunk[:, None] == chunk) | (chunk == -1), dtype)

    def _join_masks(self, past: Tensor, own: Tensor) -> Tensor:
        """``[B, 1, 1, S]`` and ``[T, T]`` -> folded ``[B, 1, groups T, S + T]``."""
        batch, length = len(past), len(own)
        joined = torch.cat([past.expand(-1, -1, length, -1), own.expand(batch, 1, -1, -1)], dim=-1)
        return fold_mask(joined, self.config.heads // self.config.kv_heads)

    def action_context(self, prefix: Prefix, x: Tensor) -> ActionContext:
        """The context of flow states of a shape, ``[B, H, A]`` or ``[B, K, H, A]``, from a prefix."""
        pairs = zip(prefix.vision_language.cache, prefix.proprio, strict=True)
        past = [(torch.cat([a[0], b[0]], dim=2), torch.cat([a[1], b[1]], dim=2)) for a, b in pairs]
        copies = _copies(x)
        mask = functional.pad(prefix.vision_language.mask, (0, 1))
        mask = self._join_masks(mask, self._expert_mask(copies, mask.dtype, with_proprio=False))
        rope = rotary(self._action_positions(copies), self.config.head_dim, self.config.rope_theta)
        return ActionContext(past, mask, rope)

    def _features(self, context: ActionContext, x: Tensor, t: Tensor) -> Tensor:
        tokens = self.action_encoder(x, t).flatten(1, -2)
        hidden: Tensor = self.expert(tokens, context.rope, context.mask, context.past)[0]
        return hidden.reshape(*x.shape[:-1], -1)


def visible_tokens(lengths: Tensor, length: int, horizon: int) -> Tensor:
    """The attention mask, ``[B, T, T]`` booleans over image-text block (``length``), proprioception and actions.

    Image and text see each other without causality; proprioception sees them and itself; actions see everything;
    padding neither sees nor is seen.
    """
    total = length + 1 + horizon
    index = torch.arange(total, device=lengths.device)
    group = (index >= length).long() + (index >= length + 1).long()
    present = (index < lengths[:, None]) | (index >= length)
    allowed: Tensor = group[:, None] >= group[None, :]
    return allowed & present[:, :, None] & present[:, None, :]


def _additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    zeros = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return zeros.masked_fill(~visible, torch.finfo(dtype).min)


def _padding_mask(lengths: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    index = torch.arange(length, device=lengths.device)
    return _additive(index < lengths[:, None], dtype)[:, None, None]


def _copies(x: Tensor) -> int:
    return x.shape[1] if x.ndim == 4 else 1


def _modules(part: str) -> tuple[str, ...]:
    if part not in PARTS:
        raise UnknownNameError("part of the policy", part, PARTS)
    return PARTS[part]


def _expect(name: str, tensor: Tensor, shape: tuple[int | None, ...]) -> None:
    fits = tensor.ndim == len(shape) and all(a == b or b is None for a, b in zip(tensor.shape, shape, strict=True))
    if not fits:
        wanted = ["any" if size is None else size for size in shape]
        raise InvalidConfigError(f"{name} should have shape {wanted}; got {list(tensor.shape)}.")
