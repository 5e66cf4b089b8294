"""With what the original runs a task, by value, and which of it a user can change.

Source: SimplerEnv 4ab7178, ManiSkill2_real2sim ef7a4d4. What an episode's address decides (scene, photograph, colours,
lights, models) is said by :mod:`~vlaser_gym.envs.engines.simpler.episodes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlaser_gym.envs.engines.simpler.episodes import settings_of_robot
from vlaser_gym.envs.tasks.base import Task
from vlaser_gym.envs.tasks.put_on import PutOnTask
from vlaser_gym.errors import InvalidConfigError

#: What the prepackaged WidowX environments set, whatever they are given, beside what belongs to the robot.
_PREPACKAGED_SCENE = ("scene_name", "rgb_overlay_path", "rgb_overlay_cameras")
#: Defaults of the original's environments that scripts leave alone, but for the shader.
_DEFAULTS: Mapping[str, Any] = {"shader_dir": "ibl", "enable_shadow": False, "rgb_overlay_mode": "background"}


def settings_of(task: Task, engine: Mapping[str, Any]) -> dict[str, Any]:
    """Control mode, frequencies (Hz), shader and the like, with what ``engine.env_kwargs`` makes of them.

    Args:
        task: one of the original's.
        engine: the engine's settings; without ``env_kwargs`` the answer is that of the published scripts.
    """
    given = dict(engine.get("env_kwargs") or {})
    if isinstance(task, PutOnTask):
        return {**_DEFAULTS, **given, **settings_of_robot(task)}
    shader = {"shader_dir": "rt"} if task.scenery == "google_cabinet" else {}
    return {**_DEFAULTS, "obs_mode": "rgbd", **settings_of_robot(task), **shader, **given}


def check_given(task: Task, engine: Mapping[str, Any]) -> None:
    """Refuse keyword arguments that the original would not heed.

    Raises:
        InvalidConfigError: for the first of them, or if ``env_kwargs`` are none.
    """
    given = engine.get("env_kwargs") or {}
    if not isinstance(given, Mapping):
        raise InvalidConfigError(
            f"engine.env_kwargs must be names and values, such as engine.env_kwargs.shader_dir=ibl; got {given!r}."
        )
    for name, value in given.items():
        if why := _unheeded(task, name):
            raise InvalidConfigError(f"engine.env_kwargs.{name}={value} would be ignored: {why}. Leave it out.")


def _unheeded(task: Task, name: str) -> str:
    """Why the original would not heed a keyword argument; empty if it would."""
    if name == "max_episode_steps":
        return f"an episode of {task.name} ends after the protocol's {task.max_steps} control steps"
    if name == "prepackaged_config":
        return "the engine decides by the task whether the prepackaged environment is the published one"
    robot = settings_of_robot(task)
    if isinstance(task, PutOnTask) and name in (*robot, *_PREPACKAGED_SCENE):
        own = f" to {robot[name]}" if name in robot else ""
        return f"the original's prepackaged environment of {task.name} sets {name} itself{own}"
    return ""
