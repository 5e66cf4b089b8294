"""What scenes are: layouts, instructions, success; without any engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import drawers, google_pick, move_near, place_in_drawer, widowx
from vlaser_gym.envs.tasks.base import ContactQuery, Flags, Layout, Memory, ObjectSpec, Snapshot, Task
from vlaser_gym.errors import UnknownNameError

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
    "by_robot",
    "get_task",
    "resolve",
    "task_names",
]

#: All of the Google Robot's tasks.
GOOGLE_TASKS: tuple[Task, ...] = (*google_pick.TASKS, *move_near.TASKS, *drawers.TASKS, *place_in_drawer.TASKS)
_REGISTERED: tuple[Task, ...] = (*widowx.TASKS, *GOOGLE_TASKS)
_TASKS: dict[str, Task] = {task.name: task for task in _REGISTERED}
#: Names that stand for several tasks, in the order in which they are run: one for each column of the published tables.
#: No two of them hold the same episode in any variant; other names of the same episodes
#: (``google_robot_open_top_drawer``) and further tasks (``google_robot_pick_object``) are run by their own names.
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
    """All tasks, by SimplerEnv's names."""
    return tuple(_TASKS)


def get_task(name: str) -> Task:
    """The task of that name; one instance serves everybody.

    Raises:
        UnknownNameError: with the nearest names.
    """
    if name not in _TASKS:
        raise UnknownNameError("task", name, _TASKS)
    return _TASKS[name]


def by_robot(tasks: Iterable[Task]) -> dict[str, list[Task]]:
    """Tasks grouped by their robot's name; robots and tasks in the order in which they first come."""
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(get_setup(task.robot_setup).robot.name, []).append(task)
    return groups


def resolve(spec: str | Sequence[str]) -> tuple[str, ...]:
    """Task names meant by a preset, a name, several of them separated by commas, or a list of such.

    A task named twice comes once, where it came first.

    Raises:
        UnknownNameError: for a part that is neither task nor preset.

    Example:
        >>> resolve("widowx_stack_cube, widowx_carrot_on_plate")
        ('widowx_stack_cube', 'widowx_carrot_on_plate')
        >>> len(resolve("widowx"))
        4
    """
    parts = [part.strip() for text in ([spec] if isinstance(spec, str) else spec) for part in text.split(",")]
    names: dict[str, None] = {}
    for part in parts or [""]:
        if part not in PRESETS and part not in _TASKS:
            raise UnknownNameError("task", part, [*_TASKS, *PRESETS])
        names.update(dict.fromkeys(PRESETS.get(part, (part,))))
    return tuple(names)
