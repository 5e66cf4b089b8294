"""Robot descriptions independent of engines: joints, limits, gains, cameras, start pose, controller contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.envs.robots.numbers import ManiskillNumbers, MujocoNumbers, SimplerNumbers

#: The camera that every robot has: the one through which the original's policies look.
POLICY_CAMERA = "policy"

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Joint:
    """A joint of the tree; ``kind`` is revolute, prismatic or fixed.

    Attributes:
        xyz, rpy: origin in the parent link's frame (m, rad).
        lower, upper: limits (rad or m).
        kp, kd: gains of the position drive (N m / rad and N m s / rad; N / m and N s / m for prismatic).
        force: largest drive force (N m or N).
    """

    name: str
    kind: str
    parent: str
    child: str
    xyz: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rpy: tuple[float, float, float] = (0.0, 0.0, 0.0)
    axis: tuple[float, float, float] = (1.0, 0.0, 0.0)
    lower: float = 0.0
    upper: float = 0.0
    kp: float = 0.0
    kd: float = 0.0
    force: float = 0.0


@dataclass(frozen=True)
class Link:
    """Inertial numbers of a link: mass (kg), centre of mass (m), rpy of the inertia frame, (xx, yy, zz, xy, xz, yz)."""

    name: str
    mass: float
    com: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rpy: tuple[float, float, float] = (0.0, 0.0, 0.0)
    inertia: tuple[float, float, float, float, float, float] = (1e-3, 1e-3, 1e-3, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera on a robot link.

    ``pose`` follows SAPIEN: x forward, y left, z up, in the link's frame. Focal length and centre are in pixels.
    """

    name: str
    link: str
    width: int
    height: int
    focal: float
    cx: float
    cy: float
    near: float
    far: float
    pose: tuple[float, ...]


@dataclass(frozen=True)
class Robot:
    """A robot: links in tree order, joints (fixed ones too), and the names that play a part in control.

    The fields ``mujoco``, ``maniskill`` and ``simpler`` hold what single engines must know beyond that; a robot without
    ``maniskill`` or ``simpler`` does not run there.
    """

    name: str
    links: tuple[Link, ...]
    joints: tuple[Joint, ...]
    tcp_link: str
    arm_joints: tuple[str, ...]
    gripper_joints: tuple[str, ...]
    mujoco: MujocoNumbers
    #: Links whose friction is the gripper's, not the default material's.
    finger_links: tuple[str, ...]
    finger_friction: float
    #: Radius of the patch over which a finger's contact resists twisting, m.
    finger_patch_radius: float = 0.01
    #: Other links with a surface of their own: ``(link, friction, patch radius in m)``.
    surfaces: tuple[tuple[str, float, float], ...] = ()
    #: Pairs of links that never collide with each other, beyond parent and child.
    collision_exclusions: tuple[tuple[str, str], ...] = ()
    #: Joint position (rad) at which empty fingers stop each other in the middle; None where their limits do so before.
    fingers_meet: float | None = None
    #: The robot's description (URDF) in the asset pack's folder of robots; ``{}`` takes the colouring.
    description: str = ""
    #: Links that the policy's camera never sees; its images in the look ``original`` go without them.
    unseen_links: tuple[str, ...] = ()
    maniskill: ManiskillNumbers | None = None
    simpler: SimplerNumbers | None = None

    @property
    def moving_joints(self) -> tuple[Joint, ...]:
        """Joints with a degree of freedom, in the order of ``qpos``."""
        return tuple(j for j in self.joints if j.kind != "fixed")

    def carried_by(self, joint: str) -> tuple[str, ...]:
        """Links that a joint moves, down to the next moving joints."""
        names = [j.child for j in self.joints if j.name == joint]
        for other in self.joints:
            if other.kind == "fixed" and other.parent in names:
                names.append(other.child)
        return tuple(names)


@dataclass(frozen=True)
class DriveTargets:
    """Targets of the position drives during one control step.

    Attributes:
        position: ``[B, S, J]``; the control step is cut into S equal parts, each holding one target.
        velocity: the same shape, or None for zero.
    """

    position: Floats
    velocity: Floats | None = None


class Controller(Protocol):
    """Turns actions into drive targets, for all environments of a batch; owns one row of memory per environment.

    What the numbers of an action mean to it is declared in :mod:`vlaser_gym.conventions`.
    """

    def reset(self, lanes: Ints, qpos: Floats) -> None:
        """Episodes begin on ``lanes [B]`` with joint positions ``qpos [B, J]``."""

    def act(self, lanes: Ints, action: Floats, qpos: Floats, qvel: Floats) -> DriveTargets:
        """Targets for one control step. ``action [B, 7]``, ``qpos`` and ``qvel [B, J]`` measured now."""

    def get_state(self) -> dict[str, NDArray[np.float64]]:
        """A copy of the memory of all environments."""

    def set_state(self, state: dict[str, NDArray[np.float64]]) -> None:
        """Puts a copy of ``state`` back."""


@dataclass(frozen=True)
class RobotSetup:
    """A robot as a family of tasks uses it.

    Attributes:
        base_pose: world pose ``x y z qw qx qy qz`` of the root link.
        qpos: start joint positions, order of :attr:`Robot.moving_joints`.
        cameras: by name; :data:`POLICY_CAMERA` is one of them. See :attr:`image_cameras` for how they are observed.
        control_hz: control steps per second.
        physics_hz: physics substeps per second of the original; engines may choose another step.
        make_controller: ``num_lanes -> Controller``.
        openness: gripper openness ``[B]`` (1 open, 0 closed) from ``qpos [B, J]``.
        original_name: of robot and cameras in SimplerEnv; empty where it has none.
    """

    name: str
    robot: Robot
    base_pose: tuple[float, ...]
    qpos: tuple[float, ...]
    cameras: Mapping[str, Camera] = field(hash=False)
    control_hz: float
    physics_hz: float
    make_controller: Callable[[int], Controller] = field(compare=False)
    openness: Callable[[Floats], Floats] = field(compare=False)
    original_name: str = ""

    @property
    def camera(self) -> Camera:
        """The policy's."""
        return self.cameras[POLICY_CAMERA]

    @property
    def image_cameras(self) -> dict[str, str]:
        """Name of an observation -> name of the camera that it shows.

        ``image`` is the policy's camera, and ``<name>_image`` every other.
        """
        return {"image" if name == POLICY_CAMERA else f"{name}_image": name for name in self.cameras}


def is_image(observation: str) -> bool:
    """True if an observation of that name is an image; see :attr:`RobotSetup.image_cameras`."""
    return observation == "image" or observation.endswith("_image")
