"""Flow policies with a density: every Euler step becomes a Gaussian, so that likelihood ratios exist.

The plain flow is deterministic given its noise. :class:`FlowSde` adds noise and corrects the drift for it, so that the
distribution of actions stays what it was (pi_RL, arXiv 2510.25889); :class:`FlowCps` adds it without leaving the path
from noise to actions (arXiv 2509.05952); :class:`FlowNoise` learns how much noise to add and leaves the drift alone
(ReinFlow, arXiv 2505.22094). :class:`ChunkGaussian` lets the flow be and adds noise to the finished chunk. Time runs
from 0 (noise) to 1 (actions). Derivations: ``docs/post_training.md``.

A *chain* is what has to be stored of a flow to evaluate it again, ``[B, L + 1, H, A]``, the first state first and the
chunk last. The distribution of the first state does not depend on the weights; densities here are conditional on it, as
that factor cancels in every ratio.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vlaser_gym.agents.vlaser.policy import Prefix, VlaserPolicy
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.registry import DENSITIES

#: ``(x [B, S, H, A], t [B, S]) -> (velocity [B, S, H, A], features [B, S, H, W])``; states do not see each other.
Field = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

_HALF_LOG_TAU, _NORMAL_ENTROPY = 0.5 * math.log(2 * math.pi), 0.5 * math.log(2 * math.pi * math.e)
#: Of the seven numbers of an action, the three that turn the hand.
_ROTATIONS = slice(3, 6)


class FlowField:
    """The velocity field at one prefix.

    Args:
        policy: whose flow it is.
        prefix: of B decisions.
        with_value: the first evaluation also gives the features of a chunk of zeros at flow time 0, as one more state
            beside those of the chain: zeros are the mean of the noise, so that what the expert makes of them depends on
            the observation alone.

    Attributes:
        value_features: ``[B, H W]`` of the zeros, if they were asked for.
    """

    def __init__(self, policy: VlaserPolicy, prefix: Prefix, *, with_value: bool = False) -> None:
        self.policy, self.prefix, self.with_value = policy, prefix, with_value
        self.value_features: Tensor | None = None

    def __call__(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """See :data:`Field`."""
        if self.with_value and self.value_features is None:
            x, t = torch.cat([x, torch.zeros_like(x[:, :1])], 1), torch.cat([t, torch.zeros_like(t[:, :1])], 1)
            features = self.policy.features(self.prefix, x, t)
            self.value_features, features = features[:, -1].flatten(1), features[:, :-1]
        else:
            features = self.policy.features(self.prefix, x, t)
        return self.policy.decode(features), features


@dataclass(frozen=True)
class Draws:
    """Everything random of a batch of chains.

    Attributes:
        noise: what first states are made of, standard normal, ``[B, H, A]``.
        steps: standard normal numbers of the steps, ``[B, L, H, A]``.
        stochastic: which steps are random, ascending, ``[B, S]``.
    """

    noise: Tensor
    steps: Tensor
    stochastic: Tensor

    def rows(self, index: slice | Tensor) -> Draws:
        """The same for some rows of the batch."""
        return Draws(self.noise[index], self.steps[index], self.stochastic[index])

    def to(self, device: torch.device) -> Draws:
        """The same draws on another device."""
        return Draws(self.noise.to(device), self.steps.to(device), self.stochastic.to(device))


@dataclass(frozen=True)
class Moments:
    """Gaussian transitions from states ``[B, S, H, A]``, float64.

    Attributes:
        mean, std: of the next state.
        euler: the next state of the plain flow.
        velocity: of the flow, in its own precision.
    """

    mean: Tensor
    std: Tensor
    euler: Tensor
    velocity: Tensor


@dataclass(frozen=True)
class Evaluation:
    """Likelihood, entropy and location of B chains, float64.

    Attributes:
        log_prob: ``[B]``, summed over the random steps and over all numbers of the chunk.
        entropy: ``[B]``, mean per random number (nat).
        actions: ``[B, H]``, log-probability of each action of the chunk: summed over its numbers, mean over the random
            steps.
        location: ``[B, ...]``, the network's output that places the distribution.
    """

    log_prob: Tensor
    entropy: Tensor
    actions: Tensor
    location: Tensor


class Distribution(nn.Module, ABC):
    """A distribution of chunks that a flow leads to, whose likelihoods are known.

    Args:
        num_steps: Euler steps K of the flow.
        one_step: only one step, drawn anew for every chunk, is random; the others follow the plain flow and are part
            of the world that the policy acts in.

    Attributes:
        length: transitions L of a chain.
        random: which of them can be random, ascending.
        initial_noise: standard deviation of the flow's first state, as the checkpoint acts with: 0 to 1.
    """

    length: int
    random: Sequence[int]
    initial_noise: float = 1.0

    def __init__(self, num_steps: int, *, one_step: bool = False) -> None:
        super().__init__()
        if num_steps < 1:
            raise InvalidConfigError(f"A flow needs at least 1 step; got {num_steps}.")
        self.num_steps, self.one_step = num_steps, one_step

    def draw(self, batch: int, horizon: int, action_dim: int, generator: torch.Generator) -> Draws:
        """Random numbers of ``batch`` chains, fp32, on the generator's device."""
        device = generator.device
        noise = torch.randn(batch, horizon, action_dim, generator=generator, device=device)
        steps = torch.randn(batch, self.length, horizon, action_dim, generator=generator, device=device)
        random = torch.tensor(self.random, device=device)
        if self.one_step:
            stochastic = random[torch.randint(len(random), (batch, 1), generator=generator, device=device)]
        else:
            stochastic = random.expand(batch, -1)
        return Draws(noise, steps, stochastic)

    @abstractmethod
    def sample(self, field: Field, draws: Draws) -> tuple[Tensor, Tensor]:
        """Chains ``[B, L + 1, H, A]`` and their ``log_prob [B]``; chains are not clamped, of the noise's dtype."""

    @abstractmethod
    def evaluate(self, field: Field, chain: Tensor, stochastic: Tensor) -> Evaluation:
        """Likelihood of stored chains ``[B, L + 1, H, A]`` with random steps ``stochastic [B, S]``."""

    def describe(self) -> dict[str, Any]:
        """The settings of the distribution, as runs keep them among their agent's settings."""
        kind = type(self)
        return {"density": f"{kind.__module__}:{kind.__qualname__}", "num_flow_steps": self.num_steps}


