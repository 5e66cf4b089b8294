"""Vision and execution: what is changed in the scene itself. Light, cameras, surfaces, friction, mass, start."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vlaser_gym.envs.engines.base import Placement
from vlaser_gym.envs.perturbations.base import Floats, Moment, Perturbation, Shift
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.envs.tasks.base import Task

#: A photograph hides light, walls and table, and shows what one camera saw from one place.
_BUILTIN = ("builtin",)
_MUJOCO = ("mujoco",)
#: What red, green and blue contribute to it (ITU-R BT.601).
_LUMINANCE = np.array([0.299, 0.587, 0.114])
#: After which share of an episode's step limit the object is displaced: the arm is then on its way.
_SHIFT_AT = 0.05


class CameraPose(Perturbation):
    """A camera that was mounted or knocked elsewhere."""

    name, family, engines, looks = "camera_pose", "vision", _MUJOCO, _BUILTIN
    sentence = "cameras displaced by {strength} mm and turned by a tenth of that in degrees, in drawn directions"
    strengths = (10.0, 25.0, 50.0)

    def place(self, placement: Placement, moment: Moment) -> Placement:
        """Displace and turn about directions drawn for the episode."""
        where, axis = (_direction(moment.of_episode(), i) for i in range(2))
        shift = tuple((where * self.strength / 1000).tolist())
        turn = tuple((axis * np.deg2rad(self.strength / 10)).tolist())
        return replace(placement, sight=placement.sight._replace(shift=shift, turn=turn))


class FocalLength(Perturbation):
    """A camera of the same place with another lens."""

    name, family, engines, looks = "focal_length", "vision", _MUJOCO, _BUILTIN
    sentence = "focal length times {strength}, or divided by it, by chance"
    strengths = (1.05, 1.12, 1.25)

    def place(self, placement: Placement, moment: Moment) -> Placement:
        """Longer or shorter, drawn for the episode."""
        longer = moment.of_episode().random() < 0.5
        return replace(placement, sight=placement.sight._replace(zoom=self.strength if longer else 1 / self.strength))


class LightDirection(Perturbation):
    """Light from elsewhere."""

    name, family, engines, looks = "light_direction", "vision", _MUJOCO, _BUILTIN
    sentence = "all lights turned by {strength} degrees about a horizontal axis drawn for the episode"
    strengths = (20.0, 40.0, 70.0)

    def place(self, placement: Placement, moment: Moment) -> Placement:
        """Turn them."""
        angle = moment.of_episode().uniform(0, 2 * np.pi)
        turn = np.deg2rad(self.strength) * np.array([np.cos(angle), np.sin(angle), 0.0])
        return replace(placement, sight=placement.sight._replace(light_turn=tuple(turn.tolist())))


class LightColour(Perturbation):
    """Light of another colour that is as bright."""

    name, family, engines, looks = "light_colour", "vision", _MUJOCO, _BUILTIN
    sentence = "red, green and blue of the light times up to {strength} or divided by it, at the same luminance"
    strengths = (1.1, 1.25, 1.5)

    def place(self, placement: Placement, moment: Moment) -> Placement:
        """Colour it."""
        log = moment.of_episode().normal(size=3)
        log -= log.mean()
        colour = self.strength ** (log / np.abs(log).max())
        colour /= colour @ _LUMINANCE
        return replace(placement, sight=placement.sight._replace(light_colour=tuple(colour.tolist())))


class _Surfaces(Perturbation):
    """Surfaces of other colours, each of its own: planks and grain too, so that patterns change with them."""

    family, engines, looks = "vision", _MUJOCO, _BUILTIN
    strengths = (0.15, 0.35, 0.7)
    surfaces: str

    def place(self, placement: Placement, moment: Moment) -> Placement:
        """Draw the colours' seed; the renderer knows what there is to colour."""
        seed = int(moment.of_episode().integers(2**31))
        return replace(placement, sight=placement.sight._replace(repaint=(self.surfaces, seed, self.strength)))


class TableTexture(_Surfaces):
    """Another texture of the surface on which the objects lie; with a cabinet, of the cabinet."""

    name, surfaces = "table_texture", "table"
    sentence = "table or cabinet mixed with a drawn colour and pattern, of which {strength} are taken"


class Background(_Surfaces):
    """Another texture of the surroundings of the table."""

    name, surfaces = "background", "background"
    sentence = "walls, floor and furniture mixed with drawn colours, of which {strength} are taken"


class StartPose(Perturbation):
    """The arm begins elsewhere."""

    name, family, engines = "start_pose", "execution", ("mujoco", "maniskill")
    sentence = "every joint of the arm begins up to {strength} rad off, drawn for the episode"
    strengths = (0.03, 0.07, 0.15)

    def place(self, placement: Placement, moment: Moment) -> Placement:
        """Displace the arm's joints, within their limits."""
        robot = get_setup(placement.task.robot_setup).robot
        offsets = moment.of_episode().uniform(-1, 1, len(robot.arm_joints)) * self.strength
        named = dict(zip(robot.arm_joints, offsets, strict=True))
        start = [
            np.clip(value + named[joint.name], joint.lower, joint.upper) if joint.name in named else value
            for joint, value in zip(robot.moving_joints, placement.qpos, strict=True)
        ]
        return replace(placement, qpos=np.array(start))


class Friction(Perturbation):
    """Everything is more slippery."""

    name, family, engines = "friction", "execution", _MUJOCO
    sentence = "sliding friction of all surfaces times {strength}"
    strengths = (0.7, 0.45, 0.25)

    def place(self, placement: Placement, moment: Moment) -> Placement:
        """Scale it."""
        return replace(placement, physics=placement.physics._replace(friction=self.strength))


class Mass(Perturbation):
    """Objects are heavier."""

    name, family, engines = "mass", "execution", _MUJOCO
    sentence = "mass and inertia of all objects times {strength}"
    strengths = (2.0, 4.0, 8.0)

    def place(self, placement: Placement, moment: Moment) -> Placement:
        """Scale them."""
        return replace(placement, physics=placement.physics._replace(mass=self.strength))


class ObjectMoved(Perturbation):
    """Somebody moves the object while the robot reaches for it."""

    name, family, engines = "object_moved", "execution", _MUJOCO
    sentence = (
        "the object on the table displaced by {strength} mm after 5 % of the step limit, away from its neighbours and "
        "the gripper, unless it was lifted by then"
    )
    strengths = (15.0, 30.0, 50.0)

    def applies(self, task: Task) -> bool:
        """Only to objects that lie free on a table: in a sink or a drawer there is no room."""
        return task.source >= 0 and task.scenery in ("bridge_table", "google_table")

    def shift(self, moment: Moment) -> Shift:
        """Shift in a direction drawn for the episode."""
        angle = moment.of_episode().uniform(0, 2 * np.pi)
        x, y = self.strength / 1000 * np.array([np.cos(angle), np.sin(angle)])
        return Shift(round(_SHIFT_AT * get_task(moment.address.task).max_steps), (float(x), float(y)))


def _direction(rng: np.random.Generator, index: int) -> Floats:
    """The ``index``-th of the unit vectors drawn from a stream."""
    vector = rng.normal(size=(index + 1, 3))[index]
    return np.asarray(vector / np.linalg.norm(vector))
