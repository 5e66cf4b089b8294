"""A Vlaser policy that acts with noise in its flow, so that the likelihood of what it does is known.

Learners that weigh trajectories by their likelihood need chains that were drawn from a density: along the plain flow
nothing is random but the first state, and the gradient of a likelihood there says nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlaser_gym.agents.vlaser.agent import VlaserAgent, choose_device, choose_dtype, open_policy
from vlaser_gym.agents.vlaser.densities import Distribution, Draws, make_density
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import Inputs, Processor
from vlaser_gym.agents.vlaser.shipped import default_checkpoint
from vlaser_gym.errors import UnknownNameError
from vlaser_gym.settings.algorithms import EXPLORATIONS

Lanes = NDArray[np.int64]


class ExploringAgent(VlaserAgent):
    """:class:`VlaserAgent` whose chunks are the ends of random chains.

    What :meth:`decided` gives has two more entries: ``chain`` ``[L + 1, H, A]``, not clamped, and ``stochastic``
    ``[S]``, its random steps. As before, everything random follows from the episode's address.

    Args:
        policy, processor, micro_batch, source: see :class:`VlaserAgent`.
        density: of the flow.
    """

    def __init__(
        self,
        policy: VlaserPolicy,
        processor: Processor,
        density: Distribution,
        *,
        micro_batch: int = 8,
        source: str = "",
    ) -> None:
        super().__init__(
            policy,
            processor,
            num_flow_steps=density.num_steps,
            initial_noise=density.initial_noise,
            micro_batch=micro_batch,
            compile=False,
            source=source,
            density=density,
        )
        self.density = density

    def _choose(self, inputs: Inputs, lanes: Lanes) -> dict[str, Tensor]:
        """See :meth:`VlaserAgent._choose`."""
        config, steps = self.policy.config, np.array(self.density.random)
        shape = (self.density.length + 1, config.horizon, config.action_dim)
        numbers, random = [], []
        for lane in lanes:
            generator = self._noise[int(lane)]
            numbers.append(generator.standard_normal(shape, dtype=np.float32))
            random.append(steps[generator.integers(len(steps), size=1)] if self.density.one_step else steps)
        drawn = torch.from_numpy(np.stack(numbers))
        draws = Draws(drawn[:, 0], drawn[:, 1:], torch.from_numpy(np.stack(random)))
        chain = self.decide.chains(*inputs, draws)["chain"]
        return {"noise": chain[:, 0], "chunk": chain[:, -1], "chain": chain, "stochastic": draws.stochastic}

    def describe(self) -> dict[str, Any]:
        """See :meth:`VlaserAgent.describe`."""
        return {**super().describe(), **self.density.describe()}


def make_exploration(name: str, policy: VlaserPolicy, **settings: Any) -> Distribution:
    """A density whose noise is given and not learned, for a policy.

    Args:
        name: one of :data:`~vlaser_gym.settings.algorithms.EXPLORATIONS`.
        policy: that it is of; its config says how many flow steps there are and where the flow begins, unless the
            settings do.
        settings: of :func:`~vlaser_gym.agents.vlaser.densities.make_density`, and ``num_steps``.

    Raises:
        UnknownNameError: for another name.
    """
    if name not in EXPLORATIONS:
        raise UnknownNameError("density of exploration", name, EXPLORATIONS)
    config = policy.config
    own = {"num_steps": config.num_flow_steps, "initial_noise": config.initial_noise, "horizon": config.horizon}
    given = {**own, **{key: value for key, value in settings.items() if value is not None}}
    density = make_density(name, width=config.expert_width, action_dim=config.action_dim, **given)
    return density.to(policy.device)


def load_exploring_agent(
    checkpoint: str | None = None,
    *,
    density: str = "flow_sde",
    noise_level: float = 0.5,
    chunk_noise: tuple[float, float] = (0.12, 0.04),
    rotation_noise: float = 0.3,
    initial_noise: float | None = None,
    num_flow_steps: int | None = None,
    micro_batch: int = 8,
    device: str | None = None,
    dtype: str = "float32",
) -> ExploringAgent:
    """An exploring agent from a checkpoint.

    Args:
        checkpoint: folder of a policy, or the name of one that comes with the package; by default that for WidowX.
        density: one of :data:`~vlaser_gym.settings.algorithms.EXPLORATIONS`.
        noise_level: see :class:`~vlaser_gym.agents.vlaser.densities.FlowSde` and ``FlowCps`` there.
        chunk_noise, rotation_noise: see :class:`~vlaser_gym.agents.vlaser.densities.ChunkGaussian`.
        initial_noise: standard deviation of the flow's first state, 0 to 1; by default the policy's.
        num_flow_steps: Euler steps of the flow; by default the policy's.
        micro_batch: rows of every forward pass.
        device: by default the GPU where there is one.
        dtype: of the weights, ``"float32"`` or ``"bfloat16"``.
    """
    checkpoint = checkpoint or default_checkpoint(robot=None)
    policy, processor = open_policy(checkpoint, device=choose_device(device), dtype=choose_dtype(dtype))
    chosen = make_exploration(
        density,
        policy,
        num_steps=num_flow_steps,
        noise_level=noise_level,
        chunk_noise=chunk_noise,
        rotation_noise=rotation_noise,
        initial_noise=initial_noise,
    )
    return ExploringAgent(policy, processor, chosen, micro_batch=micro_batch, source=checkpoint)
