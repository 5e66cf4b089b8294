"""Builds the MuJoCo model of a scene: robot, objects, scenery, cameras, drives, contact sensors.

Contact friction. PhysX averages the coefficients of two bodies, MuJoCo takes the larger one. With finger 1.25, scenery
and other links 0.75, objects 0.5 the larger one *is* the original's average wherever an object is touched: finger and
object (2.0 + 0.5) / 2, table and object (1.0 + 0.5) / 2, object and object 0.5. Links that are smoother than objects
(the Google Robot's nails) have priority over what they touch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import mujoco
import numpy as np
from numpy.typing import NDArray

from vlaser_gym.conventions import rotations
from vlaser_gym.envs.assets import AssetPack
from vlaser_gym.envs.engines.base import NOMINAL_PHYSICS, Body, Physics, touch_queries
from vlaser_gym.envs.engines.mujoco.objects import add_object, resized
from vlaser_gym.envs.engines.mujoco.scenery import add_scenery
from vlaser_gym.envs.robots import Camera, Robot, RobotSetup, get_setup
from vlaser_gym.envs.robots.base import Joint
from vlaser_gym.envs.tasks.base import ContactQuery, Layout, ObjectSpec, Task
from vlaser_gym.envs.tasks.variants import Variant
from vlaser_gym.registry import import_string

_OBJECT_FRICTION, _DEFAULT_FRICTION, _OBJECT_DAMPING = 0.5, 1.0, 0.1
#: Rotor inertia as a share of damping times physics step.
_ROTOR_INERTIA = 0.7

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Scene:
    """A compiled model and where things are in its state vectors.

    Attributes:
        robot_qpos, robot_qvel: indices of the robot's joints, order of ``Robot.moving_joints``.
        object_qpos, object_qvel: first index of each object's free joint, order of ``Task.objects``; -1 where fixed.
        object_pose: fixed objects' poses ``[n_objects, 7]`` (rows of free objects are not used).
        joint_qpos: index of each scenery joint (drawers).
        drives: actuator of each robot joint, order of ``Robot.moving_joints``.
        lead: speed target (rad/s) -> how far the position target is moved ahead to stand for it (rad): damping over
            stiffness of each joint's drive.
        base: index of the robot's base among the mocap bodies; -1 where it cannot be moved.
        sensors: first index of each contact query's force in ``sensordata`` (three numbers, N, world frame).
        touches: the same of each finger link's contact with each object, ``[n_objects, n_finger_links]``.
        camera: name of the policy's camera.
        substeps: physics substeps of a control step.
    """

    model: mujoco.MjModel
    robot_qpos: Ints
    robot_qvel: Ints
    object_qpos: Ints
    object_qvel: Ints
    object_pose: NDArray[np.float64]
    joint_qpos: Mapping[str, int]
    drives: Ints
    lead: Floats
    base: int
    sensors: Ints
    touches: Ints
    camera: str
    substeps: int


def build_scene(
    task: Task,
    variant: str = "default",
    look: str = "builtin",
    cast: str | None = None,
    assets: AssetPack | None = None,
    photograph: bool = False,
    whole_robot: bool = False,
    physics: Physics = NOMINAL_PHYSICS,
    bodies: Sequence[Body] = (),
) -> Scene:
    """Compile the scene of a task in one of its variants.

    Args:
        task, variant: of the catalogue.
        look: ``"builtin"``, or ``"original"``, which changes only what is seen.
        cast: which objects play; None for the first layout's.
        assets: the original's files; for the look ``"original"``.
        photograph: a photograph will be put behind the foreground of images (look ``"original"``).
        whole_robot: also links that the policy's camera never sees are seen (look ``"original"``).
        physics: of a perturbed episode.
        bodies: objects that differ from the catalogue's.

    Raises:
        MissingAssetError: if the look needs files that are not there.
    """
    setup, appearance = get_setup(task.robot_setup), task.look(variant)
    first = task.layout("grid:0", variant)
    cast = first.cast if cast is None else cast
    changed = {one.name: one for one in bodies}
    objects = [resized(obj, changed[obj.name].scale) if obj.name in changed else obj for obj in task.objects_of(cast)]
    spec = mujoco.MjSpec()
    _set_options(spec, setup)
    # Layouts that bring a base pose of their own share the scene: there the base is put in place at reset.
    _add_robot(spec, setup, appearance, movable=first.base_pose is not None)
    add_scenery(spec, task.scenery, appearance)
    for i, obj in enumerate(objects):
        body = add_object(spec, obj, changed.get(obj.name))
        if obj.fixed:
            body.pos, body.quat = first.object_pose[i, :3], first.object_pose[i, 3:]
    _set_contacts(spec, setup.robot)
    _pair_fingers_with_scenery(spec, setup.robot)
    _stop_fingers(spec, setup.robot)
    for camera in setup.cameras.values():
        _add_camera(spec, camera)
    touches, queries = touch_queries(setup.robot, objects), task.contacts_of(cast)
    # One sensor serves equal queries.
    for query in dict.fromkeys((*queries, *touches)):
        _add_contact_sensor(spec, query)
    if look == "original":
        # Reading meshes takes a library that nothing else here needs.
        from vlaser_gym.envs.engines.mujoco.original.dress import dress  # noqa: PLC0415

        dress(spec, task, appearance, cast, assets or AssetPack(), photograph=photograph, whole_robot=whole_robot)
    scene = _index(spec.compile(), setup, objects, first, queries, touches)
    _weaken_drives(scene, setup)
    # Objects lose 0.1 of their linear and angular velocity per second (spec: damping 0.1 / 0.1).
    for start, obj in zip(scene.object_qvel, objects, strict=True):
        if start >= 0:
            scene.model.dof_damping[start : start + 6] = _damping_of(obj)
    if physics != NOMINAL_PHYSICS:
        _perturb(scene, physics)
    return scene


def build_floor(obj: ObjectSpec, setup: RobotSetup) -> mujoco.MjModel:
    """A level floor at height 0 and one free object over it, with the contacts of a robot's scenes."""
    spec = mujoco.MjSpec()
    _set_options(spec, setup)
    kind = mujoco.mjtGeom.mjGEOM_PLANE
    spec.worldbody.add_geom(name="scene/floor", type=kind, size=(1.0, 1.0, 0.1), contype=1, conaffinity=1)
    add_object(spec, obj)
    _set_contacts(spec, setup.robot)
    model = spec.compile()
    model.dof_damping[:] = _damping_of(obj)
    return model


