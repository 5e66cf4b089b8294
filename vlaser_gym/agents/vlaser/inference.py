"""Decisions and chains of a Vlaser policy for any number of environments, by the inference engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vlaser_gym.agents.batch_sizes import BATCH_SIZE, checked_sizes
from vlaser_gym.agents.inference import InferenceEngine, NamedRows
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.densities import Distribution, Draws, FlowField
from vlaser_gym.agents.vlaser.language import DecoderLayer
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.vision import VisionLayer
from vlaser_gym.errors import InvalidConfigError

#: Pixels, token ids, proprioception and noise.
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


class PolicyEngine:
    """Runs a policy on ``N`` rows in batches of one size, or of few.

    Rows are grouped by the bucket of their own prompt length (see ``VlaserConfig.length_bucket``).

    Args:
        policy: the policy; its weights may change in place between calls.
        sizes: rows of a batch; several for serving, see :mod:`vlaser_gym.agents.inference`.
        num_steps: flow steps of a decision; by default the policy's.
        density: with it, :meth:`chains` draws from the flow; it has ``num_steps`` steps.
        compile: compile the transformer layers; by default on a GPU only. The first decision of each size then takes
            minutes. Call :meth:`reset` after adapters were added, merged or switched.
        record: replay whole decisions as CUDA graphs; by default on a GPU. Flow steps, chain and likelihood are inside.

    Raises:
        InvalidConfigError: for sizes or flow steps below 1.
    """

    def __init__(
        self,
        policy: VlaserPolicy,
        sizes: Sequence[int] = (BATCH_SIZE,),
        num_steps: int | None = None,
        *,
        density: Distribution | None = None,
        compile: bool | None = None,
        record: bool | None = None,
    ) -> None:
        if num_steps is not None and num_steps < 1:
            raise InvalidConfigError(f"Flow steps should be at least 1; got {num_steps}.")
        self.policy, self.density = policy, density
        self.num_steps = num_steps or policy.config.num_flow_steps
        self.compile = policy.device.type == "cuda" if compile is None else compile
        self._deciding = InferenceEngine(self._decide, policy.device, sizes, record=record)
        self._sampling = InferenceEngine(self._sample, policy.device, sizes, record=record)
        if self.compile:
            compile_layers(policy)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows of a batch, ascending."""
        return self._deciding.sizes

    @sizes.setter
    def sizes(self, sizes: Sequence[int]) -> None:
        """Rows of a batch, from now on.

        Raises:
            InvalidConfigError: for sizes below 1, or none.
        """
        self._deciding.sizes = self._sampling.sizes = checked_sizes(sizes)

    def reset(self) -> None:
        """Forget recorded CUDA graphs."""
        self._deciding.reset()
        self._sampling.reset()

    def __call__(self, pixel_values: Any, input_ids: Any, proprio: Any, noise: Any, *, clamp: bool = True) -> Tensor:
        """Decide.

        Args:
            pixel_values: ``[N, 3, S, S]``, normalised; arrays or tensors, like the others.
            input_ids: ``[N, L]``.
            proprio: ``[N, P]``, normalised.
            noise: ``[N, H, A]``.
            clamp: limit actions to [-1, 1].

        Returns:
            ``[N, H, A]`` normalised actions, fp32, on the CPU.

        Raises:
            InvalidConfigError: if a shape or a prompt does not fit the policy.
        """
        rows = _rows(pixels=pixel_values, ids=input_ids, proprio=proprio, noise=noise)
        rows["noise"] = rows["noise"].float()
        actions = self._in_buckets(self._deciding, rows)["actions"]
        return actions.clamp(-1, 1) if clamp else actions

    def chains(self, pixel_values: Any, input_ids: Any, proprio: Any, draws: Draws) -> NamedRows:
        """Draw from the density: ``chain`` ``[N, K + 1, H, A]``, not clamped, and ``log_prob`` ``[N]``, on the CPU.

        Arguments and errors as when called.
        """
        return self._in_buckets(
            self._sampling, _rows(pixels=pixel_values, ids=input_ids, proprio=proprio, **vars(draws))
        )

    def _in_buckets(self, engine: InferenceEngine[NamedRows], rows: NamedRows) -> NamedRows:
        config, ids = self.policy.config, rows["ids"]
        check_prompts(config, ids)
        lengths = bucketed_lengths(config, ids)
        groups = [(lengths == length).nonzero().flatten() for length in sorted(set(lengths.tolist()))]
        parts = []
        for index in groups:
            mine = rows.map(lambda tensor, index=index: tensor[index])  # type: ignore[misc]
            mine["ids"] = mine["ids"][:, : int(lengths[index[0]])]
            parts.append(engine(mine).map(Tensor.cpu))
        order = torch.cat(groups).argsort()
        return NamedRows.cat(parts).map(lambda tensor: tensor[order])

    def _decide(self, rows: NamedRows) -> NamedRows:
        inputs = (rows[name] for name in ("pixels", "ids", "proprio", "noise"))
        return NamedRows(actions=self.policy.decide(*inputs, num_steps=self.num_steps, clamp=False))

    @torch.inference_mode()
    def _sample(self, rows: NamedRows) -> NamedRows:
        assert self.density is not None, "Chains need a density."
        prefix = self.policy.encode(rows["pixels"], rows["ids"], rows["proprio"])
        draws = Draws(**{field.name: rows[field.name] for field in dataclasses.fields(Draws)})
        chain, log_prob = self.density.sample(FlowField(self.policy, prefix), draws)
        return NamedRows(chain=chain, log_prob=log_prob)


