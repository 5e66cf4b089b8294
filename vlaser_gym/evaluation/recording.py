"""Recording what an agent saw and did, through the ordinary runner.

:class:`EpisodeCamera` stands between the runner and the environment and keeps images; :class:`LabelTap` stands
between the runner and the agent and keeps what the agent meant where that is not what it did; :class:`Recorder` puts
both together with the runner's result into a :class:`RecordedEpisode`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.agents.base import Agent, Observations
from vlaser_gym.envs import transforms
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.engines.base import Engine, refuse_other_cameras
from vlaser_gym.envs.robots import POLICY_CAMERA, get_setup
from vlaser_gym.envs.robots.kinematics import kinematic_tree
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.envs.tasks.cabinet import handle_pose, joint_name
from vlaser_gym.envs.vector import STATE_FIELDS
from vlaser_gym.evaluation.runner import EpisodeResult, Step, VectorEnv

Lanes = NDArray[np.int64]
Trajectory = Mapping[str, NDArray[Any]]
#: ``uint8 [B, H, W, 3]`` to ``[B, h, w, 3]``.
Resize = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


@dataclass(frozen=True)
class RecordedEpisode:
    """An episode as rows, one per control step.

    Attributes:
        address: which episode.
        instructions: what the robot was told, row by row; it changes where a task has stages.
        success: at the last step.
        frames: of the policy's camera, ``[R, h, w, 3]`` uint8.
        columns: arrays ``[R, ...]`` by name: ``proprio [8]``, ``state [26]`` (see
            :data:`~vlaser_gym.envs.vector.STATE_FIELDS`), ``action [7]`` (what ran), ``label [7]`` (what the agent
            meant), ``decision`` (a policy that decides every few steps does so here, and what follows is worth
            imitating), ``reward``, ``done``, ``flag/<name>``.
        views: frames of further cameras of the robot, by the camera's name.
    """

    address: Address
    instructions: tuple[str, ...]
    success: bool
    frames: NDArray[np.uint8]
    columns: dict[str, NDArray[Any]]
    views: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.frames)


class EpisodeCamera:
    """A vector environment for the runner that takes an image before every control step of each environment.

    Args:
        env: with autoreset mode DISABLED; observes the instruction.
        engine: who makes the images of ``env``.
        resize: makes the images that are kept; ``None`` keeps them as they are.
        tail: an episode ends when it has been successful for so many steps in a row; ``None`` lets it run to its limit.
        every: control steps between two images; the steps between repeat the last one.
        cameras: of the robot, whose images are kept.
        skip: control steps at the beginning of an episode of which nothing is kept.

    Raises:
        InvalidConfigError: if the engine has the policy's camera only and another is named.
    """

    def __init__(
        self,
        env: VectorEnv,
        engine: Engine,
        resize: Resize | None = None,
        tail: int | None = None,
        every: int = 1,
        cameras: Sequence[str] = (POLICY_CAMERA,),
        skip: int = 0,
    ) -> None:
        self.env, self.engine, self.resize, self.tail, self.every = env, engine, resize, tail, every
        self.skip = skip
        self.num_envs, self.cameras = env.num_envs, tuple(cameras)
        if getattr(engine, "policy_camera_only", False):
            refuse_other_cameras(engine.name, self.cameras)
        #: Of each environment, the images ``[h, w, 3]`` so far, by camera.
        self.frames: list[dict[str, list[NDArray[np.uint8]]]] = [{} for _ in range(env.num_envs)]
        self.instructions: list[list[str]] = [[] for _ in range(env.num_envs)]
        self._streak = np.zeros(env.num_envs, np.int64)
        self._steps = np.zeros(env.num_envs, np.int64)
        self._over = np.ones(env.num_envs, bool)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], Any]:
        """See :class:`~vlaser_gym.evaluation.runner.VectorEnv`."""
        observation, info = self.env.reset(seed=seed, options=options)
        lanes = np.flatnonzero((options or {}).get("reset_mask", np.ones(self.num_envs, bool)))
        self._streak[lanes] = self._steps[lanes] = 0
        self._over[lanes] = False
        for lane in lanes:
            self.frames[lane], self.instructions[lane] = {camera: [] for camera in self.cameras}, []
        self._shoot(lanes, observation)
        return observation, info

    def step_chunk(self, actions: NDArray[np.float64]) -> Step:
        """See :class:`~vlaser_gym.evaluation.runner.VectorEnv`; one step at a time."""
        horizon = actions.shape[1]
        steps = [self._step(actions[:, h : h + 1], h == horizon - 1) for h in range(horizon)]
        observation, _, _, _, info = steps[-1]
        terminated = np.any([step[2] for step in steps], axis=0)
        truncated = np.any([step[3] for step in steps], axis=0)
        newly_over = ~self._over & self._lasting()
        self._over |= terminated | truncated | newly_over
        return (
            observation,
            np.sum([step[1] for step in steps], axis=0),
            terminated | newly_over,
            truncated & ~newly_over,
            _joined([step[4] for step in steps], info),
        )

    def advance_to_next_subtask(self, lanes: Lanes) -> None:
        """See :class:`~vlaser_gym.evaluation.runner.VectorEnv`."""
        self.env.advance_to_next_subtask(lanes)

    def _step(self, action: NDArray[np.float64], is_last: bool) -> Step:
        """One control step ``[N, 1, 7]``; ``is_last`` of its chunk, behind which an episode may end by its ``tail``."""
        step = self.env.step_chunk(action)
        ran, success = step[4]["chunk"]["ran"][:, 0], step[4]["chunk"]["flags"]["success"][:, 0]
        self._streak = np.where(ran, np.where(success, self._streak + 1, 0), self._streak)
        ends = step[2] | step[3] | (self._lasting() & is_last)
        self._shoot(np.flatnonzero(ran & ~self._over & ~ends), step[0])
        return step

    def _lasting(self) -> NDArray[np.bool_]:
        return self._streak >= self.tail if self.tail is not None else np.zeros(self.num_envs, bool)

    def _shoot(self, lanes: Lanes, observation: Mapping[str, Any]) -> None:
        self._steps[lanes] += 1
        lanes = lanes[self._steps[lanes] > self.skip]
        due = np.array([lane for lane in lanes if len(self.instructions[lane]) % self.every == 0], np.int64)
        for camera in self.cameras:
            taken = self._pictures(due, observation, camera) if len(due) else ()
            pictures = dict(zip(due.tolist(), taken, strict=True))
            for lane in lanes.tolist():
                frames = self.frames[lane][camera]
                frames.append(pictures[lane] if lane in pictures else frames[-1])
        for lane in lanes.tolist():
            self.instructions[lane].append(observation["instruction"][lane])

    def _pictures(self, lanes: Lanes, observation: Mapping[str, Any], camera: str) -> NDArray[np.uint8]:
        """Images ``[L, h, w, 3]`` of ``lanes`` as they are kept."""
        name = "image" if camera == POLICY_CAMERA else f"{camera}_image"
        images = observation[name][lanes] if name in observation else self.engine.images(lanes, camera)
        return np.array(images if self.resize is None else self.resize(images))


class LabelTap:
    """An agent that does what another does, and keeps what that one says it ``intended`` and where it ``teaches``,
    environment by environment.
    """

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.observes = agent.observes
        self.labels: dict[int, list[NDArray[np.float64]]] = {}
        self.taught: dict[int, list[NDArray[np.bool_]]] = {}

    def reset(self, lanes: Lanes, addresses: Sequence[Address]) -> None:
        """See :class:`~vlaser_gym.agents.base.Agent`."""
        self.agent.reset(lanes, addresses)
        self.labels |= {int(lane): [] for lane in lanes}
        self.taught |= {int(lane): [] for lane in lanes}

    def act(self, observations: Observations, lanes: Lanes) -> NDArray[np.floating[Any]]:
        """See :class:`~vlaser_gym.agents.base.Agent`."""
        actions = self.agent.act(observations, lanes)
        intended = self.agent.intended(lanes) if hasattr(self.agent, "intended") else actions
        teaches = self.agent.teaches(lanes) if hasattr(self.agent, "teaches") else np.ones(len(lanes), bool)
        for lane, chunk, taught in zip(lanes, np.asarray(intended, np.float64), teaches, strict=True):
            self.labels[int(lane)].append(chunk)
            self.taught[int(lane)].append(np.full(len(chunk), taught))
        return actions

    def subtask_done(self, lanes: Lanes) -> NDArray[np.bool_]:
        """See :class:`~vlaser_gym.agents.base.Agent`."""
        if not hasattr(self.agent, "subtask_done"):
            return np.zeros(len(lanes), bool)
        return np.asarray(self.agent.subtask_done(lanes), bool)


class Recorder:
    """Turns the runner's results into recorded episodes.

    Args:
        camera, tap: what the runner runs.
        every: rows between two decisions of the policy that the episodes are for; the first row is one.
    """

    def __init__(self, camera: EpisodeCamera, tap: LabelTap, every: int = 1) -> None:
        self.camera, self.tap, self.every = camera, tap, every

    def episode(self, result: EpisodeResult, lane: int) -> RecordedEpisode:
        """The rows of the episode that has just ended on ``lane``, from those on that the camera keeps."""
        trajectory, steps, skip = result.trajectory, result.steps, self.camera.skip
        label = np.concatenate(self.tap.labels[lane])[:steps]
        label[:, 6] = np.clip(label[:, 6], -1, 1)  # as the grippers take it: a policy's may lie just outside
        columns = {
            "proprio": proprio_of(result.address, trajectory)[:steps],
            "state": state_of(result.address, trajectory)[:steps],
            "action": trajectory["action"],
            "label": label,
            "decision": ((np.arange(steps) - skip) % self.every == 0) & np.concatenate(self.tap.taught[lane])[:steps],
            "reward": trajectory["reward"].astype(np.float32),
            "done": np.arange(steps) == steps - 1,
            **{name: values for name, values in trajectory.items() if name.startswith("flag/")},
        }
        views = {camera: np.stack(frames) for camera, frames in self.camera.frames[lane].items()}
        columns = {name: values[skip:] for name, values in columns.items()}
        told = tuple(self.camera.instructions[lane])
        return RecordedEpisode(result.address, told, result.success, views.pop(POLICY_CAMERA), columns, views)


def proprio_of(address: Address, trajectory: Trajectory) -> NDArray[np.float32]:
    """The environment's ``proprio [T + 1, 8]`` from recorded joint positions."""
    setup = get_setup(get_task(address.task).robot_setup)
    qpos = np.asarray(trajectory["qpos"], np.float64)
    link = setup.robot.tcp_link
    rotation, position = kinematic_tree(setup.robot).link_poses(qpos, [link])[link]
    pose = transforms.make_pose(position, rotation)
    return np.concatenate([pose, setup.openness(qpos)[:, None]], -1).astype(np.float32)


