"""The sub-tasks of the gym's tasks, and which of them comes next in a state.

The rules look at one state: they hold for whoever brought it about. Lengths in metres.
"""

from __future__ import annotations

import numpy as np

from vlaser_gym.reasoning.episodes import Episode
from vlaser_gym.reasoning.things import GRIPPER

#: Closer than this to an object's centre, the gripper closes; farther, it goes there.
REACHED = 0.05
#: A drawer's handle is reached over the drawer's front, from where it is hooked.
HANDLE_REACHED = 0.12
#: What has risen less than this is not lifted yet; what is closer to its goal in the plane is put down.
LIFTED, OVER = 0.03, 0.03
#: A drawer that is open this far takes an object.
WIDE = 0.15
DONE = "nothing, the task is done"


def subtasks(episode: Episode, step: int) -> list[str]:
    """The sub-tasks of what the robot is told at a step, in their order; the last one says that nothing is left."""
    source, target, drawer = episode.source, episode.target, episode.drawer
    if episode.closes:
        return [f"move the gripper to the {drawer} drawer", f"push the {drawer} drawer shut", DONE]
    opening = [f"move the gripper to the {drawer} drawer", f"pull the {drawer} drawer open"] if drawer else []
    if episode.things[source].kind == "handle" or episode.opens_first(step):
        return [*opening, DONE]
    grasp = [f"move the gripper to the {source}", f"close the gripper on the {source}", f"lift the {source}"]
    if drawer:
        return [*opening, *grasp, f"carry the {source} over the {drawer} drawer", f"let go of the {source}", DONE]
    if not target:
        return [*grasp, DONE]
    return [*grasp, f"carry the {source} to the {target}", f"put the {source} down", DONE]


def next_subtask(episode: Episode, step: int) -> int | None:
    """Number of the sub-task that comes next; ``None`` where the state does not say."""
    count = len(subtasks(episode, step))
    held = episode.held(step)
    if held is None or held not in ("", episode.source):
        return None
    if episode.opens_first(step) and episode.done(step):
        return count - 1
    if episode.flag("success", step) and not (held and count > 4):
        return count - 1
    rule = _with_drawer if episode.drawer else _with_object
    found = rule(episode, step, bool(held), 0)
    return found if found is None or found < count - 1 else None


def _with_drawer(episode: Episode, step: int, held: bool, _first: int) -> int | None:
    handle = f"handle of the {episode.drawer} drawer"
    near = episode.distance(GRIPPER, handle, step) < HANDLE_REACHED
    if episode.source == handle:
        return 1 if near else 0
    if not held and episode.rise(episode.source, step) < -LIFTED:
        return None
    if not held and episode.openings(step)[episode.drawer] < WIDE:
        return 1 if near else 0
    return _with_object(episode, step, held, 2)


def _with_object(episode: Episode, step: int, held: bool, first: int) -> int | None:
    """The first of these sub-tasks, to reach the object, has the number ``first``."""
    if not held:
        return first + (episode.distance(GRIPPER, episode.source, step) < REACHED)
    if episode.rise(episode.source, step) < LIFTED:
        return first + 2
    return first + 3 + _is_over_goal(episode, step)


def _is_over_goal(episode: Episode, step: int) -> bool:
    source = episode.centres[episode.source][step, :2]
    if not episode.drawer:
        if not episode.target or episode.flag("near_tgt_obj", step):
            return bool(episode.target)
        return bool(np.linalg.norm(source - episode.centres[episode.target][step, :2]) < OVER)
    handle = episode.centres[f"handle of the {episode.drawer} drawer"][step, :2]
    # Between the drawer's front and the cabinet's, across the middle of the drawer.
    behind = handle[0] - source[0]
    return bool(0.03 < behind < episode.openings(step)[episode.drawer] and abs(source[1] - handle[1]) < 0.15)
