"""Benchmark of a PPO iteration: ``python -m vlaser_gym.training.benchmark [device=cpu ...]``.

Random weights of the 2B's shapes act and learn in the real environments: decisions per second of the rollout, seconds
per epoch of the update, most memory in use; once with the action expert trained, once with adapters (LoRA) on language
model and expert. ``device=cpu`` takes the same shapes with every width an eighth and every depth a quarter, and
compares four ways to do an epoch:

* ``kept``: keys and values of image and text kept from the rollout, all denoising steps of a chain in one pass;
* ``looped``: kept, but one pass per denoising step;
* ``recomputed``: image and text encoded again, all steps in one pass;
* ``plain``: encoded again, and one pass per step.

``measure=clipping`` tells something else: what share of the likelihood ratios PPO clips, and how far it has moved by
its own estimate, after one and after six steps of Adam on ``nano`` at PPO's default rate and batch, for every density
and level of likelihood; on one rollout of a density, of which every level starts anew.

Keys: ``measure``, ``device``, ``trained=[expert,lora]``, ``ways``, ``lanes``, ``n_steps`` (decisions per environment),
``micro_batch``, ``epochs``, ``precision``; of ``measure=clipping`` ``densities``, ``learning_rate``, ``lanes`` and
``n_steps``.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.table import Table
from torch import Tensor

from vlaser_gym.agents.vlaser.agent import nano_processor, open_policy
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.densities import Evaluation, Field, FlowSde
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.tokenizer import ByteTokenizer
from vlaser_gym.agents.vlaser.trainable import TrainableVlaser
from vlaser_gym.cli import typed
from vlaser_gym.errors import GymError, InvalidConfigError, UnknownNameError
from vlaser_gym.registry import DENSITIES
from vlaser_gym.settings.algorithms import LIKELIHOODS, PpoSettings
from vlaser_gym.settings.training import TrainSettings
from vlaser_gym.training.distributed import ProcessGroup
from vlaser_gym.training.environments import make_learning_env
from vlaser_gym.training.job import Job
from vlaser_gym.training.ppo import PPO
from vlaser_gym.training.rollout import Rollout
from vlaser_gym.training.trainer import load_weights, trained_weights

MEASURES = ("speed", "clipping")
WAYS = ("kept", "looped", "recomputed", "plain")
#: What is frozen, and the rank of adapters on the rest.
TRAINED: dict[str, tuple[list[str], int]] = {
    "expert": (["vision", "embedding", "language"], 0),
    "lora": (["vision", "embedding"], 16),
}
_TASK = "widowx_carrot_on_plate"
_MOVED = ("clip_fraction", "approx_kl")


@dataclass
class Options:
    """Keys of the command; see the module's text."""

    measure: str = "speed"
    device: str = "cuda"
    trained: list[str] = field(default_factory=lambda: list(TRAINED))
    ways: list[str] = field(default_factory=list)
    lanes: int = 8
    n_steps: int = 16
    micro_batch: int = 16
    epochs: int = 3
    precision: str = "bfloat16"
    densities: list[str] = field(default_factory=lambda: list(DENSITIES))
    learning_rate: float = PpoSettings().learning_rate

    def __post_init__(self) -> None:
        for names, valid in ((self.trained, TRAINED), (self.ways, WAYS), ([self.measure], MEASURES)):
            for name in names:
                if name not in valid:
                    raise UnknownNameError("part, way or measure", name, valid)
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise InvalidConfigError(
                "This benchmark needs a CUDA GPU and torch finds none: device=cpu times smaller shapes of the same "
                "proportions."
            )


@dataclass(frozen=True)
class Timing:
    """Times of one iteration.

    Attributes:
        trained: one of :data:`TRAINED`.
        way: one of :data:`WAYS`.
        rate: decisions per second of the rollout, simulation and images included.
        epoch: seconds of the fastest epoch; on a CPU the process's own (of one thread), which others do not slow down.
        memory: most device memory in use (bytes), 0 on a CPU.
        prefix: kept bytes per decision, 0 if none were.
    """

    trained: str
    way: str
    rate: float
    epoch: float
    memory: int
    prefix: int