def _rows(**rows: Any) -> NamedRows:
    return NamedRows({name: torch.as_tensor(values) for name, values in rows.items()})


def to_device(inputs: Inputs, device: torch.device) -> Inputs:
    """The inputs on another device."""
    pixels, ids, proprio, noise = inputs
    return pixels.to(device), ids.to(device), proprio.to(device), noise.to(device)


def compile_layers(policy: VlaserPolicy, backend: str = "inductor") -> None:
    """Compile the transformer layers in place: all layers of a kind share one compilation per shape."""
    # Three shapes (image and text, proprioception, actions) for each length bucket and size are more than the default.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 128)
    for module in policy.modules():
        if isinstance(module, VisionLayer | DecoderLayer):
            module.compile(backend=backend, fullgraph=True, dynamic=False)


def bucketed_lengths(config: VlaserConfig, input_ids: Tensor) -> Tensor:
    """Lengths ``[N]`` (tokens) to which the rows of ``[N, L]`` are cut before they are encoded."""
    whole = input_ids.shape[1]
    if config.length_bucket == 0:
        return torch.full((len(input_ids),), whole)
    lengths = (input_ids != config.pad_id).sum(1)
    return ((lengths + config.length_bucket - 1) // config.length_bucket * config.length_bucket).clamp(max=whole)


def check_prompts(config: VlaserConfig, input_ids: Tensor) -> None:
    """Raise :class:`InvalidConfigError` unless rows have the image tokens, and padding on the right only."""
    if input_ids.ndim != 2 or input_ids.shape[1] > config.max_length:
        raise InvalidConfigError(
            f"input_ids should have shape [N, L] with L up to {config.max_length}; got {list(input_ids.shape)}."
        )
    images = (input_ids == config.image_token_id).sum(1)
    if (images != config.num_image_tokens).any():
        raise InvalidConfigError(
            f"Each prompt should hold {config.num_image_tokens} image tokens (id {config.image_token_id}); got "
            f"{images.tolist()}. Tokenizer and policy do not belong together."
        )
    padding = input_ids == config.pad_id
    if (padding[:, :-1] & ~padding[:, 1:]).any():
        raise InvalidConfigError(f"Prompts should be padded (id {config.pad_id}) on the right only.")
