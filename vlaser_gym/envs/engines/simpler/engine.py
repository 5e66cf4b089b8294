"""The original SimplerEnv, driven through worker processes. It has its own controllers, rules and instructions."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.envs.engines.base import Floats, Ints, Placement, Reading, Verdict, refuse_other_cameras
from vlaser_gym.envs.engines.simpler.episodes import Episode, episode_of, nearest_episode, numbers_of
from vlaser_gym.envs.engines.simpler.process import Worker, find_interpreter
from vlaser_gym.envs.engines.simpler.settings import check_given
from vlaser_gym.envs.engines.simpler.starts import REACH, TURN, departures
from vlaser_gym.envs.robots import POLICY_CAMERA, RobotSetup, get_setup
from vlaser_gym.envs.tasks.base import Task
from vlaser_gym.errors import GymError, InvalidConfigError, SimulationError

#: Our flags that the original keeps in ``info["episode_stats"]``, by its names there.
_STATISTICS = {
    "ever_grasped": ("grasped", "is_src_obj_grasped"),
    "ever_consecutive_grasp": ("consec_grasp", "consecutive_grasp"),
    "is_drawer_open": ("is_drawer_open",),
    "has_contact": ("has_contact",),
}


@dataclass
class _Episode:
    """The placement of an environment and its past actions: enough to reach the same state again."""

    placement: Placement
    reading: Reading
    #: Actions ``[7]``, and None where a sub-task was declared done.
    history: list[Floats | None] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """Control steps taken."""
        return sum(action is not None for action in self.history)


class SimplerEngine:
    """The original simulator, with one worker process per environment.

    It keeps its environment while episodes are built alike, and begins each as a newly built one would.

    Args:
        num_lanes: number of simulations.
        look: ``"original"``.
        python: interpreter in which ``simpler_env`` can be imported.
        timeout: seconds that a worker may take to start, to begin an episode, or for a control step.
        env_kwargs: keyword arguments for the original's environments beside (or instead of) the protocol's.
        rebuild: build the environment anew for every episode, as the original's own evaluation does; slower, and to the
            last bit the same.
        pictures: images will be asked for. Without, environments are built to render nothing, in less than half the
            memory; an image that is asked for all the same costs as much as all that was done since the reset.

    Attributes:
        versions: of the original and its simulator, by package; ``version`` is all of them in one line.
        told: what the original says of itself in the first episode of each task, by the names of its settings.

    Raises:
        InvalidConfigError: if the interpreter does not exist or cannot import ``simpler_env``.
    """

    name = "simpler"
    policy_camera_only = True

    def __init__(
        self,
        num_lanes: int,
        look: str = "original",
        python: str | None = None,
        timeout: float = 300.0,
        env_kwargs: Mapping[str, Any] | None = None,
        rebuild: bool = False,
        pictures: bool = True,
    ) -> None:
        if not (isinstance(timeout, int | float) and timeout > 0):
            raise InvalidConfigError(f"engine.timeout must be a number of seconds above 0; got {timeout!r}.")
        self.look = look
        self._python, self._timeout = find_interpreter(python), float(timeout)
        self._env_kwargs, self._rebuild, self._pictures = env_kwargs or {}, bool(rebuild), bool(pictures)
        self.told: dict[str, dict[str, Any]] = {}
        self._episodes: list[_Episode | None] = [None] * num_lanes
        self._workers: list[Worker | None] = [None] * num_lanes
        try:
            self.version = self._introduction()
        except BaseException:
            self.close()
            raise

    def _introduction(self) -> str:
        """Start all workers; the first that has imported the original speaks for all."""
        for lane in range(len(self._workers)):
            self._worker(lane)
        first = self._worker(0)
        try:
            first.greet()
        except SimulationError as error:
            raise InvalidConfigError(f"engine.python={self._python} does not work. {error}") from error
        self.versions = dict(first.versions)
        return ", ".join(f"{name} {version or 'unknown'}" for name, version in first.versions.items())

    def place(self, lanes: Sequence[int], placements: Sequence[Placement]) -> None:
        """Begin episodes; all environments at the same time.

        Raises:
            InvalidConfigError: for what the original does not have, and for episodes that do not begin as they should.
            GymError: if the original cannot build an environment.
            SimulationError: if a worker dies or takes too long.
        """
        episodes = [self._commanded(placement) for placement in placements]
        for lane in lanes:
            self._episodes[lane] = None
            try:
                self._worker(lane).greet()
            except SimulationError as error:
                self._lose(lane)
                error.lanes = (int(lane),)
                raise
        for lane, placement, episode in zip(lanes, placements, episodes, strict=True):
            state = None if placement.name else _state(placement)
            robot = robot_names(get_setup(placement.task.robot_setup))
            how = {"rebuild": self._rebuild, "pictures": self._pictures}
            command = {"do": "place", "episode": asdict(episode), "robot": robot, "state": state, **how}
            self._worker(lane).ask(command, f"the beginning of {_named(placement)}")
        for row, told in self._answers(lanes):
            reading = _reading(placements[row], told)
            self.told.setdefault(placements[row].task.name, told["settings"])
            self._check_start(lanes[row], placements[row], told)
            self._episodes[lanes[row]] = _Episode(placements[row], reading)

    def _check_start(self, lane: int, placement: Placement, told: Mapping[str, Any]) -> None:
        """Refuse an episode of the benchmark that begins elsewhere, with what the simulator had to say."""
        wrong = departures(placement, told) if placement.name else []
        if not wrong:
            return
        said = self._worker(lane).complaints()
        log = f"its log says: {' / '.join(said)}" if said else "its log says nothing of it"
        others = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise InvalidConfigError(
            f"{_named(placement)} does not begin as the original does: {wrong[0]}{others} ({100 * REACH:g} cm and "
            f"{TURN:g} degrees are allowed); {log}. A mesh is missing in the installation, or it is not the release "
            "that this engine knows (docs/simpler.md): its scores would say nothing of a policy."
        )

    def _commanded(self, placement: Placement) -> Episode:
        task, variant = placement.task, placement.variant
        check_given(task, {"env_kwargs": self._env_kwargs})
        if placement.name:
            episode = episode_of(task, variant, placement.name)
        else:
            episode = nearest_episode(task, variant, placement.layout)
        return replace(episode, kwargs={**episode.kwargs, **self._env_kwargs})

    def execute(self, lanes: Ints, actions: Floats) -> None:
        """Run one control step on ``lanes`` with ``actions [B, 7]``; all environments at the same time."""
        for lane, action in zip(lanes, actions, strict=True):
            episode = self._episode(lane)
            about = f"control step {episode.steps + 1} of {_named(episode.placement)}"
            self._worker(lane).ask({"do": "step", "action": action.tolist()}, about)
        for row, told in self._answers(lanes):
            episode = self._episode(lanes[row])
            episode.history.append(np.array(actions[row], np.float64))
            episode.reading = _reading(episode.placement, told)

    def advance(self, lanes: Ints) -> None:
        """The agent declares the current sub-task done on ``lanes``."""
        for lane in lanes:
            self._worker(lane).ask({"do": "advance"}, f"the next sub-task of {_named(self._episode(lane).placement)}")
        for row, told in self._answers(lanes):
            episode = self._episode(lanes[row])
            episode.history.append(None)
            episode.reading = _reading(episode.placement, told)

    def read(self, lanes: Ints) -> list[Reading]:
        """States of ``lanes``, with the original's own verdicts."""
        return [self._episode(lane).reading for lane in lanes]

    def images(self, lanes: Ints, camera: str = POLICY_CAMERA) -> NDArray[np.uint8]:
        """The images of the policy's camera after the last control step, ``[B, H, W, 3]``."""
        refuse_other_cameras(self.name, [camera])
        return self._rendered("picture", lanes, (3,))

    def foreground(self, lanes: Ints) -> NDArray[np.bool_]:
        """The mask of robot, bodies and cabinet in those images, which the original keeps before a photograph:
        ``[B, H, W]``.
        """
        return self._rendered("foreground", lanes, ()) > 0

    def _rendered(self, what: str, lanes: Ints, channels: tuple[int, ...]) -> NDArray[np.uint8]:
        """``[B, H, W, *channels]`` of the policy's camera."""
        if not self._pictures:
            self._pictures = True
            self.set_state(self.get_state())
        for lane in lanes:
            self._worker(lane).ask({"do": what}, f"the {what} of {_named(self._episode(lane).placement)}")
        images = []
        for row, told in self._answers(lanes):
            seen = get_setup(self._episode(lanes[row]).placement.task.robot_setup).camera
            expected = (seen.height, seen.width, *channels)
            if tuple(told["shape"]) != expected:
                raise InvalidConfigError(
                    f"Expected images of shape {expected} of the original; got {tuple(told['shape'])}: its "
                    "installation is not the one that this engine knows."
                )
            images.append(self._worker(lanes[row]).image(expected))
        return np.stack(images)

    def get_state(self) -> dict[str, Any]:
        """The placement and the past actions of every environment, which the original repeats bit for bit."""
        # Readings and placements never change; the history grows.
        copies = [
            None if one is None else _Episode(one.placement, one.reading, copy.copy(one.history))
            for one in self._episodes
        ]
        return {"episodes": copies}

    def set_state(self, state: dict[str, Any]) -> None:
        """Begins the episodes again and repeats their actions, which takes as long as it took."""
        saved = [(lane, episode) for lane, episode in enumerate(state["episodes"]) if episode is not None]
        self.place([lane for lane, _ in saved], [episode.placement for _, episode in saved])
        for step in range(max((len(episode.history) for _, episode in saved), default=0)):
            events = [(lane, episode.history[step]) for lane, episode in saved if step < len(episode.history)]
            self.advance(np.array([lane for lane, action in events if action is None], np.int64))
            acting = [(lane, action) for lane, action in events if action is not None]
            self.execute(np.array([lane for lane, _ in acting], np.int64), np.array([action for _, action in acting]))

    def close(self) -> None:
        """Terminate all workers."""
        for worker in self._workers:
            if worker is not None:
                worker.close()
        self._workers = [None] * len(self._workers)

    def _worker(self, lane: int) -> Worker:
        """The environment's worker; a new one where the last was lost."""
        worker = self._workers[lane]
        if worker is None:
            worker = self._workers[lane] = Worker(self._python, self._timeout)
        return worker

    def _episode(self, lane: int) -> _Episode:
        episode = self._episodes[lane]
        if episode is None:
            raise SimulationError(f"Environment {lane} is not placed: reset it before it is stepped.")
        return episode

    def _answers(self, lanes: Sequence[int] | Ints) -> Iterator[tuple[int, dict[str, Any]]]:
        """``(row, what the worker of lanes[row] answers)``, and at the end the first failure.

        All are heard before, so that none is out of step afterwards. A worker that failed is replaced when its
        environment is placed again.
        """
        answers: list[tuple[int, dict[str, Any]]] = []
        failures: list[GymError] = []
        lost: list[int] = []
        for row, lane in enumerate(lanes):
            try:
                answers.append((row, self._worker(lane).answer()))
            except GymError as error:
                failures.append(error)
                lost.append(int(lane))
                self._lose(lane)
        yield from answers
        if failures:
            if isinstance(failures[0], SimulationError):
                failures[0].lanes = tuple(lost)
            raise failures[0]

    def _lose(self, lane: int) -> None:
        worker, self._workers[lane], self._episodes[lane] = self._workers[lane], None, None
        if worker is not None:
            worker.close()


