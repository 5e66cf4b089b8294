"""Alarms: warnings in plain words about a run's metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

#: A divergence this many times the target means that the policy has left the neighbourhood that its data are of.
_FAR = 10.0
#: Without a target, a divergence (nat) beyond which likelihood ratios say nothing any more.
_RUNAWAY = 1.0
#: Iterations without a group that teaches anything, until it is said.
_IDLE = 2
#: Iterations until a critic should explain something.
_PATIENCE = 10
#: Share of the noise-free success that noisy rollouts should have: PPO would mend the noise instead of the policy.
_HOT = 0.75


class Alarms:
    """Looks at each line of numbers; every kind of alarm is said once, and again after it had gone.

    Args:
        target_kl: divergence at which an update ends, if there is one.

    Attributes:
        ran_away: whether the last line's policy has diverged from its data beyond use.
    """

    def __init__(self, target_kl: float | None = None) -> None:
        self.target_kl, self.ran_away = target_kl, False
        self._lines = self._idle = 0
        self._best = 0.0
        self._noise_free: float | None = None
        self._sounding: set[str] = set()

    def look(self, row: Mapping[str, float]) -> list[str]:
        """Sentences about a line of numbers. Of what it does not speak, such as an evaluation's, nothing changes."""
        new = []
        for kind, sounds, said in self._verdicts(row):
            if sounds and kind not in self._sounding:
                new.append(said)
            (self._sounding.add if sounds else self._sounding.discard)(kind)
        return new

    def _verdicts(self, row: Mapping[str, float]) -> Iterator[tuple[str, bool, str]]:
        """Verdicts on each kind of alarm that the line speaks of: its name, whether it sounds, and its text."""
        if "train/approx_kl" in row:
            kl, limit = row["train/approx_kl"], _RUNAWAY if self.target_kl is None else _FAR * self.target_kl
            self.ran_away = not kl <= limit
            yield (
                "divergence",
                self.ran_away,
                f"the policy moved {kl:.3g} nat away from its rollout (more than {limit:g}): lower algo.learning_rate, "
                "and go back to an earlier policy in checkpoints/",
            )
        if "train/clip_fraction" in row:
            clipped = row["train/clip_fraction"]
            yield (
                "clipping",
                clipped > 0.5,
                f"{100 * clipped:.0f} % of the likelihood ratios are clipped, so that these decisions teach nothing: "
                "lower algo.learning_rate or algo.epochs",
            )
        if "rollout/useful_groups" in row:
            self._idle = 0 if row["rollout/useful_groups"] else self._idle + 1
            yield (
                "groups",
                self._idle >= _IDLE,
                "no group had both successes and failures, so that nothing is learned: take more environments per "
                "group, easier tasks, or algo=sft first",
            )
        if "train/explained_variance" in row:
            explained, self._lines = row["train/explained_variance"], self._lines + 1
            yield (
                "critic",
                explained < 0.02 and self._lines >= _PATIENCE,
                f"the critic explains {100 * explained:.0f} % of the returns after {self._lines} iterations: a higher "
                "algo.critic_learning_rate or a longer algo.critic_warmup may help",
            )
        self._noise_free = row.get("success/mean", self._noise_free)
        if "rollout/success_rate" in row or "rollout/success" in row:
            success = row.get("rollout/success_rate", row.get("rollout/success", 0.0))
            self._best = max(self._best, success)
            yield (
                "collapse",
                self._best >= 0.2 and success < 0.5 * self._best,
                f"success in rollouts fell from {100 * self._best:.0f} to {100 * success:.0f} %: the better policies "
                "are in checkpoints/",
            )
            free = self._noise_free
            if free is not None and free >= 0.2:
                yield (
                    "noise",
                    success < _HOT * free,
                    f"noisy rollouts succeed in {100 * success:.0f} %, the evaluated policy in {100 * free:.0f}: less "
                    "noise (algo.noise_level, or algo.density=chunk_gaussian) leaves more of the policy to improve",
                )
