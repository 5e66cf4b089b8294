"""A Vlaser policy that acts with noise in its flow, so that the likelihood of what it does is known.

Learners that weigh trajectories by their likelihood need chains that were drawn from a density: along the plain flow
nothing is random but the first state, and the gradient of a likelihood there says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlaser_gym.agents.vlaser.agent import VlaserAgent, choose_device, choose_dtype, open_policy
from vlaser_gym.agents.vlaser.densities import Density, Draws, FlowSde
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import Inputs, Processor
from vlaser_gym.errors import UnknownNameError
from vlaser_gym.settings.algorithms import EXPLORATIONS

Lanes = NDArray[np.int64]


class ExploringAgent(VlaserAgent):
    """:class:`VlaserAgent` whose chunks are the ends of random chains.

    What :meth:`decided` gives has two more entries: ``chain`` ``[K + 1, H, A]``, not clamped, and ``stochastic``
    ``[S]``, its random steps. As before, everything random follows from the episode's address.

    Args:
        policy, processor, micro_batch, source: see :class:`VlaserAgent`.
        density: of the flow.
    """

    def __init__(
        self, policy: VlaserPolicy, processor: Processor, density: Density, *, micro_batch: int = 8, source: str = ""
    ) -> None:
        super().__init__(
            policy,
            processor,
            num_flow_steps=density.num_steps,
            micro_batch=micro_batch,
            compile=False,
            source=source,
            density=density,
        )
        self.density = density

    def _choose(self, inputs: Inputs, lanes: Lanes) -> dict[str, Tensor]:
        """See :meth:`VlaserAgent._choose`."""
        draws = self._draws(lanes)
        chain = self.decide.chains(*inputs, draws)["chain"]
        return {"noise": draws.noise, "chunk": chain[:, -1], "chain": chain, "stochastic": draws.stochastic}

    def _draws(self, lanes: Sequence[int] | Lanes) -> Draws:
        """Random numbers of the lanes' next decision."""
        config, count = self.policy.config, self.density.num_steps
        shape = (count + 1, config.horizon, config.action_dim)
        numbers, random = [], []
        for lane in lanes:
            generator = self._noise[int(lane)]
            numbers.append(generator.standard_normal(shape, dtype=np.float32))
            random.append(generator.integers(count, size=1) if self.density.one_step else np.arange(count))
        drawn = torch.from_numpy(np.stack(numbers))
        return Draws(drawn[:, 0], drawn[:, 1:], torch.from_numpy(np.stack(random)))

    def describe(self) -> dict[str, Any]:
        """See :meth:`VlaserAgent.describe`."""
        return {**super().describe(), **describe_density(self.density)}


def describe_density(density: Density) -> dict[str, Any]:
    """Name, noise and steps of a density, as runs keep them."""
    assert isinstance(density, FlowSde)
    name = EXPLORATIONS[int(density.one_step)]
    return {"density": name, "noise_level": density.noise_level, "num_flow_steps": density.num_steps}


def make_exploration(name: str, num_steps: int, noise_level: float) -> Density:
    """A density by name: ``"flow_sde"`` or ``"flow_sde_one_step"``.

    Raises:
        UnknownNameError: for another name.
    """
    if name not in EXPLORATIONS:
        raise UnknownNameError("density of exploration", name, EXPLORATIONS)
    return FlowSde(num_steps, noise_level, one_step=name == "flow_sde_one_step")


def load_exploring_agent(
    checkpoint: str = "nano",
    *,
    density: str = "flow_sde",
    noise_level: float = 0.5,
    num_flow_steps: int | None = None,
    micro_batch: int = 8,
    device: str | None = None,
    dtype: str = "float32",
) -> ExploringAgent:
    """An exploring agent from a checkpoint.

    Args:
        checkpoint: folder of a policy, or ``"nano"`` for the one that comes with the package.
        density: ``"flow_sde"`` or ``"flow_sde_one_step"``.
        noise_level: see :class:`~vlaser_gym.agents.vlaser.densities.FlowSde`.
        num_flow_steps: Euler steps of the flow; by default the policy's.
        micro_batch: rows of every forward pass.
        device: by default the GPU where there is one.
        dtype: of the weights, ``"float32"`` or ``"bfloat16"``.
    """
    policy, processor = open_policy(checkpoint, device=choose_device(device), dtype=choose_dtype(dtype))
    chosen = make_exploration(density, num_flow_steps or policy.config.num_flow_steps, noise_level)
    return ExploringAgent(policy, processor, chosen, micro_batch=micro_batch, source=checkpoint)