def _named(placement: Placement) -> str:
    return f"{placement.task.name}/{placement.variant}/{placement.name or 'a state of its own'}"


def robot_names(setup: RobotSetup) -> dict[str, Any]:
    """The robot's numbers that the worker needs; the original orders the joints as this project does."""
    robot, numbers = setup.robot, numbers_of(setup.robot)
    order = [joint.name for joint in robot.moving_joints]
    return {
        "tcp": robot.tcp_link,
        "base": robot.links[0].name,
        "camera": setup.camera.name,
        "fingers": [order.index(name) for name in robot.gripper_joints],
        "open_at_limit": numbers.open_at_limit,
    }


def _state(placement: Placement) -> dict[str, Any]:
    """A state that is not one of the original's layouts, for the worker."""
    layout = placement.layout
    bodies = placement.task.objects_of(layout.cast)
    return {
        "qpos": placement.qpos.tolist(),
        "base": None if layout.base_pose is None else list(layout.base_pose),
        "joints": dict(layout.joints),
        "objects": {
            body.name: pose.tolist() for body, pose in zip(bodies, layout.object_pose, strict=True) if not body.fixed
        },
    }


def _reading(placement: Placement, told: Mapping[str, Any]) -> Reading:
    task, layout = placement.task, placement.layout
    names = [body.name for body in task.objects_of(layout.cast)]
    missing = [name for name in names if name not in told["objects"]]
    missing += [name for name in layout.joints if name not in told["joints"]]
    if missing:
        raise InvalidConfigError(
            f"{_named(placement)} has {missing[0]!r}; the original has {', '.join(told['objects']) or 'no bodies'}: "
            "its installation is not the one that this engine knows."
        )
    return Reading(
        qpos=np.array(told["qpos"]),
        qvel=np.array(told["qvel"]),
        object_pose=np.array([told["objects"][name] for name in names]).reshape(-1, 7),
        impulse=np.zeros((len(task.contacts_of(layout.cast)), 3)),
        joints={name: float(told["joints"][name]) for name in layout.joints},
        proprio=np.array(told["proprio"]),
        verdict=Verdict(_flags(task, told), int(told["subtask"]), str(told["instruction"])),
    )


def _flags(task: Task, told: Mapping[str, Any]) -> dict[str, bool]:
    """The task's flags in the original's words; all false before the first control step."""
    info, statistics = told["info"], told["stats"]
    if not info:
        return dict.fromkeys(task.flags, False)
    flags = {"success": bool(told["success"])}
    for name in task.flags[1:]:
        places = [(statistics, other) for other in _STATISTICS.get(name, ())] or [(info, name)]
        found = [values[key] for values, key in places if key in values]
        if not found:
            raise InvalidConfigError(
                f"The original reports no {places[0][1]!r} for {task.name}: its installation is not the one that this "
                "engine knows."
            )
        flags[name] = found[0] > 0
    return flags
