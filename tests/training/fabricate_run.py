"""Stored runs with outcomes as one likes, without a simulator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.evaluation.store import RunStore

TASKS = ("widowx_carrot_on_plate", "widowx_stack_cube")
CONFIG: dict[str, Any] = {
    "vlaser_gym": "0.1.0",
    "look": "builtin",
    "variant": "default",
    "layouts": "grid",
    "terminate_on_success": False,
    "engine": {"name": "mujoco"},
}


def addresses(tasks: Iterable[str] = TASKS, layouts: int = 24, trials: int = 1) -> list[Address]:
    return [Address(t, "default", f"grid:{k}", r) for t in tasks for k in range(layouts) for r in range(trials)]


def fabricate_run(
    path: Path,
    outcomes: Mapping[Address, bool],
    *,
    lost: Iterable[Address] = (),
    errors: Iterable[Address] = (),
    agent: str = "random",
    engine: str = "mujoco",
    look: str = "builtin",
    states: bool = False,
    told: Mapping[Address, Sequence[str]] | None = None,
    **config: Any,
) -> Path:
    """A run of 12 steps per episode in chunks of 4.

    Successes last from step 9 on; episodes of ``lost`` succeed at step 6 alone. Whoever succeeds has passed all
    sub-goals; the others have passed those that their layout's number leaves over. The simulator crashed in ``errors``.
    ``told``: the instructions of an episode's 13 states; without them its states are those of an earlier version, which
    did not keep them.
    """
    lost, errors = set(lost), set(errors)
    with RunStore(path, {**CONFIG, **config}) as store:
        for address, success in outcomes.items():
            flags = _flags(address, success, address in lost)
            record = _record(address, flags, agent, engine, look)
            if address in errors:
                store.add(_crashed(record), None)
            else:
                store.add(record, _states(flags, (told or {}).get(address)) if states else None)
    return path


def plain_record(address: Address, **extra: Any) -> dict[str, Any]:
    """Of an episode of any task, known or not: a success in 3 steps, but for what is told."""
    where = {"task": address.task, "variant": address.variant, "layout": address.layout, "trial": address.trial}
    who = {"instruction": "put it there", "agent": "x", "engine": "mujoco", "engine_version": "1", "look": "builtin"}
    outcome = {"success": True, "success_any": True, "first_success_step": 2, "steps": 3, "reward": 1.0}
    flags = {"flags": {"x": True, "success": True}, "flags_any": {"x": True, "success": True}}
    return {**where, **who, **outcome, "ending": "truncated", **flags, "error": None, **extra}


def _flags(address: Address, success: bool, lost: bool) -> dict[str, np.ndarray]:
    task = get_task(address.task)
    flags = {name: np.zeros(12, bool) for name in task.flags}
    passed = task.subgoals if success or lost else task.subgoals[: address.layout_index % len(task.subgoals)]
    for order, name in enumerate(passed):
        flags[name][2 + order :] = True
    flags["success"][:] = False
    flags["success"][8:] = success
    flags["success"][5] = lost
    return flags


def _instruction(address: Address) -> str:
    """What the robot is told; fabricated grids may be larger than the task's own."""
    task = get_task(address.task)
    own = f"grid:{address.layout_index % task.num_layouts}"
    return task.instruction(own if address.layout_kind == "grid" else address.layout)


def _record(address: Address, flags: Mapping[str, np.ndarray], agent: str, engine: str, look: str) -> dict[str, Any]:
    success = flags["success"]
    where = {"task": address.task, "variant": address.variant, "layout": address.layout, "trial": address.trial}
    return {
        **where,
        "instruction": _instruction(address),
        "agent": agent,
        "engine": engine,
        "engine_version": "1",
        "look": look,
        "success": bool(success[-1]),
        "success_any": bool(success.any()),
        "first_success_step": int(np.argmax(success)) + 1 if success.any() else None,
        "steps": 12,
        "reward": float(success.sum()),
        "ending": "truncated",
        "flags": {name: bool(values[-1]) for name, values in flags.items()},
        "flags_any": {name: bool(values.any()) for name, values in flags.items()},
        "error": None,
    }


def _crashed(record: Mapping[str, Any]) -> dict[str, Any]:
    flags = dict.fromkeys(record["flags"], False)
    nothing = {"success": False, "success_any": False, "first_success_step": None, "steps": 0, "reward": 0.0}
    return {**record, **nothing, "ending": "error", "flags": flags, "flags_any": flags, "error": "diverged"}


def _states(flags: Mapping[str, np.ndarray], told: Sequence[str] | None) -> dict[str, np.ndarray]:
    texts = {} if told is None else {"instruction": np.array(told)}
    return {"decision": np.array([0, 4, 8]), **texts, **{f"flag/{name}": values for name, values in flags.items()}}
