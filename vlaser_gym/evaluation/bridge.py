"""The figures of :mod:`.parity` for ManiSkill's own bridge environments: the same recordings, played there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.envs.bridge import Begin, BridgeEnvironments, Course, own_episode
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.evaluation.parity import (
    INITIAL,
    Episode,
    Floats,
    Recordings,
    initial_errors,
    motion_figures,
    outcome_figures,
    response_error,
    response_of,
    steps_before_failure,
)

#: Where free motions leave the objects, m: out of reach of everything.
_AWAY = (3.0, 0.0, 0.0)
_NOTHING = np.zeros((0, 7))


def bridge_task_figures(
    recordings: Recordings, task: str, environments: BridgeEnvironments
) -> Iterator[dict[str, Any]]:
    """Two rows of a task: replays from the recorded object poses, and from ManiSkill's own reset of the layout.

    Initial figures say how far from the recorded start everything begins. Success is by ManiSkill's rules.
    """
    for name, recorded in ((task, True), (f"{task}, own reset", False)):
        errors = []
        for episode in recordings.episodes("reset", task):
            _, meta, arrays = episode
            course = environments.play(task, _begin(task, episode, recorded), _NOTHING)
            objects = {f"object/{body}": poses[0] for body, poses in course.object_pose.items()}
            state = {"qpos": course.qpos[0]} | objects
            errors.append(initial_errors(get_task(task), meta, arrays, state, course.base_pose))
        replays = list(recordings.episodes("replay_task", task))
        outcomes = [_outcome(task, episode, environments, recorded) for episode in replays]
        initial = dict(zip(INITIAL, np.max(errors, 0).tolist(), strict=True)) if errors else dict.fromkeys(INITIAL)
        yield {"task": name, **initial, **outcome_figures(replays, outcomes)}


def bridge_robot_figures(recordings: Recordings, environments: BridgeEnvironments) -> dict[str, Any]:
    """Reference response and free motions of ManiSkill's WidowX."""
    response = response_of("widowx")
    start, path = _free_motion(environments, response.task, response.actions)
    figures: dict[str, Any] = {
        "robot": "widowx",
        "response_steps": len(response.actions),
        "response_mm": response_error(response, start, path),
        "free": [],
    }
    for key, meta, arrays in recordings.episodes("replay_free", "widowx"):
        _, path = _free_motion(environments, response.task, arrays["action"][: steps_before_failure(arrays)])
        figures["free"].append(motion_figures(key, meta, arrays, path))
    return figures


def _free_motion(environments: BridgeEnvironments, task: str, actions: NDArray[Any]) -> tuple[Floats, Floats]:
    names = [spec.name for spec in get_task(task).objects_of("")]
    away = {name: np.array([*np.multiply(_AWAY, i), 1, 0, 0, 0]) for i, name in enumerate(names, 1)}
    tcp = environments.play(task, Begin(0, away), actions).tcp
    return tcp[0], tcp[1:]


def _outcome(task: str, episode: Episode, environments: BridgeEnvironments, recorded: bool) -> dict[str, Any]:
    _, meta, arrays = episode
    course = environments.play(task, _begin(task, episode, recorded), arrays["action"])
    return {"ours": bool(course.success[-1]), "source_max_mm": _departure(course, meta, arrays)}


def _departure(course: Course, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> float:
    """The largest distance (mm) between the source and its recorded position, over all actions."""
    source = meta["source_object"]
    recorded = arrays["obj_pose"][1:, meta["object_names"].index(source), :3]
    return float(np.linalg.norm(course.object_pose[source][1:, :3] - recorded, axis=1).max()) * 1000


def _begin(task: str, episode: Episode, recorded: bool) -> Begin:
    """ManiSkill's episode of the recorded layout; with the recorded poses at its start where they are asked for."""
    _, meta, arrays = episode
    number = own_episode(task, int(meta["reset_options"]["obj_init_options"]["episode_id"]))
    if not recorded:
        return Begin(number)
    first = arrays["obj_pose"].reshape(-1, len(meta["object_names"]), 7)[0]
    return Begin(number, dict(zip(meta["object_names"], np.asarray(first, np.float64), strict=True)))
