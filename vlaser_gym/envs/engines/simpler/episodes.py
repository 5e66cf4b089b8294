"""The construction and reset arguments of the original for an address of this project.

Source: SimplerEnv 4ab7178, ``simpler_env/evaluation`` and ``scripts/``, which are the published evaluations. WidowX
episodes are ``simpler_env.make``'s prepackaged ones, addressed by ``episode_id``. Prepackaged Google Robot environments
draw the robot's colouring (and with a cabinet its place) at every reset and overwrite what they are told of it; so, as
in the scripts, these are built from the environment's keyword arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.robots import Robot, SimplerNumbers, get_setup
from vlaser_gym.envs.tasks import GOOGLE_TASKS, widowx
from vlaser_gym.envs.tasks.base import Layout, Task
from vlaser_gym.envs.tasks.cabinet import DRAWERS, joint_name
from vlaser_gym.envs.tasks.drawers import ROBOT_POSES, DrawerTask
from vlaser_gym.envs.tasks.google import GoogleTask
from vlaser_gym.envs.tasks.google_pick import PickTask
from vlaser_gym.envs.tasks.move_near import MoveNearTask
from vlaser_gym.envs.tasks.place_in_drawer import PlaceInDrawerTask
from vlaser_gym.envs.tasks.put_on import PutOnTask
from vlaser_gym.envs.tasks.variants import Variant
from vlaser_gym.errors import InvalidConfigError

#: Tasks that the original has; those from outside are not its.
_KNOWN = {task.name for task in (*widowx.TASKS, *GOOGLE_TASKS)}
#: What every script says of cameras.
_CAMERAS: Mapping[str, Any] = {"camera_cfgs": {"add_segmentation": True}}
_ORIENTATIONS = {"horizontal": "lr_switch", "vertical": "laid_vertically", "standing": "upright"}
_TABLE_LIGHTS = {
    "slightly_darker": {"slightly_darker_lighting": True},
    "slightly_brighter": {"slightly_brighter_lighting": True},
}
_CABINET_LIGHTS = {
    "drawer_simple": {"light_mode": "simple"},
    "drawer_brighter": {"light_mode": "brighter"},
    "drawer_darker": {"light_mode": "darker"},
}
_CAN_ENVIRONMENTS = {
    "camera_1": "GraspSingleOpenedCokeCanAltGoogleCameraInScene-v0",
    "camera_2": "GraspSingleOpenedCokeCanAltGoogleCamera2InScene-v0",
    "distractors": "GraspSingleOpenedCokeCanDistractorInScene-v0",
    "distractors_more": "GraspSingleOpenedCokeCanDistractorInScene-v0",
}
_NEAR_ENVIRONMENTS = {
    "camera_1": "MoveNearAltGoogleCameraInScene-v0",
    "camera_2": "MoveNearAltGoogleCamera2InScene-v0",
}


def _lattice(x: tuple[float, float, int], y: tuple[float, float, int]) -> tuple[tuple[float, float], ...]:
    """Positions (m) between bounds, x outer, with the very floats of the original."""
    return tuple((float(a), float(b)) for a in np.linspace(*x) for b in np.linspace(*y))


_CAN_POSITIONS = _lattice((-0.35, -0.12, 5), (-0.02, 0.42, 5))
_APPLE_POSITIONS = _lattice((-0.08, -0.02, 3), (-0.02, 0.08, 3))
_BASES = _lattice((0.65, 0.85, 3), (-0.2, 0.2, 3))
_APPLE_BASES = _lattice((0.65, 0.65, 1), (-0.2, 0.2, 3))


@dataclass(frozen=True)
class Episode:
    """The construction and reset arguments of one episode.

    Attributes:
        make: name for ``simpler_env.make``, or the environment's id.
        prepackaged: it is the former.
        kwargs: keyword arguments; ``rgb_overlay_path`` is a file of the original's ``real_inpainting`` folder.
        options: of ``reset``; lists become arrays.
    """

    make: str
    prepackaged: bool = False
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


def episode_of(task: Task, variant: str, layout: str) -> Episode:
    """The original's episode at an address.

    Raises:
        InvalidConfigError: for what the original does not have.
    """
    if task.name not in _KNOWN:
        raise InvalidConfigError(
            f"engine=simpler has the benchmark's own tasks only; got {task.name}: choose another engine."
        )
    address = Address(task.name, variant, layout)
    if address.layout_kind != "grid":
        raise InvalidConfigError(
            f"engine=simpler has the benchmark's own layouts only; got {layout!r} of {task.name}: choose layouts=grid."
        )
    look, index = task.look(variant), address.layout_index
    # Where distractors lie is drawn by the original.
    state = task.layout(layout, "default" if look.distractors else variant)
    if isinstance(task, PutOnTask):
        return Episode(task.name, True, options={"obj_init_options": {"episode_id": index}})
    if isinstance(task, GoogleTask):
        return _google(task, look, state, index)
    raise InvalidConfigError(f"engine=simpler does not know how the original names the task {task.name}.")


def nearest_episode(task: Task, variant: str, layout: Layout) -> Episode:
    """The grid episode with the same bodies and goal whose bodies and robot are nearest; a state can be set from there.

    Raises:
        InvalidConfigError: if no grid episode has these bodies and this goal.
    """
    near: list[tuple[float, str]] = []
    for name in (f"grid:{index}" for index in range(task.num_layouts)):
        other = task.layout(name, variant)
        if _cast(other) == _cast(layout):
            apart = [np.abs(other.object_pose - layout.object_pose).sum()]
            if other.base_pose is not None and layout.base_pose is not None:
                apart.append(np.abs(np.subtract(other.base_pose, layout.base_pose)).sum())
            near.append((float(sum(apart)), name))
    if not near:
        raise InvalidConfigError(f"engine=simpler has no episode of {task.name} with the bodies {layout.cast!r}.")
    return episode_of(task, variant, min(near)[1])


def _cast(layout: Layout) -> tuple[Any, ...]:
    return layout.cast, layout.source, layout.target, layout.goal_joint


def numbers_of(robot: Robot) -> SimplerNumbers:
    """The robot's numbers that this engine needs.

    Raises:
        InvalidConfigError: if the robot does not say it, because the original does not have it.
    """
    if robot.simpler is None:
        raise InvalidConfigError(f"engine=simpler has no robot {robot.name}: choose another engine.")
    return robot.simpler


def settings_of_robot(task: Task) -> dict[str, Any]:
    """Robot, controller, frequencies (Hz) and cameras: keyword arguments that all of its robot's scripts share."""
    setup = get_setup(task.robot_setup)
    return {
        "robot": setup.original_name,
        "control_mode": numbers_of(setup.robot).control_mode,
        "control_freq": round(setup.control_hz),
        "sim_freq": round(setup.physics_hz),
        **_CAMERAS,
    }


