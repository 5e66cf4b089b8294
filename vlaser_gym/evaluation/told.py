"""The instruction, and the policy's own words, in every state of a stored episode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.envs.tasks import get_task
from vlaser_gym.evaluation.store import Record


def instructions_told(record: Record, states: Mapping[str, NDArray[Any]]) -> list[str]:
    """Instructions in the initial state and after each control step, ``[T + 1]``.

    Args:
        record: of the episode.
        states: its states, of which ``instruction`` is read. Runs of earlier versions lack it: nobody knows then when
            the second stage of a task began, and the answer says so.
    """
    if "instruction" in states:
        return [str(text) for text in states["instruction"]]
    first, steps = str(record["instruction"]), int(record["steps"])
    task = get_task(record["task"])
    stages = {task.instruction(record["layout"], record["variant"], stage) for stage in (0, 1)}
    later = first if len(stages) == 1 else f"unknown (at the start: {first})"
    return [first] + [later] * steps


def thoughts_had(states: Mapping[str, NDArray[Any]], steps: int) -> list[str]:
    """The agent's last words at the initial state and after each control step, ``[T + 1]``; empty without any.

    Args:
        states: of the episode, of which ``decision`` and ``thought`` are read.
        steps: control steps T.
    """
    if "thought" not in states or "decision" not in states:
        return []
    last = np.searchsorted(states["decision"], np.arange(steps + 1), side="right") - 1
    return [str(states["thought"][i]) for i in last]


def changes(told: Sequence[str]) -> list[tuple[int, str]]:
    """Each sentence with the step after which it was told first: ``["a", "a", "b"]`` -> ``[(0, "a"), (2, "b")]``."""
    runs = [(text, len(list(group))) for text, group in groupby(told)]
    begins = [sum(length for _, length in runs[:i]) for i in range(len(runs))]
    return [(begin, text) for begin, (text, _) in zip(begins, runs, strict=True)]
