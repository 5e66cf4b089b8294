"""Inference benchmark on a GPU: ``python -m vlaser_gym.agents.vlaser.benchmark [preset=vlaser_2b ...]``.

Ways of the same computation, random weights: ``plain`` (every flow step runs all tokens through both experts; image and
text are embedded once), ``cached`` (the prefix is encoded once), ``recorded`` (that, replayed as a CUDA graph of its
size), ``chains`` (recorded, drawn from a density with its likelihood, as rollouts do), ``compiled`` (recorded, with
compiled layers). On a CPU nothing is recorded. Keys: ``preset``, ``batches=[1,8,32,64]``, ``ways=[plain,cached,...]``,
``device``, ``dtype``, ``repeats``.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from torch import Tensor

from vlaser_gym.agents.vlaser import flow
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.densities import FlowSde
from vlaser_gym.agents.vlaser.inference import Inputs, PolicyEngine, to_device
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.errors import GymError, InvalidConfigError, UnknownNameError

WAYS = ("plain", "cached", "recorded", "chains", "compiled")


@dataclass(frozen=True)
class Timing:
    """One row of the table.

    Attributes:
        batch: rows decided together.
        way: one of :data:`WAYS`.
        latency: median seconds of a decision for the batch.
        memory: most device memory in use (bytes), 0 on a CPU.
    """

    batch: int
    way: str
    latency: float
    memory: int

    @property
    def rate(self) -> float:
        """Decisions (rows) per second."""
        return self.batch / self.latency


def random_inputs(config: VlaserConfig, batch: int, seed: int = 0) -> Inputs:
    """Pixels, prompts with about 20 text tokens, proprioception and noise."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(batch, 3, config.image_size, config.image_size, generator=generator)
    ids = torch.full((batch, config.max_length), config.pad_id)
    ids[:, : config.num_image_tokens] = config.image_token_id
    ids[:, config.num_image_tokens : config.num_image_tokens + 20] = torch.arange(20)
    proprio = torch.rand(batch, config.proprio_dim, generator=generator) * 2 - 1
    return pixels, ids, proprio, torch.randn(batch, config.horizon, config.action_dim, generator=generator)


@torch.inference_mode()
def decide_plainly(policy: VlaserPolicy, inputs: Inputs, num_steps: int) -> Tensor:
    """The policy's decision without prefix cache; not clamped."""
    pixel_values, input_ids, proprio, noise = inputs
    embedded = policy.embed(pixel_values, input_ids)
    lengths = (input_ids != policy.config.pad_id).sum(1)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        """The flow's velocity ``[B, H, A]`` at states ``x [B, H, A]`` and times ``t [B]``."""
        return policy.velocity_of_embedded(embedded, lengths, proprio, x, t)

    return flow.integrate(velocity, noise, num_steps)[-1]


def measure(
    config: VlaserConfig,
    batches: Sequence[int] = (1, 8, 32, 64),
    *,
    ways: Sequence[str] = WAYS,
    device: str = "cuda",
    dtype: torch.dtype = torch.bfloat16,
    repeats: int = 10,
) -> list[Timing]:
    """Time decisions with random weights.

    Raises:
        InvalidConfigError: if the device is a GPU and there is none.
        UnknownNameError: for another way.
    """
    for way in ways:
        if way not in WAYS:
            raise UnknownNameError("way to run the policy", way, WAYS)
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InvalidConfigError("This benchmark needs a CUDA GPU; torch finds none. device=cpu times small presets.")
    policy = VlaserPolicy.initialise(config, dtype=dtype, device=device)
    # Compiled layers cannot be uncompiled: that way comes last.
    ordered = sorted(ways, key=WAYS.index)
    return [_time(policy, batch, way, repeats) for way in ordered for batch in batches]


def _time(policy: VlaserPolicy, batch: int, way: str, repeats: int) -> Timing:
    host = random_inputs(policy.config, batch)
    steps = policy.config.num_flow_steps
    run: Callable[[], Tensor]
    if way == "plain":
        inputs = to_device(host, policy.device)

        def run() -> Tensor:
            return decide_plainly(policy, inputs, steps).cpu()
    else:
        density = FlowSde(steps).to(policy.device)
        draws = density.draw(batch, policy.config.horizon, policy.config.action_dim, torch.Generator().manual_seed(0))
        engine = PolicyEngine(
            policy, (batch,), steps, density=density, compile=way == "compiled", record=way != "cached"
        )

        def run() -> Tensor:
            return engine.chains(*host[:3], draws)["chain"] if way == "chains" else engine(*host)

    on_gpu = policy.device.type == "cuda"
    for _ in range(2):
        run()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()  # ends with a copy to the host, which waits for the device
        seconds.append(time.perf_counter() - start)
    return Timing(batch, way, statistics.median(seconds), torch.cuda.max_memory_allocated() if on_gpu else 0)


def table(timings: Sequence[Timing], title: str) -> Table:
    """Latency, decisions per second, and how many times faster than the plain way."""
    plain = {timing.batch: timing.latency for timing in timings if timing.way == "plain"}
    out = Table("batch", "way", "latency (ms)", "decisions/s", "times plain", "memory (GB)", title=title)
    for row in timings:
        speedup = f"{plain[row.batch] / row.latency:.2f}" if row.batch in plain else "-"
        memory = f"{row.memory / 1e9:.1f}" if row.memory else "-"
        out.add_row(str(row.batch), row.way, f"{row.latency * 1e3:.1f}", f"{row.rate:.1f}", speedup, memory)
    return out


def main(arguments: Sequence[str]) -> None:
    """The command."""
    defaults = {
        "preset": "vlaser_2b",
        "batches": [1, 8, 32, 64],
        "ways": list(WAYS),
        "device": "cuda",
        "dtype": "bfloat16",
        "repeats": 10,
    }
    given = OmegaConf.from_cli(list(arguments))
    for key in given:
        if key not in defaults:
            raise UnknownNameError("key", key, defaults)
    options = OmegaConf.merge(defaults, given)
    config = VlaserConfig.preset(options.preset)
    dtype = {"bfloat16": torch.bfloat16, "float32": torch.float32}.get(options.dtype)
    if dtype is None:
        raise UnknownNameError("dtype", options.dtype, ("bfloat16", "float32"))
    timings = measure(
        config,
        list(options.batches),
        ways=list(options.ways),
        device=options.device,
        dtype=dtype,
        repeats=options.repeats,
    )
    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else "CPU"
    Console().print(table(timings, f"{options.preset}, {options.dtype}, {name}"))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except GymError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(2)
