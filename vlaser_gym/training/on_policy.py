"""The common part of on-policy algorithms: PPO, GRPO and kin.

Subclasses say how advantages are estimated and what is minimised; see :mod:`vlaser_gym.training.ppo`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vlaser_gym.agents.trainable import TrainableAgent
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.settings.algorithms import PpoSettings
from vlaser_gym.training.data.prefix_cache import PrefixCache
from vlaser_gym.training.environments import LearningEnv
from vlaser_gym.training.optimizers import set_rate
from vlaser_gym.training.rollout import Actor, Batch, Rollout, collect
from vlaser_gym.training.scaling import gathered, load_optimizer
from vlaser_gym.training.seeds import seed_of
from vlaser_gym.training.snapshots import pack, unpack
from vlaser_gym.training.trainer import (
    RunOptions,
    Trainer,
    cache_device,
    load_weights,
    trained,
    trained_weights,
)

Ints = NDArray[np.int64]
Means = dict[str, Tensor]


class OnPolicyTrainer(Trainer):
    """Collect, estimate advantages, update: an iteration.

    Args:
        agent: acts and learns.
        env: this process's environments; all processes have as many.
        settings: see :class:`PpoSettings`.
        path, options: see :class:`Trainer`.
        critic: from the agent's value features, or what the environments show of the simulator, to values; ``None`` if
            the algorithm has none.
        rollout_steps: decisions per environment and rollout, at most; by default ``settings.n_steps``.

    Attributes:
        timesteps: decisions of this process so far.
        successes: of its last hundred episodes.
        trains_actor: whether the policy itself learns in this iteration, and not the critic alone.
        rollout_batch: rows of every batch that decides in rollouts, the same for the whole run, however many of the
            environments wait for a decision.
    """

    unit = "iteration"
    #: Sums over a batch that :meth:`loss` reports; what it leaves out is 0.
    reported: ClassVar[tuple[str, ...]] = (
        *("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction", "pull"),
    )

    def __init__(
        self,
        agent: TrainableAgent,
        env: LearningEnv,
        settings: PpoSettings,
        path: str | Path,
        options: RunOptions | None = None,
        critic: nn.Module | None = None,
        rollout_steps: int | None = None,
    ) -> None:
        super().__init__(agent, path, settings.iterations, options)
        self.env, self.settings, self.critic = env, settings, critic
        self.rollout_steps = rollout_steps or settings.n_steps
        self.prepare(settings.freeze, settings.lora)
        kept = agent.encoding_is_frozen
        if settings.pull and not kept:
            # The reference policy is compared on the encodings at hand; of another encoder it knows nothing.
            raise InvalidConfigError(
                f"algo.pull={settings.pull} needs vision, embedding and language as they were; they are trained with "
                f"algo.freeze={list(settings.freeze)}: freeze all three, or use algo.pull=0."
            )
        self.reference = agent.frozen_copy() if settings.pull else None
        where, total = cache_device(settings.cache_device, agent), self.rollout_steps * env.num_envs
        self.cache = PrefixCache(settings.cache_mb * 2**20 if kept else 0, where, total)
        self.actor_parameters, self.critic_parameters = trained(agent), trained(critic) if critic is not None else []
        self.optimizer = self.optimizer_of(self.actor_parameters, weight_decay=0.0)
        # As a group, because there may be none.
        self.critic_optimizer = torch.optim.AdamW([{"params": self.critic_parameters}], weight_decay=0.0)
        self.timesteps = self.updates = 0
        self.trains_actor = True
        self.successes: deque[bool] = deque(maxlen=100)
        self.rollout_batch = settings.rollout_batch or self.usual_rollout_batch
        self.load()
        self.actor = Actor(agent, critic, self.rollout_batch, record=not self.scaling.shard)

    # ------------------------------------------------------------------ what an algorithm says

    @abstractmethod
    def estimate(self, rollout: Rollout) -> None:
        """Set the rollout's advantages and returns, and the rows to learn from if these are not all."""

    @abstractmethod
    def loss(self, batch: Batch) -> tuple[Tensor, Means]:
        """The loss, summed over a batch's decisions, and the sums of :attr:`reported` (float64, on the CPU)."""

    @property
    def usual_rollout_batch(self) -> int:
        """:attr:`rollout_batch` where the settings leave it open: it follows from what is planned."""
        return int(self.env.num_envs)

    # ------------------------------------------------------------------ an iteration

    def step(self) -> bool:
        """Collect, estimate, update."""
        self.trains_actor = self.done >= self.settings.critic_warmup
        rollout = self.collect()
        self.estimate(rollout)
        row = self.update(rollout)
        self.done += 1
        self.log(**row, **self.outcomes(rollout))
        return True

    def collect(self) -> Rollout:
        """One rollout; its random numbers are drawn for the environments of all processes."""
        count, rank, steps = self.env.num_envs, self.group.rank, range(self.rollout_steps)
        if not self.env.inputs:
            self.env.reset(self.seed + rank * count)
        seeds = (torch.Generator().manual_seed(seed_of(self.seed, self.done, step)) for step in steps)
        everyone = (self.agent.draw(count * self.group.size, generator) for generator in seeds)
        mine = slice(rank * count, (rank + 1) * count)
        draws = ({name: rows[mine] for name, rows in drawn.items()} for drawn in everyone)
        with self.autocast(self.settings.precision), gathered(self.agent) if self.scaling.shard else nullcontext():
            rollout = collect(self.env, self.actor, draws, self.cache)
        self.timesteps += self.rollout_steps * count
        self.position = self.timesteps * self.group.size
        self.successes.extend(rollout.successes)
        return rollout

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Epochs over the rollout, until the policy has moved too far; returns what is to be logged.

        Raises:
            DivergedError: for a loss or a gradient that is not finite; the update that gave it changes no weight.
        """
        rates, limit = self.set_learning_rates(), self.settings.target_kl
        rounding = self.recompute_log_probs(rollout) if self.trains_actor else 0.0
        found: list[Means] = []
        for rows in self.minibatches(rollout):
            found.append(self.accumulate(rollout, rows))
            self.updates += 1
            too_far = limit is not None and bool(found[-1]["approx_kl"] > 1.5 * limit)
            self.take_step(found[-1], only_check=too_far)
            if too_far:
                break
        means = {f"train/{name}": float(sum(row[name] for row in found)) / max(len(found), 1) for name in self.reported}
        first = float(found[0]["ratio_error"]) if found else 0.0
        counts = {"train/updates": len(found), "train/first_ratio_error": first, "train/log_prob_rounding": rounding}
        return {**means, **counts, **rates}

    @torch.no_grad()
    def recompute_log_probs(self, rollout: Rollout) -> float:
        """Likelihoods of the rollout once more, in batches shaped as the update's; returns the largest difference.

        Those taken while sampling, step by step, differ from them by rounding: about 1e-5 with fp32 weights, much more
        in bf16. Ratios should begin at 1.
        """
        flat, drift, with_value = (
            rollout.log_probs.reshape(-1),
            0.0,
            self.critic is not None and self.env.reader is None,
        )
        actions = rollout.action_log_probs.reshape(len(flat), -1)
        with self.autocast(self.settings.precision):
            for rows, batch in self.batches(rollout, rollout.rows):
                found = self.agent.log_prob(batch.encoding, batch.inputs, batch.latent, with_value=with_value)
                fresh = found.log_prob[: len(rows)].cpu().numpy()
                drift = max(drift, float(np.abs(fresh - flat[rows]).max(initial=0.0)))
                flat[rows] = fresh
                if found.actions is not None:
                    actions[rows] = found.actions[: len(rows), : actions.shape[1]].cpu().numpy()
        return drift

    def minibatches(self, rollout: Rollout) -> Iterator[Ints]:
        """This process's decisions of every minibatch of every epoch; all processes see the same order."""
        count, rank = rollout.dones.shape[1], self.group.rank
        everyone = count * self.group.size
        step, index = np.divmod(rollout.rows, count)
        rows = np.sort(np.concatenate(self.group.gather(step * everyone + rank * count + index)))
        parts = max(1, round(len(rows) / self.settings.batch_size))
        for epoch in range(self.settings.epochs if len(rows) else 0):
            order = np.random.default_rng(seed_of(self.seed, self.done, epoch, 1)).permutation(rows)
            for part in np.array_split(order, parts):
                step, index = np.divmod(part, everyone)
                mine = index // count == rank
                yield step[mine] * count + index[mine] % count

    def batches(self, rollout: Rollout, rows: Ints) -> Iterator[tuple[Ints, Batch]]:
        """Decisions by number; processes that share weights have equally many batches, the last of them empty."""
        size = self.settings.micro_batch
        most = max(self.group.gather(len(rows))) if self.scaling.shard else len(rows)
        return rollout.batches(rows, size, self.agent, at_least=-(-most // size))

    def accumulate(self, rollout: Rollout, rows: Ints) -> Means:
        """Gradients of one minibatch, summed over micro-batches and processes; gives the means of :attr:`reported`."""
        self.optimizer.zero_grad(set_to_none=True)
        self.critic_optimizer.zero_grad(set_to_none=True)
        zero = torch.zeros((), dtype=torch.float64)
        sums, worst = torch.zeros(len(self.reported), dtype=torch.float64), zero
        count = int(self.group.sum(torch.tensor(len(rows)), self.device))
        for _, batch in self.batches(rollout, rows):
            with self.autocast(self.settings.precision):
                loss, terms = self.loss(batch)
            torch.autograd.backward(self.summed(loss / count))
            sums = sums + torch.stack([terms.get(name, zero) for name in self.reported])
            worst = torch.maximum(worst, terms.get("ratio_error", zero))
        self.sum_gradients([*self.actor_parameters, *self.critic_parameters])
        means = self.group.sum(sums, self.device) / count
        return {**dict(zip(self.reported, means, strict=True)), "ratio_error": worst}

    def take_step(self, means: Means, *, only_check: bool = False) -> None:
        """Clip and step, actor and critic apart: the one's gradient does not shorten the other's step."""
        clip, name = self.settings.clip, f"update {self.updates} in iteration {self.done + 1}"
        losses = {part: {f"{part} loss": means[f"{part}_loss"]} for part in ("value", "policy")}
        self.clip_gradients(
            self.critic_parameters, clip, name, "algo.critic_learning_rate", losses["value"], "critic's "
        )
        if self.trains_actor:
            self.clip_gradients(self.actor_parameters, clip, name, "algo.learning_rate", losses["policy"], "actor's ")
        if not only_check:
            if self.trains_actor:
                self.step_optimizer(self.optimizer, self.done, self.updates)
            self.critic_optimizer.step()

    def set_learning_rates(self) -> dict[str, float]:
        """Rates of this iteration: the schedule's, and the actor's rising behind the critic's own iterations."""
        settings = self.settings
        share = 1 - (self.done + 1) / settings.iterations if settings.schedule == "linear" else 1.0
        begun = self.done - settings.critic_warmup + 1
        rise = begun / settings.warmup if 0 < begun < settings.warmup else 1.0
        rates = {"learning_rate": settings.learning_rate * share * rise}
        set_rate(self.optimizer.param_groups[0], rates["learning_rate"])
        if self.critic is not None:
            rates["critic_learning_rate"] = settings.critic_learning_rate * share
            self.critic_optimizer.param_groups[0]["lr"] = rates["critic_learning_rate"]
        return {f"train/{name}": rate for name, rate in rates.items()}

    # ------------------------------------------------------------------ reports and files

    def outcomes(self, rollout: Rollout) -> dict[str, float]:
        """Statistics of the rollouts of all processes."""
        mine = tuple(a.ravel() for a in (rollout.values, rollout.returns, rollout.rewards, rollout.dones))
        gathered = self.group.gather((mine, list(self.successes)))
        columns = zip(*(arrays for arrays, _ in gathered), strict=True)
        values, returns, rewards, dones = (np.concatenate(parts) for parts in columns)
        successes = [success for _, theirs in gathered for success in theirs]
        row = {"rollout/reward": float(rewards.mean()), "rollout/episodes": float(dones.sum())}
        if self.critic is not None and returns.var() > 0:
            row["train/explained_variance"] = float(1 - (returns - values).var() / returns.var())
        return {**row, "rollout/success_rate": float(np.mean(successes)) if successes else float("nan")}

    def settled(self) -> dict[str, Any]:
        """See :class:`Trainer`."""
        return {"rollout_batch": self.rollout_batch, "simulator": self.env.simulator}

    def close(self) -> None:
        """Stop the environments."""
        self.env.close()

    def state(self) -> dict[str, Any]:
        """See :class:`Trainer`."""
        return {
            "iteration": self.done,
            "timesteps": self.timesteps,
            "updates": self.updates,
            "rollout_batch": self.rollout_batch,
            "trained": self.weights(),
            "optimizers": [self.optimizer.state_dict(), self.critic_optimizer.state_dict()],
            "lanes": self.group.gather(pack({**self.env.get_state(), "successes": self.successes})),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """See :class:`Trainer`."""
        count = len(state["lanes"])
        if count != self.group.size:
            raise InvalidConfigError(
                f"{self.path} was trained by {count} process{'es' * (count > 1)}, each with episodes that go on: "
                f"continue it with as many, not {self.group.size}."
            )
        load_weights(
            self.path, self.weights(), state["trained"], "algo.density, algo.critic, algo.freeze and algo.lora"
        )
        load_optimizer(self.optimizer, state["optimizers"][0])
        self.critic_optimizer.load_state_dict(state["optimizers"][1])
        self.done, self.timesteps, self.updates = state["iteration"], state["timesteps"], state["updates"]
        self.position = self.timesteps * self.group.size
        # Runs of before, which kept none, decided for as many environments as there are.
        self.rollout_batch = state.get("rollout_batch", self.rollout_batch)
        if self.settings.rollout_batch not in (None, self.rollout_batch):
            raise InvalidConfigError(
                f"{self.path} decides in batches of {self.rollout_batch}: continue it with "
                f"algo.rollout_batch={self.rollout_batch} or null, not {self.settings.rollout_batch}."
            )
        environments = unpack(state["lanes"][self.group.rank])
        self.successes.extend(environments.pop("successes"))
        self.continue_episodes(environments)

    def continue_episodes(self, environments: Mapping[str, Any]) -> None:
        """Put the environments back where they were.

        Raises:
            InvalidConfigError: if they are not as many as now.
        """
        if not environments["observation"]:
            return  # the run was stopped before its first decision
        count = len(next(iter(environments["observation"].values())))
        if count != self.env.num_envs:
            raise InvalidConfigError(
                f"{self.path} was trained in {count} environments, whose episodes go on: continue it with "
                f"num_envs={count}, not {self.env.num_envs}."
            )
        self.env.set_state(environments)

    def weights(self) -> dict[str, Tensor]:
        """Everything that training changes, by name."""
        critic = {} if self.critic is None else {**trained_weights(self.critic), **dict(self.critic.named_buffers())}
        return {**trained_weights(self.agent), **{f"value_head.{name}": value for name, value in critic.items()}}
