"""Decisions for any number of lanes, in micro-batches of one fixed size.

A matrix product's last bits depend on its shape. With one shape for all, a lane's actions do not depend on how many
other lanes there are, nor on its place among them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.language import DecoderLayer
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.vision import VisionLayer
from vlaser_gym.errors import InvalidConfigError

#: Pixels, token ids, proprioception and noise.
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


class MicroBatcher:
    """Runs a policy on ``N`` rows as micro-batches that all have the same shape.

    Rows are grouped by the bucket of their own prompt length (see ``VlaserConfig.length_bucket``), and each group is
    filled up to a multiple of ``size`` with copies of its first row.

    Attributes:
        policy: the policy; its weights may change in place between calls.
        size: rows of a micro-batch.
        num_steps: flow steps of a decision.
        compile: whether layers are compiled and whole decisions replayed as CUDA graphs; by default where the policy is
            on a GPU. The first decision then takes minutes. Call :meth:`reset` after adapters were added, merged or
            switched.

    Raises:
        InvalidConfigError: for ``compile=True`` on a CPU.
    """

    def __init__(
        self, policy: VlaserPolicy, size: int = 8, num_steps: int | None = None, *, compile: bool | None = None
    ) -> None:
        on_gpu = policy.device.type == "cuda"
        if compile and not on_gpu:
            raise InvalidConfigError("compile=true needs the policy on a GPU; it is on the CPU. Leave compile out.")
        if size < 1 or (num_steps is not None and num_steps < 1):
            raise InvalidConfigError(f"Micro-batch and flow steps should be at least 1; got {size} and {num_steps}.")
        self.policy = policy
        self.size = size
        self.num_steps = num_steps or policy.config.num_flow_steps
        self.compile = on_gpu if compile is None else compile
        self._graphs: dict[int, _Graph] = {}
        if self.compile:
            compile_layers(policy)

    def reset(self) -> None:
        """Forget recorded CUDA graphs."""
        self._graphs.clear()

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
        config = self.policy.config
        ids = torch.as_tensor(input_ids)
        check_prompts(config, ids)
        pixels, proprio, noise = (torch.as_tensor(rows) for rows in (pixel_values, proprio, noise))
        actions = torch.empty(len(ids), config.horizon, config.action_dim)
        lengths = bucketed_lengths(config, ids)
        for length in sorted(set(lengths.tolist())):
            for index in (lengths == length).nonzero().flatten().split(self.size):
                full = torch.cat([index, index[:1].expand(self.size - len(index))])
                batch = (pixels[full], ids[full, :length], proprio[full], noise[full].float())
                actions[index] = self._decide(batch)[: len(index)].cpu()
        return actions.clamp(-1, 1) if clamp else actions

    def _decide(self, batch: Inputs) -> Tensor:
        inputs = to_device(batch, self.policy.device)
        if not self.compile:
            return self.policy.decide(*inputs, num_steps=self.num_steps, clamp=False)
        length = inputs[1].shape[1]
        if length not in self._graphs:
            self._graphs[length] = _Graph(self.policy, inputs, self.num_steps)
        return self._graphs[length](inputs)


class _Graph:
    """One recorded decision of fixed shape: a replay costs no kernel launches."""

    def __init__(self, policy: VlaserPolicy, inputs: Inputs, num_steps: int) -> None:
        pixels, ids, proprio, noise = inputs
        self.inputs = (pixels.clone(), ids.clone(), proprio.clone(), noise.clone())
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # compiles, tunes and allocates outside the recording
            for _ in range(3):
                policy.decide(*self.inputs, num_steps=num_steps, clamp=False)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.output = policy.decide(*self.inputs, num_steps=num_steps, clamp=False)

    def __call__(self, inputs: Inputs) -> Tensor:
        for held, new in zip(self.inputs, inputs, strict=True):
            held.copy_(new)
        self.graph.replay()
        return self.output.clone()


def act_micro_batched(
    policy: VlaserPolicy,
    pixel_values: Any,
    input_ids: Any,
    proprio: Any,
    *,
    noise: Any,
    micro_batch: int = 8,
    num_steps: int | None = None,
    clamp: bool = True,
) -> Tensor:
    """One call of a :class:`MicroBatcher` without compilation."""
    return MicroBatcher(policy, micro_batch, num_steps, compile=False)(
        pixel_values, input_ids, proprio, noise, clamp=clamp
    )


def to_device(inputs: Inputs, device: torch.device) -> Inputs:
    """The inputs on another device."""
    pixels, ids, proprio, noise = inputs
    return pixels.to(device), ids.to(device), proprio.to(device), noise.to(device)


def compile_layers(policy: VlaserPolicy, backend: str = "inductor") -> None:
    """Compile the transformer layers in place: all layers of a kind share one compilation per shape."""
    # Three shapes (image and text, proprioception, actions) for each length bucket are more than the default limit.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    for module in policy.modules():
        if isinstance(module, VisionLayer | DecoderLayer):
            module.compile(backend=backend, fullgraph=True, dynamic=False)


def bucketed_lengths(config: VlaserConfig, input_ids: Tensor) -> Tensor:
    """``[N]``: to how many tokens each row of ``[N, L]`` is cut before it is encoded."""
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
