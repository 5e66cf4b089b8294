"""Builds the SAPIEN scene of a task through ManiSkill's layers: robot, objects, scenery.

Materials, solver and damping are the original's (ManiSkill2_real2sim ef7a4d4, ``sapien_env.py``, ``custom_scenes``,
agents' configurations), not ManiSkill 3's defaults. Layouts, masses, joints, gains and cameras come from
:mod:`vlaser_gym.envs.tasks` and :mod:`vlaser_gym.envs.robots`; shapes come from the asset pack.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sapien
from mani_skill.envs.scene import ManiSkillScene
from mani_skill.envs.utils.system.backend import BackendInfo
from sapien import physx

from vlaser_gym.envs.assets import AssetPack
from vlaser_gym.envs.engines.maniskill.start import SceneKey
from vlaser_gym.envs.engines.maniskill.vulkan import render_system
from vlaser_gym.envs.robots import ManiskillNumbers, Robot, get_setup
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.envs.tasks.base import ObjectSpec, Task
from vlaser_gym.envs.tasks.cabinet import DRAWER, JOINT_DAMPING, JOINT_FRICTION, ORIGIN
from vlaser_gym.envs.tasks.google import TABLE_AREA, TABLE_HEIGHT
from vlaser_gym.envs.tasks.variants import Variant
from vlaser_gym.errors import InvalidConfigError

#: Material of everything that has none of its own: static and dynamic friction, restitution.
_DEFAULT_MATERIAL = (1.0, 1.0, 0.0)
#: Linear and angular damping of task objects, 1/s.
_OBJECT_DAMPING = 0.1
#: Links that never touch each other share a bit of this index of the collision groups.
_IGNORE_GROUP = 2
#: Stage mesh of each scenery that stands for itself, where it stands, and the box in its place: x, y, top (m).
STAGE_ROTATION = (0.7071068, 0.7071068, 0.0, 0.0)
THICKNESS = 0.04

#: Rotor inertia of the other joints, as a share of damping times substep. Today's solver applies drives after contacts
#: in each iteration, so that a light joint on a strong drive creeps along what holds it (the forearm pressed against
#: the robot's base by 0.35 rad/s, where the original's stays). With this it creeps by 0.01 rad/s, whatever the share
#: between 0.1 and 1; moving freely it lags by less than half a substep.
_ROTOR = 0.3


@dataclass(frozen=True)
class Stage:
    """The surroundings: position of the stage mesh, and the table of the right height that stands in for it, m."""

    name: str
    position: tuple[float, float, float]
    area: tuple[float, float, float, float]
    top: float


_WIDOWX_AREA = (-0.8, 0.4, -0.65, 0.95)
STAGES = {
    "bridge_table": Stage("bridge_table_1_v1", (2.0634, 2.8313, 0.0), _WIDOWX_AREA, 0.87),
    "bridge_sink": Stage("bridge_table_1_v2", (2.0634, 2.8313, 0.0), _WIDOWX_AREA, 0.85),
    "google_table": Stage("google_pick_coke_can_1_v4", (1.6616, 3.0337, 0.0), TABLE_AREA, TABLE_HEIGHT),
}


@dataclass
class Scene:
    """A built scene; ``robot`` and ``cabinet`` are SAPIEN articulations, ``objects`` entities in the task's order."""

    scene: ManiSkillScene
    task: Task
    look: Variant
    objects_spec: tuple[ObjectSpec, ...]
    robot: Any
    objects: list[Any]
    cabinet: Any | None
    surroundings: list[Any]


def build_scene(key: SceneKey, pack: AssetPack, *, drawn: bool = False, into: ManiSkillScene | None = None) -> Scene:
    """Build the scene of a task in a variant with the objects of a cast.

    Args:
        key: task, variant and cast.
        pack: where shapes are read from.
        drawn: with what is seen; without, it can be simulated but not rendered, and is built much faster.
        into: an empty scene to build in, whose physics has :func:`set_solver`'s settings; None for one of its own.

    Raises:
        MissingAssetError: if the pack lacks a file.
    """
    task = get_task(key.task)
    look, objects = task.look(key.variant), task.objects_of(key.cast)
    physx.set_shape_config(contact_offset=task.contact_offset, rest_offset=0.0)
    scene = _empty_scene(task, drawn) if into is None else into
    robot = _add_robot(scene, task, look, pack)
    actors = [_add_object(scene, spec, pack, drawn) for spec in objects]
    cabinet = _add_cabinet(scene, look, pack) if look.station else None
    surroundings = [] if look.station else [_add_stage(scene, task, look, pack, drawn)]
    return Scene(scene, task, look, objects, robot, actors, cabinet, surroundings)


