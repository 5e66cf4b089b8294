"""The share of the data that a policy's statistics clip: the policy sees values outside their bounds as the bound.

Labels beyond the bounds cannot be taught, and the policy cannot tell proprioception beyond them apart.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vlaser_gym.agents.vlaser.statistics import ACTION_NAMES, PROPRIO_NAMES, Statistics
from vlaser_gym.training.data.demonstrations import Demonstrations

#: Share of a dimension's values above which :meth:`Clipped.warnings` speaks. The bounds are the 1st and 99th percentile
#: of the policy's own data, which lose 2 % in every dimension; five times as much is another distribution of motions.
WORTH_A_WARNING = 0.10
_REMEDIES = {
    "action": "algo.statistics=data takes the data's bounds, and has to learn anew what the policy's outputs mean",
    "proprio": "algo.statistics=widen takes bounds that hold these too and changes no answer within the old ones",
}


@dataclass(frozen=True)
class Clipped:
    """Shares of the data outside a policy's bounds, 0 to 1, by dimension.

    Attributes:
        action: of the actions of all control steps; the gripper is not normalised.
        proprio: of the proprioception of all rows.
    """

    action: dict[str, float]
    proprio: dict[str, float]

    @classmethod
    def of(cls, data: Demonstrations, statistics: Statistics) -> Clipped:
        """The clipped share of each dimension of some data under some statistics."""
        action, proprio = statistics.action.clipped(data.steps), statistics.proprio.clipped(data.proprio)
        return cls(
            action={name: float(share) for name, share in zip(ACTION_NAMES, action, strict=False)},
            proprio={name: float(share) for name, share in zip(PROPRIO_NAMES[data.robot], proprio, strict=True)},
        )

    def line(self) -> str:
        """All clipped shares (%) as one line of text."""
        parts = [
            f"{kind} " + ", ".join(f"{name} {100 * share:.1f}" for name, share in shares.items())
            for kind, shares in self._kinds
        ]
        return f"Share of the data that they clip, in % (2 for a policy's own): {'; '.join(parts)}"

    def warnings(self) -> list[str]:
        """One sentence for actions and one for proprioception, where a dimension loses more than is harmless."""
        said = {"action": "these motions cannot be taught", "proprio": "the policy cannot tell these states apart"}
        sentences = []
        for kind, shares in self._kinds:
            large = [f"{name} {100 * share:.0f} %" for name, share in shares.items() if share > WORTH_A_WARNING]
            if large:
                sentences.append(
                    f"{kind} {', '.join(large)} of the data lies outside the bounds (more than "
                    f"{100 * WORTH_A_WARNING:.0f} %) and is clipped, so that {said[kind]}; "
                    f"{_REMEDIES[kind]}."
                )
        return sentences

    @property
    def _kinds(self) -> tuple[tuple[str, dict[str, float]], ...]:
        return ("action", self.action), ("proprio", self.proprio)


@dataclass(frozen=True)
class Normalisation:
    """Statistics by which a run of supervised training goes.

    Attributes:
        whose: ``"keep"`` (the policy's), ``"widen"`` (its own, wider for proprioception), ``"data"``, or ``"run"`` (of
            the run that goes on).
        clipped: what they clip of the data.
    """

    whose: str
    clipped: Clipped

    def record(self) -> dict[str, Any]:
        """Entry for ``starts.jsonl``."""
        return {"statistics": self.whose, "clipped": asdict(self.clipped)}

    def lines(self) -> list[str]:
        """Lines for the screen."""
        if self.whose == "data":
            return ["Statistics: those of the data."]
        words = {
            "keep": "those of the policy",
            "widen": "those of the policy, widened for proprioception",
            "run": "those that the run began with",
        }[self.whose]
        warnings = [f"Warning: {sentence}" for sentence in self.clipped.warnings()]
        return [f"Statistics: {words}. {self.clipped.line()}.", *warnings]
