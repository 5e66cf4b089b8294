"""The WidowX 250 S as SimplerEnv simulates it.

Source of all numbers: ManiSkill2_real2sim at ef7a4d4, ``wx250s.urdf`` and ``agents/configs/widowx``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.conventions import rotations
from vlaser_gym.envs import transforms
from vlaser_gym.envs.robots.base import (
    POLICY_CAMERA,
    Camera,
    DriveTargets,
    Floats,
    Ints,
    Joint,
    Link,
    Robot,
    RobotSetup,
)
from vlaser_gym.envs.robots.kinematics import ArmKinematics
from vlaser_gym.envs.robots.numbers import ManiskillNumbers, MujocoNumbers, SimplerNumbers

_QUARTER = np.pi / 2

_LINKS = (
    Link("base_link", 0.538736, (-0.0380446, 0.000613892, 0.0193354), (0, 0, _QUARTER),
         (2.115e-3, 6.921e-4, 2.524e-3, -1.635e-5, 6.998e-7, 4.642e-5)),
    Link("shoulder_link", 0.480879, (2.23482e-5, 4.14609e-5, 0.0066287), (0, 0, _QUARTER),
         (3.79e-4, 5.557e-4, 5.889e-4, 2.2e-9, -3.561e-7, 1.2245e-6)),
    Link("upper_arm_link", 0.430811, (0.0171605, 2.725e-7, 0.191323), (0, 0, _QUARTER),
         (3.463e-3, 3.587e-3, 4.566e-4, -1e-10, -2e-10, 4.272e-4)),
    Link("upper_forearm_link", 0.234589, (0.107963, 1.15876e-4, 0), (0, 0, 0),
         (3.971e-5, 8.878e-4, 8.88e-4, 2.3528e-6, 0, 0)),
    Link("lower_forearm_link", 0.220991, (0.0374395, 0.00522252, 0), (np.pi, 0, 0),
         (6.369e-5, 1.677e-4, 1.834e-4, -2.292e-5, 0, 0)),
    Link("wrist_link", 0.084957, (0.04236, -1.0663e-5, 0.010577), (0, 0, _QUARTER),
         (3.082e-5, 2.822e-5, 3.152e-5, 1.91e-8, 2.3e-9, 2.5481e-6)),
    Link("gripper_link", 0.072885, (0.021631, 2.516e-7, 0.01141), (0, 0, _QUARTER),
         (2.537e-5, 1.836e-5, 1.674e-5, 0, 0, 4.34e-7)),
    Link("ee_arm_link", 0.001),
    Link("gripper_prop_link", 0.00434, (8.46e-4, -1.6817e-6, 4.2e-5), (0, 0, _QUARTER),
         (5.923e-7, 1.1156e-6, 5.743e-7, 0, 3.195e-7, -4e-10)),
    Link("gripper_bar_link", 0.034199, (0.009687, 8.177e-7, 0.004962), (0, 0, _QUARTER),
         (7.4125e-6, 2.843e-5, 2.86e-5, -8e-10, -6e-10, -1.3889e-6)),
    Link("fingers_link", 0.001),
    Link("left_finger_link", 0.016246, (0.013816, 0, 0), (np.pi, np.pi, _QUARTER),
         (4.731e-6, 1.5506e-6, 3.7467e-6, -4.56e-7, 0, 0)),
    Link("right_finger_link", 0.016246, (0.013816, 0, 0), (0, np.pi, _QUARTER),
         (4.731e-6, 1.5506e-6, 3.7467e-6, 4.56e-7, 0, 0)),
    Link("ee_gripper_link", 0.001),
)  # fmt: skip

_JOINTS = (
    Joint("waist", "revolute", "base_link", "shoulder_link", (0, 0, 0.072), axis=(0, 0, 1),
          lower=-3.141592653589793, upper=3.141592653589793, kp=1169.7891719504198, kd=330.0, force=200),
    Joint("shoulder", "revolute", "shoulder_link", "upper_arm_link", (0, 0, 0.03865), axis=(0, 1, 0),
          lower=-1.8849555921538759, upper=1.9896753472735358, kp=730.0, kd=180.0, force=200),
    Joint("elbow", "revolute", "upper_arm_link", "upper_forearm_link", (0.04975, 0, 0.25), axis=(0, 1, 0),
          lower=-2.1467549799530254, upper=1.6057029118347832, kp=808.4601346394447, kd=152.12036565582588, force=100),
    Joint("forearm_roll", "revolute", "upper_forearm_link", "lower_forearm_link", (0.175, 0, 0), axis=(1, 0, 0),
          lower=-3.141582653589793, upper=3.141582653589793, kp=1229.1299089624076, kd=309.6215302722146, force=100),
    Joint("wrist_angle", "revolute", "lower_forearm_link", "wrist_link", (0.075, 0, 0), axis=(0, 1, 0),
          lower=-1.7453292519943295, upper=2.1467549799530254, kp=1272.2760456418862, kd=201.04998711007383, force=100),
    Joint("wrist_rotate", "revolute", "wrist_link", "gripper_link", (0.065, 0, 0), axis=(1, 0, 0),
          lower=-3.141582653589793, upper=3.141582653589793, kp=1056.3326605132252, kd=269.51458932695414, force=100),
    Joint("ee_arm", "fixed", "gripper_link", "ee_arm_link", (0.043, 0, 0)),
    Joint("gripper", "fixed", "ee_arm_link", "gripper_prop_link", (0.0055, 0, 0)),
    Joint("gripper_bar", "fixed", "ee_arm_link", "gripper_bar_link"),
    Joint("ee_bar", "fixed", "gripper_bar_link", "fingers_link", (0.023, 0, 0)),
    Joint("left_finger", "prismatic", "fingers_link", "left_finger_link", axis=(0, 1, 0),
          lower=0.015, upper=0.037, kp=1000, kd=200, force=60),
    Joint("right_finger", "prismatic", "fingers_link", "right_finger_link", axis=(0, -1, 0),
          lower=0.015, upper=0.037, kp=1000, kd=200, force=60),
    Joint("ee_gripper", "fixed", "fingers_link", "ee_gripper_link", (0.027575, 0, 0)),
)  # fmt: skip

WIDOWX = Robot(
    name="widowx",
    links=_LINKS,
    joints=_JOINTS,
    tcp_link="ee_gripper_link",
    arm_joints=("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate"),
    gripper_joints=("left_finger", "right_finger"),
    # The original's own 100 substeps of 2 ms; with these contacts, control steps from states of the original come out
    # closest to its own (docs/parity.md, "Why MuJoCo was kinder").
    mujoco=MujocoNumbers(
        "vlaser_gym.envs.engines.mujoco.robot_geoms:add_link_geoms",
        substeps=100,
        impedance=(0.99, 0.999),
        friction_weight=100.0,
        iterations=25,
    ),
    finger_links=("left_finger_link", "right_finger_link"),
    finger_friction=2.0,
    collision_exclusions=(("gripper_bar_link", "left_finger_link"), ("gripper_bar_link", "right_finger_link")),
    description="widowx_description/wx250s.urdf",
    maniskill=ManiskillNumbers(share=0.64, hull_per_part=False),
    simpler=SimplerNumbers("arm_pd_ee_target_delta_pose_align2_gripper_pd_joint_pos", open_at_limit=True),
)

#: Finger joint range of the gripper command: the joint limits plus or minus 1 mm.
_FINGER_CLOSED, _FINGER_OPEN = 0.014, 0.038
_FINGER_LIMITS = (0.015, 0.037)


def openness(qpos: Floats) -> Floats:
    """1 - mean over the fingers of (upper - q) / (upper - lower), the closedness floored at 0. ``[B, 8] -> [B]``."""
    low, high = _FINGER_LIMITS
    closed = ((high - qpos[:, 6:8]) / (high - low)).sum(-1) / 2
    return np.asarray(1.0 - np.maximum(closed, 0.0))


class WidowXController:
    """``arm_pd_ee_target_delta_pose_align2_gripper_pd_joint_pos``.

    The arm follows a *target* TCP pose in the base frame that starts at the measured one. An action's translation is
    added to it; its rotation turns it about the *measured* TCP. Inverse kinematics starts at the measured joints; where
    it fails the joints hold while the target keeps moving. The gripper is absolute: -1 closed, +1 open.
    """

    def __init__(self, num_lanes: int) -> None:
        self.kinematics = ArmKinematics(WIDOWX)
        self._position = np.zeros((num_lanes, 3))
        self._rotation = np.tile(np.eye(3), (num_lanes, 1, 1))
        #: Whether the inverse kinematics of the last step found a solution, ``[num_lanes]``.
        self.ik_success = np.ones(num_lanes, bool)

    def reset(self, lanes: Ints, qpos: Floats) -> None:
        """The target becomes the measured TCP pose."""
        self._rotation[lanes], self._position[lanes] = self.kinematics.tcp(qpos)
        self.ik_success[lanes] = True

    def act(self, lanes: Ints, action: Floats, qpos: Floats, qvel: Floats) -> DriveTargets:
        """Set one target for the whole control step, ``position [B, 1, 8]``."""
        _, tcp = self.kinematics.tcp(qpos)
        turn = rotations.matrix_from_axis_angle(action[:, 3:6])
        self._position[lanes] = tcp + action[:, :3] + rotations.rotate(turn, self._position[lanes] - tcp)
        self._rotation[lanes] = turn @ self._rotation[lanes]
        arm, self.ik_success[lanes] = self.kinematics.inverse(self._rotation[lanes], self._position[lanes], qpos)
        opening = (np.clip(action[:, 6:7], -1.0, 1.0) + 1) / 2
        finger = _FINGER_CLOSED + opening * (_FINGER_OPEN - _FINGER_CLOSED)
        return DriveTargets(np.concatenate([arm, finger, finger], -1)[:, None])

    def target_pose(self, lanes: Ints) -> Floats:
        """The target TCP pose in the base frame, ``[B, 7]``."""
        return transforms.make_pose(self._position[lanes], self._rotation[lanes])

    def get_state(self) -> dict[str, NDArray[np.float64]]:
        """Target positions and rotations of all environments."""
        return {"position": self._position.copy(), "rotation": self._rotation.copy()}

    def set_state(self, state: dict[str, NDArray[np.float64]]) -> None:
        """Restore what :meth:`get_state` returned."""
        self._position, self._rotation = state["position"].copy(), state["rotation"].copy()


#: Above the gripper, behind its fingers, looking along them. The original has no such camera.
WRIST_CAMERA = Camera(
    "wrist_camera",
    "gripper_link",
    640,
    480,
    320.0,
    320.0,
    240.0,
    0.01,
    10.0,
    (-0.02, 0, 0.09, 0.9659258, 0, 0.258819, 0),
)


def _cameras(near: float, pose: tuple[float, ...]) -> dict[str, Camera]:
    policy = Camera("3rd_view_camera", "base_link", 640, 480, 623.588, 319.501, 239.545, near, 10.0, pose)
    return {POLICY_CAMERA: policy, "wrist": WRIST_CAMERA}


#: Carrot, spoon and cubes.
TABLE_SETUP = RobotSetup(
    name="widowx",
    robot=WIDOWX,
    base_pose=(0.147, 0.028, 0.870, 0.0, 0.0, 0.0, 1.0),
    qpos=(-0.01840777, 0.0398835, 0.22242722, -0.00460194, 1.36524296, 0.00153398, 0.037, 0.037),
    cameras=_cameras(0.1, (0.0, -0.16, 0.36, 0.8992917, -0.09263245, 0.35892478, 0.23209205)),
    control_hz=5.0,
    physics_hz=500.0,
    make_controller=WidowXController,
    openness=openness,
    original_name="widowx",
)

#: Eggplant.
SINK_SETUP = RobotSetup(
    name="widowx_sink",
    robot=WIDOWX,
    base_pose=(0.127, 0.060, 0.850, 0.0, 0.0, 0.0, 1.0),
    qpos=(-0.2600599, -0.12875618, 0.04461369, -0.00652761, 1.7033415, -0.26983038, 0.037, 0.037),
    cameras=_cameras(0.01, (-0.00300001, -0.21, 0.39, -0.907313, 0.0782, -0.36434, -0.194741)),
    control_hz=5.0,
    physics_hz=500.0,
    make_controller=WidowXController,
    openness=openness,
    original_name="widowx_sink_camera_setup",
)