def _google(task: GoogleTask, look: Variant, state: Layout, index: int) -> Episode:
    if look.solid_handles:
        raise InvalidConfigError(
            f"The variant {look.name!r} is not the original's, whose handles are never solid: choose another engine."
        )
    kwargs = {
        "obs_mode": "rgbd",
        **settings_of_robot(task),
        "max_episode_steps": task.max_steps,
        "scene_name": look.scene,
        "rgb_overlay_path": state.overlay if look.overlay else None,
    }
    if look.overlay:
        kwargs |= {
            "rgb_overlay_cameras": [get_setup(task.robot_setup).camera.name],
            "urdf_version": look.robot_colour or None,
        }
    if isinstance(task, PickTask):
        return _pick(task, look, index, kwargs)
    if isinstance(task, MoveNearTask):
        return _move_near(task, look, index, kwargs)
    return _cabinet(task, look, state, index, kwargs)


def _pick(task: PickTask, look: Variant, index: int, kwargs: dict[str, Any]) -> Episode:
    model, orientation, position = task.split(index)
    kwargs |= {_ORIENTATIONS[orientation]: True, **_TABLE_LIGHTS.get(look.light, {})}
    if look.name == "distractors_more":
        kwargs["distractor_config"] = "more"
    options = _options(0.35, 0.20, 0.0, {"init_xy": list(_CAN_POSITIONS[position])})
    if task.name != "google_robot_pick_object":
        return Episode(_CAN_ENVIRONMENTS.get(look.name, "GraspSingleOpenedCokeCanInScene-v0"), False, kwargs, options)
    options["model_id"] = model
    if look.head_tilt is not None:
        options["robot_init_options"]["qpos"] = list(task.layout(f"grid:{index}", look.name).qpos or ())
    return Episode("GraspSingleRandomObjectInScene-v0", False, kwargs, options)


def _move_near(task: MoveNearTask, look: Variant, index: int, kwargs: dict[str, Any]) -> Episode:
    kwargs |= _TABLE_LIGHTS.get(look.light, {})
    if look.name == "no_distractor":
        kwargs["no_distractor"] = True
    baked = "v0" if task.name == "google_robot_move_near_v0" else "v1"
    plain = _NEAR_ENVIRONMENTS.get(look.name, "MoveNearGoogleInScene-v0")
    make = f"MoveNearGoogleBakedTexInScene-{baked}" if look.overlay else plain
    return Episode(make, False, kwargs, _options(0.35, 0.21, -0.09, {"episode_id": index}))


def _cabinet(task: GoogleTask, look: Variant, state: Layout, index: int, kwargs: dict[str, Any]) -> Episode:
    kwargs |= {"shader_dir": "rt", **_CABINET_LIGHTS.get(look.light, {})}
    if look.station != "mk_station":
        kwargs["station_name"] = look.station
    if not look.shiny_robot:
        kwargs["disable_bad_material"] = True
    drawer = next(name for name in DRAWERS if joint_name(name) == state.goal_joint).capitalize()
    if isinstance(task, DrawerTask):
        verb = "Open" if task.name.startswith("google_robot_open") else "Close"
        place = _base(look, state, _BASES[index % len(_BASES)])
        return Episode(
            f"{verb}{drawer}DrawerCustomInScene-v0", False, kwargs, _options(*place, {"init_xy": [0.0, 0.0]})
        )
    assert isinstance(task, PlaceInDrawerTask)
    rest, position = divmod(index, len(_APPLE_POSITIONS))
    place = _base(look, state, _APPLE_BASES[rest % len(_APPLE_BASES)])
    kwargs["model_ids"] = state.cast
    options = _options(*place, {"init_xy": list(_APPLE_POSITIONS[position])})
    return Episode(f"PlaceIntoClosed{drawer}DrawerCustomInScene-v0", False, kwargs, options)


def _base(look: Variant, state: Layout, position: tuple[float, float]) -> tuple[float, float, float]:
    """The robot's base position (m, rad): that of the photograph, or a lattice point of variant aggregation."""
    if not look.overlay:
        return (*position, 0.0)
    return ROBOT_POSES[state.overlay.removeprefix("open_drawer_").removesuffix(".png")]


def _options(x: float, y: float, yaw: float, bodies: dict[str, Any]) -> dict[str, Any]:
    """Options of a reset: the robot at (x, y), turned by pi and ``yaw`` (rad) about z, quaternion wxyz."""
    turn = [-float(np.sin(yaw / 2)), 0.0, 0.0, float(np.cos(yaw / 2))]
    return {"robot_init_options": {"init_xy": [x, y], "init_rot_quat": turn}, "obj_init_options": bodies}
