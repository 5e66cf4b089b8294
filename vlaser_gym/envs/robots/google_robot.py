"""The Google Robot (static base) as SimplerEnv simulates it.

Source of all numbers: ManiSkill2_real2sim at ef7a4d4, ``google_robot_meta_sim_fix_wheel_fix_fingertip.urdf`` and
``agents/configs/google_robot``. The recoloured descriptions of visual matching have the same numbers.

What an engine must know beyond these tables: the base stands (it is fixed, wheels too); gravity and Coriolis forces of
all links are compensated; drives are torque drives ``kp (q* - q) + kd (v* - v)`` clipped to ``force``, where ``v*`` is
zero for arm and head and the planned speed for the fingers; the two fingers have no mimic joint and are stopped by each
other when they close empty (at 1.073 rad). The nails' own mass is zero in the description; the 0.05 g here is their
volume's at the density of water.
"""

from __future__ import annotations

import numpy as np

from vlaser_gym.envs.robots.base import POLICY_CAMERA, Camera, Floats, Joint, Link, Robot, RobotSetup
from vlaser_gym.envs.robots.google_controller import GoogleRobotController
from vlaser_gym.envs.robots.numbers import ManiskillNumbers, MujocoNumbers, SimplerNumbers

_QUARTER = np.pi / 2

_WHEEL_INERTIA = (2.25894737564536e-4, 4.34263997688239e-4, 2.25894737557e-4, -1.73680020768e-7, -7.411298564e-7, 0.0)
_FINGER = (0.033324467357629, (3.15535e-8, 3.50529611204e-4, 0.0371802506226547), (0, 0, 0),
           (9.32117719701e-6, 6.08487398831e-6, 3.23630320888e-6, 1.22669879722e-11, -7.58255431913e-12,
            1.57826570013e-6))  # fmt: skip
_FINGER_TIP = (0.0161861871252174, (7.32211e-8, 4.1273472371548e-4, 0.0215605732703755), (0, 0, 0),
               (1.066e-5, 1.147e-5, 1.78e-6, 0, 0, 0))  # fmt: skip
_NAIL = (5e-5, (0, 0, 0), (0, 0, 0), (1e-9, 1e-9, 1e-9, 0, 0, 0))

_LINKS = (
    Link("link_base", 52.9101052160097, (-0.142542994624505, 0.00233339305547787, 0.130110970092973), (0, 0, 0),
         (2.78321475990223, 3.24941132525702, 1.33602142044359, 0.00102013636219535, -0.544719331016329,
          0.00751942241521894)),
    Link("link_wheel_left", 0.227550092516064, inertia=_WHEEL_INERTIA),
    Link("link_wheel_right", 0.227550092516064, inertia=_WHEEL_INERTIA),
    Link("link_torso", 1.8957478141399, (-0.00349440775620019, -0.0607148425485309, 0.111756043503709), (0, 0, 0),
         (0.0133075265762797, 0.00670473236899565, 0.01146044402243, 1.89697020107391e-4, 2.61969764388555e-5,
          1.74650164172695e-4)),
    Link("link_shoulder", 1.84719381890442, (0.00108073648299081, 0.00480943923806668, 0.104943810827839), (0, 0, 0),
         (0.0139748177932869, 0.0142491663186364, 0.00294679102626988, -4.34243299680672e-5, -1.63555207176536e-5,
          4.46239649689696e-4)),
    Link("link_bicep", 1.24742039827471, (4.09029241155202e-4, -0.0211440998419464, 0.135242657168686), (0, 0, 0),
         (0.00704679718538362, 0.00688742202474402, 0.00185445900824595, 1.36969628307e-10, 3.84597629359556e-5,
          9.28918679930493e-4)),
    Link("link_elbow", 0.646384675806209, (0.00173027427722836, -0.0765653785661243, 0.0367058126361657), (0, 0, 0),
         (0.00178669367379914, 0.00118491737676627, 0.0013174964153246, 4.72737764012e-9, 1.63948789791547e-5,
          4.57024538361969e-4)),
    Link("link_forearm", 0.724366583650768, (1.27504320016631e-5, 0.015087509138929, 0.181814236861875), (0, 0, 0),
         (0.0072105415923413, 0.00715752801157893, 5.91583070198947e-4, 1.04502358823e-7, 1.31044797457377e-6,
          -5.11256783255503e-4)),
    Link("link_wrist", 0.501929332223751, (-2.97206845574571e-4, -0.00732716069306932, 0.0536615347785701), (0, 0, 0),
         (0.00114262626699036, 0.00107002285178686, 4.2713626545483e-4, -2.30402238037496e-6, -6.14792965371237e-6,
          -2.60092608214865e-4)),
    Link("link_gripper", 0.40507013, (4.2266e-4, 1.1761e-4, 0.03790068), (0, 0, 0),
         (2.9237e-4, 2.6364e-4, 3.1135e-4, 3.59e-6, 2.66e-6, 6.6e-7)),
    Link("link_gripper_tcp", 0.001),
    Link("link_finger_right", *_FINGER),
    Link("link_finger_tip_right", *_FINGER_TIP),
    Link("link_finger_nail_right", *_NAIL),
    Link("link_finger_left", *_FINGER),
    Link("link_finger_tip_left", *_FINGER_TIP),
    Link("link_finger_nail_left", *_NAIL),
    Link("link_head_pan", 0.96335794, (0.0164010030935057, -5.7398337011911e-4, 0.0868775033608304), (0, 0, 0),
         (0.00199658, 0.00282709, 0.00240811, -2.2593e-4, 5.3396e-4, -1.2776e-4)),
    Link("link_head_tilt", 0.879240552641472, (0.0728448960084497, -0.00300449029242004, 0.00132833990979786),
         (0, 0, 0), (0.00336483410344631, 0.00155398903526845, 0.00410079899218125, -6.95997852501698e-5,
                     -3.20907144882e-6, -6.72868939256e-6)),
    Link("link_camera", 0.001),
)  # fmt: skip