def set_solver() -> None:
    """The original's settings, for systems and bodies that are made from now on."""
    physx.set_scene_config(
        gravity=[0.0, 0.0, -9.81],
        bounce_threshold=2.0,
        enable_pcm=False,
        enable_tgs=True,
        enable_ccd=False,
        enable_enhanced_determinism=False,
        enable_friction_every_iteration=True,
        cpu_workers=0,
    )
    physx.set_body_config(solver_position_iterations=25, solver_velocity_iterations=1, sleep_threshold=0.005)
    physx.set_default_material(*_DEFAULT_MATERIAL)


def _empty_scene(task: Task, drawn: bool) -> ManiSkillScene:
    set_solver()
    device = sapien.Device("cpu")
    systems: list[Any] = [physx.PhysxCpuSystem()]
    if drawn:
        systems.append(render_system())
    # Without a render device ManiSkill's builders leave out everything that is only seen.
    backend = BackendInfo("cpu", device, "physx_cpu", systems[-1].device if drawn else None, "sapien")
    scene = ManiSkillScene([sapien.Scene(systems)], device="cpu", backend=backend)
    scene.set_timestep(1.0 / get_setup(task.robot_setup).physics_hz)
    return scene


# ---------------------------------------------------------------------- robot


def _add_robot(scene: ManiSkillScene, task: Task, look: Variant, pack: AssetPack) -> Any:
    setup = get_setup(task.robot_setup)
    robot = setup.robot
    suffix = f"_{look.robot_colour}" if look.robot_colour else ""
    loader = scene.create_urdf_loader()
    loader.name = robot.name
    # Files of several parts have a hull for each; STL files hold one part.
    loader.load_multiple_collisions_from_file = numbers_of(robot).hull_per_part
    fingers = [(link, robot.finger_friction, robot.finger_patch_radius) for link in robot.finger_links]
    for link, friction, radius in (*fingers, *robot.surfaces):
        loader.set_link_material(link, friction, friction, 0.0)
        loader.set_link_patch_radius(link, radius)
        loader.set_link_min_patch_radius(link, radius)
    builder = loader.parse(str(pack.robot(robot.description.format(suffix))))["articulation_builders"][0]
    # Both fingers are driven; the original ignores the description's coupling of them.
    builder.mimic_joint_records.clear()
    _ignore_collisions(builder, robot)
    builder.initial_pose = make_pose(setup.base_pose)
    articulation = builder.build(name=robot.name)._objs[0]
    _set_drives(articulation, robot, 1.0 / setup.physics_hz)
    return articulation


def _set_drives(articulation: Any, robot: Robot, substep: float) -> None:
    joints, grip = joints_of(articulation), numbers_of(robot)
    for joint in robot.moving_joints:
        drive, is_finger = joints[joint.name], joint.name in robot.gripper_joints
        share = grip.share if is_finger else 1.0
        drive.set_drive_properties(share * joint.kp, share * joint.kd, force_limit=share * joint.force, mode="force")
        drive.set_friction(0.0)
        rotor = grip.rotor if is_finger else _ROTOR * joint.kd * substep
        drive.set_armature(np.array([rotor], np.float32))
        if is_finger and robot.fingers_meet is not None:
            # A limit stands for the fingers' contact: today's solver lets the tips slip past each other.
            drive.set_limits(np.array([[joint.lower, robot.fingers_meet]], np.float32))


def numbers_of(robot: Robot) -> ManiskillNumbers:
    """The robot's numbers that this engine needs.

    Raises:
        InvalidConfigError: if the robot does not say it.
    """
    if robot.maniskill is None:
        raise InvalidConfigError(
            f"engine=maniskill needs numbers of the robot {robot.name}: give its Robot a ManiskillNumbers(...), "
            "or choose another engine."
        )
    return robot.maniskill


def _ignore_collisions(builder: Any, robot: Robot) -> None:
    links = {link.name: link for link in builder.link_builders}
    groups: list[tuple[str, ...]] = list(robot.collision_exclusions)
    if robot.fingers_meet is not None:
        groups.append((*robot.finger_links, *(name for name, _, _ in robot.surfaces)))
    for bit, names in enumerate(groups):
        for name in names:
            links[name].collision_groups[_IGNORE_GROUP] |= 1 << bit


# ---------------------------------------------------------------------- objects