class SteppedSde(FlowSde):
    """Judges the steps of a chain one after another, as sampling does."""

    def evaluate(self, field: Field, chain: Tensor, stochastic: Tensor) -> Evaluation:
        """See :meth:`Density.evaluate`."""
        one_by_one = (stochastic[:, k : k + 1] for k in range(stochastic.shape[1]))
        parts = [super(SteppedSde, self).evaluate(field, chain, step) for step in one_by_one]
        entropy, actions = (
            torch.stack([getattr(part, name) for part in parts]).mean(0) for name in ("entropy", "actions")
        )
        location = torch.cat([part.location for part in parts], 1)
        return Evaluation(torch.stack([part.log_prob for part in parts]).sum(0), entropy, actions, location)


class TimedPPO(PPO):
    """One iteration of :class:`PPO` with a stopwatch, without files."""

    def run_once(self) -> None:
        """Roll out and update once."""
        begun = time.perf_counter()
        rollout = self.collect()
        self.rollout_seconds = time.perf_counter() - begun
        self.estimate(rollout)
        self.time_epochs(rollout)

    def time_epochs(self, rollout: Rollout) -> None:
        """Time the update epochs without a rollout."""
        self.set_learning_rates()
        on_gpu = self.agent.device.type == "cuda"
        self.epoch_seconds = []
        clock: Callable[[], float] = time.perf_counter if on_gpu else time.process_time
        begun = clock()
        for updates, rows in enumerate(self.minibatches(rollout), 1):
            self.take_step(self.accumulate(rollout, rows))
            if updates * self.settings.batch_size % rollout.dones.size == 0:
                if on_gpu:
                    torch.cuda.synchronize()
                self.epoch_seconds.append(clock() - begun)
                begun = clock()


