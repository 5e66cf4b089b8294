"""Flow matching: the path from noise (t = 0) to actions (t = 1), its training times and its integration.

Conventions and constants: OpenGVLab/Vlaser 40d7821, the same as allenzren/open-pi-zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

#: ``(x, t) -> dx/dt``: x ``[B, H, A]``, t ``[B]``.
Velocity = Callable[[Tensor, Tensor], Tensor]


def time_embedding(t: Tensor, width: int, max_period: float) -> Tensor:
    """Sines, then cosines, of t at ``width / 2`` frequencies from 1 to ``1 / max_period``: ``[...] -> [..., width]``.

    Always fp32; t is in [0, 1] and not scaled by 2 pi.
    """
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t.float()[..., None] * torch.exp(steps * (-math.log(max_period) / (half - 1)))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def interpolate(noise: Tensor, actions: Tensor, t: Tensor, sigma_min: float) -> Tensor:
    """The point at time t on the path: ``(1 - (1 - sigma_min) t) noise + t actions``; ``[B, H, A]``, t ``[B]``."""
    t = t[:, None, None]
    return (1 - (1 - sigma_min) * t) * noise + t * actions


def target_velocity(noise: Tensor, actions: Tensor, sigma_min: float) -> Tensor:
    """Derivative of :func:`interpolate` by t, the same everywhere on the path."""
    return actions - (1 - sigma_min) * noise


def sample_times(
    count: int, distribution: str, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """Training times ``[count]``.

    ``"beta"``: ``0.999 (1 - z)`` with z ~ Beta(1.5, 1), denser near the noise; z is drawn by inverting its
    distribution function ``z^1.5``. ``"uniform"``: one draw for the batch, then evenly spaced, so that every batch
    covers [0, 1).
    """
    if distribution == "beta":
        z = torch.rand(count, generator=generator, device=device) ** (1 / 1.5)
        return 0.999 * (1 - z)
    start = torch.rand(1, generator=generator, device=device)
    return (start + torch.arange(count, device=device) / count) % (1 - 1e-5)


def integrate(velocity: Velocity, noise: Tensor, num_steps: int) -> Tensor:
    """Follow the velocity from t = 0 to 1 in equal Euler steps.

    Returns:
        The whole chain ``[num_steps + 1, B, H, A]``, not clamped; the first entry is the noise.
    """
    chain = [noise]
    for step in range(num_steps):
        t = torch.full((len(noise),), step / num_steps, dtype=torch.float32, device=noise.device)
        chain.append(chain[-1] + velocity(chain[-1], t) / num_steps)
    return torch.stack(chain)
