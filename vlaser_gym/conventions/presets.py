"""Conventions of published policies, data sets and robots.

Where each fact is from (read in November 2026; what could not be read is said in the preset's ``notes``):

- ``simpler_widowx``, ``simpler_google_robot``: SimplerEnv's controllers, as :mod:`vlaser_gym.conventions.robots` has
  them; tests compare the two.
- ``bridge``, ``gr00t``: GR00T's ``examples/SimplerEnv/custom_data_config.py`` (names of state and action) and
  SimplerEnv's ``policies/gr00t/gr00t_model.py`` (roll, pitch, yaw; 1 opens; attitude relative to a gripper that points
  down; 256 x 256; 5 actions are executed of each chunk).
- ``fractal``: the same two files (quaternion x, y, z, w; closedness in the state; actions with 1 for open; 320 x 256).
- ``openpi_libero``: openpi's ``examples/libero/main.py`` (state: position, axis-angle, the two fingers' joints; 224 x
  224; the idle action ends with -1, which leaves the gripper open; 5 are executed); robosuite's OSC_POSE controller
  (actions from -1 to 1 stand for 0.05 m and 0.5 rad, axis-angle about the world's axes, from the measured pose).
- ``openpi_droid``: openpi's DROID client (chunks ``[10, 8]`` of 7 joint velocities and the gripper's position; names
  and 224 x 224 of the images).
- ``rt1``: SimplerEnv's ``policies/rt1/rt1_model.py`` for the Google Robot (axis-angle, not normalised, relative
  closedness in [-1, 1], 320 x 256 with padding).
- ``openvla``: SimplerEnv's ``policies/openvla/openvla_model.py`` (roll, pitch, yaw in rad, 1 is open and 0 closed, one
  action, 224 x 224, no state); ``unnorm_key`` undoes the normalisation inside ``predict_action``.
- ``openvla_oft``: OpenVLA-OFT's ``prismatic/vla/constants.py`` for LIBERO (8 actions of 7, 8 numbers of state), and
  ``robot_utils.py`` (gripper 0 closed to 1 open before it is turned into LIBERO's). Its actions are LIBERO's -1 to 1.
- ``xvla``: X-VLA's ``evaluation/simpler/WidowX/client.py`` (absolute pose in the base frame, the first two columns of
  the matrix read row by row, above 0.7 closes, 20 numbers of which the second ten are of another arm).
- ``so100``: LeRobot's ``robots/so_follower`` (five joints in degrees, the gripper from 0 to 100).
"""

from __future__ import annotations

import math

from vlaser_gym.conventions.convention import Convention, Gripper, State, View
from vlaser_gym.errors import UnknownNameError

#: A gripper that points down, seen from the WidowX's TCP: a turn by -90 degrees about y. Bridge's attitudes are zero
#: there.
POINTING_DOWN = (math.sqrt(0.5), 0.0, -math.sqrt(0.5), 0.0)
_POSE = ("x", "y", "z")
_OURS = State((*_POSE, "qw", "qx", "qy", "qz", "gripper"))
_EULER = (*_POSE, "roll", "pitch", "yaw")
#: LIBERO's fingers: each goes from 0 to 0.04 m, one of them the other way.
_FINGERS = Gripper(0.04, 0.0, unit="m")
_LIBERO_STATE = State((*_POSE, "rx", "ry", "rz", "gripper", "gripper"), "axis_angle", _FINGERS, "world")
_OSC = (0.05, 0.05, 0.05, 0.5, 0.5, 0.5)
_OPEN = Gripper(1.0, 0.0)
_RT1 = Gripper(-1.0, 1.0, "relative")

