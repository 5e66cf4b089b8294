"""The attention of a Vlaser policy's action tokens, and the share of it that falls on the image.

The numbers are those that the policy acts by, in the same order of operations as
:class:`~vlaser_gym.agents.vlaser.language.DecoderLayer`; only the kernel is another, as PyTorch's fused ones keep the
shares to themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vlaser_gym.agents.vlaser.language import DecoderLayer
from vlaser_gym.agents.vlaser.policy import Prefix, VlaserPolicy


@torch.inference_mode()
def action_attention(policy: VlaserPolicy, prefix: Prefix, x: Tensor, t: Tensor) -> Tensor:
    """Shares of the action tokens' attention in every layer and head.

    Args:
        policy: the policy.
        prefix: of B rows.
        x: state of the flow, ``[B, H, A]``.
        t: flow times ``[B]``.

    Returns:
        ``[layers, B, heads, H, S]``, fp32, summing to 1 over the S keys: image and text in the prompt's order, padding
        (which gets 0), proprioception, then the H action tokens.
    """
    past, mask, rope = policy.action_context(prefix, x)
    tokens, shares = policy.action_encoder(x, t), []
    for layer, (past_keys, past_values) in zip(policy.expert.layers, past, strict=True):
        assert isinstance(layer, DecoderLayer)
        q, k, v = layer.project(tokens, rope)
        keys, values = torch.cat([past_keys, k], dim=2), torch.cat([past_values, v], dim=2)
        batch, heads, length, head_dim = q.shape
        # Heads that share their keys end to end, as the mask has them.
        folded = q.reshape(batch, keys.shape[1], -1, head_dim)
        scores = (folded @ keys.transpose(-1, -2)).float() * head_dim**-0.5 + mask.float()
        share = functional.softmax(scores, dim=-1)
        attended = (share.to(values.dtype) @ values).view(batch, heads, length, head_dim)
        tokens = layer.finish(tokens, attended.transpose(1, 2).flatten(2))
        shares.append(share.view(batch, heads, length, -1))
    return torch.stack(shares)


@torch.inference_mode()
def picture_attention(
    policy: VlaserPolicy,
    pixel_values: Tensor,
    input_ids: Tensor,
    proprio: Tensor,
    noise: Tensor,
    num_steps: int,
    act_steps: int,
) -> Tensor:
    """The share of a decision's attention on each part of the image.

    Args:
        policy: the policy.
        pixel_values, input_ids, proprio: what it reads, as for :meth:`VlaserPolicy.encode`.
        noise: where the flow begins, ``[B, H, A]``.
        num_steps: Euler steps of the flow.
        act_steps: the chunk's actions that are executed; only theirs counts.

    Returns:
        ``[B, g, g]``, the image's tokens in rows from above: the mean over flow steps, layers, heads and executed
        actions. It sums to the share of the attention that the image gets; text, proprioception and actions have the
        rest.
    """
    prefix = policy.encode(pixel_values, input_ids, proprio)
    chain = policy.sample_chain(prefix, noise, num_steps)[:-1]
    total = torch.zeros(input_ids.shape, device=policy.device)
    for step, x in enumerate(chain):
        t = torch.full((len(x),), step / num_steps, device=x.device)
        shares = action_attention(policy, prefix, x, t)[..., :act_steps, : input_ids.shape[1]]
        total += shares.mean((0, 2, 3)) / num_steps
    is_picture = input_ids == policy.config.image_token_id
    side = round(policy.config.num_image_tokens**0.5)
    return total[is_picture.to(total.device)].view(len(input_ids), side, side)