def _add_object(scene: ManiSkillScene, spec: ObjectSpec, pack: AssetPack, drawn: bool) -> Any:
    builder = scene.create_actor_builder()
    material = physx.PhysxMaterial(spec.friction, spec.friction, 0.0)
    touching, visible = _object_files(spec, pack, drawn)
    builder.add_multiple_convex_collisions_from_file(str(touching), material=material)
    if drawn:
        builder.add_visual_from_file(str(visible))
    frame = sapien.Pose(np.array(spec.com), np.array(spec.com_rotation))
    builder.set_mass_and_inertia(spec.mass, frame, np.array(spec.inertia))
    builder.initial_pose = sapien.Pose()
    entity = builder.build_dynamic(name=f"object:{spec.name}")._objs[0]
    body = body_of(entity)
    if spec.fixed:
        body.set_locked_motion_axes([True] * 6)
    else:
        body.linear_damping = body.angular_damping = _OBJECT_DAMPING
    return entity


def _object_files(spec: ObjectSpec, pack: AssetPack, drawn: bool) -> tuple[Path, Path]:
    """The meshes of what touches, and of what is seen if it is drawn: the original's, or the object's own."""
    if spec.shape is not None:
        from vlaser_gym.envs.modelling.files import shape_files  # noqa: PLC0415  reading meshes takes a library

        return shape_files(spec.shape)
    touching = pack.model_collision(spec.name)
    return touching, (pack.model_look(spec.name) if drawn else None) or touching


def body_of(entity: Any) -> Any:
    """The rigid body of an entity."""
    return entity.find_component_by_type(physx.PhysxRigidBaseComponent)


# ---------------------------------------------------------------------- scenery


def _add_stage(scene: ManiSkillScene, task: Task, look: Variant, pack: AssetPack, drawn: bool) -> Any:
    stage = STAGES[task.scenery]
    builder = scene.create_actor_builder()
    mesh = pack.stage(look.scene if task.scenery == "google_table" else stage.name)
    if mesh is not None:
        pose = sapien.Pose(stage.position, STAGE_ROTATION)
        builder.add_nonconvex_collision_from_file(str(mesh), pose)
        if drawn:
            builder.add_visual_from_file(str(mesh), pose)
    else:
        low_x, high_x, low_y, high_y = stage.area
        centre = ((low_x + high_x) / 2, (low_y + high_y) / 2, stage.top - THICKNESS / 2)
        half = ((high_x - low_x) / 2, (high_y - low_y) / 2, THICKNESS / 2)
        builder.add_box_collision(sapien.Pose(centre), half)
        if drawn:
            builder.add_box_visual(sapien.Pose(centre), half, material=(0.5, 0.4, 0.3))
    builder.initial_pose = sapien.Pose()
    return builder.build_static(name="stage")._objs[0]


def _add_cabinet(scene: ManiSkillScene, look: Variant, pack: AssetPack) -> Any:
    loader = scene.create_urdf_loader()
    loader.name = "cabinet"
    builder = loader.parse(str(pack.station(look.station)))["articulation_builders"][0]
    builder.initial_pose = sapien.Pose(ORIGIN)
    if look.solid_handles:
        for link in builder.link_builders:
            for box in DRAWER:
                if link.name != "body" and not box.collides:
                    link.add_box_collision(sapien.Pose(box.centre), np.array(box.size) / 2)
    articulation = builder.build(name="cabinet")._objs[0]
    for joint in articulation.active_joints:
        joint.set_friction(JOINT_FRICTION)
        joint.set_drive_properties(0.0, JOINT_DAMPING)
    return articulation


def part_of(scene: Scene, name: str) -> tuple[Any, Any]:
    """The link and the collision shape of a named part, such as ``top_drawer_floor``."""
    drawer, _, part = name.partition("_drawer_")
    index = [box.name for box in DRAWER if box.collides].index(part)
    link = links_of(scene.cabinet)[f"{drawer}_drawer"]
    return link, link.collision_shapes[index]


# ---------------------------------------------------------------------- names and poses


def joints_of(articulation: Any) -> dict[str, Any]:
    """Moving joints by the names of their description, in SAPIEN's order."""
    prefix = f"{articulation.name.replace('_', '-', 1)}_"
    return {joint.name.removeprefix(prefix): joint for joint in articulation.active_joints}


def links_of(articulation: Any) -> dict[str, Any]:
    """Links by the names of their description."""
    prefix = f"{articulation.name.replace('_', '-', 1)}_"
    return {link.name.removeprefix(prefix): link for link in articulation.links}


def make_pose(numbers: Any) -> sapien.Pose:
    """Make a SAPIEN pose from ``x y z qw qx qy qz``."""
    values = np.asarray(numbers, np.float64)
    return sapien.Pose(values[:3], values[3:])
