"""Supervised fine-tuning: flow-matching behaviour cloning on demonstrations.

Everything random in a step (rows, augmentation, noise, flow times) is a function of the seed and the step's number,
drawn for the whole batch and cut into the processes' shares: a resumed run and a run on several processes take the
same steps as an uninterrupted one on a single process. Stochastic depth alone is drawn part by part.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from vlaser_gym.agents.learners.augment import Augmentation
from vlaser_gym.agents.learners.curves import Curves
from vlaser_gym.agents.learners.dataset import PLACES, Batch, Batches
from vlaser_gym.agents.learners.distributed import Workers
from vlaser_gym.agents.learners.gradients import check_finite, clip_gradients
from vlaser_gym.agents.learners.ranges import check_trained
from vlaser_gym.agents.learners.trainer_state import read_state
from vlaser_gym.agents.vlaser import flow
from vlaser_gym.agents.vlaser.adapters import merged_state_dict
from vlaser_gym.agents.vlaser.checkpoint import save_pretrained
from vlaser_gym.agents.vlaser.policy import PARTS, VlaserPolicy
from vlaser_gym.agents.vlaser.processor import Processor, normalize_pixels
from vlaser_gym.cli import check_above_zero, check_least
from vlaser_gym.errors import InvalidConfigError, UnknownNameError

STATE_FILE = "trainer.pt"
POLICY_FOLDER = "checkpoint"
PRECISIONS = ("float32", "bfloat16")
#: Whose statistics normalise: those that the policy has, or the data's.
STATISTICS = ("keep", "data")
#: Parts of the policy that the learning rate of the vision-language group is for; the rest is the expert group.
VISION_LANGUAGE = ("vision", "embedding", "language")


@dataclass
class SftSettings:
    """What ``configs/algo/sft.yaml`` holds; the comments there say what each means."""

    name: str
    steps: int
    batch_size: int
    accumulate: int
    learning_rate: float
    expert_learning_rate: float
    weight_decay: float
    betas: tuple[float, float]
    warmup: int
    final_rate: float
    clip: float
    ema: float
    flow_samples: int
    places: float
    freeze: list[str]
    augment: str
    precision: str
    statistics: str | None = None

    def __post_init__(self) -> None:
        check_least(self, prefix="algo.", steps=1, batch_size=1, accumulate=1, flow_samples=1, warmup=0)
        check_least(
            self, prefix="algo.", learning_rate=0, expert_learning_rate=0, weight_decay=0, final_rate=0, places=0
        )
        check_above_zero(self, prefix="algo.", clip=math.inf)
        check_trained(self.freeze)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise InvalidConfigError(f"algo.betas must be two numbers in [0, 1); got {list(self.betas)}.")
        if self.batch_size % self.accumulate:
            raise InvalidConfigError(
                f"algo.batch_size must be a multiple of algo.accumulate; got {self.batch_size} and {self.accumulate}."
            )
        if self.precision not in PRECISIONS:
            raise UnknownNameError("algo.precision", self.precision, PRECISIONS)
        if self.statistics not in (None, *STATISTICS):
            raise InvalidConfigError(f"algo.statistics is one of keep, data or null; got {self.statistics!r}.")
        if not 0 <= self.ema < 1:
            raise InvalidConfigError(f"algo.ema must be in [0, 1); got {self.ema}.")


class FlowLoss(nn.Module):
    """The training loss as a module, so that several processes can share its gradient.

    Attributes:
        policy: what is trained.
        places: a head on the image features that says where things are (:meth:`Demonstrations.places`); only for
            training, it is no part of the policy.
        weight: of that head's error in the loss; 0 leaves the head out.
    """

    def __init__(self, policy: VlaserPolicy, weight: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        self.policy, self.weight = policy, weight
        self._features: Tensor | None = None
        if weight:
            width = policy.config.num_image_tokens * policy.config.width
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                self.places = nn.Sequential(nn.Linear(width, 128), nn.GELU(), nn.Linear(128, PLACES))
            policy.projector.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self._features = output

    def forward(self, batch: Batch, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Losses.

        Args:
            batch: B rows.
            noise: ``[B, K, H, 7]``: K flow states per row, which share its image and text.
            t: ``[B, K]``.

        Returns:
            what to minimise, the flow's mean squared error, and that of the places.
        """
        policy = self.policy
        vision_language = policy.encode_vision_language(normalize_pixels(batch.pixels), batch.input_ids)
        actions = batch.actions[:, None].expand_as(noise)
        x = path_point(noise, actions, t, policy.config.sigma_min)
        velocity = policy.decode(policy.joint_features(vision_language, batch.proprio, x, t))
        error = (velocity - flow.target_velocity(noise, actions, policy.config.sigma_min)).square().mean()
        if not self.weight:
            return error, error.detach(), error.new_zeros(())
        assert self._features is not None
        found = self.places(self._features.flatten(1))
        misplaced = functional.mse_loss(found.float(), batch.places)
        self._features = None
        return error + self.weight * misplaced, error.detach(), misplaced.detach()