PRESETS: dict[str, Convention] = {
    convention.name: convention
    for convention in (
        Convention(
            name="simpler_widowx",
            motion="chained",
            state=_OURS,
            views=(View("image", 480, 640), View("wrist_image", 480, 640)),
            control_hz=5.0,
        ),
        Convention(
            name="simpler_google_robot",
            gripper=_RT1,
            state=_OURS,
            views=(View("image", 512, 640), View("wrist_image", 512, 640)),
            control_hz=3.0,
        ),
        Convention(
            name="bridge",
            rotation="euler:xyz",
            gripper=_OPEN,
            tool=POINTING_DOWN,
            state=State((*_EULER, "pad", "gripper"), "euler:xyz", _OPEN),
            views=(View("image", 256, 256),),
            control_hz=5.0,
            notes="Deltas of successive reached poses; LeRobot's copy has a pad before the gripper of its state.",
        ),
        Convention(
            name="fractal",
            rotation="euler:xyz",
            gripper=_OPEN,
            state=State((*_POSE, "qx", "qy", "qz", "qw", "gripper"), "quaternion_xyzw", Gripper(0.0, 1.0)),
            views=(View("image", 256, 320),),
            control_hz=3.0,
        ),
        Convention(
            name="openpi_droid",
            space="joint_velocities",
            joints=tuple(f"joint_{i}" for i in range(1, 8)),
            joint_unit="normalised velocity",
            gripper=Gripper(0.0, 1.0),
            state=State((*(f"joint_{i}" for i in range(1, 8)), "gripper"), gripper=Gripper(0.0, 1.0)),
            views=(View("image", 224, 224), View("wrist_image", 224, 224)),
            control_hz=15.0,
            chunk=10,
            notes="15 Hz and 1 for a closed gripper are from memory of DROID and from users' code, not from openpi's.",
        ),
        Convention(
            name="openpi_libero",
            frame="world",
            low=tuple(-bound for bound in _OSC),
            high=_OSC,
            gripper=Gripper(-1.0, 1.0),
            state=_LIBERO_STATE,
            views=(View("image", 224, 224), View("wrist_image", 224, 224)),
            control_hz=20.0,
            notes="The client executes 5 actions of each chunk; the chunk's length is the checkpoint's.",
        ),
        Convention(
            name="rt1",
            gripper=_RT1,
            views=(View("image", 256, 320),),
            control_hz=3.0,
            chunk=1,
            notes="Images are padded to 320 x 256, not stretched.",
        ),
        Convention(
            name="openvla",
            rotation="euler:xyz",
            gripper=_OPEN,
            views=(View("image", 224, 224),),
            control_hz=5.0,
            chunk=1,
            notes="For unnorm_key=bridge_orig. Without an unnorm_key actions are normalised by statistics of the data.",
        ),
        Convention(
            name="openvla_oft",
            frame="world",
            low=tuple(-bound for bound in _OSC),
            high=_OSC,
            gripper=_OPEN,
            state=_LIBERO_STATE,
            views=(View("image", 224, 224), View("wrist_image", 224, 224)),
            control_hz=20.0,
            chunk=8,
            notes="For LIBERO; 20 Hz is robosuite's usual rate.",
        ),
        Convention(
            name="xvla",
            rotation="rot6d_rows",
            motion="absolute",
            gripper=Gripper(0.0, 1.0),
            width=20,
            tool=POINTING_DOWN,
            state=State((*_POSE, *(f"r{i}" for i in range(6)), "gripper", *("pad",) * 10), "rot6d_rows", Gripper(0, 1)),
            views=(View("image"),),
            control_hz=5.0,
            chunk=30,
            notes=(
                "Chunks of 30 could not be read in its source. Its client feeds the last action back as state, and "
                "adds 90 degrees to the pitch, which is this tool's turn where roll is 0."
            ),
        ),
        Convention(
            name="gr00t",
            rotation="euler:xyz",
            gripper=_OPEN,
            tool=POINTING_DOWN,
            state=State((*_EULER, "pad", "gripper"), "euler:xyz", _OPEN),
            views=(View("image", 256, 256),),
            control_hz=5.0,
            chunk=16,
            notes="Of the post-trained Bridge policy; that a chunk has 16 actions could not be read in its source.",
        ),
        Convention(
            name="so100",
            space="joint_positions",
            motion="absolute",
            joints=("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll"),
            joint_unit="deg",
            gripper=Gripper(100.0, 0.0),
            state=State(
                ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"),
                gripper=Gripper(100.0, 0.0),
            ),
            views=(View("image", 480, 640),),
            control_hz=30.0,
            notes="Older sets have joints from -100 to 100. Sources disagree on which end of the gripper is open.",
        ),
    )
}


def get_preset(name: str) -> Convention:
    """A published convention by its name.

    Raises:
        UnknownNameError: if there is none.
    """
    if name not in PRESETS:
        raise UnknownNameError("convention", name, PRESETS)
    return PRESETS[name]


def of_robot(robot: str) -> Convention:
    """The convention of this gym's environments and agents for a robot.

    Raises:
        UnknownNameError: for a robot of which nothing is declared.
    """
    names = {"widowx": "simpler_widowx", "google_robot": "simpler_google_robot"}
    if robot not in names:
        raise UnknownNameError("robot", robot, names)
    return PRESETS[names[robot]]
