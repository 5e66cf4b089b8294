"""The Google Robot's control mode: pose changes of the measured TCP, and planned joint motion.

``arm_pd_ee_delta_pose_align_interpolate_by_planner_gripper_pd_joint_target_delta_pos_interpolate_by_planner`` of
SimplerEnv (ManiSkill2_real2sim ef7a4d4).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.conventions import rotations
from vlaser_gym.envs.robots.base import DriveTargets, Floats, Ints, Robot
from vlaser_gym.envs.robots.kinematics import ArmKinematics
from vlaser_gym.envs.robots.planning import JointPlanner

#: Drive targets per control step and per second; the original's physics substeps.
SUBSTEPS, RATE = 171, 513.0
#: Limits of the planned motion: rad/s, rad/s^2, rad/s^3.
_ARM_LIMITS, _GRIPPER_LIMITS = (1.5, 2.0, 50.0), (1.0, 7.0, 50.0)
#: Change of the finger target at action 1, rad; smaller changes than the second keep the target.
_GRIPPER_SCALE, _GRIPPER_THRESHOLD = 1.31, 1e-3
#: Range of the finger target, rad: the joint limits, widened by 0.01.
_GRIPPER_LOW, _GRIPPER_HIGH = -0.0101, 1.31


class GoogleRobotController:
    """Drive targets for arm, head and gripper, 171 per control step.

    *Arm.* The goal is the *measured* TCP pose plus the action's translation, turned by its rotation about the TCP;
    nothing is remembered, so what a step does not reach is forgotten. Inverse kinematics gives a joint goal (the two
    head joints belong to the controlled group but cannot move the TCP, so they stay); where it fails, the measured
    joint positions are the goal. A time-optimal motion leads there from where the last one was cut off; only one
    control period of it is run. The speed targets of arm and head are zero.

    *Gripper.* Relative, and positive closes: the action times 1.31 rad is added to the last target *sent*. A change
    below 0.001 rad keeps the last goal, so closing goes on while zeros are sent. Planned from the *measured* position
    and speed; speed targets are sent too.
    """

    def __init__(self, robot: Robot, num_lanes: int) -> None:
        order = [joint.name for joint in robot.moving_joints]
        self.kinematics = ArmKinematics(robot)
        gripper = [order.index(name) for name in robot.gripper_joints]
        self._gripper = np.array(gripper)
        #: Columns of ``qpos`` that the arm controller drives: the arm, then the head.
        self.columns = np.array([i for i in range(len(order)) if i not in gripper])
        self._joints = len(order)
        self._arm_planner = JointPlanner(len(self.columns), *_ARM_LIMITS, RATE, SUBSTEPS)
        self._gripper_planner = JointPlanner(len(gripper), *_GRIPPER_LIMITS, RATE, SUBSTEPS)
        # Where the last plan was cut off, and the fingers' goals and last targets.
        self._position = np.zeros((num_lanes, len(self.columns)))
        self._velocity = np.zeros((num_lanes, len(self.columns)))
        self._gripper_goal = np.zeros((num_lanes, len(gripper)))
        self._gripper_sent = np.zeros((num_lanes, len(gripper)))
        #: Whether the inverse kinematics of the last step found a solution, ``[num_lanes]``.
        self.ik_success = np.ones(num_lanes, bool)

    def reset(self, lanes: Ints, qpos: Floats) -> None:
        """Plans start from the measured joints, at rest."""
        self._position[lanes] = qpos[:, self.columns]
        self._velocity[lanes] = 0.0
        self._gripper_goal[lanes] = self._gripper_sent[lanes] = qpos[:, self._gripper]
        self.ik_success[lanes] = True

    def act(self, lanes: Ints, action: Floats, qpos: Floats, qvel: Floats) -> DriveTargets:
        """Targets ``[B, 171, 11]``; number ``k`` holds from ``k / 513`` s on and is the plan's sample ``k + 1``."""
        position, velocity = (np.zeros((len(lanes), SUBSTEPS, self._joints)) for _ in range(2))
        goal = self.arm_goal(lanes, action, qpos)
        arm, speed = self._arm_planner.plan(self._position[lanes], self._velocity[lanes], goal)
        self._position[lanes], self._velocity[lanes] = arm[:, -1], speed[:, -1]
        change = _GRIPPER_SCALE * np.clip(action[:, 6:], -1.0, 1.0)
        moved = np.clip(self._gripper_sent[lanes] + change, _GRIPPER_LOW, _GRIPPER_HIGH)
        self._gripper_goal[lanes] = np.where(np.abs(change) < _GRIPPER_THRESHOLD, self._gripper_goal[lanes], moved)
        start, start_speed = qpos[:, self._gripper], qvel[:, self._gripper]
        fingers, finger_speed = self._gripper_planner.plan(start, start_speed, self._gripper_goal[lanes])
        self._gripper_sent[lanes] = fingers[:, -1]
        position[..., self.columns] = arm
        position[..., self._gripper], velocity[..., self._gripper] = fingers, finger_speed
        return DriveTargets(position, velocity)

    def arm_goal(self, lanes: Ints, action: Floats, qpos: Floats) -> Floats:
        """Joint goal of arm and head, ``[B, 9]``, order of :attr:`columns`."""
        rotation, position = self.goal_pose(action, qpos)
        arm, self.ik_success[lanes] = self.kinematics.inverse(rotation, position, qpos)
        goal = qpos.copy()
        goal[:, self.kinematics.columns] = arm
        return goal[:, self.columns]

    def goal_pose(self, action: Floats, qpos: Floats) -> tuple[Floats, Floats]:
        """TCP goal ``(R [B, 3, 3], p [B, 3])`` in the base frame."""
        rotation, position = self.kinematics.tcp(qpos)
        return rotations.matrix_from_axis_angle(action[:, 3:6]) @ rotation, position + action[:, :3]

    def get_state(self) -> dict[str, NDArray[np.float64]]:
        """Ends of the last plans and the gripper's goals and targets, of all environments."""
        return {
            "position": self._position.copy(),
            "velocity": self._velocity.copy(),
            "gripper_goal": self._gripper_goal.copy(),
            "gripper_sent": self._gripper_sent.copy(),
        }

    def set_state(self, state: dict[str, NDArray[np.float64]]) -> None:
        """Restore what :meth:`get_state` returned."""
        self._position, self._velocity = state["position"].copy(), state["velocity"].copy()
        self._gripper_goal, self._gripper_sent = state["gripper_goal"].copy(), state["gripper_sent"].copy()