def path_point(noise: Tensor, actions: Tensor, t: Tensor, sigma_min: float) -> Tensor:
    """:func:`~vlaser_gym.agents.vlaser.flow.interpolate` for ``[B, K, H, A]`` and ``t [B, K]``."""
    flat = flow.interpolate(noise.flatten(0, 1), actions.flatten(0, 1), t.flatten(), sigma_min)
    return flat.view_as(noise)


class SupervisedFineTuning:
    """Trains a policy on batches of demonstrations.

    Args:
        policy: its weights change in place.
        processor: of the policy; stored with it.
        batches: what to train on.
        settings: see :class:`SftSettings`.
        path: run directory; a trainer state in it is continued.
        seed: of everything random.
        workers: the processes that share each batch.
        save_every: steps between two checkpoints.
        log_every: steps between two lines of numbers.
        evaluate: given the averaged policy, returns numbers for the curves; asked every ``evaluate_every`` steps and
            at the end.
        report: told each line of numbers.

    Attributes:
        step: steps taken so far.
        average: the policy with averaged weights, in evaluation mode: what is stored and evaluated.
    """

    def __init__(
        self,
        policy: VlaserPolicy,
        processor: Processor,
        batches: Batches,
        settings: SftSettings,
        path: str | Path,
        *,
        seed: int = 0,
        workers: Workers | None = None,
        save_every: int = 1000,
        log_every: int = 50,
        evaluate: Callable[[VlaserPolicy], dict[str, float]] | None = None,
        evaluate_every: int = 0,
        report: Callable[[dict[str, float]], None] = lambda row: None,
    ) -> None:
        self.processor, self.batches, self.settings, self.path, self.seed = (
            processor,
            batches,
            settings,
            Path(path),
            seed,
        )
        self.workers = workers or Workers()
        self.save_every, self.log_every = save_every, log_every
        self.evaluate, self.evaluate_every, self.report = evaluate, evaluate_every, report
        self.augmentation = Augmentation(settings.augment)
        policy.train()
        policy.freeze(*settings.freeze)
        self.module = FlowLoss(policy, settings.places, seed).to(policy.device)
        self.average = copy_policy(policy)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.module, settings), betas=(settings.betas[0], settings.betas[1])
        )
        self.step = 0
        self._load()
        self._parallel: nn.Module = self.module
        if self.workers.size > 1:
            self._parallel = DistributedDataParallel(self.module)
        if settings.batch_size % (self.workers.size * settings.accumulate):
            raise InvalidConfigError(
                f"algo.batch_size must be a multiple of processes times algo.accumulate; got {settings.batch_size}, "
                f"{self.workers.size} and {settings.accumulate}."
            )

    @property
    def policy(self) -> VlaserPolicy:
        """The policy in training."""
        return self.module.policy

    # ------------------------------------------------------------------ the loop

    def train(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Take the steps that are left, or as many as go before ``stop`` says yes.

        Returns:
            whether all steps are taken.
        """
        curves = Curves(self.path, self.step) if self.workers.leads else None
        losses: list[Tensor] = []
        self._evaluate(curves)
        begun, counted = time.perf_counter(), self.step
        # One process's clock decides for all: a process that went on alone would wait for the others forever.
        while self.step < self.settings.steps and not self.workers.agree(stop()):
            losses.append(self.take_step())
            last = self.step == self.settings.steps
            if self.step % self.log_every == 0 or last:
                seconds, steps = time.perf_counter() - begun, self.step - counted
                self._log(curves, torch.stack(losses).mean(0), steps * self.settings.batch_size / seconds)
                losses, begun, counted = [], time.perf_counter(), self.step
            if self.step % self.save_every == 0 or last or self._is_evaluated:
                self.save(curves)
            paused = time.perf_counter()
            self._evaluate(curves)
            begun += time.perf_counter() - paused
        if self.step < self.settings.steps:
            self.save(curves)
        if curves is not None:
            curves.close()
        return self.step == self.settings.steps

    def take_step(self) -> Tensor:
        """One update; returns the flow's and the places' error, mean over all processes, ``[2]``.

        Raises:
            DivergedError: for an error or a gradient that is not finite, before any weight changes.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * self.rate(self.step)
        errors = self.workers.mean(self._accumulate())
        norm = clip_gradients(self.module.parameters(), self.settings.clip)
        numbers = {"loss": errors.sum(), "gradient norm": norm}
        check_finite(f"step {self.step + 1}", self.path, numbers, "algo.learning_rate and algo.expert_learning_rate")
        self.optimizer.step()
        self.step += 1
        self._update_average()
        return errors

    def _accumulate(self) -> Tensor:
        """Gradients of the step, shared by all processes; returns the errors on this process's share, ``[2]``."""
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        parts = list(self._micro_batches())
        for number, (batch, noise, t) in enumerate(parts):
            with self._no_sync(number < len(parts) - 1), self._autocast(), self._depth(number):
                loss, error, misplaced = self._parallel(batch, noise, t)
                (loss / len(parts)).backward()
            losses.append(torch.stack([error, misplaced]))
        return torch.stack(losses).mean(0)

    def rate(self, step: int) -> float:
        """Learning rate relative to its peak: linear warm-up, then a cosine down to ``final_rate``."""
        settings = self.settings
        if step < settings.warmup:
            return (step + 1) / settings.warmup
        progress = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
        return settings.final_rate + (1 - settings.final_rate) * (1 + math.cos(math.pi * min(progress, 1))) / 2

    # ------------------------------------------------------------------ pieces of a step

    def _micro_batches(self) -> Iterator[tuple[Batch, Tensor, Tensor]]:
        """This process's share of the step, in ``accumulate`` parts."""
        settings, config, device = self.settings, self.policy.config, self.policy.device
        size, samples = settings.batch_size, settings.flow_samples
        generator = torch.Generator().manual_seed(_seed(self.seed, self.step))
        rows = self.batches.rows(self.step, size)
        draws = self.augmentation.draw(size, generator)
        noise = torch.randn(size, samples, config.horizon, config.action_dim, generator=generator)
        t = flow.sample_times(size * samples, config.time_distribution, generator).view(size, samples)
        share = np.array_split(np.arange(size), settings.accumulate * self.workers.size)
        for part in share[self.workers.rank :: self.workers.size]:
            batch = self.batches.batch(rows[part])
            pixels = self.augmentation(batch.pixels, draws[part])
            batch = Batch(
                pixels.to(device),
                batch.input_ids.to(device),
                batch.proprio.to(device),
                batch.actions.to(device),
                batch.places.to(device),
            )
            yield batch, noise[part].to(device), t[part].to(device)

    def _no_sync(self, more: bool) -> AbstractContextManager[None]:
        """Gradients are exchanged once per step, with the last part."""
        if more and isinstance(self._parallel, DistributedDataParallel):
            return self._parallel.no_sync()
        return nullcontext()

    @contextmanager
    def _depth(self, number: int) -> Iterator[None]:
        """Stochastic depth draws from torch's global stream: seeded here by step and part, as all else is."""
        if not self.policy.config.drop_path:
            yield
            return
        device = self.policy.device
        part = number * self.workers.size + self.workers.rank
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(_seed(self.seed, self.step, part, 1))
            yield

    def _autocast(self) -> AbstractContextManager[Any]:
        enabled = self.settings.precision == "bfloat16"
        return torch.autocast(self.policy.device.type, torch.bfloat16, enabled=enabled)

    @torch.no_grad()
    def _update_average(self) -> None:
        """Exponential moving average, shorter in the beginning so that the first weights fade."""
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        averaged = [parameter.detach() for parameter in self.average.parameters()]
        current = [parameter.detach() for parameter in self.policy.parameters()]
        torch._foreach_lerp_(averaged, current, 1 - decay)

    # ------------------------------------------------------------------ reports and files

    def _log(self, curves: Curves | None, losses: Tensor, pace: float) -> None:
        flow_error, misplaced = losses.tolist()
        settings, share = self.settings, self.rate(self.step - 1)
        row = {"loss/flow": flow_error, "samples_per_second": pace}
        row |= {name: share * getattr(settings, name) for name in ("learning_rate", "expert_learning_rate")}
        if self.settings.places:
            row["loss/places"] = misplaced
        if curves is not None:
            curves.add(self.step, **row)
            self.report({"step": self.step, **row})

    @property
    def _is_evaluated(self) -> bool:
        """Whether the policy of this step is."""
        last = self.step == self.settings.steps
        return bool(self.step and self.evaluate_every) and (self.step % self.evaluate_every == 0 or last)

    def _evaluate(self, curves: Curves | None) -> None:
        """Score the stored policy, where that is due and was not done before an interruption."""
        if not self._is_evaluated:
            return
        if curves is not None and self.evaluate is not None and not curves.scored(self.step):
            row = self.evaluate(self.average)
            curves.add(self.step, **row)
            self.report({"step": self.step, **row})
        self.workers.barrier()

    def save(self, curves: Curves | None = None) -> None:
        """Write the trainer's state and the averaged policy; each file whole or not at all."""
        if not self.workers.leads:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        state = {
            "step": self.step,
            "module": self.module.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        partial = self.path / f"{STATE_FILE}.tmp"
        torch.save(state, partial)
        save_pretrained(self.average, self.path / POLICY_FOLDER)
        self.processor.save(self.path / POLICY_FOLDER)
        partial.replace(self.path / STATE_FILE)
        if curves is not None:
            curves.draw(every=30.0)

    def _load(self) -> None:
        file = self.path / STATE_FILE
        if not file.is_file():
            return
        state = read_state(file, self.policy.device)
        self._check_state(state)
        self.module.load_state_dict(state["module"])
        self.average.load_state_dict(state["average"])
        # Rates, decay and betas are those of the settings, which may have changed on the way.
        chosen = [{name: group[name] for name in _CHOSEN} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, values in zip(self.optimizer.param_groups, chosen, strict=True):
            group.update(values)
        self.step = int(state["step"])

    def _check_state(self, state: dict[str, Any]) -> None:
        """Raise :class:`InvalidConfigError` for a state of other weights than are trained here."""
        groups = (self.optimizer.param_groups, state["optimizer"]["param_groups"])
        ours, theirs = ([len(group["params"]) for group in some] for some in groups)
        if ours != theirs or self.module.state_dict().keys() != state["module"].keys():
            raise InvalidConfigError(
                f"{self.path} trained other weights than these settings would: continue it with the same algo.freeze "
                "and algo.places, or choose another run=."
            )


#: Of a group of parameters: what the settings say and the optimizer's state does not.
_CHOSEN = ("peak", "weight_decay", "betas")


def copy_policy(policy: VlaserPolicy) -> VlaserPolicy:
    """The same weights in another policy, adapters added in, constant and in evaluation mode."""
    copy = VlaserPolicy.on_meta(policy.config)
    copy.load_state_dict({name: value.clone() for name, value in merged_state_dict(policy).items()}, assign=True)
    return copy.requires_grad_(False).eval()


def parameter_groups(module: FlowLoss, settings: SftSettings) -> list[dict[str, Any]]:
    """Trainable parameters with their peak learning rate; vectors (norms, biases) do not decay."""
    modules = tuple(f"policy.{name}." for part in VISION_LANGUAGE for name in PARTS[part])
    groups = []
    for is_vision_language, rate in ((True, settings.learning_rate), (False, settings.expert_learning_rate)):
        named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        mine = [p for n, p in named if n.startswith(modules) == is_vision_language]
        for decays in (True, False):
            chosen = [p for p in mine if (p.ndim > 1) == decays]
            decay = settings.weight_decay if decays else 0.0
            if chosen:
                groups.append({"params": chosen, "lr": rate, "peak": rate, "weight_decay": decay})
    return groups


def _seed(*numbers: int) -> int:
    """One seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
