"""The algorithms by name; others are added by :func:`register_algorithm`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.registry import import_string
from vlaser_gym.settings.algorithms import (
    ALGORITHM_SETTINGS,
    DpoSettings,
    GrpoSettings,
    NftSettings,
    PpoSettings,
    RftSettings,
    Sb3PpoSettings,
    Sb3SacSettings,
    SftSettings,
    VlmSettings,
)

if TYPE_CHECKING:
    from vlaser_gym.training.job import Job


class Learner(Protocol):
    """The interface that the command runs; :class:`~vlaser_gym.training.trainer.Trainer` implements it."""

    def describe(self) -> str:
        """One sentence about what is trained."""

    def run(self, stop: Callable[[], bool]) -> bool:
        """Train until all is done, or ``stop`` says yes; returns whether all is done."""

    def summary(self) -> str:
        """The progress of the run and the path of its result, as a sentence."""

    def record(self) -> dict[str, Any]:
        """The values that a start of the run keeps besides the settings."""

    def close(self) -> None:
        """Release environments and processes."""


@dataclass(frozen=True)
class Algorithm:
    """A training algorithm as the registry holds it.

    Attributes:
        settings: dataclass of its keys below ``algo``.
        build: from a :class:`~vlaser_gym.training.job.Job` to a learner; an import string is imported when needed.
        needs_policy: whether it goes on from a trained policy, and learns from what that did.
        single_process: whether torchrun cannot help it.
        unread: keys of the command that it does not read, and why.
    """

    settings: type[Any]
    build: str | Callable[[Job], Learner]
    needs_policy: bool = True
    single_process: bool = False
    unread: tuple[tuple[str, str], ...] = ()

    def learner(self, job: Job) -> Learner:
        """Build the learner."""
        build = import_string(self.build, "algo") if isinstance(self.build, str) else self.build
        learner: Learner = build(job)
        return learner


_OWN_STEPS = "which logs in its own steps and has algo.save_every"
_NO_DATA = ("gripper", "which reads no data set")
_NO_QUESTIONS = ("questions", "which learns no answers; take algo=sft or algo=vlm")
_EVEN = ("task_shares", "where no task comes more often than another")
_ON_POLICY = (("log_every", _OWN_STEPS), ("save_every", _OWN_STEPS), _NO_DATA, _NO_QUESTIONS)
_ROUNDS = (_NO_DATA, _NO_QUESTIONS, _EVEN)
_QUESTIONS_ARE_DATA = (
    *((key, "whose data are questions") for key in ("questions", "columns", "convention", "fps", "gripper")),
    ("evaluate_every", "which does not act; ask it by python -m vlaser_gym.reason"),
    _EVEN,
)
_SCALING = ("checkpointing", "weights", "optimizer", "shard", "compile")
_STOCK = (
    *_ON_POLICY,
    ("evaluate_every", "which evaluates at the end"),
    _EVEN,
    *((key, "whose networks are small") for key in _SCALING),
)
_HERE = "vlaser_gym.training"
ALGORITHMS: dict[str, Algorithm] = {
    "sft": Algorithm(SftSettings, f"{_HERE}.sft:build", needs_policy=False, unread=(_EVEN,)),
    "vlm": Algorithm(VlmSettings, f"{_HERE}.answering:build", needs_policy=False, unread=_QUESTIONS_ARE_DATA),
    "ppo": Algorithm(PpoSettings, f"{_HERE}.ppo:build", unread=_ON_POLICY),
    "grpo": Algorithm(GrpoSettings, f"{_HERE}.grpo:build", unread=_ON_POLICY),
    "dpo": Algorithm(DpoSettings, f"{_HERE}.dpo:build", unread=_ROUNDS),
    "nft": Algorithm(NftSettings, f"{_HERE}.nft:build", unread=_ROUNDS),
    "rft": Algorithm(RftSettings, f"{_HERE}.rft:build", unread=_ROUNDS),
    "sb3_ppo": Algorithm(
        Sb3PpoSettings, f"{_HERE}.stock:build", needs_policy=False, single_process=True, unread=_STOCK
    ),
    "sb3_sac": Algorithm(
        Sb3SacSettings, f"{_HERE}.stock:build", needs_policy=False, single_process=True, unread=_STOCK
    ),
}


def register_algorithm(name: str, algorithm: Algorithm) -> None:
    """Add an algorithm under a name, for ``algo=NAME``; its keys, help and checks come from its settings."""
    ALGORITHMS[name] = algorithm
    ALGORITHM_SETTINGS[name] = algorithm.settings


def get_algorithm(name: str) -> Algorithm:
    """An algorithm by name, or by import string such as ``my_module:ALGORITHM``.

    Raises:
        UnknownNameError: for another name.
        InvalidConfigError: if what is imported is no algorithm.
    """
    if ":" in name:
        found = import_string(name, "algo")
        if not isinstance(found, Algorithm):
            raise InvalidConfigError(f"algo={name} should name a {Algorithm.__module__}.Algorithm; got {found!r}.")
        return found
    if name not in ALGORITHMS:
        raise UnknownNameError("algorithm", name, ALGORITHMS)
    return ALGORITHMS[name]