def _perturb(scene: Scene, physics: Physics) -> None:
    """Change friction of everything, and mass and inertia of what moves freely; its damping goes with its mass."""
    model = scene.model
    model.geom_friction[:, 0] *= physics.friction
    model.pair_friction[:, :2] *= physics.friction
    dofs = [start + np.arange(6) for start in scene.object_qvel if start >= 0]
    for dof in dofs:
        body = model.dof_bodyid[dof[0]]
        model.body_mass[body] *= physics.mass
        model.body_inertia[body] *= physics.mass
        model.dof_damping[dof] *= physics.mass
    mujoco.mj_setConst(model, mujoco.MjData(model))


def _set_options(spec: mujoco.MjSpec, setup: RobotSetup) -> None:
    numbers = setup.robot.mujoco
    spec.modelname = "vlaser_gym"
    spec.compiler.degree = False
    spec.compiler.balanceinertia = True
    option = spec.option
    option.timestep = 1.0 / (setup.control_hz * numbers.substeps)
    option.impratio = numbers.friction_weight
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    # A diverged simulation must be seen, not silently reset.
    option.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
    spec.visual.global_.offwidth = max(camera.width for camera in setup.cameras.values())
    spec.visual.global_.offheight = max(camera.height for camera in setup.cameras.values())
    # In software GL, shadow maps and multisampling cost more than everything else together.
    spec.visual.quality.shadowsize, spec.visual.quality.offsamples = 0, 0
    spec.visual.map.znear, spec.visual.map.zfar = 0.01, 10.0
    spec.stat.extent, spec.stat.center = 1.0, (0.0, 0.0, 0.9)


