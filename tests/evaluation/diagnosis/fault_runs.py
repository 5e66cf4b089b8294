"""Episodes of the faulty expert, and the plan of the confusion table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import groupby

import numpy as np
from faulty import FaultyExpert
from gymnasium.vector import AutoresetMode

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.evaluation.diagnosis import Diagnosis, diagnose
from vlaser_gym.evaluation.runner import EpisodeResult, Runner

CARROT, SPOON, CUBE = "widowx_carrot_on_plate", "widowx_spoon_on_towel", "widowx_stack_cube"
EGGPLANT = "widowx_put_eggplant_in_basket"
COKE, NEAR = "google_robot_pick_coke_can", "google_robot_move_near_v0"
OPEN, CLOSE = "google_robot_open_drawer", "google_robot_close_drawer"
APPLE = "google_robot_place_apple_in_closed_top_drawer"

#: Fault -> how many episodes of which task.
SLOW_PLAN: dict[str, dict[str, int]] = {
    "never_approached": {CARROT: 3, CUBE: 3, EGGPLANT: 3, COKE: 3, NEAR: 3, OPEN: 3},
    "closed_on_nothing": {CARROT: 4, CUBE: 4, SPOON: 3, COKE: 4, NEAR: 3, OPEN: 3, CLOSE: 2},
    "pushed_away": {CARROT: 4, CUBE: 8, SPOON: 3, COKE: 4, NEAR: 3},
    "wrong_object": {CUBE: 12, NEAR: 8},
    "dropped": {CARROT: 5, CUBE: 4, SPOON: 4, EGGPLANT: 4, APPLE: 4},
    "placed_beside": {CARROT: 5, CUBE: 5, SPOON: 5, NEAR: 6, APPLE: 3},
    "lost_again": {CARROT: 5, CUBE: 6, SPOON: 5, OPEN: 5},
    "drawer_short": {OPEN: 9, CLOSE: 9},
    "wrong_drawer": {OPEN: 20},
    "out_of_time": {CARROT: 4, CUBE: 5, SPOON: 4, NEAR: 4, APPLE: 3},
    "wrong_stage": {APPLE: 18},
}
FAST_PLAN: dict[str, dict[str, int]] = {
    "never_approached": {CUBE: 1}, "closed_on_nothing": {CUBE: 1, CARROT: 1}, "pushed_away": {CUBE: 1},
    "wrong_object": {CUBE: 1}, "dropped": {CUBE: 1}, "placed_beside": {CARROT: 1}, "lost_again": {CUBE: 1},
    "out_of_time": {CUBE: 1}, "drawer_short": {OPEN: 1}, "wrong_drawer": {OPEN: 1}, "wrong_stage": {APPLE: 1},
}  # fmt: skip


def planned(plan: Mapping[str, Mapping[str, int]]) -> dict[Address, str]:
    """Address -> fault. A fault's episodes are spread over the task's layouts; faults differ in their trial.

    The numbers of the rules were set on the neighbouring layouts; the cabinet's few layouts are in both sets.
    """
    faults = {}
    for number, (fault, tasks) in enumerate(plan.items()):
        for task, count in tasks.items():
            total = get_task(task).num_layouts
            layouts = (np.linspace(0, total - 1, count + 2)[1:-1].round().astype(int) + 1) % total
            faults |= {Address(task, "default", f"grid:{k}", number): fault for k in layouts.tolist()}
    return faults


def run_faults(faults: Mapping[Address, str], lanes: int = 8) -> Iterable[EpisodeResult]:
    """Every episode once, robot after robot."""

    def robot(address: Address) -> str:
        return get_setup(get_task(address.task).robot_setup).robot.name

    for _, group in groupby(sorted(faults, key=robot), robot):
        mine = list(group)
        tasks = list(dict.fromkeys(address.task for address in mine))
        env = SceneVectorEnv(tasks, min(lanes, len(mine)), observe=("state",), record_states=True,
                             autoreset_mode=AutoresetMode.DISABLED)  # fmt: skip
        try:
            yield from Runner(env, FaultyExpert(faults), mine)
        finally:
            env.close()


def record_of(result: EpisodeResult) -> dict:
    """What the rules read of a record."""
    address = result.address
    where = {"task": address.task, "variant": address.variant, "layout": address.layout, "trial": address.trial}
    return {**where, "success": result.success, "success_any": result.success_any, "error": None, "steps": result.steps}


def diagnosed(faults: Mapping[Address, str]) -> list[tuple[str, Diagnosis, EpisodeResult]]:
    """The fault, the diagnosis and the episode, of those that failed: a fault need not spoil every episode."""
    rows = [(faults[r.address], diagnose(record_of(r), r.trajectory), r) for r in run_faults(faults)]
    return [row for row in rows if not row[2].success]


def confusion(rows: Iterable[tuple[str, Diagnosis, EpisodeResult]]) -> dict[str, Counter]:
    """Fault -> class -> number."""
    table: dict[str, Counter] = {}
    for fault, diagnosis, _ in rows:
        table.setdefault(fault, Counter())[diagnosis.failure] += 1
    return table
