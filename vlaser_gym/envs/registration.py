"""Gymnasium ids: ``vlaser_gym/<SimplerEnv task name>`` for every task.

``gymnasium.make(id)`` gives one episode at a time, ``gymnasium.make_vec(id, num_envs=N)`` many lanes at once. Neither
adds Gymnasium's own step limit: tasks know theirs.
"""

from __future__ import annotations

import gymnasium

from vlaser_gym.envs.tasks import task_names


def register_environments() -> None:
    """Register all tasks with Gymnasium. Calling it again changes nothing."""
    for name in task_names():
        identifier = f"vlaser_gym/{name}"
        if identifier not in gymnasium.registry:
            gymnasium.register(
                identifier,
                entry_point="vlaser_gym.envs.single:SceneEnv",
                vector_entry_point="vlaser_gym.envs.vector:SceneVectorEnv",
                kwargs={"task": name},
                order_enforce=False,
                disable_env_checker=True,
            )
