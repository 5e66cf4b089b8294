"""Flow policies with a density: every Euler step becomes a Gaussian, so that likelihood ratios exist.

The plain flow is deterministic given its noise. :class:`FlowSde` adds noise and corrects the drift for it, so that the
distribution of actions stays what it was (pi_RL, arXiv 2510.25889); :class:`FlowNoise` learns how much noise to add and
leaves the drift alone (ReinFlow, arXiv 2505.22094). Time runs from 0 (noise) to 1 (actions). Derivations:
``docs/post_training.md``.

A *chain* is all states of a flow, ``[B, K + 1, H, A]``, noise first. Its first state is standard normal whatever the
weights are; densities here are conditional on it, as that factor cancels in every ratio.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlaser_gym.agents.vlaser.policy import Prefix, VlaserPolicy
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.registry import DENSITIES

#: ``(x [B, S, H, A], t [B, S]) -> (velocity [B, S, H, A], features [B, S, H, W])``; states do not see each other.
Field = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class FlowField:
    """The velocity field at one prefix.

    Args:
        policy: whose flow it is.
        prefix: of B decisions.
        with_value: the first evaluation also gives the features of a chunk of zeros at flow time 0, as one more state
            beside those of the chain: zeros are the mean of the noise, so that what the expert makes of them depends on
            the observation alone.

    Attributes:
        velocity: of the last evaluation.
        value_features: ``[B, H W]`` of the zeros, if they were asked for.
    """

    def __init__(self, policy: VlaserPolicy, prefix: Prefix, *, with_value: bool = False) -> None:
        self.policy, self.prefix, self.with_value = policy, prefix, with_value
        self.value_features: Tensor | None = None
        self.velocity: Tensor | None = None

    def __call__(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """See :data:`Field`."""
        if self.with_value and self.value_features is None:
            x, t = torch.cat([x, torch.zeros_like(x[:, :1])], 1), torch.cat([t, torch.zeros_like(t[:, :1])], 1)
            features = self.policy.features(self.prefix, x, t)
            self.value_features, features = features[:, -1].flatten(1), features[:, :-1]
        else:
            features = self.policy.features(self.prefix, x, t)
        self.velocity = self.policy.decode(features)
        return self.velocity, features


@dataclass(frozen=True)
class Draws:
    """Everything random of a batch of chains.

    Attributes:
        noise: first states, standard normal, ``[B, H, A]``.
        steps: standard normal numbers of the steps, ``[B, K, H, A]``.
        stochastic: which steps are random, ascending, ``[B, S]``.
    """

    noise: Tensor
    steps: Tensor
    stochastic: Tensor

    def rows(self, index: slice | Tensor) -> Draws:
        """Some of the chains."""
        return Draws(self.noise[index], self.steps[index], self.stochastic[index])

    def to(self, device: torch.device) -> Draws:
        """On another device."""
        return Draws(self.noise.to(device), self.steps.to(device), self.stochastic.to(device))


@dataclass(frozen=True)
class Moments:
    """Gaussian transitions from states ``[B, S, H, A]``, float64.

    Attributes:
        mean, std: of the next state.
        euler: the next state of the plain flow.
    """

    mean: Tensor
    std: Tensor
    euler: Tensor


@dataclass(frozen=True)
class Evaluation:
    """Of B chains, float64.

    Attributes:
        log_prob: ``[B]``, summed over the random steps and over all numbers of the chunk.
        entropy: ``[B]``, mean per random number (nat).
    """

    log_prob: Tensor
    entropy: Tensor


class Density(nn.Module, ABC):
    """Makes a flow's Euler steps Gaussian.

    Args:
        num_steps: Euler steps K of the flow.
        one_step: only one step, drawn anew for every chunk, is random; the others follow the plain flow and are part
            of the world that the policy acts in.
    """

    def __init__(self, num_steps: int, *, one_step: bool = False) -> None:
        super().__init__()
        if num_steps < 1:
            raise InvalidConfigError(f"A flow needs at least 1 step; got {num_steps}.")
        self.num_steps, self.one_step = num_steps, one_step

    @abstractmethod
    def gaussian(self, x: Tensor, velocity: Tensor, tau: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the next state, both for sampling and for likelihoods.

        Args:
            x, velocity: ``[B, S, H, A]``, float64.
            tau: ``[B, S, 1, 1]``, float64, multiples of ``1 / num_steps`` below 1.
            features: what the velocity was read from.
        """

    def moments(self, field: Field, x: Tensor, steps: Tensor) -> Moments:
        """Transitions that leave states ``x [B, S, H, A]`` in the Euler steps ``steps [B, S]`` (0 to K - 1)."""
        tau = steps.double() / self.num_steps
        velocity, features = field(x, tau.to(x.dtype))
        x, velocity, tau = x.double(), velocity.double(), tau[..., None, None]
        mean, std = self.gaussian(x, velocity, tau, features)
        return Moments(mean, std.expand_as(mean), x + velocity / self.num_steps)

    def draw(self, batch: int, horizon: int, action_dim: int, generator: torch.Generator) -> Draws:
        """Random numbers of ``batch`` chains, fp32, on the generator's device."""
        device = generator.device
        noise = torch.randn(batch, horizon, action_dim, generator=generator, device=device)
        steps = torch.randn(batch, self.num_steps, horizon, action_dim, generator=generator, device=device)
        if self.one_step:
            stochastic = torch.randint(self.num_steps, (batch, 1), generator=generator, device=device)
        else:
            stochastic = torch.arange(self.num_steps, device=device).expand(batch, -1)
        return Draws(noise, steps, stochastic)

    def sample(self, field: Field, draws: Draws) -> tuple[Tensor, Tensor]:
        """Chains ``[B, K + 1, H, A]`` and their ``log_prob [B]``; chains are not clamped, of the noise's dtype."""
        x = draws.noise
        chain, log_prob = [x], torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for step in range(self.num_steps):
            moments = self.moments(field, x[:, None], torch.full((len(x), 1), step, device=x.device))
            random = (draws.stochastic == step).any(1)
            drawn = moments.mean + moments.std * draws.steps[:, step, None]
            # The likelihood is that of the state as it is stored, rounding included.
            chosen = torch.where(random[:, None, None, None], drawn, moments.euler).to(x.dtype)
            log_prob = log_prob + torch.where(random, log_density(chosen, moments), 0.0)
            x = chosen[:, 0]
            chain.append(x)
        return torch.stack(chain, 1), log_prob

    def evaluate(self, field: Field, chain: Tensor, stochastic: Tensor) -> Evaluation:
        """Likelihood of stored chains ``[B, K + 1, H, A]``: all their random steps in one pass of the field."""
        row = torch.arange(len(chain), device=chain.device)[:, None]
        moments = self.moments(field, chain[row, stochastic], stochastic)
        entropy = (moments.std.log() + 0.5 * math.log(2 * math.pi * math.e)).mean((1, 2, 3))
        return Evaluation(log_density(chain[row, stochastic + 1], moments), entropy)