def _add_robot(spec: mujoco.MjSpec, setup: RobotSetup, appearance: Variant, movable: bool) -> None:
    robot = setup.robot
    add_link_geoms = import_string(robot.mujoco.shapes, f"MujocoNumbers.shapes of the robot {robot.name}")
    joints = {joint.child: joint for joint in robot.joints}
    bodies: dict[str, mujoco.MjsBody] = {}
    for link in robot.links:
        joint = joints.get(link.name)
        parent = spec.worldbody if joint is None else bodies[joint.parent]
        body = parent.add_body(name=f"link:{link.name}")
        body.gravcomp = 1.0
        turn = rotations.matrix_from_euler(link.rpy)
        xx, yy, zz, xy, xz, yz = link.inertia
        inertia = turn @ np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]) @ turn.T
        body.explicitinertial, body.mass, body.ipos = True, link.mass, link.com
        body.fullinertia = inertia[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
        if joint is None:
            body.mocap = movable
            body.pos, body.quat = setup.base_pose[:3], setup.base_pose[3:]
        else:
            _add_joint(spec, body, joint)
        add_link_geoms(spec, body, link.name, appearance.robot_colour)
        bodies[link.name] = body
    for a, b in _never_colliding(robot):
        spec.add_exclude(bodyname1=f"link:{a}", bodyname2=f"link:{b}")


def _never_colliding(robot: Robot) -> list[tuple[str, str]]:
    """Pairs that are rigid to each other or neighbours; MuJoCo itself leaves out parent and child only."""
    joints = {joint.child: joint for joint in robot.joints}

    def anchor(link: str) -> str:
        """The topmost link that this one is rigid with, up through fixed joints."""
        while link in joints and joints[link].kind == "fixed":
            link = joints[link].parent
        return link

    names = [link.name for link in robot.links]
    pairs = set(robot.collision_exclusions)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            root_a, root_b = anchor(a), anchor(b)
            moved_by = joints.get(root_b)
            neighbours = moved_by is not None and anchor(moved_by.parent) == root_a
            if root_a == root_b or neighbours:
                pairs.add((a, b))
    return sorted(pairs)


def _add_joint(spec: mujoco.MjSpec, body: mujoco.MjsBody, joint: Joint) -> None:
    body.pos, body.quat = joint.xyz, rotations.quaternion_from_matrix(rotations.matrix_from_euler(joint.rpy))
    if joint.kind == "fixed":
        return
    slide = joint.kind == "prismatic"
    added = body.add_joint(
        name=joint.name,
        type=mujoco.mjtJoint.mjJNT_SLIDE if slide else mujoco.mjtJoint.mjJNT_HINGE,
        axis=joint.axis,
        range=(joint.lower, joint.upper),
        limited=True,
    )
    # PhysX's joint limits are hard; MuJoCo's default ones give way by 0.6 mm under the fingers' drive.
    added.solref_limit, added.solimp_limit = (2 * spec.option.timestep, 1.0), (0.999, 0.9999, 1e-4, 0.5, 2.0)
    # The drives' damping is far larger than the links' inertia. While a drive saturates, MuJoCo integrates it
    # explicitly, which is stable only with rotor inertia above half of damping times step; less follows the original
    # closer (python -m vlaser_gym.parity).
    added.armature = _ROTOR_INERTIA * joint.kd * spec.option.timestep
    drive = spec.add_actuator(name=joint.name, target=joint.name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    drive.gaintype, drive.biastype = mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtBias.mjBIAS_AFFINE
    drive.gainprm[0] = joint.kp
    drive.biasprm[:3] = 0.0, -joint.kp, -joint.kd
    drive.forcelimited, drive.forcerange = True, (-joint.force, joint.force)
    # PhysX clamps drive targets to the joint's limits: closing fingers approach 15 mm, not the commanded 14.
    drive.ctrllimited, drive.ctrlrange = True, (joint.lower, joint.upper)


def drive_shares(scene: Scene, setup: RobotSetup) -> Floats:
    """Shares of their force that the original's drives deliver where something holds them, ``[J]``.

    In each of its iterations the original's solver keeps ``1 - x`` of a drive's impulse and adds the ``x``-th part of
    what the drive wants, with ``x = 1 / (1 + h (h kp + kd) / I)``: ``h`` is its physics step, ``I`` the inertia that
    the joint moves, joints beyond it free. A light link on a strong drive has a small ``x``, and the iterations end
    long before the impulse is whole. In free motion nothing of this is seen, because the drive is damped alike.
    """
    joints, iterations = setup.robot.moving_joints, setup.robot.mujoco.iterations
    if iterations is None:
        return np.ones(len(joints))
    model, dofs = scene.model, scene.robot_qvel
    data, mass = mujoco.MjData(model), np.zeros((model.nv, model.nv))
    data.qpos[scene.robot_qpos] = setup.qpos
    mujoco.mj_forward(model, data)
    mujoco.mj_fullM(model, data, mass)
    mass -= np.diag(model.dof_armature)
    response = np.zeros(len(joints))
    for i, dof in enumerate(dofs):
        moved = [other for other in dofs if dof in _dofs_above(model, other)]
        response[i] = np.linalg.inv(mass[np.ix_(moved, moved)])[moved.index(dof), moved.index(dof)]
    step = 1.0 / setup.physics_hz
    damping = np.array([step * (step * joint.kp + joint.kd) for joint in joints])
    return np.asarray(1.0 - (1.0 - 1.0 / (1.0 + damping * response)) ** iterations)


def _dofs_above(model: mujoco.MjModel, dof: int) -> list[int]:
    """A degree of freedom and all that move it."""
    above = []
    while dof >= 0:
        above.append(dof)
        dof = int(model.dof_parentid[dof])
    return above


def _weaken_drives(scene: Scene, setup: RobotSetup) -> None:
    """Let drives that meet resistance deliver what the original's do (:func:`drive_shares`).

    With the whole force the WidowX's hand presses 1.5 times as hard as in the original, keeps its tilt where the
    original's wrist gives way, and pushes aside what stops the original's.
    """
    shares, model = drive_shares(scene, setup), scene.model
    model.actuator_gainprm[scene.drives, 0] *= shares
    model.actuator_biasprm[scene.drives, 1:3] *= shares[:, None]
    model.dof_armature[scene.robot_qvel] *= shares
    mujoco.mj_setConst(model, mujoco.MjData(model))


def _set_contacts(spec: mujoco.MjSpec, robot: Robot) -> None:
    fingers = {f"link:{name}" for name in robot.finger_links}
    smooth = {f"link:{name}": (friction, patch) for name, friction, patch in robot.surfaces}
    for geom in spec.geoms:
        if not geom.contype:
            continue
        body, twist, roll = geom.parent.name, 0.0, 0.0
        if body in fingers:
            friction, twist = (robot.finger_friction + _OBJECT_FRICTION) / 2, robot.finger_patch_radius
        elif body in smooth:
            friction, twist = (smooth[body][0] + _OBJECT_FRICTION) / 2, smooth[body][1]
            geom.priority = 1
        elif body.startswith("object:"):
            friction = _OBJECT_FRICTION
            roll = robot.mujoco.rolling_friction
        else:
            friction = (_DEFAULT_FRICTION + _OBJECT_FRICTION) / 2
        geom.friction = (friction, twist, roll)
        geom.condim = 6 if roll else 4 if twist else 3
        geom.solref = (2 * spec.option.timestep, 1.0)
        geom.solimp = (*robot.mujoco.impedance, 0.001, 0.5, 2.0)


def _pair_fingers_with_scenery(spec: mujoco.MjSpec, robot: Robot) -> None:
    """Neither of the two is an object: their friction, the average of their own, is not the rule's larger one.

    Fingers that stand on a table while they close are held back by it, until the arm lifts them.
    """
    surfaces = [(name, robot.finger_friction, robot.finger_patch_radius) for name in robot.finger_links]
    own = {f"link:{name}": (friction, patch) for name, friction, patch in (*surfaces, *robot.surfaces)}
    fingers = [geom for geom in spec.geoms if geom.contype and geom.parent.name in own]
    scenery = [geom for geom in spec.geoms if geom.contype and not geom.parent.name.startswith(("link:", "object:"))]
    for finger in fingers:
        friction, patch = own[finger.parent.name]
        slide = (friction + _DEFAULT_FRICTION) / 2
        for part in scenery:
            pair = spec.add_pair(geomname1=finger.name, geomname2=part.name, condim=4)
            pair.friction = (slide, slide, patch, 0.0, 0.0)
            pair.solref, pair.solimp = finger.solref, finger.solimp


def _stop_fingers(spec: mujoco.MjSpec, robot: Robot) -> None:
    """Closing fingers stop each other where they meet, and stay in the middle, as the original's do.

    Their tips would meet edge to edge, where a contact has no clear direction: they slip past each other. A limit on
    the sum of their joint positions presses on both alike.
    """
    if robot.fingers_meet is None:
        return
    stop = spec.add_tendon(name="fingers", limited=True, range=(-1.0, 2 * robot.fingers_meet))
    stop.solref_limit, stop.solimp_limit = (4 * spec.option.timestep, 1.0), (0.99, 0.999, 1e-3, 0.5, 2.0)
    for joint in robot.gripper_joints:
        stop.wrap_joint(joint, 1.0)
    finger_of = {f"link:{link}": joint for joint in robot.gripper_joints for link in robot.carried_by(joint)}
    for one, other in combinations(sorted(finger_of), 2):
        if finger_of[one] != finger_of[other]:
            spec.add_exclude(bodyname1=one, bodyname2=other)


def _add_camera(spec: mujoco.MjSpec, camera: Camera) -> None:
    rotation = rotations.matrix_from_quaternion(camera.pose[3:])
    # SAPIEN: x forward, y left, z up. MuJoCo: x right, y up, z backward.
    turned = np.stack([-rotation[:, 1], rotation[:, 2], -rotation[:, 0]], -1)
    spec.body(f"link:{camera.link}").add_camera(
        name=camera.name,
        pos=camera.pose[:3],
        quat=rotations.quaternion_from_matrix(turned),
        resolution=(camera.width, camera.height),
        sensor_size=(1.0, camera.height / camera.width),
        focal_pixel=(camera.focal, camera.focal),
        principal_pixel=(camera.width / 2 - camera.cx, camera.height / 2 - camera.cy),
    )


def _sensor_name(query: ContactQuery) -> str:
    return f"contact:{query.of}:{query.by}"


def _add_contact_sensor(spec: mujoco.MjSpec, query: ContactQuery) -> None:
    (by, by_name), (of, of_name) = _element(query.by), _element(query.of)
    spec.add_sensor(
        name=_sensor_name(query),
        type=mujoco.mjtSensor.mjSENS_CONTACT,
        objtype=by,
        objname=by_name,
        reftype=of,
        refname=of_name,
        # data fields (bit 1: force), reduction (3: net force in world axes), number of slots
        intprm=(1 << int(mujoco.mjtConDataField.mjCONDATA_FORCE), 3, 1),
    )


def _element(subject: str) -> tuple[mujoco.mjtObj, str]:
    """The body or geom that a contact query calls so."""
    if subject.startswith("part:"):
        return mujoco.mjtObj.mjOBJ_GEOM, subject
    return mujoco.mjtObj.mjOBJ_BODY, "world" if subject == "scene" else subject


def _damping_of(obj: ObjectSpec) -> Floats:
    return _OBJECT_DAMPING * np.array([obj.mass] * 3 + list(obj.inertia))


def _index(
    model: mujoco.MjModel,
    setup: RobotSetup,
    objects: Sequence[ObjectSpec],
    first: Layout,
    queries: Sequence[ContactQuery],
    touches: Sequence[ContactQuery],
) -> Scene:
    moving = setup.robot.moving_joints
    joints = [model.joint(joint.name) for joint in moving]
    free = [None if obj.fixed else model.joint(f"object:{obj.name}") for obj in objects]
    # A cast may have more objects than the first layout; what is more is free.
    fixed = np.zeros((len(objects), 7))
    fixed[: len(first.object_pose)] = first.object_pose[: len(objects)]
    sensors, touched = ([model.sensor(_sensor_name(query)).adr[0] for query in of] for of in (queries, touches))
    return Scene(
        model=model,
        robot_qpos=np.array([joint.qposadr[0] for joint in joints]),
        robot_qvel=np.array([joint.dofadr[0] for joint in joints]),
        object_qpos=np.array([-1 if joint is None else joint.qposadr[0] for joint in free], np.int64),
        object_qvel=np.array([-1 if joint is None else joint.dofadr[0] for joint in free], np.int64),
        object_pose=fixed,
        joint_qpos={name: int(model.joint(name).qposadr[0]) for name in first.joints},
        drives=np.array([model.actuator(joint.name).id for joint in moving]),
        lead=np.array([joint.kd / joint.kp for joint in moving]),
        base=int(model.body(f"link:{setup.robot.links[0].name}").mocapid[0]),
        sensors=np.array(sensors, np.int64),
        touches=np.array(touched, np.int64).reshape(len(objects), len(setup.robot.finger_links)),
        camera=setup.camera.name,
        substeps=setup.robot.mujoco.substeps,
    )


def write_qpos(scene: Scene, row: Floats, qpos: Floats, object_pose: Floats, joints: Mapping[str, float]) -> None:
    """Fill a MuJoCo ``qpos`` row from joint positions ``[J]``, object poses ``[n, 7]`` and scenery joints."""
    row[scene.robot_qpos] = qpos
    for i, start in enumerate(scene.object_qpos):
        if start >= 0:
            row[start : start + 7] = object_pose[i]
    for name, value in joints.items():
        row[scene.joint_qpos[name]] = value