def state_of(address: Address, trajectory: Trajectory) -> NDArray[np.float32]:
    """The environment's privileged ``state [T + 1, 26]`` from recorded states.

    The stage is 0 in trajectories without one, such as those stored before it was recorded.
    """
    task = get_task(address.task)
    proprio = proprio_of(address, trajectory)
    state = np.zeros((len(proprio), 26), np.float32)
    state[:, :8] = proprio
    layout = task.layout(address.layout, address.variant)
    base = transforms.invert(np.asarray(layout.base_pose or get_setup(task.robot_setup).base_pose))
    source = task.source if layout.source is None else layout.source
    target = task.target if layout.target is None else layout.target
    for name, index in (("source", source), ("target", source if target < 0 and not layout.goal_joint else target)):
        if index >= 0:
            poses = np.asarray(trajectory[f"object/{task.objects_of(layout.cast)[index].name}"], np.float64)
        else:  # the middle of the drawer's handle
            drawer = layout.goal_joint.removesuffix(joint_name(""))
            openings = trajectory[f"joint/{layout.goal_joint}"]
            poses = np.array([handle_pose(drawer, float(opening)) for opening in openings])
        state[:, STATE_FIELDS[name]] = transforms.compose(base, poses)
    joints = [values for name, values in trajectory.items() if name.startswith("joint/")]
    for column, values in enumerate(joints):
        state[:, 22 + column] = values
    if "stage" in trajectory:
        state[:, STATE_FIELDS["stage"]] = trajectory["stage"][:, None]
    return state


def _joined(infos: list[dict[str, Any]], last: dict[str, Any]) -> dict[str, Any]:
    """The info of one chunk from those of its pieces."""
    if len(infos) == 1:
        return last
    chunks = [info["chunk"] for info in infos]
    chunk = {name: np.concatenate([c[name] for c in chunks], axis=1) for name in ("ran", "reward")}
    flags = {name: np.concatenate([c["flags"][name] for c in chunks], axis=1) for name in chunks[0]["flags"]}
    joined = {**last, "steps": sum(info["steps"] for info in infos), "chunk": {**chunk, "flags": flags}}
    if "states" in last:
        joined["states"] = []
        for of_lane in zip(*(info["states"] for info in infos), strict=True):
            parts = [part for part in of_lane if part]
            names = parts[0] if parts else {}
            joined["states"].append({name: np.concatenate([part[name] for part in parts]) for name in names})
    return joined
