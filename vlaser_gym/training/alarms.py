"""What in a run's numbers should worry somebody, in plain words."""

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
        self._sounding: set[str] = set()

    def look(self, row: Mapping[str, float]) -> list[str]:
        """Sentences about a line of numbers."""
        self._lines += 1
        found = {kind: said for kind, sounds, said in self._judge(row) if sounds}
        new = [said for kind, said in found.items() if kind not in self._sounding]
        self._sounding = set(found)
        return new

    def _judge(self, row: Mapping[str, float]) -> Iterator[tuple[str, bool, str]]:
        """Of each kind of alarm: its name, whether it sounds, and what it says."""
        kl, clipped = row.get("train/approx_kl", 0.0), row.get("train/clip_fraction", 0.0)
        limit = _RUNAWAY if self.target_kl is None else _FAR * self.target_kl
        self.ran_away = not kl <= limit
        yield (
            "divergence",
            self.ran_away,
            f"the policy moved {kl:.3g} nat away from its rollout (more than {limit:g}): lower algo.learning_rate, and "
            "go back to an earlier policy in checkpoints/",
        )
        yield (
            "clipping",
            clipped > 0.5,
            f"{100 * clipped:.0f} % of the likelihood ratios are clipped, so that these decisions teach nothing: lower "
            "algo.learning_rate or algo.epochs",
        )
        self._idle = self._idle + 1 if row.get("rollout/useful_groups") == 0 else 0
        yield (
            "groups",
            self._idle >= _IDLE,
            "no group had both successes and failures, so that nothing is learned: take more environments per group, "
            "easier tasks, or algo=sft first",
        )
        explained = row.get("train/explained_variance", 1.0)
        yield (
            "critic",
            explained < 0.02 and self._lines >= _PATIENCE,
            f"the critic explains {100 * explained:.0f} % of the returns after {self._lines} iterations: a higher "
            "algo.critic_learning_rate or a longer algo.critic_warmup may help",
        )
        success = row.get("rollout/success_rate", row.get("rollout/success", self._best))
        self._best = max(self._best, success)
        yield (
            "collapse",
            self._best >= 0.2 and success < 0.5 * self._best,
            f"success in rollouts fell from {100 * self._best:.0f} to {100 * success:.0f} %: the better policies are "
            "in checkpoints/",
        )
