"""Fifty steps of fine-tuning in every way that saves memory, beside plain fine-tuning.

``python tests/training/fifty_steps.py toy FOLDER`` (or ``nano``) prints the table of docs/scaling.md. Toy begins with
random weights, nano with those that come with the package, which have something to lose.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import scaled
from demonstrations import write_set

from vlaser_gym.agents.vlaser.agent import open_policy
from vlaser_gym.agents.vlaser.trainable import TrainableVlaser
from vlaser_gym.evaluation.lerobot import LeRobotReader
from vlaser_gym.training.data.demonstrations import Batches, Demonstrations
from vlaser_gym.training.scaling import Scaling
from vlaser_gym.training.sft import SupervisedFineTuning
from vlaser_gym.training.trainer import RunOptions

STEPS = 50
EVERYWHERE = ("vision", "language", "expert")


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to fine-tune, and how far its losses may be from plain fine-tuning's on the same batches and draws.

    Attributes:
        changes: of settings and :class:`Scaling`.
        each: bound of every step's loss, relative to plain.
        end: bound of the mean of the last ten.
    """

    changes: dict[str, Any]
    each: float
    end: float


PLAIN = Way({}, 0.0, 0.0)
#: Recomputed layers are the same operations on the same numbers. A bf16 number has 8 bits: each rounding is off by up
#: to 2^-9; a velocity passes about a hundred of them, which do not add up, and is off by 2 %, its square, the loss, by
#: 4 %, and the mean of ten steps by less. Adapters are another model with a rate of their own, for nano ten times that
#: of its weights: of rank 8 they are to stay within a quarter.
ADAPTERS = {"lora": 8, "learning_rate": 3e-3, "expert_learning_rate": 3e-3}
WAYS = {
    "recomputed layers": Way({"scaling": {"checkpointing": EVERYWHERE}}, 0.0, 0.0),
    "bf16 weights": Way({"scaling": {"weights": "bfloat16"}}, 0.05, 0.02),
    "bf16 products": Way({"precision": "bfloat16"}, 0.05, 0.02),
    "adapters": Way(ADAPTERS, 0.25, 0.25),
    "adapters on bf16 weights": Way({**ADAPTERS, "scaling": {"weights": "bfloat16"}}, 0.25, 0.25),
}


def build_nano(data: Path, path: Path, *, scaling: dict[str, Any] | None = None, **changes: Any) -> Any:
    """Fine-tuning that goes on from the shipped weights."""
    agent = TrainableVlaser(*open_policy("nano"), seed=5)
    demonstrations = Demonstrations([LeRobotReader(data)], "widowx", agent.horizon, agent.resize)
    rates = {"learning_rate": 3e-4, "expert_learning_rate": 3e-4}
    settings = dataclasses.replace(scaled.SETTINGS, **{**rates, **changes})
    options = RunOptions(5, save_every=100, log_every=100, scaling=Scaling(**(scaling or {})))
    return SupervisedFineTuning(agent, Batches(demonstrations, agent, 5), settings, path, options)


BUILD = {"toy": scaled.build, "nano": build_nano}


def losses(policy: str, data: Path, path: Path, way: Way) -> np.ndarray:
    """The imitation loss of every step."""
    trainer = BUILD[policy](data, path, steps=STEPS, **way.changes)
    return np.array([float(trainer.take_step()["imitation"]) for _ in range(STEPS)])


def differences(found: np.ndarray, plain: np.ndarray) -> tuple[float, float]:
    """The largest of a step, and that of the mean of the last ten, relative to plain."""
    return float(np.abs(found / plain - 1).max()), float(abs(found[-10:].mean() / plain[-10:].mean() - 1))


def row(name: str, found: np.ndarray, plain: np.ndarray) -> str:
    each, end = (f"{100 * difference:.2f} %" for difference in differences(found, plain))
    return "| " + " | ".join([name, *(f"{found[step - 1]:.4f}" for step in (10, 25, 50)), each, end]) + " |"


if __name__ == "__main__":
    policy, folder = sys.argv[1], Path(sys.argv[2])
    data = write_set(folder / "set", 4)
    plain = losses(policy, data, folder / "plain", PLAIN)
    print(row(f"{policy}, plain", plain, plain))  # noqa: T201
    for name, way in WAYS.items():
        print(row(f"{policy}, {name}", losses(policy, data, folder / name, way), plain))  # noqa: T201