class Density(Distribution):
    """Makes a flow's Euler steps Gaussian; its chains hold all states, ``L = K``.

    Args:
        num_steps, one_step: see :class:`Distribution`.
    """

    def __init__(self, num_steps: int, *, one_step: bool = False) -> None:
        super().__init__(num_steps, one_step=one_step)
        self.length, self.random = num_steps, range(num_steps)

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
        x, v, tau = x.double(), velocity.double(), tau[..., None, None]
        mean, std = self.gaussian(x, v, tau, features)
        return Moments(mean, std.expand_as(mean), x + v / self.num_steps, velocity)

    def sample(self, field: Field, draws: Draws) -> tuple[Tensor, Tensor]:
        """See :meth:`Distribution.sample`."""
        x = draws.noise * self.initial_noise
        chain, log_prob = [x], torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for step in range(self.num_steps):
            moments = self.moments(field, x[:, None], torch.full((len(x), 1), step, device=x.device))
            random = (draws.stochastic == step).any(1)
            drawn = moments.mean + moments.std * draws.steps[:, step, None]
            # The likelihood is that of the state as it is stored, rounding included.
            chosen = torch.where(random[:, None, None, None], drawn, moments.euler).to(x.dtype)
            log_prob = log_prob + torch.where(random, log_densities(chosen, moments).sum((1, 2, 3)), 0.0)
            x = chosen[:, 0]
            chain.append(x)
        return torch.stack(chain, 1), log_prob

    def evaluate(self, field: Field, chain: Tensor, stochastic: Tensor) -> Evaluation:
        """See :meth:`Distribution.evaluate`: all random steps in one pass of the field."""
        row = torch.arange(len(chain), device=chain.device)[:, None]
        moments = self.moments(field, chain[row, stochastic], stochastic)
        entropy = (moments.std.log() + _NORMAL_ENTROPY).mean((1, 2, 3))
        found = log_densities(chain[row, stochastic + 1], moments)
        return Evaluation(found.sum((1, 2, 3)), entropy, found.sum(3).mean(1), moments.velocity)


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

    def describe(self) -> dict[str, Any]:
        """See :meth:`Distribution.describe`."""
        name = "flow_sde_one_step" if self.one_step else "flow_sde"
        return {"density": name, "noise_level": self.noise_level, "num_flow_steps": self.num_steps}