class FlowSde(Density):
    """The flow as a stochastic differential equation with the same marginals.

    Args:
        num_steps, one_step: see :class:`Density`.
        noise_level: ``a`` in ``sigma = a sqrt((1 - tau) / max(tau, delta))``, where delta is the size of a step.
    """

    def __init__(self, num_steps: int, noise_level: float = 0.5, *, one_step: bool = False) -> None:
        super().__init__(num_steps, one_step=one_step)
        if not noise_level > 0:
            raise InvalidConfigError(f"The noise level should be above 0; got {noise_level}.")
        self.noise_level = noise_level

    def gaussian(self, x: Tensor, velocity: Tensor, tau: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Density.gaussian`."""
        delta = 1 / self.num_steps
        variance = self.noise_level**2 * (1 - tau) / tau.clamp(min=delta)
        noise = x - tau * velocity
        mean = x + (velocity - variance / (2 * (1 - tau)) * noise) * delta
        return mean, (variance * delta).sqrt()


class FlowNoise(Density):
    """Euler steps plus noise whose size a small network reads from the action expert's features.

    Args:
        num_steps: see :class:`Density`.
        width: of the features.
        action_dim: numbers per action.
        bounds: least and largest standard deviation of a step; the network begins at their geometric mean.
        hidden: width of the network.
        seed: of its weights.
    """

    def __init__(
        self,
        num_steps: int,
        width: int,
        action_dim: int,
        bounds: tuple[float, float] = (0.05, 0.2),
        *,
        hidden: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(num_steps)
        if not 0 < bounds[0] < bounds[1]:
            raise InvalidConfigError(f"Noise bounds should be two rising numbers above 0; got {list(bounds)}.")
        self.bounds = (float(bounds[0]), float(bounds[1]))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.head = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, action_dim))
        for parameter in self.head[2].parameters():
            nn.init.zeros_(parameter)

    def gaussian(self, x: Tensor, velocity: Tensor, tau: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Density.gaussian`."""
        low, high = math.log(self.bounds[0]), math.log(self.bounds[1])
        dtype = next(self.head.parameters()).dtype
        share = torch.sigmoid(self.head(features.to(dtype)).double())
        return x + velocity / self.num_steps, (low + (high - low) * share).exp()


def log_density(state: Tensor, moments: Moments) -> Tensor:
    """Log-probability of next states ``[B, S, H, A]``, summed per row in float64: ``[B]``."""
    z = (state.double() - moments.mean) / moments.std
    return -(0.5 * z.square() + moments.std.log() + 0.5 * math.log(2 * math.pi)).sum((1, 2, 3))


def make_density(
    name: str,
    num_steps: int,
    *,
    width: int,
    action_dim: int,
    noise_level: float = 0.5,
    noise_bounds: tuple[float, float] = (0.05, 0.2),
    seed: int = 0,
) -> Density:
    """A density by name: ``"flow_sde"``, ``"flow_sde_one_step"`` or ``"flow_noise"``, or one of somebody's own.

    Raises:
        UnknownNameError: for another name.
        InvalidConfigError: for an import string that does not import, or stands for no density.
    """
    if name == "flow_noise":
        return FlowNoise(num_steps, width, action_dim, noise_bounds, seed=seed)
    if name in ("flow_sde", "flow_sde_one_step"):
        return FlowSde(num_steps, noise_level, one_step=name == "flow_sde_one_step")
    make = DENSITIES.find(name)
    given = {
        "width": width,
        "action_dim": action_dim,
        "noise_level": noise_level,
        "noise_bounds": noise_bounds,
        "seed": seed,
    }
    names = inspect.signature(make).parameters
    density = make(num_steps, **{key: value for key, value in given.items() if key in names})
    if not isinstance(density, Density):
        raise InvalidConfigError(
            f"algo.density={name} should give a {Density.__module__}.Density; got {type(density).__name__}."
        )
    return density
