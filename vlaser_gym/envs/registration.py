"""Gymnasium ids: ``vlaser_gym/<SimplerEnv task name>`` for every task.

``gymnasium.make(id)`` gives one episode at a time, ``gymnasium.make_vec(id, num_envs=N)`` many environments at once
with Gymnasium's own autoreset mode, NEXT_STEP. ``vlaser_gym/<task>-state`` is the same scene for libraries that want
one
array in and one out: the privileged state, and actions from -1 to 1 (:mod:`vlaser_gym.wrappers.state`).
"""

from __future__ import annotations

import gymnasium

from vlaser_gym.envs.tasks import Task, add_task, get_task, task_names

#: What stands behind a task's name in the id of its array-shaped environment.
STATE_SUFFIX = "-state"


def register_environments() -> None:
    """Register all tasks with Gymnasium. Calling it again changes nothing."""
    for name in task_names():
        _register(name)


def register_task(task: Task) -> Task:
    """Make a task of one's own known by its name, as the benchmark's are: to environments and commands of this process,
    to Gymnasium (``vlaser_gym/<name>``), and to the processes and workers that these start.

    A command finds it as ``task=module:object``, which registers the object. Presets stay what they are. Of one name,
    the task registered last counts.

    Returns:
        The task itself.

    Raises:
        InvalidConfigError: for something else, the name of one of the gym's own tasks or presets, or one that an
            address cannot hold.
    """
    add_task(task)
    _register(task.name)
    return task


def _register(name: str) -> None:
    identifier = f"vlaser_gym/{name}"
    if identifier not in gymnasium.registry:
        gymnasium.register(
            identifier,
            entry_point="vlaser_gym.envs.single:SceneEnv",
            vector_entry_point="vlaser_gym.envs.vector:make_lanes",
            max_episode_steps=get_task(name).max_steps,
            kwargs={"task": name},
            order_enforce=False,
            disable_env_checker=True,
        )
        gymnasium.register(
            identifier + STATE_SUFFIX,
            entry_point="vlaser_gym.wrappers.state:StateEnv",
            vector_entry_point="vlaser_gym.wrappers.state:state_lanes",
            max_episode_steps=get_task(name).max_steps,
            kwargs={"task": name},
            order_enforce=False,
            disable_env_checker=True,
        )
