"""Values by which the original runs a task, and which of them a user can change.

Source: SimplerEnv 4ab7178, ManiSkill2_real2sim ef7a4d4. What an episode's address decides (scene, photograph, colours,
lights, models) is said by :mod:`~vlaser_gym.envs.engines.simpler.episodes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlaser_gym.envs.engines.simpler.episodes import settings_of_robot
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks.base import Layout, Task
from vlaser_gym.envs.tasks.put_on import PutOnTask
from vlaser_gym.errors import InvalidConfigError

#: What the prepackaged WidowX environments set, whatever they are given, beside what belongs to the robot.
_PREPACKAGED_SCENE = ("scene_name", "rgb_overlay_path", "rgb_overlay_cameras")
#: Releases whose episodes were recorded: two commits, and a version of SAPIEN.
RECORDED_VERSIONS: Mapping[str, str] = {"simpler_env": "4ab7178", "mani_skill2_real2sim": "ef7a4d4", "sapien": "2.2.2"}
#: What the original calls the scenes whose names here are others.
_SCENES = {"bridge_table": "bridge_table_1_v1", "bridge_sink": "bridge_table_1_v2"}
#: Defaults of the original's environments that scripts leave alone, but for the shader.
_DEFAULTS: Mapping[str, Any] = {"shader_dir": "ibl", "enable_shadow": False, "rgb_overlay_mode": "background"}


def settings_of(task: Task, engine: Mapping[str, Any]) -> dict[str, Any]:
    """Control mode, frequencies (Hz), shader and the like, with what ``engine.env_kwargs`` makes of them.

    Args:
        task: one of the original's.
        engine: the engine's settings; without ``env_kwargs`` the answer is that of the published scripts.
    """
    given = dict(engine.get("env_kwargs") or {})
    limit = {"step_limit": task.max_steps}
    if isinstance(task, PutOnTask):
        return {**_DEFAULTS, **limit, **given, **settings_of_robot(task)}
    shader = {"shader_dir": "rt"} if task.scenery == "google_cabinet" else {}
    return {**_DEFAULTS, "obs_mode": "rgbd", **limit, **settings_of_robot(task), **shader, **given}


def asked_settings(task: Task, variant: str, layout: Layout, engine: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the original is expected to report: :func:`settings_of`, its camera, scene and photograph."""
    setup = get_setup(task.robot_setup)
    look, photograph = task.look(variant), task.photograph(variant, layout.base_pose)
    seen = {"rgb_overlay_path": photograph, "rgb_overlay_cameras": [setup.camera.name]} if photograph else {}
    camera = f"{setup.camera.name} {setup.camera.width}x{setup.camera.height}"
    return {**seen, "scene_name": _SCENES.get(look.scene, look.scene), **settings_of(task, engine), "camera": camera}


def differing_settings(told: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Settings in which the original is other than it was asked to be, a phrase each; by value, where both name one."""
    return [
        f"{name.replace('_', ' ')} {told[name]} where {value} was asked for"
        for name, value in asked.items()
        if name in told and told[name] != value
    ]


def other_versions(versions: Mapping[str, str]) -> list[str]:
    """The packages of an installation whose versions differ from the recorded ones, a phrase each.

    A package that is no checkout tells no commit; then its episodes alone can show whether it is the same.

    Args:
        versions: as a worker tells them: a version, a commit or a hash of the files, or several joined by ``+``.
    """
    return [
        f"{name} {versions[name]}, not {recorded}"
        for name, recorded in RECORDED_VERSIONS.items()
        if versions.get(name) and "files" not in versions[name] and recorded not in versions[name].split("+")
    ]


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
    """The reason why the original ignores a keyword argument; empty if it does not."""
    if name == "max_episode_steps":
        return f"an episode of {task.name} ends after the protocol's {task.max_steps} control steps"
    if name == "prepackaged_config":
        return "the engine decides by the task whether the prepackaged environment is the published one"
    robot = settings_of_robot(task)
    if isinstance(task, PutOnTask) and name in (*robot, *_PREPACKAGED_SCENE):
        own = f" to {robot[name]}" if name in robot else ""
        return f"the original's prepackaged environment of {task.name} sets {name} itself{own}"
    return ""
