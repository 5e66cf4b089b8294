"""The scripted expert: reads the privileged state, moves the source object onto the target.

It plans in the robot-base frame with waypoints (above, down, close, lift, carry, lower, open, retreat) and knows the
controller's rule, so that it can track the target pose that its own actions have accumulated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.agents.base import Observations
from vlaser_gym.agents.disturbance import Disturbance, Miss, Pushes
from vlaser_gym.agents.scripted_cabinet import CabinetEpisode
from vlaser_gym.agents.scripted_google import GoogleEpisode, TableEpisode
from vlaser_gym.conventions import rotations
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.envs.tasks.base import Grasp, Task
from vlaser_gym.envs.vector import STATE_FIELDS
from vlaser_gym.errors import InvalidConfigError

Floats = NDArray[np.float64]

#: Orientation of a gripper that points straight down: approach axis x down, closing axis y.
_DOWN = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
_OPEN, _CLOSE = 1.0, -1.0
#: Greatest turn of the gripper about the vertical (rad) for objects that look alike after half a turn: 22.5 degrees
#: from the nearest headings of the grids (carrot and spoon 0 and 90 degrees, eggplant -45, 0 and 45).
_GREATEST_YAW = np.deg2rad(112.5)


@dataclass(frozen=True)
class Script:
    """Numbers of the motion; lengths in metres, angles in radians.

    Attributes:
        max_step, max_turn: largest translation and rotation of one action.
        approach: height of the waypoint above the object before it is grasped.
        grasp_offset: height of the TCP over the object's centre of mass when the fingers close.
        lift: how far the object is raised before it is carried.
        release: height of the object over its place when the fingers open.
        close_steps, open_steps: control steps that the fingers get.
    """

    max_step: float = 0.03
    max_turn: float = 0.25
    approach: float = 0.07
    grasp_offset: float = 0.0
    lift: float = 0.10
    release: float = 0.01
    close_steps: int = 4
    open_steps: int = 3


#: By the object that is carried.
_SCRIPTS = {
    # The fingers reach 16 mm below the TCP: at the spoon's own height they would stand on the table.
    "bridge_spoon_generated_modified": Script(grasp_offset=0.0085),
    "baked_green_cube_3cm": Script(release=0.005),
    "eggplant": Script(approach=0.10, lift=0.14, release=0.06),
}


class ScriptedExpert:
    """Solves every task from its ``state`` observation; one action per decision.

    Args:
        disturbance: keyword arguments of :class:`Disturbance`; ``None`` lets the expert act undisturbed. The draws
            depend on the episode's address.
        declares: say that the first sub-task of an episode of two is done, so that the instruction changes at once.
            False: wait for the control step from which the environment tells the second to everybody, as policies
            that declare nothing have to.
    """

    observes: tuple[str, ...] = ("state",)

    def __init__(self, disturbance: Mapping[str, float] | None = None, declares: bool = True) -> None:
        self._declares = declares
        self._disturbance = None if disturbance is None else Disturbance(**disturbance)  # type: ignore[arg-type]
        self._episodes: dict[int, _Episode | GoogleEpisode] = {}

    def reset(self, lanes: NDArray[np.int64], addresses: Sequence[Address]) -> None:
        """Plan anew on these environments."""
        for lane, address in zip(lanes, addresses, strict=True):
            task = get_task(address.task)
            episode = _start(task, address)
            self._episodes[int(lane)] = episode
            episode.waits = not self._declares
            episode.pushes = Pushes(self._disturbance, address.rng("disturbance"))
            if self._disturbance is not None and self._disturbance.misses:
                _aim(episode, self._disturbance.draw_miss(address.rng("miss")))

    def act(self, observations: Observations, lanes: NDArray[np.int64]) -> Floats:
        """``[N, 1, 7]`` actions."""
        states = np.asarray(observations["state"], np.float64)
        return np.array([[self._episodes[int(lane)].act(state)] for lane, state in zip(lanes, states, strict=True)])

    def intended(self, lanes: NDArray[np.int64]) -> Floats:
        """``[N, 1, 7]``: the last actions without disturbance, which is what a learner should imitate."""
        return np.array([[self._episodes[int(lane)].intended] for lane in lanes])

    def teaches(self, lanes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """False where the last actions led to a miss on purpose, which nobody should imitate, ``[N]``."""
        return np.array([self._episodes[int(lane)].teaches for lane in lanes])

    def subtask_done(self, lanes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """True where the first sub-task of an episode of two is done, ``[N]``."""
        return np.array([self._episodes[int(lane)].subtask_done for lane in lanes])


def _aim(episode: _Episode | GoogleEpisode, miss: Miss) -> None:
    """Aim an episode's first grasp beside the object.

    Raises:
        InvalidConfigError: for the Google Robot's cabinets, whose script knows no way back.
    """
    if not isinstance(episode, _Episode | TableEpisode):
        raise InvalidConfigError(
            "agent.disturbance.misses is for tasks on a table, whose expert tries again; leave it 0 before the cabinet."
        )
    episode.miss = miss


def _start(task: Task, address: Address) -> _Episode | GoogleEpisode:
    if get_setup(task.robot_setup).robot.name == "google_robot":
        return CabinetEpisode(task, address) if task.scenery == "google_cabinet" else TableEpisode(task, address)
    return _Episode(task, _script_of(task))


def _script_of(task: Task) -> Script:
    return _SCRIPTS.get(task.objects[task.source].name, Script())


class _Episode:
    """The script of one episode as a generator of (goal position, goal rotation, gripper)."""

    def __init__(self, task: Task, script: Script) -> None:
        self._task, self._script = task, script
        self._plan: Iterator[float] | None = None
        self._position, self._rotation = np.zeros(3), np.eye(3)
        self._tcp, self._source, self._target = np.zeros(3), np.zeros(3), np.zeros(3)
        self._source_origin = np.zeros(3)
        self._source_rotation = np.eye(3)
        self._goal, self._goal_rotation = np.zeros(3), np.eye(3)
        self.intended = np.zeros(7)
        self.pushes = Pushes()
        self.miss = Miss()
        self.teaches, self.subtask_done, self.waits = True, False, False

    def act(self, state: Floats) -> Floats:
        """The next action ``[7]`` from an observed ``state``: towards the goal, with the push of this chunk in it."""
        self._read(state)
        if self._plan is None:
            self._position, self._rotation = self._tcp.copy(), rotations.matrix_from_quaternion(state[3:7])
            self._goal, self._goal_rotation = self._position, self._rotation
            self._pushed = self._position, self._rotation
            self._plan = self._run()
        if self.pushes.fresh:
            self._position, self._rotation = self._pushed
        gripper = next(self._plan)
        self.intended = self._towards_goal(gripper)
        return self._pushed_off()

    def _pushed_off(self) -> Floats:
        """The intended action with the push of this chunk; keeps track of where the target really is."""
        action = self.intended + self.pushes.next()
        matrix = rotations.matrix_from_axis_angle(action[3:6])
        position, rotation = self._pushed
        self._pushed = self._tcp + matrix @ (position - self._tcp) + action[:3], matrix @ rotation
        return action

    def _read(self, state: Floats) -> None:
        self._tcp, self._source_origin = state[:3], state[STATE_FIELDS["source"]][:3]
        self._source, self._source_rotation = self._centre(state[STATE_FIELDS["source"]], self._task.source)
        self._target, _ = self._centre(state[STATE_FIELDS["target"]], self._task.target)

    def _centre(self, pose: Floats, index: int) -> tuple[Floats, Floats]:
        rotation = rotations.matrix_from_quaternion(pose[3:])
        return pose[:3] + rotation @ np.array(self._task.objects[index].com), rotation

    def _towards_goal(self, gripper: float) -> Floats:
        """The action that moves the controller's target towards the goal, and what the controller makes of it.

        It never arrives before it has turned: over an object, which it hides from the camera, a gripper that still has
        to turn would look like one that need not.
        """
        turn = rotations.axis_angle_from_matrix(self._goal_rotation @ self._rotation.T)
        turns = max(float(np.linalg.norm(turn)) / self._script.max_turn, 1.0)
        turn /= turns
        matrix = rotations.matrix_from_axis_angle(turn)
        # A turn about the measured TCP also moves a target that is ahead of it; the translation makes up for that.
        turned = self._tcp + matrix @ (self._position - self._tcp)
        step = self._goal - turned
        step *= min(1 / np.ceil(turns), self._script.max_step / max(float(np.linalg.norm(step)), 1e-9))
        self._position, self._rotation = turned + step, matrix @ self._rotation
        return np.concatenate([step, turn, [gripper]])

    def _run(self) -> Iterator[float]:
        """Grasp until the object hangs in the fingers, then place it; then stay."""
        rest = self._source[2]
        for miss in (self.miss, Miss(), Miss()):
            self.teaches = not miss
            yield from self._grasp(miss)
            if self._source[2] > rest + self._script.lift / 2:
                break
        self.teaches = True
        yield from self._place(rest)
        while True:
            yield _OPEN

    def _grasp(self, miss: Miss) -> Iterator[float]:
        script = self._script
        known = self._known_grasp()
        self._goal_rotation = self._grasp_rotation(known)
        grasp = self._source + [0, 0, script.grasp_offset]
        if known is not None:
            grasp = self._source_origin + self._source_rotation @ known.point
        grasp = grasp + miss.error
        yield from self._move(grasp + [0, 0, script.approach], _OPEN)
        # Beside its middle the object may be in the way, so that the fingers close higher.
        yield from self._move(grasp, _OPEN, tolerance=0.004, most=7 if miss else 20)
        if miss.noticed:
            return
        yield from self._wait(script.close_steps, _CLOSE)
        yield from self._move(grasp + [0, 0, script.lift], _CLOSE, most=5 if miss else 20)

    def _place(self, rest: float) -> Iterator[float]:
        script = self._script
        held = self._tcp - self._source
        height = self._target[2] + self._task.objects[self._task.target].bbox[2] / 2 + self._half_height(rest)
        place = np.array([*self._target[:2], height + script.release])
        over = place + [0, 0, max(script.lift - script.release, 0.02)]
        yield from self._move(np.array([*over[:2], self._goal[2] - held[2]]) + held, _CLOSE)
        held = self._tcp - self._source
        yield from self._move(place + held, _CLOSE, tolerance=0.004)
        yield from self._wait(script.open_steps, _OPEN)
        yield from self._move(self._goal + [0, 0, script.approach], _OPEN)

    def _half_height(self, rest: float) -> float:
        """Height of the source's centre over its support, known from where it lay."""
        return min(rest, max(self._task.objects[self._task.source].bbox) / 2)

    def _known_grasp(self) -> Grasp | None:
        """The object's own grasp for the posture in which it lies; ``None`` where it names none."""
        grasps = self._task.objects[self._task.source].grasps
        return max(grasps, key=lambda grasp: float((self._source_rotation @ grasp.up)[2]), default=None)

    def _grasp_rotation(self, known: Grasp | None = None) -> Floats:
        """Pointing down, the fingers closing as a known grasp says, else across the object's longest axis.

        Of the equivalent turns the one is taken that lies in a fixed range. Where the range begins and ends, equal
        images are answered by opposite turns, which no policy can imitate: no layout of the benchmark lies there.
        """
        box = np.array(self._task.objects[self._task.source].bbox)
        axis = self._source_rotation[:, int(np.argmax(box))]
        yaw = float(np.arctan2(axis[1], axis[0]))
        symmetry, greatest = (np.pi / 2, np.pi / 4) if np.isclose(box[0], box[1]) else (np.pi, _GREATEST_YAW)
        if known is not None:
            closing = self._source_rotation @ known.axis
            yaw, symmetry, greatest = float(np.arctan2(-closing[0], closing[1])), np.pi, _GREATEST_YAW
        yaw = greatest - (greatest - yaw) % symmetry
        return np.asarray(rotations.matrix_from_axis_angle([0, 0, yaw]) @ _DOWN)

    def _move(self, goal: Floats, gripper: float, tolerance: float = 0.012, most: int = 20) -> Iterator[float]:
        self._goal = goal
        for _ in range(most):
            yield gripper
            settled = np.linalg.norm(self._tcp - goal) < tolerance
            turned = np.abs(self._goal_rotation - self._rotation).max() < 0.05
            if settled and turned:
                return

    @staticmethod
    def _wait(steps: int, gripper: float) -> Iterator[float]:
        for _ in range(steps):
            yield gripper
