"""Speed of training and inference: ``python -m vlaser_gym.bench training=[vlaser_2b] environments=false``.

Random weights of the policy's shapes: steps of fine-tuning by a batch that is made once, an iteration of PPO in the
real environments, decisions. On a GPU the most memory in use stands beside what :mod:`vlaser_gym.training.memory`
computes for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from rich import box
from rich.table import Table
from torch import nn

from vlaser_gym.agents.vlaser import benchmark as deciding
from vlaser_gym.agents.vlaser.agent import choose_device
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.tokenizer import ByteTokenizer
from vlaser_gym.training import benchmark as acting
from vlaser_gym.training.memory import (
    CASES,
    GB,
    Case,
    accounts,
    make_agent,
    make_batch,
    materialise,
    policy_config,
    recomputed,
    run_passes,
)
from vlaser_gym.training.optimizers import make_optimizer
from vlaser_gym.training.trainer import trained

#: What is timed of fine-tuning.
FINE_TUNED = ("SFT", "SFT, bf16 weights", "LoRA SFT, bf16 weights")
#: Rows of the decisions that are timed.
BATCHES = (1, 8, 64)
_REPEATS = {"cuda": 5, "cpu": 2}


@dataclass(frozen=True)
class Timing:
    """One row of the table.

    Attributes:
        what: is timed.
        rows: decisions in it.
        seconds: it takes, median.
        memory: most device memory in use (bytes), 0 on a CPU.
        expected: what the arithmetic says of it (bytes), 0 where it says nothing.
    """

    what: str
    rows: int
    seconds: float
    memory: int = 0
    expected: float = 0.0


def time_training(name: str, device: str | None = None, batches: Sequence[int] = BATCHES) -> list[Timing]:
    """Everything that is timed of one policy.

    Args:
        name: see :func:`~vlaser_gym.training.memory.policy_config`.
        device: ``"cpu"`` or ``"cuda"``; ``None``: cuda where there is one.
        batches: rows of the decisions.
    """
    config, where = policy_config(name), choose_device(device)
    on_gpu = where.startswith("cuda")
    cases = [recomputed(case) for case in CASES if case.name in FINE_TUNED]
    smaller = [case if on_gpu else replace(case, rows=2, precision="float32") for case in cases]
    timings = [time_fine_tuning(config, case, where) for case in smaller]
    timings += [time_iteration(config, way, where) for way in acting.TRAINED]
    # Compiling takes minutes: the first row of every size alone.
    decisions = deciding.measure(
        readable(config),
        batches,
        ways=("cached",),
        device=where,
        dtype=torch.bfloat16 if on_gpu else torch.float32,
        repeats=_REPEATS[where.partition(":")[0]],
    )
    return timings + [Timing(f"decision, batch {row.batch}", row.batch, row.latency, row.memory) for row in decisions]


def time_fine_tuning(config: VlaserConfig, case: Case, device: str) -> Timing:
    """A step of fine-tuning with one part per step."""
    expected = accounts(config, case)[0].total
    agent = make_agent(config, case)
    materialise(agent, device)
    with torch.device(device):
        inputs, draws, kept = make_batch(agent, case)
    optimizer = make_optimizer(case.optimizer, [{"params": trained(agent)}], lr=1e-6)

    def step() -> None:
        run_passes(agent, case, inputs, draws, kept)
        nn.utils.clip_grad_norm_(trained(agent), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    seconds, memory = _timed(step, device)
    return Timing(f"{case.name}, step", case.rows, seconds, memory, expected)


def time_iteration(config: VlaserConfig, way: str, device: str) -> Timing:
    """An iteration of PPO: a rollout in the environments, and one epoch on it."""
    on_gpu = device.startswith("cuda")
    sizes: dict[str, Any] = (
        {"lanes": 8, "n_steps": 8, "micro_batch": 16} if on_gpu else {"lanes": 2, "n_steps": 1, "micro_batch": 2}
    )
    precision = "bfloat16" if on_gpu else "float32"
    options = acting.Options(device=device, epochs=1, precision=precision, **sizes)
    kept = "kept" if "language" in acting.TRAINED[way][0] else "recomputed"
    found = acting.measure(options, readable(config), way, kept)
    count = options.lanes * options.n_steps
    return Timing(f"PPO ({way}), iteration of one epoch", count, count / found.rate + found.epoch, found.memory)


def readable(config: VlaserConfig) -> VlaserConfig:
    """The same with the tokens of the tokenizer that needs no files."""
    return config.replace(image_token_id=ByteTokenizer.image_id, pad_id=ByteTokenizer.pad_id)


def _timed(step: Callable[[], None], device: str) -> tuple[float, int]:
    """Median seconds of a call, after a first one, and the most memory in use."""
    on_gpu = device.startswith("cuda")
    step()
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(_REPEATS["cuda" if on_gpu else "cpu"]):
        begun = time.perf_counter()
        step()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return median(seconds), torch.cuda.max_memory_allocated() if on_gpu else 0


def tabulate(name: str, timings: Sequence[Timing]) -> Table:
    """Seconds, decisions per second, and memory beside what was expected of it."""
    headings = ("what", "rows", "seconds", "rows / s", "peak (GB)", "computed (GB)")
    table = Table(*headings, title=f"{name}, random weights", box=box.ASCII)
    for row in timings:
        memory, expected = (f"{value / GB:.2f}" if value else "-" for value in (row.memory, row.expected))
        rate = f"{row.rows / row.seconds:.2f}"
        table.add_row(row.what, str(row.rows), f"{row.seconds:.3f}", rate, memory, expected)
    return table
