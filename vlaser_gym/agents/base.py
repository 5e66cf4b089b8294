"""The agent contract: who acts in the environments.

Any class with :meth:`Agent.reset` and :meth:`Agent.act` is an agent; nothing has to be inherited.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.envs.address import Address
from vlaser_gym.errors import AgentError, GymError

Observations = Mapping[str, Any]


@runtime_checkable
class Agent(Protocol):
    """Acts for many environments at once.

    Attributes:
        observes: names of the observations that the agent reads (``image``, ``wrist_image``, ``proprio``,
            ``instruction``, ``state``); what nobody reads is not computed.
    """

    observes: tuple[str, ...]

    # An agent may also have ``describe() -> dict``: settings that decide how it acts, printed and stored with a run;
    # and ``subtask_done(lanes) -> bool [N]``, asked after ``act``: where it says yes, the instruction of a task of two
    # sub-tasks moves on to the second (by itself it does so after 100 steps);
    # and ``batch_sizes`` with ``set_batch_sizes(sizes)``: rows of its forward passes, which a server lets adapt;
    # and ``convention``: what its numbers mean, where it is not what the environments speak (docs/conventions.md);
    # and ``decided(lanes) -> list of dicts``: for each environment what its last decision was made from
    # (``store=training``); and ``explain`` with ``explained(lanes) -> list of dicts``: where the first is not None,
    # runs keep what the second tells of each environment's last decision: ``attention [g, g]`` over the image, ``places
    # [2, 3]`` of source and target; and ``thoughts(lanes) -> list of texts``, or None: what it says comes next, kept
    # with the episode after ``act``.

    def reset(self, lanes: NDArray[np.int64], addresses: Sequence[Address]) -> None:
        """Episodes with these addresses begin on these environments: forget the environments' past, seed their
        noise.
        """

    def act(self, observations: Observations, lanes: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        """Decide for ``lanes``.

        Args:
            observations: each entry has one row per environment of ``lanes`` (``instruction``: a sequence of strings).
            lanes: ``[N]``, which environments the rows belong to.

        Returns:
            ``[N, H, 7]`` actions in environment units: translation (m) and axis-angle (rad) per control step in the
            robot's base frame, and the gripper, whose sign is the robot's own: see :mod:`vlaser_gym.conventions`. All H
            are executed before the next decision.
        """


def rows_of(observations: Observations, rows: NDArray[np.int64]) -> dict[str, Any]:
    """The observations of some environments.

    Args:
        observations: arrays or sequences of texts, each with one row per environment.
        rows: ``[M]``, which rows.

    Example:
        >>> rows_of({"proprio": np.eye(3), "instruction": ("a", "b", "c")}, np.array([2]))["instruction"]
        ('c',)
    """
    return {
        name: values[rows] if isinstance(values, np.ndarray) else tuple(values[int(row)] for row in rows)
        for name, values in observations.items()
    }


@contextmanager
def agent_code(what: str) -> Iterator[None]:
    """Run code of an agent, in which anything may happen.

    Args:
        what: is run, for the error's sentence.

    Raises:
        AgentError: for any exception but errors that say themselves what is wrong.
    """
    try:
        yield
    except GymError:
        raise
    except Exception as error:
        said = (str(error).splitlines() or ["without a word"])[0]
        trace = "".join(traceback.format_exception(error))
        raise AgentError(f"{what} raised {type(error).__name__} ({said}); its traceback says where.", trace) from error
