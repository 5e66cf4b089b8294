"""Proximal policy optimisation of the flow policy, on Stable-Baselines3's rollout loop, schedules and logger.

What is random in an iteration (noise of the chains, order of the minibatches) is a function of the seed and the
iteration's number, drawn for all processes and cut into their shares; the environments' streams are in their snapshots.
A checkpoint at the end of an iteration is therefore enough to go on as if nothing had happened.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import explained_variance, obs_as_tensor, update_learning_rate
from torch import Tensor, distributed

from vlaser_gym.agents.learners.actor_critic import FlowActorCritic
from vlaser_gym.agents.learners.buffer import Batch, ChainBuffer, Outcome
from vlaser_gym.agents.learners.curve_writer import CurveWriter
from vlaser_gym.agents.learners.curves import Curves
from vlaser_gym.agents.learners.decisions import is_frozen
from vlaser_gym.agents.learners.densities import make_density
from vlaser_gym.agents.learners.distributed import Workers
from vlaser_gym.agents.learners.gradients import check_finite, clip_gradients
from vlaser_gym.agents.learners.lanes import ChainVecEnv
from vlaser_gym.agents.learners.ppo_settings import PpoSettings
from vlaser_gym.agents.learners.sft import POLICY_FOLDER, STATE_FILE, copy_policy
from vlaser_gym.agents.learners.snapshots import pack, unpack
from vlaser_gym.agents.learners.trainer_state import read_state
from vlaser_gym.agents.vlaser.adapters import add_lora
from vlaser_gym.agents.vlaser.checkpoint import save_pretrained
from vlaser_gym.agents.vlaser.policy import PARTS, VlaserPolicy
from vlaser_gym.agents.vlaser.processor import Processor
from vlaser_gym.errors import InvalidConfigError

LEARNER_FILE = "learner.safetensors"
Numbers = dict[str, float]
#: Means that an update reports.
_STATISTICS = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction", "pull")


class FlowPPO(PPO):  # type: ignore[misc]  # Stable-Baselines3 is not followed by the type checker
    """PPO whose action is a chain of the flow.

    A time step is a decision. The rollout loop, the schedules, the callbacks and the logger are Stable-Baselines3's.

    Args:
        policy: its weights change in place.
        processor: of the policy; stored with it.
        env: this process's lanes; all processes have as many.
        settings: see :class:`PpoSettings`.
        path: run directory; a trainer state in it is continued.
        seed: of everything random.
        workers: the processes that train together.
        evaluate: given the policy, returns numbers for the curves; asked every ``evaluate_every`` iterations and at
            the end.
        stop: asked at the end of every iteration.
        report: told each line of numbers.

    Attributes:
        iteration: iterations finished.

    Raises:
        InvalidConfigError: if minibatches do not fill the rollout.
    """

    policy: FlowActorCritic
    rollout_buffer: ChainBuffer
    ep_success_buffer: deque[bool]
    #: What acts, and where its decisions are kept.
    networks: type[FlowActorCritic] = FlowActorCritic
    buffer: type[ChainBuffer] = ChainBuffer

    def __init__(
        self,
        policy: VlaserPolicy,
        processor: Processor,
        env: ChainVecEnv,
        settings: PpoSettings,
        path: str | Path,
        *,
        seed: int = 0,
        workers: Workers | None = None,
        evaluate: Callable[[VlaserPolicy], Numbers] | None = None,
        evaluate_every: int = 0,
        stop: Callable[[], bool] = lambda: False,
        report: Callable[[Numbers], None] = lambda row: None,
    ) -> None:
        self.workers, self.processor, self.settings, self.path = workers or Workers(), processor, settings, Path(path)
        self.evaluate, self.evaluate_every, self.stop, self.report = evaluate, evaluate_every, stop, report
        self.run_seed, self.iteration, self._decision, self.stopping = seed, 0, 0, False
        self._curves: Curves | None = None
        self._check_sizes(env.num_envs)
        policy.eval()
        policy.freeze(*settings.freeze)
        if settings.flow_steps is not None:
            # Its evaluations and its checkpoint act as it learned to.
            policy.config = policy.config.replace(num_flow_steps=settings.flow_steps)
        if settings.lora:
            # With adapters only these are trained.
            parts = [part for part in PARTS if part not in (*settings.freeze, "embedding")]
            policy.requires_grad_(False)
            add_lora(policy, parts, rank=settings.lora, seed=seed)
        cached = is_frozen(policy)
        if settings.pull and not cached:
            # The first policy is compared on the keys and values at hand; of another encoder it knows nothing.
            raise InvalidConfigError(
                f"algo.pull={settings.pull} needs vision, embedding and language as they were; they are trained with "
                f"algo.freeze={list(settings.freeze)}: freeze all three, or use algo.pull=0."
            )
        super().__init__(
            self.networks,
            env,
            learning_rate=lambda remaining: settings.learning_rate * self._decay(remaining),
            n_steps=settings.n_steps,
            batch_size=settings.n_steps * env.num_envs,  # what one process holds; minibatches are made here
            n_epochs=settings.epochs,
            gamma=settings.gamma,
            gae_lambda=settings.gae_lambda,
            clip_range=settings.clip_range,
            ent_coef=settings.entropy,
            max_grad_norm=settings.clip,
            target_kl=settings.target_kl,
            rollout_buffer_class=self.buffer,
            rollout_buffer_kwargs={
                "cache_bytes": settings.cache_mb * 2**20 if cached else 0,
                "cache_device": settings.cache_device,
            },
            policy_kwargs=self._networks(policy),
            device=policy.device,
        )
        self.reference = copy_policy(policy).to(policy.device) if settings.pull else None
        self.actor_optimizer = torch.optim.AdamW(self.policy.actor_parameters(), weight_decay=0.0)
        # As a group, because there may be none.
        self.critic_optimizer = torch.optim.AdamW([{"params": self.policy.critic_parameters()}], weight_decay=0.0)
        self._load()

    def _check_sizes(self, num_envs: int) -> None:
        """Raise :class:`InvalidConfigError` if ``num_envs`` lanes per process cannot be learnt from."""
        settings = self.settings
        total = settings.n_steps * num_envs * self.workers.size
        if total % settings.batch_size:
            raise InvalidConfigError(
                f"A rollout of {total} decisions (algo.n_steps times num_envs) must be a multiple of algo.batch_size; "
                f"got {settings.batch_size}."
            )

    def _networks(self, policy: VlaserPolicy) -> dict[str, Any]:
        settings, config = self.settings, policy.config
        density = make_density(
            settings.density,
            settings.flow_steps or config.num_flow_steps,
            width=config.expert_width,
            action_dim=config.action_dim,
            noise_level=settings.noise_level,
            noise_bounds=settings.noise_bounds,
            seed=self.run_seed,
        )
        return {"policy": policy, "density": density, "precision": settings.precision, "seed": self.run_seed}

    def describe(self) -> str:
        """One sentence about what is trained."""
        actor, critic = self.policy.actor_parameters(), self.policy.critic_parameters()
        counts = [sum(parameter.numel() for parameter in group) for group in (actor, critic)]
        state = f"continued at iteration {self.iteration}" if self.iteration else "from the beginning"
        return f"{counts[0]:,} parameters of the actor and {counts[1]:,} of the critic are trained, {state}"

    # ------------------------------------------------------------------ the loop

    def run(self) -> bool:
        """Take the iterations that are left, or as many as go before ``stop`` says yes; returns whether all are."""
        self._curves = curves = (
            Curves(self.path, self.num_timesteps * self.workers.size) if self.workers.leads else None
        )
        writers = [] if curves is None else [CurveWriter(curves, self.report, self.workers.size)]
        self.set_logger(Logger(None, writers))
        self._evaluate()
        left = self.settings.iterations - self.iteration
        if left > 0:
            # Its own log lines come before the update whose numbers they should show: dump_logs is called in train().
            self.learn(
                left * self.settings.n_steps * self.env.num_envs,
                callback=_Stopper(),
                log_interval=None,
                reset_num_timesteps=self.iteration == 0,
            )
        if curves is not None:
            curves.close()
        return self.iteration == self.settings.iterations

    def collect_rollouts(self, *args: Any, **kwargs: Any) -> bool:
        """One rollout by Stable-Baselines3's loop."""
        self._decision = 0
        self._draw()
        return bool(super().collect_rollouts(*args, **kwargs))

    def _draw(self) -> None:
        """Random numbers of the next decision, for the lanes of all processes."""
        assert self.env is not None
        generator = torch.Generator().manual_seed(seed_of(self.run_seed, self.iteration, self._decision))
        config, lanes = self.policy.policy.config, self.env.num_envs
        draws = self.policy.density.draw(lanes * self.workers.size, config.horizon, config.action_dim, generator)
        self.policy.draws = draws.rows(slice(self.workers.rank * lanes, (self.workers.rank + 1) * lanes))
        self._decision += 1

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: NDArray[np.bool_] | None = None) -> None:
        """The loop's hook between a step and its storage: tells the buffer what the loop does not."""
        super()._update_info_buffer(infos, dones)
        assert dones is not None
        assert self.policy.decision is not None
        discounts = np.array([info["discount"] for info in infos])
        self.rollout_buffer.note(self.policy.decision, Outcome(discounts, dones, self._final_values(infos, dones)))
        self._draw()

    def _final_values(self, infos: list[dict[str, Any]], dones: NDArray[np.bool_]) -> NDArray[np.float64]:
        values = np.zeros(len(infos))
        lanes = [i for i in np.flatnonzero(dones) if infos[i]["truncated"]]
        if lanes:
            last = [infos[i]["terminal_observation"] for i in lanes]
            stacked = {name: np.stack([observation[name] for observation in last]) for name in last[0]}
            with torch.no_grad():
                values[lanes] = self.policy.predict_values(obs_as_tensor(stacked, self.device)).cpu().numpy()
        return values

    # ------------------------------------------------------------------ the update

    def train(self) -> None:
        """Epochs over the rollout, then logs, evaluation and checkpoint: the end of an iteration.

        Raises:
            DivergedError: for a loss or a gradient that is not finite; the update that gave it changes no weight.
        """
        self._update_learning_rate([self.actor_optimizer, self.critic_optimizer])
        actor = self.iteration >= self.settings.critic_warmup
        self._normalize_advantages()
        if actor:
            self._reevaluate()
        means, updates, first_error = torch.zeros(len(_STATISTICS), dtype=torch.float64), 0, 0.0
        for rows in self._minibatches():
            statistics, error = self._accumulate(rows, actor=actor)
            first_error = error if updates == 0 else first_error
            self._n_updates += 1
            updates += 1
            means += statistics
            self._check_finite({"policy loss": statistics[0]}, "algo.learning_rate")
            self._check_finite({"value loss": statistics[1]}, "algo.critic_learning_rate")
            if self.target_kl is not None and statistics[3] > 1.5 * self.target_kl:
                break
            self._step(actor=actor)
        self._log(means / max(updates, 1), updates, first_error)
        self._finish_iteration()

    def _minibatches(self) -> Iterator[NDArray[np.int64]]:
        """This process's decisions of every minibatch of every epoch; all processes see the same order."""
        lanes, size = self.rollout_buffer.n_envs, self.settings.batch_size
        everyone = lanes * self.workers.size
        for epoch in range(self.n_epochs):
            order = np.random.default_rng(seed_of(self.run_seed, self.iteration, epoch, 1))
            rows = order.permutation(self.n_steps * everyone)
            for start in range(0, len(rows), size):
                step, lane = np.divmod(rows[start : start + size], everyone)
                mine = lane // lanes == self.workers.rank
                yield step[mine] * lanes + lane[mine] % lanes

    def _accumulate(self, rows: NDArray[np.int64], *, actor: bool) -> tuple[Tensor, float]:
        """Gradients of one minibatch, summed over micro-batches and processes.

        Returns:
            means over the minibatch (see :data:`_STATISTICS`), and this process's largest ``|ratio - 1|``.
        """
        self.actor_optimizer.zero_grad(set_to_none=True)
        self.critic_optimizer.zero_grad(set_to_none=True)
        sums, error = torch.zeros(len(_STATISTICS), dtype=torch.float64), 0.0
        count = int(self._total(torch.tensor(len(rows))))
        for _, batch in self._micro_batches(rows):
            loss, statistics, deviation = self.losses(batch, actor=actor)
            torch.autograd.backward(loss / count)
            sums, error = sums + statistics, max(error, deviation)
        self._share_gradients()
        return self._total(sums) / count, error

    def _micro_batches(self, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], Batch]]:
        """Decisions in ascending order, in batches of one size."""
        rows, size = np.sort(rows), self.settings.micro_batch
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            yield part, self.rollout_buffer.batch(part, size, self.policy.encode, self.policy.policy.device)

    @torch.no_grad()
    def _reevaluate(self) -> None:
        """Likelihoods of the rollout once more, in batches shaped as the update's.

        Those taken while sampling, step by step, differ from them by rounding: about 1e-5 with fp32 weights, much more
        in bf16. Ratios should begin at 1.
        """
        buffer = self.rollout_buffer
        flat = buffer.log_probs.reshape(-1)
        drift = 0.0
        for rows, batch in self._micro_batches(buffer.learnt_from):
            judged = self.policy.judge(batch.vision_language, batch.proprio, batch.chain, batch.stochastic)
            fresh = judged.evaluation.log_prob[: len(rows)].cpu().numpy()
            drift = max(drift, float(np.abs(fresh - flat[rows]).max()))
            flat[rows] = fresh
        self.logger.record("train/log_prob_rounding", drift)

    def losses(self, batch: Batch, *, actor: bool = True) -> tuple[Tensor, Tensor, float]:
        """What is minimised, summed over the decisions of a batch.

        Returns:
            loss, sums of :data:`_STATISTICS` (float64, on the CPU), largest ``|ratio - 1|``.
        """
        if not actor:
            values = self.policy.values(batch.vision_language, batch.proprio)
            value_loss = (batch.weight * (values - batch.returns).square()).sum()
            statistics = torch.zeros(len(_STATISTICS), dtype=torch.float64)
            statistics[1] = value_loss.item()
            return value_loss, statistics, 0.0
        judged = self.policy.judge(batch.vision_language, batch.proprio, batch.chain, batch.stochastic)
        log_ratio = judged.evaluation.log_prob - batch.log_prob
        ratio, clip = log_ratio.exp(), self.clip_range(self._current_progress_remaining)
        advantages = batch.advantages.double()
        terms = {
            "policy_loss": -torch.minimum(advantages * ratio, advantages * ratio.clamp(1 - clip, 1 + clip)),
            "value_loss": (judged.values - batch.returns).square(),
            "entropy": judged.evaluation.entropy,
            "approx_kl": (ratio - 1 - log_ratio).detach(),
            "clip_fraction": ((ratio - 1).abs() > clip).double(),
            "pull": self._pull(batch, judged.velocity),
        }
        sums = {name: (batch.weight * term).sum() for name, term in terms.items()}
        loss = (
            sums["policy_loss"]
            + self.vf_coef * sums["value_loss"]
            - self.ent_coef * sums["entropy"]
            + self.settings.pull * sums["pull"]
        )
        statistics = torch.stack([sums[name].detach().double() for name in _STATISTICS]).cpu()
        return loss, statistics, float((ratio.detach() - 1).abs().max())

    def _pull(self, batch: Batch, velocity: Tensor) -> Tensor:
        """Squared distance of the velocities to the policy's that training began with, mean over a chain: ``[B]``."""
        if self.reference is None:
            return velocity.new_zeros(len(velocity))
        row = torch.arange(len(batch.chain), device=batch.chain.device)[:, None]
        t = (batch.stochastic.double() / self.policy.density.num_steps).float()
        with torch.no_grad(), self.policy.autocast():
            prefix = self.reference.encode_proprio(batch.vision_language.detach(), batch.proprio)
            before = self.reference.velocity(prefix, batch.chain[row, batch.stochastic], t)
        return (velocity - before).square().mean((1, 2, 3))

    def _step(self, *, actor: bool) -> None:
        """Clip and step, actor and critic apart: the one's gradient does not shorten the other's step.

        Raises:
            DivergedError: for a gradient that is not finite, before any weight of either changes.
        """
        norm = clip_gradients(self.policy.critic_parameters(), self.max_grad_norm)
        self._check_finite({"critic's gradient norm": norm}, "algo.critic_learning_rate")
        if actor:
            norm = clip_gradients(self.policy.actor_parameters(), self.max_grad_norm)
            self._check_finite({"actor's gradient norm": norm}, "algo.learning_rate")
            self.actor_optimizer.step()
        self.critic_optimizer.step()

    def _check_finite(self, numbers: Mapping[str, Tensor], rate: str) -> None:
        """Raise :class:`DivergedError` unless these are; gradients and statistics are sums over all processes."""
        check_finite(f"update {self._n_updates} in iteration {self.iteration + 1}", self.path, numbers, rate)

    def _decay(self, remaining: float) -> float:
        return remaining if self.settings.schedule == "linear" else 1.0

    def _update_learning_rate(self, optimizers: list[torch.optim.Optimizer] | torch.optim.Optimizer) -> None:
        """The actor's by Stable-Baselines3, the critic's by its own peak on the same schedule."""
        actor, critic = optimizers if isinstance(optimizers, list) else (optimizers, None)
        super()._update_learning_rate(actor)
        begun = self.iteration - self.settings.critic_warmup + 1
        if 0 < begun < self.settings.warmup:
            rate = self.lr_schedule(self._current_progress_remaining) * begun / self.settings.warmup
            update_learning_rate(actor, rate)
            self.logger.record("train/learning_rate", rate)
        if critic is not None:
            rate = self.settings.critic_learning_rate * self._decay(self._current_progress_remaining)
            update_learning_rate(critic, rate)
            self.logger.record("train/critic_learning_rate", rate)

    def _normalize_advantages(self) -> None:
        """To mean 0 and standard deviation 1 over the rollouts of all processes."""
        values = torch.from_numpy(np.asarray(self.rollout_buffer.advantages, np.float64))
        count = values.numel() * self.workers.size
        mean = self._total(values.sum()) / count
        std = (self._total((values - mean).square().sum()) / max(count - 1, 1)).sqrt()
        self.rollout_buffer.advantages = ((values - mean) / (std + 1e-8)).numpy()

    # ------------------------------------------------------------------ several processes

    def _total(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.workers.size == 1:
            return value
        shared = value.to(self.device).clone()
        distributed.all_reduce(shared)
        return shared.to(value.device)

    def _share_gradients(self) -> None:
        """Sum gradients over all processes, before they are clipped."""
        if self.workers.size == 1:
            return
        for parameter in [*self.policy.actor_parameters(), *self.policy.critic_parameters()]:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)

    @property
    def _steps(self) -> int:
        """Decisions of all processes; Stable-Baselines3 counts this one's."""
        return int(self.num_timesteps) * self.workers.size

    def _gather(self, value: Any) -> list[Any]:
        """What every process gives, on all of them."""
        values: list[Any] = [value]
        if self.workers.size > 1:
            values = [None] * self.workers.size
            distributed.all_gather_object(values, value)
        return values

    # ------------------------------------------------------------------ reports and files

    def _log(self, means: Tensor, updates: int, first_error: float) -> None:
        for name, value in zip(_STATISTICS, means.tolist(), strict=True):
            self.logger.record(f"train/{name}", value)
        buffer = self.rollout_buffer
        self.logger.record("train/updates", updates)
        self.logger.record("train/first_ratio_error", first_error)
        mine = (buffer.values, buffer.returns, buffer.rewards, buffer.dones)
        everyone = self._gather(tuple(array.ravel() for array in mine))
        values, returns, rewards, dones = (np.concatenate(parts) for parts in zip(*everyone, strict=True))
        self.logger.record("train/explained_variance", explained_variance(values, returns))
        self.logger.record("rollout/reward", float(rewards.mean()))
        self.logger.record("rollout/episodes", int(dones.sum()))

    def _finish_iteration(self) -> None:
        self.iteration += 1
        self._dump()
        last = self.iteration == self.settings.iterations
        # One process's clock decides for all: a process that went on alone would wait for the others forever.
        self.stopping = bool(self.workers.agree(self.stop()))
        if last or self.stopping or self._is_evaluated or self.iteration % self.settings.save_every == 0:
            self.save_checkpoint()
        self._evaluate()

    def _dump(self) -> None:
        """The iteration's line, with the last episodes of all processes."""
        mine = self.ep_success_buffer
        self.ep_success_buffer = deque(chain.from_iterable(self._gather(list(mine))))
        self.dump_logs(self.iteration)
        self.ep_success_buffer = mine

    @property
    def _is_evaluated(self) -> bool:
        """Whether the policy of this iteration is."""
        last = self.iteration == self.settings.iterations
        return bool(self.iteration and self.evaluate_every) and (self.iteration % self.evaluate_every == 0 or last)

    def _evaluate(self) -> None:
        """Scores of the plain flow, without the noise of training, where due and not done before an interruption."""
        if not self._is_evaluated:
            return
        if self._curves is not None and self.evaluate is not None and not self._curves.scored(self._steps):
            row = self.evaluate(self.policy.policy)
            self._curves.add(self._steps, **row)
            self.report({"step": self._steps, **row})
        self.workers.barrier()

    def save_checkpoint(self) -> None:
        """Write the policy for use, and the state that the next iteration depends on; each file whole or not at all."""
        assert isinstance(self.env, ChainVecEnv)
        lanes = {
            "snapshot": self.env.get_state(),
            "observation": self._last_obs,
            "starts": self._last_episode_starts,
            "successes": self.ep_success_buffer,
        }
        everyone = self._gather(pack(lanes))
        if not self.workers.leads:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        save_pretrained(self.policy.policy, self.path / POLICY_FOLDER)
        self.processor.save(self.path / POLICY_FOLDER)
        heads = {name: value for name, value in self._trained().items() if not name.startswith("policy.")}
        save_file({name: value.contiguous() for name, value in heads.items()}, self.path / LEARNER_FILE)
        state = {
            "iteration": self.iteration,
            "timesteps": self.num_timesteps,
            "updates": self._n_updates,
            "trained": self._trained(),
            "optimizers": [self.actor_optimizer.state_dict(), self.critic_optimizer.state_dict()],
            "lanes": everyone,
        }
        partial = self.path / f"{STATE_FILE}.tmp"
        torch.save(state, partial)
        partial.replace(self.path / STATE_FILE)
        if self._curves is not None:
            self._curves.draw()

    def _trained(self) -> dict[str, Tensor]:
        """Weights that training changes, by name."""
        return {name: p.detach() for name, p in self.policy.named_parameters() if p.requires_grad}

    def _load(self) -> None:
        file = self.path / STATE_FILE
        if not file.is_file():
            return
        state = read_state(file)
        if len(state["lanes"]) != self.workers.size:
            raise InvalidConfigError(
                f"{self.path} was trained by {len(state['lanes'])} processes; continue it with as many, not "
                f"{self.workers.size}."
            )
        trained = self._trained()
        if trained.keys() != state["trained"].keys():
            raise InvalidConfigError(
                f"{self.path} trained other weights than these settings would: continue it with the same algo.density "
                f"and algo.freeze, or choose another run=."
            )
        for name, value in state["trained"].items():
            trained[name].copy_(value)
        self.actor_optimizer.load_state_dict(state["optimizers"][0])
        self.critic_optimizer.load_state_dict(state["optimizers"][1])
        self.iteration, self.num_timesteps = state["iteration"], state["timesteps"]
        self._n_updates = state["updates"]
        self._load_lanes(unpack(state["lanes"][self.workers.rank]))

    def _load_lanes(self, lanes: dict[str, Any]) -> None:
        assert isinstance(self.env, ChainVecEnv)
        self.env.set_state(lanes["snapshot"])
        self._last_obs, self._last_episode_starts = lanes["observation"], lanes["starts"]
        self.ep_info_buffer: deque[Any] = deque(maxlen=self._stats_window_size)
        self.ep_success_buffer = deque(lanes["successes"], maxlen=self._stats_window_size)


class _Stopper(BaseCallback):  # type: ignore[misc]
    """Ends the rollout that the loop begins after the last iteration that was wanted."""

    def _on_step(self) -> bool:
        return not self.model.stopping


def seed_of(*numbers: int) -> int:
    """One seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