_JOINTS = (
    Joint("joint_wheel_left", "fixed", "link_base", "link_wheel_left", (0, 0.18333, 0)),
    Joint("joint_wheel_right", "fixed", "link_base", "link_wheel_right", (-1.38753859997836e-4, -0.18333, 0)),
    Joint("joint_torso", "revolute", "link_base", "link_torso", (0, 0, 0.5945), axis=(0, 0, 1),
          lower=-4.49, upper=1.35, kp=1700.0, kd=1059.9791902443303, force=300),
    Joint("joint_shoulder", "revolute", "link_torso", "link_shoulder", (0, -0.16728852885, 0.113), axis=(0, 1, 0),
          lower=-2.66, upper=3.18, kp=1737.0471680861954, kd=1010.4720585373592, force=300),
    Joint("joint_bicep", "revolute", "link_shoulder", "link_bicep", (0, 0.002289, 0.21502852885), axis=(0, 0, 1),
          lower=-2.13, upper=3.71, kp=979.975871856535, kd=767.2803161582076, force=100),
    Joint("joint_elbow", "revolute", "link_bicep", "link_elbow", (0, -0.064, 0.1849715), axis=(0, 1, 0),
          lower=-2.05, upper=3.79, kp=930.0, kd=680.0, force=100),
    Joint("joint_forearm", "revolute", "link_elbow", "link_forearm", (0, -0.101, 0.0915), axis=(0, 0, 1),
          lower=-2.92, upper=2.92, kp=1212.154500274304, kd=674.9946964336588, force=100),
    Joint("joint_wrist", "revolute", "link_forearm", "link_wrist", (0, -0.00604, 0.2735), axis=(0, 1, 0),
          lower=-1.79, upper=1.79, kp=432.96500923932535, kd=274.613381336198, force=100),
    Joint("joint_gripper", "revolute", "link_wrist", "link_gripper", (0, 0.0060384, 0.10911), axis=(0, 0, 1),
          lower=-4.49, upper=1.35, kp=468.0013365498738, kd=340.532560578637, force=100),
    Joint("gripper_tcp_joint", "fixed", "link_gripper", "link_gripper_tcp", (0.0043374896, 0.0018852949, 0.16353297),
          (-0.001328879239766479, -0.00443973089771006, -0.0008686511567993004)),
    Joint("joint_finger_right", "revolute", "link_gripper", "link_finger_right", (0, -0.025, 0.05861),
          (-1.15, 0, 3.14159265359), (1, 0, 0), lower=-0.0001, upper=1.3, kp=200, kd=8, force=60),
    Joint("joint_finger_tip_right", "fixed", "link_finger_right", "link_finger_tip_right",
          (0, -0.0103567252152576, 0.0641556076619853), (0.45, 0, 0)),
    Joint("joint_finger_nail_right", "fixed", "link_finger_tip_right", "link_finger_nail_right", (0, 0, 0.0463)),
    Joint("joint_finger_left", "revolute", "link_gripper", "link_finger_left", (0, 0.025, 0.05861),
          (-1.15, 0, 0), (1, 0, 0), lower=-0.0001, upper=1.3, kp=200, kd=8, force=60),
    Joint("joint_finger_tip_left", "fixed", "link_finger_left", "link_finger_tip_left",
          (0, -0.0103567252152576, 0.0641556076619853), (0.45, 0, 0)),
    Joint("joint_finger_nail_left", "fixed", "link_finger_tip_left", "link_finger_nail_left", (0, 0, 0.0463)),
    Joint("joint_head_pan", "revolute", "link_base", "link_head_pan", (0, 0, 1.16902), axis=(0, 0, 1),
          lower=-3.79, upper=2.22, kp=2000, kd=900, force=100),
    Joint("joint_head_tilt", "revolute", "link_head_pan", "link_head_tilt", (0.07181, 0, 0.11848), axis=(0, 1, 0),
          lower=-1.17, upper=1.17, kp=2000, kd=900, force=100),
    Joint("joint_camera_mount", "fixed", "link_head_tilt", "link_camera", (0.10488, 0, 0), (-_QUARTER, 0, -_QUARTER)),
)  # fmt: skip

