"""Benchmark of serving: ``python -m vlaser_gym.agents.vlaser.serving_benchmark [policy=vlaser_2b/2 ...]``.

Random weights; one process, measured in turns: forward passes of one row and of eight (images, text and flow, nothing
else), and decisions of clients that ask ``serve``'s server over its socket, resizing, transport and decoding of actions
included. Of all repeats the shortest counts: whatever else runs on the machine only adds to it. On a busy CPU even that
is too long; there, with one thread, the process's own time says what a decision takes.

Keys: ``policy`` (a preset, and behind a slash how many layers are kept of vision and language), ``device``, ``dtype``,
``compile``, ``passes=[1,8]``, ``clients=[1,8]``, ``repeats``.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.table import Table

from vlaser_gym.agents.remote import RemoteAgent
from vlaser_gym.agents.server import PolicyServer
from vlaser_gym.agents.vlaser import benchmark
from vlaser_gym.agents.vlaser.agent import VlaserAgent, choose_device, choose_dtype
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.inference import PolicyEngine
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import SHORT_TEMPLATE, Processor
from vlaser_gym.agents.vlaser.tokenizer import ByteTokenizer
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import GymError, InvalidConfigError

Seconds = tuple[float, float]
_PICTURE = (480, 640, 3)


@dataclass
class Options:
    """Keys of the command; see the module's text."""

    policy: str = "vlaser_2b/2"
    device: str = "cpu"
    dtype: str = "float32"
    compile: bool | None = None
    passes: list[int] = field(default_factory=lambda: [1, 8])
    clients: list[int] = field(default_factory=lambda: [1, 8])
    repeats: int = 9


@dataclass(frozen=True)
class ServingTiming:
    """Seconds by the clock on the wall, and by the process's own: ``(wall, own)``.

    Attributes:
        policy: as in :class:`Options`.
        passes: a forward pass, by its rows; there is one of 1 row.
        rounds: by number of clients, from all of them asking to all being answered; there is one of 1.
    """

    policy: str
    passes: dict[int, Seconds]
    rounds: dict[int, Seconds]

    def ratios(self, seconds: Seconds) -> Seconds:
        """The duration in forward passes of one row, by each clock."""
        return seconds[0] / self.passes[1][0], seconds[1] / self.passes[1][1]

    def as_dict(self) -> dict[str, Any]:
        """Dictionary for JSON."""
        found = {"passes_s": self.passes, "clients_s": self.rounds}
        told = {name: {str(count): seconds for count, seconds in of.items()} for name, of in found.items()}
        return {"policy": self.policy, **told, "one_client_over_pass": self.ratios(self.rounds[1])}


def served_config(policy: str) -> VlaserConfig:
    """A preset's widths with all of its layers, or as many as the name says, and a vocabulary of bytes.

    Example:
        >>> config = served_config("vlaser_2b/2")
        >>> config.width, config.layers, config.vision_layers
        (1536, 2, 2)
    """
    name, slash, layers = policy.partition("/")
    if slash and not (layers.isdigit() and int(layers)):
        raise InvalidConfigError(f"policy reads PRESET or PRESET/LAYERS, such as vlaser_2b/2; got {policy!r}.")
    changes: dict[str, Any] = {"layers": int(layers), "vision_layers": int(layers)} if slash else {}
    tokens = {"vocab_size": 512, "image_token_id": ByteTokenizer.image_id, "pad_id": ByteTokenizer.pad_id}
    return VlaserConfig.preset(name, **{**tokens, **changes})


def measure(options: Options) -> ServingTiming:
    """Forward passes and rounds of clients in turns, so that whatever else runs on the machine slows all alike."""
    passes, counts = sorted({1, *options.passes}), sorted({1, *options.clients})
    config = served_config(options.policy)
    policy = VlaserPolicy.initialise(config, dtype=choose_dtype(options.dtype), device=options.device)
    processor = Processor.build(config, ByteTokenizer(), template=SHORT_TEMPLATE)
    agent = VlaserAgent(policy, processor, compile=options.compile)
    inputs = rows_of_a_pass(agent, passes[-1])
    engines = {rows: PolicyEngine(policy, (rows,), compile=options.compile) for rows in passes}
    ways: dict[Any, Callable[[], Any]] = {
        ("pass", rows): partial(engine, *(tensor[:rows] for tensor in inputs)) for rows, engine in engines.items()
    }
    with served(agent) as url:
        clients = {count: Clients(url, count) for count in counts}
        ways |= {("clients", count): asking.ask for count, asking in clients.items()}
        seconds = in_turns(ways, options.repeats)
        for asking in clients.values():
            asking.agent.close()
    found = {kind: {count: taken for (of, count), taken in seconds.items() if of == kind} for kind, _ in ways}
    return ServingTiming(options.policy, found["pass"], found["clients"])