class FlowCps(Density):
    """Coefficients-preserving sampling: a step ends on the path from noise to actions, with part of the noise new.

    From the actions and the noise that the velocity points to, ``x + (1 - tau) v`` and ``x - tau v``, the next state is
    put together anew as the path would: tau' times the one, and 1 - tau' times a mixture of the other with fresh noise
    whose squares sum to 1. The last step has nothing left of the noise and is not random.

    Args:
        num_steps: at least 2; see :class:`Distribution`.
        noise_level: 0 to 1, the angle of that mixture in right angles: 1 renews all of the noise.
    """

    def __init__(self, num_steps: int, noise_level: float = 0.5) -> None:
        super().__init__(num_steps)
        if num_steps < 2:
            raise InvalidConfigError(
                f"flow_cps needs at least 2 flow steps, as its last is not random; got {num_steps}."
            )
        if not 0 < noise_level <= 1:
            raise InvalidConfigError(f"The noise level of flow_cps should be above 0 and at most 1; got {noise_level}.")
        self.noise_level, self.random = noise_level, range(num_steps - 1)

    def gaussian(self, x: Tensor, velocity: Tensor, tau: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Density.gaussian`."""
        following, angle = tau + 1 / self.num_steps, self.noise_level * math.pi / 2
        actions, noise = x + (1 - tau) * velocity, x - tau * velocity
        left = 1 - following
        return following * actions + left * math.cos(angle) * noise, left * math.sin(angle)

    def describe(self) -> dict[str, Any]:
        """See :meth:`Distribution.describe`."""
        return {"density": "flow_cps", "noise_level": self.noise_level, "num_flow_steps": self.num_steps}


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

    def describe(self) -> dict[str, Any]:
        """See :meth:`Distribution.describe`."""
        return {"density": "flow_noise", "noise_bounds": list(self.bounds), "num_flow_steps": self.num_steps}


class ChunkGaussian(Distribution):
    """The plain flow's chunk plus Gaussian noise, smooth over the chunk; a chain is the first state and the chunk.

    For each of the A numbers of an action, the noise has independent coefficients in the orthonormal cosine basis
    (DCT-II) over the H actions: the first moves all of them together, the others one against another. The likelihood of
    an action is conditional on those before it: the first m of a chunk together have that of what was executed where an
    episode ends after m or the policy plans anew.

    Args:
        num_steps: see :class:`Distribution`.
        horizon, action_dim: H and A.
        noise: standard deviation of the first coefficient and of each other, in normalised actions, whose range is -1
            to 1.
        rotation_noise: factor for the three rotations.
    """

    length, random = 1, (0,)

    def __init__(
        self,
        num_steps: int,
        horizon: int = 4,
        action_dim: int = 7,
        noise: tuple[float, float] = (0.12, 0.04),
        rotation_noise: float = 0.3,
    ) -> None:
        super().__init__(num_steps)
        if not (min(noise) > 0 and rotation_noise > 0):
            raise InvalidConfigError(
                f"The noise on a chunk should be above 0; got {list(noise)} and {rotation_noise} for rotations."
            )
        self.noise, self.rotation_noise = (float(noise[0]), float(noise[1])), float(rotation_noise)
        std = torch.tensor([noise[0], *[noise[1]] * (horizon - 1)], dtype=torch.float64)
        spread = std[:, None] * cosine_basis(horizon)
        scale = torch.ones(action_dim, dtype=torch.float64)
        scale[_ROTATIONS] = rotation_noise
        # Cholesky: the noise of an action from the numbers drawn for it and for those before; always fp64, on the CPU.
        self.factor = torch.linalg.cholesky(spread.T @ spread) * scale[:, None, None]

    def mean(self, field: Field, x: Tensor) -> Tensor:
        """The end of the plain flow from first states ``[B, H, A]``."""
        for step in range(self.num_steps):
            t = torch.full((len(x), 1), step / self.num_steps, dtype=x.dtype, device=x.device)
            x = x + field(x[:, None], t)[0][:, 0] / self.num_steps
        return x

    def sample(self, field: Field, draws: Draws) -> tuple[Tensor, Tensor]:
        """See :meth:`Distribution.sample`."""
        first = draws.noise * self.initial_noise
        mean, factor = self.mean(field, first).double(), self.factor.to(first.device)
        chunk = (mean + torch.einsum("aij,bja->bia", factor, draws.steps[:, 0].double())).to(first.dtype)
        return torch.stack([first, chunk], 1), self.action_log_probs(chunk, mean).sum(1)

    def evaluate(self, field: Field, chain: Tensor, stochastic: Tensor) -> Evaluation:
        """See :meth:`Distribution.evaluate`."""
        mean = self.mean(field, chain[:, 0])
        actions = self.action_log_probs(chain[:, 1], mean.double())
        entropy = (self._stds.log() + _NORMAL_ENTROPY).mean().to(mean.device).expand(len(chain))
        return Evaluation(actions.sum(1), entropy, actions, mean)

    def action_log_probs(self, chunk: Tensor, mean: Tensor) -> Tensor:
        """Log-probability of each action given those before it, float64: chunks ``[B, H, A]`` -> ``[B, H]``."""
        away, factor = (chunk.double() - mean).permute(2, 1, 0), self.factor.to(mean.device)
        z: Tensor = torch.linalg.solve_triangular(factor, away, upper=False).permute(2, 1, 0)
        return -(0.5 * z.square() + self._stds.T.to(mean.device).log() + _HALF_LOG_TAU).sum(2)

    @property
    def _stds(self) -> Tensor:
        """Standard deviation of each number given those of the actions before it, ``[A, H]``."""
        return torch.diagonal(self.factor, dim1=1, dim2=2)

    def describe(self) -> dict[str, Any]:
        """See :meth:`Distribution.describe`."""
        told = {"chunk_noise": list(self.noise), "rotation_noise": self.rotation_noise}
        return {"density": "chunk_gaussian", **told, "num_flow_steps": self.num_steps}


def cosine_basis(size: int) -> Tensor:
    """The orthonormal DCT-II, float64 ``[size, size]``, a basis vector per row; the first is constant."""
    place = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(math.pi / size * (place + 0.5) * place[:, None]) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis


def log_densities(state: Tensor, moments: Moments) -> Tensor:
    """Log-probability of each number of next states, float64 ``[B, S, H, A]``."""
    z = (state.double() - moments.mean) / moments.std
    return -(0.5 * z.square() + moments.std.log() + _HALF_LOG_TAU)


def make_density(
    name: str,
    num_steps: int,
    *,
    width: int,
    action_dim: int,
    horizon: int = 4,
    noise_level: float = 0.5,
    noise_bounds: tuple[float, float] = (0.05, 0.2),
    chunk_noise: tuple[float, float] = (0.12, 0.04),
    rotation_noise: float = 0.3,
    initial_noise: float = 1.0,
    seed: int = 0,
) -> Distribution:
    """A density by name: one of :data:`vlaser_gym.registry.DENSITIES`, or one of somebody's own.

    Raises:
        UnknownNameError: for another name.
        InvalidConfigError: for an import string that does not import, or stands for no density.
    """
    makers: dict[str, Callable[[], Any]] = {
        "flow_noise": lambda: FlowNoise(num_steps, width, action_dim, noise_bounds, seed=seed),
        "flow_sde": lambda: FlowSde(num_steps, noise_level),
        "flow_sde_one_step": lambda: FlowSde(num_steps, noise_level, one_step=True),
        "flow_cps": lambda: FlowCps(num_steps, noise_level),
        "chunk_gaussian": lambda: ChunkGaussian(num_steps, horizon, action_dim, chunk_noise, rotation_noise),
    }
    given = {
        "width": width,
        "action_dim": action_dim,
        "horizon": horizon,
        "noise_level": noise_level,
        "noise_bounds": noise_bounds,
        "seed": seed,
    }
    if name in makers:
        density = makers[name]()
    else:
        make = DENSITIES.find(name)
        taken = inspect.signature(make).parameters
        density = make(num_steps, **{key: value for key, value in given.items() if key in taken})
    if not isinstance(density, Distribution):
        raise InvalidConfigError(
            f"algo.density={name} should give a {Density.__module__}.Density; got {type(density).__name__}."
        )
    density.initial_noise = initial_noise
    return density