def shapes(device: str) -> VlaserConfig:
    """The 2B's shapes, on a CPU with every width an eighth and every depth a quarter; a vocabulary of bytes."""
    full = VlaserConfig.preset("vlaser_2b", image_token_id=ByteTokenizer.image_id, pad_id=ByteTokenizer.pad_id)
    if device.startswith("cuda"):
        return full
    widths = ("vision_width", "vision_mlp", "width", "head_dim", "mlp_width", "expert_width", "expert_mlp")
    smaller = {name: getattr(full, name) // 8 for name in widths}
    return full.replace(**smaller, vision_layers=full.vision_layers // 4, layers=full.layers // 4, vocab_size=512)


def prefix_bytes(config: VlaserConfig, bytes_per_number: int) -> int:
    """Memory of one decision's keys and values."""
    return 2 * config.layers * config.kv_heads * config.head_dim * config.max_length * bytes_per_number


def measure(options: Options, config: VlaserConfig, trained: str, way: str) -> Timing:
    """Time an iteration."""
    freeze, rank = TRAINED[trained]
    settings = PpoSettings(
        n_steps=options.n_steps,
        batch_size=options.n_steps * options.lanes,
        micro_batch=options.micro_batch,
        epochs=options.epochs,
        critic_warmup=0,
        target_kl=None,
        freeze=freeze,
        lora=rank,
        density="flow_sde",
        cache_mb=8192 if way in ("kept", "looped") else 0,
        precision=options.precision,
    )
    policy = VlaserPolicy.initialise(config, device=options.device)
    density = (SteppedSde if way in ("looped", "plain") else FlowSde)(config.num_flow_steps, settings.noise_level)
    agent = TrainableVlaser(policy, nano_processor(config), density)
    env = make_learning_env([_TASK], options.lanes, agent, settings)
    on_gpu = options.device.startswith("cuda")
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    try:
        with tempfile.TemporaryDirectory() as folder:
            learner = TimedPPO(agent, env, settings, folder)
            learner.run_once()
    finally:
        env.close()
    return Timing(
        trained,
        way,
        options.n_steps * options.lanes / learner.rollout_seconds,
        min(learner.epoch_seconds),
        torch.cuda.max_memory_allocated() if on_gpu else 0,
        learner.cache.bytes_per_decision,
    )


@dataclass(frozen=True)
class Movement:
    """The distance that some steps of Adam moved a policy.

    Attributes:
        density, level: of the likelihood.
        steps: how many.
        clipped: share of the ratios that are beyond the clip range.
        divergence: PPO's estimate (nat), of what the level says.
    """

    density: str
    level: str
    steps: int
    clipped: float
    divergence: float


def measure_clipping(density: str, levels: Sequence[str], options: Options, folder: str) -> list[Movement]:
    """Take PPO's default steps on one rollout of ``nano``, once for each level of likelihood."""
    settings = PpoSettings(density=density, n_steps=options.n_steps, critic_warmup=0, warmup=0, target_kl=None)
    settings.learning_rate = options.learning_rate
    agent = Job(TrainSettings(), settings, "nano", Path(folder), ProcessGroup()).vlaser(*open_policy("nano"))
    env = make_learning_env([_TASK], options.lanes, agent, settings)
    try:
        learner = PPO(agent, env, settings, folder)
        rollout = learner.collect()
    finally:
        env.close()
    learner.estimate(rollout)
    learner.recompute_log_probs(rollout)
    start, found = {name: value.clone() for name, value in trained_weights(agent).items()}, []
    for level in levels:
        load_weights(Path(folder), trained_weights(agent), start, "")
        learner.settings = dataclasses.replace(settings, likelihood=level)
        learner.optimizer = torch.optim.AdamW(learner.actor_parameters, weight_decay=0.0)
        learner.set_learning_rates()
        for steps, rows in enumerate(learner.minibatches(rollout), 1):
            learner.take_step(learner.accumulate(rollout, rows))
            if steps in (1, 6):
                means = learner.accumulate(rollout, rollout.rows)
                found.append(Movement(density, level, steps, *(float(means[n]) for n in _MOVED)))
    return found


def clipping_table(movements: Sequence[Movement]) -> Table:
    """One row per density and level."""
    out = Table("density", "likelihood", "clipped, 1 step", "6 steps", "divergence, 1 step", "6 steps")
    rows: dict[tuple[str, str], list[Movement]] = {}
    for movement in movements:
        rows.setdefault((movement.density, movement.level), []).append(movement)
    for names, both in rows.items():
        shares, nats = [f"{100 * row.clipped:.1f} %" for row in both], [f"{row.divergence:.4f}" for row in both]
        out.add_row(*names, *shares, *nats)
    return out


def table(timings: Sequence[Timing], title: str) -> Table:
    """One row per iteration; how many times the epoch of the kept way each takes."""
    kept = {timing.trained: timing.epoch for timing in timings if timing.way == "kept"}
    out = Table("trained", "way", "rollout (decisions/s)", "epoch (s)", "times kept", "memory (GB)", title=title)
    for row in timings:
        times = f"{row.epoch / kept[row.trained]:.1f}" if row.trained in kept else "-"
        memory = f"{row.memory / 1e9:.1f}" if row.memory else "-"
        out.add_row(row.trained, row.way, f"{row.rate:.2f}", f"{row.epoch:.2f}", times, memory)
    return out


def main(arguments: Sequence[str]) -> None:
    """The command."""
    given = OmegaConf.from_cli(list(arguments))
    known = [option.name for option in dataclasses.fields(Options)]
    for key in given:
        if key not in known:
            raise UnknownNameError("key", str(key), known)
    if given.get("measure") == "clipping":
        options = typed(Options, DictConfig(OmegaConf.merge({"device": "cpu", "lanes": 16}, given)))
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as folder:
            parts = [measure_clipping(density, LIKELIHOODS, options, folder) for density in options.densities]
        Console().print(clipping_table([movement for part in parts for movement in part]))
        return
    on_cpu = str(given.get("device", "")) == "cpu"
    defaults = {"trained": ["expert"], "ways": list(WAYS), "lanes": 4, "n_steps": 2, "micro_batch": 8}
    defaults = {**defaults, "precision": "float32"} if on_cpu else {}
    options = typed(Options, DictConfig(OmegaConf.merge(defaults, given)))
    if on_cpu:
        torch.set_num_threads(1)
    config = shapes(options.device)
    timings = []
    for trained in options.trained:
        # Adapters on the language model change its keys and values: there is nothing to keep.
        ways = options.ways or ["kept" if "language" in TRAINED[trained][0] else "recomputed"]
        timings += [measure(options, config, trained, way) for way in ways]
    device = "the 2B's proportions on a CPU" if on_cpu else f"the 2B's shapes on {torch.cuda.get_device_name()}"
    console = Console()
    console.print(table(timings, f"{options.lanes * options.n_steps} decisions, {device}, {options.precision}"))
    whole = shapes("cuda")
    console.print(
        f"Keys and values of one decision: {prefix_bytes(config, 4) / 1e6:.2f} MB here in fp32; for vlaser_2b "
        f"{prefix_bytes(whole, 4) / 1e6:.1f} MB in fp32 and {prefix_bytes(whole, 2) / 1e6:.1f} MB in bf16."
    )


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (GymError, OmegaConfBaseException) as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(2)