def in_turns(ways: dict[Any, Callable[[], Any]], repeats: int) -> dict[Any, Seconds]:
    """Shortest seconds of each way by both clocks; the first round, which compiles and records, does not count."""
    seconds: dict[Any, list[Seconds]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, run in ways.items():
            wall, own = time.perf_counter(), time.process_time()
            run()
            seconds[name].append((time.perf_counter() - wall, time.process_time() - own))
    return {name: (min(w for w, _ in taken[1:]), min(o for _, o in taken[1:])) for name, taken in seconds.items()}


def observations(count: int) -> dict[str, Any]:
    """Images of noise, a pose and an instruction for so many environments."""
    pictures = np.random.default_rng(0).integers(0, 256, (count, *_PICTURE), np.uint8)
    pose = np.tile(np.array([0.3, 0, 0.1, 1, 0, 0, 0, 0.5], np.float32), (count, 1))
    return {"image": pictures, "proprio": pose, "instruction": ("stack the green block on the yellow block",) * count}


def rows_of_a_pass(agent: VlaserAgent, count: int) -> tuple[torch.Tensor, ...]:
    """The inputs of a forward pass from :func:`observations`, with noise; on the policy's device."""
    inputs = agent.processor.tensors(agent.processor.transform(observations(count)), agent.policy.device)
    shape = (count, agent.policy.config.horizon, agent.policy.config.action_dim)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return (*inputs, noise)


class Clients:
    """So many clients, who ask at the same time."""

    def __init__(self, url: str, count: int) -> None:
        self.agent, self.lanes, self.seen = RemoteAgent(url), np.arange(count), observations(count)
        self.agent.reset(self.lanes, [Address("widowx_stack_cube", layout=f"grid:{lane}") for lane in self.lanes])

    def ask(self) -> None:
        """Seconds from the first question to the last answer."""
        self.agent.act(self.seen, self.lanes)


@contextmanager
def served(agent: VlaserAgent) -> Iterator[str]:
    """The agent behind a server of this process, in a thread; its URL."""
    loop, ports, ready = asyncio.new_event_loop(), [], threading.Event()
    server = PolicyServer(agent, "benchmark", timeout=3600.0)

    def started(port: int) -> None:
        ports.append(port)
        ready.set()

    async def work() -> None:
        try:
            await server.run("127.0.0.1", 0, started)
        except asyncio.CancelledError:
            return

    task = loop.create_task(work())
    thread = threading.Thread(target=lambda: loop.run_until_complete(task), daemon=True)
    thread.start()
    if not ready.wait(30):
        raise GymError("The server of this benchmark did not start within 30 s; is 127.0.0.1 there?")
    try:
        yield f"ws://127.0.0.1:{ports[0]}"
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(30)
        loop.close()


def table(timings: Sequence[ServingTiming], title: str) -> Table:
    """Milliseconds by both clocks, and how many forward passes of one row that is."""
    out = Table("policy", "what", "ms", "passes of 1", "own ms", "own passes of 1", title=title)
    for row in timings:
        clients = {f"{n} client{'s' * (n > 1)}, served": seconds for n, seconds in row.rounds.items()}
        for what, seconds in {**{f"pass of {n}": taken for n, taken in row.passes.items()}, **clients}.items():
            (wall, own), (times, own_times) = seconds, row.ratios(seconds)
            out.add_row(row.policy, what, f"{wall * 1e3:.1f}", f"{times:.2f}", f"{own * 1e3:.1f}", f"{own_times:.2f}")
    return out


def check_policies(policies: Sequence[str], device: str | None) -> None:
    """Raise :class:`InvalidConfigError` for what :func:`time_policy` cannot time."""
    choose_device(device)
    for policy in policies:
        served_config(policy)


def time_policy(policy: str, device: str | None, say: Callable[[Table], None]) -> dict[str, Any]:
    """Decisions by themselves, in the ways that the device knows, and of clients that are served."""
    chosen = choose_device(device)
    on_gpu = chosen.startswith("cuda")
    dtype, batches = ("bfloat16", (1, 8, 64)) if on_gpu else ("float32", (1, 8))
    ways = ("cached", "recorded", "chains", "compiled") if on_gpu else ("cached", "chains")
    config, repeats = served_config(policy), 10 if on_gpu else 3
    decisions = benchmark.measure(config, batches, ways=ways, device=chosen, dtype=choose_dtype(dtype), repeats=repeats)
    say(benchmark.table(decisions, f"{policy}, {dtype}, {chosen}"))
    serving = measure(Options(policy, chosen, dtype, repeats=repeats))
    say(table([serving], f"{policy} served, {dtype}, {chosen}"))
    return {"decisions": [asdict(row) for row in decisions], "serving": serving.as_dict()}


def main(arguments: Sequence[str]) -> None:
    """The command."""
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Options), OmegaConf.from_cli(list(arguments)))
        options: Any = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise InvalidConfigError(f"{str(error).splitlines()[0]} The keys are in this module's text.") from error
    threads = torch.get_num_threads()
    where = "GPU" if options.device.startswith("cuda") else f"CPU, {threads} thread{'s' * (threads > 1)}"
    Console().print(table([measure(options)], f"serving, {options.dtype}, {where}"))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except GymError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(2)