GOOGLE_ROBOT = Robot(
    name="google_robot",
    links=_LINKS,
    joints=_JOINTS,
    tcp_link="link_gripper_tcp",
    arm_joints=(
        "joint_torso",
        "joint_shoulder",
        "joint_bicep",
        "joint_elbow",
        "joint_forearm",
        "joint_wrist",
        "joint_gripper",
    ),
    gripper_joints=("joint_finger_right", "joint_finger_left"),
    mujoco=MujocoNumbers(
        "vlaser_gym.envs.engines.mujoco.google_geoms:add_link_geoms",
        # The original takes 171 substeps of 1.95 ms.
        substeps=57,
        # The fingers press a 20 g can with hundreds of newtons: it sinks in and slips out of softer contacts.
        impedance=(0.99, 0.999),
        friction_weight=100.0,
        # Without it the orange of move near (grid:0) rolls away by 65 mm in 5 s, exact as its hull is; with it by 0.02.
        rolling_friction=0.001,
    ),
    finger_links=("link_finger_right", "link_finger_tip_right", "link_finger_left", "link_finger_tip_left"),
    finger_friction=2.0,
    finger_patch_radius=0.1,
    surfaces=(("link_finger_nail_right", 0.1, 0.01), ("link_finger_nail_left", 0.1, 0.01)),
    fingers_meet=1.0732,
    description="googlerobot_description/google_robot_meta_sim_fix_wheel_fix_fingertip{}.urdf",
    unseen_links=("link_base", "link_wheel_left", "link_wheel_right", "link_head_pan", "link_head_tilt"),
    maniskill=ManiskillNumbers(share=0.265, rotor=0.0156, speed=0.035),
    simpler=SimplerNumbers(
        "arm_pd_ee_delta_pose_align_interpolate_by_planner_gripper_pd_joint_target_delta_pos_interpolate_by_planner",
        open_at_limit=False,
    ),
)

#: Columns of the fingers in ``qpos``, and the joint position of a closed gripper, rad.
_FINGERS, _CLOSED = slice(7, 9), 1.3

#: Start positions, order of :attr:`Robot.moving_joints`: arm, fingers, head pan and tilt.
START_QPOS = (-0.2639457174606611, 0.0831913360274175, 0.5017611504652179, 1.156859026208673, 0.028583671314766423,
              1.592598203487462, -1.080652960128774, 0.0, 0.0, -0.00285961, 0.7851361)  # fmt: skip
#: Index of the head tilt in ``qpos``; the alternative cameras of variant aggregation start with another value (rad).
HEAD_TILT, ALTERNATIVE_HEAD_TILTS = 10, (0.9351361, 0.6651361)
#: Height of the base link above the world's ground, m.
BASE_HEIGHT = 0.06205 + 0.017


def openness(qpos: Floats) -> Floats:
    """1 - mean finger position / 1.3 rad, the closedness floored at 0. ``[B, 11] -> [B]``; 0.17 when shut empty."""
    closed = (qpos[:, _FINGERS] / _CLOSED).sum(-1) / 2
    return np.asarray(1.0 - np.maximum(closed, 0.0))


def base_pose(x: float, y: float, yaw: float = 0.0) -> tuple[float, ...]:
    """World pose of the base link; at ``yaw`` 0 (rad) the robot looks along world -x."""
    half = (np.pi + yaw) / 2
    return (x, y, BASE_HEIGHT, float(np.cos(half)), 0.0, 0.0, float(np.sin(half)))


OVERHEAD_CAMERA = Camera(
    "overhead_camera", "link_camera", 640, 512, 425.0, 320.0, 256.0, 0.1, 10.0, (0, 0, 0, 0.5, 0.5, -0.5, 0.5)
)
#: Beside the gripper's housing, looking along its fingers. The original has no such camera.
WRIST_CAMERA = Camera(
    "wrist_camera", "link_gripper", 640, 512, 320.0, 320.0, 256.0, 0.01, 10.0, (0.1, 0, 0.02, 0, 0.5, 0, 0.8660254)
)


def _setup(name: str, pose: tuple[float, ...]) -> RobotSetup:
    return RobotSetup(
        name=name,
        robot=GOOGLE_ROBOT,
        base_pose=pose,
        qpos=START_QPOS,
        cameras={POLICY_CAMERA: OVERHEAD_CAMERA, "wrist": WRIST_CAMERA},
        control_hz=3.0,
        physics_hz=513.0,
        make_controller=lambda num_lanes: GoogleRobotController(GOOGLE_ROBOT, num_lanes),
        openness=openness,
        original_name="google_robot_static",
    )


#: Pick an object from the table.
PICK_SETUP = _setup("google_robot_pick", base_pose(0.35, 0.20))
#: Move an object near another.
MOVE_NEAR_SETUP = _setup("google_robot_move_near", base_pose(0.35, 0.21, -0.09))
#: Cabinet with drawers. Every layout brings its own base pose; this is the first of visual matching (a0).
DRAWER_SETUP = _setup("google_robot_drawer", base_pose(0.644, -0.179, -0.03))

SETUPS = (PICK_SETUP, MOVE_NEAR_SETUP, DRAWER_SETUP)
