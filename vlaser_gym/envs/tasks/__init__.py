"""Scene descriptions independent of engines: layouts, instructions, success."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import drawers, google_pick, move_near, place_in_drawer, widowx
from vlaser_gym.envs.tasks.base import ContactQuery, Flags, Layout, Memory, ObjectSpec, Snapshot, Task
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.registry import import_string

__all__ = [
    "GOOGLE_TASKS",
    "PRESETS",
    "ContactQuery",
    "Flags",
    "Layout",
    "Memory",
    "ObjectSpec",
    "Snapshot",
    "Task",
    "add_task",
    "added_tasks",
    "by_robot",
    "get_task",
    "resolve",
    "task_names",
]

#: All of the Google Robot's tasks.
GOOGLE_TASKS: tuple[Task, ...] = (*google_pick.TASKS, *move_near.TASKS, *drawers.TASKS, *place_in_drawer.TASKS)
_TASKS: dict[str, Task] = {task.name: task for task in (*widowx.TASKS, *GOOGLE_TASKS)}
_ADDED: dict[str, Task] = {}
#: Names that stand for several tasks, in the order in which they are run: one for each column of the published tables.
#: No two of them hold the same episode in any variant; other names of the same episodes
#: (``google_robot_open_top_drawer``) and further tasks (``google_robot_pick_object``) are run by their own names. The
#: lists are fixed: tasks from outside are in none.
PRESETS: dict[str, tuple[str, ...]] = {
    "widowx": tuple(task.name for task in widowx.TASKS),
    "google_robot": (
        "google_robot_pick_coke_can",
        "google_robot_move_near_v0",
        "google_robot_open_drawer",
        "google_robot_close_drawer",
        "google_robot_place_apple_in_closed_top_drawer",
    ),
}


def task_names() -> tuple[str, ...]:
    """All tasks: the benchmark's, by SimplerEnv's names, then those added."""
    return (*_TASKS, *_ADDED)


def get_task(name: str) -> Task:
    """The task of that name; one instance serves everybody.

    Args:
        name: of a task that is known, or ``module:object``, an import string of one, which becomes known by that.

    Raises:
        UnknownNameError: with the nearest names.
        InvalidConfigError: for an import string that stands for no task.
    """
    if ":" in name:
        return add_task(import_string(name, "task"))
    known = {**_TASKS, **_ADDED}
    if name not in known:
        raise UnknownNameError("task", name, known)
    return known[name]


def add_task(task: Task) -> Task:
    """Make a task known by its name; of one name, the task added last counts.

    Returns:
        The task itself.

    Raises:
        InvalidConfigError: for something else, the name of one of the gym's own tasks or presets, or one that an
            address cannot hold.
    """
    if not isinstance(task, Task):
        raise InvalidConfigError(f"Expected an object of a subclass of Task; got {type(task).__name__}: {task!r:.99}.")
    if _TASKS.get(task.name, task) is not task or task.name in PRESETS:
        raise InvalidConfigError(f"The task {task.name!r} is the gym's own: give yours another name.")
    if not re.fullmatch(r"[\w.-]+", task.name):
        raise InvalidConfigError(
            f"A task's name consists of letters, digits, underscores, hyphens and dots; got {task.name!r}."
        )
    get_setup(task.robot_setup)
    if task.name not in _TASKS:
        _ADDED[task.name] = task
    return task


def added_tasks() -> tuple[Task, ...]:
    """Tasks that :func:`add_task` was given."""
    return tuple(_ADDED.values())


def by_robot(tasks: Iterable[Task]) -> dict[str, list[Task]]:
    """Tasks grouped by their robot's name; robots and tasks in the order in which they first come."""
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(get_setup(task.robot_setup).robot.name, []).append(task)
    return groups


def resolve(spec: str | Sequence[str]) -> tuple[str, ...]:
    """Task names meant by a preset, a name, several of them separated by commas, or a list of such.

    A task named twice comes once, where it came first. Import strings are names too; see :func:`get_task`.

    Raises:
        UnknownNameError: for a part that is neither task nor preset.
        InvalidConfigError: for an import string that stands for no task.

    Example:
        >>> resolve("widowx_stack_cube, widowx_carrot_on_plate")
        ('widowx_stack_cube', 'widowx_carrot_on_plate')
        >>> len(resolve("widowx"))
        4
    """
    parts = [part.strip() for text in ([spec] if isinstance(spec, str) else spec) for part in text.split(",")]
    names: dict[str, None] = {}
    for part in parts or [""]:
        name = get_task(part).name if ":" in part else part
        if name not in PRESETS and name not in task_names():
            raise UnknownNameError("task", name, [*task_names(), *PRESETS])
        names.update(dict.fromkeys(PRESETS.get(name, (name,))))
    return tuple(names)
